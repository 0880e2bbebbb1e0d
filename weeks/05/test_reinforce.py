"""Grader of week 05. One test is one claim about one function; `pytest weeks/05` runs them on your file.

`compare` calls your function and the reference on the same inputs and compares values, gradients (`grad` names what is
trained; everything else must get none), dtype and shape, and that nothing is changed in place.
"""

import torch
from hypothesis import given

from graders import check, compare, raises, returns, robust
from graders import strategies as st

HUGE = "inf or NaN times 0 is NaN: select before summing, torch.where(mask.bool(), x, 0)"
EMPTY = "divide by the count clamped to at least 1"
HALF = "sum in float32: x.float() before the sum (a bfloat16 has 3 digits)"

# --- reinforce_loss ---------------------------------------------------------------------------------------------------

LOSS = dict(logprobs="B T logprob", rewards="B reward", baseline="B reward", mask="B T mask")


@check("reinforce_loss", "minus the mean over completions of reward times the summed log-probs of its tokens")
@given(x=st.tensors(**LOSS))
def test_reinforce_is_the_score_function_estimator(x):
    compare("reinforce_loss", x.logprobs, x.rewards, x.mask, grad="logprobs")


@check("reinforce_loss", "the baseline, one number or one a completion, is subtracted from the reward")
@given(x=st.tensors(**LOSS), per_completion=st.booleans())
def test_reinforce_subtracts_the_baseline(x, per_completion):
    compare("reinforce_loss", x.logprobs, x.rewards, x.mask, x.baseline if per_completion else 0.3, grad="logprobs")


@check("reinforce_loss", "the worked number of the docstring: 4.5")
def test_reinforce_worked_number():
    logprobs, mask = torch.tensor([[-1.0, -2.0], [-3.0, -4.0]]), torch.tensor([[1, 1], [1, 0]])
    returns("reinforce_loss", torch.tensor(4.5), logprobs, torch.tensor([1.0, 3.0]), mask, 0.5)


@check("reinforce_loss", "a completion of one token counts like any other, and so does a batch of one")
@given(x=st.tensors(**LOSS, span=("single",)))
def test_reinforce_of_single_tokens(x):
    compare("reinforce_loss", x.logprobs, x.rewards, x.mask, baseline=x.baseline, grad="logprobs")


@robust("reinforce_loss", "inf and NaN under the mask change neither loss nor gradient", remedy=HUGE)
@given(x=st.tensors(**LOSS, under_mask=("nan", "inf", "-inf")))
def test_reinforce_ignores_what_is_under_the_mask(x):
    compare("reinforce_loss", x.logprobs, x.rewards, x.mask, x.baseline, grad="logprobs")


@robust("reinforce_loss", "a completion without tokens adds 0 to the sum and still counts in B", remedy=EMPTY)
@given(x=st.tensors(**LOSS, empty_rows="some", under_mask=("finite", "nan")))
def test_reinforce_with_empty_rows(x):
    compare("reinforce_loss", x.logprobs, x.rewards, x.mask, grad="logprobs")


@robust("reinforce_loss", "a batch without any token has loss 0 and gradient 0", remedy=EMPTY, floor=False)
@given(x=st.tensors(**LOSS, empty_rows="all"))
def test_reinforce_of_nothing(x):
    compare("reinforce_loss", x.logprobs, x.rewards, x.mask, grad="logprobs", tolerance=0)


@robust("reinforce_loss", "half-precision log-probs of long completions are summed in float32", remedy=HALF)
@given(x=st.tensors(**LOSS, dtypes=st.HALF, sizes={"T": (211,)}, span=("full",)))
def test_reinforce_sums_half_precision_in_float32(x):
    compare("reinforce_loss", x.logprobs, x.rewards, x.mask, grad="logprobs")


# --- rloo_advantages --------------------------------------------------------------------------------------------------


@check("rloo_advantages", "each reward minus the mean of the other G - 1 rewards of its prompt")
@given(rewards=st.reward_groups())
def test_rloo_leaves_one_out(rewards):
    compare("rloo_advantages", rewards)


