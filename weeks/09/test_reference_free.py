"""Grader of week 09. One test is one claim about one function; `pytest weeks/09` runs them on your file.

`compare` calls your function and the reference on the same inputs and compares values, gradients (`grad` names what is
trained; everything else must get none), dtype and shape, and that nothing is changed in place.
"""

import torch
from hypothesis import given

from graders import check, compare, returns, robust, scenario
from graders import strategies as st

HUGE = "inf or NaN times 0 is NaN: select before summing, torch.where(mask.bool(), x, 0)"
EMPTY = "divide by the count clamped to at least 1"
HALF = "x.float() before the first sum or difference: a bfloat16 has 3 digits"
STABLE = "F.logsigmoid(x): the sigmoid of -200 underflows to 0, and its log is -inf"
CERTAIN = "clamp at the smallest number, avg.clamp(max=-torch.finfo(avg.dtype).tiny): the odds of 1 are infinite"

BETA = st.sampled_from([2.0, 0.7, 10.0])

# --- average_logps ----------------------------------------------------------------------------------------------------

TOKENS = dict(logprobs="B T logprob", mask="B T mask")


@check("average_logps", "the sum of each row's response log-probs divided by that row's own number of tokens")
@given(x=st.tensors(**TOKENS))
def test_average_is_over_the_response(x):
    compare("average_logps", x.logprobs, x.mask, grad="logprobs")


@check("average_logps", "rows of different lengths: neither T nor one count for the whole batch")
@given(x=st.tensors(**TOKENS, sizes={"B": (3, 5), "T": (5, 7, 11)}, span=("right", "inside")))
def test_average_of_ragged_rows(x):
    compare("average_logps", x.logprobs, x.mask, grad="logprobs")


@check("average_logps", "a response of one token has that token's log-prob")
@given(x=st.tensors(**TOKENS, span=("single",)))
def test_average_of_one_token(x):
    compare("average_logps", x.logprobs, x.mask, grad="logprobs")


@check("average_logps", "the worked numbers of the docstring")
def test_average_worked_numbers():
    logprobs, mask = torch.tensor([[-1.0, -2.0, -9.0], [-3.0, -5.0, -7.0]]), torch.tensor([[1, 1, 0], [1, 1, 1]])
    returns("average_logps", torch.tensor([-1.5, -5.0]), logprobs, mask)


@robust("average_logps", "inf and NaN under the mask change neither average nor gradient", remedy=HUGE)
@given(x=st.tensors(**TOKENS, under_mask=("nan", "inf", "-inf")))
def test_average_ignores_what_is_under_the_mask(x):
    compare("average_logps", x.logprobs, x.mask, grad="logprobs")


@robust("average_logps", "a response without tokens has average 0 and gradient 0", remedy=EMPTY)
@given(x=st.tensors(**TOKENS, empty_rows="some", under_mask=("finite", "nan")))
def test_average_of_empty_rows(x):
    compare("average_logps", x.logprobs, x.mask, grad="logprobs")


@robust("average_logps", "half-precision log-probs of long responses are summed in float32", remedy=HALF)
@given(x=st.tensors(**TOKENS, dtypes=st.HALF, sizes={"T": (211,)}, span=("full",)))
def test_average_sums_half_precision_in_float32(x):
    compare("average_logps", x.logprobs, x.mask)


# --- simpo_loss -------------------------------------------------------------------------------------------------------

PAIRS = dict(chosen="B logprob", rejected="B logprob")
BOTH = ("chosen_avg", "rejected_avg")


@check("simpo_loss", "the mean of -log sigma(beta (chosen - rejected - ratio)); both sides get a gradient")
@given(x=st.tensors(**PAIRS), beta=BETA, ratio=st.sampled_from([0.3, 0.0, 1.6]))
def test_simpo_is_logistic_with_a_margin(x, beta, ratio):
    compare("simpo_loss", x.chosen, x.rejected, beta, ratio, grad=BOTH)


@check("simpo_loss", "beta is 2 and the ratio 0.5 unless they are given")
@given(x=st.tensors(**PAIRS))
def test_simpo_defaults(x):
    compare("simpo_loss", x.chosen, x.rejected, grad=BOTH)


