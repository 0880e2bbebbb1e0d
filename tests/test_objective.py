"""Week 01 proven: expectations over a vocabulary, the closed form against perturbations, TRL's k3, known traps."""

import importlib.util
import math
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import torch
from torch.testing import assert_close

from reference_impl import objective as reference

ROOT = Path(__file__).parents[1]
MASK_DTYPES = [torch.bool, torch.int64, torch.uint8, torch.float32, torch.float64]


def load(path):
    spec = importlib.util.spec_from_file_location("week01_solution", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


solution = load(ROOT / "solutions/01/objective.py")
both = pytest.mark.parametrize("impl", [reference, solution], ids=["reference", "solution"])


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def randint(high, shape, seed=0):
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(seed))


# ---- token_logprobs, sequence_logprobs


def plain_logprob(logits, label):
    """log softmax by hand, in Python floats."""
    numbers = logits.tolist()
    return numbers[label] - max(numbers) - math.log(sum(math.exp(x - max(numbers)) for x in numbers))


@both
@pytest.mark.parametrize("shape", [(3, 5, 7), (1, 5, 7), (3, 1, 7), (1, 1, 2)])
def test_token_logprobs_equal_a_softmax_by_hand(impl, shape):
    logits, labels = 5 * randn(*shape), randint(shape[2], shape[:2])
    result = impl.token_logprobs(logits, labels)
    expected = [[plain_logprob(logits[i, t], labels[i, t]) for t in range(shape[1])] for i in range(shape[0])]
    assert_close(result, doubles(*expected))
    mixed = impl.token_logprobs(logits.transpose(0, 1).contiguous().transpose(0, 1), labels.T.contiguous().T)
    assert torch.equal(mixed, result)


@both
@pytest.mark.parametrize("dtype", MASK_DTYPES)
def test_sequence_logprobs_sum_the_response_one_position_late(impl, dtype):
    logits, ids = randn(4, 6, 7), randint(7, (4, 6), seed=1)
    spans = [(2, 5), (5, 6), (0, 3), (3, 3)]  # the third one marks the token at 0, which nothing predicts
    mask = torch.tensor([[int(a <= t < b) for t in range(6)] for a, b in spans])
    expected = [
        sum(plain_logprob(logits[i, t - 1], ids[i, t]) for t in range(max(a, 1), b)) for i, (a, b) in enumerate(spans)
    ]
    assert_close(impl.sequence_logprobs(logits, ids, mask.to(dtype)), doubles(*expected))
    assert torch.equal(impl.sequence_logprobs(logits[:, :1], ids[:, :1], mask[:, :1]), torch.zeros(4).double())


@both
def test_probabilities_of_all_responses_sum_to_one(impl):
    """Every continuation of two tokens over V = 5, scored by a model whose logits depend on the token before."""
    table = randn(5, 5)
    rows = torch.tensor([[3, a, b] for a in range(5) for b in range(5)])
    logps = impl.sequence_logprobs(table[rows], rows, torch.tensor([0, 1, 1]).expand(25, 3))
    assert_close(logps.exp().sum(), doubles(1.0)[0])


@both
def test_logprob_gradients(impl):
    logits, labels = randn(2, 4, 3).requires_grad_(), randint(3, (2, 4))
    mask = torch.tensor([[0, 1, 1, 0], [0, 0, 0, 1]])
    assert torch.autograd.gradcheck(lambda x: impl.token_logprobs(x, labels), logits)
    assert torch.autograd.gradcheck(lambda x: impl.sequence_logprobs(x, labels, mask), logits)
    gradient = torch.autograd.grad(impl.sequence_logprobs(logits, labels, mask).sum(), logits)[0]
    assert torch.equal(gradient.abs().sum(dim=-1) > 0, torch.tensor([[1, 1, 0, 0], [0, 0, 1, 0]]).bool())


@both
@pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf])
def test_garbage_logits_at_unused_positions_change_nothing(impl, garbage):
    ids, mask = randint(3, (2, 5)), torch.tensor([[0, 0, 1, 1, 0], [0, 0, 0, 0, 0]])
    used = torch.cat([mask[:, 1:], torch.zeros(2, 1)], dim=1).bool()
    clean = randn(2, 5, 3)
    dirty = torch.where(used[..., None], clean, garbage)
    results = []
    for logits in [clean.requires_grad_(), dirty.requires_grad_()]:
        value = impl.sequence_logprobs(logits, ids, mask)
        results.append((value, torch.autograd.grad(value.sum(), logits)[0]))
    assert_close(results[1], results[0])
    assert results[0][0][1] == 0


