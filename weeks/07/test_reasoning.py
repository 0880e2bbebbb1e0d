r"""Grader of week 07. One test is one claim about one function; `pytest weeks/07` runs them on your file.

`compare` calls your function and the reference on the same inputs. The texts are put together from pieces such as a
policy writes: prose, answers, tags that never close, numbers in all their notations.
"""

from fractions import Fraction

import torch
from hypothesis import given, settings

from graders import check, compare, raises, returns, robust
from graders import strategies as st

LINEAR = "read the text once, with a stack of open braces; a search that starts again at every opening is quadratic"
FEW = settings(max_examples=6)  # of claims that few kinds of input can break

# --- extract_answer ---------------------------------------------------------------------------------------------------

CONTENTS = st.sampled_from(["7", " 1/2\n", "-5", "1,234.50", "two\nlines", "x < 3", "50%", "Paris "])
NESTED = st.sampled_from([r"\frac{1}{2}", r"\sqrt{1+\frac{a_{1}}{b}}", r" {\text{km}} ", r"2^{10^{2}}"])
PROSE = st.sampled_from(["So", "It is 72.", "\n\n", "no, wait:", "therefore $x = 3$", "A < B"])


def tag(content):
    return f"<answer>{content}</answer>"


def box(content):
    return rf"\boxed{{{content}}}"


def text_of(*pieces, most=5):
    return st.lists(st.one_of(*pieces), min_size=1, max_size=most).map(" ".join)


@check("extract_answer", "what stands between the last <answer> and </answer>, stripped")
@given(text=text_of(PROSE, CONTENTS.map(tag)))
def test_extract_the_last_tag(text):
    compare("extract_answer", text)


@check("extract_answer", r"without tags, what stands in the last \boxed{...}")
@given(text=text_of(PROSE, CONTENTS.map(box)))
def test_extract_the_last_box(text):
    compare("extract_answer", text)


@check("extract_answer", "a box ends at the brace that balances its own")
@given(text=text_of(PROSE, NESTED.map(box)))
def test_extract_balances_braces(text):
    compare("extract_answer", text)


@check("extract_answer", "tags win over boxes, wherever they stand")
@given(text=text_of(PROSE, CONTENTS.map(tag), CONTENTS.map(box), NESTED.map(box)))
def test_extract_prefers_tags(text):
    compare("extract_answer", text)


@check("extract_answer", "a closed box inside the tags is unwrapped")
@FEW
@given(content=st.one_of(CONTENTS, NESTED), words=st.booleans(), later=st.booleans())
def test_extract_unwraps_a_box(content, words, later):
    inner = f"The result is {box(content)}." if words else box(content)
    compare("extract_answer", f"So {tag(inner)}" + (f" and not {box(6)}" if later else ""))


@check("extract_answer", "a tag or box that never closes is passed over: the last closed one counts")
@given(text=text_of(PROSE, CONTENTS.map(tag), CONTENTS.map(box)), tail=st.sampled_from(["<answer>8", r"\boxed{9"]))
def test_extract_passes_over_what_never_closes(text, tail):
    compare("extract_answer", f"{text} {tail}")
    compare("extract_answer", f"{tail} {text}")


@check("extract_answer", "None when there is neither", floor=False)
@given(text=text_of(PROSE, st.sampled_from(["<answer>8", r"\boxed{9", r"\boxed5", "</answer>", "{7}"])))
def test_extract_nothing(text):
    compare("extract_answer", text)
    compare("extract_answer", "")


@check("extract_answer", "the worked numbers of the docstring")
def test_extract_worked_numbers():
    returns("extract_answer", r"\frac{1}{2}", r"So \boxed{3} ... no: \boxed{\frac{1}{2}}")
    returns("extract_answer", "7", "<answer> 7 </answer> or <answer>8")
    returns("extract_answer", "5", r"<answer>\boxed{5}</answer> \boxed{6}")
    returns("extract_answer", None, "It is 72.")