@check("simpo_loss", "the margin is multiplied by beta too: a gap equal to the ratio costs log 2 for every beta")
@given(x=st.tensors(**PAIRS), beta=BETA)
def test_simpo_at_its_margin(x, beta):
    compare("simpo_loss", x.rejected + 0.75, x.rejected, beta, gamma_beta_ratio=0.75, grad=BOTH, tolerance=1e-4)


@check("simpo_loss", "the worked number of the docstring: 1.220095")
def test_simpo_worked_number():
    returns("simpo_loss", torch.tensor(1.220095), torch.tensor([-1.0, -2.0]), torch.tensor([-2.0, -1.5]))


@robust("simpo_loss", "gaps of +-200 give a finite loss and the right gradient", remedy=STABLE)
@given(x=st.tensors(**PAIRS, far="B binary"), beta=BETA)
def test_simpo_of_extreme_pairs(x, beta):
    compare("simpo_loss", x.chosen - 200 * x.far, x.rejected - 200 * (1 - x.far), beta, grad=BOTH)


@robust("simpo_loss", "half-precision averages are subtracted in float32", remedy=HALF)
@given(x=st.tensors(**PAIRS, dtypes=st.HALF))
def test_simpo_of_half_precision(x):
    compare("simpo_loss", x.chosen, x.rejected - 17, gamma_beta_ratio=17.0, grad=BOTH)


# --- log_odds_ratio ---------------------------------------------------------------------------------------------------

UNLIKELY, LIKELY = [-90.0, -3e3, -1e4, -20.0], [-1e-3, -1e-6, -3e-5, -0.02]


def sides(*averages):
    """Chosen and rejected averages of several pairs, of different size, as [[chosen, rejected], ...]."""
    pair = st.lists(st.sampled_from(averages), min_size=2, max_size=2, unique=True)
    return st.lists(pair, min_size=1, max_size=5)


def columns(pairs, double):
    dtype = torch.float64 if double else torch.float32
    return [torch.tensor([pair[i] for pair in pairs], dtype=dtype) for i in (0, 1)]


@check("log_odds_ratio", "log odds of chosen minus log odds of rejected, odds = p / (1 - p); both sides get a gradient")
@given(x=st.tensors(**PAIRS))
def test_odds_of_ordinary_averages(x):
    compare("log_odds_ratio", x.chosen, x.rejected, grad=BOTH)


@check("log_odds_ratio", "p near 1: averages of -0.001 to -0.000001 keep their digits, in float32 too")
@given(pairs=sides(*LIKELY, -0.7), double=st.booleans())
def test_odds_of_likely_responses(pairs, double):
    compare("log_odds_ratio", *columns(pairs, double), grad=BOTH)


@check("log_odds_ratio", "p near 0: averages down to -10000, where exp underflows, have log odds of their own size")
@given(pairs=sides(*UNLIKELY, -0.7), double=st.booleans())
def test_odds_of_unlikely_responses(pairs, double):
    compare("log_odds_ratio", *columns(pairs, double), grad=BOTH)


@check("log_odds_ratio", "the worked number of the docstring: 2.287339")
def test_odds_worked_number():
    returns("log_odds_ratio", torch.tensor([2.287339]), torch.tensor([-0.5]), torch.tensor([-2.0]))


@robust("log_odds_ratio", "finite value and gradient when a probability is exactly 1", remedy=CERTAIN)
@given(chosen_certain=st.booleans(), rejected_certain=st.booleans())
def test_odds_of_certain_responses(chosen_certain, rejected_certain):
    pair = [0.0 if chosen_certain else -0.7, 0.0 if rejected_certain else -2.0]
    scenario("log_odds_ratio", "finite", *[torch.tensor([x, -0.3]) for x in pair])


@robust("log_odds_ratio", "half precision is computed in float32", remedy=HALF)
@given(x=st.tensors(**PAIRS, dtypes=st.HALF, scale=0.01))
def test_odds_of_half_precision(x):
    compare("log_odds_ratio", x.chosen, x.rejected, grad=BOTH)


# --- orpo_loss --------------------------------------------------------------------------------------------------------

ORPO = dict(**PAIRS, nll="B positive", batch_nll="positive")
ALL_THREE = (*BOTH, "chosen_nll")
LAM = st.sampled_from([0.5, 1.3, 0.1])