@check("rloo_advantages", "the smallest group has two: each is compared with the other")
@given(rewards=st.reward_groups(sizes={"G": 2}))
def test_rloo_of_pairs(rewards):
    compare("rloo_advantages", rewards)


@check("rloo_advantages", "the worked number of the docstring")
def test_rloo_worked_number():
    returns("rloo_advantages", torch.tensor([[0.75, -0.75, 0.0]]), torch.tensor([[1.0, 0.0, 0.5]]))


@check("rloo_advantages", "one completion a prompt has no others: ValueError")
@given(rewards=st.one("P reward"))
def test_rloo_refuses_groups_of_one(rewards):
    raises("rloo_advantages", ValueError, rewards.unsqueeze(1))


@robust(
    "rloo_advantages",
    "a group of equal rewards has advantages of exactly 0",
    remedy="measure from the group's first reward, rewards - rewards[:, :1]: equal rewards are then exact zeros",
    floor=False,
)
@given(reward=st.floats(0.05, 3.0), sizes=st.sampled_from([(1, 7), (3, 3), (5, 6), (2, 11)]), half=st.booleans())
def test_rloo_without_spread_is_exactly_zero(reward, sizes, half):
    compare("rloo_advantages", torch.full(sizes, reward, dtype=torch.bfloat16 if half else torch.float32), tolerance=0)


# --- batch_baseline ---------------------------------------------------------------------------------------------------


@check("batch_baseline", "for each completion, the mean reward of the others of the batch")
@given(rewards=st.one("B reward", least={"B": 2}))
def test_baseline_is_the_mean_of_the_others(rewards):
    compare("batch_baseline", rewards)


@check("batch_baseline", "the worked number of the docstring")
def test_baseline_worked_number():
    returns("batch_baseline", torch.tensor([1.0, 1.5, 0.5]), torch.tensor([1.0, 0.0, 2.0]))


@check("batch_baseline", "a completion that is alone has baseline 0", floor=False)
@given(rewards=st.one("B reward", sizes={"B": 1}))
def test_baseline_of_one_is_zero(rewards):
    compare("batch_baseline", rewards)


# --- reward_to_go -----------------------------------------------------------------------------------------------------

STEPS = dict(rewards="B T normal", mask="B T mask")


@check("reward_to_go", "each token's reward plus gamma times the return of the next one")
@given(x=st.tensors(**STEPS), gamma=st.sampled_from([0.9, 0.5, 1.0, 0.0]))
def test_returns_are_discounted_sums(x, gamma):
    compare("reward_to_go", x.rewards, x.mask, gamma)


@check("reward_to_go", "gamma = 0: nothing later counts, and a return is the reward itself")
@given(x=st.tensors(**STEPS))
def test_returns_without_a_future(x):
    compare("reward_to_go", x.rewards, x.mask, 0.0)


@check("reward_to_go", "the worked number of the docstring")
def test_returns_worked_number():
    returns("reward_to_go", torch.tensor([[3.0, 4.0, 4.0]]), torch.tensor([[1.0, 2.0, 4.0]]), torch.ones(1, 3), 0.5)


@check("reward_to_go", "nothing flows into the prompt: positions outside the completion have return 0")
@given(x=st.tensors(**STEPS, span=("inside",), sizes={"T": (3, 5, 7)}))
def test_returns_stay_inside_the_completion(x):
    compare("reward_to_go", x.rewards, x.mask, 0.9)


@robust("reward_to_go", "inf and NaN under the mask do not matter", remedy=HUGE)
@given(x=st.tensors(**STEPS, under_mask=("nan", "inf", "-inf")), gamma=st.sampled_from([0.9, 1.0, 0.0]))
def test_returns_ignore_what_is_under_the_mask(x, gamma):
    compare("reward_to_go", x.rewards, x.mask, gamma)


@robust("reward_to_go", "a completion without tokens has no returns", remedy=HUGE)
@given(x=st.tensors(**STEPS, empty_rows="some", under_mask=("finite", "nan")))
def test_returns_of_empty_rows(x):
    compare("reward_to_go", x.rewards, x.mask, 0.9)