@robust("extract_answer", "long hostile texts take no more than linear time", remedy=LINEAR, floor=False)
def test_extract_in_linear_time():
    for piece in (r"\boxed{", "<answer>", r"\boxed{5}", "{", r"\boxed{<answer>"):
        compare("extract_answer", piece * 50_000)
    compare("extract_answer", "{" * 100_000 + "}" * 100_000 + box(7))


# --- answers_match ----------------------------------------------------------------------------------------------------

WORDS = st.sampled_from(
    ["Paris", "new york", "x + 1", "1 1/2", "11/2", "(A)", "a b", "ab", r"\frac{x}{2}", "yes", "3 km"]
)


@st.composite
def notations(draw, value: Fraction):
    """One way to write a number: as a fraction, and, where it has few digits, as a decimal or a percentage."""
    sign, size = "-" if value < 0 else "", abs(value)
    ways = [f"{sign}{size.numerator}/{size.denominator}", rf"{sign}\frac{{{size.numerator}}}{{{size.denominator}}}"]
    ways += [rf"{sign}\dfrac{{{3 * size.numerator}}}{{{3 * size.denominator}}}"]
    if 1000 % size.denominator == 0:
        ways += [f"{sign}{float(size):.3f}", f"{sign}{float(100 * size):.2f}%", rf"{sign}{float(100 * size):.1f}\%"]
    if size.denominator == 1:
        ways += [f"{sign}{size}", f"{sign}{int(size):,}", rf"${sign}{int(size):,}.0$", f" {sign}{size}  "]
    return draw(st.sampled_from(ways))


NUMBERS = st.sampled_from([Fraction(n, d) for n in (1, 3, 50, 1234567, -3, -7) for d in (1, 2, 3, 8, 10)])


@st.composite
def pairs(draw):
    """Two answers in two notations: of the same number, or of another one that looks like it."""
    value = draw(NUMBERS)
    other = draw(st.sampled_from([value, value, value, -value, value * 10, value / 100, value + Fraction(1, 1000)]))
    return draw(notations(value)), draw(notations(other))


@check("answers_match", "equal as numbers, whatever the notation: ints, decimals, percents, fractions")
@settings(max_examples=40)
@given(pair=pairs())
def test_match_numbers(pair):
    compare("answers_match", *pair)


@check("answers_match", "equal as text, in any case, with any outer and repeated spaces; inner words stay apart")
@given(word=WORDS, other=WORDS, spaces=st.sampled_from(["  ", " \n", "\t"]), same=st.booleans())
def test_match_words(word, other, spaces, same):
    compare("answers_match", spaces + word.upper().replace(" ", spaces), word if same else other)


@check("answers_match", r"$, \, and \% and \dfrac are typography")
@FEW
@given(pair=st.sampled_from([("$x$", "x"), (r"1\,000", "1000"), (r"5\%", "5%"), (r"\dfrac{a}{b}", r"\frac{a}{b}")]))
def test_match_without_typography(pair):
    compare("answers_match", *pair)
    compare("answers_match", *pair[::-1])
    compare("answers_match", pair[0] + "y", pair[1])


@check("answers_match", "commas in groups of three digits are thousands separators, others are not")
@given(pair=st.sampled_from([("1,234", "1234"), ("1,23", "123"), ("1,234,567", "1234567"), ("1,2345", "12345")]))
def test_match_thousands(pair):
    compare("answers_match", *pair)
    compare("answers_match", *pair[::-1])
    compare("answers_match", pair[0], pair[1][1:])


@check("answers_match", "numbers are compared exactly: no tolerance, no floats")
@given(
    pair=st.sampled_from(
        [
            ("0.333", "1/3"),
            ("0.3333333333333333", "1/3"),
            ("0.1", "1/10"),
            ("0.30000000000000004", "0.3"),
            ("100000000000000000001", "100000000000000000000"),
            ("100000000000000000001", "100000000000000000001.0"),
            ("50", "50%"),
            ("-5", "5"),
        ]
    )
)
def test_match_exactly(pair):
    compare("answers_match", *pair)
    compare("answers_match", *pair[::-1])


