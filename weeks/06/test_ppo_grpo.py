"""Grader of week 06. One test is one claim about one function; `pytest weeks/06` runs them on your file.

`compare` calls your function and the reference on the same inputs and compares values, gradients (`grad` names what is
trained; everything else must get none), dtype and shape, and that nothing is changed in place.
"""

import torch
from hypothesis import given, settings

from graders import check, compare, raises, returns, robust
from graders import strategies as st

HUGE = "select before you compute, torch.where(mask.bool(), x, 0): inf or NaN times 0 is NaN"
EMPTY = "divide by the count clamped to at least 1"
HALF = "x.float() before the first subtraction: bfloat16 keeps 8 bits of a number"
OVERFLOW = "bound the log-ratio before exp; the branch that min throws away still sends 0 * inf = NaN through exp"
RATIO = "exp(logprobs - old_logprobs): both probabilities underflow to 0 long before their ratio does"
RULES = st.sampled_from(["sequence_sum", "sequence_mean", "token_mean", "constant"])
CLIPS = st.sampled_from([(0.2, 0.2), (0.1, 0.3), (0.3, 0.1), (0.2, 0.28)])
FEW = settings(max_examples=6)  # of claims that few kinds of input can break
NAN = ("nan", "inf", "-inf")

# --- gae --------------------------------------------------------------------------------------------------------------

CREDIT = dict(rewards="B T normal", values="B T normal", mask="B T mask")
GAMMA, LAM = st.sampled_from([0.9, 1.0, 0.5]), st.sampled_from([0.95, 0.4, 1.0])


@check("gae", "delta plus gamma lam times the next advantage, over the span; returns are advantages + values")
@given(x=st.tensors(**CREDIT), gamma=GAMMA, lam=LAM)
def test_gae_over_the_span(x, gamma, lam):
    compare("gae", x.rewards, x.values, x.mask, gamma, lam)


@check("gae", "after the last token there is no value: what the critic says about padding does not count")
@FEW
@given(x=st.tensors(**CREDIT, span=("right", "single"), sizes={"T": (3, 5, 7)}))
def test_gae_does_not_bootstrap_from_padding(x):
    compare("gae", x.rewards, x.values, x.mask, 0.9, 0.95)


@check("gae", "a prompt in front of the span has advantage 0 and return 0")
@FEW
@given(x=st.tensors(**CREDIT, span=("inside",), sizes={"T": (3, 5, 7)}))
def test_gae_stays_inside_the_span(x):
    compare("gae", x.rewards, x.values, x.mask, 1.0, 1.0)


@check("gae", "lam = 0 leaves the one-step surprise delta, gamma = 0 leaves reward minus value")
@FEW
@given(x=st.tensors(**CREDIT), zero=st.sampled_from([(0.9, 0.0), (0.0, 0.9), (1.0, 0.0)]))
def test_gae_of_one_step(x, zero):
    compare("gae", x.rewards, x.values, x.mask, *zero)


@check("gae", "the worked number of the docstring")
def test_gae_worked_number():
    rewards, values = torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[0.5, 0.5, 0.5]])
    expected = torch.tensor([[0.125, 0.25, 0.5]]), torch.tensor([[0.625, 0.75, 1.0]])
    returns("gae", expected, rewards, values, torch.ones(1, 3), 1.0, 0.5)


@robust("gae", "inf and NaN under the mask do not matter", remedy=HUGE)
@given(x=st.tensors(**CREDIT, under_mask=NAN), gamma=GAMMA, lam=LAM)
def test_gae_ignores_what_is_under_the_mask(x, gamma, lam):
    compare("gae", x.rewards, x.values, x.mask, gamma, lam)


@robust("gae", "a completion without tokens has no advantages and no returns", remedy=HUGE)
@given(x=st.tensors(**CREDIT, empty_rows="some", under_mask=("finite", "nan"), least={"B": 2}))
def test_gae_of_empty_rows(x):
    compare("gae", x.rewards, x.values, x.mask, 0.9, 0.95)


