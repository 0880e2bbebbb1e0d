"""Week 09's functions: exact values, gradients, TRL's own losses, and the traps of real code."""

import importlib.util
from collections import defaultdict
from decimal import Decimal, localcontext
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch
from torch.testing import assert_close

from reference_impl import reference_free as reference

ROOT = Path(__file__).parents[1]


def load(path):
    spec = importlib.util.spec_from_file_location("week09_" + path.parts[-3], path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


solution = load(ROOT / "solutions/09/reference_free.py")
stub = load(ROOT / "weeks/09/reference_free.py")
both = pytest.mark.parametrize("impl", [reference, solution], ids=["reference", "solution"])


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


def randn(*shape, seed=0, scale=1.0):
    return scale * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def value_and_grads(function, *args):
    """The function's value, and its gradient with respect to every float tensor argument (None where none flows)."""
    args = [a.clone().requires_grad_() if isinstance(a, torch.Tensor) and a.is_floating_point() else a for a in args]
    value = function(*args)
    leaves = [a for a in args if isinstance(a, torch.Tensor) and a.requires_grad]
    return value.detach(), torch.autograd.grad(value.sum(), leaves, allow_unused=True)


# ---- average_logps


@both
@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.uint8, torch.float32, torch.float64])
def test_each_row_is_divided_by_its_own_tokens(impl, dtype):
    logprobs, mask = randn(3, 7), torch.zeros(3, 7, dtype=dtype)
    spans = [(0, 7), (2, 5), (6, 7)]
    for row, (start, end) in enumerate(spans):
        mask[row, start:end] = 1
    expected = [sum(logprobs[row, start:end].tolist()) / (end - start) for row, (start, end) in enumerate(spans)]
    result = impl.average_logps(logprobs.T.contiguous().T, mask)
    assert result.dtype == torch.float64
    assert_close(result, doubles(*expected))
    assert impl.average_logps(logprobs.float(), mask).dtype == torch.float32


@both
def test_what_stands_under_the_mask_never_matters(impl):
    mask = torch.tensor([[1, 1, 0, 0], [0, 1, 1, 1], [0, 0, 0, 0]])
    clean = randn(3, 4)
    dirty = clean.masked_fill(mask == 0, float("nan"))
    dirty[0, 3], dirty[2, 1] = float("-inf"), float("inf")
    value, (grad,) = value_and_grads(lambda x: impl.average_logps(x, mask), clean)
    dirty_value, (dirty_grad,) = value_and_grads(lambda x: impl.average_logps(x, mask), dirty)
    assert torch.equal(value, dirty_value) and torch.equal(grad, dirty_grad)
    assert value[2] == 0 and torch.equal(grad[2], torch.zeros(4, dtype=torch.float64))
    assert_close(grad[0], doubles(0.5, 0.5, 0, 0))


@both
def test_bfloat16_log_probs_are_summed_in_float32(impl):
    """A bfloat16 running sum near -360 moves in steps of 2 nats: 300 tokens of about -1.2 would all be lost in it."""
    logprobs = (-1.2 + 0.1 * randn(2, 300)).bfloat16()
    mask = torch.ones(2, 300)
    assert_close(impl.average_logps(logprobs, mask).double(), logprobs.double().mean(dim=1), rtol=0, atol=1e-6)


# ---- SimPO


@both
def test_simpo_is_trls_with_gamma_equal_to_beta_times_ratio(impl):
    from trl.experimental.cpo.cpo_trainer import CPOTrainer

    chosen, rejected = randn(5, seed=1), randn(5, seed=2)
    for beta, ratio in [(2.0, 0.5), (2.5, 0.3), (10.0, 0.1)]:
        trainer = SimpleNamespace(
            alpha=0.0, loss_type="simpo", beta=beta, simpo_gamma=beta * ratio, label_smoothing=0.0,
            accelerator=SimpleNamespace(device="cpu"),
        )  # fmt: skip
        theirs = value_and_grads(lambda c, r, t=trainer: CPOTrainer.cpo_loss(t, c, r)[0].mean(), chosen, rejected)
        ours = value_and_grads(lambda c, r, b=beta, g=ratio: impl.simpo_loss(c, r, b, g), chosen, rejected)
        assert_close(ours, theirs)


@both
def test_simpo_is_log_two_exactly_at_its_margin(impl):
    assert_close(impl.simpo_loss(doubles(-1.0), doubles(-1.3), beta=4.0, gamma_beta_ratio=0.3), doubles(2.0).log()[0])


