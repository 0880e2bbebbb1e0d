"""Grader of week 10. One test is one claim about one function; `pytest weeks/10` runs them on your file.

`compare` calls your function and the reference on the same inputs. Selections are compared as indices, exactly, and
strengths to 1e-4 of the maximum of the likelihood, however it was found.
"""

import torch
from hypothesis import given, settings

from graders import check, compare, raises, returns, robust
from graders import strategies as st

HALF = "rewards.float() before the first product: weights with 3 digits do not even sum to 1"
FEW = settings(max_examples=5)

# --- top_per_prompt ---------------------------------------------------------------------------------------------------

TABLE = dict(rewards="P N reward")
WIDE = dict(rewards="P N reward", sizes={"P": (2, 3, 5), "N": (5, 7, 31)})
PICK = st.integers(0, 12)


@check("top_per_prompt", "the k best samples of every prompt, best first, as an integer tensor (P, k)")
@given(x=st.tensors(**TABLE), pick=PICK)
def test_per_prompt_takes_the_best_of_each_row(x, pick):
    compare("top_per_prompt", x.rewards, 1 + pick % x.sizes.N)


@check("top_per_prompt", "k is 1 unless given, and the result is (P, 1) then")
@given(x=st.tensors(**TABLE, least={"N": 3}))
def test_per_prompt_default(x):
    compare("top_per_prompt", x.rewards)


@check("top_per_prompt", "equal rewards: the lower index first")
@given(x=st.tensors(right="P N binary", sizes={"P": (2, 3, 5), "N": (7, 17, 31)}), pick=PICK)
def test_per_prompt_ties(x, pick):
    compare("top_per_prompt", x.right, 1 + pick % x.sizes.N)
    compare("top_per_prompt", x.right, 1)


@check("top_per_prompt", "every prompt keeps its k, also where one prompt has all the best samples")
@given(x=st.tensors(**WIDE), pick=PICK)
def test_per_prompt_keeps_every_prompt(x, pick):
    ahead = 10 * (torch.arange(x.sizes.P) == pick % x.sizes.P)[:, None]
    compare("top_per_prompt", x.rewards + ahead, 2)


@check("top_per_prompt", "k = N: the whole row, sorted")
@given(x=st.tensors(**TABLE, least={"N": 2}))
def test_per_prompt_takes_all(x):
    compare("top_per_prompt", x.rewards, k=x.sizes.N)


@check("top_per_prompt", "k outside 1..N is a ValueError that names it")
@FEW
@given(x=st.tensors(**TABLE, sizes={"P": (11,)}))
def test_per_prompt_refuses_k(x):
    for k in (0, -1, x.sizes.N + 1):
        raises("top_per_prompt", ValueError, x.rewards, k, match=rf"\bk\b|{k}")


@check("top_per_prompt", "the worked indices of the docstring")
def test_per_prompt_worked_numbers():
    returns("top_per_prompt", torch.tensor([[1, 2], [0, 2]]), torch.tensor([[0.7, 0.9, 0.9], [0.4, 0.1, 0.2]]), 2)


@robust("top_per_prompt", "rewards of -inf (a sample that failed) come last", remedy="sort; do not mask with -inf or 0")
@given(x=st.tensors(**WIDE, failed="P N bool"))
def test_per_prompt_with_failed_samples(x):
    compare("top_per_prompt", torch.where(x.failed, -torch.inf, x.rewards), x.sizes.N)


# --- top_k_overall ----------------------------------------------------------------------------------------------------


@check("top_k_overall", "the k best (prompt, sample) pairs of the whole table, best first, as an integer tensor (k, 2)")
@given(x=st.tensors(**TABLE), pick=st.integers(0, 30))
def test_overall_takes_the_best_of_the_table(x, pick):
    compare("top_k_overall", x.rewards, 1 + pick % x.rewards.numel())


@check("top_k_overall", "more samples than prompts, and more prompts than samples: which is which does not get lost")
@given(x=st.tensors(**TABLE, sizes={"P": (3, 11), "N": (5, 7)}), pick=st.integers(0, 30))
def test_overall_of_oblong_tables(x, pick):
    compare("top_k_overall", x.rewards, 3 + pick % 9)