@robust("gae", "half precision: the recursion runs in float32", remedy=HALF)
@given(x=st.tensors(**CREDIT, dtypes=st.HALF, sizes={"T": (61,), "B": (2, 3)}, span=("full",)))
def test_gae_recurses_in_float32(x):
    compare("gae", x.rewards, x.values, x.mask, 1.0, 0.95)


# --- ppo_clip_loss ----------------------------------------------------------------------------------------------------

POLICY = dict(logprobs="B T logprob", shift="B T normal", advantages="B normal", mask="B T mask")
TOKENS = POLICY | dict(token_advantages="B T normal")
REFERENCE = POLICY | dict(ref_logprobs="B T logprob")


def old(x):
    """Old log-probs whose ratios fall inside and outside the usual clip ranges, on both sides."""
    return x.logprobs - 0.3 * x.shift


def ppo(x, *, per_token=False, **settings):
    advantages = x.token_advantages if per_token else x.advantages
    compare("ppo_clip_loss", x.logprobs, old(x), advantages, x.mask, **settings, grad="logprobs")


@check("ppo_clip_loss", "-min(rho A, clip(rho) A), averaged over all tokens; clips of 0.2 unless told otherwise")
@given(x=st.tensors(**POLICY))
def test_ppo_is_the_clipped_surrogate(x):
    ppo(x)


@check("ppo_clip_loss", "advantages may differ from token to token")
@FEW
@given(x=st.tensors(**TOKENS))
def test_ppo_with_an_advantage_a_token(x):
    ppo(x, per_token=True)


@check("ppo_clip_loss", "the lower bound is 1 - clip_low, the upper one 1 + clip_high")
@given(x=st.tensors(**TOKENS), clips=CLIPS, per_token=st.booleans())
def test_ppo_with_two_bounds(x, clips, per_token):
    ppo(x, per_token=per_token, clip_low=clips[0], clip_high=clips[1])


@check("ppo_clip_loss", "at rho = 1 nothing is clipped: the gradient is the policy gradient")
@FEW
@given(x=st.tensors(**POLICY), aggregate=RULES)
def test_ppo_on_policy(x, aggregate):
    compare(
        "ppo_clip_loss",
        x.logprobs,
        x.logprobs.clone(),
        x.advantages,
        x.mask,
        aggregate=aggregate,
        max_length=13,
        grad="logprobs",
    )


@check("ppo_clip_loss", "the four rules of week 05 turn token losses into a scalar")
@given(x=st.tensors(**TOKENS), aggregate=RULES, per_token=st.booleans())
def test_ppo_aggregates(x, aggregate, per_token):
    ppo(x, per_token=per_token, aggregate=aggregate, max_length=13 if aggregate == "constant" else None)


@check("ppo_clip_loss", "the worked numbers of the docstring; a bad token that became likelier is not clipped")
def test_ppo_worked_numbers():
    logprobs, old_logprobs = torch.tensor([[-1.0, -1.0]]), torch.tensor([[-1.5, -0.5]])
    good, mask = torch.ones(1, 2), torch.ones(1, 2)
    returns("ppo_clip_loss", torch.tensor(-0.9032653), logprobs, old_logprobs, good, mask)
    returns("ppo_clip_loss", torch.tensor(1.2243606), logprobs, old_logprobs, -good, mask)


@check("ppo_clip_loss", "an unknown aggregate is a ValueError that names it, and so is constant without max_length")
@FEW
@given(x=st.tensors(**POLICY))
def test_ppo_refuses_unknown_rules(x):
    arguments = x.logprobs, old(x), x.advantages, x.mask
    raises("ppo_clip_loss", ValueError, *arguments, aggregate="tokn_mean", match="tokn_mean")
    raises("ppo_clip_loss", ValueError, *arguments, aggregate="constant", match="max_length|constant")


@robust("ppo_clip_loss", "inf and NaN under the mask change neither loss nor gradient", remedy=HUGE)
@given(x=st.tensors(**TOKENS, under_mask=NAN), aggregate=RULES, per_token=st.booleans())
def test_ppo_ignores_what_is_under_the_mask(x, aggregate, per_token):
    ppo(x, per_token=per_token, aggregate=aggregate, max_length=13)


