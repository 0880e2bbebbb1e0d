"""Grader of week 08. One test is one claim about one function; `pytest weeks/08` runs them on your file.

`compare` calls your function and the reference on the same inputs. `scenario` hands it tiny models and made pairs of
responses (graders/scenarios/08.py) and compares log-probs, gradients, metrics and how the weights moved.
"""

import torch
from hypothesis import given, settings

from graders import check, compare, returns, robust, scenario
from graders import strategies as st

STABLE = "F.logsigmoid(x): the sigmoid of -200 underflows to 0, and its log is -inf"
HALF = "x.float() before the first subtraction: near -360 neighbouring bfloat16 numbers are 2 nats apart"
HUGE = "torch.where on the logits before log_softmax: a NaN that was computed comes back through the gradient"

FOUR = dict(pc="B normal", pr="B normal", rc="B normal", rr="B normal", scale=0.7)
POLICY = ("policy_chosen_logps", "policy_rejected_logps")
BETA = st.sampled_from([0.1, 0.4, 1.0])


def whole(x, *settings):
    """The arguments of a loss: the four log-probs of x, and what follows."""
    return x.pc, x.pr, x.rc, x.rr, *settings


def long_responses(x):
    """The same differences around -370 and -190, as half precision has them: what two long responses look like."""
    return x.pc - 370, x.pr - 190, x.rc - 370, x.rr - 190


# --- implicit_rewards -------------------------------------------------------------------------------------------------

REWARD = dict(policy="B normal", ref="B normal", scale=3.0)


@check("implicit_rewards", "beta times how much likelier the policy finds the response than the reference does")
@given(x=st.tensors(**REWARD), beta=BETA)
def test_rewards_are_scaled_log_ratios(x, beta):
    compare("implicit_rewards", x.policy, x.ref, beta)


@check("implicit_rewards", "the worked number of the docstring")
def test_rewards_worked_number():
    policy, ref = torch.tensor([-10.0, -12.0]), torch.tensor([-11.0, -9.0])
    returns("implicit_rewards", torch.tensor([0.1, -0.3]), policy, ref, 0.1, tolerance=1e-6)


@check("implicit_rewards", "no gradient flows through it")
@given(x=st.tensors(**REWARD), beta=BETA)
def test_rewards_are_constants(x, beta):
    scenario("implicit_rewards", "without_gradient", x.policy, x.ref, beta)


@robust("implicit_rewards", "half-precision log-probs are subtracted in float32", remedy=HALF)
@given(x=st.tensors(**REWARD, dtypes=st.HALF), beta=BETA)
def test_rewards_of_half_precision(x, beta):
    compare("implicit_rewards", x.policy - 370, x.ref - 190, beta)


# --- dpo_loss ---------------------------------------------------------------------------------------------------------


@check("dpo_loss", "the mean of -log sigma(beta Delta); only the policy's log-probs get a gradient")
@given(x=st.tensors(**FOUR), beta=BETA)
def test_dpo_is_the_logistic_loss_of_delta(x, beta):
    compare("dpo_loss", *whole(x, beta), grad=POLICY)


@check("dpo_loss", "beta is 0.1 and there is no label smoothing unless they are given")
@given(x=st.tensors(**FOUR))
def test_dpo_defaults(x):
    compare("dpo_loss", *whole(x), grad=POLICY)


@check(
    "dpo_loss",
    "with label smoothing eps: (1 - eps) of the loss as labelled, eps of the loss with the pair turned round",
)
@given(x=st.tensors(**FOUR), beta=BETA, eps=st.sampled_from([0.3, 0.1, 0.5]))
def test_dpo_with_label_smoothing(x, beta, eps):
    compare("dpo_loss", *whole(x, beta), label_smoothing=eps, grad=POLICY)


@check("dpo_loss", "only the difference between policy and reference counts: policy = reference gives log 2")
@given(x=st.tensors(**FOUR), beta=BETA)
def test_dpo_of_the_reference_itself(x, beta):
    compare("dpo_loss", x.pc, x.pr, x.pc, x.pr, beta, grad=POLICY)


@check("dpo_loss", "the worked numbers of the docstring: 0.3133, and 0.4133 with eps 0.1")
def test_dpo_worked_numbers():
    four = [torch.tensor([x]) for x in (-10.0, -12.0, -11.0, -11.0)]
    returns("dpo_loss", torch.tensor(0.3132617), *four, 0.5)
    returns("dpo_loss", torch.tensor(0.4132617), *four, 0.5, 0.1)


@robust("dpo_loss", "beta Delta of +-200 gives a finite loss and the right gradient", remedy=STABLE)
@given(x=st.tensors(**FOUR), beta=st.sampled_from([50.0, 100.0]), eps=st.sampled_from([0.0, 0.2]))
def test_dpo_of_extreme_pairs(x, beta, eps):
    compare("dpo_loss", *whole(x, beta, eps), grad=POLICY)


@robust("dpo_loss", "half-precision log-probs are subtracted in float32", remedy=HALF)
@given(x=st.tensors(**FOUR, dtypes=st.HALF, sizes={"B": (3, 5)}))
def test_dpo_of_half_precision(x):
    compare("dpo_loss", *long_responses(x), 0.1, grad=POLICY)


# --- ipo_loss ---------------------------------------------------------------------------------------------------------


