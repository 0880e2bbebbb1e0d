"""The last verdict on the student's file of each week, kept in `.rlhf/verdicts/NN.json`.

Every complete grading of the student's own file writes it (plugin.py); `rlhf status`, `rlhf hint` and `rlhf solution`
read it. It counts as long as the file, its grader, the reference and the declaration are the same: `recall` forgets the
rest. Deleting the folder costs one more grading, nothing else.
"""

import hashlib
import json
import os

from graders.exercises import CHECKOUT, DECLARATIONS, Week
from graders.scores import WeekScore, blank
from graders.submission import expected_checks, read

VERDICTS = CHECKOUT / ".rlhf" / "verdicts"


def brief(score: WeekScore) -> dict:
    """What stays of a grading: green, points and star of every function, in the order of the week."""
    functions = {
        e.exercise.name: {"state": e.state, "green": e.green, "star": e.star, "points": e.points}
        for e in score.exercises
    }
    return {"week": score.week.week, "green": score.green, "functions": functions}


def remember(score: WeekScore) -> None:
    """Keep the verdict, if it is a grade of the student's own file as `pytest weeks/NN` gives it."""
    own = score.submission.path == score.week.stub
    if not own or not score.complete or score.in_process or score.robust_decides or score.seed:
        return
    text = json.dumps(brief(score) | {"of": fingerprint(score.week, score.submission.source.encode())}, indent=1)
    target = VERDICTS / f"{score.week.week}.json"
    partial = target.with_suffix(f".{os.getpid()}.partial")
    try:
        VERDICTS.mkdir(parents=True, exist_ok=True)
        partial.write_text(text + "\n", encoding="utf-8")
        os.replace(partial, target)
    except OSError:
        partial.unlink(missing_ok=True)  # a full or read-only disk: the next one who asks grades again


def recall(week: Week) -> dict | None:
    """The verdict on the student's file as it is now, as `brief` gives it; None when it has to be graded first.

    A file in which nothing is written, or that Python cannot read, needs no grading. Raises NoSubmission when there is
    no file.
    """
    submission = read(week)
    if not {"written", "wrong signature"} & set(submission.state.values()):
        return brief(blank(week, submission, expected_checks(week)))
    try:
        verdict = json.loads((VERDICTS / f"{week.week}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    current = fingerprint(week, submission.source.encode())
    return verdict if isinstance(verdict, dict) and verdict.get("of") == current else None


def fingerprint(week: Week, source: bytes) -> str:
    """One hash of a student's file and of what it was graded by."""
    digest = hashlib.sha256(source)
    own_property = week.stub.with_name("test_mine.py")
    for path in (own_property, week.grader, week.reference, week.scenarios, DECLARATIONS / f"{week.week}.toml"):
        digest.update(b"\0" + (path.read_bytes() if path.is_file() else b""))
    return digest.hexdigest()


def next_function(verdict: dict) -> str | None:
    """What to work on: the first function that is written and wrong, else the first that is not written."""
    red = {name: f["state"] for name, f in verdict["functions"].items() if not f["green"]}
    begun = [name for name, state in red.items() if state in ("written", "wrong signature")]
    return next(iter([*begun, *red]), None)