@check("top_k_overall", "equal rewards: the lower prompt first, then the lower sample")
@given(x=st.tensors(right="P N binary", sizes={"P": (2, 3, 5), "N": (7, 17, 31)}), pick=PICK)
def test_overall_ties(x, pick):
    compare("top_k_overall", x.right, 1 + pick)


@check("top_k_overall", "a prompt that has all the best samples is chosen k times, others never")
@given(x=st.tensors(**WIDE), pick=PICK)
def test_overall_may_take_one_prompt_only(x, pick):
    ahead = 10 * (torch.arange(x.sizes.P) == pick % x.sizes.P)[:, None]
    compare("top_k_overall", x.rewards + ahead, k=4)


@check("top_k_overall", "k outside 1..P*N is a ValueError that names it")
@FEW
@given(x=st.tensors(**TABLE))
def test_overall_refuses_k(x):
    for k in (0, -1, x.rewards.numel() + 1):
        raises("top_k_overall", ValueError, x.rewards, k, match=rf"\bk\b|{k}")


@check("top_k_overall", "the worked pairs of the docstring")
def test_overall_worked_numbers():
    rewards = torch.tensor([[0.7, 0.9, 0.9], [0.4, 0.1, 0.8]])
    returns("top_k_overall", torch.tensor([[0, 1], [0, 2], [1, 2]]), rewards, 3)


@robust("top_k_overall", "rewards of -inf (a sample that failed) come last", remedy="sort; do not mask with -inf or 0")
@given(x=st.tensors(**WIDE, failed="P N bool"))
def test_overall_with_failed_samples(x):
    compare("top_k_overall", torch.where(x.failed, -torch.inf, x.rewards), x.rewards.numel())


# --- best_of_n_kl -----------------------------------------------------------------------------------------------------


@check("best_of_n_kl", "log n - (n - 1)/n, the natural logarithm, a Python float")
@given(n=st.sampled_from([2, 3, 7, 16, 101, 65_536]))
def test_kl_of_best_of_n(n):
    compare("best_of_n_kl", n, tolerance=1e-6)


@check("best_of_n_kl", "n = 1 is the policy itself: 0.0", floor=False)
def test_kl_of_best_of_one():
    returns("best_of_n_kl", 0.0, 1)


@check("best_of_n_kl", "the worked number of the docstring: 0.636294")
def test_kl_worked_number():
    returns("best_of_n_kl", 0.636294, 4, tolerance=1e-5)


@check("best_of_n_kl", "n < 1 is a ValueError that names it")
def test_kl_refuses_n():
    for n in (0, -3):
        raises("best_of_n_kl", ValueError, n, match=rf"\bn\b|{n}")


@robust("best_of_n_kl", "right for astronomically large n", remedy="math.log takes ints of any size; divide in Python")
def test_kl_of_huge_n():
    compare("best_of_n_kl", 10**15, tolerance=1e-9)
    compare("best_of_n_kl", 2**62 - 57, tolerance=1e-9)


# --- expected_max_reward ----------------------------------------------------------------------------------------------

NEAR = 1e-6  # weights that pass through the default dtype are off by some 1e-7
REWARDS = dict(rewards="N reward")


@check("expected_max_reward", "the mean over all draws of n of the N samples of the best of each draw")
@given(x=st.tensors(**REWARDS, least={"N": 2}), pick=PICK)
def test_max_is_averaged_over_draws(x, pick):
    compare("expected_max_reward", x.rewards, 1 + pick % x.sizes.N, tolerance=3 * NEAR)


@check("expected_max_reward", "without replacement: n = N draws every sample, and the best of them is certain")
@given(x=st.tensors(**REWARDS))
def test_max_of_all_is_the_maximum(x):
    compare("expected_max_reward", x.rewards, x.sizes.N, tolerance=3 * NEAR)


@check("expected_max_reward", "n = 1 is the mean")
@given(x=st.tensors(**REWARDS))
def test_max_of_one_is_the_mean(x):
    compare("expected_max_reward", x.rewards, 1, tolerance=3 * NEAR)


