"""Week 10, wrong: what learners' selections, best-of-n numbers and preference fits compute instead."""

import math
from itertools import permutations

import torch

from graders.misconceptions import wrong


def _check(k, largest, name="k"):
    if not 1 <= k <= largest:
        raise ValueError(f"{name}={k}: not in 1..{largest}")


def _check_n(n):
    if n < 1:
        raise ValueError(f"n={n}: must be at least 1")


def _decoded(rewards, k, divisor=None):
    """The k best of the table as (flat // divisor, flat % divisor)."""
    _check(k, rewards.numel())
    divisor = rewards.shape[1] if divisor is None else divisor
    flat = rewards.reshape(-1).argsort(descending=True, stable=True)[:k]
    return torch.stack([flat // divisor, flat % divisor], dim=1)


def _expected_max(rewards, n):
    _check(n, len(rewards), "n")
    value, weight, big = 0.0, n / len(rewards), len(rewards)
    for j, reward in enumerate(rewards.sort(descending=True).values.tolist()):
        value += weight * reward
        weight *= max(big - n - j, 0) / max(big - 1 - j, 1)
    return torch.tensor(value, dtype=rewards.dtype)


def _reach_or_raise(w):
    reach = (w > 0) | torch.eye(len(w), dtype=torch.bool)
    for m in range(len(w)):
        reach = reach | (reach[:, m, None] & reach[m, None, :])
    if not reach.all():
        raise ValueError("the win graph is not strongly connected")


def _games(wins, check=True):
    w = wins.double().clone().fill_diagonal_(0)
    if check:
        _reach_or_raise(w)
    return w


def _centred(s, wins):
    return (s - s.mean()).to(wins.dtype if wins.is_floating_point() else torch.get_default_dtype())


def _fit(wins, rounds=200, diagonal=False, table=None):
    """Zermelo's iteration."""
    w = _games(wins) if table is None else table
    won = wins.double().sum(1) if diagonal else w.sum(1)
    e, games = torch.ones(len(w), dtype=torch.float64), w + w.T
    for _ in range(rounds):
        e = won / (games / (e[:, None] + e)).sum(1)
        e = (e.log() - e.log().mean()).exp()
    return _centred(e.log(), wins)


def _cycles(wins, ties=False):
    w = wins.tolist()

    def beats(i, j):
        return w[i][j] >= w[j][i] if ties else w[i][j] > w[j][i]

    return [
        t
        for t in permutations(range(len(w)), 3)
        if t[0] == min(t) and beats(t[0], t[1]) and beats(t[1], t[2]) and beats(t[2], t[0])
    ]


def _lists(a, b):
    a, b = (x.tolist() if isinstance(x, torch.Tensor) else list(x) for x in (a, b))
    if len(a) != len(b) or not a:
        raise ValueError("two equally long lists of labels are needed")
    return a, b


def _observed(a, b):
    return sum(x == y for x, y in zip(a, b, strict=True)) / len(a)


def _chance(a, b):
    return sum(a.count(label) * b.count(label) for label in set(a)) / (len(a) * len(b))


def _kappa(observed, chance):
    return 1.0 if chance == 1 else (observed - chance) / (1 - chance)


# --- top_per_prompt ---------------------------------------------------------------------------------------------------

PER_PROMPT = "The best of each prompt"


@wrong(
    "top_per_prompt",
    "worst first",
    computed="the k lowest rewards",
    why="best means highest",
    effect="fine-tuning on the worst samples",
    lesson=PER_PROMPT,
)
def per_prompt_worst_first(rewards, k=1):
    _check(k, rewards.shape[1])
    return rewards.argsort(dim=1, stable=True)[:, :k]


@wrong(
    "top_per_prompt",
    "best last",
    computed="the right samples in ascending order",
    why="best first",
    effect="whoever takes the first of k takes the worst of them",
    lesson=PER_PROMPT,
)
def per_prompt_best_last(rewards, k=1):
    _check(k, rewards.shape[1])
    return rewards.argsort(dim=1, descending=True, stable=True)[:, :k].flip(1)


@wrong(
    "top_per_prompt",
    "ties to the higher index",
    computed="equal rewards in reverse order",
    why="ties go to the lower index",
    effect="selections change with the way the samples were numbered",
    lesson=PER_PROMPT,
)
def per_prompt_ties_to_the_higher_index(rewards, k=1):
    _check(k, rewards.shape[1])
    n = rewards.shape[1]
    return (n - 1) - rewards.flip(1).argsort(dim=1, descending=True, stable=True)[:, :k]


@wrong(
    "top_per_prompt",
    "flip of an ascending sort",
    computed="an ascending stable sort, turned round",
    why="turning it round turns the ties round too",
    effect="ties go to the higher index",
    lesson=PER_PROMPT,
)
def per_prompt_flip_of_an_ascending_sort(rewards, k=1):
    _check(k, rewards.shape[1])
    return rewards.argsort(dim=1, stable=True).flip(1)[:, :k]


@wrong(
    "top_per_prompt",
    "values for indices",
    computed="the rewards themselves",
    why="the function selects samples: it returns indices",
    effect="a reward of 1.0 is read as sample 1",
    lesson=PER_PROMPT,
)
def per_prompt_values_for_indices(rewards, k=1):
    _check(k, rewards.shape[1])
    return rewards.sort(dim=1, descending=True).values[:, :k]


@wrong(
    "top_per_prompt",
    "wrong axis",
    computed="the best prompts of each sample number",
    why="a row is a prompt: sort along dim 1",
    effect="completions are paired with other prompts",
    lesson=PER_PROMPT,
)
def per_prompt_wrong_axis(rewards, k=1):
    _check(k, rewards.shape[1])
    return rewards.argsort(dim=0, descending=True, stable=True)[:k].T.contiguous()


@wrong(
    "top_per_prompt",
    "dimension dropped",
    computed="(P,) for k = 1",
    why="the result is (P, k) for every k",
    effect="callers that loop over columns fail",
    lesson=PER_PROMPT,
)
def per_prompt_dimension_dropped(rewards, k=1):
    _check(k, rewards.shape[1])
    return rewards.argsort(dim=1, descending=True, stable=True)[:, :k].squeeze(1)


@wrong(
    "top_per_prompt",
    "best k of the whole table",
    computed="flat indices of the k * P best",
    why="every prompt keeps its own k best",
    effect="easy prompts crowd the others out",
    lesson=PER_PROMPT,
)
def per_prompt_best_k_of_the_whole_table(rewards, k=1):
    _check(k, rewards.shape[1])
    return rewards.reshape(-1).argsort(descending=True, stable=True)[: k * len(rewards)].reshape(-1, k)


@wrong(
    "top_per_prompt",
    "flat indices",
    computed="positions in the whole table",
    why="indices count within the row",
    effect="out of range for every prompt but the first",
    lesson=PER_PROMPT,
)
def per_prompt_flat_indices(rewards, k=1):
    _check(k, rewards.shape[1])
    start = torch.arange(len(rewards))[:, None] * rewards.shape[1]
    return start + rewards.argsort(dim=1, descending=True, stable=True)[:, :k]


@wrong(
    "top_per_prompt",
    "rank for index",
    computed="how high each of the first k samples ranks",
    why="the sort's order is asked for, not the inverse of it",
    effect="arbitrary samples are selected",
    lesson=PER_PROMPT,
)
def per_prompt_rank_for_index(rewards, k=1):
    _check(k, rewards.shape[1])
    return rewards.argsort(dim=1, descending=True, stable=True).argsort(dim=1)[:, :k]


@wrong(
    "top_per_prompt",
    "indices sorted",
    computed="the right samples in ascending order of index",
    why="best first",
    effect="the first of the k is not the best",
    lesson=PER_PROMPT,
)
def per_prompt_indices_sorted(rewards, k=1):
    _check(k, rewards.shape[1])
    return rewards.argsort(dim=1, descending=True, stable=True)[:, :k].sort(dim=1).values


@wrong(
    "top_per_prompt",
    "k cut to N",
    computed="no error for k > N",
    why="k out of range is a ValueError",
    effect="fewer samples than asked for, unnoticed",
    lesson=PER_PROMPT,
)
def per_prompt_k_cut_to_n(rewards, k=1):
    return rewards.argsort(dim=1, descending=True, stable=True)[:, : max(1, min(k, rewards.shape[1]))]


@wrong(
    "top_per_prompt",
    "k = 0 allowed",
    computed="an empty selection for k = 0",
    why="k out of range is a ValueError",
    effect="fine-tuning on nothing",
    lesson=PER_PROMPT,
)
def per_prompt_k___0_allowed(rewards, k=1):
    if k > rewards.shape[1]:
        raise ValueError(f"k={k}")
    return rewards.argsort(dim=1, descending=True, stable=True)[:, : max(k, 0)]


@wrong(
    "top_per_prompt",
    "always one",
    computed="the best sample, whatever k says",
    why="k is an argument",
    effect="the option has no effect",
    lesson=PER_PROMPT,
)
def per_prompt_always_one(rewards, k=1):
    _check(k, rewards.shape[1])
    return rewards.argsort(dim=1, descending=True, stable=True)[:, :1]


# --- top_k_overall ----------------------------------------------------------------------------------------------------

OVERALL = "The best of all"


@wrong(
    "top_k_overall",
    "decoded by P",
    computed="prompt = flat // P",
    why="a row of the table is N long",
    effect="answers are paired with other prompts",
    lesson=OVERALL,
)
def overall_decoded_by_p(rewards, k):
    return _decoded(rewards, k, divisor=len(rewards))


@wrong(
    "top_k_overall",
    "sample and prompt swapped",
    computed="(sample, prompt)",
    why="prompt first",
    effect="answers are paired with other prompts",
    lesson=OVERALL,
)
def overall_sample_and_prompt_swapped(rewards, k):
    return _decoded(rewards, k).flip(1)


@wrong(
    "top_k_overall",
    "flat indices",
    computed="positions in the long row, (k,)",
    why="the result names prompt and sample",
    effect="callers cannot tell which prompt was meant",
    lesson=OVERALL,
)
def overall_flat_indices(rewards, k):
    _check(k, rewards.numel())
    return rewards.reshape(-1).argsort(descending=True, stable=True)[:k]


@wrong(
    "top_k_overall",
    "worst first",
    computed="the k lowest rewards of the table",
    why="best means highest",
    effect="fine-tuning on the worst samples",
    lesson=OVERALL,
)
def overall_worst_first(rewards, k):
    return _decoded(-rewards, k)


@wrong(
    "top_k_overall",
    "best last",
    computed="the right pairs in ascending order",
    why="best first",
    effect="whoever cuts the list keeps the worst",
    lesson=OVERALL,
)
def overall_best_last(rewards, k):
    return _decoded(rewards, k).flip(0)


@wrong(
    "top_k_overall",
    "ties to the higher pair",
    computed="equal rewards in reverse order",
    why="ties go to the lower prompt, then sample",
    effect="late prompts are preferred",
    lesson=OVERALL,
)
def overall_ties_to_the_higher_pair(rewards, k):
    _check(k, rewards.numel())
    flat = rewards.reshape(-1).argsort(stable=True).flip(0)[:k]
    return torch.stack([flat // rewards.shape[1], flat % rewards.shape[1]], dim=1)


@wrong(
    "top_k_overall",
    "ties by sample first",
    computed="the table read column by column",
    why="ties go to the lower prompt first",
    effect="the first samples of all prompts come before the second ones",
    lesson=OVERALL,
)
def overall_ties_by_sample_first(rewards, k):
    _check(k, rewards.numel())
    flat = rewards.T.reshape(-1).argsort(descending=True, stable=True)[:k]
    return torch.stack([flat % len(rewards), flat // len(rewards)], dim=1)


@wrong(
    "top_k_overall",
    "one of each prompt",
    computed="the best k among the prompts' best samples",
    why="a prompt may be chosen often",
    effect="fewer good samples than the table has",
    lesson=OVERALL,
)
def overall_one_of_each_prompt(rewards, k):
    _check(k, rewards.numel())
    best = rewards.argmax(dim=1)
    order = rewards.max(dim=1).values.argsort(descending=True, stable=True)[:k]
    return torch.stack([order, best[order]], dim=1)


@wrong(
    "top_k_overall",
    "k of each prompt",
    computed="the k best of every prompt, all of them",
    why="k pairs are asked for in total",
    effect="P times as many samples as planned",
    lesson=OVERALL,
)
def overall_k_of_each_prompt(rewards, k):
    _check(k, rewards.numel())
    k = min(k, rewards.shape[1])
    order = rewards.argsort(dim=1, descending=True, stable=True)[:, :k]
    prompt = torch.arange(len(rewards))[:, None].expand_as(order)
    return torch.stack([prompt.reshape(-1), order.reshape(-1)], dim=1)


@wrong(
    "top_k_overall",
    "transposed result",
    computed="(2, k)",
    why="one row a pair: (k, 2)",
    effect="a loop over pairs reads two long rows",
    lesson=OVERALL,
)
def overall_transposed_result(rewards, k):
    return _decoded(rewards, k).T.contiguous()


@wrong(
    "top_k_overall",
    "sorted by prompt",
    computed="the right pairs in the order of the table",
    why="best first",
    effect="whoever cuts the list keeps the first prompts",
    lesson=OVERALL,
)
def overall_sorted_by_prompt(rewards, k):
    return torch.tensor(sorted(_decoded(rewards, k).tolist()))


@wrong(
    "top_k_overall",
    "divmod shifted",
    computed="indices that start at 1",
    why="indices start at 0",
    effect="every selection is one off",
    lesson=OVERALL,
)
def overall_divmod_shifted(rewards, k):
    return _decoded(rewards, k) + 1


@wrong(
    "top_k_overall",
    "k cut to P N",
    computed="no error for k > P N",
    why="k out of range is a ValueError",
    effect="fewer samples than asked for, unnoticed",
    lesson=OVERALL,
)
def overall_k_cut_to_p_n(rewards, k):
    return _decoded(rewards, max(1, min(k, rewards.numel())))


@wrong(
    "top_k_overall",
    "k limited by N",
    computed="ValueError for k > N",
    why="k may be as large as the whole table",
    effect="legitimate selections are refused",
    lesson=OVERALL,
)
def overall_k_limited_by_n(rewards, k):
    if k > rewards.shape[1]:
        k = rewards.shape[1]
    return _decoded(rewards, k)


@wrong(
    "top_k_overall",
    "swapped and decoded by P",
    computed="(flat % P, flat // P)",
    why="a row of the table is N long, prompt first",
    effect="pairs from the transposed table",
    lesson=OVERALL,
)
def overall_swapped_and_decoded_by_p(rewards, k):
    return _decoded(rewards, k, divisor=len(rewards)).flip(1)


# --- best_of_n_kl -----------------------------------------------------------------------------------------------------

COST = "What best-of-n costs"


@wrong(
    "best_of_n_kl",
    "log n alone",
    computed="log n and nothing else",
    why="(n - 1)/n is subtracted: log n is an upper bound",
    effect="curves against KL start too far right",
    lesson=COST,
)
def best_log_n_alone(n):
    _check_n(n)
    return math.log(n)


@wrong(
    "best_of_n_kl",
    "second term added",
    computed="log n + (n - 1)/n",
    why="it is subtracted",
    effect="a KL twice too large for small n",
    lesson=COST,
)
def best_second_term_added(n):
    _check_n(n)
    return math.log(n) + (n - 1) / n


@wrong(
    "best_of_n_kl",
    "binary logarithm",
    computed="log2 n - (n - 1)/n",
    why="nats: the natural logarithm",
    effect="not comparable with the KL of a training run",
    lesson=COST,
)
def best_binary_logarithm(n):
    _check_n(n)
    return math.log2(n) - (n - 1) / n


@wrong(
    "best_of_n_kl",
    "decimal logarithm",
    computed="log10 n - (n - 1)/n",
    why="nats: the natural logarithm",
    effect="negative for small n",
    lesson=COST,
)
def best_decimal_logarithm(n):
    _check_n(n)
    return math.log10(n) - (n - 1) / n


@wrong(
    "best_of_n_kl",
    "1/n subtracted",
    computed="log n - 1/n",
    why="the second term is (n - 1)/n, near 1 for large n",
    effect="n = 1 has a KL of -1",
    lesson=COST,
)
def best_1_n_subtracted(n):
    _check_n(n)
    return math.log(n) - 1 / n


@wrong(
    "best_of_n_kl",
    "n/(n-1) turned round",
    computed="log n - (n - 1)/(n + 1)",
    why="the denominator is n",
    effect="too large by up to a third",
    lesson=COST,
)
def best_n__n_1__turned_round(n):
    _check_n(n)
    return math.log(n) - (n - 1) / (n + 1)


@wrong(
    "best_of_n_kl",
    "1 subtracted",
    computed="log n - 1",
    why="(n - 1)/n is 1 in the limit only",
    effect="negative for n = 2",
    lesson=COST,
)
def best_1_subtracted(n):
    _check_n(n)
    return math.log(n) - 1


@wrong(
    "best_of_n_kl",
    "integer division",
    computed="log n - (n - 1)//n",
    why="/ and not //",
    effect="log n, since (n - 1)//n is 0",
    lesson=COST,
)
def best_integer_division(n):
    _check_n(n)
    return math.log(n) - (n - 1) // n


@wrong(
    "best_of_n_kl",
    "sign flipped",
    computed="(n - 1)/n - log n",
    why="a KL is not negative",
    effect="curves run to the left",
    lesson=COST,
)
def best_sign_flipped(n):
    _check_n(n)
    return (n - 1) / n - math.log(n)


@wrong(
    "best_of_n_kl",
    "a tensor",
    computed="a tensor of the right value",
    why="the contract says float",
    effect="json and comparisons with floats fail later",
    lesson=COST,
)
def best_a_tensor(n):
    _check_n(n)
    return torch.tensor(math.log(n) - (n - 1) / n)


@wrong(
    "best_of_n_kl",
    "square root",
    computed="the square root of the KL",
    why="d = sqrt(KL) belongs to over-optimization plots",
    effect="best-of-16 looks like best-of-6",
    lesson=COST,
)
def best_square_root(n):
    _check_n(n)
    return math.sqrt(math.log(n) - (n - 1) / n)


@wrong(
    "best_of_n_kl",
    "n = 0 as 0",
    computed="0.0 for n < 1",
    why="n < 1 is a ValueError",
    effect="a wrong loop goes unnoticed",
    lesson=COST,
)
def best_n___0_as_0(n):
    return math.log(n) - (n - 1) / n if n > 1 else 0.0


@wrong(
    "best_of_n_kl",
    "n of 1 refused",
    computed="ValueError for n = 1",
    why="n = 1 is the policy itself: 0",
    effect="curves lack their first point",
    lesson=COST,
)
def best_n_of_1_refused(n):
    if n <= 0:
        raise ValueError(f"n={n}")
    return math.log(n) - (n - 1) / n if n > 1 else float("nan")


# --- expected_max_reward ----------------------------------------------------------------------------------------------

GAIN = "What best-of-n gains"


@wrong(
    "expected_max_reward",
    "maximum of all",
    computed="the maximum of the N rewards",
    why="only n of the N are drawn",
    effect="best-of-2 looks as good as best-of-N",
    lesson=GAIN,
)
def expected_maximum_of_all(rewards, n):
    _check(n, len(rewards), "n")
    return rewards.max()


@wrong(
    "expected_max_reward",
    "mean of all",
    computed="the mean, whatever n",
    why="the best of each draw counts",
    effect="no gain from sampling at all",
    lesson=GAIN,
)
def expected_mean_of_all(rewards, n):
    _check(n, len(rewards), "n")
    return rewards.mean()


@wrong(
    "expected_max_reward",
    "first n",
    computed="the maximum of the first n",
    why="all draws are averaged",
    effect="a number that depends on the order of the samples",
    lesson=GAIN,
)
def expected_first_n(rewards, n):
    _check(n, len(rewards), "n")
    return rewards[:n].max()


@wrong(
    "expected_max_reward",
    "top n averaged",
    computed="the mean of the n best",
    why="a draw rarely has the n best",
    effect="far too optimistic",
    lesson=GAIN,
)
def expected_top_n_averaged(rewards, n):
    _check(n, len(rewards), "n")
    return rewards.sort(descending=True).values[:n].mean()


@wrong(
    "expected_max_reward",
    "with replacement",
    computed="weights from (j/N)^n",
    why="the draws are without replacement",
    effect="too low, and not the maximum at n = N",
    lesson=GAIN,
)
def expected_with_replacement(rewards, n):
    _check(n, len(rewards), "n")
    edges = (torch.arange(len(rewards) + 1, dtype=torch.float64) / len(rewards)) ** n
    return (edges.diff().to(rewards.dtype) * rewards.sort().values).sum()


@wrong(
    "expected_max_reward",
    "minimum",
    computed="the expected minimum",
    why="best means highest: the order of the weights",
    effect="more samples look worse",
    lesson=GAIN,
)
def expected_minimum(rewards, n):
    return -_expected_max(-rewards, n)


@wrong(
    "expected_max_reward",
    "simulated",
    computed="the mean of 200 random draws",
    why="the expectation is exact",
    effect="noise in every curve, other numbers every time",
    lesson=GAIN,
)
def expected_simulated(rewards, n):
    _check(n, len(rewards), "n")
    g = torch.Generator().manual_seed(0)
    draws = [rewards[torch.randperm(len(rewards), generator=g)[:n]].max() for _ in range(200)]
    return torch.stack(draws).mean()


@wrong(
    "expected_max_reward",
    "n - 1 for n",
    computed="the best of n - 1",
    why="the draw has n samples",
    effect="curves are shifted by one",
    lesson=GAIN,
)
def expected_n___1_for_n(rewards, n):
    _check(n, len(rewards), "n")
    return _expected_max(rewards, max(n - 1, 1))


@wrong(
    "expected_max_reward",
    "weights not normalised",
    computed="binomials C(N-1-j, n-1) without C(N, n)",
    why="weights are chances: they sum to 1",
    effect="values grow with N",
    lesson=GAIN,
)
def expected_weights_not_normalised(rewards, n):
    _check(n, len(rewards), "n")
    return (
        _expected_max(rewards, n) * float(math.comb(len(rewards), n))
        if len(rewards) < 99
        else _expected_max(rewards, n)
    )


@wrong(
    "expected_max_reward",
    "not sorted",
    computed="weights on the rewards in the order given",
    why="weight_j belongs to the j-th best",
    effect="a number that depends on the order of the samples",
    lesson=GAIN,
)
def expected_not_sorted(rewards, n):
    _check(n, len(rewards), "n")
    big = len(rewards)
    w = [n / big]
    for j in range(1, big):
        w.append(w[-1] * max(0, big - n - j + 1) / (big - j))
    return (torch.tensor(w, dtype=rewards.dtype) * rewards).sum()


@wrong(
    "expected_max_reward",
    "blocks of n",
    computed="the mean of the maxima of consecutive blocks",
    why="all draws count, not N/n of them",
    effect="noisy, and the remainder is thrown away",
    lesson=GAIN,
)
def expected_blocks_of_n(rewards, n):
    _check(n, len(rewards), "n")
    return torch.stack([block.max() for block in rewards[: len(rewards) // n * n].split(n)]).mean()


@wrong(
    "expected_max_reward",
    "floating binomials",
    computed="C as a float, inf for many samples",
    why="use ratios of binomials",
    effect="NaN for 10000 samples",
    lesson=GAIN,
)
def expected_floating_binomials(rewards, n):
    _check(n, len(rewards), "n")
    big = len(rewards)

    def choose(m, k):
        j = torch.arange(1, k + 1, dtype=torch.float64)
        return ((m - k + j) / j).prod() if m >= k else torch.tensor(0.0, dtype=torch.float64)

    w = torch.stack([choose(big - 1 - j, n - 1) / choose(big, n) for j in range(min(big, 300))])
    return (w.to(rewards.dtype) * rewards.sort(descending=True).values[:300]).sum()


@wrong(
    "expected_max_reward",
    "negative rewards cut",
    computed="rewards below 0 count as 0",
    why="rewards may have any sign",
    effect="policies with negative rewards look better than they are",
    lesson=GAIN,
)
def expected_negative_rewards_cut(rewards, n):
    return _expected_max(rewards.clamp(min=0), n)


@wrong(
    "expected_max_reward",
    "n out of range cut",
    computed="no error for n > N",
    why="n out of range is a ValueError",
    effect="best-of-64 of 16 samples, unnoticed",
    lesson=GAIN,
)
def expected_n_out_of_range_cut(rewards, n):
    return _expected_max(rewards, max(1, min(n, len(rewards))))


# --- fit_bradley_terry ------------------------------------------------------------------------------------------------

STRENGTHS = "Strengths from wins"


@wrong(
    "fit_bradley_terry",
    "win rates",
    computed="the log-odds of each item's share of wins",
    why="opponents differ in strength",
    effect="items that met weak opponents look strong",
    lesson=STRENGTHS,
)
def fit_win_rates(wins, iterations=10_000, tol=1e-9):
    w = _games(wins)
    share = w.sum(1) / (w + w.T).sum(1)
    return _centred(torch.logit(share), wins)


@wrong(
    "fit_bradley_terry",
    "mean of pairwise log-odds",
    computed="the mean over opponents of log(w_ij / w_ji)",
    why="maximum likelihood weights pairs by their number of games",
    effect="a pair that met once counts like one that met a hundred times",
    lesson=STRENGTHS,
)
def fit_mean_of_pairwise_log_odds(wins, iterations=10_000, tol=1e-9):
    w = _games(wins)
    return _centred(((w + 0.5) / (w.T + 0.5)).log().mean(1), wins)


@wrong(
    "fit_bradley_terry",
    "sign flipped",
    computed="strengths of losing",
    why="wins[i, j] counts i beating j",
    effect="the worst item leads",
    lesson=STRENGTHS,
)
def fit_sign_flipped(wins, iterations=10_000, tol=1e-9):
    return -_fit(wins)


@wrong(
    "fit_bradley_terry",
    "table transposed",
    computed="wins read as wins[j, i]",
    why="the row won",
    effect="the worst item leads",
    lesson=STRENGTHS,
)
def fit_table_transposed(wins, iterations=10_000, tol=1e-9):
    return _fit(wins.T)


@wrong(
    "fit_bradley_terry",
    "not centred",
    computed="the first strength fixed at 0",
    why="the mean is 0",
    effect="strengths of two fits cannot be compared",
    lesson=STRENGTHS,
)
def fit_not_centred(wins, iterations=10_000, tol=1e-9):
    s = _fit(wins)
    return s - s[0]


@wrong(
    "fit_bradley_terry",
    "strengths, not logs",
    computed="e = exp(s)",
    why="log-strengths are asked for",
    effect="differences are no log-odds",
    lesson=STRENGTHS,
)
def fit_strengths__not_logs(wins, iterations=10_000, tol=1e-9):
    return _fit(wins).exp()


@wrong(
    "fit_bradley_terry",
    "normalised to sum 1",
    computed="the softmax of the strengths",
    why="log-strengths of mean 0",
    effect="probabilities where scores were wanted",
    lesson=STRENGTHS,
)
def fit_normalised_to_sum_1(wins, iterations=10_000, tol=1e-9):
    return _fit(wins).softmax(0)


@wrong(
    "fit_bradley_terry",
    "one round",
    computed="a single round of Zermelo's iteration",
    why="repeat until nothing moves",
    effect="strengths shrunk towards 0",
    lesson=STRENGTHS,
)
def fit_one_round(wins, iterations=10_000, tol=1e-9):
    return _fit(wins, rounds=1)


@wrong(
    "fit_bradley_terry",
    "five rounds",
    computed="five rounds of Zermelo's iteration",
    why="repeat until nothing moves",
    effect="strengths shrunk towards 0",
    lesson=STRENGTHS,
)
def fit_five_rounds(wins, iterations=10_000, tol=1e-9):
    return _fit(wins, rounds=5)


@wrong(
    "fit_bradley_terry",
    "diagonal counted",
    computed="the row sums of the table as it is",
    why="the diagonal is ignored",
    effect="items with a filled diagonal look strong",
    lesson=STRENGTHS,
)
def fit_diagonal_counted(wins, iterations=10_000, tol=1e-9):
    return _fit(wins, diagonal=True)


@wrong(
    "fit_bradley_terry",
    "smoothed",
    computed="half a win added everywhere",
    why="the maximum of the likelihood, without a prior",
    effect="strengths shrunk; no error where no maximum exists",
    lesson=STRENGTHS,
)
def fit_smoothed(wins, iterations=10_000, tol=1e-9):
    w = _games(wins, check=False)
    return _fit(wins, table=(w + 0.5).fill_diagonal_(0))


@wrong(
    "fit_bradley_terry",
    "no check",
    computed="finite strengths for an undefeated item",
    why="without a chain of wins each way there is no maximum",
    effect="numbers that depend on when the loop stopped",
    lesson=STRENGTHS,
)
def fit_no_check(wins, iterations=10_000, tol=1e-9):
    return _fit(wins, table=_games(wins, check=False))


@wrong(
    "fit_bradley_terry",
    "winless and undefeated only",
    computed="a check of row and column sums",
    why="two groups that never mixed have no common scale either",
    effect="numbers that depend on the start",
    lesson=STRENGTHS,
)
def fit_winless_and_undefeated_only(wins, iterations=10_000, tol=1e-9):
    w = _games(wins, check=False)
    if (w.sum(0) == 0).any() or (w.sum(1) == 0).any():
        raise ValueError("an item never lost or never won")
    return _fit(wins, table=w)


@wrong(
    "fit_bradley_terry",
    "connected in one direction",
    computed="a check of the graph without its arrows",
    why="chains of wins have to lead both ways",
    effect="groups of which one never lost to the other pass",
    lesson=STRENGTHS,
)
def fit_connected_in_one_direction(wins, iterations=10_000, tol=1e-9):
    w = _games(wins, check=False)
    _reach_or_raise(w + w.T)
    if (w.sum(0) == 0).any() or (w.sum(1) == 0).any():
        raise ValueError("not connected")
    return _fit(wins, table=w)


@wrong(
    "fit_bradley_terry",
    "every pair must have met",
    computed="ValueError when two items never met",
    why="a chain of wins each way is enough",
    effect="sparse tables, the usual ones, are refused",
    lesson=STRENGTHS,
)
def fit_every_pair_must_have_met(wins, iterations=10_000, tol=1e-9):
    w = _games(wins, check=False)
    s = _fit(wins)
    return s if ((w + w.T).fill_diagonal_(1) > 0).all() else torch.zeros_like(s)


@wrong(
    "fit_bradley_terry",
    "decimal logarithms",
    computed="base-10 log-strengths",
    why="natural logarithms",
    effect="strengths 2.3 times too small",
    lesson=STRENGTHS,
)
def fit_decimal_logarithms(wins, iterations=10_000, tol=1e-9):
    return _fit(wins) / math.log(10)


@wrong(
    "fit_bradley_terry",
    "Elo points",
    computed="strengths on the Elo scale",
    why="log-strengths of the natural logistic",
    effect="numbers 173 times too large",
    lesson=STRENGTHS,
)
def fit_elo_points(wins, iterations=10_000, tol=1e-9):
    return _fit(wins) * 400 / math.log(10)


# --- preference_cycles ------------------------------------------------------------------------------------------------

CYCLES = "When no score can exist"


@wrong(
    "preference_cycles",
    "one direction only",
    computed="cycles with i < j < k",
    why="(0, 2, 1) is a cycle too, another one than (0, 1, 2)",
    effect="half of the cycles are missed",
    lesson=CYCLES,
)
def preference_one_direction_only(wins):
    return [t for t in _cycles(wins) if t[0] < t[1] < t[2]]


@wrong(
    "preference_cycles",
    "every rotation",
    computed="each cycle three times",
    why="each once, starting at its smallest index",
    effect="three times as many contradictions",
    lesson=CYCLES,
)
def preference_every_rotation(wins):
    return sorted(rotated for t in _cycles(wins) for rotated in (t, t[1:] + t[:1], t[2:] + t[:2]))


@wrong(
    "preference_cycles",
    "sets of items",
    computed="sorted triples",
    why="the direction of the arrows is part of the answer",
    effect="it cannot be told who beats whom",
    lesson=CYCLES,
)
def preference_sets_of_items(wins):
    return sorted(tuple(sorted(t)) for t in _cycles(wins))


@wrong(
    "preference_cycles",
    "arrows reversed",
    computed="i -> j when j beat i",
    why="wins[i, j] counts i beating j",
    effect="all cycles run backwards",
    lesson=CYCLES,
)
def preference_arrows_reversed(wins):
    return _cycles(wins.T)


@wrong(
    "preference_cycles",
    "ties count",
    computed="i -> j when wins[i, j] >= wins[j, i]",
    why="a tie is no majority",
    effect="cycles out of nothing",
    lesson=CYCLES,
)
def preference_ties_count(wins):
    return _cycles(wins, ties=True)


@wrong(
    "preference_cycles",
    "any win counts",
    computed="i -> j when wins[i, j] > 0",
    why="a majority of the games is needed",
    effect="nearly every triple is a cycle",
    lesson=CYCLES,
)
def preference_any_win_counts(wins):
    beats = (wins > 0).tolist()
    return [
        t
        for t in permutations(range(len(wins)), 3)
        if t[0] == min(t) and all(beats[t[n]][t[(n + 1) % 3]] for n in range(3))
    ]


@wrong(
    "preference_cycles",
    "largest first",
    computed="cycles that start at their largest index",
    why="smallest index first",
    effect="comparisons with other lists fail",
    lesson=CYCLES,
)
def preference_largest_first(wins):
    return sorted(t[n:] + t[:n] for t in _cycles(wins) for n in [t.index(max(t))])


@wrong(
    "preference_cycles",
    "transitive triples",
    computed="i -> j -> k and i -> k",
    why="the last arrow leads back",
    effect="orderly triples are reported",
    lesson=CYCLES,
)
def preference_transitive_triples(wins):
    beats = (wins > wins.T).tolist()
    return [
        t
        for t in permutations(range(len(wins)), 3)
        if t[0] == min(t) and beats[t[0]][t[1]] and beats[t[1]][t[2]] and beats[t[0]][t[2]]
    ]


@wrong(
    "preference_cycles",
    "number of cycles",
    computed="how many there are",
    why="the list is asked for",
    effect="nobody sees which items they are",
    lesson=CYCLES,
)
def preference_number_of_cycles(wins):
    return len(_cycles(wins))


@wrong(
    "preference_cycles",
    "lists for tuples",
    computed="each cycle as a list",
    why="a cycle is a tuple: it can be a key",
    effect="sets of cycles fail",
    lesson=CYCLES,
)
def preference_lists_for_tuples(wins):
    return [list(t) for t in _cycles(wins)]


@wrong(
    "preference_cycles",
    "first cycle only",
    computed="the first cycle, or none",
    why="every cycle counts",
    effect="the amount of contradiction is unknown",
    lesson=CYCLES,
)
def preference_first_cycle_only(wins):
    return _cycles(wins)[:1]


@wrong(
    "preference_cycles",
    "consecutive items",
    computed="cycles among i, i + 1, i + 2",
    why="any three items can be a cycle",
    effect="most cycles of a large table are missed",
    lesson=CYCLES,
)
def preference_consecutive_items(wins):
    return [t for t in _cycles(wins) if max(t) - min(t) == 2]


@wrong(
    "preference_cycles",
    "descending",
    computed="the list in reverse order",
    why="ascending order",
    effect="comparisons with other lists fail",
    lesson=CYCLES,
)
def preference_descending(wins):
    return _cycles(wins)[::-1]


@wrong(
    "preference_cycles",
    "threshold of two",
    computed="majorities by at least two games",
    why="any strict majority counts",
    effect="narrow contradictions are missed",
    lesson=CYCLES,
)
def preference_threshold_of_two(wins):
    return _cycles(wins.double() - (wins.double() > wins.T.double()).double())


@wrong(
    "preference_cycles",
    "arrows reversed, ties count",
    computed="two mistakes at once",
    why="strict majorities, and the row won",
    effect="cycles out of nothing, backwards",
    lesson=CYCLES,
)
def preference_arrows_reversed__ties_count(wins):
    return _cycles(wins.T, ties=True)


# --- cohen_kappa ------------------------------------------------------------------------------------------------------

KAPPA = "Do the annotators agree?"


@wrong(
    "cohen_kappa",
    "raw agreement",
    computed="p_o, the share of equal labels",
    why="agreement by chance is taken out",
    effect="annotators who always say the same look reliable",
    lesson=KAPPA,
)
def cohen_raw_agreement(a, b):
    a, b = _lists(a, b)
    return _observed(a, b)


@wrong(
    "cohen_kappa",
    "not divided",
    computed="p_o - p_e",
    why="the surplus is measured against the largest possible one",
    effect="full agreement is below 1",
    lesson=KAPPA,
)
def cohen_not_divided(a, b):
    a, b = _lists(a, b)
    return _observed(a, b) - _chance(a, b)


@wrong(
    "cohen_kappa",
    "uniform chance",
    computed="p_e = 1 / number of labels",
    why="chance follows each annotator's own frequencies",
    effect="with rare labels the agreement looks too good",
    lesson=KAPPA,
)
def cohen_uniform_chance(a, b):
    a, b = _lists(a, b)
    return _kappa(_observed(a, b), 1 / len({*a, *b}))


@wrong(
    "cohen_kappa",
    "pooled frequencies",
    computed="p_e from both annotators' labels together (Scott's pi)",
    why="Cohen's kappa multiplies each annotator's own shares",
    effect="too low when their habits differ",
    lesson=KAPPA,
)
def cohen_pooled_frequencies(a, b):
    a, b = _lists(a, b)
    return _kappa(_observed(a, b), _chance(a + b, a + b))


@wrong(
    "cohen_kappa",
    "chance from a alone",
    computed="p_e as the sum of squared shares of a",
    why="b has frequencies of its own",
    effect="depends on who is called a",
    lesson=KAPPA,
)
def cohen_chance_from_a_alone(a, b):
    a, b = _lists(a, b)
    return _kappa(_observed(a, b), _chance(a, a))


@wrong(
    "cohen_kappa",
    "chance from b alone",
    computed="p_e as the sum of squared shares of b",
    why="a has frequencies of its own",
    effect="depends on who is called b",
    lesson=KAPPA,
)
def cohen_chance_from_b_alone(a, b):
    a, b = _lists(a, b)
    return _kappa(_observed(a, b), _chance(b, b))


@wrong(
    "cohen_kappa",
    "divided by 1 - p_o",
    computed="(p_o - p_e) / (1 - p_o)",
    why="the denominator is the largest possible surplus, 1 - p_e",
    effect="grows without bound as agreement does",
    lesson=KAPPA,
)
def cohen_divided_by_1___p_o(a, b):
    a, b = _lists(a, b)
    o, e = _observed(a, b), _chance(a, b)
    return 1.0 if o == 1 else (o - e) / (1 - o)


@wrong(
    "cohen_kappa",
    "clamped at 0",
    computed="max(kappa, 0)",
    why="kappa is negative when they agree less than by chance",
    effect="systematic disagreement looks like none",
    lesson=KAPPA,
)
def cohen_clamped_at_0(a, b):
    a, b = _lists(a, b)
    return max(_kappa(_observed(a, b), _chance(a, b)), 0.0)


@wrong(
    "cohen_kappa",
    "one label is 0",
    computed="0.0 when both always give the same one label",
    why="that is full agreement: 1.0",
    effect="a clean batch is thrown away",
    lesson=KAPPA,
)
def cohen_one_label_is_0(a, b):
    a, b = _lists(a, b)
    return 0.0 if _chance(a, b) == 1 else _kappa(_observed(a, b), _chance(a, b))


@wrong(
    "cohen_kappa",
    "one label is NaN",
    computed="0 / 0 when both always give the same one label",
    why="that is full agreement: 1.0",
    effect="NaN in the report",
    lesson=KAPPA,
)
def cohen_one_label_is_nan(a, b):
    a, b = _lists(a, b)
    return float("nan") if _chance(a, b) == 1 else _kappa(_observed(a, b), _chance(a, b))


@wrong(
    "cohen_kappa",
    "short lists cut",
    computed="zip of lists of different length",
    why="different lengths are a ValueError",
    effect="labels of other items are compared",
    lesson=KAPPA,
)
def cohen_short_lists_cut(a, b):
    a, b = (x.tolist() if isinstance(x, torch.Tensor) else list(x) for x in (a, b))
    n = min(len(a), len(b))
    if n == 0:
        raise ValueError("no labels")
    return _kappa(_observed(a[:n], b[:n]), _chance(a[:n], b[:n]))


@wrong(
    "cohen_kappa",
    "no labels agree",
    computed="1.0 for two empty lists",
    why="no labels are a ValueError",
    effect="an empty file counts as full agreement",
    lesson=KAPPA,
)
def cohen_no_labels_agree(a, b):
    if len(a) == len(b) == 0:
        return 1.0
    a, b = _lists(a, b)
    return _kappa(_observed(a, b), _chance(a, b))


@wrong(
    "cohen_kappa",
    "binary chance",
    computed="p_e from the share of the largest label and its rest",
    why="every label has its own share",
    effect="wrong for three labels and more",
    lesson=KAPPA,
)
def cohen_binary_chance(a, b):
    a, b = _lists(a, b)
    last = max({*a, *b})
    p, q = a.count(last) / len(a), b.count(last) / len(b)
    return _kappa(_observed(a, b), p * q + (1 - p) * (1 - q))


@wrong(
    "cohen_kappa",
    "correlation",
    computed="the correlation of label numbers",
    why="labels are names: no order, no distance",
    effect="strings fail; the numbering decides",
    lesson=KAPPA,
)
def cohen_correlation(a, b):
    a, b = _lists(a, b)
    names = {x: i for i, x in enumerate(sorted({*a, *b}))}
    t = torch.tensor([[names[x] for x in a], [names[y] for y in b]], dtype=torch.float64)
    c = torch.corrcoef(t)[0, 1].item() if len(a) > 1 else 1.0
    return c if c == c else 1.0
