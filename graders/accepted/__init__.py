"""Right answers written in other ways, week by week: `graders/accepted/NN.py`, at least three a function.

    @right("rloo_advantages", "a loop over the samples of each group")
    def loops(rewards): ...

tests/test_misconceptions.py shows that the week's checks accept every one of them on the first rung: the graders judge
what a function computes, not how it is written.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from graders.misconceptions import run_marked

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Accepted:
    """One right implementation of an exercise; `note` says what is different about it."""

    function: str
    note: str
    implementation: Callable


_marked: list[Accepted] = []


def right(function: str, note: str):
    """Mark a function as a right implementation of the exercise `function`."""

    def mark(implementation: Callable) -> Callable:
        _marked.append(Accepted(function, note, implementation))
        return implementation

    return mark


@functools.cache
def load(week: str) -> tuple[Accepted, ...]:
    """A week's right variants in the order of their file; none when there is no file."""
    return run_marked(FOLDER / f"{week}.py", _marked)
