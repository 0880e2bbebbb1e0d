"""A week's checks, drawn once and played to many submissions.

Most of the time of grading goes into drawing inputs, computing the reference's answers and waiting for the other
process. Inputs and answers are the same for every submission: the seed is fixed, and a check judges each reply by
itself. So each check is run once without a submission, its calls are kept as they go over the wire, and every
submission is sent them and judged by the same words. Verdicts are those of `pytest weeks/NN`; only the smallest
failing input is not sought.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from graders import declare, session, wire
from graders.candidate import Candidate
from graders.exercises import Week
from graders.session import NO_ANSWER, Exchange, Grading
from graders.submission import read
from graders.substitute import checks

AHEAD_BYTES, AHEAD_CALLS = 2**16, 8  # under way at most: less than a socket holds, or both sides would wait

FORGET_SECONDS = 0.5


@dataclass(frozen=True)
class Taped:
    """One check: what it claims, its exchanges, and their calls as bytes. Without exchanges it must run live."""

    name: str
    mark: declare.Check
    test: Callable
    exchanges: list[Exchange] = field(default_factory=list)
    frames: list[bytes] = field(default_factory=list)

    def run(self, grading: Grading, diagnose: bool = True) -> None:
        """Play it to the submission being graded. Raises CheckFailed or Stopped, as the check would; without `diagnose`
        the mistake's name is not looked for, which takes longer than the check."""
        session.set_current(grading)
        try:
            if not self.exchanges:
                declare.run_check(self.mark, self.test, grading)
            elif not diagnose:
                grading.exchanges = []
                try:
                    play(self, grading)
                finally:
                    grading.history += grading.exchanges
            else:
                declare.run_check(self.mark, functools.partial(play, self, grading), grading)
        finally:
            session.set_current(None)


# --- recording --------------------------------------------------------------------------------------------------------


class Recorder(Candidate):
    """Stands in the submission's place and keeps the calls. It answers with errors, which nobody judges."""

    def start(self) -> None:
        self.channel, self.frames = True, []

    def _exchange(self, request: dict, timeout: float, wire) -> dict:
        self.frames.append(wire.pack(request))
        return {"error": {"type": "Recording", "bases": [], "message": "", "line": None, "source": ""}}

    def stop(self, patience: float = 0.0) -> int:
        return 0


def record(week: Week) -> list[Taped]:
    """All checks of a week, in order."""
    recorder = Recorder(read(week, "reference"))
    recorder.start()
    grading = Grading(recorder.submission, recorder, shrink=False, collecting=True)
    return [recorded(Taped(test.__name__, test.graded, test), recorder, grading) for test in checks(week.week)]


def recorded(taped: Taped, recorder: Recorder, grading: Grading) -> Taped:
    """One check with its exchanges. A check that does more with an answer than judge it, or that is broken, stays as it
    is and runs live: nothing of a check may be lost."""
    recorder.frames = []
    try:
        taped.run(grading)
    except (Exception, session.Stopped, session.BrokenCheck):
        return taped
    if len(recorder.frames) != len(grading.exchanges):
        return taped
    return replace(taped, exchanges=list(grading.exchanges), frames=recorder.frames)


# --- playing ----------------------------------------------------------------------------------------------------------


class Player(Candidate):
    """A candidate that is sent a check's calls before the answers to earlier ones are there, so that the two processes
    need not wake each other for every call."""

    frames: list[bytes] = []
    sent = answered = 0
    listener = None  # the worker that has been sent the frames

    def expect(self, frames: list[bytes]) -> None:
        """The calls that come next, in this order."""
        self.frames, self.sent, self.answered = frames, 0, 0

    def _exchange(self, request: dict, timeout: float, wire) -> dict:
        if "source" in request or self.answered == len(self.frames):
            return super()._exchange(request, timeout, wire)
        answer = super()._exchange(request, timeout, self)
        self.answered += 1
        return answer

    def send(self, channel, request: dict) -> None:
        """In the place of wire.send: as many of the frames as may be under way."""
        if self.listener is not channel:
            self.listener, self.sent = channel, self.answered
        while self.sent < min(len(self.frames), self.answered + AHEAD_CALLS):
            under_way = sum(map(len, self.frames[self.answered : self.sent]))
            if under_way and under_way + len(self.frames[self.sent]) > AHEAD_BYTES:
                break
            channel.sendall(self.frames[self.sent])
            self.sent += 1

    receive, Garbled = staticmethod(wire.receive), wire.Garbled

    def forget(self) -> None:
        """No more answers are wanted: those under way are taken off the line, or the worker is ended."""
        try:
            while self.channel is self.listener is not None and self.answered < self.sent:
                wire.receive(self.channel, FORGET_SECONDS)
                self.answered += 1
        except (OSError, EOFError, wire.Garbled):
            self.stop()
        self.frames = []
        self.sent = self.answered = 0


def play(taped: Taped, grading: Grading) -> None:
    """What the check does, with everything but the submission's part done already."""
    grading.candidate.expect(taped.frames)
    try:
        for exchange in taped.exchanges:
            reply = grading.candidate.call(**exchange.call)
            grading.exchanges.append(replace(exchange, reply=reply))
            if not grading.collecting or (reply.error and reply.error["kind"] in NO_ANSWER):
                exchange.judge(reply)
    finally:
        grading.candidate.forget()
