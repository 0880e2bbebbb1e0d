"""Grader of week 11. One test is one claim about one function; `pytest weeks/11` runs them on your file.

`compare` calls your function and the reference on the same inputs. A bootstrap is random: its checks use differences
of few values, of which the percentiles are known whatever numbers the generator gives.
"""

import datetime
import string

import torch
from hypothesis import given, settings

from graders import check, compare, raises, returns, robust, scenario
from graders import strategies as st

HUGE = "leave masked positions out, logits[mask.bool()]: NaN times 0 is NaN"
EMPTY = "divide by the number of tokens clamped to at least 1"
HALF = "logits.float() before log_softmax: a bfloat16 has 3 digits"
STABLE = "stay with log_softmax and torch.logaddexp: exp(-10000) is 0, and its log is -inf"
UNUSED = "0 * (inf - inf) is NaN: log_softmax(...).clamp(min=-1e30) makes it 0 * 0"
FEW = settings(max_examples=6)
TWICE = settings(max_examples=2)  # thousands of draws each

# --- overoptimization_fit ---------------------------------------------------------------------------------------------
# Divergences that differ, in growing order: `steps` are the distances between them.

CURVE = dict(steps="K positive", gold="K normal", sizes={"K": (2, 3, 5, 7, 11)}, dtypes=(torch.float64,))
LAWS = st.sampled_from(["bon", "rl"])
FITTED = 1e-5


def planted(alpha, beta, kl, kind):
    d = kl.sqrt()
    return d * (alpha - beta * (d if kind == "bon" else d.log()))


@check("overoptimization_fit", "best-of-n: least squares of gold = d (alpha - beta d), d the square root of kl")
@given(x=st.tensors(**CURVE))
def test_fit_of_best_of_n(x):
    compare("overoptimization_fit", x.steps.cumsum(0), x.gold, "bon", tolerance=FITTED)


@check("overoptimization_fit", "RL: least squares of gold = d (alpha - beta log d), the natural logarithm")
@given(x=st.tensors(**CURVE))
def test_fit_of_rl(x):
    compare("overoptimization_fit", x.steps.cumsum(0), x.gold, "rl", tolerance=FITTED)


@check("overoptimization_fit", "points on a curve give back its alpha and beta, from float32 too")
@given(x=st.tensors(steps="K positive", sizes={"K": (5, 7)}), kind=LAWS, alpha=st.sampled_from([1.0, 0.4, 2.3]))
def test_fit_finds_planted_curves(x, kind, alpha):
    kl = x.steps.cumsum(0)
    compare("overoptimization_fit", kl, planted(alpha, 0.3, kl, kind), kind, tolerance=2e-3)


@check(
    "overoptimization_fit", "noisy points: the squares of gold's errors are summed, unweighted, with no constant term"
)
@given(x=st.tensors(**CURVE | dict(sizes={"K": (11, 13)})), kind=LAWS)
def test_fit_of_noisy_points(x, kind):
    kl = x.steps.cumsum(0)
    compare("overoptimization_fit", kl, planted(1.2, 0.2, kl, kind) + 0.2 * x.gold, kind, tolerance=FITTED)


@check("overoptimization_fit", "a point at kl = 0 changes nothing, whatever its gold")
@given(x=st.tensors(**CURVE), kind=LAWS, gold=st.sampled_from([0.0, 0.7]))
def test_fit_with_the_initial_policy(x, kind, gold):
    kl = torch.cat([torch.zeros(1), x.steps.cumsum(0)])
    compare("overoptimization_fit", kl.double(), torch.cat([torch.full((1,), gold), x.gold]), kind, tolerance=FITTED)


@check("overoptimization_fit", "an unknown kind is a ValueError that names it")
@FEW
@given(x=st.tensors(**CURVE))
def test_fit_refuses_unknown_kinds(x):
    raises("overoptimization_fit", ValueError, x.steps.cumsum(0), x.gold, "ppo", match="ppo")


@check("overoptimization_fit", "a negative kl, and fewer than two different positive kl, are a ValueError")
@FEW
@given(x=st.tensors(gold="K normal", sizes={"K": (3,)}), kind=LAWS)
def test_fit_refuses_impossible_divergences(x, kind):
    for kl in ([-0.5, 1.0, 2.0], [1.5, 1.5, 1.5], [0.0, 0.0, 2.0], [0.0, 0.0, 0.0]):
        raises("overoptimization_fit", ValueError, torch.tensor(kl), x.gold.float(), kind)


@check("overoptimization_fit", "the worked numbers of the docstring")
def test_fit_worked_numbers():
    kl, gold = torch.tensor([1.0, 4.0, 16.0]), torch.tensor([0.9, 1.6, 2.4])
    returns("overoptimization_fit", (1.0, 0.1), kl, gold, "bon", tolerance=1e-4)