@both
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_simpo_survives_any_gap(impl, dtype):
    chosen, rejected = torch.tensor([-1.0, -201.0], dtype=dtype), torch.tensor([-201.0, -1.0], dtype=dtype)
    value, (grad, _) = value_and_grads(impl.simpo_loss, chosen, rejected)
    assert_close(value, torch.tensor(2.0 * 200.5 / 2, dtype=dtype))  # the lost pair pays linearly, the won one nothing
    assert_close(grad, torch.tensor([0.0, -1.0], dtype=dtype), atol=1e-8, rtol=0)


# ---- ORPO


def exact_log_odds(avg: float) -> tuple[float, float]:
    """log odds of exp(avg) and its derivative 1 / (1 - p), in 60 digits."""
    with localcontext() as context:
        context.prec = 60
        p = Decimal(avg).exp()
        return float(p.ln() - (1 - p).ln()) if p > Decimal("1e-50") else avg, float(1 / (1 - p))


@both
@pytest.mark.parametrize("dtype, rtol", [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_log_odds_keep_their_digits_from_p_near_zero_to_p_near_one(impl, dtype, rtol):
    averages = [-1e4, -300.0, -50.0, -20.0, -5.0, -1.0, -0.6931, -0.3, -1e-2, -1e-3, -1e-5, -1e-6, -1e-9]
    anchor = torch.full((len(averages),), -2.0, dtype=dtype)
    inputs = torch.tensor(averages, dtype=dtype)
    value, (grad, anchor_grad) = value_and_grads(impl.log_odds_ratio, inputs, anchor)
    exact = [exact_log_odds(a) for a in inputs.tolist()]
    expected = doubles(*[log_odds for log_odds, _ in exact]) - exact_log_odds(-2.0)[0]
    assert_close(value.double(), expected, rtol=rtol, atol=rtol)
    assert_close(grad.double(), doubles(*[slope for _, slope in exact]), rtol=rtol, atol=0)
    assert_close(anchor_grad.double(), torch.full_like(expected, -exact_log_odds(-2.0)[1]), rtol=rtol, atol=0)


@both
def test_odds_ratio_term_is_trls(impl):
    from trl.experimental.orpo.orpo_trainer import ORPOTrainer

    chosen, rejected = -randn(6, seed=3).abs().float(), -randn(6, seed=4).abs().float()
    trainer = SimpleNamespace(beta=0.3, accelerator=SimpleNamespace(device="cpu"))
    nll = torch.tensor(0.7)

    def trl_loss(c, r, nll):
        return nll - ORPOTrainer.odds_ratio_loss(trainer, c, r)[0].mean()

    ours = value_and_grads(lambda c, r, n: impl.orpo_loss(c, r, n, lam=0.3), chosen, rejected, nll)
    assert_close(ours, value_and_grads(trl_loss, chosen, rejected, nll), rtol=1e-5, atol=1e-6)


@both
def test_orpo_takes_one_nll_for_the_batch_or_one_a_pair(impl):
    chosen, rejected, nll = -randn(5, seed=5).abs(), -randn(5, seed=6).abs(), randn(5, seed=7).abs()
    per_pair = impl.orpo_loss(chosen, rejected, nll)
    assert_close(per_pair, impl.orpo_loss(chosen, rejected, nll.mean()))
    assert per_pair.shape == ()
    _, grads = value_and_grads(impl.orpo_loss, chosen, rejected, nll)
    assert all(grad is not None and (grad != 0).all() for grad in grads)


@both
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_orpo_survives_probability_one_on_either_side(impl, dtype):
    sure, unsure = torch.tensor([0.0], dtype=dtype), torch.tensor([-3.0], dtype=dtype)
    for pair in [(sure, unsure), (unsure, sure), (sure, sure)]:
        value, grads = value_and_grads(lambda c, r: impl.orpo_loss(c, r, -c), *pair)
        assert value.isfinite() and all(grad.isfinite().all() for grad in grads)


@both
def test_orpo_gradient_is_right_when_the_rejected_response_is_nearly_certain(impl):
    """At rejected = -1e-6 the log odds ratio is about -14.4 and its slope in `rejected` a million."""
    chosen, rejected = doubles(-1.0), doubles(-1e-6)
    _, (_, grad, _) = value_and_grads(impl.orpo_loss, chosen, rejected, doubles(1.0))
    odds_chosen, odds_rejected = 1 / (torch.e - 1), 1e6 - 0.5  # 1 / expm1(x) = 1/x - 1/2 + O(x)
    assert_close(grad, doubles(0.1 * odds_rejected / (odds_chosen + odds_rejected) * (1e6 + 0.5)), rtol=1e-7, atol=0)


# ---- KTO


@both
def test_kto_kl_clamps_the_mean_and_is_a_constant(impl):
    policy, ref = doubles(-10.0, -20.0, -7.0).requires_grad_(), doubles(-12.0, -19.0, -7.5).requires_grad_()
    kl = impl.kto_kl(policy, ref)
    assert_close(kl, doubles(0.5)[0])
    assert not kl.requires_grad
    assert impl.kto_kl(ref, policy) == 0


@both
def test_mismatched_pairs_see_a_drift_that_matched_rejected_answers_hide(impl):
    """The trap: rolling the rejected log-ratios changes nothing in their mean, which is negative once training works.

    Two prompts; row i holds the log-ratios of both completions after prompt i. The policy has learnt to reject
    each prompt's own bad answer (the diagonal), and has drifted upwards on everything else.
    """
    logratios = doubles([-3.0, 1.5], [2.5, -2.0])
    matched, mismatched = logratios.diagonal(), logratios.flip(1).diagonal()
    zero = torch.zeros(2, dtype=torch.float64)
    assert impl.kto_kl(matched.roll(1), zero) == impl.kto_kl(matched, zero) == 0
    assert_close(impl.kto_kl(mismatched, zero), doubles(2.0)[0])


def trl_kto(policy_logps, ref_logps, desirable, kl_gap, beta, desirable_weight, undesirable_weight):
    """TRL's KTOTrainer._compute_loss itself, on a stand-in model whose two positions carry given log-probs."""
    from trl.trainer.kto_trainer import KTOTrainer

    rows = len(policy_logps)
    trainer = MagicMock(
        beta=beta, desirable_weight=desirable_weight, undesirable_weight=undesirable_weight, loss_type="kto",
        calculate_KL=True, precompute_ref_logps=True, aux_loss_enabled=False, _tp_size=1, _total_train_tokens=0,
        _metrics=defaultdict(lambda: defaultdict(list)),
    )  # fmt: skip
    trainer.accelerator.device = "cpu"
    trainer.accelerator.gather_for_metrics = lambda x: x
    trainer._compute_kl_logps = lambda model, batch: batch["ref_KL_logps"] + kl_gap
    split = torch.stack([0.25 * policy_logps, 0.75 * policy_logps], dim=1)
    nothing = torch.zeros_like(split)
    batch = {
        "input_ids": torch.ones(rows, 3, dtype=torch.long), "attention_mask": torch.ones(rows, 3),
        "completion_mask": torch.ones(rows, 3), "label": desirable, "ref_logps": ref_logps,
        "ref_KL_logps": torch.zeros(rows, dtype=policy_logps.dtype),
    }  # fmt: skip
    outputs = SimpleNamespace(log_probs=split, entropy=nothing, mean_logits=nothing)
    return KTOTrainer._compute_loss(trainer, lambda **kwargs: outputs, batch, False)


@both
@pytest.mark.parametrize("kinds", [[1, 0, 0, 1, 1, 0, 0], [1] * 7, [0] * 7], ids=["mixed", "all good", "all bad"])
def test_kto_is_trls(impl, kinds):
    policy, ref = randn(7, seed=8, scale=9.0), randn(7, seed=9, scale=9.0)
    desirable = torch.tensor(kinds, dtype=torch.bool)
    kl_gap = doubles(2.0, -1.0, 0.5, 3.0, 0.0, 1.0, -0.5)
    settings = dict(beta=0.3, desirable_weight=1.33, undesirable_weight=0.7)

    def ours(policy):
        return impl.kto_loss(policy, ref, desirable, impl.kto_kl(kl_gap, torch.zeros_like(kl_gap)), **settings)

    theirs = value_and_grads(lambda p: trl_kto(p, ref, desirable, kl_gap, **settings), policy)
    assert_close(value_and_grads(ours, policy), theirs)


@both
def test_a_sum_of_two_means_is_twice_kto_on_a_balanced_batch(impl):
    """The scale of the book's code, so that curves can be compared: same direction, twice the learning rate."""
    policy, ref, desirable = randn(6, seed=1), randn(6, seed=2), torch.tensor([1, 1, 1, 0, 0, 0]).bool()

    def part(kind):
        return impl.kto_loss(policy[desirable == kind], ref[desirable == kind], desirable[desirable == kind], 0.2)

    assert_close(part(True) + part(False), 2 * impl.kto_loss(policy, ref, desirable, 0.2))


@both
@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32, torch.float64])
def test_kto_constants_get_no_gradient(impl, dtype):
    desirable = torch.tensor([1, 0, 1]).to(dtype)
    kl = torch.tensor(0.4, dtype=torch.float64)
    _, (grad, ref_grad, *rest) = value_and_grads(
        lambda p, r, k: impl.kto_loss(p, r, desirable, k), randn(3, seed=1), randn(3, seed=2), kl
    )
    assert grad[0] < 0 < grad[1] and grad[2] < 0  # a step down the gradient raises the good, lowers the bad
    assert ref_grad is None and rest == [None]