@both
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_logits_keep_their_digits(impl, dtype):
    """Trap S17: log(softmax) is -inf here. A large common offset must not eat the differences either."""
    logits = torch.tensor([[[0, 1e4, -1e4], [1e4, 1e4 + 1, 1e4], [0.5, -math.inf, 0.5]]], dtype=dtype).requires_grad_()
    labels = torch.tensor([[2, 1, 0]])
    result = impl.token_logprobs(logits, labels)
    assert_close(
        result, torch.tensor([[-2e4, 1 - math.log(math.e + 2), -math.log(2)]], dtype=dtype), rtol=1e-6, atol=1e-6
    )
    assert torch.autograd.grad(result.sum(), logits)[0].isfinite().all()


@both
def test_bfloat16_scoring_does_not_lose_small_log_ratios(impl):
    """Trap T4: two policies whose bfloat16 logits differ a little on 300 tokens; a bfloat16 sum calls them equal."""
    ids, mask = randint(17, (1, 300)), torch.ones(1, 300)
    first = randn(1, 300, 17).bfloat16()
    second = first.clone()
    second[0, 40, ids[0, 41]] += 0.25
    ratio = impl.sequence_logprobs(second, ids, mask) - impl.sequence_logprobs(first, ids, mask)
    exact = impl.sequence_logprobs(second.double(), ids, mask) - impl.sequence_logprobs(first.double(), ids, mask)
    assert 0.05 < exact.item() < 0.25
    assert ratio.item() == pytest.approx(exact.item(), rel=2e-3)

    def naive(logits):
        logprobs = logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)
        return logprobs.sum(dim=1)

    assert (naive(second) - naive(first)).item() != pytest.approx(exact.item(), rel=0.5)


# ---- kl_estimates


def two_policies(size=50):
    """Log-probs of a policy and a reference on a vocabulary of 50, and the exact KL between them."""
    logits = randn(size).requires_grad_()
    pi, ref = logits.log_softmax(0), randn(size, seed=1).log_softmax(0)
    return logits, pi, ref, (pi.exp() * (pi - ref)).sum()


@both
def test_expectations_of_the_estimators_over_the_whole_vocabulary(impl):
    _, pi, ref, kl = two_policies()
    k1, k2, k3 = (pi.exp() @ k[0] for k in impl.kl_estimates(pi[None], ref[None]))
    assert_close(k1, kl)
    assert_close(k3, kl)
    assert_close(k2, (pi.exp() * (pi - ref) ** 2).sum() / 2)
    assert abs(k2 - kl) > 0.05 * kl  # biased, and it is supposed to be


@both
def test_swapped_policies_estimate_something_else(impl):
    """Trap T1: with log pi and log ref swapped, k1 averages to -KL and k3 to chi2(pi || ref) - KL."""
    _, pi, ref, kl = two_policies()
    swapped = [pi.exp() @ k[0] for k in impl.kl_estimates(ref[None], pi[None])]
    chi2 = (pi.exp() ** 2 / ref.exp()).sum() - 1
    assert_close(swapped[0], -kl)
    assert_close(swapped[2], chi2 - kl)
    assert abs(swapped[2] - kl) > 0.3 * kl


@both
def test_only_the_gradient_of_k2_is_the_gradient_of_the_kl(impl):
    """As a loss on samples: E[grad k1] = 0, E[grad k2] = grad KL(pi || ref), E[grad k3] = grad KL(ref || pi)."""
    logits, pi, ref, kl = two_policies()
    forward = (ref.exp() * (ref - pi)).sum()
    expected = [
        torch.zeros(50).double(),
        *(torch.autograd.grad(x, logits, retain_graph=True)[0] for x in (kl, forward)),
    ]
    for k, gradient in zip(impl.kl_estimates(pi[None], ref[None]), expected, strict=True):
        assert_close(torch.autograd.grad(pi.exp().detach() @ k[0], logits, retain_graph=True)[0], gradient)


