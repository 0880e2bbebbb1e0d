"""Week 10's functions against enumeration, an independent fit, and the mistakes of real code."""

import importlib.util
import math
import random
from fractions import Fraction
from itertools import combinations, permutations
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from reference_impl import rejection_sampling as reference

ROOT = Path(__file__).parents[1]


def load(path):
    spec = importlib.util.spec_from_file_location("week10_" + path.parts[-3], path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


solution = load(ROOT / "solutions/10/rejection_sampling.py")
stub = load(ROOT / "weeks/10/rejection_sampling.py")
both = pytest.mark.parametrize("impl", [reference, solution], ids=["reference", "solution"])


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


def with_ties(prompts, samples, seed):
    return torch.randint(0, 4, (prompts, samples), generator=torch.Generator().manual_seed(seed)) / 4


# ---- selections


@both
def test_top_per_prompt_is_a_sort_by_reward_then_index(impl):
    for seed in range(5):
        rewards = with_ties(3, 7, seed)
        expected = [sorted(range(7), key=lambda i, r=row: (-r[i], i)) for row in rewards.tolist()]
        for k in [1, 3, 7]:
            chosen = impl.top_per_prompt(rewards.T.contiguous().T, k)
            assert chosen.dtype == torch.int64
            assert chosen.tolist() == [row[:k] for row in expected]
    assert impl.top_per_prompt(rewards).shape == (3, 1)


@both
def test_top_k_overall_is_a_sort_of_the_whole_table(impl):
    for seed in range(5):
        rewards = with_ties(3, 7, seed)
        pairs = sorted(((p, i) for p in range(3) for i in range(7)), key=lambda pair: (-rewards[pair].item(), *pair))
        for k in [1, 10, 21]:
            chosen = impl.top_k_overall(rewards.T.contiguous().T, k)
            assert chosen.dtype == torch.int64
            assert [tuple(pair) for pair in chosen.tolist()] == pairs[:k]


@both
def test_one_prompt_may_hold_all_the_best(impl):
    """The difference of the two rules: overall keeps the easy prompt only, per prompt keeps every prompt."""
    rewards = torch.tensor([[0.1, 0.2, 0.0], [0.9, 0.8, 0.7]])
    assert impl.top_k_overall(rewards, 3).tolist() == [[1, 0], [1, 1], [1, 2]]
    assert impl.top_per_prompt(rewards).tolist() == [[1], [0]]


@both
def test_the_books_table_of_five_prompts_and_four_completions(impl):
    table = [[7, 3, 5, 2], [4, 8, 6, 5], [9, 3, 4, 7], [2, 5, 8, 6], [5, 4, 3, 6]]
    rewards = torch.tensor(table) / 10
    assert impl.top_per_prompt(rewards)[:, 0].tolist() == [0, 1, 0, 2, 3]
    assert impl.top_k_overall(rewards, 5).tolist() == [[2, 0], [1, 1], [3, 2], [0, 0], [2, 3]]


@both
@pytest.mark.parametrize("k", [0, -1, 8, 22])
def test_k_out_of_range_is_named(impl, k):
    rewards = torch.zeros(3, 7)
    with pytest.raises(ValueError, match=str(k)):
        impl.top_per_prompt(rewards, k)
    if k != 8:
        with pytest.raises(ValueError, match=str(k)):
            impl.top_k_overall(rewards, k)


def test_random_controls_choose_as_many_without_repeats_and_repeat_under_a_seed():
    rewards = with_ties(4, 6, 0)
    for select, k, rows in [(reference.random_per_prompt, 3, 4), (reference.random_k_overall, 9, 9)]:
        first = select(rewards, k, generator=torch.Generator().manual_seed(1))
        assert torch.equal(first, select(rewards, k, generator=torch.Generator().manual_seed(1)))
        assert not torch.equal(first, select(rewards, k, generator=torch.Generator().manual_seed(2)))
        assert first.dtype == torch.int64 and len(first) == rows
    per_prompt = reference.random_per_prompt(rewards, 3)
    assert all(len(set(row)) == 3 and set(row) <= set(range(6)) for row in per_prompt.tolist())
    pairs = {tuple(pair) for pair in reference.random_k_overall(rewards, 24).tolist()}
    assert pairs == {(p, i) for p in range(4) for i in range(6)}


def test_random_controls_are_uniform():
    """Counts of 4,000 draws within 5 standard errors of uniform."""
    generator, rewards = torch.Generator().manual_seed(0), torch.zeros(4000, 5)
    counts = reference.random_per_prompt(rewards, 2, generator).reshape(-1).bincount()
    assert (counts - 1600).abs().max() < 5 * math.sqrt(4000 * 0.4 * 0.6)
    pairs = reference.random_k_overall(torch.zeros(10, 400), 2000, generator)
    assert (pairs[:, 0].bincount(minlength=10) - 200).abs().max() < 5 * math.sqrt(400 * 0.25)


# ---- best of n


@both
def test_best_of_n_kl_is_the_limit_of_exact_kls_over_ever_more_completions(impl):
    """With Y equally likely completions of different rewards the best of n is the i-th with (i^n - (i-1)^n) / Y^n."""
    for n in [1, 2, 4, 16]:
        edges = (torch.arange(50_001, dtype=torch.float64) / 50_000) ** n
        probs = edges.diff()
        exact = (probs * (probs * 50_000).log()).nan_to_num(0.0).sum().item()
        assert exact <= impl.best_of_n_kl(n) + 1e-9
        assert impl.best_of_n_kl(n) == pytest.approx(exact, abs=1e-3)
    assert type(impl.best_of_n_kl(3)) is float and impl.best_of_n_kl(1) == 0.0


@both
def test_equal_rewards_make_the_formula_an_upper_bound(impl):
    """Half of the completions are right (reward 1), half wrong: best of 4 is right with probability 15/16."""
    exact = 15 / 16 * math.log(15 / 8) + 1 / 16 * math.log(1 / 8)
    assert exact < impl.best_of_n_kl(4)


@both
@pytest.mark.parametrize("n", [0, -3])
def test_best_of_nothing_is_refused(impl, n):
    with pytest.raises(ValueError, match=str(n)):
        impl.best_of_n_kl(n)


@both
def test_expected_max_is_the_mean_over_every_draw(impl):
    rewards = doubles(0.3, -1.2, 2.0, 0.3, 5.5, -0.7, 0.0)
    for n in range(1, 8):
        draws = [max(draw) for draw in combinations(rewards.tolist(), n)]
        assert_close(impl.expected_max_reward(rewards, n), doubles(sum(draws) / len(draws))[0])
    assert_close(impl.expected_max_reward(rewards, 1), rewards.mean())
    assert_close(impl.expected_max_reward(rewards, 7), rewards.max())


@both
def test_expected_max_of_zero_one_rewards_is_pass_at_k(impl):
    correct = torch.tensor([1.0] * 3 + [0.0] * 17)
    for k in [1, 5, 17, 18]:
        exact = 1 - Fraction(math.comb(17, k), math.comb(20, k))
        assert_close(impl.expected_max_reward(correct, k), torch.tensor(float(exact)))


@both
def test_expected_max_is_exact_for_ten_thousand_samples(impl):
    """Ranks 1..N: the expected largest of n is n (N+1)/(n+1). C(10000, 5000) has 3,008 digits."""
    ranks = torch.arange(1, 10_001, dtype=torch.float64)
    for n in [2, 64, 5000, 9999]:
        assert_close(impl.expected_max_reward(ranks, n), doubles(n * 10_001 / (n + 1))[0], rtol=1e-10, atol=0)


@both
def test_expected_max_keeps_dtype_and_ignores_what_cannot_win(impl):
    rewards = torch.tensor([float("-inf"), 1.0, 2.0])
    assert_close(impl.expected_max_reward(rewards, 2), torch.tensor((1.0 + 2.0 + 2.0) / 3))  # float32 in, float32 out
    assert impl.expected_max_reward(torch.tensor([1, 2, 4]), 2).is_floating_point()
    halves = torch.linspace(-3, 3, 301).bfloat16()
    assert_close(
        impl.expected_max_reward(halves, 4).double(), impl.expected_max_reward(halves.double(), 4), rtol=1e-5, atol=0
    )
    for n in [0, 4]:
        with pytest.raises(ValueError, match=str(n)):
            impl.expected_max_reward(rewards, n)


# ---- Bradley-Terry


def zermelo(wins, rounds=200_000):
    """The textbook iteration, as an independent answer: e_i <- wins_i / sum_j n_ij / (e_i + e_j)."""
    wins = wins.double().clone().fill_diagonal_(0)
    e = torch.ones(len(wins), dtype=torch.float64)
    for _ in range(rounds):
        new = wins.sum(1) / ((wins + wins.T) / (e[:, None] + e)).sum(1)
        new = new / new.log().mean().exp()
        if (new / e).log().abs().max() < 1e-13:
            break
        e = new
    return e.log() - e.log().mean()


@both
def test_planted_strengths_come_back_from_their_expected_wins(impl):
    strengths = doubles(1.3, -0.4, 0.2, -2.1, 0.7)
    strengths = strengths - strengths.mean()
    games = 1 + torch.randint(0, 9, (5, 5), generator=torch.Generator().manual_seed(0)).double()
    games = games + games.T
    wins = games * torch.sigmoid(strengths[:, None] - strengths)
    wins.fill_diagonal_(99.0)  # an item against itself must not matter
    assert_close(impl.fit_bradley_terry(wins), strengths, atol=1e-9, rtol=0)


@both
def test_fit_is_zermelos_on_random_tables(impl):
    for seed, items in [(0, 2), (1, 3), (2, 7), (3, 12)]:
        wins = torch.randint(0, 6, (items, items), generator=torch.Generator().manual_seed(seed)) * 1
        for i in range(items):
            wins[i, (i + 1) % items] += 1  # a ring of wins makes it strongly connected
        fitted = impl.fit_bradley_terry(wins.double())
        assert_close(fitted, zermelo(wins), atol=1e-8, rtol=0)
        assert abs(fitted.mean()) < 1e-12


@both
def test_one_sided_chains_are_fitted_too(impl):
    """Neighbours play 1000:1, 20 in a row: gaps of log 1000 each. Zermelo's iteration is far off after 10,000."""
    wins = torch.zeros(20, 20, dtype=torch.float64)
    for i in range(19):
        wins[i, i + 1], wins[i + 1, i] = 1000.0, 1.0
    gaps = -impl.fit_bradley_terry(wins, iterations=200).diff()
    assert_close(gaps, torch.full_like(gaps, math.log(1000)), rtol=1e-9, atol=0)


@both
def test_a_table_on_which_full_newton_steps_run_away_is_fitted(impl):
    """At the one maximum each item's wins equal its expected wins; undamped Newton ends in NaN on this table."""
    wins = doubles([0, 1, 1259, 0, 3], [0, 0, 1, 0, 1490], [0, 0, 0, 1, 49], [2, 14, 308, 0, 1], [1570, 0, 0, 2, 0])
    strengths = impl.fit_bradley_terry(wins)
    expected = (wins + wins.T) * torch.sigmoid(strengths[:, None] - strengths)
    assert_close(expected.sum(dim=1), wins.sum(dim=1), rtol=1e-9, atol=0)


@both
def test_scale_of_the_counts_does_not_matter(impl):
    wins = doubles([0, 3, 2], [1, 0, 3], [1, 2, 0])
    for scale in [1e-3, 1.0, 1e9]:
        assert_close(impl.fit_bradley_terry(scale * wins), impl.fit_bradley_terry(wins), atol=1e-8, rtol=0)
    assert_close(impl.fit_bradley_terry(wins + wins.T), doubles(0, 0, 0), atol=1e-12, rtol=0)


@both
@pytest.mark.parametrize("dtype", [torch.int64, torch.float32, torch.float64, torch.bfloat16])
def test_fit_takes_counts_of_any_dtype(impl, dtype):
    wins = torch.tensor([[0, 3, 2], [1, 0, 3], [1, 2, 0]], dtype=dtype)
    fitted = impl.fit_bradley_terry(wins)
    assert fitted.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert_close(fitted.double(), zermelo(wins), atol=1e-6, rtol=0)
    assert impl.fit_bradley_terry(torch.zeros(1, 1)).tolist() == [0.0]


@both
@pytest.mark.parametrize(
    "wins",
    [
        [[0, 1, 2], [0, 0, 1], [0, 2, 0]],  # item 0 never loses
        [[0, 1, 1], [2, 0, 1], [0, 0, 0]],  # item 2 never wins
        [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]],  # two islands
        [[0, 1, 3, 3], [1, 0, 3, 3], [0, 0, 0, 1], [0, 0, 1, 0]],  # a group that never loses to the other
    ],
)
def test_wins_without_a_finite_maximum_are_refused(impl, wins):
    with pytest.raises(ValueError, match="strongly connected: no chain of wins leads from item"):
        impl.fit_bradley_terry(torch.tensor(wins, dtype=torch.float64))