@check("answers_match", "None matches nothing, not even None", floor=False)
def test_match_none():
    for pair in ((None, "5"), ("5", None), (None, None), ("none", None), (None, "")):
        compare("answers_match", *pair)


@check("answers_match", "the text is never evaluated, and two that are no numbers are not equal", floor=False)
def test_match_never_evaluates():
    for pair in (("2+2", "4"), ("2**10", "1024"), ("int(4)", "4"), ("abc", "abd"), ("1/0", "2/0"), ("1/0", "0")):
        compare("answers_match", *pair)


@check("answers_match", "the worked numbers of the docstring")
def test_match_worked_numbers():
    for pair in (("1,234.50", "$1234.5$"), (r"50\%", "1/2"), (r"-\dfrac{3}{6}", "-0.5"), ("Paris", " paris ")):
        returns("answers_match", True, *pair)
    for pair in (("2+2", "4"), ("50", "50%"), ("1 1/2", "11/2"), ("0.333", "1/3"), ("1/0", "5"), ("Paris", "Rome")):
        returns("answers_match", False, *pair)


@robust(
    "answers_match",
    "numbers with thousands of digits are no error, and long texts take linear time",
    remedy="int() refuses more than 4300 digits with a ValueError; catch it, such a text is not a number",
    floor=False,
)
def test_match_hostile_texts():
    for text in (
        "9" * 5000,
        "1/" + "7" * 5000,
        "1" * 50_000 + "x",
        "1,000" * 20_000,
        " " * 100_000 + "x",
        "$" * 100_000,
    ):
        compare("answers_match", text, "5")
        compare("answers_match", text, text)


@robust(
    "answers_match",
    "numbers as policies write them: .5, 5. and +5",
    remedy=r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+) reads them all",
)
@given(pair=st.sampled_from([(".5", "1/2"), ("5.", "5"), ("+5", "5"), ("-.50", "-0.5"), (".5", "5"), ("+5", "-5")]))
def test_match_short_decimals(pair):
    compare("answers_match", *pair)


# --- verifiable_reward ------------------------------------------------------------------------------------------------

TARGETS = st.sampled_from(["7", "1/2", "-5", "1234.5", "paris", "8"])


@check("verifiable_reward", "1 for the right answer, format_weight for a wrong one, 0 for none")
@given(text=text_of(PROSE, CONTENTS.map(tag), CONTENTS.map(box), most=3), target=TARGETS)
def test_reward_has_three_levels(text, target):
    compare("verifiable_reward", text, target)


@check("verifiable_reward", "the weight of the format is an argument, and nothing is added to a right answer")
@given(answer=st.sampled_from(["7", "8", "0.5"]), target=TARGETS, weight=st.sampled_from([0.2, 0.5, 0.05]))
def test_reward_with_a_format_weight(answer, target, weight):
    compare("verifiable_reward", f"So {tag(answer)}", target, weight)
    compare("verifiable_reward", f"So {box(answer)}", target, format_weight=weight)
    compare("verifiable_reward", f"{tag('3')} No: {tag(answer)}", target, weight)


@check("verifiable_reward", "the answer must be given as one: the right number in the prose earns nothing", floor=False)
@FEW
@given(
    text=st.sampled_from(["It is 7.", "7", "<answer>7", r"\boxed{7", "The answer is 7"]),
    weight=st.sampled_from([0.1, 0.5]),
)
def test_reward_of_prose(text, weight):
    compare("verifiable_reward", text, "7", weight)


