"""Grader of week 01. One test is one claim about one function; `pytest weeks/01` runs them on your file.

`compare` calls your function and the reference on the same inputs and compares values, gradients (`grad` names what is
trained; everything else must get none), dtype and shape, and that nothing is changed in place.
"""

import torch
from hypothesis import given

from graders import check, compare, returns, robust, scenario
from graders import strategies as st
from graders.strategies_text import next_token, without

STABLE = "log_softmax, or logits - logsumexp: log(softmax(x)) takes the log of an underflowed 0"
HUGE = "inf or NaN times 0 is NaN: select before summing, torch.where(mask.bool(), x, 0)"
SOFTMAX = "zero the unused logits before the softmax: NaN that was computed comes back through the gradient"
HALF = "x.float() before the softmax, the difference or the sum (a bfloat16 has 3 digits)"

# --- token_logprobs ---------------------------------------------------------------------------------------------------

TABLE = dict(logits="B T V normal", labels="B T ids")
SIZE = {"V": (11, 13)}


@check("token_logprobs", "the log of the softmax over the vocabulary, at each label; nothing is shifted")
@given(x=st.tensors(**TABLE, sizes=SIZE))
def test_logprobs_of_labels(x):
    compare("token_logprobs", x.logits, x.labels, grad="logits")


@check("token_logprobs", "one row of one token keeps its dimensions")
@given(x=st.tensors(**TABLE, sizes=SIZE | {"B": 1, "T": 1}))
def test_logprobs_of_one_token(x):
    compare("token_logprobs", x.logits, x.labels, grad="logits")


@check("token_logprobs", "the worked number of the docstring")
def test_logprobs_worked_number():
    logits = torch.tensor([[[1.0, 3.0]]], dtype=torch.float64).log()
    expected = torch.tensor([[-0.28768207]], dtype=torch.float64)
    returns("token_logprobs", expected, logits, torch.tensor([[1]]), tolerance=1e-7)


@robust(
    "token_logprobs", "logits of 1e4, and of -inf at other labels, give finite log-probs and gradients", remedy=STABLE
)
@given(x=st.tensors(**TABLE, sizes=SIZE), forbidden=st.booleans())
def test_logprobs_of_extreme_logits(x, forbidden):
    logits = without(x.logits, x.labels) if forbidden else 1e4 * x.logits
    compare("token_logprobs", logits, x.labels, grad="logits")


@robust("token_logprobs", "half-precision logits are computed in float32", remedy=HALF)
@given(x=st.tensors(**TABLE, sizes=SIZE, dtypes=st.HALF))
def test_logprobs_of_half_precision(x):
    compare("token_logprobs", 4 * x.logits, x.labels, grad="logits")


# --- sequence_logprobs ------------------------------------------------------------------------------------------------


@check("sequence_logprobs", "the logits at t - 1 predict the token at t; the response's log-probs are summed")
@given(x=next_token())
def test_responses_are_sums_of_shifted_logprobs(x):
    compare("sequence_logprobs", x.logits, x.input_ids, x.response_mask, grad="logits")


@check("sequence_logprobs", "the token at 0 has no prediction and adds nothing, even where it is marked")
@given(x=next_token(span=("full",)))
def test_responses_do_not_count_the_first_token(x):
    compare("sequence_logprobs", x.logits, x.input_ids, torch.ones_like(x.response_mask), grad="logits")


@check("sequence_logprobs", "a response of one token, a single row")
@given(x=next_token(span=("single",), sizes={"B": 1}))
def test_responses_of_one_token(x):
    compare("sequence_logprobs", x.logits, x.input_ids, x.response_mask, grad="logits")


@check("sequence_logprobs", "a row without a response gives 0 beside rows that have one")
@given(x=next_token(empty_rows="some", sizes={"B": (2, 3, 5)}))
def test_responses_of_empty_rows(x):
    compare("sequence_logprobs", x.logits, x.input_ids, x.response_mask, grad="logits")


@check("sequence_logprobs", "sequences of one token predict nothing: 0", floor=False)
@given(x=next_token())
def test_responses_without_a_prediction(x):
    compare("sequence_logprobs", x.logits[:, :1], x.input_ids[:, :1], x.response_mask[:, :1])


