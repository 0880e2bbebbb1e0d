"""Week 06's functions: exact enumeration, plain-loop specifications, TRL's own losses, and the traps of real code."""

import importlib.util
import inspect
import itertools
import math
import statistics
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close

from reference_impl import ppo_grpo as reference
from reference_impl.reinforce import policy_gradient_loss

ROOT = Path(__file__).parents[1]
AGGREGATES = [("sequence_sum", None), ("sequence_mean", None), ("token_mean", None), ("constant", 11)]
LOSSES = ["ppo_clip_loss", "grpo_loss", "gspo_loss", "cispo_loss"]  # of (logprobs, old_logprobs, advantages, mask)


def load(path):
    spec = importlib.util.spec_from_file_location("week06_" + path.parts[-3], path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


solution = load(ROOT / "solutions/06/ppo_grpo.py")
stub = load(ROOT / "weeks/06/ppo_grpo.py")
both = pytest.mark.parametrize("impl", [reference, solution], ids=["reference", "solution"])


def doubles(values):
    return torch.tensor(values, dtype=torch.float64)


def randn(*shape, seed=0, scale=1.0):
    return scale * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def batch(seed=0, rows=5, tokens=7):
    """Log-probs around -1.5, log-ratios of order 0.3, ragged spans that start after a prompt, garbage elsewhere."""
    mask = torch.zeros(rows, tokens, dtype=torch.long)
    for row in range(rows):
        start = (row + seed) % 3
        mask[row, start : start + 1 + (2 * row + seed) % (tokens - start)] = 1
    logprobs = -1.5 + randn(rows, tokens, seed=seed)
    old = logprobs + randn(rows, tokens, seed=seed + 100, scale=0.3)
    ref = logprobs + randn(rows, tokens, seed=seed + 200, scale=0.3)
    advantages = randn(rows, seed=seed + 300)
    garbage = torch.where(mask.bool(), 0, randn(rows, tokens, seed=seed + 400, scale=20.0))
    return SimpleNamespace(logprobs=logprobs + garbage, old=old - garbage, ref=ref, advantages=advantages, mask=mask)


def call(impl, name, logprobs, old, advantages, mask, **settings):
    if name == "grpo_loss":
        return impl.grpo_loss(logprobs, old, None, advantages, mask, **settings)
    return getattr(impl, name)(logprobs, old, advantages, mask, **settings)


def value_and_grad(function, x):
    x = x.detach().clone().requires_grad_()
    value = function(x)
    return value.detach(), torch.autograd.grad(value, x)[0]


def aggregate_loop(per_token, mask, aggregate, max_length):
    rows = [[x for x, m in zip(xs, ms, strict=True) if m] for xs, ms in zip(per_token, mask.tolist(), strict=True)]
    if aggregate == "sequence_sum":
        return sum(sum(row) for row in rows) / len(rows)
    if aggregate == "sequence_mean":
        return sum(sum(row) / len(row) if row else 0 for row in rows) / len(rows)
    if aggregate == "token_mean":
        return sum(sum(row) for row in rows) / max(1, sum(len(row) for row in rows))
    return sum(sum(row) for row in rows) / (len(rows) * max_length)


# ---- gae


@both
@pytest.mark.parametrize("gamma, lam", [(1.0, 0.95), (0.9, 0.5), (0.7, 0.0), (1.0, 1.0)])
def test_gae_is_the_double_sum_over_later_td_errors(impl, gamma, lam):
    b = batch(seed=3)
    rewards, values = randn(5, 7, seed=1), randn(5, 7, seed=2)
    advantages, returns = impl.gae(rewards, values, b.mask, gamma, lam)
    for row in range(5):
        span = b.mask[row].nonzero().flatten().tolist()
        r, v = rewards[row, span].tolist(), values[row, span].tolist() + [0.0]
        deltas = [r[i] + gamma * v[i + 1] - v[i] for i in range(len(span))]
        expected = [sum((gamma * lam) ** (j - i) * deltas[j] for j in range(i, len(span))) for i in range(len(span))]
        assert_close(advantages[row, span], doubles(expected))
        assert_close(returns[row, span], doubles([a + x for a, x in zip(expected, v, strict=False)]))
    assert (advantages[b.mask == 0] == 0).all() and (returns[b.mask == 0] == 0).all()


@both
def test_gae_ignores_padding_prompt_and_any_garbage_in_them(impl):
    b = batch(seed=1)
    rewards, values = randn(5, 7, seed=1), randn(5, 7, seed=2)
    expected = impl.gae(rewards, values, b.mask, 0.9, 0.8)
    wide = [torch.nn.functional.pad(x, (2, 3), value=math.nan) for x in (rewards, values)]
    wide_mask = torch.nn.functional.pad(b.mask, (2, 3))
    for whole, part in zip(impl.gae(*wide, wide_mask, 0.9, 0.8), expected, strict=True):
        assert_close(whole[:, 2:-3], part)
        assert (whole[:, :2] == 0).all() and (whole[:, -3:] == 0).all()
    dirty = torch.where(b.mask.bool(), values, math.inf)
    assert_close(impl.gae(rewards, dirty, b.mask.bool(), 0.9, 0.8), expected)


@both
def test_gae_returns_constants_and_zeros_for_empty_rows(impl):
    rewards, values = randn(2, 3, seed=1).requires_grad_(), randn(2, 3, seed=2).requires_grad_()
    for result in impl.gae(rewards, values, doubles([[0, 0, 0], [0, 1, 1]]), 1.0, 0.95):
        assert not result.requires_grad
        assert (result[0] == 0).all() and (result[1, 1:] != 0).all()


@both
@pytest.mark.parametrize("lam", [0.0, 1.0])
def test_gae_policy_gradient_is_unbiased_on_an_enumerable_policy(impl, lam):
    """lam = 1 with any critic, lam = 0 with the true one: over all 27 completions, the mean gradient is grad E[r]."""
    vocab, length = 3, 3
    logits = randn(sum(vocab**t for t in range(length)), vocab, seed=5).requires_grad_()
    states = {s: i for i, s in enumerate(s for t in range(length) for s in itertools.product(range(vocab), repeat=t))}
    final = dict(zip(itertools.product(range(vocab), repeat=length), randn(vocab**length, seed=6), strict=True))
    table = logits.log_softmax(dim=1)

    def logprobs_of(y):
        return torch.stack([table[states[y[:t]], y[t]] for t in range(length)])

    def true_value(prefix):
        later = [y for y in final if y[: len(prefix)] == prefix]
        return sum(logprobs_of(y)[len(prefix) :].sum().exp().detach() * final[y] for y in later)

    critic = randn(len(states), seed=7)
    value = true_value if lam == 0 else lambda prefix: critic[states[prefix]]
    expected_reward, loss = 0, 0
    for y, reward in final.items():
        logprobs = logprobs_of(y)
        rewards = torch.cat([torch.zeros(length - 1), reward[None]])[None]
        values = torch.stack([value(y[:t]) for t in range(length)])[None]
        advantages, _ = impl.gae(rewards, values, torch.ones(1, length), 1.0, lam)
        surrogate = impl.ppo_clip_loss(
            logprobs[None], logprobs[None].detach(), advantages, torch.ones(1, length), aggregate="sequence_sum"
        )
        loss = loss + logprobs.sum().exp().detach() * surrogate
        expected_reward = expected_reward + logprobs.sum().exp() * reward
    exact = torch.autograd.grad(expected_reward, logits, retain_graph=True)[0]
    assert exact.abs().max() > 0.01
    assert_close(torch.autograd.grad(loss, logits)[0], -exact)


# ---- ppo_clip_loss and the clipped surrogate


@both
@pytest.mark.parametrize("aggregate, max_length", AGGREGATES)
@pytest.mark.parametrize("per_token", [False, True])
def test_ppo_clip_loss_is_the_pessimistic_minimum_in_plain_loops(impl, aggregate, max_length, per_token):
    b = batch(seed=2)
    advantages = randn(5, 7, seed=9) if per_token else b.advantages
    table = [[0.0] * 7 for _ in range(5)]
    for i, t in b.mask.nonzero().tolist():
        a = (advantages[i, t] if per_token else advantages[i]).item()
        rho = math.exp(b.logprobs[i, t].item() - b.old[i, t].item())
        table[i][t] = -min(rho * a, min(max(rho, 1 - 0.1), 1 + 0.3) * a)
    expected = aggregate_loop(table, b.mask, aggregate, max_length)
    result = impl.ppo_clip_loss(b.logprobs, b.old, advantages, b.mask, 0.1, 0.3, aggregate, max_length)
    assert_close(result, doubles(expected))


@both
def test_the_clip_silences_two_of_the_four_corners(impl):
    """A > 0 is flat above 1 + high, A < 0 below 1 - low; the other two corners keep their gradient -A rho."""
    old, mask = doubles([[-2.0, -2.0, -2.0, -2.0]]), torch.ones(1, 4)
    logprobs = old + doubles([[1.5, 0.5, 1.5, 0.5]]).log()
    advantages = doubles([[1.0, 1.0, -1.0, -1.0]])
    value, grad = value_and_grad(
        lambda x: impl.ppo_clip_loss(x, old, advantages, mask, 0.2, 0.3, "sequence_sum"), logprobs
    )
    assert_close(grad, doubles([[0.0, -0.5, 1.5, 0.0]]))
    assert_close(value, doubles(-1.3 - 0.5 + 1.5 + 0.8))


@both
@pytest.mark.parametrize("aggregate, max_length", AGGREGATES)
def test_on_policy_the_ppo_gradient_is_the_policy_gradient(impl, aggregate, max_length):
    b = batch(seed=4)
    _, grad = value_and_grad(
        lambda x: impl.ppo_clip_loss(x, b.logprobs, b.advantages, b.mask, aggregate=aggregate, max_length=max_length),
        b.logprobs,
    )
    _, expected = value_and_grad(
        lambda x: policy_gradient_loss(x, b.advantages, b.mask, aggregate, max_length), b.logprobs
    )
    assert_close(grad, expected)


@both
def test_gradcheck(impl):
    b = batch(seed=6, rows=3, tokens=5)
    args = (b.old, b.advantages, b.mask)
    assert torch.autograd.gradcheck(lambda x: impl.ppo_clip_loss(x, *args), b.logprobs.requires_grad_())
    assert torch.autograd.gradcheck(lambda x: impl.gspo_loss(x, *args, 0.2, 0.2), b.logprobs)
    assert torch.autograd.gradcheck(
        lambda x: impl.grpo_loss(x, b.old, b.ref, b.advantages, b.mask, beta=0.7), b.logprobs
    )
    assert torch.autograd.gradcheck(
        lambda v: impl.value_clip_loss(v, b.old, b.ref, b.mask, clip=0.5), b.logprobs.detach().requires_grad_()
    )


@both
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_ratios_give_no_nan_and_the_clipped_value(impl, name, dtype):
    """In float32 exp(200) is inf: for A >= 0 the minimum never uses it, and 0 * inf must not reach the gradient."""
    logprobs = torch.tensor([[0.0], [-200.0], [-200.0], [0.0]], dtype=dtype)
    old = torch.tensor([[-200.0], [0.0], [0.0], [-200.0]], dtype=dtype)
    advantages = torch.tensor([1.0, 1.0, -1.0, 0.0], dtype=dtype)
    value, grad = value_and_grad(
        lambda x: call(impl, name, x, old, advantages, torch.ones(4, 1)) * 4,
        logprobs,
    )
    assert grad.isfinite().all()
    if name == "cispo_loss":  # logprob 0 at weight 5, then weights of exp(-200), which is 0 in float32
        assert_close(value, torch.tensor(0.0, dtype=dtype))
        assert_close(grad.flatten(), torch.tensor([-5.0, 0.0, 0.0, 0.0], dtype=dtype))
    else:
        high, low = (4e-4, 3e-4) if name == "gspo_loss" else (0.2, 0.2)
        assert_close(value, torch.tensor(-(1 + high) + (1 - low), dtype=dtype))
        assert_close(grad, torch.zeros_like(grad))


@both
def test_a_bad_token_that_became_likely_is_pushed_back_without_limit(impl):
    """A < 0, log-ratio 200, float64: the true loss is exp(200), and so is its gradient."""
    value, grad = value_and_grad(
        lambda x: impl.ppo_clip_loss(x, doubles([[-200.0]]), doubles([-1.0]), torch.ones(1, 1)), doubles([[0.0]])
    )
    assert_close(value / math.exp(200), doubles(1.0))
    assert_close(grad / math.exp(200), doubles([[1.0]]))


@both
def test_equal_very_unlikely_log_probs_have_ratio_one(impl):
    """exp(lp) / exp(old) would be 0 / 0 in float32 at -150; exp(lp - old) is 1."""
    lp = torch.tensor([[-150.0]])
    assert_close(impl.ppo_clip_loss(lp, lp, torch.tensor([2.0]), torch.ones(1, 1)), torch.tensor(-2.0))


# ---- value_clip_loss


@both
def test_value_clip_loss_in_plain_loops(impl):
    b = batch(seed=5)
    values, old, returns = randn(5, 7, seed=1), randn(5, 7, seed=2), randn(5, 7, seed=3)
    errors = [[0.0] * 7 for _ in range(5)]
    for i, t in b.mask.nonzero().tolist():
        v, o, r = values[i, t].item(), old[i, t].item(), returns[i, t].item()
        errors[i][t] = 0.5 * max((v - r) ** 2, (min(max(v, o - 0.3), o + 0.3) - r) ** 2)
    expected = aggregate_loop(errors, b.mask, "token_mean", None)
    assert_close(impl.value_clip_loss(values, old, returns, b.mask, clip=0.3), doubles(expected))


@both
def test_the_critic_stops_once_it_moved_far_enough_towards_its_return(impl):
    values, old, returns = doubles([[1.0, -1.0, 0.1]]), doubles([[0.0, 0.0, 0.0]]), doubles([[2.0, 2.0, 2.0]])
    _, grad = value_and_grad(lambda v: 3 * impl.value_clip_loss(v, old, returns, torch.ones(1, 3)), values)
    assert_close(grad, doubles([[0.0, -3.0, -1.9]]))  # far and nearer, far and farther away, inside the clip range


# ---- grpo_advantages


@both
@pytest.mark.parametrize("eps", [1e-4, 0.5, 0.0])
def test_grpo_advantages_standardise_each_group_with_the_unbiased_std(impl, eps):
    rewards = randn(3, 5, seed=8) + doubles([[0.0], [10.0], [-3.0]])
    expected = [
        [(r - statistics.fmean(group)) / (statistics.stdev(group) + eps) for r in group] for group in rewards.tolist()
    ]
    assert_close(impl.grpo_advantages(rewards, eps=eps), doubles(expected))
    centred = [[r - statistics.fmean(group) for r in group] for group in rewards.tolist()]
    assert_close(impl.grpo_advantages(rewards, normalize_std=False, eps=eps), doubles(centred))


@both
@pytest.mark.parametrize("value", [0.7, 0.1, 1e4, -3.3, 0.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_group_of_equal_rewards_is_exactly_zero(impl, value, dtype):
    """With eps=1e-8, eight float32 rewards of 0.7 get advantages of 0.8 from the rounding of their own mean."""
    rewards = torch.full((3, 8), value, dtype=dtype)
    for eps in (1e-4, 1e-8, 0.0):
        for normalize_std in (True, False):
            assert (impl.grpo_advantages(rewards, normalize_std, eps) == 0).all()


@both
def test_the_trap_of_a_tiny_eps_is_real(impl):
    """Which equal groups the plain formula gets wrong depends on the machine's order of summation; some it does."""
    largest = 0.0
    for value, size in itertools.product([0.1, 0.2, 0.3, 0.6, 0.7, 0.9], range(3, 17)):
        rewards = torch.full((1, size), value)
        naive = (rewards - rewards.mean(dim=1, keepdim=True)) / (rewards.std(dim=1, keepdim=True) + 1e-8)
        largest = max(largest, naive.abs().max().item())
        assert (impl.grpo_advantages(rewards, eps=1e-8) == 0).all()
    assert largest > 0.5


@both
def test_a_group_of_one_is_zero(impl):
    rewards = doubles([[3.0], [-1.0]])
    for normalize_std in (True, False):
        assert_close(impl.grpo_advantages(rewards, normalize_std), torch.zeros_like(rewards), rtol=0, atol=0)


# ---- grpo_loss


@both
@pytest.mark.parametrize("aggregate, max_length", AGGREGATES)
def test_grpo_loss_in_plain_loops(impl, aggregate, max_length):
    b = batch(seed=7)
    table = [[0.0] * 7 for _ in range(5)]
    for i, t in b.mask.nonzero().tolist():
        a, lp = b.advantages[i].item(), b.logprobs[i, t].item()
        rho, d = math.exp(lp - b.old[i, t].item()), lp - b.ref[i, t].item()
        table[i][t] = -min(rho * a, min(max(rho, 0.8), 1.28) * a) + 0.37 * (math.exp(-d) - 1 + d)
    expected = aggregate_loop(table, b.mask, aggregate, max_length)
    result = impl.grpo_loss(b.logprobs, b.old, b.ref, b.advantages, b.mask, 0.2, 0.28, 0.37, aggregate, max_length)
    assert_close(result, doubles(expected))


@both
def test_the_kl_term_estimates_kl_from_pi_to_ref_in_that_order(impl):
    """Exact expectation over 7 tokens drawn from pi. With the policies swapped the term is chi squared minus KL."""
    pi, ref = randn(7, seed=1).log_softmax(0), randn(7, seed=2).log_softmax(0)
    each = [
        impl.grpo_loss(p.view(1, 1), p.view(1, 1), r.view(1, 1), doubles([0.0]), torch.ones(1, 1), beta=1.0)
        for p, r in zip(pi, ref, strict=True)
    ]
    kl = (pi.exp() * (pi - ref)).sum()
    assert_close((pi.exp() * torch.stack(each)).sum(), kl)
    swapped = (pi.exp() * (torch.expm1(pi - ref) - (pi - ref))).sum()
    assert abs(swapped - kl) > 0.1 * kl


@both
def test_the_kl_term_keeps_its_digits_near_the_reference(impl):
    """At d = 1e-6 in float64 k3 is d^2/2 = 5e-13; exp(-d) - 1 + d without expm1 keeps three of its digits."""
    lp = doubles([[-1.0]])
    result = impl.grpo_loss(lp, lp, lp - 1e-6, doubles([0.0]), torch.ones(1, 1), beta=1.0)
    assert_close(result, doubles(5e-13), rtol=1e-6, atol=0)


@both
def test_the_reference_is_needed_only_with_a_kl_term(impl):
    b = batch()
    loss = impl.grpo_loss(b.logprobs, b.old, None, b.advantages, b.mask)
    far = torch.full_like(b.ref, -math.inf)
    assert_close(impl.grpo_loss(b.logprobs, b.old, far, b.advantages, b.mask), loss)
    with pytest.raises(ValueError, match="ref_logprobs"):
        impl.grpo_loss(b.logprobs, b.old, None, b.advantages, b.mask, beta=0.1)


@both
def test_only_the_constant_denominator_removes_the_length_bias(impl):
    """Rows of 2 and 8 tokens, equal advantages: a mean per sequence gives the short row fourfold gradient."""
    mask = torch.tensor([[1] * 2 + [0] * 6, [1] * 8])
    old = torch.full((2, 8), -1.0, dtype=torch.float64)

    def per_token(aggregate, max_length=None):
        def loss(x):
            return impl.grpo_loss(x, old, None, doubles([1.0, 1.0]), mask, aggregate=aggregate, max_length=max_length)

        return value_and_grad(loss, old)[1][:, 0].tolist()

    assert per_token("sequence_mean") == pytest.approx([-0.25, -0.0625])
    assert per_token("constant", 8) == pytest.approx([-0.0625, -0.0625])
    assert per_token("token_mean") == pytest.approx([-0.1, -0.1])


@both
@pytest.mark.parametrize("name", ["ppo_clip_loss", "grpo_loss"])
def test_bad_aggregates_are_named(impl, name):
    b = batch()
    with pytest.raises(ValueError, match="median"):
        call(impl, name, b.logprobs, b.old, b.advantages, b.mask, aggregate="median")
    with pytest.raises(ValueError, match="max_length"):
        call(impl, name, b.logprobs, b.old, b.advantages, b.mask, aggregate="constant")


# ---- gspo_loss and cispo_loss


@both
def test_gspo_clips_the_geometric_mean_of_a_completions_ratios(impl):
    b = batch(seed=8)
    total = 0.0
    for i in range(5):
        span = b.mask[i].nonzero().flatten()
        s = math.exp(statistics.fmean((b.logprobs - b.old)[i, span].tolist()))
        a = b.advantages[i].item()
        total -= min(s * a, min(max(s, 0.9), 1.05) * a)
    assert_close(impl.gspo_loss(b.logprobs, b.old, b.advantages, b.mask, 0.1, 0.05), doubles(total / 5))


@both
def test_gspo_on_policy_has_grpos_gradient(impl):
    b = batch(seed=9)
    _, grad = value_and_grad(lambda x: impl.gspo_loss(x, b.logprobs, b.advantages, b.mask), b.logprobs)
    _, expected = value_and_grad(lambda x: impl.grpo_loss(x, b.logprobs, None, b.advantages, b.mask), b.logprobs)
    assert_close(grad, expected)


@both
def test_gspo_counts_an_empty_row_as_zero(impl):
    lp, old = doubles([[-1.0, -2.0], [-1.0, -2.0]]), doubles([[-1.2, -2.1], [-1.2, -2.1]])
    mask, advantages = torch.tensor([[1, 1], [0, 0]]), doubles([-1.0, math.nan])
    alone = impl.gspo_loss(lp[:1], old[:1], advantages[:1], mask[:1])
    assert_close(impl.gspo_loss(lp, old, advantages, mask), alone / 2)


@both
@pytest.mark.parametrize("clip_low, clip_high", [(1.0, 4.0), (0.2, 0.4), (0.5, 0.1)])
def test_cispo_weights_the_policy_gradient_by_a_clipped_constant(impl, clip_low, clip_high):
    b = batch(seed=10)
    old = b.logprobs + 4 * (b.old - b.logprobs)  # ratios from about 0.05 to 10
    weights = ((b.logprobs - old).exp().clamp(1 - clip_low, 1 + clip_high)).detach()
    value, grad = value_and_grad(
        lambda x: impl.cispo_loss(x, old, b.advantages, b.mask, clip_low, clip_high), b.logprobs
    )
    expected_value, expected_grad = value_and_grad(
        lambda x: policy_gradient_loss(x, b.advantages[:, None] * weights, b.mask, "token_mean"), b.logprobs
    )
    assert_close(value, expected_value)
    assert_close(grad, expected_grad)
    assert (grad[b.mask.bool()] != 0).all()  # no token is silenced


# ---- all losses: masks, constants, dtypes


def every_loss(impl, b):
    """Name -> loss as a function of the tensor that is trained, with all other tensors in `b`."""
    return {
        "ppo_clip_loss": lambda x: impl.ppo_clip_loss(x, b.old, b.advantages, b.mask),
        "grpo_loss": lambda x: impl.grpo_loss(x, b.old, b.ref, b.advantages, b.mask, beta=0.3),
        "gspo_loss": lambda x: impl.gspo_loss(x, b.old, b.advantages, b.mask, 0.2, 0.2),
        "cispo_loss": lambda x: impl.cispo_loss(x, b.old, b.advantages, b.mask),
        "value_clip_loss": lambda x: impl.value_clip_loss(x, b.old, b.ref, b.mask),
    }


NAMES = ["ppo_clip_loss", "grpo_loss", "gspo_loss", "cispo_loss", "value_clip_loss"]


@both
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf, 30.0])
def test_what_stands_under_the_mask_changes_nothing(impl, name, garbage):
    b = batch(seed=11)
    value, grad = value_and_grad(every_loss(impl, b)[name], b.logprobs)
    assert value.abs() > 0.01
    off = b.mask == 0
    for field in ("old", "ref"):
        setattr(b, field, getattr(b, field).masked_fill(off, garbage))
    for dtype in (torch.bool, torch.int64, torch.float32, torch.float64):
        b.mask = b.mask.to(dtype)
        dirty_value, dirty_grad = value_and_grad(every_loss(impl, b)[name], b.logprobs.masked_fill(off, garbage))
        assert_close(dirty_value, value)
        assert_close(dirty_grad, grad)


@both
@pytest.mark.parametrize("name", NAMES)
def test_a_batch_of_empty_rows_has_loss_zero_and_gradient_zero(impl, name):
    b = batch()
    b.mask = torch.zeros_like(b.mask)
    b.advantages = b.advantages + math.nan
    value, grad = value_and_grad(every_loss(impl, b)[name], b.logprobs)
    assert value == 0 and (grad == 0).all()


@both
@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_the_trained_tensor_alone_and_nothing_is_changed(impl, name):
    b = batch(seed=12)
    constants = [b.old, b.ref, b.advantages]
    before = [x.clone() for x in (b.logprobs, *constants)]
    for x in constants:
        x.requires_grad_()
    loss = every_loss(impl, b)[name](b.logprobs.requires_grad_())
    loss.backward()
    assert b.logprobs.grad.abs().max() > 0
    assert all(x.grad is None for x in constants)
    for x, old in zip((b.logprobs, *constants), before, strict=True):
        assert torch.equal(x.detach(), old)


@both
@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_computed_in_float32(impl, name):
    """600 tokens near -5: differences taken or summed in bfloat16, which keeps 8 bits, are off by percents."""
    half = SimpleNamespace(mask=torch.ones(2, 300), advantages=torch.tensor([1.0, -0.7]).bfloat16())
    logprobs = (randn(2, 300, seed=1) - 5).bfloat16()
    half.old = (logprobs.double() + randn(2, 300, seed=2, scale=0.2)).bfloat16()
    half.ref = (logprobs.double() - 0.25).bfloat16()
    double = SimpleNamespace(**{key: x.double() for key, x in vars(half).items()})
    expected = every_loss(impl, double)[name](logprobs.double())
    assert_close(every_loss(impl, half)[name](logprobs).double(), expected, rtol=1e-4, atol=1e-6)


@both
def test_half_precision_log_probs_are_subtracted_in_float32(impl):
    """-0.01 - (-3) is 2.99, in bfloat16 2.984: the ratio would be off by half a percent."""
    logprobs, old = torch.tensor([[-0.01]]).bfloat16(), torch.tensor([[-3.0]]).bfloat16()
    expected = torch.exp(logprobs.double() - old.double()).squeeze()
    loss = impl.ppo_clip_loss(logprobs, old, torch.tensor([-1.0]).bfloat16(), torch.ones(1, 1))
    assert_close(loss.double(), expected, rtol=1e-5, atol=0)


@both
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_results_follow_the_floating_inputs(impl, dtype):
    b = batch()
    for field in ("logprobs", "old", "ref", "advantages"):
        setattr(b, field, getattr(b, field).to(dtype).repeat_interleave(2, -1)[..., ::2])  # strided
    b.mask = b.mask.double()
    for name in NAMES:
        assert every_loss(impl, b)[name](b.logprobs).dtype == dtype
    assert impl.grpo_advantages(b.logprobs).dtype == dtype
    assert all(x.dtype == dtype for x in impl.gae(b.logprobs, b.old, b.mask, 1.0, 0.9))


@pytest.mark.parametrize("seed", range(20))
def test_solution_and_reference_agree_on_random_batches(seed):
    b = batch(seed=seed, rows=1 + seed % 6, tokens=1 + (5 * seed) % 9 + 2)
    for name in NAMES:
        x = b.logprobs
        assert_close(
            value_and_grad(every_loss(solution, b)[name], x), value_and_grad(every_loss(reference, b)[name], x)
        )
    rewards = (2 * randn(1 + seed % 4, 2 + seed % 5, seed=seed)).round()
    assert_close(solution.grpo_advantages(rewards), reference.grpo_advantages(rewards))
    assert_close(solution.gae(b.old, b.ref, b.mask, 0.9, 0.8), reference.gae(b.old, b.ref, b.mask, 0.9, 0.8))


# ---- the worked numbers of the stub


@both
def test_worked_numbers_of_the_docstrings(impl):
    ones = torch.ones(1, 2)
    advantages, returns = impl.gae(doubles([[0, 0, 1]]), doubles([[0.5] * 3]), torch.ones(1, 3), 1.0, 0.5)
    assert_close(advantages, doubles([[0.125, 0.25, 0.5]]))
    assert_close(returns, doubles([[0.625, 0.75, 1.0]]))
    lp, old = doubles([[-1.0, -1.0]]), doubles([[-1.5, -0.5]])
    assert impl.ppo_clip_loss(lp, old, doubles([[1.0, 1.0]]), ones).item() == pytest.approx(-0.9033, abs=5e-5)
    assert impl.ppo_clip_loss(lp, old, doubles([[-1.0, -1.0]]), ones).item() == pytest.approx(1.2244, abs=5e-5)
    value = impl.value_clip_loss(doubles([[1.0, 2.0]]), doubles([[0.5, 2.0]]), doubles([[1.0, 3.0]]), ones)
    assert value.item() == pytest.approx(0.2725)
    group = doubles([[1.0, 0.0, 0.0, 0.0]])
    assert_close(impl.grpo_advantages(group), doubles([[1.4997, -0.4999, -0.4999, -0.4999]]), rtol=0, atol=5e-5)
    assert_close(impl.grpo_advantages(group, normalize_std=False), doubles([[0.75, -0.25, -0.25, -0.25]]))
    lp, old = doubles([[-1.0, -1.0], [-2.0, -9.0]]), doubles([[-1.5, -0.5], [-2.5, -9.0]])
    a, mask, ref = doubles([1.0, -1.0]), torch.tensor([[1, 1], [1, 0]]), doubles([[-1.0, -2.0], [-2.0, -9.0]])
    assert impl.grpo_loss(lp, old, ref, a, mask).item() == pytest.approx(0.3727, abs=5e-5)
    assert impl.grpo_loss(lp, old, ref, a, mask, beta=0.1).item() == pytest.approx(0.3819, abs=5e-5)
    old[0, 1] = -0.7
    assert impl.gspo_loss(lp, old, a, mask).item() == pytest.approx(0.3242, abs=5e-5)
    assert impl.gspo_loss(lp, old, a, mask, 0.2, 0.2).item() == pytest.approx(0.2718, abs=5e-5)
    old[0, 1] = -4.0
    assert impl.cispo_loss(lp, old, a, mask).item() == pytest.approx(1.1171, abs=5e-5)


@pytest.mark.parametrize("name", [*LOSSES, "gae", "value_clip_loss", "grpo_advantages"])
def test_stub_solution_and_reference_have_one_signature(name):
    signatures = {inspect.signature(getattr(module, name)) for module in (stub, solution, reference)}
    assert len(signatures) == 1
    arguments = [None] * sum(p.default is p.empty for p in signatures.pop().parameters.values())
    with pytest.raises(NotImplementedError, match=f"Week 06, task .*{name}"):
        getattr(stub, name)(*arguments)


# ---- from reference_impl alone: SAPO, MaxRL, DAPO's overlong penalty


def test_sapo_in_plain_loops_with_slope_one_at_ratio_one():
    b = batch(seed=13)
    table = [[0.0] * 7 for _ in range(5)]
    for i, t in b.mask.nonzero().tolist():
        a, rho = b.advantages[i].item(), math.exp((b.logprobs - b.old)[i, t].item())
        tau = 1.3 if a > 0 else 1.7
        table[i][t] = -4 / tau / (1 + math.exp(-tau * (rho - 1))) * a
    expected = aggregate_loop(table, b.mask, "sequence_mean", None)
    assert_close(reference.sapo_loss(b.logprobs, b.old, b.advantages, b.mask, 1.3, 1.7), doubles(expected))
    _, grad = value_and_grad(lambda x: reference.sapo_loss(x, b.logprobs, b.advantages, b.mask), b.logprobs)
    _, policy_gradient = value_and_grad(
        lambda x: policy_gradient_loss(x, b.advantages, b.mask, "sequence_mean"), b.logprobs
    )
    assert_close(grad, policy_gradient)


def test_sapo_is_finite_at_ratios_that_overflow():
    logprobs, old, ones = torch.tensor([[0.0], [0.0]]), torch.tensor([[-200.0], [-200.0]]), torch.ones(2, 1)
    value, grad = value_and_grad(
        lambda x: reference.sapo_loss(x, old, torch.tensor([1.0, -1.0]), ones, aggregate="sequence_sum"), logprobs
    )
    assert_close(value, torch.tensor((-4 + 4 / 1.05) / 2))
    assert (grad == 0).all()


@pytest.mark.parametrize("success", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("group", [2, 3, 5])
def test_maxrl_is_unbiased_for_log_p_cut_off_after_g_minus_1_terms(success, group):
    """A policy with one parameter, p = P(success): average the estimator over all 2^G groups."""
    p = doubles(success).requires_grad_()
    estimate = torch.zeros((), dtype=torch.float64)
    for outcome in itertools.product([0.0, 1.0], repeat=group):
        rewards = doubles([outcome])
        logprobs = torch.where(rewards[0] == 1, p.log(), (1 - p).log())
        surrogate = (reference.maxrl_advantages(rewards)[0] * logprobs).mean()
        estimate = estimate + logprobs.sum().exp().detach() * torch.autograd.grad(surrogate, p)[0]
    objective = -sum((1 - p) ** k / k for k in range(1, group))
    assert_close(estimate.detach(), torch.autograd.grad(objective, p)[0])


def test_maxrl_advantages_of_hopeless_and_solved_groups_are_zero():
    rewards = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [1.0, 0.0, 0.0]])
    expected = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [2.0, -1.0, -1.0]])
    assert_close(reference.maxrl_advantages(rewards), expected)