@both
def test_kto_pays_the_whole_weight_at_the_far_end_and_nothing_at_the_other(impl):
    zero = torch.zeros(4, dtype=torch.float64)
    policy, desirable = doubles(200.0, -200.0, 200.0, -200.0), torch.tensor([True, True, False, False])
    losses = [impl.kto_loss(policy[i : i + 1], zero[:1], desirable[i : i + 1], 0.0, 1.0, 1.5, 3.0) for i in range(4)]
    assert_close(torch.stack(losses), doubles(0.0, 1.5, 3.0, 0.0))
    # 1 - sigma(40) is 4.2e-18: sigma(-40) has it, 1 - sigma(40) computed so is 0
    tail = impl.kto_loss(doubles(40.0), zero[:1], desirable[:1], 0.0, beta=1.0)
    assert_close(tail, torch.exp(doubles(-40.0))[0], rtol=1e-12, atol=0)


# ---- all of them


@both
def test_gradients_are_the_derivatives_of_the_values(impl):
    a, b, n = -randn(4, seed=1).abs().requires_grad_(), -randn(4, seed=2).abs().requires_grad_(), randn(4, seed=3)
    desirable = torch.tensor([True, False, False, True])
    assert torch.autograd.gradcheck(lambda a, b: impl.simpo_loss(a, b), (a, b))
    assert torch.autograd.gradcheck(lambda a, b: impl.log_odds_ratio(a, b), (a, b))
    assert torch.autograd.gradcheck(impl.orpo_loss, (a, b, n.requires_grad_()))
    assert torch.autograd.gradcheck(lambda a: impl.kto_loss(a, b, desirable, 0.3, 0.5, 1.3, 0.7), (a,))
    mask = torch.tensor([[1, 1, 0], [0, 1, 1]])
    assert torch.autograd.gradcheck(lambda x: impl.average_logps(x, mask), (randn(2, 3).requires_grad_(),))