@both
def test_estimators_are_accurate_near_zero_and_never_negative(impl):
    d = doubles(*[s * 10.0**e for s in (-1, 1) for e in range(-12, 3)])
    _, k2, k3 = impl.kl_estimates(d[None], torch.zeros_like(d)[None])
    assert (k2 >= 0).all() and (k3 >= 0).all()
    naive = (-d).exp() - 1 + d
    small = d.abs() < 1e-3
    exact = d[small] ** 2 / 2 - d[small] ** 3 / 6 + d[small] ** 4 / 24
    error, naive_error = (k3[0][small] - exact).abs(), (naive[small] - exact).abs()
    assert (error <= 4e-16 * d[small].abs() + 1e-30).all()
    assert naive_error.max() > 1e-17 and error.max() < naive_error.max() / 100
    assert impl.kl_estimates(doubles([-200.0]), doubles([0.0]))[2].item() == pytest.approx(math.exp(200.0) - 201)


@both
def test_kl_gradients_flow_into_the_policy_only(impl):
    pi, ref = randn(2, 3).requires_grad_(), randn(2, 3, seed=1).requires_grad_()
    for index, k in enumerate(impl.kl_estimates(pi, ref)):
        gradients = torch.autograd.grad(k.sum(), [pi, ref], allow_unused=True)
        assert gradients[0] is not None and gradients[1] is None
        assert torch.autograd.gradcheck(lambda x, index=index: impl.kl_estimates(x, ref.detach())[index], pi)
    half = impl.kl_estimates(torch.tensor([[-1.0]]).bfloat16(), torch.tensor([[-1.0078125]]).bfloat16())
    assert half[2].item() == pytest.approx(0.0078125**2 / 2, rel=0.01)  # (exp(-d) - 1 rounds to -d in bfloat16)


@both
def test_trl_penalises_with_our_k3(impl):
    """TRL's GRPO loss with advantages of 0 and beta = 1 is the mean of its k3; values and gradients agree with ours."""
    from trl.trainer.grpo_trainer import GRPOTrainer

    pi, ref = randn(3, 5).float().requires_grad_(), randn(3, 5, seed=1).float()
    ids, ones = torch.zeros(3, 5, dtype=torch.long), torch.ones(3, 5, dtype=torch.long)
    trainer = MagicMock(beta=1.0, loss_type="grpo", importance_sampling_level="token", top_entropy_quantile=1.0)
    trainer.configure_mock(epsilon_low=0.2, epsilon_high=0.2, off_policy_mask_threshold=None, use_vllm=False)
    trainer.configure_mock(aux_loss_enabled=False, _entropy_bonus_enabled=False)
    trainer.model.training, trainer.args.delta, trainer.args.use_bias_correction_kl = False, None, False
    trainer.accelerator.gather = trainer.accelerator.reduce = lambda value, **kwargs: value
    trainer._get_per_token_logps_and_entropies = lambda *args, **kwargs: (pi, torch.zeros(3, 5), None)
    inputs = {"prompt_ids": ids, "prompt_mask": ones, "completion_ids": ids, "completion_mask": ones}
    inputs |= {"advantages": torch.zeros(3), "ref_per_token_logps": ref}
    theirs, ours = GRPOTrainer._compute_loss(trainer, None, inputs), impl.kl_estimates(pi, ref)[2].mean()
    assert_close(ours, theirs)
    assert_close(torch.autograd.grad(ours, pi), torch.autograd.grad(theirs, pi))


# ---- kl_shaped_rewards


@both
@pytest.mark.parametrize("dtype", MASK_DTYPES)
def test_shaped_rewards_equal_a_plain_loop(impl, dtype):
    rewards, pi, ref = randn(3), randn(3, 7, seed=1), randn(3, 7, seed=2)
    mask = torch.tensor([[0, 1, 1, 1, 1, 0, 0], [0, 0, 0, 0, 0, 0, 1], [0] * 7])
    expected = [rewards[i] - 0.3 * sum(pi[i, t] - ref[i, t] for t in range(7) if mask[i, t]) for i in range(3)]
    arguments = [rewards, pi, ref, mask.to(dtype)]
    result = impl.kl_shaped_rewards(*arguments, 0.3)
    assert_close(result, torch.stack(expected))
    assert result.dtype == torch.float64 and result[2] == rewards[2]
    for garbage in [math.nan, math.inf, -math.inf]:
        dirty = [torch.where(mask.bool(), x, garbage) for x in (pi, ref)]
        assert_close(impl.kl_shaped_rewards(rewards, *dirty, mask, 0.3), result)
    assert not impl.kl_shaped_rewards(rewards.requires_grad_(), pi.requires_grad_(), ref, mask, 0.3).requires_grad