@check("sequence_logprobs", "the worked number of the docstring")
def test_responses_worked_number():
    logits = torch.tensor([[[1.0, 3.0], [1.0, 1.0], [5.0, 9.0]]], dtype=torch.float64).log()
    expected = torch.tensor([-0.98082925], dtype=torch.float64)
    ids, mask = torch.tensor([[0, 1, 0]]), torch.tensor([[0, 1, 1]])
    returns("sequence_logprobs", expected, logits, ids, mask, tolerance=1e-7)


@robust("sequence_logprobs", "NaN and infinity in logits that predict no response token change nothing", remedy=SOFTMAX)
@given(x=next_token(under_mask=("nan", "inf", "-inf")))
def test_responses_ignore_other_logits(x):
    compare("sequence_logprobs", x.logits, x.input_ids, x.response_mask, grad="logits")


@robust(
    "sequence_logprobs", "logits of 1e4, and of -inf at other labels, give finite sums and gradients", remedy=STABLE
)
@given(x=next_token(), forbidden=st.booleans())
def test_responses_of_extreme_logits(x, forbidden):
    following = torch.roll(x.input_ids, -1, dims=1)  # the token that stands at t + 1
    logits = without(x.logits, following) if forbidden else 1e4 * x.logits
    compare("sequence_logprobs", logits, x.input_ids, x.response_mask, grad="logits")


@robust("sequence_logprobs", "half-precision log-probs of long responses are summed in float32", remedy=HALF)
@given(x=next_token(dtypes=st.HALF, sizes={"B": (2, 3), "S": 113}, span=("full",)))
def test_responses_of_half_precision(x):
    compare("sequence_logprobs", x.logits, x.input_ids, x.response_mask, grad="logits")


# --- kl_estimates -----------------------------------------------------------------------------------------------------

PAIR = dict(logprobs="B T logprob", ref="B T logprob")


@check(
    "kl_estimates", "k1 = d, k2 = d^2/2, k3 = exp(-d) - 1 + d with d = logprobs - ref_logprobs; gradient into logprobs"
)
@given(x=st.tensors(**PAIR))
def test_kl_estimates_by_formula(x):
    compare("kl_estimates", x.logprobs, x.ref, grad="logprobs")


@check("kl_estimates", "equal log-probs: all three are 0", floor=False)
@given(x=st.tensors(**PAIR))
def test_kl_of_equal_policies(x):
    compare("kl_estimates", x.logprobs, x.logprobs)


@check("kl_estimates", "the worked number of the docstring")
def test_kl_worked_number():
    expected = tuple(torch.tensor([[k]]) for k in (1.0, 0.5, 0.36787945))
    returns("kl_estimates", expected, torch.tensor([[-1.0]]), torch.tensor([[-2.0]]))


@robust(
    "kl_estimates",
    "k3 is accurate where the policies nearly agree",
    remedy="torch.expm1(-d) + d: exp(-d) - 1 loses digits",
)
@given(x=st.tensors(ref="B T logprob", d="B T normal", dtypes=(torch.float32,)))
def test_kl_of_close_policies(x):
    compare("kl_estimates", x.ref + 0.01 * x.d, x.ref, grad="logprobs")


@robust(
    "kl_estimates",
    "log-ratios of +-200 in float64 are finite",
    remedy="exp of the difference, never a ratio of two exps",
)
@given(x=st.tensors(**PAIR, dtypes=(torch.float64,)), side=st.sampled_from([-200.0, 200.0]))
def test_kl_of_distant_policies(x, side):
    compare("kl_estimates", x.logprobs - 750 + side, x.ref - 750, grad="logprobs")


@robust("kl_estimates", "half-precision log-probs are computed in float32", remedy=HALF)
@given(x=st.tensors(**PAIR, dtypes=st.HALF))
def test_kl_of_half_precision(x):
    compare("kl_estimates", x.logprobs, x.ref, grad="logprobs")


# --- kl_shaped_rewards ------------------------------------------------------------------------------------------------

SHAPED = dict(rewards="B reward", logprobs="B T logprob", ref="B T logprob", mask="B T mask")


def shape_rewards(x, beta):
    compare("kl_shaped_rewards", x.rewards, x.logprobs, x.ref, x.mask, beta)


@check("kl_shaped_rewards", "the reward minus beta times the summed log-ratio of the row's tokens")
@given(x=st.tensors(**SHAPED), beta=st.sampled_from([0.1, 0.5, 2.0]))
def test_shaped_rewards_pay_for_the_log_ratio(x, beta):
    shape_rewards(x, beta)


@check("kl_shaped_rewards", "a row of one token, a batch of one")
@given(x=st.tensors(**SHAPED, span=("single",), sizes={"B": 1}))
def test_shaped_rewards_of_one_token(x):
    shape_rewards(x, 0.7)


