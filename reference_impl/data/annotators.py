"""A made pool of annotators, each of them consistent, in camps that want different things.

Answers lie on a circle: a trade-off, where more of one thing is less of another. Each camp has a favourite point on it,
a third of the way round from the next camp's, and scores an answer by how near it lies. An annotator votes between two
answers as in the Bradley-Terry model of their camp's scores, P(i over j) = sigma(score_i - score_j).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

CAMPS = 3
STRENGTH = 2.5  # of a camp's taste: the best answer beats the worst with probability sigma(2 * 2.5) = 0.993


@dataclass
class Pool:
    """A annotators, M answers."""

    scores: Tensor  # (CAMPS, M)
    camps: Tensor  # (A,) which camp each annotator is of
    votes: Tensor  # (A, M, M) 1 where the annotator prefers i to j, 0 where j to i and on the diagonal

    @property
    def wins(self) -> Tensor:
        """(M, M): how often i beat j, over all annotators."""
        return self.votes.sum(0)


def make_pool(share: float, annotators: int, items: int, generator: torch.Generator) -> Pool:
    """A pool in which `share` of the annotators are of the second and third camp, in equal parts."""
    place = torch.rand(items, generator=generator) * 2 * math.pi
    favourite = torch.arange(CAMPS) * 2 * math.pi / CAMPS
    scores = STRENGTH * torch.cos(place - favourite[:, None])
    others = round(share * annotators)
    camps = torch.zeros(annotators, dtype=torch.long)
    camps[:others] = 1 + torch.arange(others) % 2
    mine = scores[camps]
    chance = torch.sigmoid(mine[:, :, None] - mine[:, None, :])
    first = (torch.rand(chance.shape, generator=generator) < chance).float().triu(1)
    second = (1 - first).triu(1).transpose(1, 2)
    return Pool(scores, camps, first + second)