@check("verifiable_reward", "the worked numbers of the docstring")
def test_reward_worked_numbers():
    returns("verifiable_reward", 1.0, "<answer>4</answer>", "4")
    returns("verifiable_reward", 0.1, "<answer>5</answer>", "4")
    returns("verifiable_reward", 0.0, "It is 4.", "4")


@robust(
    "verifiable_reward",
    "texts that are made to break a verifier earn no more than the format",
    remedy="answers that are no numbers, or too long ones, are wrong answers and no errors",
)
@given(answer=st.sampled_from(["1/0", "9" * 5000, "7 or 8", "__import__('os')", "", "7" * 5000, "nan", "True", "7"]))
def test_reward_of_hostile_texts(answer):
    compare("verifiable_reward", tag(answer), "7")
    compare("verifiable_reward", r"\boxed{" * 2000 + tag(answer), "7")


# --- pass_at_k --------------------------------------------------------------------------------------------------------


@st.composite
def counts(draw, most=11):
    n = draw(st.integers(1, most))
    return n, draw(st.integers(0, n)), draw(st.integers(1, n))


@check("pass_at_k", "the chance that k of the n samples, drawn without replacement, hold one of the c right ones")
@settings(max_examples=30)
@given(count=counts())
def test_pass_at_k_of_three_ints(count):
    compare("pass_at_k", *count, tolerance=1e-6)


@check("pass_at_k", "none right is 0; more draws than wrong samples is 1")
@given(n=st.integers(2, 9), share=st.floats(0.0, 1.0), some=st.booleans())
def test_pass_at_k_at_its_ends(n, share, some):
    k = 1 + round(share * (n - 1))
    compare("pass_at_k", n, n - k + 1 if some else 0, k, tolerance=1e-6)


@check("pass_at_k", "stable for 100000 samples: no overflow, no product of thousands of rounding errors")
@FEW
@given(c=st.sampled_from([300, 2000, 99_000]), k=st.sampled_from([1000, 5, 70_000]))
def test_pass_at_k_of_many_samples(c, k):
    compare("pass_at_k", 100_000, c, k, tolerance=1e-6)


@check("pass_at_k", "tensors broadcast with each other and with ints")
@given(x=st.tensors(c="P ids", k="K ids"))
def test_pass_at_k_of_tensors(x):
    compare("pass_at_k", 10, x.c, 3, tolerance=1e-5)
    compare("pass_at_k", 11, x.c[:, None], 1 + x.k, tolerance=1e-5)
    compare("pass_at_k", 11 + x.c, x.c, 1 + x.k[:1], tolerance=1e-5)


@check("pass_at_k", "ValueError unless 0 <= c <= n and 1 <= k <= n: unsolved stays unsolved")
@given(wrong=st.sampled_from([(2, 0, 5), (4, 5, 2), (4, -1, 2), (4, 2, 0), (0, 0, 1), (3, 2, 4)]))
def test_pass_at_k_refuses_impossible_counts(wrong):
    n, c, k = wrong
    raises("pass_at_k", ValueError, n, c, k)
    raises("pass_at_k", ValueError, n, torch.tensor([1, c, 1]), k)


@check("pass_at_k", "the worked numbers of the docstring")
def test_pass_at_k_worked_numbers():
    returns("pass_at_k", 0.9, 5, 2, 3, tolerance=1e-6)
    returns("pass_at_k", 1.0, 4, 1, 4, tolerance=1e-6)
    returns("pass_at_k", 0.0001, 100_000, 1, 10, tolerance=1e-4)


@robust(
    "pass_at_k",
    "small chances keep their digits",
    remedy="sum log1p(-k / (n - i)) over the c right samples and take -expm1; differences of lgamma lose 10 digits",
)
@given(n=st.sampled_from([50_000, 100_000]), c=st.sampled_from([1, 2, 3]), k=st.sampled_from([1, 3, 10]))
def test_pass_at_k_of_small_chances(n, c, k):
    compare("pass_at_k", n, c, k, tolerance=1e-8)