@robust(
    "overoptimization_fit", "divergences far from 1 are fitted in float64", remedy="kl.double(), gold.double() first"
)
@given(kind=LAWS, size=st.sampled_from([1e-4, 1e4]))
def test_fit_of_small_and_large_divergences(kind, size):
    kl = size * torch.tensor([1.0, 1.7, 2.5, 4.1, 5.3], dtype=torch.float64)
    gold = torch.tensor([1.2, -0.4, 0.9, 2.1, 0.3], dtype=torch.float64)
    compare("overoptimization_fit", kl.float(), gold.float(), kind, tolerance=1e-4)


# --- on_policy_distillation_loss --------------------------------------------------------------------------------------

LOGITS = dict(student="B T V normal", teacher="B T V normal", mask="B T mask", sizes={"B": (1, 2, 3), "V": (11, 7)})
BETWEEN = st.sampled_from([0.2, 0.5, 0.9])
ALL = st.sampled_from([1.0, 0.0, 0.2, 0.7])


def distil(x, jsd_beta, **settings):
    loss = "on_policy_distillation_loss"
    compare(loss, x.student, x.teacher, x.mask, jsd_beta, grad="student_logits", **settings)


@check("on_policy_distillation_loss", "jsd_beta = 0 is the forward KL(teacher || student), summed over the vocabulary")
@given(x=st.tensors(**LOGITS))
def test_distillation_forward(x):
    distil(x, 0.0)


@check("on_policy_distillation_loss", "jsd_beta = 1 is the reverse KL(student || teacher)")
@given(x=st.tensors(**LOGITS))
def test_distillation_reverse(x):
    distil(x, 1.0)


@check("on_policy_distillation_loss", "jsd_beta is 1 unless given")
@given(x=st.tensors(**LOGITS))
def test_distillation_default(x):
    compare("on_policy_distillation_loss", x.student, x.teacher, x.mask, grad="student_logits")


@check("on_policy_distillation_loss", "between: b KL(t || m) + (1 - b) KL(s || m), m = b t + (1 - b) s")
@given(x=st.tensors(**LOGITS), jsd_beta=BETWEEN)
def test_distillation_between(x, jsd_beta):
    distil(x, jsd_beta)


@check("on_policy_distillation_loss", "one mean over all tokens of the batch, not a mean of the rows' means")
@given(x=st.tensors(**LOGITS | dict(sizes={"B": (2, 3), "T": (5, 7), "V": 11}), span=("right", "inside")), b=ALL)
def test_distillation_is_a_token_mean(x, b):
    distil(x, b)


@check(
    "on_policy_distillation_loss", "equal logits have divergence 0; so have logits shifted by a constant", floor=False
)
@given(x=st.tensors(**LOGITS), jsd_beta=ALL)
def test_distillation_of_equal_models(x, jsd_beta):
    x.teacher = x.student + 2
    distil(x, jsd_beta)


@check("on_policy_distillation_loss", "a jsd_beta outside [0, 1] is a ValueError that names it")
@FEW
@given(x=st.tensors(**LOGITS), jsd_beta=st.sampled_from([-0.1, 1.5, 2.0]))
def test_distillation_refuses_other_betas(x, jsd_beta):
    args = (x.student, x.teacher, x.mask, jsd_beta)
    raises("on_policy_distillation_loss", ValueError, *args, match=rf"beta|{jsd_beta}")


@check("on_policy_distillation_loss", "the worked numbers of the docstring")
def test_distillation_worked_numbers():
    student, teacher = torch.zeros(1, 1, 2), torch.tensor([[[3.0, 1.0]]]).log()
    for jsd_beta, expected in ((0.0, 0.130812), (0.5, 0.033822), (1.0, 0.143841)):
        loss = torch.tensor(expected)
        returns("on_policy_distillation_loss", loss, student, teacher, torch.ones(1, 1), jsd_beta, tolerance=1e-4)


@robust("on_policy_distillation_loss", "inf and NaN under the mask change neither loss nor gradient", remedy=HUGE)
@given(x=st.tensors(**LOGITS, under_mask=("nan", "inf", "-inf")), jsd_beta=ALL)
def test_distillation_ignores_what_is_under_the_mask(x, jsd_beta):
    distil(x, jsd_beta)


@robust("on_policy_distillation_loss", "rows without tokens add nothing", remedy=EMPTY)
@given(x=st.tensors(**LOGITS, empty_rows="some", under_mask=("finite", "nan")), jsd_beta=ALL)
def test_distillation_with_empty_rows(x, jsd_beta):
    distil(x, jsd_beta)


