"""A week's checks, drawn once and played to many submissions.

Most of the time of grading goes into drawing inputs and computing the reference's answers, and these are the same for
every submission: the seed is fixed, and a check judges each reply by itself. So each check is run once on the reference,
its exchanges are kept, and every submission answers the same calls and is judged by the same words. Verdicts are those of
`pytest weeks/NN`; only the smallest failing input is not looked for.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

from graders import declare, session
from graders.candidate import InProcess, Reply
from graders.exercises import Week
from graders.session import NO_ANSWER, Exchange, Grading
from graders.submission import read
from graders.substitute import checks


class Counting(InProcess):
    """The reference in the submission's place; it counts its calls."""

    calls = 0

    def call(self, *args, **kwargs) -> Reply:
        self.calls += 1
        return super().call(*args, **kwargs)


@dataclass(frozen=True)
class Taped:
    """One check: what it claims, and its exchanges; None when it must run live."""

    name: str
    mark: declare.Check
    test: Callable
    exchanges: list[Exchange] | None

    def run(self, grading: Grading) -> None:
        """Play it to the submission being graded. Raises CheckFailed or Stopped, diagnosed, as the check itself does."""
        session.set_current(grading)
        try:
            test = self.test if self.exchanges is None else functools.partial(play, self.exchanges, grading)
            declare.run_check(self.mark, test, grading)
        finally:
            session.set_current(None)


def record(week: Week) -> list[Taped]:
    """All checks of a week, in order."""
    player = Counting(read(week, "reference"))
    grading = Grading(player.submission, player, shrink=False)
    return [recorded(test, player, grading) for test in checks(week.week)]


def recorded(test: Callable, player: Counting, grading: Grading) -> Taped:
    """One check, run on the reference. A check that calls the submission without `compare` and its like, that fails on
    the reference or that would accept anything, is not played but run: nothing must be lost."""
    player.calls, live = 0, Taped(test.__name__, test.graded, test, None)
    try:
        live.run(grading)
    except (Exception, session.Stopped, session.BrokenCheck):
        return live
    complete = grading.exchanges and player.calls == len(grading.exchanges)
    return replace(live, exchanges=list(grading.exchanges)) if complete else live


def play(exchanges: list[Exchange], grading: Grading) -> None:
    """What declare.compare does, with everything but the submission's part done already."""
    for taped in exchanges:
        reply = grading.candidate.call(**taped.call)
        grading.exchanges.append(replace(taped, reply=reply))
        if not grading.collecting or (reply.error and reply.error["kind"] in NO_ANSWER):
            taped.judge(reply)
