"""Known wrong implementations, week by week: `graders/misconceptions/NN.py`, each a few plain lines of torch.

    @wrong(
        "rloo_advantages",
        "includes itself",
        computed="each reward minus the mean of its whole group",
        why="the baseline then depends on the sample that it is subtracted from",
        effect="every gradient is (G-1)/G of the right one",
        lesson="Leave one out",
    )
    def includes_itself(rewards):
        return rewards - rewards.mean(-1, keepdim=True)

The grader compares a failing submission with them, so that it can name the mistake; tests/test_misconceptions.py shows
that every one of them is rejected by the week's checks.
"""

import functools
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Misconception:
    """One mistake about one function, with what a student is told about it."""

    function: str
    name: str
    computed: str  # what was computed instead
    why: str  # why that is wrong
    effect: str  # what it does to training
    lesson: str  # the lesson's heading to read again
    star: bool  # right on ordinary inputs: only the robust rung rejects it
    implementation: Callable


_marked: list[Misconception] = []


def wrong(function: str, name: str, computed: str, why: str, effect: str, lesson: str, star: bool = False):
    """Mark a function as a known wrong implementation of the exercise `function`."""

    def mark(implementation: Callable) -> Callable:
        _marked.append(Misconception(function, name, computed, why, effect, lesson, star, implementation))
        return implementation

    return mark


@functools.cache
def load(week: str) -> tuple[Misconception, ...]:
    """A week's misconceptions in the order of their file; none when there is no file."""
    return run_marked(FOLDER / f"{week}.py", _marked)


def run_marked(path: Path, marked: list) -> tuple:
    """Run a file whose decorators fill `marked`, and return what it marked."""
    marked.clear()
    if not path.is_file():
        return ()
    spec = importlib.util.spec_from_file_location(f"{path.parent.name}_{path.stem}", path)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    return tuple(marked)
