"""Week 04's functions: plain-loop specifications, agreement with torch's own loss, and the traps of real code."""

import importlib.util
import inspect
import math
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from reference_impl import process_reward as reference

ROOT = Path(__file__).parents[1]
NAMES = ["prm_labels", "prm_loss", "step_scores", "aggregate_steps", "rerank_accuracy"]
HOWS = ["min", "prod", "mean", "last"]
MASK_DTYPES = [torch.bool, torch.uint8, torch.int64, torch.float32, torch.float64]


def load(path):
    spec = importlib.util.spec_from_file_location("week04_" + path.parts[-3], path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


solution = load(ROOT / "solutions/04/process_reward.py")
stub = load(ROOT / "weeks/04/process_reward.py")
both = pytest.mark.parametrize("impl", [reference, solution], ids=["reference", "solution"])


def doubles(values):
    return torch.tensor(values, dtype=torch.float64)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0, scale=1.0):
    return scale * torch.randn(*shape, dtype=torch.float64, generator=generator(seed))


def some_labels(rows=5, tokens=11, seed=0):
    """About a third of the positions labelled, the first row not at all."""
    labels = torch.randint(0, 3, (rows, tokens), generator=generator(seed))
    labels[torch.rand(rows, tokens, generator=generator(seed + 1)) < 0.65] = -100
    labels[0] = -100
    return labels


def value_and_grad(function, x):
    x = x.detach().clone().requires_grad_()
    value = function(x)
    return value.detach(), torch.autograd.grad(value.sum(), x)[0]


# ---- prm_labels


@both
@pytest.mark.parametrize("mask_dtype", MASK_DTYPES)
@pytest.mark.parametrize("seed", range(5))
def test_the_kth_separator_of_the_completion_gets_the_kth_rating(impl, mask_dtype, seed):
    rows, tokens, separator = 5, 13, 3
    input_ids = torch.randint(0, 5, (rows, tokens), generator=generator(seed))
    mask = torch.zeros(rows, tokens)
    for row in range(rows):
        mask[row, row % 4 : tokens - (row + seed) % 3] = 1
    ratings = [torch.randint(-1, 2, (k,), generator=generator(k)).tolist() for k in (0, 1, 9, 2, 4)]
    expected = [[-100] * tokens for _ in range(rows)]
    for row in range(rows):
        left = list(ratings[row])
        for t in range(tokens):
            if input_ids[row, t] == separator and mask[row, t] and left:
                expected[row][t] = left.pop(0) + 1
    before = input_ids.clone()
    labels = impl.prm_labels(input_ids, separator, ratings, mask.to(mask_dtype))
    assert labels.dtype == torch.long and labels.tolist() == expected
    assert torch.equal(input_ids, before) and (labels >= 0).any() and len(ratings[2]) == 9


@both
def test_separators_of_the_prompt_and_of_the_padding_end_no_step(impl):
    input_ids = torch.tensor([[7, 7, 1, 7, 2, 7, 7]], dtype=torch.int32)
    mask = torch.tensor([[0, 0, 1, 1, 1, 1, 0]])
    labels = impl.prm_labels(input_ids, 7, [[-1, 0, 1, 1]], mask)
    assert labels.tolist() == [[-100, -100, -100, 0, -100, 1, -100]]
    assert impl.prm_labels(input_ids, 7, [[-1]], mask).tolist() == [[-100, -100, -100, 0, -100, -100, -100]]
    assert (impl.prm_labels(input_ids, 7, [[]], mask) == -100).all()


def test_the_reference_names_a_rating_or_a_count_that_makes_no_sense():
    with pytest.raises(ValueError, match=r"step_ratings\[1\].*2"):
        reference.prm_labels(torch.zeros(2, 3, dtype=torch.long), 0, [[1], [2]], torch.ones(2, 3))
    with pytest.raises(ValueError, match="1 lists for 2 rows"):
        reference.prm_labels(torch.zeros(2, 3, dtype=torch.long), 0, [[1]], torch.ones(2, 3))


# ---- prm_loss


@both
def test_prm_loss_is_torchs_cross_entropy_with_its_ignored_index(impl):
    logits, labels = randn(5, 11, 3, seed=1, scale=2.0), some_labels()
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
    assert_close(impl.prm_loss(logits, labels), expected)
    assert torch.autograd.gradcheck(lambda x: impl.prm_loss(x, labels), logits.requires_grad_())


@both
def test_an_ignored_label_is_not_a_positive_step(impl):
    """labels.bool() is true at -100; with it, the unlabelled position would pull the loss to its own logits."""
    logits, labels = doubles([[[9.0, 0.0, 0.0], [0.0, 0.0, 0.0]]]), torch.tensor([[-100, 2]])
    value, grad = value_and_grad(lambda x: impl.prm_loss(x, labels), logits)
    assert_close(value, doubles(math.log(3)))
    assert_close(grad, doubles([[[0.0, 0.0, 0.0], [1 / 3, 1 / 3, -2 / 3]]]))


