"""Do scores rank right above wrong, and are probabilities what they say?"""

import torch
from torch import Tensor


def wins(difference: Tensor) -> Tensor:
    """1 where the better one is ahead, 0 where it is behind, 1/2 where they tie: the same shape."""
    return (difference > 0).float() + 0.5 * (difference == 0).float()


def auc(scores: Tensor, correct: Tensor) -> float:
    """Chance that a random right completion scores above a random wrong one; a tie counts one half.

    By ranks (Mann and Whitney 1947): the sum of the right ones' ranks, less its smallest possible value, over the
    number of pairs; tied scores share the mean of their ranks. NaN when there are only right or only wrong ones.
    """
    right = correct == 1
    n_right, n_wrong = int(right.sum()), int((~right).sum())
    if n_right == 0 or n_wrong == 0:
        return float("nan")
    _, group, count = scores.unique(return_inverse=True, return_counts=True)  # sorted
    rank = (count.cumsum(0) - (count.double() - 1) / 2)[group]
    return (rank[right].sum().item() - n_right * (n_right + 1) / 2) / (n_right * n_wrong)


def brier(probabilities: Tensor, correct: Tensor) -> float:
    """Mean squared distance of the probability from what happened (Brier 1950): always saying 1/2 gives 0.25."""
    return (probabilities - correct).square().mean().item()


def reliability(probabilities: Tensor, correct: Tensor, bins: int = 10) -> list[tuple[float, float, int]]:
    """(mean probability, share right, how many) in each of `bins` equal intervals, empty ones left out."""
    which = (probabilities * bins).long().clamp(0, bins - 1)
    rows = [which == number for number in range(bins)]
    return [
        (probabilities[inside].mean().item(), correct[inside].mean().item(), int(inside.sum()))
        for inside in rows
        if inside.any()
    ]


def calibration_error(probabilities: Tensor, correct: Tensor, bins: int = 10) -> float:
    """Expected calibration error: |mean probability - share right| of each interval, weighted by its completions."""
    parts = reliability(probabilities, correct, bins)
    return sum(count * abs(said - was) for said, was, count in parts) / sum(count for *_, count in parts)


@torch.no_grad()
def mean_and_error(values: Tensor) -> tuple[float, float]:
    """Mean over independent prompts and its standard error: (P,) -> two numbers."""
    error = (values.std() / len(values) ** 0.5).item() if len(values) > 1 else float("nan")
    return values.mean().item(), error