@robust("ppo_clip_loss", "a row without tokens counts as a row with sum 0", remedy=EMPTY)
@given(x=st.tensors(**POLICY, empty_rows="some", least={"B": 2}), aggregate=RULES)
def test_ppo_with_empty_rows(x, aggregate):
    ppo(x, aggregate=aggregate, max_length=13)


@robust("ppo_clip_loss", "a batch without any token has loss 0 and gradient 0", remedy=EMPTY, floor=False)
@given(x=st.tensors(**POLICY, empty_rows="all"), aggregate=RULES)
def test_ppo_of_nothing(x, aggregate):
    ppo(x, aggregate=aggregate, max_length=13, tolerance=0)


@robust(
    "ppo_clip_loss", "a log-ratio of 200 whose surrogate is clipped has the right loss and gradient", remedy=OVERFLOW
)
@given(x=st.tensors(**POLICY), down=st.booleans())
def test_ppo_of_stale_tokens(x, down):
    far = torch.where((x.advantages < 0) | down, 200.0, -200.0).to(x.logprobs.dtype)[:, None]
    older = torch.where(x.shift > 0, x.logprobs + far, old(x))
    compare("ppo_clip_loss", x.logprobs, older, x.advantages, x.mask, grad="logprobs")


@robust("ppo_clip_loss", "the ratio of two tiny probabilities is exact", remedy=RATIO)
@given(x=st.tensors(**POLICY))
def test_ppo_of_unlikely_tokens(x):
    compare("ppo_clip_loss", x.logprobs - 800, x.logprobs - 800, x.advantages, x.mask, grad="logprobs")


@robust("ppo_clip_loss", "half-precision log-probs are subtracted and summed in float32", remedy=HALF)
@given(x=st.tensors(**TOKENS, dtypes=st.HALF, sizes={"T": (61,)}, span=("full",)))
def test_ppo_in_half_precision(x):
    ppo(x, per_token=True, aggregate="sequence_sum")


# --- value_clip_loss --------------------------------------------------------------------------------------------------

CRITIC = dict(values="B T normal", shift="B T normal", returns="B T normal", mask="B T mask")


def value(x, **settings):
    """Old values at such distances that no value lies on the bound of its clip and no two errors are equal."""
    old_values = x.values + 0.05 + 0.31 * x.shift
    compare("value_clip_loss", x.values, old_values, x.returns, x.mask, **settings, grad="values")


@check("value_clip_loss", "half the larger of the clipped and the unclipped squared error, over all tokens; clip 0.2")
@given(x=st.tensors(**CRITIC))
def test_value_loss_is_pessimistic(x):
    value(x)


@check("value_clip_loss", "the range is old_values plus or minus `clip`")
@given(x=st.tensors(**CRITIC), clip=st.sampled_from([0.1, 0.5, 3.0]))
def test_value_loss_clips_around_old_values(x, clip):
    value(x, clip=clip)


@check("value_clip_loss", "a value that moved more than `clip` towards its return costs a constant: no gradient", False)
@FEW
@given(x=st.tensors(**CRITIC), clip=st.sampled_from([0.2, 0.4]))
def test_value_loss_is_flat_after_a_large_step(x, clip):
    moved, far = x.values + 0.9, x.values + 2.5
    compare("value_clip_loss", moved, x.values, far, x.mask, clip, grad="values")


@check("value_clip_loss", "averaged over the tokens of the batch together, not over rows first")
@FEW
@given(x=st.tensors(**CRITIC, least={"B": 2, "T": 3}, span=("right", "inside")))
def test_value_loss_is_a_token_mean(x):
    value(x, clip=1.0)


@check("value_clip_loss", "the worked number of the docstring")
def test_value_loss_worked_number():
    values, old_values = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.5, 2.0]])
    expected = torch.tensor(0.2725)
    returns("value_clip_loss", expected, values, old_values, torch.tensor([[1.0, 3.0]]), torch.ones(1, 2))


