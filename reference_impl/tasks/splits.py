"""Which prompts may be used for what: the text of a prompt alone decides its split.

A prompt space of 84,000 sums is small: drawn at random, most training prompts would turn up again in the evaluation. So
each text belongs to exactly one split for ever, whatever the seed, the settings or the number of prompts drawn.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

# share of all prompts: sft (week 2), reward models (3, 4), preference pairs (8, 9), RL (5, 6, 7), evaluation (all)
SPLITS = {"sft": 0.60, "reward": 0.08, "pref": 0.08, "rl": 0.16, "eval": 0.08}


@dataclass(frozen=True)
class Prompt:
    """A problem: what the model reads, the right answer, and what reasoning_gym knows about it."""

    text: str
    answer: str
    metadata: dict = field(default_factory=dict, compare=False, repr=False)
    messages: tuple = field(default=(), compare=False, repr=False)  # the problem as a conversation, for chat models


def point_of(text: str) -> float:
    """A hash of `text` as a number in [0, 1): the same on every machine, in every run."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) / 2**64


def split_of(text: str) -> str:
    """The split that `text` belongs to: a hash of the text, read as a number in [0, 1), picks the share it falls in."""
    point = point_of(text)
    for split, share in SPLITS.items():
        if point < share:
            return split
        point -= share
    return split