def test_overlong_penalty_is_a_ramp():
    lengths = torch.tensor([1, 384, 385, 448, 512, 513, 9999])
    expected = torch.tensor([0.0, 0.0, -1 / 128, -0.5, -1.0, -1.0, -1.0])
    assert_close(reference.overlong_penalty(lengths, max_length=512, cache=128), expected)
    for cache in (0, 513):
        with pytest.raises(ValueError, match=f"cache={cache}"):
            reference.overlong_penalty(lengths, 512, cache)


# ---- TRL: the loss code of its GRPO trainer, run on our tensors


def trl_loss(b, loss_type, beta=0.0, level="token", max_length=None, low=0.2, high=0.2):
    """GRPOTrainer._compute_loss without a trainer: `logprobs` stands in for the model's output."""
    from trl.trainer.grpo_trainer import GRPOTrainer

    same = SimpleNamespace(gather=lambda x: x, reduce=lambda x, reduction: x, num_processes=1)
    trainer = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *a, **k: (b.logprobs, torch.zeros_like(b.logprobs), None),
        model=SimpleNamespace(training=False),
        args=SimpleNamespace(
            use_bias_correction_kl=False, delta=None, sapo_temperature_pos=1.0, sapo_temperature_neg=1.05
        ),
        **dict(aux_loss_enabled=False, top_entropy_quantile=1.0, off_policy_mask_threshold=None, use_vllm=False),
        **dict(_entropy_bonus_enabled=False, importance_sampling_level=level, beta=beta, loss_type=loss_type),
        **dict(epsilon_low=low, epsilon_high=high, max_completion_length=max_length, accelerator=same),
        _metrics={"eval": defaultdict(list)},
    )
    ids = torch.zeros_like(b.mask)
    inputs = dict(prompt_ids=ids, prompt_mask=ids, completion_ids=ids, completion_mask=b.mask)
    inputs |= dict(advantages=b.advantages, old_per_token_logps=b.old, ref_per_token_logps=b.ref)
    return GRPOTrainer._compute_loss(trainer, None, inputs | {"num_items_in_batch": b.mask.sum()})


