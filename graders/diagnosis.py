"""The name of the mistake: which misconception gives the numbers that the submission gave?

A failing check is run once more through all its examples, and the submission's answers are held against every
misconception of the function on the same inputs: values, gradients, inputs after the call, global state. One is named
only when it agrees on every example, is wrong there at least twice, and no other does the same. Where several do,
the function's other checks decide at the end (`settle`): one of them may tell what this one cannot.
"""

import functools
from collections.abc import Callable

import torch

from graders import misconceptions, rules
from graders.candidate import Reply
from graders.misconceptions import Misconception
from graders.misconceptions.same import one_function
from graders.session import NO_ANSWER, CheckFailed, Exchange, Failure, Grading, Stopped, set_current
from graders.submission import Submission
from graders.substitute import Substitute

ENOUGH = 2  # examples on which the misconception is wrong, as the submission is


def diagnose(grading: Grading, failure: Failure, robust: bool, run: Callable[[], None]) -> list[Exchange]:
    """Note in `failure` whose numbers these are. `run` runs the failing check again; its exchanges are returned."""
    failing = grading.exchanges[-1:]  # the smallest input: hypothesis ends with it
    if not failing or failure.kind in NO_ANSWER:
        return []
    function = failing[0].call["function"]
    # the robust rung runs when the first is passed, and only misconceptions marked as stars pass that
    known = [m for m in misconceptions.load(grading.submission.week.week) if m.function == function]
    suspects = _matching([m for m in known if m.star or not robust], grading, failing, enough=1)
    if not suspects:
        return failing
    seen = [*failing, *_collect(grading, function, run)]
    failure.suspects = _matching(suspects, grading, seen, ENOUGH)
    failure.misconception = _the_one(failure.suspects)
    return seen


def settle(grading: Grading, failures: list[Failure]) -> None:
    """At the end: of several suspects, those that also agree with the submission in the function's other checks."""
    set_current(grading)
    for failure in failures:
        if failure.misconception is None and failure.suspects:
            function = failure.suspects[0].function
            history = [exchange for exchange in grading.history if exchange.call["function"] == function]
            failure.misconception = _the_one(_matching(failure.suspects, grading, history, ENOUGH))
    set_current(None)


def _the_one(suspects: list[Misconception]) -> Misconception | None:
    """The only one; of several that are one function, the first."""
    return suspects[0] if suspects and all(one_function(suspects[0], other) for other in suspects) else None


def _collect(grading: Grading, function: str, run: Callable[[], None]) -> list[Exchange]:
    """All examples of a check, though the submission fails it."""
    grading.exchanges, grading.collecting = [], True
    try:
        run()
    except (Exception, Stopped):  # it hangs or crashes elsewhere, or the check stumbles over the wrong answers
        return []
    finally:
        grading.collecting = False
    return [exchange for exchange in grading.exchanges if exchange.call["function"] == function]


def _matching(suspects, grading: Grading, exchanges: list[Exchange], enough: int) -> list[Misconception]:
    return [m for m in suspects if _agrees(_player(grading.submission.week, m), exchanges, enough)]


@functools.cache
def _player(week, misconception: Misconception) -> Substitute:
    """The misconception in a submission's place, in this process: it is our own code."""
    submission = Submission(week, week.stub, "", impl="misconception")
    return Substitute(submission, misconception.function, misconception.implementation)


def _agrees(player: Substitute, exchanges: list[Exchange], enough: int) -> bool:
    """Does it answer as the submission did everywhere, and wrongly in at least `enough` places?"""
    wrong = 0
    for exchange in exchanges:
        reply = player.call(**exchange.call)
        if not _same(reply, exchange.reply, exchange.bounds):
            return False
        rejected = _rejected(exchange, reply)
        if rejected != _rejected(exchange, exchange.reply):
            return False
        wrong += rejected
    return wrong >= enough


def _rejected(exchange: Exchange, reply: Reply) -> bool:
    try:
        exchange.judge(reply)
    except (CheckFailed, Stopped):
        return True
    return False


def _same(a: Reply, b: Reply, bounds: tuple[float, float]) -> bool:
    """Two replies that are equal within the check's tolerance; of two errors, the same type."""
    if a.error or b.error:
        return bool(a.error and b.error) and a.error.get("type") == b.error.get("type")
    if a.moved != b.moved or rules.structure(a.value, b.value):
        return False
    pairs = zip(rules.pieces(a.value), rules.pieces(b.value), strict=True)
    if not all(_equal(x, y, bounds) for (_, x), (_, y) in pairs):
        return False
    if not all(_equal(x, b.after.get(name), bounds) for name, x in a.after.items()):
        return False
    mine, theirs = _nonzero(a.gradients), _nonzero(b.gradients)
    return mine.keys() == theirs.keys() and all(_equal(mine[name], theirs[name], bounds) for name in mine)


def _nonzero(gradients) -> dict:
    """No gradient is a gradient of zeros."""
    pairs = gradients.items() if type(gradients) is dict else ()
    return {name: g for name, g in pairs if type(g) is torch.Tensor and bool(g.any())}


def _equal(x, y, bounds: tuple[float, float]) -> bool:
    if type(x) is not type(y):
        return False
    if type(x) is float:
        x, y = (torch.tensor(value, dtype=torch.float64) for value in (x, y))
    if type(x) is not torch.Tensor:
        return x == y
    legal = x.dtype == y.dtype or {x.dtype, y.dtype} <= {torch.float32, *rules.HALF}
    return legal and x.shape == y.shape and bool(rules.close(y.detach(), x.detach(), *bounds).all())
