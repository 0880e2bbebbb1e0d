"""Week 10: rejection sampling, and what a table of preferences can and cannot say.

    best of n        KL(best of n || policy) = log n - (n - 1)/n,   E[max of n] = sum_j weight_j rewards_(j)
    Bradley-Terry    P(i beats j) = sigma(s_i - s_j); at the maximum likelihood each item's expected wins are its wins
    Cohen's kappa    (agreement - agreement by chance) / (1 - agreement by chance)

Selections return indices, not texts: `top_per_prompt` and `top_k_overall` choose by reward, `random_per_prompt` and
`random_k_overall` choose as many without looking, so that a gain can be told from the effect of more fine-tuning.
The book's code has the same four selections, with k = 1 for each prompt.
"""

import math
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from reference_impl.masking import upcast


def top_per_prompt(rewards: Tensor, k: int = 1) -> Tensor:
    """Indices of the k best samples of each prompt, best first, ties to the lower index. Book ch. 9.

    Shapes: (P, N) -> LongTensor (P, k). ValueError unless 1 <= k <= N.
    """
    _check_range("k", k, rewards.shape[1])
    return rewards.argsort(dim=1, descending=True, stable=True)[:, :k]  # topk and argmax promise nothing about ties


def top_k_overall(rewards: Tensor, k: int) -> Tensor:
    """(prompt, sample) of the k best samples of the whole table, best first, ties to the lower prompt, then sample.

    Shapes: (P, N) -> LongTensor (k, 2). A prompt may occur often or never. ValueError unless 1 <= k <= P N. Book ch. 9.
    """
    _check_range("k", k, rewards.numel())
    return _pairs(rewards.reshape(-1).argsort(descending=True, stable=True)[:k], samples=rewards.shape[1])


def random_per_prompt(rewards: Tensor, k: int = 1, generator: torch.Generator | None = None) -> Tensor:
    """The control of `top_per_prompt`: k different samples of each prompt, whatever their reward.

    Shapes: (P, N) -> LongTensor (P, k). ValueError unless 1 <= k <= N.
    """
    _check_range("k", k, rewards.shape[1])
    source = rewards.device if generator is None else generator.device
    return torch.rand(rewards.shape, generator=generator, device=source).argsort(dim=1)[:, :k].to(rewards.device)


def random_k_overall(rewards: Tensor, k: int, generator: torch.Generator | None = None) -> Tensor:
    """The control of `top_k_overall`: k different (prompt, sample) pairs, whatever their reward.

    Shapes: (P, N) -> LongTensor (k, 2). ValueError unless 1 <= k <= P N.
    """
    _check_range("k", k, rewards.numel())
    source = rewards.device if generator is None else generator.device
    order = torch.randperm(rewards.numel(), generator=generator, device=source)
    return _pairs(order[:k], samples=rewards.shape[1]).to(rewards.device)