@robust("value_clip_loss", "inf and NaN under the mask change neither loss nor gradient", remedy=HUGE)
@given(x=st.tensors(**CRITIC, under_mask=NAN))
def test_value_loss_ignores_what_is_under_the_mask(x):
    value(x)


@robust("value_clip_loss", "a batch without any token has loss 0 and gradient 0", remedy=EMPTY, floor=False)
@given(x=st.tensors(**CRITIC, empty_rows="all"))
def test_value_loss_of_nothing(x):
    value(x, tolerance=0)


@robust("value_clip_loss", "half-precision values are clipped and compared in float32", remedy=HALF)
@given(x=st.tensors(**CRITIC, dtypes=(torch.bfloat16,), sizes={"T": (7, 11)}, scale=8.0))
def test_value_loss_in_half_precision(x):
    compare("value_clip_loss", x.values, x.values - 0.1 * x.shift, x.values + 0.5, x.mask, grad="values")


# --- grpo_advantages --------------------------------------------------------------------------------------------------

GROUPS = st.reward_groups(dtypes=(torch.float64,))
EQUAL = "sum differences from the group's first reward, rewards - rewards[:, :1]: equal rewards are then exact zeros"


@check("grpo_advantages", "reward minus the group's mean, over (unbiased std + 1e-4)")
@given(rewards=GROUPS)
def test_grpo_standardises_within_the_group(rewards):
    compare("grpo_advantages", rewards)


@check("grpo_advantages", "without normalize_std, reward minus the group's mean and nothing else")
@given(rewards=st.reward_groups(), eps=st.sampled_from([1e-4, 0.5]))
def test_grpo_without_std(rewards, eps):
    compare("grpo_advantages", rewards, normalize_std=False, eps=eps)


@check("grpo_advantages", "eps is added to the std, whatever its size")
@given(rewards=GROUPS, eps=st.sampled_from([0.5, 0.07]))
def test_grpo_adds_eps_to_the_std(rewards, eps):
    compare("grpo_advantages", rewards, eps=eps)


@check("grpo_advantages", "float32 rewards give float32 advantages")
@FEW
@given(rewards=st.reward_groups(dtypes=(torch.float32,)))
def test_grpo_in_float32(rewards):
    compare("grpo_advantages", (4 * rewards).round() / 4)  # quarters: the mean of equal ones is exact


@check("grpo_advantages", "the smallest group has two: the std divides by G - 1")
@FEW
@given(rewards=st.reward_groups(dtypes=(torch.float64,), sizes={"G": 2}))
def test_grpo_of_pairs(rewards):
    compare("grpo_advantages", rewards)


@check("grpo_advantages", "a group of one is 0", floor=False)
@FEW
@given(rewards=st.one("P reward"), normalize=st.booleans())
def test_grpo_of_one(rewards, normalize):
    compare("grpo_advantages", rewards.unsqueeze(1), normalize)


@check("grpo_advantages", "the worked numbers of the docstring")
def test_grpo_worked_numbers():
    rewards = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    returns("grpo_advantages", torch.tensor([[1.49970006, -0.49990002, -0.49990002, -0.49990002]]), rewards)
    returns("grpo_advantages", torch.tensor([[0.75, -0.25, -0.25, -0.25]]), rewards, normalize_std=False)


@robust("grpo_advantages", "a group of equal rewards has advantages of exactly 0", remedy=EQUAL, floor=False)
@given(
    reward=st.floats(0.05, 3.0),
    sizes=st.sampled_from([(1, 7), (3, 3), (5, 6), (2, 11)]),
    half=st.booleans(),
    eps=st.sampled_from([1e-4, 1e-8]),
)
def test_grpo_without_spread_is_exactly_zero(reward, sizes, half, eps):
    rewards = torch.full(sizes, reward, dtype=torch.bfloat16 if half else torch.float32)
    compare("grpo_advantages", rewards, eps=eps, tolerance=0)


@robust("grpo_advantages", "half-precision rewards are averaged in float32", remedy=HALF)
@given(rewards=st.reward_groups(dtypes=(torch.bfloat16,), sizes={"G": (5, 7, 11)}))
def test_grpo_in_half_precision(rewards):
    compare("grpo_advantages", rewards + 5)


