"""Week 07's functions: the traps of real answer parsers, enumeration of all draws, and hostile texts."""

import importlib.util
import inspect
import itertools
import math
import time
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from reference_impl import reasoning as reference

ROOT = Path(__file__).parents[1]
NAMES = [
    "extract_answer",
    "answers_match",
    "verifiable_reward",
    "pass_at_k",
    "majority_vote",
    "best_of_n_accuracy",
    "informative_groups",
]


def load(path):
    spec = importlib.util.spec_from_file_location("week07_" + path.parts[-3], path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


solution = load(ROOT / "solutions/07/reasoning.py")
stub = load(ROOT / "weeks/07/reasoning.py")
both = pytest.mark.parametrize("impl", [reference, solution], ids=["reference", "solution"])


def doubles(values):
    return torch.tensor(values, dtype=torch.float64)


def seconds(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


# ---- extract_answer


@both
@pytest.mark.parametrize(
    "text, expected",
    [
        ("<answer>72</answer>", "72"),
        ("<answer> 72.\n</answer>", "72."),
        ("<answer>5</answer> no, <answer>6</answer>", "6"),
        ("<answer>5</answer> or <answer>6", "5"),  # the last closed one
        ("<answer>5 <answer>6</answer>", "6"),
        ("<answer>5</answer> </answer>", "5"),
        ("</answer>5<answer>", None),
        ("<answer></answer>", ""),
        ("<answer>x < 3</answer>", "x < 3"),
        ("<answer>two\nlines</answer>", "two\nlines"),
        (r"\boxed{5}", "5"),
        (r"\boxed{ 5 } then \boxed{6}", "6"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\sqrt{1+\frac{a_{1}}{b}}} }", r"\sqrt{1+\frac{a_{1}}{b}}"),
        (r"\boxed{3} but \boxed{4", "3"),
        (r"\boxed{3} but \boxed{\frac{4}{5}", "3"),
        (r"{ \boxed{3}", "3"),
        (r"\boxed{\left\{ 1 \right.}", r"\left\{ 1 \right."),  # an escaped brace is printed, not counted
        (r"\boxed{\boxed{7}}", "7"),
        (r"<answer>\boxed{5}</answer> \boxed{6}", "5"),  # tags come first, and a box inside is unwrapped
        (r"<answer>It is \boxed{\frac{1}{2}}.</answer>", r"\frac{1}{2}"),
        (r"<answer>\boxed{5</answer>", r"\boxed{5"),
        (r"\boxed{6} <answer>5", "6"),
        ("The answer is 72.", None),
        ("", None),
        (r"\boxed5", None),
    ],
)
def test_the_last_closed_answer_is_found(impl, text, expected):
    assert impl.extract_answer(text) == expected


@both
@pytest.mark.parametrize(
    "text",
    [
        r"\boxed{" * 100_000,
        "<answer>" * 100_000,
        "<answer>" + "x" * 500_000,
        "{" * 300_000 + "}" * 300_000,
        r"\boxed{5}" * 50_000,
        "</answer>" * 100_000,
    ],
    ids=lambda text: text[:9],
)
def test_extraction_takes_linear_time_on_hostile_texts(impl, text):
    assert seconds(lambda: impl.extract_answer(text)) < 2.0


# ---- answers_match


@both
@pytest.mark.parametrize(
    "answer, target",
    [
        ("72", "72"),
        ("72", "72.0"),
        ("72.", "72"),
        ("+72", "72"),
        ("-0", "0"),
        (".5", "0.5"),
        ("1,234", "1234"),
        ("1,234,567.50", "1234567.5"),
        (r"1\,234", "1234"),
        ("$1,234$", "1,234"),
        (r"\$5", "5"),
        ("50%", "0.5"),
        (r"50\%", r"\frac{1}{2}"),
        ("50 %", "1/2"),
        ("1/2", "0.5"),
        ("2/4", "1/2"),
        ("-1/2", r"-\frac{1}{2}"),
        (r"\frac{-1}{2}", "-0.5"),
        (r"\dfrac{1}{2}", r"\frac{1}{2}"),
        (r"\dfrac{x}{2}", r"\frac{x}{2}"),
        ("1 / 2", "1/2"),
        ("0.1", "1/10"),
        ("100000000000000000001", "100000000000000000001.0"),
        ("Paris", " paris "),
        ("New  York", "new york"),
        ("x = 1,000", "x = 1000"),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_equal_answers_match_in_both_directions(impl, answer, target):
    assert impl.answers_match(answer, target) is True
    assert impl.answers_match(target, answer) is True


@both
@pytest.mark.parametrize(
    "answer, target",
    [
        (None, "5"),
        (None, None),
        (None, "none"),
        ("-5", "5"),
        ("3.50", "50"),
        ("1,234", "234"),
        ("1,23", "123"),
        ("0,123", "123"),
        ("1,2345", "12345"),
        ("1 1/2", "11/2"),
        ("1 1/2", "1/2"),
        ("12", "1 2"),
        ("0.333", "1/3"),
        ("0.3333333333333333", "1/3"),
        ("100000000000000000001", "100000000000000000000"),  # equal as floats
        ("0.30000000000000004", "0.3"),
        ("50", "50%"),
        ("1/0", "0"),
        ("1/0", "2/0"),
        (r"\frac{1}{0}", "1/0.0"),
        ("2+2", "4"),
        ("2**2", "4"),
        ("__import__('os').getpid() * 0", "0"),
        ("cat", "dog"),
        ("nan", "inf"),
        ("1_000", "1000"),
        ("5", ""),
        ("9" * 5000, "8" * 5000),
    ],
)
def test_different_answers_do_not_match(impl, answer, target):
    assert impl.answers_match(answer, target) is False
    assert impl.answers_match(target, answer) is False


@both
@pytest.mark.parametrize("unit", ["9", ",111", "1/", "-", ".", "%", " ", r"\frac{", "1e"])
def test_matching_takes_linear_time_and_never_raises(impl, unit):
    text = "1" + unit * 100_000 + "x"
    assert seconds(lambda: impl.answers_match(text, "1")) < 2.0
    assert impl.answers_match("1e999999999", "7") is False


@both
def test_numbers_are_compared_exactly(impl):
    for a, b in itertools.product(range(-3, 4), range(1, 8)):
        value = Fraction(a, b)
        assert impl.answers_match(f"{a}/{b}", f"{value.numerator}/{value.denominator}")
        assert impl.answers_match(rf"\frac{{{a}}}{{{b}}}", str(value))
        assert not impl.answers_match(f"{a}/{b}", f"{10 * a + 1}/{10 * b}")


# ---- verifiable_reward


@both
def test_the_reward_has_three_values(impl):
    assert impl.verifiable_reward("<answer>1/2</answer>", "0.5") == 1.0
    assert impl.verifiable_reward("<answer>5</answer>", "4") == 0.1
    assert impl.verifiable_reward("<answer>5</answer>", "4", format_weight=0) == 0.0
    assert impl.verifiable_reward(r"\boxed{5}", "4", 0.3) == 0.3
    assert impl.verifiable_reward("It is 4.", "4") == 0.0
    assert all(type(impl.verifiable_reward(r"\boxed{5}", t, 1)) is float for t in ("4", "5"))


# ---- pass_at_k


@both
def test_pass_at_k_is_the_share_of_all_subsets(impl):
    for n in range(1, 8):
        for c, k in itertools.product(range(n + 1), range(1, n + 1)):
            subsets = list(itertools.combinations(range(n), k))
            share = sum(any(i < c for i in subset) for subset in subsets) / len(subsets)
            assert impl.pass_at_k(n, c, k) == pytest.approx(share, rel=1e-12, abs=0)


@both
def test_pass_at_k_is_unbiased(impl):
    """E over c ~ Binomial(n, p) is 1 - (1 - p)^k; the plug-in 1 - (1 - c/n)^k is too low."""
    n, k, p = 7, 4, 0.3
    weights = [math.comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]
    mean = sum(w * impl.pass_at_k(n, c, k) for c, w in enumerate(weights))
    assert mean == pytest.approx(1 - (1 - p) ** k, rel=1e-12)
    assert sum(w * (1 - (1 - c / n) ** k) for c, w in enumerate(weights)) < mean - 0.02


@both
@pytest.mark.parametrize(
    "n, c, k",
    [(100_000, 1, 1), (100_000, 1, 10), (100_000, 3, 7), (99_991, 50_000, 2), (100_000, 40, 60_000), (1000, 500, 499)],
)
def test_pass_at_k_keeps_its_digits_at_large_n(impl, n, c, k):
    exact = 1 - Fraction(math.comb(n - c, k), math.comb(n, k))
    assert impl.pass_at_k(n, c, k) == pytest.approx(float(exact), rel=1e-10, abs=0)


@both
def test_pass_at_k_of_tensors_broadcasts(impl):
    c, k = torch.tensor([[0], [1], [5]]), torch.tensor([1, 2, 4, 5])
    result = impl.pass_at_k(5, c, k)
    assert result.shape == (3, 4) and result.is_floating_point()
    for i, j in itertools.product(range(3), range(4)):
        assert result[i, j].item() == pytest.approx(impl.pass_at_k(5, c[i].item(), k[j].item()))
    assert impl.pass_at_k(torch.tensor(5.0, dtype=torch.float64), 2, 3).dtype == torch.float64
    assert type(impl.pass_at_k(5, 2, 3)) is float


@both
@pytest.mark.parametrize("n, c, k", [(2, 0, 5), (5, 6, 1), (5, -1, 1), (5, 2, 0), (0, 0, 1), (5, 2, -1)])
def test_impossible_counts_are_named(impl, n, c, k):
    with pytest.raises(ValueError, match=f"n={n}, c={c}, k={k}"):
        impl.pass_at_k(n, c, k)
    with pytest.raises(ValueError):
        impl.pass_at_k(torch.tensor([9, n]), torch.tensor([1, c]), k)


# ---- majority_vote


@both
@pytest.mark.parametrize(
    "answers, weights, expected",
    [
        (["4", "5", "5"], None, "5"),
        (["4", None, None, None], None, "4"),  # abstentions are no candidate
        (["5", "4", "4", "5"], None, "5"),  # a tie: first seen
        (["4", "5", "5", "4", "3"], None, "4"),
        (["4", "5", "4"], [0.2, 0.9, 0.3], "5"),
        (["4", None, "5"], [0.2, 9.0, 0.3], "5"),
        (["4", "5"], [0.0, 0.0], "4"),
        (["1", "137"], None, "1"),
        ([None, None], None, None),
        ([], None, None),
    ],
)
def test_the_most_votes_win(impl, answers, weights, expected):
    assert impl.majority_vote(answers, weights) == expected
    if weights is not None:
        assert impl.majority_vote(tuple(answers), doubles(weights)) == expected


@both
def test_one_weight_an_answer(impl):
    with pytest.raises(ValueError):
        impl.majority_vote(["4", "5"], [1.0])


# ---- best_of_n_accuracy


@both
@pytest.mark.parametrize("seed", range(4))
def test_best_of_n_is_the_average_over_all_draws(impl, seed):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(0, 2 + 2 * seed, (3, 6), generator=generator).double()  # many ties, then few
    correct = torch.randint(0, 2, (3, 6), generator=generator)
    for n in range(1, 7):
        shares = []
        for row, draw in itertools.product(range(3), itertools.combinations(range(6), n)):
            best = max(scores[row, i] for i in draw)
            credit = [correct[row, i].item() for i in draw if scores[row, i] == best]
            shares.append(sum(credit) / len(credit))
        expected = doubles(sum(shares) / len(shares))
        for right in (correct, correct.bool(), correct.double()):
            assert_close(impl.best_of_n_accuracy(scores, right, n), expected)


@both
def test_the_verifier_as_scorer_is_pass_at_n_and_a_constant_scorer_is_the_mean(impl):
    correct = (torch.rand(5, 64, generator=torch.Generator().manual_seed(1)) < 0.1).double()
    for n in (1, 2, 7, 64):
        oracle = impl.best_of_n_accuracy(correct, correct, n)
        assert_close(oracle, doubles([impl.pass_at_k(64, int(c), n) for c in correct.sum(1)]).mean())
        assert_close(impl.best_of_n_accuracy(torch.zeros_like(correct), correct, n), correct.mean())


@both
def test_best_of_n_at_large_n_and_in_other_dtypes(impl):
    scores = torch.rand(2, 500, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    best = scores == scores.amax(dim=1, keepdim=True)
    for n in (1, 250, 500):
        assert_close(impl.best_of_n_accuracy(scores, best, n), doubles(n / 500))
        assert impl.best_of_n_accuracy(scores.float(), best, n).dtype == torch.float32
    votes = torch.tensor([[3, 3, 1], [2, 5, 5]])
    assert impl.best_of_n_accuracy(votes, votes == 3, 3).item() == 0.5
    assert impl.best_of_n_accuracy(votes.bfloat16(), votes == 3, 3).item() == 0.5
    assert impl.best_of_n_accuracy(scores.T.contiguous().T, best, 7).item() == pytest.approx(7 / 500)
    log_scores = torch.tensor([[-math.inf, -math.inf, 0.0]])
    assert impl.best_of_n_accuracy(log_scores, torch.tensor([[1, 0, 0]]), 2).item() == pytest.approx(0.5 / 3)


@both
@pytest.mark.parametrize("n", [0, 4, -1])
def test_n_out_of_range_is_named(impl, n):
    with pytest.raises(ValueError, match=f"n={n}"):
        impl.best_of_n_accuracy(torch.zeros(2, 3), torch.zeros(2, 3), n)


# ---- informative_groups


@both
def test_groups_of_equal_rewards_are_not_informative(impl):
    rewards = torch.tensor([[1.0, 1.0, 1.0], [0.0, 1.0, 0.0], [0.2, 0.2, 0.2], [0.0, 0.0, 0.0], [0.1, 0.1, 0.2]])
    expected = [False, True, False, False, True]
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        result = impl.informative_groups(rewards.to(dtype))
        assert result.dtype == torch.bool and result.tolist() == expected
    assert impl.informative_groups(torch.ones(3, 1)).tolist() == [False] * 3


@both
def test_rounding_noise_in_the_std_is_no_information(impl):
    """Which equal groups have a std above 0 depends on the machine's order of summation; some have."""
    groups = [torch.full((1, size), value) for value in (0.1, 0.2, 0.3, 0.6, 0.7, 0.9) for size in range(3, 17)]
    assert not any(impl.informative_groups(group).item() for group in groups)
    assert any(group.std(dim=1) > 0 for group in groups)


# ---- all


@both
def test_worked_numbers_of_the_docstrings(impl):
    assert impl.extract_answer(r"So \boxed{3} ... no: \boxed{\frac{1}{2}}") == r"\frac{1}{2}"
    assert impl.extract_answer("<answer> 7 </answer> or <answer>8") == "7"
    assert impl.answers_match("1,234.50", "$1234.5$") and impl.answers_match(r"-\dfrac{3}{6}", "-0.5")
    assert impl.pass_at_k(5, 2, 3) == pytest.approx(0.9) and impl.pass_at_k(4, 1, 4) == 1.0
    assert impl.pass_at_k(100_000, 1, 10) == pytest.approx(0.0001)
    assert impl.majority_vote(["4", None, "5", "5", "4", None, None]) == "4"
    scores, correct = doubles([[3, 1, 2]]), torch.tensor([[0, 1, 1]])
    results = [impl.best_of_n_accuracy(scores, correct, n).item() for n in (1, 2, 3)]
    assert results == pytest.approx([0.6667, 0.3333, 0.0], abs=5e-5)
    assert impl.informative_groups(doubles([[1, 1, 1], [0, 1, 0]])).tolist() == [False, True]


@pytest.mark.parametrize("name", NAMES)
def test_stub_solution_and_reference_have_one_signature(name):
    signatures = {inspect.signature(getattr(module, name)) for module in (stub, solution, reference)}
    assert len(signatures) == 1
    arguments = [None] * sum(p.default is p.empty for p in signatures.pop().parameters.values())
    with pytest.raises(NotImplementedError, match=f"Week 07, task .*{name}"):
        getattr(stub, name)(*arguments)