@both
@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(impl, half):
    a, b = -randn(5, seed=1).abs().to(half), -randn(5, seed=2).abs().to(half)
    desirable = torch.tensor([1, 0, 1, 1, 0])
    cases = [
        lambda a, b: impl.simpo_loss(a, b),
        lambda a, b: impl.log_odds_ratio(a, b),
        lambda a, b: impl.orpo_loss(a, b, -a.float()),
        lambda a, b: impl.kto_kl(-a, b),
        lambda a, b: impl.kto_loss(a, b, desirable, 0.2),
    ]
    for case in cases:
        assert_close(case(a, b).float(), case(a.float(), b.float()), rtol=1e-6, atol=1e-7)


def test_solution_and_reference_agree_on_random_and_extreme_inputs():
    for seed, scale in enumerate([1e-6, 1e-2, 1.0, 30.0, 1e4]):
        a, b = -randn(11, seed=seed, scale=scale).abs() - 1e-6, -randn(11, seed=seed + 50, scale=scale).abs() - 1e-6
        nll, desirable = randn(11, seed=seed + 9).abs(), randn(11, seed=seed + 99) > 0
        for name, args in [
            ("simpo_loss", (a, b, 2.5, 0.3)),
            ("log_odds_ratio", (a, b)),
            ("orpo_loss", (a, b, nll, 0.2)),
            ("kto_loss", (a, b, desirable, 0.4, 0.5, 1.2, 0.8)),
        ]:
            mine = value_and_grads(getattr(solution, name), *args)
            assert_close(mine, value_and_grads(getattr(reference, name), *args), rtol=1e-9, atol=1e-12)


def test_the_stubs_worked_numbers_are_right():
    averages = reference.average_logps(doubles([-1, -2, -9], [-3, -5, -7]), torch.tensor([[1, 1, 0], [1, 1, 1]]))
    assert averages.tolist() == [-1.5, -5]
    orpo = reference.orpo_loss(doubles(-0.5, -1), doubles(-2, -0.8), doubles(0.5, 1))
    kto = reference.kto_loss(doubles(-10, -12), doubles(-11, -11), torch.tensor([True, False]), 0.5)
    for function, value in [
        (stub.simpo_loss, reference.simpo_loss(doubles(-1, -2), doubles(-2, -1.5))),
        (stub.log_odds_ratio, reference.log_odds_ratio(doubles(-0.5), doubles(-2))[0]),
        (stub.orpo_loss, orpo),
        (stub.kto_loss, kto),
    ]:
        assert f"{value:.6f}" in function.__doc__