@both
@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
def test_impossible_counts_are_refused(impl, bad):
    with pytest.raises(ValueError, match="negative or not finite"):
        impl.fit_bradley_terry(doubles([0, bad], [1, 0]))


@both
def test_fit_changes_nothing_in_place(impl):
    wins = doubles([5, 3], [1, 5])
    impl.fit_bradley_terry(wins)
    assert torch.equal(wins, doubles([5, 3], [1, 5]))


# ---- cycles and kappa


@both
def test_cycles_are_all_rotations_told_once(impl):
    for seed in range(6):
        wins = torch.randint(0, 3, (7, 7), generator=torch.Generator().manual_seed(seed))
        expected = [
            (i, j, k)
            for i, j, k in permutations(range(7), 3)
            if wins[i, j] > wins[j, i] and wins[j, k] > wins[k, j] and wins[k, i] > wins[i, k] and i < j and i < k
        ]
        cycles = impl.preference_cycles(wins)
        assert cycles == expected
        assert all(type(item) is int for cycle in cycles for item in cycle)


@both
def test_both_directions_of_a_cycle_are_seen_and_ties_and_orders_have_none(impl):
    ring = torch.tensor([[0, 2, 1], [1, 0, 2], [2, 1, 0]])
    assert impl.preference_cycles(ring) == [(0, 1, 2)]
    assert impl.preference_cycles(ring.T) == [(0, 2, 1)]
    assert impl.preference_cycles(torch.ones(4, 4)) == []
    assert impl.preference_cycles(torch.ones(5, 5).triu()) == []
    assert impl.preference_cycles(torch.zeros(1, 1)) == []


