"""Week 03's functions: plain-loop specifications, maximum likelihood, TRL's own loss, and the traps of real code."""

import importlib.util
import inspect
import math
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close

from reference_impl import reward_model as reference

ROOT = Path(__file__).parents[1]
NAMES = ["last_token_rewards", "bradley_terry_loss", "pairwise_accuracy", "orm_loss", "orm_score"]
MASK_DTYPES = [torch.bool, torch.uint8, torch.int64, torch.float32, torch.float64]


def load(path):
    spec = importlib.util.spec_from_file_location("week03_" + path.parts[-3], path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


solution = load(ROOT / "solutions/03/reward_model.py")
stub = load(ROOT / "weeks/03/reward_model.py")
both = pytest.mark.parametrize("impl", [reference, solution], ids=["reference", "solution"])


def doubles(values):
    return torch.tensor(values, dtype=torch.float64)


def randn(*shape, seed=0, scale=1.0):
    return scale * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def spans(rows, tokens, seed=0):
    """A (rows, tokens) mask of one contiguous span a row, of different starts and lengths."""
    mask = torch.zeros(rows, tokens, dtype=torch.long)
    for row in range(rows):
        start = (row + seed) % 3
        mask[row, start : start + 1 + (2 * row + seed) % (tokens - start)] = 1
    return mask


def value_and_grad(function, x):
    x = x.detach().clone().requires_grad_()
    value = function(x)
    return value.detach(), torch.autograd.grad(value.sum(), x)[0]


# ---- last_token_rewards


@both
@pytest.mark.parametrize("left, right", [(0, 0), (3, 0), (0, 3), (7, 0), (0, 7), (2, 5)])
def test_padding_on_either_side_never_changes_the_reward(impl, left, right):
    values, mask = randn(2, 5, seed=1), torch.ones(2, 5)
    padded = torch.nn.functional.pad(values, (left, right), value=math.nan)
    padded_mask = torch.nn.functional.pad(mask, (left, right))
    assert_close(impl.last_token_rewards(padded, padded_mask), values[:, -1])


@both
@pytest.mark.parametrize("dtype", MASK_DTYPES)
def test_each_row_is_read_at_its_own_last_token_and_only_there_has_a_gradient(impl, dtype):
    values, mask = randn(5, 7, seed=2), spans(5, 7)
    last = [row.nonzero().max().item() for row in mask]
    assert len(set(last)) > 2
    rewards, grad = value_and_grad(lambda x: impl.last_token_rewards(x, mask.to(dtype)), values)
    assert rewards.dtype == torch.float64
    assert_close(rewards, torch.stack([values[i, t] for i, t in enumerate(last)]))
    expected = torch.zeros_like(grad)
    expected[range(5), last] = 1
    assert_close(grad, expected)


@both
def test_a_batch_of_one_stays_a_batch_and_an_empty_row_is_zero(impl):
    assert impl.last_token_rewards(randn(1, 1), torch.ones(1, 1)).shape == (1,)
    values = doubles([[math.nan, math.inf], [3.0, 4.0]])
    rewards, grad = value_and_grad(lambda x: impl.last_token_rewards(x, doubles([[0, 0], [1, 0]])), values)
    assert_close(rewards, doubles([0.0, 3.0]))
    assert_close(grad, doubles([[0.0, 0.0], [1.0, 0.0]]))


# ---- bradley_terry_loss


@both
def test_bradley_terry_is_the_negative_log_likelihood(impl):
    chosen, rejected, margin = randn(7, seed=1), randn(7, seed=2), randn(7, seed=3).abs()
    pairs = zip(chosen.tolist(), rejected.tolist(), margin.tolist(), strict=True)
    expected = [math.log1p(math.exp(-(c - r - m))) for c, r, m in pairs]
    assert_close(impl.bradley_terry_loss(chosen, rejected, margin), doubles(expected).mean())
    assert torch.autograd.gradcheck(impl.bradley_terry_loss, (chosen.requires_grad_(), rejected.requires_grad_()))


@both
def test_its_minimum_over_all_comparisons_is_the_true_strength(impl):
    """Pairs weighted by their true probabilities: at the true rewards the gradient vanishes, elsewhere it does not."""
    true = doubles([0.0, 0.7, -1.1, 2.0])

    def population_loss(rewards):
        pairs = [(i, j) for i in range(4) for j in range(4) if i != j]
        return sum(
            torch.sigmoid(true[i] - true[j]) * impl.bradley_terry_loss(rewards[i : i + 1], rewards[j : j + 1])
            for i, j in pairs
        )

    assert_close(value_and_grad(population_loss, true + 5.0)[1], torch.zeros(4, dtype=torch.float64))
    assert value_and_grad(population_loss, 1.1 * true)[1].abs().max() > 0.01


@both
def test_the_margin_moves_the_gradient_and_gets_none(impl):
    chosen, rejected, margin = doubles([1.0, 0.5]), doubles([0.0, 1.0]), doubles([3.0, 0.0]).requires_grad_()
    value, grad = value_and_grad(lambda x: impl.bradley_terry_loss(x, rejected, margin), chosen)
    expected = [-0.5 / (1 + math.exp(1.0 - 0.0 - 3.0)), -0.5 / (1 + math.exp(0.5 - 1.0))]
    assert_close(grad, doubles(expected))
    assert not impl.bradley_terry_loss(chosen, rejected, margin).requires_grad
    assert_close(impl.bradley_terry_loss(chosen, rejected, 0.4), impl.bradley_terry_loss(chosen - 0.4, rejected))


@both
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gap", [200.0, 1e4])
def test_hopeless_pairs_keep_a_finite_loss_and_a_full_gradient(impl, dtype, gap):
    rejected = torch.tensor([gap, 0.0], dtype=dtype)
    value, grad = value_and_grad(lambda x: impl.bradley_terry_loss(x, rejected), torch.tensor([0.0, gap], dtype=dtype))
    assert_close(value, torch.tensor(gap / 2, dtype=dtype))
    assert_close(grad, torch.tensor([-0.5, 0.0], dtype=dtype))


@both
@pytest.mark.parametrize("margin", [None, [0.3, 0.0, 1.2]])
def test_trl_agrees_on_bradley_terry(impl, margin):
    """RewardTrainer.compute_loss without a trainer: a function that returns our rewards stands in for the model."""
    from trl.trainer.reward_trainer import RewardTrainer

    chosen, rejected = randn(3, seed=4), randn(3, seed=5)
    same = SimpleNamespace(gather=lambda x: x, gather_for_metrics=lambda x: x)
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=False), args=SimpleNamespace(center_rewards_coefficient=None), accelerator=same
    )
    trainer._metrics, trainer._total_train_tokens = {"eval": defaultdict(list)}, 0
    inputs = {} if margin is None else {"margin": doubles(margin)}

    def model(**inputs):
        return SimpleNamespace(logits=torch.cat([chosen, rejected]).unsqueeze(1))

    theirs = RewardTrainer.compute_loss(trainer, model, inputs)
    ours = impl.bradley_terry_loss(chosen, rejected, 0.0 if margin is None else doubles(margin))
    assert_close(ours, theirs)