# --- majority_vote ----------------------------------------------------------------------------------------------------


@st.composite
def votes(draw, least=1, weights=(0.25, 0.5, 1.0, 1.5)):
    """Answers, some of them None, and weights whose sums are exact."""
    answers = draw(st.lists(st.sampled_from(["4", "5", "6", None, " 4", "a", "A"]), min_size=least, max_size=9))
    return answers, [draw(st.sampled_from(weights)) for _ in answers]


@check("majority_vote", "the answer that most samples gave")
@given(vote=votes())
def test_vote_by_count(vote):
    compare("majority_vote", vote[0])


@check("majority_vote", "with weights, the answer with the largest sum of weights; a list or a tensor")
@given(vote=votes(), as_tensor=st.booleans())
def test_vote_by_weight(vote, as_tensor):
    answers, weights = vote
    compare("majority_vote", answers, torch.tensor(weights) if as_tensor else weights)


@check("majority_vote", "ties go to the answer that was seen first")
@given(
    first=st.sampled_from(["9", "1", "z"]),
    rest=st.sampled_from([["5", "4"], ["4", "5"], ["0", "z1"]]),
    none=st.booleans(),
)
def test_vote_breaks_ties_by_order(first, rest, none):
    answers = [None, first, *rest, *reversed(rest), first]
    compare("majority_vote", answers if none else answers[1:])
    compare("majority_vote", answers, [9.0, 1.5, 2.0, 1.0, 1.0, 0.0, 0.5])


@check("majority_vote", "None abstains, however many there are and whatever they weigh")
@given(vote=votes())
def test_vote_ignores_abstentions(vote):
    answers, weights = vote
    compare("majority_vote", [None, None, *answers, None, None, None])
    compare("majority_vote", [None, *answers], [50.0, *weights])


@check("majority_vote", "None when nobody answered", floor=False)
def test_vote_of_nobody():
    compare("majority_vote", [])
    compare("majority_vote", [None, None])
    compare("majority_vote", [None, None], [1.0, 2.0])


@check("majority_vote", "the worked numbers of the docstring")
def test_vote_worked_numbers():
    returns("majority_vote", "4", ["4", None, "5", "5", "4", None, None])
    returns("majority_vote", "5", ["4", "5", "4"], [0.2, 0.9, 0.3])


@robust(
    "majority_vote",
    "weights may be negative, as log-probs are",
    remedy="max over the answers' sums; a search that starts from 0 or -1 finds nothing below it",
)
@given(vote=votes(weights=(-2.0, -8.0, -32.0, 0.5)))
def test_vote_with_negative_weights(vote):
    compare("majority_vote", *vote)


# --- best_of_n_accuracy -----------------------------------------------------------------------------------------------

SAMPLES = dict(scores="P N normal", correct="P N binary")


def draws(x, share):
    """How many to draw: 1 to N."""
    return 1 + round(share * (x.scores.shape[1] - 1))


@check("best_of_n_accuracy", "how often the best-scored of n drawn samples is right, over all draws and prompts")
@given(x=st.tensors(**SAMPLES, sizes={"N": (3, 5, 7, 11)}), share=st.floats(0.0, 1.0))
def test_best_of_n_is_exact(x, share):
    compare("best_of_n_accuracy", x.scores, x.correct, draws(x, share))


@check("best_of_n_accuracy", "samples that tie for the best of a draw share the credit")
@given(x=st.tensors(scores="P N reward", correct="P N binary", sizes={"N": (3, 5, 7, 11)}), share=st.floats(0.0, 1.0))
def test_best_of_n_shares_ties(x, share):
    compare("best_of_n_accuracy", x.scores.round(), x.correct, draws(x, share))