@check("orpo_loss", "the mean of NLL - lam log sigma(log odds ratio); all three arguments get a gradient")
@given(x=st.tensors(**ORPO), lam=LAM)
def test_orpo_is_nll_plus_the_odds_term(x, lam):
    compare("orpo_loss", x.chosen, x.rejected, x.nll, lam, grad=ALL_THREE)


@check("orpo_loss", "chosen_nll may be one number for the batch, a scalar tensor")
@given(x=st.tensors(**ORPO), lam=LAM)
def test_orpo_with_the_nll_of_the_batch(x, lam):
    compare("orpo_loss", x.chosen, x.rejected, x.batch_nll, lam, grad=ALL_THREE)


@check("orpo_loss", "lam is 0.1 unless given")
@given(x=st.tensors(**ORPO))
def test_orpo_default(x):
    compare("orpo_loss", x.chosen, x.rejected, x.nll, grad=ALL_THREE)


@check("orpo_loss", "with lam = 0 the NLL alone is left: added, not subtracted, and averaged")
@given(x=st.tensors(**ORPO))
def test_orpo_without_the_odds_term(x):
    compare("orpo_loss", x.chosen, x.rejected, x.nll, lam=0.0, grad=ALL_THREE)


@check("orpo_loss", "the odds term alone falls as the chosen response gains on the rejected one")
@given(x=st.tensors(**PAIRS))
def test_orpo_without_the_nll(x):
    compare("orpo_loss", x.chosen, x.rejected, torch.zeros_like(x.chosen), lam=1.0, grad=ALL_THREE)


@check("orpo_loss", "the worked number of the docstring: 0.798652")
def test_orpo_worked_number():
    inputs = [torch.tensor(x) for x in ([-0.5, -1.0], [-2.0, -0.8], [0.5, 1.0])]
    returns("orpo_loss", torch.tensor(0.798652), *inputs)


@robust("orpo_loss", "averages from -10000 to -0.000001 give a finite loss and the right gradient", remedy=STABLE)
@given(pairs=sides(-300.0, -1e-6, -0.7, -1e4, -1e-3), double=st.booleans())
def test_orpo_of_extreme_pairs(pairs, double):
    chosen, rejected = columns(pairs, double)
    compare("orpo_loss", chosen, rejected, -chosen, 1.0, grad=ALL_THREE)


@robust("orpo_loss", "half precision is computed in float32", remedy=HALF)
@given(x=st.tensors(**ORPO, dtypes=st.HALF, scale=0.01))
def test_orpo_of_half_precision(x):
    compare("orpo_loss", x.chosen, x.rejected, 0.1 * x.nll, 1.0, grad=ALL_THREE)


# --- kto_kl -----------------------------------------------------------------------------------------------------------

MISMATCHED = dict(policy="B normal", ref="B normal", scale=3.0)


@check("kto_kl", "the mean log-ratio of the mismatched pairs, at least 0")
@given(x=st.tensors(**MISMATCHED))
def test_kl_is_the_mean_log_ratio(x):
    compare("kto_kl", x.policy + 1, x.ref)


@check("kto_kl", "the mean is clamped, not its entries: negative log-ratios cancel positive ones")
@given(x=st.tensors(**MISMATCHED, sizes={"B": (5, 7)}))
def test_kl_clamps_after_the_mean(x):
    compare("kto_kl", x.policy + 2, x.ref)


@check("kto_kl", "a negative mean gives 0", floor=False)
@given(x=st.tensors(**MISMATCHED))
def test_kl_is_never_negative(x):
    compare("kto_kl", x.policy - 10, x.ref + 10)


@check("kto_kl", "a constant: no gradient flows through it")
@given(x=st.tensors(**MISMATCHED), above=st.booleans())
def test_kl_is_a_constant(x, above):
    scenario("kto_kl", "without_gradient", x.policy + (20 if above else 0), x.ref)


@check("kto_kl", "the worked numbers of the docstring: 1.5 and 0")
def test_kl_worked_numbers():
    returns("kto_kl", torch.tensor(1.5), torch.tensor([-10.0, -20.0]), torch.tensor([-12.0, -21.0]))
    returns("kto_kl", torch.tensor(0.0), torch.tensor([-12.0]), torch.tensor([-10.0]))