# ---- pairwise_accuracy


@both
def test_a_tie_counts_one_half(impl):
    chosen, rejected = doubles([2.0, 0.0, 1.0, 5.0, -1.0]), doubles([1.0, 1.0, 1.0, 4.0, -1.0])
    assert_close(impl.pairwise_accuracy(chosen, rejected), doubles(0.6))
    assert_close(impl.pairwise_accuracy(rejected, chosen), doubles(0.4))
    assert_close(impl.pairwise_accuracy(chosen, chosen), doubles(0.5))
    assert impl.pairwise_accuracy(chosen.float(), rejected.float()).dtype == torch.float32


# ---- orm_loss


@both
@pytest.mark.parametrize("mask_dtype", MASK_DTYPES)
@pytest.mark.parametrize("label_dtype", [torch.bool, torch.int64, torch.float64])
def test_orm_loss_is_the_cross_entropy_of_every_completion_token(impl, mask_dtype, label_dtype):
    logits, mask = randn(5, 7, seed=6, scale=2.0), spans(5, 7, seed=1)
    correct = torch.tensor([1, 0, 0, 1, 1])
    losses = []
    for i, t in mask.nonzero().tolist():
        p = 1 / (1 + math.exp(-logits[i, t].item()))
        losses.append(-math.log(p if correct[i] else 1 - p))
    result = impl.orm_loss(logits, correct.to(label_dtype), mask.to(mask_dtype))
    assert_close(result, doubles(losses).mean())