@both
@pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf, 30.0])
def test_what_stands_at_unlabelled_positions_changes_nothing(impl, garbage):
    logits, labels = randn(5, 11, 3, seed=2), some_labels()
    dirty = logits.masked_fill((labels == -100).unsqueeze(-1), garbage)
    for function in (
        lambda x: impl.prm_loss(x, labels),
        lambda x: torch.cat(impl.step_scores(x, labels)),
    ):
        value, grad = value_and_grad(function, logits)
        dirty_value, dirty_grad = value_and_grad(function, dirty)
        assert_close(dirty_value, value)
        assert_close(dirty_grad, grad)


@both
def test_without_labels_loss_and_gradient_are_zero(impl):
    labels = torch.full((2, 5), -100)
    value, grad = value_and_grad(lambda x: impl.prm_loss(x, labels), randn(2, 5, 3) * math.nan)
    assert value == 0 and (grad == 0).all()


@both
def test_extreme_logits_keep_a_finite_loss(impl):
    logits = torch.tensor([[[1e4, 0.0, -1e4], [-math.inf, 0.0, 0.0]]])
    value, grad = value_and_grad(lambda x: impl.prm_loss(x, torch.tensor([[2, 1]])), logits)
    assert_close(value, torch.tensor((2e4 + math.log(2)) / 2))
    assert_close(grad, torch.tensor([[[0.5, 0.0, -0.5], [0.0, -0.25, 0.25]]]))


# ---- step_scores


@both
def test_step_scores_are_the_probability_of_good_at_each_label(impl):
    logits, labels = randn(5, 11, 3, seed=3, scale=2.0), some_labels(seed=4)
    scores = impl.step_scores(logits, labels)
    assert len(scores) == 5 and scores[0].shape == (0,)
    for row in range(5):
        expected = []
        for t in (labels[row] != -100).nonzero().flatten().tolist():
            bad, neutral, good = (math.exp(z) for z in logits[row, t].tolist())
            expected.append(good / (bad + neutral + good))
        assert_close(scores[row], doubles(expected))
    strided = logits.repeat_interleave(2, dim=1)[:, ::2]
    assert all(torch.equal(a, b) for a, b in zip(impl.step_scores(strided, labels), scores, strict=True))


# ---- aggregate_steps


@both
@pytest.mark.parametrize("mask_dtype", MASK_DTYPES)
@pytest.mark.parametrize("how", HOWS)
def test_aggregation_in_plain_loops_over_the_real_steps(impl, mask_dtype, how):
    scores = torch.rand(4, 7, dtype=torch.float64, generator=generator(1))
    mask = torch.tensor([[1, 1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 1, 1, 0], [1] * 7, [0, 0, 0, 0, 0, 1, 0]])
    rule = {"min": min, "prod": math.prod, "mean": lambda row: sum(row) / len(row), "last": lambda row: row[-1]}[how]
    expected = doubles([rule(row[m.bool()].tolist()) for row, m in zip(scores, mask, strict=True)])
    result = impl.aggregate_steps(scores, mask.to(mask_dtype), how)
    assert result.dtype == torch.float64
    assert_close(result, expected)
    for garbage in (math.nan, math.inf, -30.0):
        value, grad = value_and_grad(lambda x: impl.aggregate_steps(x, mask, how), scores)
        dirty = scores.masked_fill(mask == 0, garbage)
        dirty_value, dirty_grad = value_and_grad(lambda x: impl.aggregate_steps(x, mask, how), dirty)
        assert_close(dirty_value, value)
        assert_close(dirty_grad, grad)


@both
@pytest.mark.parametrize("how", HOWS)
def test_a_row_without_steps_scores_zero(impl, how):
    scores, mask = doubles([[math.nan, 0.9], [0.5, 0.7]]), torch.tensor([[0, 0], [1, 0]])
    assert_close(impl.aggregate_steps(scores, mask, how), doubles([0.0, 0.5]))


@both
def test_the_product_is_accurate_for_long_chains_and_exactly_zero_with_a_zero(impl):
    scores = 0.9 + 0.1 * torch.rand(2, 1000, generator=generator(2))
    scores[1, 500] = 0.0
    expected = math.prod(scores[0].tolist())
    result = impl.aggregate_steps(scores, torch.ones(2, 1000), "prod")
    assert expected < 1e-10
    assert result[0].item() == pytest.approx(expected, rel=1e-5) and result[1] == 0
    half = impl.aggregate_steps(scores.bfloat16(), torch.ones(2, 1000), "prod")
    assert half[0].item() == pytest.approx(math.prod(scores[0].bfloat16().tolist()), rel=1e-4)