@robust("on_policy_distillation_loss", "a batch without tokens has loss 0 and gradient 0", remedy=EMPTY, floor=False)
@given(x=st.tensors(**LOGITS, empty_rows="all"), jsd_beta=ALL)
def test_distillation_of_nothing(x, jsd_beta):
    distil(x, jsd_beta, tolerance=0)


@robust("on_policy_distillation_loss", "logits of +-10000 give a finite loss and the right gradient", remedy=STABLE)
@given(x=st.tensors(**LOGITS), jsd_beta=ALL)
def test_distillation_of_extreme_logits(x, jsd_beta):
    x.student, x.teacher = 5e3 * x.student, 5e3 * x.teacher
    distil(x, jsd_beta)


@robust("on_policy_distillation_loss", "a label at -inf on both sides adds 0 log 0 = 0", remedy=UNUSED)
@given(x=st.tensors(**LOGITS, unused="B T ids"), jsd_beta=ALL)
def test_distillation_with_unused_labels(x, jsd_beta):
    unused = torch.arange(x.sizes.V) == (x.unused % x.sizes.V).unsqueeze(-1)
    x.student, x.teacher = (torch.where(unused, -torch.inf, logits) for logits in (x.student, x.teacher))
    distil(x, jsd_beta)


@robust("on_policy_distillation_loss", "half-precision logits are computed in float32", remedy=HALF)
@given(x=st.tensors(**LOGITS, dtypes=st.HALF, scale=0.7), jsd_beta=ALL)
def test_distillation_of_half_precision(x, jsd_beta):
    distil(x, jsd_beta)


# --- paired_bootstrap -------------------------------------------------------------------------------------------------
# Of K = 3 differences 0, 0, 1 a draw's mean is 0, 1/3, 2/3 or 1 with chances 0.30, 0.44, 0.22 and 0.04: whatever the
# random numbers, the 97.5th percentile of thousands of draws is 1, where the 95th is 2/3.

SEED = st.integers(0, 999)


def bootstrap(differences, baseline, seed, draws=8000, dtype=torch.float64):
    b = torch.tensor(baseline, dtype=dtype)
    a = b + torch.tensor(differences, dtype=dtype)
    compare("paired_bootstrap", a, b, draws, torch.Generator().manual_seed(seed))


@check("paired_bootstrap", "the mean of a - b, and the 2.5th and 97.5th percentiles of the draws' means")
@TWICE
@given(seed=SEED)
def test_bootstrap_interval(seed):
    bootstrap([0.0, 0.0, 1.0], [0.0, 0.0, 0.0], seed)
    bootstrap([0.0, 0.0, -2.0, 0.0, 0.0], [0.0] * 5, seed, draws=4000, dtype=torch.float32)


@check("paired_bootstrap", "pairs stay together: what a seed does to both methods cancels")
@TWICE
@given(seed=SEED)
def test_bootstrap_keeps_pairs_together(seed):
    bootstrap([1.0, 2.5, 1.0], [40.0, -8.0, 0.5], seed)
    bootstrap([-1.0, -1.0, -1.0, -1.0], [40.0, -8.0, 0.5, 3.0], seed, draws=300)


@check("paired_bootstrap", "each draw has as many differences as there are, with replacement")
@TWICE
@given(seed=SEED)
def test_bootstrap_draws_with_replacement(seed):
    bootstrap([2.0, 0.0], [1.0, 5.0], seed, draws=1000)
    bootstrap([3.0, 0.0, 0.0, 0.0, 0.0, 0.0], [0.0] * 6, seed, draws=4000)


@check("paired_bootstrap", "all randomness comes from the generator: its state decides the interval")
@FEW
@given(x=st.tensors(a="K normal", b="K normal", sizes={"K": (13,)}), seed=SEED)
def test_bootstrap_follows_the_generator(x, seed):
    scenario("paired_bootstrap", "randomness", x.a + 1 + 0.01 * torch.arange(13).to(x.a.dtype), x.b, seed)


@check("paired_bootstrap", "K = 1: an interval of width 0")
@FEW
@given(a=st.sampled_from([3.5, -1.25]), seed=SEED)
def test_bootstrap_of_one_seed(a, seed):
    bootstrap([a], [2.0], seed, draws=50)


@check("paired_bootstrap", "one draw is enough for an answer")
def test_bootstrap_of_one_draw():
    bootstrap([0.5, 0.5, 0.5], [1.0, 2.0, 4.0], 0, draws=1)


@check("paired_bootstrap", "different lengths, no seeds and no draws are a ValueError")
def test_bootstrap_refuses_impossible_inputs():
    generator = torch.Generator().manual_seed(0)
    for a, b, draws in (([1.0, 2.0, 3.0], [1.0, 2.0], 10), ([], [], 10), ([1.0], [1.0, 2.0], 10), ([1.0], [2.0], 0)):
        raises("paired_bootstrap", ValueError, torch.tensor(a), torch.tensor(b), draws, generator)