# --- policy_gradient_loss ---------------------------------------------------------------------------------------------

POLICY = dict(logprobs="B T logprob", advantages="B normal", token_advantages="B T normal", mask="B T mask")


RAGGED = POLICY | dict(sizes={"B": (2, 3, 5), "T": (3, 5, 7)}, span=("right", "inside"))


def loss_of(x, aggregate, per_token=False):
    """Compare policy_gradient_loss under one rule; max_length is another number than every size."""
    advantages = x.token_advantages if per_token else x.advantages
    max_length = 13 if aggregate == "constant" else None
    compare("policy_gradient_loss", x.logprobs, advantages, x.mask, aggregate, max_length, grad="logprobs")


@check("policy_gradient_loss", "sequence_sum: summed over tokens, averaged over rows")
@given(x=st.tensors(**POLICY), per_token=st.booleans())
def test_policy_loss_sequence_sum(x, per_token):
    loss_of(x, "sequence_sum", per_token)


@check("policy_gradient_loss", "sequence_mean: averaged over each row's own tokens, then over rows")
@given(x=st.tensors(**RAGGED), per_token=st.booleans())
def test_policy_loss_sequence_mean(x, per_token):
    loss_of(x, "sequence_mean", per_token)


@check("policy_gradient_loss", "token_mean: averaged over all tokens of the batch together")
@given(x=st.tensors(**RAGGED), per_token=st.booleans())
def test_policy_loss_token_mean(x, per_token):
    loss_of(x, "token_mean", per_token)


@check("policy_gradient_loss", "constant: summed over everything, divided by B times max_length")
@given(x=st.tensors(**POLICY), per_token=st.booleans())
def test_policy_loss_constant(x, per_token):
    loss_of(x, "constant", per_token)


@check(
    "policy_gradient_loss", "an unknown aggregate is a ValueError that names it, and so is constant without max_length"
)
@given(x=st.tensors(**POLICY))
def test_policy_loss_refuses_unknown_rules(x):
    raises("policy_gradient_loss", ValueError, x.logprobs, x.advantages, x.mask, "sequnce_sum", match="sequnce_sum")
    raises(
        "policy_gradient_loss", ValueError, x.logprobs, x.advantages, x.mask, "constant", match="max_length|constant"
    )


@robust("policy_gradient_loss", "inf and NaN under the mask change neither loss nor gradient", remedy=HUGE)
@given(x=st.tensors(**POLICY, under_mask=("nan", "inf", "-inf")), aggregate=st.sampled_from(["token_mean", "constant"]))
def test_policy_loss_ignores_what_is_under_the_mask(x, aggregate):
    loss_of(x, aggregate, per_token=True)


@robust("policy_gradient_loss", "a row without tokens counts as a row with sum 0", remedy=EMPTY)
@given(
    x=st.tensors(**POLICY, empty_rows="some"),
    aggregate=st.sampled_from(["sequence_mean", "sequence_sum", "token_mean"]),
)
def test_policy_loss_with_empty_rows(x, aggregate):
    loss_of(x, aggregate)


@robust("policy_gradient_loss", "a batch without any token has loss 0 and gradient 0", remedy=EMPTY, floor=False)
@given(x=st.tensors(**POLICY, empty_rows="all"), aggregate=st.sampled_from(["token_mean", "sequence_mean", "constant"]))
def test_policy_loss_of_nothing(x, aggregate):
    compare("policy_gradient_loss", x.logprobs, x.advantages, x.mask, aggregate, 13, grad="logprobs", tolerance=0)


@robust("policy_gradient_loss", "half-precision log-probs of long completions are summed in float32", remedy=HALF)
@given(x=st.tensors(**POLICY, dtypes=st.HALF, sizes={"T": (211,)}, span=("full",)))
def test_policy_loss_sums_half_precision_in_float32(x):
    loss_of(x, "sequence_sum")