def textbook_kappa(a, b):
    n = len(a)
    observed = Fraction(sum(x == y for x, y in zip(a, b, strict=True)), n)
    chance = sum(Fraction(a.count(label), n) * Fraction(b.count(label), n) for label in set(a) | set(b))
    return float((observed - chance) / (1 - chance))


@both
def test_kappa_is_the_textbooks(impl):
    rng = random.Random(0)
    for labels in ["ab", "abcde"]:
        a, b = [rng.choice(labels) for _ in range(23)], [rng.choice(labels) for _ in range(23)]
        assert impl.cohen_kappa(a, b) == pytest.approx(textbook_kappa(a, b), rel=1e-12)
    # 50 grants read by two people: 20 both yes, 15 both no, 5 and 10 split
    a = ["yes"] * 25 + ["no"] * 25
    b = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    assert impl.cohen_kappa(a, b) == pytest.approx(0.4)
    assert impl.cohen_kappa(torch.tensor([0, 1, 0, 1]), torch.tensor([1, 0, 1, 0])) == -1.0
    assert type(impl.cohen_kappa(a, b)) is float


@both
def test_kappa_of_one_label_is_full_agreement_and_of_two_single_labels_none(impl):
    assert impl.cohen_kappa(["good"] * 5, ["good"] * 5) == 1.0
    assert impl.cohen_kappa(["good"] * 5, ["bad"] * 5) == 0.0
    assert impl.cohen_kappa(["good"] * 5, ["good"] * 4 + ["bad"]) == 0.0  # 4/5 agree, and 4/5 would by chance
    assert impl.cohen_kappa([0.1] * 3, [0.1] * 3) == 1.0


