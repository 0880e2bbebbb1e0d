"""Week 10, right: selections, best-of-n and preferences written in other ways."""

import math
from collections import Counter
from fractions import Fraction
from itertools import combinations, permutations

import torch

from graders.accepted import right


def _in_range(name, value, largest):
    if value < 1 or value > largest:
        raise ValueError(f"{name} = {value} is not in 1..{largest}")


# --- top_per_prompt ---------------------------------------------------------------------------------------------------


@right("top_per_prompt", "Python's sort, row by row")
def per_prompt_by_lists(rewards, k=1):
    _in_range("k", k, rewards.size(1))
    return torch.tensor([sorted(range(len(row)), key=lambda i: -row[i])[:k] for row in rewards.tolist()])


@right("top_per_prompt", "a stable sort of the negated rewards")
def per_prompt_by_sort(rewards, k=1):
    _in_range("k", k, rewards.size(1))
    return torch.sort(-rewards, dim=-1, stable=True).indices.narrow(1, 0, k)


@right("top_per_prompt", "the first maximum, k times")
def per_prompt_by_maxima(rewards, k=1):
    _in_range("k", k, rewards.size(1))
    left, places = rewards.clone(), torch.arange(rewards.size(1))
    picked = []
    for _ in range(k):
        best = left == left.max(dim=1, keepdim=True).values
        first = torch.where(best, places, rewards.size(1)).min(dim=1).values
        picked.append(first)
        left.scatter_(1, first[:, None], -torch.inf)
    return torch.stack(picked, dim=1)


# --- top_k_overall ----------------------------------------------------------------------------------------------------


@right("top_k_overall", "a list of pairs, sorted by reward, then prompt, then sample")
def overall_by_lists(rewards, k):
    _in_range("k", k, rewards.numel())
    table = rewards.tolist()
    pairs = [(p, i) for p in range(len(table)) for i in range(len(table[p]))]
    return torch.tensor(sorted(pairs, key=lambda pair: (-table[pair[0]][pair[1]], *pair))[:k])


@right("top_k_overall", "torch.unravel_index of a stable sort")
def overall_by_unravelling(rewards, k):
    _in_range("k", k, rewards.numel())
    order = rewards.flatten().sort(descending=True, stable=True).indices[:k]
    return torch.stack(torch.unravel_index(order, rewards.shape), dim=-1)


@right("top_k_overall", "divmod in Python")
def overall_by_divmod(rewards, k):
    _in_range("k", k, rewards.numel())
    order = torch.argsort(-rewards.reshape(-1), stable=True).tolist()
    return torch.tensor([divmod(place, rewards.shape[1]) for place in order[:k]], dtype=torch.long)


# --- best_of_n_kl -----------------------------------------------------------------------------------------------------


@right("best_of_n_kl", "log n - 1 + 1/n")
def kl_rearranged(n):
    if n <= 0:
        raise ValueError(f"n must be positive, got {n}")
    return math.log(n) - 1 + 1 / n


@right("best_of_n_kl", "with torch, in float64")
def kl_with_torch(n):
    if n < 1:
        raise ValueError(f"n is {n}")
    x = torch.tensor(n, dtype=torch.float64)
    return (torch.log(x) - (x - 1) / x).item()


@right("best_of_n_kl", "log1p of n - 1")
def kl_with_log1p(n):
    if not n >= 1:
        raise ValueError("n has to be at least 1, not " + str(n))
    return math.log1p(n - 1) - (1 - n**-1)


# --- expected_max_reward ----------------------------------------------------------------------------------------------


@right("expected_max_reward", "exact binomial coefficients in Python's integers")
def max_by_comb(rewards, n):
    _in_range("n", n, len(rewards))
    worst_first, total = sorted(rewards.tolist()), math.comb(len(rewards), n)
    value = sum(math.comb(i, n - 1) / total * r for i, r in enumerate(worst_first) if i >= n - 1)
    return torch.tensor(value, dtype=rewards.dtype)


@right("expected_max_reward", "lgamma in float64")
def max_by_lgamma(rewards, n):
    _in_range("n", n, len(rewards))
    big = len(rewards)
    j = torch.arange(big - n + 1, dtype=torch.float64)
    log_c = torch.lgamma(big - j) - torch.lgamma(big - j - n + 1) - math.lgamma(n)
    log_all = math.lgamma(big + 1) - math.lgamma(n + 1) - math.lgamma(big - n + 1)
    weights = torch.exp(log_c - log_all).to(rewards.dtype)
    return weights @ torch.sort(rewards, descending=True)[0][: big - n + 1]


@right("expected_max_reward", "every draw of a small table, a product of fractions for a large one")
def max_by_draws(rewards, n):
    _in_range("n", n, len(rewards))
    big = len(rewards)
    if big <= 7:
        return torch.stack([rewards[list(draw)].max() for draw in combinations(range(big), n)]).mean()
    weight, value = n / big, 0.0
    for j, reward in enumerate(sorted(rewards.tolist(), reverse=True)):
        value += weight * reward
        weight *= float(Fraction(max(big - n - j, 0), max(big - 1 - j, 1)))
    return torch.tensor(value, dtype=rewards.dtype)


# --- fit_bradley_terry ------------------------------------------------------------------------------------------------


def _connected(counts):
    reach = (counts > 0) | torch.eye(len(counts), dtype=torch.bool)
    for m in range(len(counts)):
        reach = reach | (reach[:, m, None] & reach[m, None, :])
    if not reach.all():
        raise ValueError("not strongly connected: some item never loses to some others")


def _floating(wins):
    return wins.dtype if wins.is_floating_point() else torch.get_default_dtype()