@check("paired_bootstrap", "the worked numbers of the docstring")
def test_bootstrap_worked_numbers():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.tensor([3.0, 5.0, 4.0]), torch.tensor([1.0, 3.0, 2.0])
    returns("paired_bootstrap", (2.0, 2.0, 2.0), a, b, 100, generator)


@robust(
    "paired_bootstrap",
    "small differences of large numbers keep their digits",
    remedy="subtract first, then .double(): a mean of float32 numbers near a million is off by a tenth",
)
def test_bootstrap_of_large_numbers():
    bootstrap([0.0, 0.0, 0.5], [1e6, 1.5e6, 2e6], 1, dtype=torch.float32)


# --- experiment_slug --------------------------------------------------------------------------------------------------

WORD = st.sampled_from(
    ["GRPO", "dr.", "R1-Zero", "G=8", "beta", "0.1", "x_2", "a/b", "\N{GREEK SMALL LETTER BETA}-sweep"]
)
OTHER = st.sampled_from([" ", "  ", " - ", "_", "...", "\t", "\n", "/", " vs. ", " \N{EM DASH} ", "'", ":?!"])
DAYS = st.sampled_from([(2026, 11, 5), (2024, 2, 29), (1999, 12, 31), (2031, 1, 1)])


def titles(*pieces, least=1, most=7):
    return st.lists(st.one_of(*pieces), min_size=least, max_size=most).map("".join)


@check("experiment_slug", "ISO date, a dash, the lower-cased title with one dash for any run of other characters")
@given(day=DAYS, title=titles(WORD, OTHER).map(lambda text: text + "run"))
def test_slug_of_titles(day, title):
    compare("experiment_slug", datetime.date(*day).isoformat(), title)


@check("experiment_slug", "a datetime.date is as good as ISO text, and months and days have two digits")
@given(day=DAYS, title=titles(WORD, OTHER).map(lambda text: "a" + text))
def test_slug_of_dates(day, title):
    compare("experiment_slug", datetime.date(*day), title)


@check("experiment_slug", "a datetime counts by its day")
@FEW
@given(day=DAYS, hour=st.sampled_from([0, 9, 23]))
def test_slug_of_datetimes(day, hour):
    scenario("experiment_slug", "slug_of_datetime", *day, hour, "DPO, again")


@check("experiment_slug", "no dash at the ends of the title's part")
@given(before=titles(OTHER), word=WORD, after=titles(OTHER))
def test_slug_has_no_dash_at_its_ends(before, word, after):
    compare("experiment_slug", "2026-11-05", before + word + after)


@check("experiment_slug", "ASCII only: letters with accents and of other scripts are other characters")
@given(
    title=titles(
        st.sampled_from(["\u00fcber", "caf\u00e9", "\u03b2", "\u65e5\u672c", "na\u00efve", "\u00b2", "K"]), OTHER
    )
)
def test_slug_is_ascii(title):
    compare("experiment_slug", "2026-11-05", title + "7")


@check("experiment_slug", "every printable ASCII character that is no letter or digit joins words")
@given(characters=st.lists(st.sampled_from(string.printable), min_size=1, max_size=12).map("".join))
def test_slug_of_printable_characters(characters):
    compare("experiment_slug", "2026-11-05", f"A{characters}Z")


@check("experiment_slug", "text that is no ISO date is a ValueError")
def test_slug_refuses_other_dates():
    for text in ("05.11.2026", "2026-13-01", "2026-02-30", "yesterday", "", "2026/11/05"):
        raises("experiment_slug", ValueError, text, "title")


@check("experiment_slug", "a title without a letter a-z or a digit is a ValueError")
def test_slug_refuses_empty_titles():
    for title in ("", "   ", "?!", "---", "\u03b2\u03b3"):
        raises("experiment_slug", ValueError, "2026-11-05", title)


@check("experiment_slug", "the worked text of the docstring")
def test_slug_worked_text():
    returns("experiment_slug", "2026-11-05-grpo-vs-rloo-g-8", "2026-11-05", "  GRPO vs. RLOO: G=8?")


@robust(
    "experiment_slug",
    "digits of other scripts are other characters, and a date has four digits of year",
    remedy=r"[^a-z0-9], not \W or str.isdigit; f'{date.year:04}', not strftime('%Y')",
)
def test_slug_of_unusual_digits():
    for title in ("G \u0664 8", "x\u00b2 fit", "\uff13 runs"):
        compare("experiment_slug", datetime.date(987, 6, 5), title)
