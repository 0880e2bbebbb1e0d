"""The verdict, counted: what was expected to run, what ran, what passed. And the same as JSON."""

import hashlib
import json
import os
import platform
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from graders.exercises import CHECKOUT, Exercise, Week
from graders.mine import FILE, OwnProperty
from graders.session import Failure
from graders.submission import ExpectedCheck, Submission

SCHEMA, VERSION = "rlhf-course/score", 1
PACKAGES = ("torch", "hypothesis", "pytest", "rlhf-course")


@dataclass
class Outcome:
    """How one check went: "passed", "failed", "not written", "skipped" (an earlier failure decides), "not run" (though
    expected), or "broken" (the grader's own fault)."""

    check: ExpectedCheck
    status: str = "not run"
    failure: Failure | None = None
    remedy: str = ""
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        return self.status == "passed"


@dataclass
class ExerciseScore:
    """One function: all its correct checks earn the points, all its robust checks the star."""

    exercise: Exercise
    state: str  # of submission.py: "written", "not written", "missing", "wrong signature"
    correct: list[Outcome] = field(default_factory=list)
    robust: list[Outcome] = field(default_factory=list)

    @property
    def green(self) -> bool:
        return bool(self.correct) and all(outcome.passed for outcome in self.correct)

    @property
    def star(self) -> bool:
        return self.green and all(outcome.passed for outcome in self.robust)

    @property
    def points(self) -> int:
        return self.exercise.points if self.green else 0

    @property
    def optional(self) -> bool:
        """A stretch exercise never decides green."""
        return self.exercise.stretch


@dataclass
class WeekScore:
    """One week of one submission."""

    week: Week
    submission: Submission
    exercises: list[ExerciseScore]
    own: OwnProperty | None = None  # a bonus: never decides green
    seed: int = 0
    robust_decides: bool = False
    in_process: bool = False
    seconds: float = 0.0

    @property
    def outcomes(self) -> list[Outcome]:
        return [outcome for e in self.exercises for outcome in (*e.correct, *e.robust)]

    @property
    def complete(self) -> bool:
        """Every expected check ran, or could not because its function is not there or not correct."""
        return not any(outcome.status == "not run" for outcome in self.outcomes)

    @property
    def broken(self) -> bool:
        """A check of the grader's own is broken: what it would have found is not known."""
        return any(outcome.status == "broken" for outcome in self.outcomes)

    @property
    def green(self) -> bool:
        required = [e for e in self.exercises if not e.optional]
        return self.complete and all(e.star if self.robust_decides else e.green for e in required)

    def __getitem__(self, function: str) -> ExerciseScore:
        return next(e for e in self.exercises if e.exercise.name == function)


def blank(week: Week, submission: Submission, expected: list[ExpectedCheck], **settings) -> WeekScore:
    """Every expected check, not run yet. A function that is not there fails its checks before they run."""
    exercises = []
    for exercise in week.exercises:
        state = submission.state[exercise.name]
        status = {"written": "not run", "wrong signature": "skipped"}.get(state, "not written")
        outcomes = [Outcome(check, status) for check in expected if check.function == exercise.name]
        correct = [o for o in outcomes if not o.check.robust]
        if state == "wrong signature" and correct:
            words = f"its signature changed: {submission.complaint[exercise.name]}"
            correct[0].status, correct[0].failure = "failed", Failure("signature", words)
        exercises.append(ExerciseScore(exercise, state, correct, [o for o in outcomes if o.check.robust]))
    return WeekScore(week, submission, exercises, **settings)


def as_json(scores: list[WeekScore], status: int) -> dict:
    """The versioned result. `graded` is False for runs whose verdict is not a grade: partial ones, --in-process, and
    those in which the grader itself broke."""
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "exit_status": status,
        "graded": all(score.complete and not score.in_process and not score.broken for score in scores),
        "weeks": [_week(score) for score in scores],
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
        "graders_sha256": graders_hash(),
    }


def _week(score: WeekScore) -> dict:
    return {
        "week": score.week.week,
        "title": score.week.title,
        "implementation": score.submission.impl,
        "file": score.submission.label,
        "submission_sha256": score.submission.sha256,
        "seed": score.seed,
        "green": score.green,
        "robust_decides": score.robust_decides,
        "points": sum(e.points for e in score.exercises),
        "points_possible": sum(e.exercise.points for e in score.exercises),
        "stars": sum(e.star for e in score.exercises),
        "seconds": round(score.seconds, 3),
        "exercises": [_exercise(e) for e in score.exercises],
        "own_property": _own(score.own) if score.own else None,
    }


def _own(own: OwnProperty) -> dict:
    """The bonus; its points are not among the week's."""
    return {
        "status": own.status,
        "points": own.points,
        "points_possible": own.exercise.points,
        "caught": own.caught,
        "tried": own.tried,
        "words": own.words,
        "input": own.input,
        "seconds": round(own.seconds, 3),
    }


def _exercise(e: ExerciseScore) -> dict:
    return {
        "name": e.exercise.name,
        "state": e.state,
        "stretch": e.exercise.stretch,
        "green": e.green,
        "points": e.points,
        "points_possible": e.exercise.points,
        "star": e.star,
        "checks": {"passed": sum(o.passed for o in e.correct), "expected": len(e.correct)},
        "robust": {"passed": sum(o.passed for o in e.robust), "expected": len(e.robust)},
        "seconds": round(sum(o.seconds for o in (*e.correct, *e.robust)), 3),
        "not_passed": [_not_passed(o) for o in (*e.correct, *e.robust) if not o.passed],
    }


def _not_passed(outcome: Outcome) -> dict:
    failure = outcome.failure or Failure("", "")
    return {
        "test": outcome.check.test,
        "claim": outcome.check.claim,
        "status": outcome.status,
        "kind": failure.kind,
        "words": failure.words,
        "input": failure.code,
        "expected": failure.expected,
        "got": failure.got,
        "misconception": failure.misconception.name if failure.misconception else None,
    }


def _version(package: str) -> str | None:
    import importlib.metadata  # 30 ms, for --score-json alone

    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def graders_hash() -> str:
    """One hash of everything that decides a grade: the machine, the declarations, the week graders, the reference."""
    patterns = ("graders/**/*.py", "graders/exercises/*.toml", "weeks/*/test_*.py", "reference_impl/*.py")
    digest = hashlib.sha256()
    for path in sorted(p for pattern in patterns for p in CHECKOUT.glob(pattern) if p.name != FILE):
        digest.update(str(path.relative_to(CHECKOUT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def write_json(path: Path, scores: list[WeekScore], status: int) -> None:
    """Write the result whole or not at all."""
    folder = path.resolve().parent
    with tempfile.NamedTemporaryFile("w", dir=folder, prefix=f".{path.name}.", delete=False, encoding="utf-8") as file:
        json.dump(as_json(scores, status), file, indent=1)
        file.write("\n")
    try:
        os.replace(file.name, path)
    except OSError:
        os.unlink(file.name)
        raise