@right("fit_bradley_terry", "Zermelo's iteration, all at once")
def fit_by_zermelo(wins, iterations=10_000, tol=1e-9):
    w = wins.double().clone().fill_diagonal_(0)
    _connected(w)
    games, e, s = w + w.T, torch.ones(len(w), dtype=torch.float64), torch.zeros(len(w), dtype=torch.float64)
    for _ in range(iterations):
        e = w.sum(1) / (games / (e[:, None] + e)).sum(1)
        new = e.log() - e.log().mean()
        e, moved, s = new.exp(), (new - s).abs().max(), new
        if moved < tol:
            break
    return s.to(_floating(wins))


@right("fit_bradley_terry", "items in turn, in plain Python")
def fit_in_turn(wins, iterations=10_000, tol=1e-9):
    _connected(wins.double().clone().fill_diagonal_(0))
    w, m = wins.tolist(), len(wins)
    s = [0.0] * m
    for _ in range(iterations):
        moved = 0.0
        for i in range(m):
            won = sum(w[i][j] for j in range(m) if j != i)
            played = sum((w[i][j] + w[j][i]) / (math.exp(s[i]) + math.exp(s[j])) for j in range(m) if j != i)
            new = math.log(won / played)
            moved, s[i] = max(moved, abs(new - s[i])), new
        if moved < tol:
            break
    mean = sum(s) / m
    return torch.tensor([x - mean for x in s], dtype=_floating(wins))


@right("fit_bradley_terry", "L-BFGS on the mean log-likelihood")
def fit_by_lbfgs(wins, iterations=10_000, tol=1e-9):
    with torch.enable_grad():
        w = wins.detach().double().clone().fill_diagonal_(0)
        _connected(w)
        w = w / w.sum()
        s = torch.zeros(len(w), dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS(
            [s], max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-14, line_search_fn="strong_wolfe"
        )

        def closure():
            optimizer.zero_grad()
            loss = -(w * torch.nn.functional.logsigmoid(s[:, None] - s[None, :])).sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        return (s - s.mean()).detach().to(_floating(wins))


# --- preference_cycles ------------------------------------------------------------------------------------------------


@right("preference_cycles", "permutations of three items that start with the smallest")
def cycles_by_permutations(wins):
    w = wins.tolist()

    def beats(i, j):
        return w[i][j] > w[j][i]

    return [
        t
        for t in permutations(range(len(w)), 3)
        if t[0] == min(t) and all(beats(t[n], t[(n + 1) % 3]) for n in range(3))
    ]


@right("preference_cycles", "both directions of each combination, sorted at the end")
def cycles_by_combinations(wins):
    beats = (wins > wins.t()).tolist()
    found = []
    for i, j, k in combinations(range(len(wins)), 3):
        if beats[i][j] and beats[j][k] and beats[k][i]:
            found.append((i, j, k))
        if beats[i][k] and beats[k][j] and beats[j][i]:
            found.append((i, k, j))
    return sorted(found)


@right("preference_cycles", "every rotation collected in a set")
def cycles_by_rotation(wins):
    beats, m = wins > wins.mT, len(wins)
    found = set()
    for a in range(m):
        for b in beats[a].nonzero().flatten().tolist():
            for c in (beats[b] & beats[:, a]).nonzero().flatten().tolist():
                found.add(min((a, b, c), (b, c, a), (c, a, b)))
    return sorted(found)


# --- cohen_kappa ------------------------------------------------------------------------------------------------------


def _lists(a, b):
    a, b = (list(x.tolist()) if torch.is_tensor(x) else list(x) for x in (a, b))
    if len(a) != len(b):
        raise ValueError("the annotators labelled different numbers of items")
    if len(a) == 0:
        raise ValueError("no labels")
    return a, b


@right("cohen_kappa", "shares as floats, over the union of the labels")
def kappa_by_shares(a, b):
    a, b = _lists(a, b)
    n = len(a)
    observed = sum(x == y for x, y in zip(a, b, strict=True)) / n
    chance = sum((a.count(label) / n) * (b.count(label) / n) for label in set(a) | set(b))
    return 1.0 if chance == 1 else (observed - chance) / (1 - chance)


@right("cohen_kappa", "the confusion matrix")
def kappa_by_confusion(a, b):
    a, b = _lists(a, b)
    labels = {label: i for i, label in enumerate(dict.fromkeys([*a, *b]))}
    table = torch.zeros(len(labels), len(labels), dtype=torch.float64)
    for x, y in zip(a, b, strict=True):
        table[labels[x], labels[y]] += 1 / len(a)
    if len(labels) == 1:
        return 1.0
    chance = (table.sum(0) * table.sum(1)).sum()
    return ((table.trace() - chance) / (1 - chance)).item()


@right("cohen_kappa", "1 minus observed over expected disagreement")
def kappa_by_disagreement(a, b):
    a, b = _lists(a, b)
    disagreed = sum(x != y for x, y in zip(a, b, strict=True)) / len(a)
    expected = sum(p != q for p in a for q in b) / len(a) ** 2
    return 1 - disagreed / expected if expected else 1.0


@right("cohen_kappa", "counters and exact fractions")
def kappa_by_fractions(a, b):
    a, b = _lists(a, b)
    n, count_a, count_b = len(a), Counter(a), Counter(b)
    observed = Fraction(sum(x == y for x, y in zip(a, b, strict=True)), n)
    chance = Fraction(sum(count_a[label] * count_b[label] for label in count_a), n * n)
    return 1.0 if chance == 1 else float((observed - chance) / (1 - chance))