# --- grpo_loss --------------------------------------------------------------------------------------------------------


def grpo(x, reference=True, **settings):
    ref = x.ref_logprobs if reference else None
    compare("grpo_loss", x.logprobs, old(x), ref, x.advantages, x.mask, **settings, grad="logprobs")


@check("grpo_loss", "without beta: the clipped surrogate, averaged over each row's tokens and then over rows")
@given(x=st.tensors(**REFERENCE), reference=st.booleans())
def test_grpo_loss_is_the_surrogate(x, reference):
    grpo(x, reference)


@check("grpo_loss", "beta times k3(pi || ref), exp(-d) - 1 + d with d = logprobs - ref_logprobs, at every token")
@given(x=st.tensors(**REFERENCE), beta=st.sampled_from([0.1, 1.0, 0.04]))
def test_grpo_loss_with_a_penalty(x, beta):
    grpo(x, beta=beta)


@check("grpo_loss", "with advantages of 0 only the penalty is left, and its gradient pulls to the reference")
@FEW
@given(x=st.tensors(**REFERENCE))
def test_grpo_loss_is_the_penalty_in_flat_groups(x):
    compare(
        "grpo_loss",
        x.logprobs,
        old(x),
        x.ref_logprobs,
        torch.zeros_like(x.advantages),
        x.mask,
        beta=0.5,
        grad="logprobs",
    )


@check("grpo_loss", "the lower bound is 1 - clip_low, the upper one 1 + clip_high")
@given(x=st.tensors(**REFERENCE), clips=CLIPS, beta=st.sampled_from([0.0, 0.1]))
def test_grpo_loss_with_two_bounds(x, clips, beta):
    grpo(x, clip_low=clips[0], clip_high=clips[1], beta=beta)


@check("grpo_loss", "surrogate and penalty are aggregated by the same rule")
@given(x=st.tensors(**REFERENCE), aggregate=RULES)
def test_grpo_loss_aggregates(x, aggregate):
    grpo(x, beta=0.1, aggregate=aggregate, max_length=13 if aggregate == "constant" else None)


@check("grpo_loss", "the worked numbers of the docstring")
def test_grpo_loss_worked_numbers():
    logprobs, old_logprobs = torch.tensor([[-1.0, -1.0], [-2.0, -9.0]]), torch.tensor([[-1.5, -0.5], [-2.5, -9.0]])
    ref, advantages, mask = torch.tensor([[-1.0, -2.0], [-2.0, -9.0]]), torch.tensor([1.0, -1.0]), [[1, 1], [1, 0]]
    arguments = logprobs, old_logprobs, ref, advantages, torch.tensor(mask)
    returns("grpo_loss", torch.tensor(0.3727280), *arguments)
    returns("grpo_loss", torch.tensor(0.3819249), *arguments, beta=0.1)


@check("grpo_loss", "an unknown aggregate is a ValueError that names it, and so is constant without max_length")
@FEW
@given(x=st.tensors(**REFERENCE), beta=st.sampled_from([0.0, 0.1]))
def test_grpo_loss_refuses_unknown_rules(x, beta):
    arguments = x.logprobs, old(x), x.ref_logprobs, x.advantages, x.mask
    raises("grpo_loss", ValueError, *arguments, beta=beta, aggregate="sequnce_mean", match="sequnce_mean")
    raises("grpo_loss", ValueError, *arguments, beta=beta, aggregate="constant", match="max_length|constant")


@robust("grpo_loss", "inf and NaN under the mask change neither loss nor gradient", remedy=HUGE)
@given(x=st.tensors(**REFERENCE, under_mask=NAN), aggregate=RULES)
def test_grpo_loss_ignores_what_is_under_the_mask(x, aggregate):
    grpo(x, beta=0.1, aggregate=aggregate, max_length=13)


