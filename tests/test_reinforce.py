"""Week 05 proven: expectations by enumeration, plain-Python arithmetic, TRL's gradients, known traps."""

import importlib.util
from fractions import Fraction
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch
from torch.testing import assert_close

from reference_impl import reinforce as reference

ROOT = Path(__file__).parents[1]
RULES = ["sequence_sum", "sequence_mean", "token_mean", "constant"]
MASK_DTYPES = [torch.bool, torch.int64, torch.uint8, torch.float32, torch.float64]


def load(path):
    spec = importlib.util.spec_from_file_location("week05_solution", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


solution = load(ROOT / "solutions/05/reinforce.py")
both = pytest.mark.parametrize("impl", [reference, solution], ids=["reference", "solution"])


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def ragged(lengths, width, starts=None):
    starts = starts or [0] * len(lengths)
    return torch.tensor([[int(s <= t < s + n) for t in range(width)] for s, n in zip(starts, lengths, strict=True)])


# ---- a policy small enough to enumerate: tokens a, b, eos; at most two tokens; seven completions

A, B, EOS = range(3)
COMPLETIONS = [(EOS,), (A, EOS), (B, EOS), (A, A), (A, B), (B, A), (B, B)]
REWARDS = doubles(0.2, 1.0, -0.5, 0.7, 2.0, 0.1, -1.3)
MASK = ragged([len(y) for y in COMPLETIONS], width=2)


def all_logprobs(logits):
    """(7, 2): row y holds log pi(y_t | y_<t); `logits[0]` starts, `logits[1 + a]` follows token a."""
    table = logits.log_softmax(dim=-1)
    rows = []
    for y in COMPLETIONS:
        states = [0] + [1 + token for token in y[:-1]]
        row = [table[state, token] for state, token in zip(states, y, strict=True)]
        rows.append(torch.stack(row + [doubles(9.0)[0]] * (2 - len(y))))  # garbage in the padding
    return torch.stack(rows)


def exact_gradient(rewards=REWARDS):
    """The gradient of E[r] = sum_y pi(y) r(y), by automatic differentiation of the sum itself."""
    logits = randn(3, 3, seed=4).requires_grad_()
    probs = (all_logprobs(logits) * MASK).sum(dim=1).exp()
    assert_close(probs.sum(), doubles(1.0)[0])
    return torch.autograd.grad(probs @ rewards, logits)[0]


def gradients_of_every_draw(loss_of, size):
    """Probabilities (7^size,) and gradients (7^size, 9) of `loss_of(logprobs, indices)` over all draws of `size`."""
    logits = randn(3, 3, seed=4).requires_grad_()
    logprobs = all_logprobs(logits)
    probs = (logprobs.detach() * MASK).sum(dim=1).exp()
    weights, gradients = [], []
    for draw in product(range(len(COMPLETIONS)), repeat=size):
        index = torch.tensor(draw)
        gradient = torch.autograd.grad(loss_of(logprobs[index], index), logits, retain_graph=True)[0]
        weights.append(probs[index].prod())
        gradients.append(gradient.flatten())
    return torch.stack(weights), torch.stack(gradients)


def expected_gradient(loss_of, size):
    weights, gradients = gradients_of_every_draw(loss_of, size)
    return (weights @ gradients).view(3, 3)


def total_variance(loss_of, size):
    weights, gradients = gradients_of_every_draw(loss_of, size)
    return weights @ (gradients - weights @ gradients).square().sum(dim=1)


@both
@pytest.mark.parametrize("baseline", [0.0, 0.9, "another sample"])
def test_reinforce_gradient_is_unbiased_on_an_enumerable_policy(impl, baseline):
    def loss(logprobs, index):
        b = REWARDS[index].flip(0) if baseline == "another sample" else baseline
        return impl.reinforce_loss(logprobs, REWARDS[index], MASK[index], b)

    assert_close(expected_gradient(loss, size=2), -exact_gradient())


@both
def test_the_batch_baseline_keeps_the_gradient_unbiased(impl):
    def loss(logprobs, index):
        return impl.reinforce_loss(logprobs, REWARDS[index], MASK[index], impl.batch_baseline(REWARDS[index]))

    assert_close(expected_gradient(loss, size=3), -exact_gradient())


def rloo_loss(impl, rewards=REWARDS, aggregate="sequence_sum", max_length=None):
    def loss(logprobs, index):
        advantages = impl.rloo_advantages(rewards[index].view(1, -1)).flatten()
        return impl.policy_gradient_loss(logprobs, advantages, MASK[index], aggregate, max_length)

    return loss


@both
@pytest.mark.parametrize("size", [2, 3])
def test_rloo_gradient_is_unbiased_on_an_enumerable_policy(impl, size):
    assert_close(expected_gradient(rloo_loss(impl), size), -exact_gradient())


@both
def test_the_constant_rule_scales_the_exact_gradient(impl):
    loss = rloo_loss(impl, aggregate="constant", max_length=5)
    assert_close(expected_gradient(loss, size=2), -exact_gradient() / 5)


@both
def test_length_averages_climb_reward_per_token_instead(impl):
    """(1/n) r grad log pi is, in expectation, the gradient of E[r/n]: a different objective, and a known trap (T2)."""

    def loss(logprobs, index):
        return impl.policy_gradient_loss(logprobs, REWARDS[index], MASK[index], "sequence_mean")

    biased = expected_gradient(loss, size=1)
    assert_close(biased, -exact_gradient(REWARDS / MASK.sum(dim=1)))
    assert (biased + exact_gradient()).norm() > 0.3 * exact_gradient().norm()


def test_a_baseline_that_contains_its_own_sample_shrinks_the_gradient():
    def loss(logprobs, index):
        return reference.reinforce_loss(logprobs, REWARDS[index], MASK[index], REWARDS[index].mean())

    assert_close(expected_gradient(loss, size=3), -exact_gradient() * 2 / 3)


@both
def test_reward_to_go_keeps_the_gradient_unbiased_with_less_variance(impl):
    """Credit for rewards earlier than the token is noise: leaving it out must not move the mean."""
    token_rewards = torch.tensor([[0.5, -1.0], [2.0, 0.3], [-0.7, 1.1]], dtype=torch.float64)  # by token, then step
    per_token = torch.stack(
        [torch.stack([token_rewards[y[min(t, len(y) - 1)], t] for t in range(2)]) for y in COMPLETIONS]
    )
    totals = (per_token * MASK).sum(dim=1)

    def loss(logprobs, index):
        returns = impl.reward_to_go(per_token[index], MASK[index], gamma=1.0)
        return impl.policy_gradient_loss(logprobs, returns, MASK[index], "sequence_sum")

    def whole(logprobs, index):
        return impl.reinforce_loss(logprobs, totals[index], MASK[index])

    exact = -exact_gradient(totals)
    assert_close(expected_gradient(loss, size=1), exact)
    assert_close(expected_gradient(whole, size=1), exact)
    assert total_variance(loss, size=1) < total_variance(whole, size=1)


def test_a_shift_of_all_rewards_costs_reinforce_variance_and_rloo_nothing():
    def plain(shift):
        return lambda logprobs, index: reference.reinforce_loss(logprobs, REWARDS[index] + shift, MASK[index])

    assert total_variance(plain(3.0), 2) > 4 * total_variance(plain(0.0), 2)
    assert_close(total_variance(rloo_loss(reference, REWARDS + 3.0), 2), total_variance(rloo_loss(reference), 2))
    assert total_variance(rloo_loss(reference, REWARDS + 3.0), 2) < total_variance(plain(3.0), 2) / 4


# ---- values, against plain Python and exact fractions


@both
@pytest.mark.parametrize("dtype", MASK_DTYPES)
@pytest.mark.parametrize("rule", RULES)
def test_losses_equal_plain_loops_for_every_mask_dtype(impl, dtype, rule):
    lengths, starts, width = [5, 1, 3], [0, 6, 2], 7
    mask = ragged(lengths, width, starts).to(dtype)
    logprobs, rewards, baseline = randn(3, width).T.contiguous().T, randn(3, seed=1), randn(3, seed=2)
    token_advantages = randn(3, width, seed=3)
    row_sums = [sum(logprobs[i, s : s + n].tolist()) for i, (s, n) in enumerate(zip(starts, lengths, strict=True))]

    expected = -sum((rewards[i] - baseline[i]) * row_sums[i] for i in range(3)) / 3
    assert_close(impl.reinforce_loss(logprobs, rewards, mask, baseline), expected)

    for advantages in [rewards, token_advantages]:
        total, row_means = 0.0, 0.0
        for i, (s, n) in enumerate(zip(starts, lengths, strict=True)):
            a = [advantages[i].item()] * width if advantages.dim() == 1 else advantages[i].tolist()
            row = sum(-a[t] * logprobs[i, t].item() for t in range(s, s + n))
            total, row_means = total + row, row_means + row / n
        expected = {"sequence_sum": total / 3, "sequence_mean": row_means / 3}
        expected |= {"token_mean": total / sum(lengths), "constant": total / (3 * 11)}
        result = impl.policy_gradient_loss(logprobs, advantages, mask, rule, max_length=11)
        assert_close(result, doubles(expected[rule])[0])


@both
def test_advantages_and_baseline_equal_exact_fractions(impl):
    rewards = [[1, 0, 0.5, -2], [3, 3, 0.25, 8], [0, 0, 0, 1]]
    exact = [[Fraction(r) - (sum(map(Fraction, row)) - Fraction(r)) / 3 for r in row] for row in rewards]
    expected = doubles(*[[float(x) for x in row] for row in exact])
    assert_close(impl.rloo_advantages(doubles(*rewards)), expected)
    assert_close(impl.rloo_advantages(doubles(*rewards).T.contiguous().T), expected)
    flat = [r for row in rewards for r in row]
    others = [float((sum(map(Fraction, flat)) - Fraction(r)) / 11) for r in flat]
    assert_close(impl.batch_baseline(doubles(*flat)), doubles(*others))
    assert_close(impl.batch_baseline(doubles(4.0)), doubles(0.0))


@both
@pytest.mark.parametrize("gamma", [0.0, 0.9, 1.0])
@pytest.mark.parametrize("dtype", MASK_DTYPES)
def test_reward_to_go_equals_the_double_sum(impl, gamma, dtype):
    lengths, starts, width = [5, 1, 3, 0], [0, 6, 2, 0], 7
    rewards, mask = randn(4, width), ragged(lengths, width, starts).to(dtype)
    expected = torch.zeros(4, width, dtype=torch.float64)
    for i, (s, n) in enumerate(zip(starts, lengths, strict=True)):
        for t in range(s, s + n):
            expected[i, t] = sum(gamma ** (k - t) * rewards[i, k] for k in range(t, s + n))
    result = impl.reward_to_go(rewards, mask, gamma)
    assert result.dtype == torch.float64
    assert_close(result, expected)


@both
def test_bad_values_are_named(impl):
    with pytest.raises(ValueError, match=r"\(3, 1\)"):
        impl.rloo_advantages(torch.zeros(3, 1))
    arguments = torch.zeros(2, 3), torch.zeros(2), torch.ones(2, 3)
    with pytest.raises(ValueError, match="seq_mean"):
        impl.policy_gradient_loss(*arguments, "seq_mean")
    with pytest.raises(ValueError, match="max_length"):
        impl.policy_gradient_loss(*arguments, "constant")


# ---- gradients


def losses_of(impl):
    """Both losses as functions of (logprobs, weights) on a ragged batch with an empty row."""
    mask = ragged([4, 0, 2], width=5, starts=[1, 0, 0])
    yield lambda logprobs, weights: impl.reinforce_loss(logprobs, weights, mask, weights.flip(0) * 0.5)
    for rule in RULES:
        yield lambda logprobs, weights, rule=rule: impl.policy_gradient_loss(logprobs, weights, mask, rule, 7)


@both
def test_gradcheck_and_constants_get_no_gradient(impl):
    logprobs, weights = randn(3, 5).requires_grad_(), randn(3, seed=1).requires_grad_()
    for loss in losses_of(impl):
        assert torch.autograd.gradcheck(lambda x, loss=loss: loss(x, weights.detach()), logprobs)
        gradients = torch.autograd.grad(loss(logprobs, weights), [logprobs, weights], allow_unused=True)
        assert gradients[0].abs().sum() > 0 and gradients[1] is None
    rewards = randn(3, 5).requires_grad_()
    outputs = impl.rloo_advantages(rewards), impl.batch_baseline(rewards[0]), impl.reward_to_go(rewards, rewards, 0.9)
    assert not any(output.requires_grad for output in outputs)


@both
@pytest.mark.parametrize("garbage", [float("nan"), float("inf"), float("-inf")])
def test_garbage_under_the_mask_changes_neither_value_nor_gradient(impl, garbage):
    mask = ragged([4, 0, 2], width=5, starts=[1, 0, 0]).bool()
    clean, rewards, weights = randn(3, 5), randn(3, 5, seed=2), randn(3, seed=1)
    dirty = torch.where(mask, clean, garbage)
    for loss in losses_of(impl):
        x, y = clean.clone().requires_grad_(), dirty.clone().requires_grad_()
        expected, result = loss(x, weights), loss(y, weights)
        assert_close(result, expected)
        assert_close(*(torch.autograd.grad(value, leaf)[0] for value, leaf in [(result, y), (expected, x)]))
    x = dirty.clone().requires_grad_()
    loss = impl.policy_gradient_loss(x, torch.where(mask, rewards, garbage), mask, "token_mean")
    assert_close(loss, impl.policy_gradient_loss(clean, rewards, mask, "token_mean"))
    assert torch.autograd.grad(loss, x)[0].isfinite().all()
    expected = impl.reward_to_go(rewards, mask, 0.9)
    assert_close(impl.reward_to_go(torch.where(mask, rewards, garbage), mask, 0.9), expected)


@both
def test_a_batch_of_empty_rows_has_loss_and_gradient_zero(impl):
    logprobs, mask = randn(3, 5).requires_grad_(), torch.zeros(3, 5)
    values = [impl.reinforce_loss(logprobs, randn(3), mask)]
    values += [impl.policy_gradient_loss(logprobs, randn(3), mask, rule, 7) for rule in RULES]
    for value in values:
        assert value == 0 and torch.equal(torch.autograd.grad(value, logprobs)[0], torch.zeros(3, 5).double())


@both
@pytest.mark.parametrize("size", [2, 3, 7, 8, 11])
@pytest.mark.parametrize("reward", [0.7, 0.1, 0.425, 1e6 + 0.1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_equal_rewards_have_advantages_of_exactly_zero(impl, size, reward, dtype):
    rewards = torch.full((2, size), reward, dtype=dtype)
    assert torch.equal(impl.rloo_advantages(rewards).float(), torch.zeros(2, size))
    assert torch.equal(rewards[0] - impl.batch_baseline(rewards[0]), torch.zeros(size, dtype=torch.float32).to(dtype))


def test_the_obvious_leave_one_out_is_not_exactly_zero():
    """Why the test above is not vacuous."""
    rewards = torch.full((1, 11), 0.1)
    assert (rewards - (rewards.sum(1, keepdim=True) - rewards) / 10).abs().max() > 0


@both
def test_half_precision_is_summed_in_float32(impl):
    """512 log-probs of -0.7: their bfloat16 running sum stalls; upstream trap T4."""
    logprobs = torch.full((2, 512), -0.7, dtype=torch.bfloat16)
    exact = logprobs.double().sum(dim=1)[0].item()
    mask, ones = torch.ones(2, 512), torch.ones(2)
    assert impl.reinforce_loss(logprobs, ones, mask).item() == pytest.approx(-exact, rel=1e-5)
    assert impl.policy_gradient_loss(logprobs, ones, mask, "sequence_sum").item() == pytest.approx(-exact, rel=1e-5)
    rewards = torch.tensor([[1.0, 1.0078125, 256.0, 258.0]], dtype=torch.bfloat16)
    assert_close(impl.rloo_advantages(rewards).double(), impl.rloo_advantages(rewards.double()), rtol=1e-6, atol=1e-6)


@both
def test_results_follow_the_floating_inputs_and_inputs_stay(impl):
    for dtype in [torch.float32, torch.float64]:
        logprobs, rewards, mask = randn(3, 5).to(dtype), randn(3, seed=1).to(dtype), torch.ones(3, 5).double()
        before = logprobs.clone(), rewards.clone(), mask.clone()
        results = [impl.reinforce_loss(logprobs, rewards, mask, 0.5), impl.reward_to_go(logprobs, mask, 0.9)]
        results += [impl.policy_gradient_loss(logprobs, rewards, mask, rule, 7) for rule in RULES]
        results += [impl.rloo_advantages(logprobs), impl.batch_baseline(rewards)]
        assert all(result.dtype == dtype for result in results)
        assert all(torch.equal(a, b) for a, b in zip(before, (logprobs, rewards, mask), strict=True))


# ---- TRL: the trainers' own loss methods, with the model's log-probs given


def trl_gradient(trainer, logprobs, advantages, mask, **settings):
    """Gradient of `trainer._compute_loss` when log-probs come from the current policy (every ratio is 1)."""
    me = MagicMock()
    me.model.training = False
    me.aux_loss_enabled = me.use_vllm = me._entropy_bonus_enabled = False
    me.beta, me.epsilon_low, me.epsilon_high, me.top_entropy_quantile = 0.0, 0.2, 0.2, 1.0
    me.off_policy_mask_threshold, me.importance_sampling_level, me.args.delta = None, "token", None
    me.accelerator.gather = me.accelerator.reduce = lambda value, **kwargs: value
    me.accelerator.num_processes = 1
    for name, value in settings.items():
        setattr(me, name, value)
    x = logprobs.float().clone().requires_grad_()
    me._get_per_token_logps_and_entropies = lambda *args, **kwargs: (x, torch.zeros_like(x), None)
    ids, ones = torch.zeros(x.shape, dtype=torch.long), torch.ones(x.shape, dtype=torch.long)
    inputs = {"prompt_ids": ids, "prompt_mask": ones, "completion_ids": ids, "completion_mask": mask}
    inputs |= {"advantages": advantages.float(), "old_logps": (x * mask).sum(1).detach()}
    inputs |= {"num_items_in_batch": mask.sum()}
    return torch.autograd.grad(trainer._compute_loss(me, SimpleNamespace(), inputs), x)[0]


def our_gradient(loss_of, logprobs):
    x = logprobs.float().clone().requires_grad_()
    return torch.autograd.grad(loss_of(x), x)[0]


def test_trl_rloo_has_the_same_gradient_and_sums_tokens():
    from trl.trainer.rloo_trainer import RLOOTrainer

    logprobs, mask, advantages = -randn(3, 7).abs(), ragged([5, 1, 7], 7), randn(3, seed=1)
    theirs = trl_gradient(RLOOTrainer, logprobs, advantages, mask)
    assert_close(our_gradient(lambda x: reference.reinforce_loss(x, advantages.float(), mask), logprobs), theirs)
    ours = our_gradient(lambda x: reference.policy_gradient_loss(x, advantages.float(), mask, "sequence_sum"), logprobs)
    assert_close(ours, theirs)


@pytest.mark.parametrize(
    ("rule", "loss_type"),
    [("sequence_mean", "grpo"), ("token_mean", "bnpo"), ("token_mean", "dapo"), ("constant", "dr_grpo")],
)
def test_trl_grpo_aggregates_tokens_by_the_same_rules(rule, loss_type):
    """TRL's "dapo" counts the tokens of the whole generation batch; here the batch is one, so it equals "bnpo"."""
    from trl.trainer.grpo_trainer import GRPOTrainer

    logprobs, mask, advantages = -randn(3, 7).abs(), ragged([5, 1, 7], 7), randn(3, seed=1)
    settings = {"loss_type": loss_type, "max_completion_length": 11}
    theirs = trl_gradient(GRPOTrainer, logprobs, advantages, mask, **settings)
    ours = our_gradient(lambda x: reference.policy_gradient_loss(x, advantages.float(), mask, rule, 11), logprobs)
    assert_close(ours, theirs)