@both
def test_other_words_are_named(impl):
    with pytest.raises(ValueError, match="max"):
        impl.aggregate_steps(torch.ones(1, 1), torch.ones(1, 1), "max")


# ---- rerank_accuracy


@both
@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32])
def test_tied_best_samples_share_the_credit(impl, dtype):
    scores = torch.randint(0, 3, (7, 5), generator=generator(3)).double()
    correct = torch.randint(0, 2, (7, 5), generator=generator(4))
    shares = []
    for s, c in zip(scores.tolist(), correct.tolist(), strict=True):
        best = [c[n] for n in range(5) if s[n] == max(s)]
        shares.append(sum(best) / len(best))
    result = impl.rerank_accuracy(scores, correct.to(dtype))
    assert_close(result, doubles(shares).mean())
    order = torch.randperm(5, generator=generator(5))
    assert_close(impl.rerank_accuracy(scores[:, order], correct[:, order]), result)
    assert_close(impl.rerank_accuracy(torch.zeros_like(scores), correct), correct.double().mean())


@both
def test_log_scores_of_minus_infinity_tie_with_each_other(impl):
    scores = torch.full((1, 4), -math.inf)
    assert_close(impl.rerank_accuracy(scores, torch.tensor([[1, 0, 0, 0]])), torch.tensor(0.25))


# ---- all


@pytest.mark.parametrize("seed", range(10))
def test_solution_and_reference_agree(seed):
    logits, labels = randn(5, 11, 3, seed=seed, scale=5.0), some_labels(seed=seed)
    assert_close(solution.prm_loss(logits, labels), reference.prm_loss(logits, labels))
    assert_close(solution.prm_loss(logits.half(), labels), reference.prm_loss(logits.half(), labels))
    assert_close(solution.step_scores(logits, labels), reference.step_scores(logits, labels))
    scores, mask = torch.rand(5, 7, generator=generator(seed)), torch.rand(5, 1, generator=generator(seed + 1))
    mask = torch.arange(7) / 7 < mask
    for how in HOWS:
        assert_close(solution.aggregate_steps(scores, mask, how), reference.aggregate_steps(scores, mask, how))
    correct = scores > 0.6
    assert_close(solution.rerank_accuracy(scores, correct), reference.rerank_accuracy(scores, correct))


@both
def test_half_precision_losses_are_computed_in_float32(impl):
    logits, labels = randn(3, 400, 3, seed=5, scale=3.0).bfloat16(), some_labels(3, 400)
    expected = impl.prm_loss(logits.double(), labels)
    assert_close(impl.prm_loss(logits, labels).double(), expected, rtol=1e-4, atol=0)


@both
def test_worked_numbers_of_the_docstrings(impl):
    ids, mask = torch.tensor([[7, 5, 7, 3, 7, 7]]), torch.tensor([[0, 1, 1, 1, 1, 1]])
    assert impl.prm_labels(ids, 7, [[1, -1]], mask).tolist() == [[-100, -100, 2, -100, 0, -100]]
    logits = doubles([[[0, 0, 0], [1, 0, 2]]])
    assert impl.prm_loss(logits, torch.tensor([[-100, 2]])).item() == pytest.approx(0.4076, abs=5e-5)
    assert impl.prm_loss(logits, torch.tensor([[0, 2]])).item() == pytest.approx(0.7531, abs=5e-5)
    assert impl.step_scores(logits, torch.tensor([[-100, 1]]))[0].tolist() == pytest.approx([0.6652], abs=5e-5)
    assert impl.step_scores(logits, torch.tensor([[0, 1]]))[0].tolist() == pytest.approx([0.3333, 0.6652], abs=5e-5)
    scores, mask = doubles([[0.9, 0.5, 0.8], [0.6, 0, 0]]), torch.tensor([[1, 1, 1], [1, 0, 0]])
    for how, expected in dict(min=[0.5, 0.6], prod=[0.36, 0.6], mean=[0.7333, 0.6], last=[0.8, 0.6]).items():
        assert impl.aggregate_steps(scores, mask, how).tolist() == pytest.approx(expected, abs=5e-5)
    result = impl.rerank_accuracy(doubles([[1, 3, 2], [2, 2, 0]]), torch.tensor([[0, 1, 0], [1, 0, 1]]))
    assert result.item() == 0.75


@pytest.mark.parametrize("name", NAMES)
def test_stub_solution_and_reference_have_one_signature(name):
    signatures = {inspect.signature(getattr(module, name)) for module in (stub, solution, reference)}
    assert len(signatures) == 1
    arguments = [None] * sum(p.default is p.empty for p in signatures.pop().parameters.values())
    with pytest.raises(NotImplementedError, match=f"Week 04, task .*{name}"):
        getattr(stub, name)(*arguments)
