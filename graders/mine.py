"""A property of the student's own, weeks/NN/test_mine.py, graded by wheat and chaff: it must pass on the reference and
fail on at least two of the week's known wrong versions. It is a bonus and never decides green.

The test runs in a worker of its own (trial.py), under the same fences as a submission. Only the wrong versions of
functions that it calls are tried: no other can make it fail. Unlike a submission's worker this one holds right answers,
and a test that reads the functions' code could tell which are wrong; so nothing rests on it but the bonus.
"""

import ast
import random
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from graders.candidate import CALL_SECONDS, Candidate
from graders.exercises import CHECKOUT, Exercise, Week
from graders.submission import Submission

FILE = "test_mine.py"
RIGHT = -1  # the version without a mistake
NO_CATCH = ("Unsatisfiable", "Skipped")  # how a run ends when nothing was tested
ASKED = 2  # wrong versions that it must catch
TOTAL_SECONDS = 15.0


@dataclass
class OwnProperty:
    """How the property went. `status`: "passed", "failed", "not written" or "not run"; `words` say why."""

    exercise: Exercise
    submission: Submission | None  # None: there is no such file
    status: str = "not run"
    words: str = ""
    line: int | None = None
    source: str = ""
    input: str = ""  # the smallest on which it fails on the reference
    caught: dict[str, list[str]] = field(default_factory=dict)  # function: names of the wrong versions it fails on
    tried: int = 0
    seconds: float = 0.0

    @property
    def points(self) -> int:
        return self.exercise.points if self.status == "passed" else 0

    @property
    def catches(self) -> int:
        return sum(map(len, self.caught.values()))


class Verdict(Exception):
    """The property fails; the message says why."""

    def __init__(self, words: str, reply: dict | None = None):
        super().__init__(words)
        self.words, self.reply = words, reply or {}


def read(week: Week, submission: Submission) -> OwnProperty | None:
    """The property beside a submission, not run yet; None for a week that asks for none."""
    if week.own is None:
        return None
    path = beside(submission)
    if not path.is_file():
        return OwnProperty(week.own, None, "not written", f"there is no {FILE} beside {submission.path.name}")
    source = path.read_text(encoding="utf-8", errors="replace")
    mine = OwnProperty(week.own, replace(submission, path=path, source=source, trusted=False, state={}, complaint={}))
    try:
        function = _test(ast.parse(source))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        mine.status, mine.words = "failed", f"Python cannot read it: {getattr(error, 'msg', None) or error}"
        mine.line, mine.source = getattr(error, "lineno", None), (getattr(error, "text", None) or "").strip()
        return mine
    if function is None:
        mine.status, mine.words = "failed", "it defines no test_mine(week, ...)"
    elif any(map(_not_implemented, function.body)):
        mine.status, mine.words = "not written", ""
    elif not function.decorator_list:
        mine.status, mine.words = "failed", "it draws no inputs: put @given(...) above test_mine"
    return mine


def beside(submission: Submission) -> Path:
    """test_mine.py of the same folder; the reference has none, so that the solution's stands in for it."""
    if submission.trusted:
        return CHECKOUT / "solutions" / submission.week.week / FILE
    return submission.path.with_name(FILE)


def grade(mine: OwnProperty, candidate: Candidate, seed: int) -> None:
    """Run the property on the reference, on wrong versions and on the reference again; note how it went in `mine`."""
    from graders import misconceptions

    start = time.perf_counter()
    known = misconceptions.load(mine.submission.week.week)
    try:
        called = _on_the_reference(candidate, seed)
        versions = [version for version, m in enumerate(known) if m.function in called]
        random.Random(seed).shuffle(versions)
        mine.tried = len(versions)
        found = []
        for version in versions:
            if time.perf_counter() - start > TOTAL_SECONDS:
                raise Verdict(f"it is too slow: {TOTAL_SECONDS:g} seconds are over; draw smaller inputs")
            reply = candidate.trial(version, seed)
            if reply.get("error"):
                wrong = known[version]
                raise Verdict(f"on the wrong version “{wrong.name}” of {wrong.function}, {_ending(reply)}", reply)
            if reply["fails"] and reply["fails"]["type"] not in NO_CATCH:
                found.append(version)
        if candidate.trial(RIGHT, seed).get("fails"):
            raise Verdict("it passes on the reference and fails there the next time: it must not remember earlier runs")
        wrong = [known[version] for version in sorted(found)]
        mine.caught = {function: [m.name for m in wrong if m.function == function] for function in sorted(called)}
        _judge(mine)
        mine.status = "passed"
    except Verdict as verdict:
        error = verdict.reply.get("fails") or verdict.reply.get("error") or {}
        mine.status, mine.words, mine.input = "failed", verdict.words, verdict.reply.get("input", "")
        mine.line, mine.source = error.get("line"), error.get("source", "")
    finally:
        mine.seconds = time.perf_counter() - start
        candidate.stop()