def _pairs(flat: Tensor, samples: int) -> Tensor:
    """Positions in the flattened (P, N) table as (prompt, sample): a row of the table is N long."""
    return torch.stack([flat // samples, flat % samples], dim=1)


def _check_range(name: str, value: int, largest: int) -> None:
    if not 1 <= value <= largest:
        raise ValueError(f"{name}={value}: choose a number from 1 to {largest}")


def best_of_n_kl(n: int) -> float:
    """KL(best of n || policy) = log n - (n - 1)/n. Stiennon et al., arXiv:2009.01325 appendix G.3.

    Exact when no two completions share a reward, else an upper bound (Beirami et al., arXiv:2401.01879).
    ValueError when n < 1.
    """
    if n < 1:
        raise ValueError(f"n={n}: best-of-n needs n of 1 or more")
    return math.log(n) - (n - 1) / n


def expected_max_reward(rewards: Tensor, n: int) -> Tensor:
    """Exact mean, over all draws of n of the N samples without replacement, of the draw's best reward.

        sum_j weight_j rewards_(j),   weight_j = C(N-1-j, n-1) / C(N, n),   rewards_(0) >= rewards_(1) >= ...

    Shapes: (N,) -> scalar. weight_j is the chance that the j-th best is the best of the draw; weight_0 = n/N, and each
    further one is the one before times (N-n-j+1)/(N-j): no binomial coefficient is ever formed, none overflows.
    ValueError unless 1 <= n <= N.
    """
    total = len(rewards)
    _check_range("n", n, total)
    j = torch.arange(1, total - n + 1, dtype=torch.float64)
    first = torch.tensor([n / total], dtype=torch.float64)
    weights = torch.cat([first, (total - n - j + 1) / (total - j)]).cumprod(dim=0)

    rewards = upcast(rewards) if rewards.is_floating_point() else rewards.to(torch.get_default_dtype())
    best_first = rewards.sort(descending=True).values[: len(weights)]  # the n - 1 worst are never the best of a draw
    return (weights.to(best_first.dtype).to(best_first.device) * best_first).sum()


def fit_bradley_terry(wins: Tensor, iterations: int = 10_000, tol: float = 1e-9) -> Tensor:
    """Maximum-likelihood log-strengths, mean 0, of the model P(i beats j) = sigma(s_i - s_j), by Newton's method.

    Shapes: wins (M, M), wins[i, j] = how often i beat j -> (M,). The diagonal is ignored; counts may be fractions (a
    tie is half a win each). Stops when no strength moves by more than `tol`, or after `iterations`.
    ValueError when wins are not finite and non-negative, and when the win graph is not strongly connected: if no
    chain of wins leads from j to i, the likelihood grows for ever with s_i - s_j (Ford 1957; Hunter 2004).
    """
    counts = wins.detach().cpu().double()  # small, and some accelerators have no float64
    if counts.dim() != 2 or counts.shape[0] != counts.shape[1]:
        raise ValueError(f"wins of shape {tuple(wins.shape)}: a square table (M, M) is needed")
    if not ((counts >= 0) & counts.isfinite()).all():
        raise ValueError("wins holds a count that is negative or not finite")
    counts = counts.clone().fill_diagonal_(0)
    _check_strongly_connected(counts)

    played = counts + counts.T
    strengths = torch.zeros(len(counts), dtype=torch.float64)
    for _ in range(iterations):
        p = torch.sigmoid(strengths[:, None] - strengths)  # p[i, j]: i beats j; p.T is 1 - p, without cancellation
        surplus = (counts * p.T - counts.T * p).sum(dim=1)  # wins minus expected wins, the gradient
        curvature = played * p * p.T
        laplacian = torch.diag(curvature.sum(dim=1)) - curvature
        # the Laplacian is blind to a common shift; a constant added everywhere makes it invertible on the rest alone
        step = torch.linalg.solve(laplacian + 1 + curvature.mean(), surplus)
        # while no gap moves by more than 1, curvature cannot change enough for the likelihood to fall
        strengths = strengths + step / (step.max() - step.min()).clamp(min=1)
        if step.abs().max() < tol:
            break
    strengths = strengths - strengths.mean()
    dtype = upcast(wins).dtype if wins.is_floating_point() else torch.get_default_dtype()
    return strengths.to(dtype).to(wins.device)


def _check_strongly_connected(counts: Tensor) -> None:
    """ValueError unless chains of wins lead from every item to every other."""
    reach = (counts > 0) | torch.eye(len(counts), dtype=torch.bool)
    for _ in range(len(counts).bit_length()):  # squaring doubles the length of the chains looked at
        reach = (reach.float() @ reach.float()) > 0
    if not reach.all():
        loser, winner = (~reach).nonzero()[0].tolist()
        raise ValueError(
            f"the win graph is not strongly connected: no chain of wins leads from item {loser} to item {winner}, so "
            "the gap between their strengths has no finite maximum-likelihood value; add comparisons or drop an item"
        )


def preference_cycles(wins: Tensor) -> list[tuple[int, int, int]]:
    """Every 3-cycle of strict majorities i -> j -> k -> i, each once, smallest index first, in ascending order.

    Shapes: wins (M, M). i -> j when wins[i, j] > wins[j, i]; a tie is no majority. No scores can explain a cycle.
    """
    beats = wins > wins.T
    cycle = beats[:, :, None] & beats[None, :, :] & beats.T[:, None, :]  # (i, j, k): i -> j, j -> k, k -> i
    return [(i, j, k) for i, j, k in cycle.nonzero().tolist() if i < min(j, k)]


def cohen_kappa(a: Sequence | Tensor, b: Sequence | Tensor) -> float:
    """Agreement of two annotators beyond chance, (p_o - p_e) / (1 - p_e). Cohen 1960.

    Shapes: two equally long sequences of labels (numbers or strings). p_o is the share of equal labels, p_e the chance
    of equal labels if each annotator kept to their own frequencies. 1.0 when both always give the same one label.
    ValueError when the lengths differ or are 0.
    """
    a, b = (x.tolist() if isinstance(x, Tensor) else list(x) for x in (a, b))
    if len(a) != len(b) or not a:
        raise ValueError(f"kappa needs the labels of the same items, one or more; got {len(a)} and {len(b)} labels")
    n = len(a)
    agreements = sum(x == y for x, y in zip(a, b, strict=True))
    counts_a, counts_b = Counter(a), Counter(b)
    by_chance = sum(counts_a[label] * counts_b[label] for label in counts_a)
    if by_chance == n * n:  # one label only: agreement is certain, and 0/0 is read as full agreement
        return 1.0
    return (n * agreements - by_chance) / (n * n - by_chance)  # both sides times n^2: integers, so exact until here