@both
def test_orm_loss_is_smallest_at_the_share_of_correct_completions(impl):
    """Three of four completions are correct, one logit for all: the minimum lies at log(3)."""
    correct, mask = torch.tensor([1, 1, 0, 1]), torch.ones(4, 3)

    def loss(logit):
        return impl.orm_loss(logit.expand(4, 3), correct, mask)

    assert_close(value_and_grad(loss, doubles([math.log(3)]))[1], doubles([0.0]))
    assert value_and_grad(loss, doubles([1.2]))[1].item() > 0.01


@both
def test_orm_loss_is_not_the_loss_of_the_mean_logit(impl):
    logits, mask = doubles([[5.0, -5.0]]), torch.ones(1, 2)
    pooled = -torch.nn.functional.logsigmoid(logits.mean())
    assert impl.orm_loss(logits, torch.tensor([1]), mask) > 3 * pooled


@both
@pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf, 30.0])
def test_what_stands_under_the_mask_changes_nothing(impl, garbage):
    logits, mask, correct = randn(5, 7, seed=7), spans(5, 7), doubles([1.0, 0.0, 1.0, 0.0, 1.0])
    dirty = logits.masked_fill(mask == 0, garbage)
    for function in (
        lambda x: impl.orm_loss(x, correct, mask),
        lambda x: impl.orm_score(x, mask, "last"),
        lambda x: impl.orm_score(x, mask, "mean"),
        lambda x: impl.orm_score(x, mask, "min"),
    ):
        value, grad = value_and_grad(function, logits)
        dirty_value, dirty_grad = value_and_grad(function, dirty)
        assert_close(dirty_value, value)
        assert_close(dirty_grad, grad)
        assert (grad[mask == 0] == 0).all()


@both
def test_without_completion_tokens_the_loss_and_its_gradient_are_zero(impl):
    value, grad = value_and_grad(lambda x: impl.orm_loss(x, torch.ones(3), torch.zeros(3, 5)), randn(3, 5))
    assert value == 0 and (grad == 0).all()


@both
def test_orm_loss_at_logits_of_ten_thousand(impl):
    logits = torch.tensor([[1e4, -1e4], [1e4, -1e4]])
    value, grad = value_and_grad(lambda x: impl.orm_loss(x, torch.tensor([1, 0]), torch.ones(2, 2)), logits)
    assert_close(value, torch.tensor(5e3))
    assert_close(grad, torch.tensor([[0.0, -0.25], [0.25, 0.0]]))


@both
def test_labels_get_no_gradient_and_nothing_is_changed(impl):
    logits, correct, mask = randn(3, 5, seed=8), torch.rand(3).double().requires_grad_(), spans(3, 5)
    before = logits.clone()
    impl.orm_loss(logits.requires_grad_(), correct, mask).backward()
    assert correct.grad is None and logits.grad.abs().max() > 0
    assert torch.equal(logits.detach(), before)


# ---- orm_score


@both
@pytest.mark.parametrize("mask_dtype", MASK_DTYPES)
def test_orm_scores_in_plain_loops(impl, mask_dtype):
    logits, mask = randn(5, 7, seed=9, scale=2.0), spans(5, 7, seed=2)
    rows = [[1 / (1 + math.exp(-z)) for z in zs[m.bool()].tolist()] for zs, m in zip(logits, mask, strict=True)]
    mask = mask.to(mask_dtype)
    assert_close(impl.orm_score(logits, mask, "last"), doubles([row[-1] for row in rows]))
    assert_close(impl.orm_score(logits, mask, "mean"), doubles([sum(row) / len(row) for row in rows]))
    assert_close(impl.orm_score(logits, mask, "min"), doubles([min(row) for row in rows]))