@robust("grpo_loss", "a row without tokens counts as a row with sum 0", remedy=EMPTY)
@given(x=st.tensors(**REFERENCE, empty_rows="some", least={"B": 2}), aggregate=RULES)
def test_grpo_loss_with_empty_rows(x, aggregate):
    grpo(x, beta=0.1, aggregate=aggregate, max_length=13)


@robust("grpo_loss", "a batch without any token has loss 0 and gradient 0", remedy=EMPTY, floor=False)
@given(x=st.tensors(**REFERENCE, empty_rows="all"), aggregate=RULES)
def test_grpo_loss_of_nothing(x, aggregate):
    grpo(x, beta=0.1, aggregate=aggregate, max_length=13, tolerance=0)


@robust("grpo_loss", "a log-ratio of 200 whose surrogate is clipped has the right loss and gradient", remedy=OVERFLOW)
@given(x=st.tensors(**REFERENCE), down=st.booleans())
def test_grpo_loss_of_stale_tokens(x, down):
    far = torch.where((x.advantages < 0) | down, 200.0, -200.0).to(x.logprobs.dtype)[:, None]
    older = torch.where(x.shift > 0, x.logprobs + far, old(x))
    compare("grpo_loss", x.logprobs, older, x.ref_logprobs, x.advantages, x.mask, beta=0.1, grad="logprobs")


@robust("grpo_loss", "half-precision log-probs: the penalty is computed in float32", remedy=HALF)
@given(x=st.tensors(**REFERENCE, dtypes=st.HALF))
def test_grpo_loss_in_half_precision(x):
    flat = torch.zeros_like(x.advantages)
    near = x.logprobs - 0.5 * x.shift
    compare("grpo_loss", x.logprobs, old(x), near, flat, x.mask, beta=1.0, grad="logprobs")


# --- gspo_loss --------------------------------------------------------------------------------------------------------


def gspo(x, older=None, **settings):
    older = old(x) if older is None else older
    compare("gspo_loss", x.logprobs, older, x.advantages, x.mask, **settings, grad="logprobs")


@check("gspo_loss", "one ratio a completion, exp of its mean log-ratio, clipped; the mean over rows")
@given(x=st.tensors(**POLICY), clips=CLIPS)
def test_gspo_clips_whole_sequences(x, clips):
    gspo(x, clip_low=clips[0], clip_high=clips[1])


@check("gspo_loss", "the bounds are 1 - 3e-4 and 1 + 4e-4 unless told otherwise")
@given(x=st.tensors(**POLICY, dtypes=(torch.float64,)))
def test_gspo_with_its_own_bounds(x):
    gspo(x, x.logprobs - 1e-3 * x.shift)


@check("gspo_loss", "on fresh samples s = 1: each token gets 1/n of its completion's advantage")
@FEW
@given(x=st.tensors(**POLICY))
def test_gspo_on_policy(x):
    gspo(x, x.logprobs.clone())


@check("gspo_loss", "the mean is over a completion's own tokens, not over the padded length")
@FEW
@given(x=st.tensors(**POLICY, least={"T": 3}, span=("right", "inside", "single")))
def test_gspo_of_ragged_rows(x):
    gspo(x, clip_low=0.3, clip_high=0.4)


@check("gspo_loss", "the worked numbers of the docstring")
def test_gspo_worked_numbers():
    logprobs, old_logprobs = torch.tensor([[-1.0, -1.0], [-2.0, -9.0]]), torch.tensor([[-1.5, -0.7], [-2.5, -9.0]])
    arguments = logprobs, old_logprobs, torch.tensor([1.0, -1.0]), torch.tensor([[1, 1], [1, 0]])
    returns("gspo_loss", torch.tensor(0.3241606), *arguments)
    returns("gspo_loss", torch.tensor(0.2717752), *arguments, clip_low=0.2, clip_high=0.2)


@robust("gspo_loss", "inf and NaN under the mask change neither loss nor gradient", remedy=HUGE)
@given(x=st.tensors(**POLICY, under_mask=NAN))
def test_gspo_ignores_what_is_under_the_mask(x):
    gspo(x, clip_low=0.2, clip_high=0.2)