def _on_the_reference(candidate: Candidate, seed: int) -> set[str]:
    """The functions that the property calls. Raises Verdict when it does not pass."""
    reply = candidate.trial(RIGHT, seed)
    if reply.get("error"):
        raise Verdict(_ending(reply), reply)
    if error := reply["fails"]:
        if error["type"] == "Unsatisfiable":
            raise Verdict("no drawn input gets past its assume(...)")
        message = f": {error['message'][:200]}" if error["message"] else ""
        raise Verdict(f"it fails on the reference, so the property is not true ({error['type']}{message})", reply)
    if not reply["called"]:
        functions = ", ".join(exercise.name for exercise in candidate.submission.week.exercises)
        raise Verdict(f"it is vacuous: it calls no function of the week, as in week.NAME(...) of {functions}")
    return set(reply["called"])


def _judge(mine: OwnProperty) -> None:
    of = f"{mine.tried} known wrong versions of {', '.join(mine.caught)}"
    if not mine.catches and not _asserts(ast.parse(mine.submission.source)):
        raise Verdict(f"it is vacuous: it asserts nothing, so it passes on all {of}")
    if not mine.catches:
        raise Verdict(f"it is vacuous: it passes on all {of}; what would each of them do to your assertion?")
    if mine.catches < ASKED:
        name = next(name for names in mine.caught.values() for name in names)
        raise Verdict(f"it is true and catches one of {of}, “{name}”: {ASKED} are asked for")


def _ending(reply: dict) -> str:
    """What the worker said in place of an answer, in words."""
    error = reply["error"]
    if "words" in error:
        return error["words"]
    return f"the file does not load: {error['type']}: {error['message'][:200]}"


class Trials(Candidate):
    """The worker that runs a property."""

    def __init__(self, submission: Submission, wrap: list[str] | None = None):
        super().__init__(submission, wrap)
        self.zoo = zoo(submission.week)

    def trial(self, version: int, seed: int) -> dict:
        """Run it on one version: `error` when no answer came, else `fails`, `input` and `called` (trial.py)."""
        from graders import wire

        if self.channel is None and self.load_error is None:
            self.start()
        if self.load_error is not None:
            return {"error": self.load_error}
        return self._exchange({"version": version, "seed": seed, "timeout": CALL_SECONDS}, CALL_SECONDS, wire)


def zoo(week: Week) -> dict:
    """What Zoo (trial.py) is made from, as text."""
    wrong = CHECKOUT / "graders" / "misconceptions" / f"{week.week}.py"
    return {
        "reference": [(name, str(path), path.read_text(encoding="utf-8")) for name, path in _imports(week.reference)],
        "misconceptions": (str(wrong), wrong.read_text(encoding="utf-8")),
        "functions": [exercise.name for exercise in week.exercises],
    }


def _imports(path: Path) -> list[tuple[str, Path]]:
    """A module of reference_impl after all that it imports from there."""
    found = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module.startswith("reference_impl."):
            found |= dict(_imports(path.with_name(f"{node.module.split('.')[1]}.py")))
    return [*found.items(), (f"reference_impl.{path.stem}", path)]


def _test(tree: ast.Module) -> ast.FunctionDef | None:
    return next((n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "test_mine"), None)


def _not_implemented(node: ast.stmt) -> bool:
    return isinstance(node, ast.Raise) and "NotImplementedError" in ast.unparse(node)


def _asserts(tree: ast.Module) -> bool:
    """Does it hold an `assert`, a `raise`, or a call of something with assert or raises in its name?"""
    nodes = list(ast.walk(tree))
    names = [ast.unparse(node.func).lower() for node in nodes if isinstance(node, ast.Call)]
    return any(isinstance(node, (ast.Assert, ast.Raise)) for node in nodes) or any(
        word in name for name in names for word in ("assert", "raises")
    )