@check("ipo_loss", "the mean of (Delta - 1/(2 beta))^2; only the policy's log-probs get a gradient")
@given(x=st.tensors(**FOUR), beta=BETA)
def test_ipo_is_the_squared_distance_from_the_target(x, beta):
    compare("ipo_loss", *whole(x, beta), grad=POLICY)


@check("ipo_loss", "beta is 0.1 unless given: the target is 5")
@given(x=st.tensors(**FOUR))
def test_ipo_default(x):
    compare("ipo_loss", *whole(x), grad=POLICY)


@check("ipo_loss", "a Delta of 1/(2 beta) costs nothing", floor=False)
@given(x=st.tensors(**FOUR), beta=BETA)
def test_ipo_is_zero_at_its_target(x, beta):
    compare("ipo_loss", x.rc + 1 / (2 * beta), x.rr, x.rc, x.rr, beta, grad=POLICY)


@check("ipo_loss", "the worked number of the docstring: 1.0")
def test_ipo_worked_number():
    returns("ipo_loss", torch.tensor(1.0), *[torch.tensor([x]) for x in (-10.0, -12.0, -11.0, -11.0)], 0.5)


@robust("ipo_loss", "half-precision log-probs are subtracted in float32", remedy=HALF)
@given(x=st.tensors(**FOUR, dtypes=st.HALF, sizes={"B": (3, 5)}))
def test_ipo_of_half_precision(x):
    compare("ipo_loss", *long_responses(x), 0.1, grad=POLICY)


# --- preference_logps -------------------------------------------------------------------------------------------------
# A pair is [tokens of the prompt, of the chosen, of the rejected response].

NEAR = 1e-5  # sums may be taken in any order; clip_grad_norm_ adds 1e-6 to the norm

pair = st.lists(st.integers(1, 6), min_size=3, max_size=3)
batch = st.lists(pair, min_size=1, max_size=4)
RAGGED = [[1, 5, 2], [3, 1, 6], [2, 4, 3]]


def score_pairs(lengths, **how):
    scenario("preference_logps", "score_pairs", lengths, tolerance=NEAR, **how)


@check("preference_logps", "summed log-probs of the response tokens of both sides, from one call of the model")
@settings(max_examples=8)
@given(lengths=batch, seed=st.integers(0, 99), bool_masks=st.booleans())
def test_pair_logps_are_sums_over_responses(lengths, seed, bool_masks):
    score_pairs(lengths, seed=seed, bool_masks=bool_masks)


@check("preference_logps", "the shorter side is padded: results equal two separate passes")
def test_pair_logps_when_one_side_is_longer():
    score_pairs([[2, 7, 1], [1, 5, 2]])
    score_pairs([[2, 1, 7], [1, 2, 5]])


@check("preference_logps", "a single pair of one-token responses keeps its dimension")
def test_pair_logps_of_one_pair():
    score_pairs([[1, 1, 1]])


@robust("preference_logps", "NaN in the logits of padding changes neither value nor gradient", remedy=HUGE)
def test_pair_logps_with_nan_at_padding():
    score_pairs(RAGGED, nan_at_padding=True)


@robust("preference_logps", "half-precision logits are computed in float32", remedy=HALF)
def test_pair_logps_of_half_precision():
    scenario("preference_logps", "score_pairs", [[2, 19, 17], [1, 18, 13]], half_precision=True, tolerance=1e-4)


# --- dpo_step ---------------------------------------------------------------------------------------------------------


def update(lengths, near=NEAR, **how):
    scenario("dpo_step", "update", lengths, tolerance=near, **how)


@check("dpo_step", "one optimizer step on loss_fn of the four log-probs; loss, accuracy, margin, grad_norm as floats")
@settings(max_examples=8)
@given(lengths=batch, seed=st.integers(0, 99))
def test_step_follows_the_loss(lengths, seed):
    update(lengths, seed=seed)


@check("dpo_step", "loss_fn gets policy chosen, policy rejected, reference chosen, reference rejected, in this order")
def test_step_keeps_the_order_of_arguments():
    update(RAGGED, odd_loss=True)


@check("dpo_step", "at the first step policy = reference: every Delta is 0, accuracy one half")
def test_step_of_equal_models():
    update(RAGGED, same_weights=True)


@check("dpo_step", "a tie counts one half beside pairs that are won and lost")
@settings(max_examples=4)
@given(lengths=batch, seed=st.integers(0, 99))
def test_step_counts_ties_one_half(lengths, seed):
    update([[2, -3, -3], *lengths], seed=seed)


@check("dpo_step", "the gradient is clipped to max_grad_norm, and grad_norm is the norm before that")
@settings(max_examples=4)
@given(lengths=batch, seed=st.integers(0, 99))
def test_step_clips_and_reports_the_norm_before(lengths, seed):
    update(lengths, seed=seed, max_grad_norm=0.01, near=1e-3)  # 1e-6 is not small beside a norm of 0.01


@check("dpo_step", "without another word the gradient is clipped to norm 1")
def test_step_clips_at_one_by_default():
    update([[2, 19, 17], [1, 18, 13]], max_grad_norm=None, odd_loss=True)  # long texts: the norm is above 1


@check("dpo_step", "gradients that somebody left behind are not part of the update")
def test_step_clears_stale_gradients():
    update(RAGGED, stale_gradient=0.5)


@robust("dpo_step", "NaN in the logits of padding does not reach the weights", remedy=HUGE)
def test_step_with_nan_at_padding():
    update(RAGGED, nan_at_padding=True)