@pytest.mark.parametrize("beta", [0.0, 0.3])
@pytest.mark.parametrize("loss_type", ["grpo", "dapo", "bnpo", "dr_grpo"])
def test_trl_agrees_on_grpo_dapo_and_dr_grpo(loss_type, beta):
    aggregate = {"grpo": "sequence_mean", "dr_grpo": "constant"}.get(loss_type, "token_mean")
    b = batch(seed=14)
    b.logprobs.requires_grad_()
    theirs = trl_loss(b, loss_type, beta, max_length=11, low=0.1, high=0.28)
    ours = reference.grpo_loss(
        b.logprobs, b.old, b.ref, b.advantages, b.mask, 0.1, 0.28, beta, aggregate, max_length=11
    )
    assert_close(ours, theirs)
    assert_close(torch.autograd.grad(ours, b.logprobs)[0], torch.autograd.grad(theirs, b.logprobs)[0])


def test_trl_agrees_on_gspo_cispo_and_sapo():
    """TRL's CISPO has only the upper bound, as an absolute number: its epsilon_high is our 1 + clip_high."""
    b = batch(seed=15)
    b.logprobs.requires_grad_()
    args = (b.logprobs, b.old, b.advantages, b.mask)
    pairs = [
        (reference.gspo_loss(*args, 0.1, 0.05), trl_loss(b, "grpo", level="sequence", low=0.1, high=0.05)),
        (reference.cispo_loss(*args, 1.0, 0.2), trl_loss(b, "cispo", high=1.2)),
        (reference.sapo_loss(*args), trl_loss(b, "sapo")),
    ]
    for ours, theirs in pairs:
        assert_close(ours, theirs)
        assert_close(torch.autograd.grad(ours, b.logprobs)[0], torch.autograd.grad(theirs, b.logprobs)[0])


def test_trl_agrees_on_the_overlong_penalty():
    from trl.rewards import get_soft_overlong_punishment

    lengths = list(range(1, 130, 7))
    theirs = get_soft_overlong_punishment(max_completion_len=100, soft_punish_cache=20)([[0] * n for n in lengths])
    assert_close(reference.overlong_penalty(torch.tensor(lengths), 100, 20), torch.tensor(theirs))