@both
def test_the_mean_shaped_reward_is_the_objective(impl):
    """E[r - beta log(pi/ref)] over all answers is J(pi), computed from its definition."""
    _, pi, ref, kl = two_policies()
    rewards, mask = randn(50, seed=3), torch.ones(50, 1)
    shaped = impl.kl_shaped_rewards(rewards, pi[:, None], ref[:, None], mask, 0.7)
    assert_close(pi.exp() @ shaped, pi.exp() @ rewards - 0.7 * kl)


@both
def test_half_precision_penalties_are_summed_in_float32(impl):
    pi, ref = torch.full((1, 512), -0.7).bfloat16(), torch.full((1, 512), -0.71).bfloat16()
    exact = 512 * (pi[0, 0].double() - ref[0, 0].double())
    result = impl.kl_shaped_rewards(torch.zeros(1), pi, ref, torch.ones(1, 512), 1.0)
    assert result.item() == pytest.approx(-exact.item(), rel=1e-5)


# ---- optimal_policy


def objective(policy, ref, rewards, beta):
    """J(pi) = E[r] - beta KL(pi || ref); terms with pi = 0 are 0."""
    log_ratio = torch.where(policy > 0, (policy / ref).log(), 0)
    return (policy * (rewards - beta * log_ratio)).sum(dim=-1)


@both
@pytest.mark.parametrize("beta", [0.05, 0.5, 5.0])
def test_the_closed_form_beats_every_perturbation_by_beta_times_their_kl(impl, beta):
    """J(pi*) - J(q) = beta KL(q || pi*), exactly, for any q: far, near, and on the boundary of the simplex."""
    ref, rewards = randn(7, seed=1).softmax(0), randn(7, seed=2)
    best = impl.optimal_policy(ref, rewards, beta)
    near = best * (1 + 1e-3 * randn(200, 7, seed=3)).clamp(min=0)
    far = randn(200, 7, seed=4).mul(3).softmax(-1)
    others = torch.cat([near / near.sum(-1, keepdim=True), far, torch.eye(7).double(), ref[None]])
    gap = objective(best, ref, rewards, beta) - objective(others, ref, rewards, beta)
    kl = torch.where(others > 0, others * (others / best).log(), 0).sum(-1)
    assert (gap > 0).all()
    assert_close(gap, beta * kl, rtol=1e-7, atol=1e-12)


@both
def test_the_optimum_is_worth_beta_log_z(impl):
    ref, rewards, beta = randn(3, 7, seed=1).softmax(-1), randn(3, 7, seed=2), 0.4
    best = impl.optimal_policy(ref, rewards, beta)
    assert_close(objective(best, ref, rewards, beta), beta * (ref * (rewards / beta).exp()).sum(-1).log())
    assert_close(best, ref * (rewards / beta).exp() / (ref * (rewards / beta).exp()).sum(-1, keepdim=True))
    assert_close(impl.optimal_policy(ref[0], rewards[0], beta), best[0])


@both
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("impossible", [9.0, 1e4, math.nan, math.inf, -math.inf])
def test_tiny_beta_and_impossible_answers(impl, dtype, impossible):
    ref = torch.tensor([0.2, 0.6, 0.2, 0.0], dtype=dtype)
    rewards = torch.tensor([1.0, 1.0, 0.5, impossible], dtype=dtype).requires_grad_()
    result = impl.optimal_policy(ref, rewards, 1e-6)
    assert_close(result, torch.tensor([0.25, 0.75, 0.0, 0.0], dtype=dtype))
    assert result[3] == 0
    warm = impl.optimal_policy(ref, rewards, 1.0)
    assert warm[3] == 0 and warm.dtype == dtype
    assert_close(warm.sum(), torch.tensor(1.0, dtype=dtype))
    assert torch.autograd.grad(warm[0], rewards)[0].isfinite().all()


@both
def test_a_huge_beta_keeps_the_reference(impl):
    ref, rewards = randn(7).softmax(0), randn(7, seed=1)
    assert_close(impl.optimal_policy(ref, rewards, 1e9), ref, rtol=1e-7, atol=1e-8)
    half = impl.optimal_policy(ref.bfloat16(), rewards.bfloat16(), 0.5).float()
    assert_close(
        half, impl.optimal_policy(ref.bfloat16().float(), rewards.bfloat16().float(), 0.5), rtol=0.02, atol=1e-3
    )
