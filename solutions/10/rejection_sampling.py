"""Week 10, solved: rejection sampling, and what preferences are.

Read it after your own attempt. Each comment says why a line is there; most of them guard against something that real
code got wrong.
"""

import math
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor


def top_per_prompt(rewards: Tensor, k: int = 1) -> Tensor:
    """Indices of the k best samples of each prompt, best first.  Shapes: (P, N) -> (P, k)."""
    if not 1 <= k <= rewards.shape[1]:
        raise ValueError(f"k={k}: choose 1 to {rewards.shape[1]} samples per prompt")
    # A stable sort keeps equal rewards in their order; torch.topk may return them in any order.
    return rewards.argsort(dim=1, descending=True, stable=True)[:, :k]


def top_k_overall(rewards: Tensor, k: int) -> Tensor:
    """(prompt, sample) of the k best samples of the table, best first.  Shapes: (P, N) -> (k, 2)."""
    if not 1 <= k <= rewards.numel():
        raise ValueError(f"k={k}: choose 1 to {rewards.numel()} samples of the table")
    flat = rewards.reshape(-1).argsort(descending=True, stable=True)[:k]
    # Row after row, a row is N long: so both divisions are by N, the number of samples, and not by P.
    samples = rewards.shape[1]
    return torch.stack([flat // samples, flat % samples], dim=1)


def best_of_n_kl(n: int) -> float:
    """log n - (n - 1)/n."""
    if n < 1:
        raise ValueError(f"n={n}: best-of-n needs n of 1 or more")
    return math.log(n) - (n - 1) / n


def expected_max_reward(rewards: Tensor, n: int) -> Tensor:
    """Mean best reward of n drawn without replacement, exactly.  Shapes: (N,) -> scalar."""
    total = len(rewards)
    if not 1 <= n <= total:
        raise ValueError(f"n={n}: choose 1 to {total}, the number of rewards")
    # weight_j is the chance that the j-th best is the best of the draw: it is drawn, and so are n - 1 of the
    # total - 1 - j below it. C(total-1-j, n-1) / C(total, n) overflows for large totals; ratios of neighbours do not.
    weights = [n / total]
    for j in range(1, total - n + 1):
        weights.append(weights[-1] * (total - n - j + 1) / (total - j))
    rewards = rewards if rewards.is_floating_point() else rewards.to(torch.get_default_dtype())
    best_first = _full_precision(rewards).sort(descending=True).values[: len(weights)]
    return (best_first * torch.tensor(weights, dtype=best_first.dtype, device=best_first.device)).sum()


def fit_bradley_terry(wins: Tensor, iterations: int = 10_000, tol: float = 1e-9) -> Tensor:
    """Log-strengths of mean 0 that make the wins likeliest.  Shapes: (M, M) -> (M,)."""
    counts = wins.detach().double().clone().fill_diagonal_(0)  # an item against itself says nothing
    items = len(counts)
    if not ((counts >= 0) & counts.isfinite()).all():
        raise ValueError("wins holds a count that is negative or not finite")

    # If one group of items never loses to the rest, the likelihood grows without end as the gap between them grows.
    # A finite maximum exists exactly when chains of wins lead from every item to every other (Ford 1957).
    reach = (counts > 0) | torch.eye(items, dtype=torch.bool, device=counts.device)
    for middle in range(items):  # Warshall: allow one more item on the way
        reach = reach | (reach[:, middle, None] & reach[middle, None, :])
    if not reach.all():
        loser, winner = (~reach).nonzero()[0].tolist()
        raise ValueError(f"not strongly connected: no chain of wins leads from item {loser} to item {winner}")

    played = counts + counts.T
    strengths = torch.zeros(items, dtype=torch.float64, device=counts.device)
    for _ in range(iterations):
        p = torch.sigmoid(strengths[:, None] - strengths)  # p[i, j]: the model's chance that i beats j
        # The gradient of the log-likelihood: wins minus expected wins, counts - played * p. At the maximum the two are
        # equal. Written with 1 - p = p.T it stays exact when the counts are huge and the difference is small.
        surplus = (counts * p.T - counts.T * p).sum(dim=1)
        # Its curvature is the Laplacian of the graph whose edges weigh played * p * (1 - p).
        weight = played * p * p.T
        laplacian = torch.diag(weight.sum(dim=1)) - weight
        # Adding a constant fixes the one direction that the Laplacian cannot see, all strengths shifted together.
        step = torch.linalg.solve(laplacian + 1 + weight.mean(), surplus)
        # Newton's step can overshoot far from the maximum: let no gap change by more than 1 at a time.
        strengths = strengths + step / (step.max() - step.min()).clamp(min=1)
        if step.abs().max() < tol:
            break
    strengths = strengths - strengths.mean()  # only differences matter: fix the mean
    return strengths.to(_full_precision(wins).dtype if wins.is_floating_point() else torch.get_default_dtype())


def preference_cycles(wins: Tensor) -> list[tuple[int, int, int]]:
    """Every cycle i -> j -> k -> i of strict majorities, each once, smallest index first."""
    beats = (wins > wins.T).tolist()  # strict: a tie is no majority
    items = range(len(beats))
    return [
        (i, j, k)
        # j and k both run over everything above i: (i, j, k) and (i, k, j) are different cycles.
        for i in items
        for j in items[i + 1 :]
        for k in items[i + 1 :]
        if beats[i][j] and beats[j][k] and beats[k][i]
    ]


def cohen_kappa(a: Sequence | Tensor, b: Sequence | Tensor) -> float:
    """(p_o - p_e) / (1 - p_e): agreement beyond chance, 1 is full, 0 is what chance gives."""
    a = a.tolist() if isinstance(a, Tensor) else list(a)
    b = b.tolist() if isinstance(b, Tensor) else list(b)
    if len(a) != len(b) or not a:
        raise ValueError(f"kappa needs the labels of the same items, one or more; got {len(a)} and {len(b)} labels")
    n = len(a)
    agreements = sum(x == y for x, y in zip(a, b, strict=True))
    # Chance keeps each annotator's own frequencies: two who both say "yes" 9 times in 10 agree often by chance alone.
    counts_a, counts_b = Counter(a), Counter(b)
    by_chance = sum(counts_a[label] * counts_b[label] for label in counts_a)
    # Both numbers are counts out of n^2, so this comparison is exact.
    if by_chance == n * n:
        return 1.0
    return (n * agreements - by_chance) / (n * n - by_chance)


def _full_precision(values: Tensor) -> Tensor:
    """Half precision to float32 before any sum: bfloat16 has three digits."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