@both
@pytest.mark.parametrize("a, b", [([], []), ([1, 0], [1])])
def test_kappa_refuses_labels_of_different_items(impl, a, b):
    with pytest.raises(ValueError, match=f"{len(a)} and {len(b)}"):
        impl.cohen_kappa(a, b)


def test_the_stubs_worked_numbers_are_right():
    assert reference.top_per_prompt(torch.tensor([[0.7, 0.9, 0.9], [0.4, 0.1, 0.2]]), 2).tolist() == [[1, 2], [0, 2]]
    assert reference.top_k_overall(torch.tensor([[0.7, 0.9, 0.9], [0.4, 0.1, 0.8]]), 3).tolist() == [
        [0, 1],
        [0, 2],
        [1, 2],
    ]
    assert f"{reference.best_of_n_kl(4):.6f}" in stub.best_of_n_kl.__doc__
    assert f"{reference.expected_max_reward(doubles(1, 2, 4), 2):.6f}" in stub.expected_max_reward.__doc__
    fitted = reference.fit_bradley_terry(doubles([0, 3, 2], [1, 0, 3], [1, 2, 0])).tolist()
    assert f"[{', '.join(f'{s:.6f}' for s in fitted)}]" in stub.fit_bradley_terry.__doc__
    assert reference.cohen_kappa([1, 1, 0, 1], [1, 0, 0, 1]) == 0.5