@robust("kto_kl", "half-precision log-probs are subtracted in float32", remedy=HALF)
@given(x=st.tensors(policy="B positive", ref="B positive", dtypes=st.HALF, sizes={"B": (2, 4, 6)}))
def test_kl_of_half_precision(x):
    far = 183 * (torch.arange(x.sizes.B) % 2)
    compare("kto_kl", x.policy - 6 - far, x.ref - 8 - far.flip(0))


# --- kto_loss ---------------------------------------------------------------------------------------------------------

KTO = dict(policy="B normal", ref="B normal", desirable="B bool", kl="positive", scale=2.0)
UNEQUAL = dict(desirable_weight=1.3, undesirable_weight=0.7)


def kto(x, *settings, desirable=None, **weights):
    """One comparison; the reference log-probs and kl require a gradient and must get none."""
    kinds = x.desirable if desirable is None else desirable
    compare("kto_loss", x.policy, x.ref, kinds, x.kl, *settings, grad="policy_logps", **weights)


@check("kto_loss", "1 - sigma(beta (logratio - kl)) if desirable, 1 - sigma(beta (kl - logratio)) if not; one mean")
@given(x=st.tensors(**KTO), beta=st.sampled_from([0.5, 1.0, 0.2]))
def test_kto_gains_and_losses(x, beta):
    kto(x, beta)


@check("kto_loss", "each kind has its own weight")
@given(x=st.tensors(**KTO), beta=st.sampled_from([0.5, 1.0, 0.2]))
def test_kto_weights(x, beta):
    kto(x, beta, **UNEQUAL)


@check("kto_loss", "one mean over the batch, not one a kind, and not divided by the weights")
@given(x=st.tensors(**KTO, sizes={"B": (3, 5, 7)}))
def test_kto_of_unequal_numbers(x):
    kto(x, 0.5, desirable=torch.arange(x.sizes.B) < 1, **UNEQUAL)
    kto(x, 0.5, desirable=torch.arange(x.sizes.B) > 0, **UNEQUAL)


@check("kto_loss", "a batch of only desirable or only undesirable responses is ordinary")
@given(x=st.tensors(**KTO), kind=st.booleans())
def test_kto_of_one_kind(x, kind):
    kto(x, 0.5, desirable=torch.full_like(x.desirable, kind), **UNEQUAL)


@check("kto_loss", "beta is 0.1 and both weights are 1 unless they are given")
@given(x=st.tensors(**KTO))
def test_kto_defaults(x):
    kto(x)


@check("kto_loss", "kl may be a number")
@given(x=st.tensors(**KTO), kl=st.sampled_from([0.5, 1.7, 0]))
def test_kto_with_a_number_as_kl(x, kl):
    compare("kto_loss", x.policy, x.ref, x.desirable, kl, 0.5, grad="policy_logps")


@check("kto_loss", "the worked number of the docstring: 0.475036")
def test_kto_worked_number():
    policy, ref, desirable = torch.tensor([-10.0, -12.0]), torch.tensor([-11.0, -11.0]), torch.tensor([True, False])
    returns("kto_loss", torch.tensor(0.475036), policy, ref, desirable, 0.5)


@robust(
    "kto_loss",
    "`desirable` of 0 and 1 counts like a bool, and log-ratios of +-200 are right",
    remedy="desirable.bool() first: ~ of an int 1 is -2; torch.sigmoid never overflows, exp does",
)
@given(
    x=st.tensors(**KTO, far="B binary", other="B binary"),
    dtype=st.sampled_from([torch.int64, None, torch.uint8, torch.bool]),
)
def test_kto_of_extreme_ratios_and_numbers_as_kinds(x, dtype):
    x.policy, x.ref = x.policy - 200 * x.far, x.ref - 200 * x.other
    compare(
        "kto_loss",
        *(x.policy, x.ref, x.desirable.to(dtype or x.policy.dtype), x.kl, 1.0),
        grad="policy_logps",
        constants=("ref_logps", "kl"),
    )


@robust("kto_loss", "half-precision log-probs are subtracted in float32", remedy=HALF)
@given(x=st.tensors(**KTO, dtypes=st.HALF))
def test_kto_of_half_precision(x):
    compare("kto_loss", x.policy - 7, x.ref - 190, x.desirable, 183.0, 1.0, grad="policy_logps")