@check("best_of_n_accuracy", "correct may be of any dtype; the result has the dtype of the scores")
@FEW
@given(x=st.tensors(**SAMPLES, least={"N": 3}), dtype=st.sampled_from([torch.bool, torch.int64, torch.uint8]))
def test_best_of_n_takes_verdicts_of_any_dtype(x, dtype):
    compare("best_of_n_accuracy", x.scores, x.correct.to(dtype), 2)


@check("best_of_n_accuracy", "n = 1 is the mean accuracy, n = N the accuracy of the best of all")
@FEW
@given(x=st.tensors(**SAMPLES), all_of_them=st.booleans())
def test_best_of_n_at_its_ends(x, all_of_them):
    compare("best_of_n_accuracy", x.scores, x.correct, x.scores.shape[1] if all_of_them else 1)


@check("best_of_n_accuracy", "ValueError unless 1 <= n <= N")
@FEW
@given(x=st.tensors(**SAMPLES))
def test_best_of_n_refuses_impossible_draws(x):
    raises("best_of_n_accuracy", ValueError, x.scores, x.correct, 0)
    raises("best_of_n_accuracy", ValueError, x.scores, x.correct, x.scores.shape[1] + 1)


@check("best_of_n_accuracy", "the worked numbers of the docstring")
def test_best_of_n_worked_numbers():
    scores, correct = torch.tensor([[3.0, 1.0, 2.0]]), torch.tensor([[0, 1, 1]])
    for n, expected in ((1, 2 / 3), (2, 1 / 3), (3, 0.0)):
        returns("best_of_n_accuracy", torch.tensor(expected), scores, correct, n)


@robust(
    "best_of_n_accuracy",
    "1201 samples: the binomials do not fit a float, their ratio does",
    remedy="math.comb(m, n) / math.comb(N, n) divides whole numbers; or build the ratio as a product",
)
def test_best_of_n_of_many_samples():
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(2, 1201, generator=generator, dtype=torch.float64)
    compare("best_of_n_accuracy", scores, (scores < 0.9985).double(), 600)


# --- informative_groups -----------------------------------------------------------------------------------------------


@check("informative_groups", "True where the rewards of a group are not all equal")
@given(rewards=st.reward_groups())
def test_groups_with_a_difference(rewards):
    compare("informative_groups", rewards)


@check("informative_groups", "equal at any value: rounding is no difference, and neither is another group's level")
@given(
    x=st.tensors(level="P reward", odd="P binary", dtypes=(torch.float32,), least={"P": 2}),
    size=st.sampled_from([3, 7, 11]),
)
def test_groups_of_equal_rewards(x, size):
    rewards = (x.level + 0.1)[:, None].repeat(1, size)
    rewards[:, -1] += x.odd
    compare("informative_groups", rewards)


@check(
    "informative_groups", "0 and 1 are not special: a group of equal halves teaches nothing, one of 0.2 and 0.7 does"
)
def test_groups_worked_numbers():
    returns("informative_groups", torch.tensor([False, True]), torch.tensor([[1.0, 1.0, 1.0], [0.0, 1.0, 0.0]]))
    returns("informative_groups", torch.tensor([True, False]), torch.tensor([[0.2, 0.7], [0.5, 0.5]]))


@check("informative_groups", "a group of one has nothing to compare with", floor=False)
@FEW
@given(rewards=st.one("P reward"))
def test_groups_of_one(rewards):
    compare("informative_groups", rewards.unsqueeze(1))


@robust(
    "informative_groups",
    "a small difference is a difference, in whole numbers and in half precision too",
    remedy="compare with the first reward, rewards != rewards[:, :1]; a threshold on the std is a guess",
)
@given(rewards=st.reward_groups(), dtype=st.sampled_from([torch.float64, torch.int64, torch.bfloat16]))
def test_groups_with_small_differences(rewards, dtype):
    small = {torch.float64: 1e-12 * rewards, torch.int64: 10 * rewards, torch.bfloat16: 1e-4 * rewards}[dtype]
    compare("informative_groups", small.to(dtype))
