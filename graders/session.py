"""What is being graded at this moment: where the words of a grader file (declare.py) find the candidate."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType

from graders.candidate import Candidate, Reply
from graders.submission import Submission

NO_ANSWER = ("hang", "crash", "import", "garbled")  # kinds of failure without numbers


@dataclass
class Failure:
    """A failed check, as the report shows it."""

    kind: str
    words: str
    code: str = ""
    expected: str = ""
    got: str = ""
    difference: str = ""
    printed: str = ""
    line: int | None = None
    source: str = ""
    suspects: list = field(default_factory=list)  # misconceptions that give the same numbers here
    misconception: object = None  # the one of them that it is, when that is certain (diagnosis.py)
    shrunk: bool = False  # the input is the smallest that hypothesis found


class CheckFailed(Exception):
    """The submission fails the check; hypothesis may look for a smaller input."""

    def __init__(self, failure: Failure):
        super().__init__(f"{failure.words}\n{failure.code}")
        self.failure = failure


class Stopped(BaseException):
    """The same, but at once: no smaller input is looked for (hangs, crashes, failures that are not shown in full).
    Not an Exception, so that hypothesis lets it through."""

    def __init__(self, failure: Failure):
        super().__init__(failure.words)
        self.failure = failure


class BrokenCheck(BaseException):
    """The grader is wrong, not the submission: a check that could not fail, or a reference that raises."""


@dataclass
class Floor:
    """What one check has shown over its examples: would the zero function, and answers 1% off, have been rejected?"""

    needed: bool = True
    compared: int = 0
    numeric: bool = False
    rejects_zero: bool = False
    rejects_one_percent: bool = False
    gradients: bool = False
    rejects_zero_gradient: bool = False
    answers: set = field(default_factory=set)

    def verify(self) -> None:
        if not self.needed or not self.compared:
            return
        if self.numeric and not (self.rejects_zero and self.rejects_one_percent):
            what = "answers 1% off" if self.rejects_zero else "a function that returns zero"
            raise BrokenCheck(
                f"this check would accept {what}: draw other inputs, or say floor=False if 0 is the answer"
            )
        if self.gradients and not self.rejects_zero_gradient:
            raise BrokenCheck("this check would accept a zero gradient: draw other inputs, or say floor=False")
        if not self.numeric and self.compared > 1 and len(self.answers) < 2:
            raise BrokenCheck("the right answer is the same in every example: draw other inputs, or say floor=False")


@dataclass
class Exchange:
    """One call of the submission: the arguments of Candidate.call, the reply, and the check's judgment of replies,
    which raises for a wrong one."""

    call: dict
    reply: Reply
    judge: Callable[[Reply], None]
    bounds: tuple[float, float]  # the tolerance and the scale of the inputs


@dataclass
class Grading:
    """One submission of one week, being graded."""

    submission: Submission
    candidate: Candidate
    seed: int = 0
    shrink: bool = True  # look for the smallest failing input
    floor: Floor = field(default_factory=Floor)
    exchanges: list[Exchange] = field(default_factory=list)  # of the check that is running
    history: list[Exchange] = field(default_factory=list)  # of all checks so far
    collecting: bool = False  # exchange, but judge nothing (diagnosis.py)
    _reference: ModuleType | None = None

    @property
    def reference(self) -> ModuleType:
        if self._reference is None:
            self._reference = importlib.import_module(f"reference_impl.{self.submission.week.module}")
        return self._reference


_current: Grading | None = None


def current() -> Grading:
    if _current is None:
        raise RuntimeError("checks run under pytest: pytest weeks/NN")
    return _current


def set_current(grading: Grading | None) -> None:
    global _current
    _current = grading