@robust(
    "gspo_loss",
    "a row without tokens contributes 0 and counts in B",
    remedy=EMPTY + ", and give such a row the advantage 0: its ratio is exp(0) = 1",
)
@given(x=st.tensors(**POLICY, empty_rows="some", least={"B": 2}))
def test_gspo_with_empty_rows(x):
    gspo(x, clip_low=0.2, clip_high=0.2)


@robust("gspo_loss", "a log-ratio of 200 whose surrogate is clipped has the right loss and gradient", remedy=OVERFLOW)
@given(x=st.tensors(**POLICY), down=st.booleans())
def test_gspo_of_stale_sequences(x, down):
    far = torch.where((x.advantages < 0) | down, 200.0, -200.0).to(x.logprobs.dtype)[:, None]
    gspo(x, torch.where(x.shift[:, :1] > 0, x.logprobs + far, old(x)), clip_low=0.2, clip_high=0.2)


@robust("gspo_loss", "half-precision log-probs: s is computed in float32, whose bounds are thousandths", remedy=HALF)
@given(x=st.tensors(**POLICY, dtypes=(torch.bfloat16,), span=("full",), sizes={"T": (7, 11)}))
def test_gspo_in_half_precision(x):
    gspo(x, x.logprobs - 0.02 * x.shift, clip_low=2e-3, clip_high=2e-3)


# --- cispo_loss -------------------------------------------------------------------------------------------------------


def cispo(x, older=None, **settings):
    older = x.ref_logprobs if older is None else older
    compare("cispo_loss", x.logprobs, older, x.advantages, x.mask, **settings, grad="logprobs")


@check("cispo_loss", "minus the clipped ratio, a constant, times advantage times log-prob; the mean over all tokens")
@given(x=st.tensors(**REFERENCE), clips=st.sampled_from([(0.2, 0.2), (0.5, 1.5), (0.1, 3.0)]))
def test_cispo_clips_the_weight(x, clips):
    cispo(x, clip_low=clips[0], clip_high=clips[1])


@check("cispo_loss", "unless told otherwise weights reach from 0 to 5: clipped above only")
@given(x=st.tensors(**REFERENCE))
def test_cispo_with_its_own_bounds(x):
    cispo(x)


@check("cispo_loss", "on fresh samples the weight is 1: the policy gradient of week 05")
@FEW
@given(x=st.tensors(**REFERENCE))
def test_cispo_on_policy(x):
    cispo(x, x.logprobs.clone())


@check("cispo_loss", "the worked number of the docstring")
def test_cispo_worked_number():
    logprobs, old_logprobs = torch.tensor([[-1.0, -1.0], [-2.0, -9.0]]), torch.tensor([[-1.5, -4.0], [-2.5, -9.0]])
    arguments = logprobs, old_logprobs, torch.tensor([1.0, -1.0]), torch.tensor([[1, 1], [1, 0]])
    returns("cispo_loss", torch.tensor(1.1170929), *arguments)


@robust("cispo_loss", "inf and NaN under the mask change neither loss nor gradient", remedy=HUGE)
@given(x=st.tensors(**REFERENCE, under_mask=NAN))
def test_cispo_ignores_what_is_under_the_mask(x):
    cispo(x)


@robust("cispo_loss", "a batch without any token has loss 0 and gradient 0", remedy=EMPTY, floor=False)
@given(x=st.tensors(**REFERENCE, empty_rows="all"))
def test_cispo_of_nothing(x):
    cispo(x, tolerance=0)


@robust("cispo_loss", "a log-ratio of 200 weighs as much as the bound", remedy=OVERFLOW)
@given(x=st.tensors(**REFERENCE), down=st.booleans())
def test_cispo_of_stale_tokens(x, down):
    cispo(x, torch.where(x.shift > 0, x.logprobs + (200 if down else -200), old(x)))


@robust("cispo_loss", "half-precision log-probs are subtracted and summed in float32", remedy=HALF)
@given(x=st.tensors(**REFERENCE, dtypes=st.HALF, sizes={"T": (61,)}, span=("full",)))
def test_cispo_in_half_precision(x):
    cispo(x)