@check("expected_max_reward", "negative rewards count like any others")
@given(x=st.tensors(rewards="N positive", least={"N": 3}))
def test_max_of_negative_rewards(x):
    compare("expected_max_reward", -x.rewards, 2, tolerance=3 * NEAR)


@check("expected_max_reward", "right for 10000 samples, where binomial coefficients exceed any float")
def test_max_of_many_samples():
    rewards = torch.randn(10_000, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    for n in (200, 9_000, 2):
        compare("expected_max_reward", rewards + 1, n, tolerance=1e-4)


@check("expected_max_reward", "n outside 1..N is a ValueError that names it")
@FEW
@given(x=st.tensors(**REWARDS))
def test_max_refuses_n(x):
    for n in (0, -2, x.sizes.N + 1):
        raises("expected_max_reward", ValueError, x.rewards, n, match=rf"\bn\b|{n}")


@check("expected_max_reward", "the worked number of the docstring: 10/3")
def test_max_worked_number():
    returns("expected_max_reward", torch.tensor(10 / 3), torch.tensor([1.0, 2.0, 4.0]), 2)


@robust("expected_max_reward", "half-precision rewards are weighted and summed in float32", remedy=HALF)
@given(x=st.tensors(rewards="N normal", dtypes=st.HALF, sizes={"N": (211,)}), n=st.sampled_from([2, 3, 7]))
def test_max_of_half_precision(x, n):
    compare("expected_max_reward", x.rewards, n, tolerance=1e-3)


# --- fit_bradley_terry ------------------------------------------------------------------------------------------------
# The contract is 1e-4 of a strength. Tables are moderate and their largest strengths of order 1.

FITTED = 3e-4
COUNTS = dict(counts="M M positive", sizes={"M": (2, 3, 5, 7)})


def planted(strengths, games):
    """The wins to be expected between items of these strengths: their maximum is the strengths themselves."""
    s = torch.tensor(strengths)
    return games * torch.sigmoid(s[:, None] - s[None, :]).fill_diagonal_(0)


@check("fit_bradley_terry", "strengths planted in a table of expected wins come back, with mean 0")
@settings(max_examples=8)
@given(
    gaps=st.lists(st.sampled_from([0.9, -1.2, 0.4, 1.4, -0.7]), min_size=1, max_size=5),
    games=st.sampled_from([10.0, 2.0, 37.0]),
)
def test_fit_finds_planted_strengths(gaps, games):
    compare("fit_bradley_terry", planted([0.3, *gaps], games).double(), tolerance=FITTED)


@check("fit_bradley_terry", "the maximum of the likelihood of a noisy table, counts of floating or integer dtype")
@settings(max_examples=8)
@given(x=st.tensors(**COUNTS), integers=st.booleans())
def test_fit_of_noisy_counts(x, integers):
    counts = (10 * x.counts).round().fill_diagonal_(0)
    counts[0, 1] += 20
    compare("fit_bradley_terry", counts.long() if integers else counts, tolerance=FITTED)


@check("fit_bradley_terry", "pairs that played more often count more: not the mean of the win rates")
def test_fit_of_unequal_numbers_of_games():
    wins = torch.tensor([[0.0, 90.0, 1.0, 2.0], [30.0, 0.0, 5.0, 1.0], [2.0, 1.0, 0.0, 40.0], [1.0, 3.0, 10.0, 0.0]])
    compare("fit_bradley_terry", wins, tolerance=FITTED)
    compare("fit_bradley_terry", wins.T.double(), tolerance=FITTED)


@check("fit_bradley_terry", "pairs that never met do no harm as long as chains of wins connect all items")
def test_fit_of_a_ring():
    wins = torch.zeros(5, 5, dtype=torch.float64)
    for i, won in enumerate([4.0, 1.0, 2.0, 5.0, 3.0]):
        wins[i, (i + 1) % 5] = won
    compare("fit_bradley_terry", wins, tolerance=FITTED)
    path = torch.diag(torch.tensor([3.0, 1.0, 2.0]), 1) + torch.diag(torch.tensor([1.0, 2.0, 1.0]), -1)
    compare("fit_bradley_terry", path, tolerance=FITTED)


@check("fit_bradley_terry", "the diagonal is ignored, and left as it was")
@settings(max_examples=6)
@given(x=st.tensors(**COUNTS))
def test_fit_ignores_the_diagonal(x):
    counts = (10 * x.counts).round().fill_diagonal_(50)
    counts[1, 0] += 20
    compare("fit_bradley_terry", counts, tolerance=FITTED)


NEVER_LOST = [[0, 2, 1], [0, 0, 3], [0, 1, 0]]
NEVER_WON = [[0, 2, 1], [3, 0, 2], [0, 0, 0]]
APART = [[0, 2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 3], [0, 0, 2, 0]]
ONE_WAY = [[0, 2, 1, 0], [1, 0, 0, 4], [0, 0, 0, 3], [0, 0, 2, 0]]
WHY = r"(?i)connect|reach|chain|path|los|lost|beat|win|won|infin|diverg|unbound|maxim"


@check("fit_bradley_terry", "ValueError that says why when the win graph is not strongly connected")
def test_fit_refuses_disconnected_tables():
    for wins in (NEVER_LOST, NEVER_WON, APART, ONE_WAY):
        raises("fit_bradley_terry", ValueError, torch.tensor(wins, dtype=torch.float32), match=WHY)
        raises("fit_bradley_terry", ValueError, torch.tensor(wins) + 5 * torch.eye(len(wins)).long(), match=WHY)


@check("fit_bradley_terry", "the worked numbers of the docstring")
def test_fit_worked_numbers():
    wins = torch.tensor([[0.0, 3.0, 2.0], [1.0, 0.0, 3.0], [1.0, 2.0, 0.0]])
    returns("fit_bradley_terry", torch.tensor([0.623317, -0.199467, -0.423850]), wins, tolerance=FITTED)


@robust(
    "fit_bradley_terry",
    "very uneven tables: one win in hundreds, very many games",
    remedy="iterate in float64 until nothing moves; scale no step by the number of games",
)
def test_fit_of_uneven_tables():
    compare(
        "fit_bradley_terry", torch.tensor([[0.0, 700.0, 300.0], [1.0, 0.0, 20.0], [1.0, 30.0, 0.0]]), tolerance=1e-4
    )
    compare("fit_bradley_terry", planted([2.0, -1.0, 0.5, -1.5], 1e6).double(), tolerance=1e-4)


# --- preference_cycles ------------------------------------------------------------------------------------------------

WINS = dict(wins="M M ids", sizes={"M": (3, 5, 7)})


@check("preference_cycles", "every 3-cycle of strict majorities, once, smallest index first, in ascending order")
@given(x=st.tensors(**WINS))
def test_cycles_of_random_tables(x):
    compare("preference_cycles", x.wins)


@check("preference_cycles", "both ways round: (i, j, k) and (i, k, j) are different cycles")
@given(x=st.tensors(**WINS))
def test_cycles_of_the_table_turned_round(x):
    compare("preference_cycles", x.wins.T.contiguous())
    compare("preference_cycles", torch.tensor([[0, 1, 2], [2, 0, 1], [1, 2, 0]]))


@check("preference_cycles", "a tie is no majority, and pairs that never met are tied")
@given(x=st.tensors(**WINS))
def test_cycles_with_ties(x):
    compare("preference_cycles", x.wins % 3)


@check("preference_cycles", "counts of floating dtype, with a filled diagonal")
@given(x=st.tensors(wins="M M positive", sizes={"M": (5, 7, 11)}))
def test_cycles_of_floating_counts(x):
    compare("preference_cycles", x.wins)


@check("preference_cycles", "a ranking has no cycle: an empty list", floor=False)
@given(x=st.tensors(s="M normal", sizes={"M": (1, 2, 5)}))
def test_cycles_of_a_ranking(x):
    compare("preference_cycles", x.s[:, None] - x.s[None, :])


@check("preference_cycles", "the worked cycle of the docstring, and the other way round")
def test_cycles_worked_numbers():
    wins = torch.tensor([[0, 2, 1], [1, 0, 2], [2, 1, 0]])
    returns("preference_cycles", [(0, 1, 2)], wins)
    returns("preference_cycles", [(0, 2, 1)], wins.T.contiguous())


@robust("preference_cycles", "unsigned counts do not wrap around", remedy="compare the counts; do not subtract them")
@given(x=st.tensors(**WINS))
def test_cycles_of_unsigned_counts(x):
    compare("preference_cycles", x.wins.to(torch.uint8))


# --- cohen_kappa ------------------------------------------------------------------------------------------------------


def labels_of(*labels, most=14):
    """Two annotators' labels of the same items, as pairs; they agree more often than not."""
    agreed = [(label, label) for label in labels]
    mixed = [(x, y) for x in labels for y in labels]
    return st.lists(st.sampled_from(agreed + mixed), min_size=1, max_size=most)


def both(pairs):
    return [x for x, _ in pairs], [y for _, y in pairs]


@check("cohen_kappa", "(p_o - p_e) / (1 - p_e) of two lists of labels, numbers or strings")
@given(numbers=labels_of(0, 1, 4), texts=labels_of("good", "bad", "same"))
def test_kappa_of_lists(numbers, texts):
    compare("cohen_kappa", *both(numbers), tolerance=1e-6)
    compare("cohen_kappa", *both(texts), tolerance=1e-6)


@check("cohen_kappa", "labels may come as tensors")
@given(pairs=labels_of(0, 1, 3))
def test_kappa_of_tensors(pairs):
    compare("cohen_kappa", *[torch.tensor(x) for x in both(pairs)], tolerance=1e-6)


@check("cohen_kappa", "chance is what each annotator's own label frequencies give: they may differ a lot")
@given(pairs=st.lists(st.sampled_from([(0, 1), (2, 1), (1, 1), (0, 0), (2, 2)]), min_size=3, max_size=14))
def test_kappa_of_annotators_with_different_habits(pairs):
    compare("cohen_kappa", *both(pairs), tolerance=1e-6)


@check("cohen_kappa", "negative when they agree less often than by chance")
@given(pairs=st.lists(st.sampled_from([("a", "b"), ("b", "a"), ("b", "c")]), min_size=3, max_size=9))
def test_kappa_below_chance(pairs):
    compare("cohen_kappa", *both([*pairs, ("b", "a"), ("a", "b")]), tolerance=1e-6)


@check("cohen_kappa", "1.0 when both always give the same one label", floor=False)
def test_kappa_of_one_label():
    returns("cohen_kappa", 1.0, ["good"] * 3, ["good"] * 3)
    returns("cohen_kappa", 1.0, torch.tensor([2]), torch.tensor([2]))


@check("cohen_kappa", "0.0 when each has one label of their own", floor=False)
def test_kappa_of_two_single_labels():
    returns("cohen_kappa", 0.0, [1, 1, 1], [0, 0, 0])


@check("cohen_kappa", "different lengths and no labels at all are a ValueError")
def test_kappa_refuses_other_lengths():
    raises("cohen_kappa", ValueError, [1, 0, 1], [1, 0])
    raises("cohen_kappa", ValueError, torch.tensor([1]), torch.tensor([1, 0]))
    raises("cohen_kappa", ValueError, [], [])


@check("cohen_kappa", "the worked number of the docstring: 0.5")
def test_kappa_worked_number():
    returns("cohen_kappa", 0.5, [1, 1, 0, 1], [1, 0, 0, 1], tolerance=1e-6)


@robust("cohen_kappa", "thousands of items and many labels", remedy="count each label once, collections.Counter")
def test_kappa_of_many_items():
    generator = torch.Generator().manual_seed(3)
    a = torch.randint(97, (4000,), generator=generator)
    b = torch.where(torch.rand(4000, generator=generator) < 0.6, a, torch.randint(97, (4000,), generator=generator))
    compare("cohen_kappa", a, b, tolerance=1e-6)