@check("kl_shaped_rewards", "beta = 0 returns the rewards")
@given(x=st.tensors(**SHAPED))
def test_shaped_rewards_without_penalty(x):
    shape_rewards(x, 0.0)


@check("kl_shaped_rewards", "a row with an empty mask keeps its reward")
@given(x=st.tensors(**SHAPED, empty_rows="some"))
def test_shaped_rewards_of_empty_rows(x):
    shape_rewards(x, 0.7)


@check("kl_shaped_rewards", "the worked number of the docstring")
def test_shaped_rewards_worked_number():
    logprobs, ref = torch.tensor([[-1.0, -2.0]]), torch.tensor([[-2.0, -2.5]])
    returns("kl_shaped_rewards", torch.tensor([0.85]), torch.tensor([1.0]), logprobs, ref, torch.ones(1, 2), 0.1)


@robust("kl_shaped_rewards", "NaN and infinity under the mask change nothing", remedy=HUGE)
@given(x=st.tensors(**SHAPED, under_mask=("nan", "inf", "-inf")))
def test_shaped_rewards_ignore_what_is_under_the_mask(x):
    shape_rewards(x, 0.7)


@robust("kl_shaped_rewards", "half-precision log-ratios of long rows are summed in float32", remedy=HALF)
@given(x=st.tensors(**SHAPED, dtypes=st.HALF, sizes={"T": (211,)}, span=("full",)))
def test_shaped_rewards_of_half_precision(x):
    shape_rewards(x, 0.5)


# --- optimal_policy ---------------------------------------------------------------------------------------------------


@st.composite
def answers(draw, zeros=None, dtypes=st.FLOATS):
    """ref_probs and rewards of a few answers, with none, one or two leading dimensions; some ref_probs are 0."""
    x = draw(
        st.tensors(weight="P A Y positive", keep="P A Y bool", rewards="P A Y normal", dtypes=dtypes, least={"Y": 2})
    )
    keep = x.keep if (draw(st.booleans()) if zeros is None else zeros) else torch.ones_like(x.keep)
    keep[..., 0], keep[..., 1] = True, keep[..., 1] & (not zeros)  # with zeros=True there is one in every row
    x.ref = x.weight * keep
    x.ref = x.ref / x.ref.sum(-1, keepdim=True)
    leading = draw(st.sampled_from([(0, 0), (0,), ()]))
    x.ref, x.rewards = x.ref[leading], x.rewards[leading]
    return x


@check("optimal_policy", "the reference times exp(r / beta), normalised over the last dimension")
@given(x=answers(), beta=st.sampled_from([0.5, 1.0, 3.0]))
def test_policy_is_the_tilted_reference(x, beta):
    compare("optimal_policy", x.ref, x.rewards, beta)


@check("optimal_policy", "answers that the reference never gives have probability exactly 0, whatever their reward")
@given(x=answers(zeros=True), beta=st.sampled_from([0.5, 1.0]))
def test_policy_never_gives_impossible_answers(x, beta):
    rewards = torch.where(x.ref == 0, 9.0, x.rewards)
    scenario("optimal_policy", "impossible_answers", x.ref, rewards, beta)


@check("optimal_policy", "the worked number of the docstring")
def test_policy_worked_number():
    expected = torch.tensor([0.26894142, 0.73105858, 0.0], dtype=torch.float64)
    ref, rewards = torch.tensor([0.5, 0.5, 0.0]).double(), torch.tensor([0.0, 1.0, 9.0]).double()
    returns("optimal_policy", expected, ref, rewards, 1.0, tolerance=1e-7)


@robust(
    "optimal_policy",
    "a tiny beta puts all mass on the best possible answers",
    remedy="subtract the largest reward that ref can earn before dividing by beta",
)
@given(x=answers(), beta=st.sampled_from([1e-6, 1e-3]))
def test_policy_of_tiny_beta(x, beta):
    compare("optimal_policy", x.ref, x.rewards, beta)


@robust("optimal_policy", "NaN and infinity in rewards of impossible answers change nothing", remedy=HUGE)
@given(x=answers(zeros=True), garbage=st.sampled_from([torch.nan, torch.inf, -torch.inf]))
def test_policy_ignores_impossible_rewards(x, garbage):
    compare("optimal_policy", x.ref, torch.where(x.ref == 0, garbage, x.rewards), 1.0)