@both
def test_empty_completions_score_zero_and_other_words_are_named(impl):
    logits, mask = doubles([[math.nan, 9.0], [0.0, 2.0]]), torch.tensor([[0, 0], [1, 0]])
    for how in ("last", "mean", "min"):
        assert_close(impl.orm_score(logits, mask, how), doubles([0.0, 0.5]))
    with pytest.raises(ValueError, match="max"):
        impl.orm_score(logits, mask, "max")


# ---- all


@both
def test_half_precision_is_summed_in_float32(impl):
    logits, mask = (randn(2, 600, seed=1) + 3).bfloat16(), torch.ones(2, 600)
    correct = torch.tensor([1, 0])
    assert_close(
        impl.orm_loss(logits, correct, mask).double(), impl.orm_loss(logits.double(), correct, mask), rtol=1e-4, atol=0
    )
    mean = impl.orm_score(logits.double(), mask, "mean")
    assert_close(impl.orm_score(logits, mask, "mean").double(), mean, rtol=1e-4, atol=0)
    chosen, rejected = logits[0], logits[1] - 3
    expected = impl.bradley_terry_loss(chosen.double(), rejected.double())
    assert_close(impl.bradley_terry_loss(chosen, rejected).double(), expected, rtol=1e-4, atol=0)
    wins = chosen.double().gt(rejected.double()).double() + 0.5 * chosen.double().eq(rejected.double()).double()
    assert impl.pairwise_accuracy(chosen, rejected).item() == pytest.approx(wins.mean().item(), rel=1e-3)


@pytest.mark.parametrize("seed", range(10))
def test_solution_and_reference_agree(seed):
    rows, tokens = 1 + seed % 5, 3 + (3 * seed) % 7
    logits, mask = randn(rows, tokens, seed=seed, scale=4.0), spans(rows, tokens, seed)
    mask[0] *= seed % 2  # sometimes an empty row
    correct = (randn(rows, seed=seed) > 0).long()
    assert_close(solution.last_token_rewards(logits, mask), reference.last_token_rewards(logits, mask))
    assert_close(solution.orm_loss(logits, correct, mask), reference.orm_loss(logits, correct, mask))
    for how in ("last", "mean", "min"):
        assert_close(solution.orm_score(logits, mask, how), reference.orm_score(logits, mask, how))
    pair = (logits[:, 0].round(), logits[:, 1].round())
    assert_close(solution.pairwise_accuracy(*pair), reference.pairwise_accuracy(*pair))
    assert_close(solution.bradley_terry_loss(*pair, 0.7), reference.bradley_terry_loss(*pair, 0.7))


@both
def test_worked_numbers_of_the_docstrings(impl):
    values, mask = doubles([[1, 2, 3], [4, 5, 6]]), torch.tensor([[1, 1, 0], [0, 1, 1]])
    assert impl.last_token_rewards(values, mask).tolist() == [2, 6]
    chosen, rejected = doubles([2.0, 0.0]), doubles([1.0, 1.0])
    assert impl.bradley_terry_loss(chosen, rejected).item() == pytest.approx(0.8133, abs=5e-5)
    assert impl.bradley_terry_loss(chosen, rejected, 1).item() == pytest.approx(1.4100, abs=5e-5)
    assert impl.pairwise_accuracy(doubles([2, 0, 1, 5]), doubles([1, 1, 1, 4])).item() == 0.625
    logits, mask = doubles([[2.0, -1.0], [0.5, 9.0]]), torch.tensor([[1, 1], [1, 0]])
    assert impl.orm_loss(logits, torch.tensor([1, 0]), mask).item() == pytest.approx(0.8048, abs=5e-5)
    for how, expected in (("last", [0.2689, 0.6225]), ("mean", [0.5749, 0.6225]), ("min", [0.2689, 0.6225])):
        assert impl.orm_score(logits, mask, how).tolist() == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize("name", NAMES)
def test_stub_solution_and_reference_have_one_signature(name):
    signatures = {inspect.signature(getattr(module, name)) for module in (stub, solution, reference)}
    assert len(signatures) == 1
    arguments = [None] * sum(p.default is p.empty for p in signatures.pop().parameters.values())
    with pytest.raises(NotImplementedError, match=f"Week 03, task .*{name}"):
        getattr(stub, name)(*arguments)
