"""What the locked cells of a week's notebook call: grade what was written so far, return the points.

The checks are those of `pytest weeks/NN`, run in a process of their own, so that nothing that happens in the kernel
reaches them. nbgrader reads the last value of a cell: a plain float from 0 to the points, and nothing on stderr.
"""

import functools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from course.notebook_build import stub_parts
from course.notebook_cells import module
from graders.exercises import CHECKOUT, load_week

ANSWERS = "RLHF_ANSWERS"  # a file that holds the answers' code; without it, the cells that ran in this kernel count
TRUST = "RLHF_TRUST"  # "1": grade another's code without a sandbox
PATIENCE = 600  # seconds for a week; each of its calls has a limit of its own


class CannotGrade(Exception):
    """The grading itself failed, whatever the answers are; the message says what to do."""


def credit(week: str, function: str, seed: int = 0) -> float:
    """Grade one function; print what is wrong with it and return its points: the share of its checks that pass."""
    exercises = graded(week, code(week), seed, trust=trusted())["exercises"]
    exercise = next(e for e in exercises if e["name"] == function)
    print("\n".join(report(exercise)))
    return share(exercise)


def share(exercise: dict) -> float:
    """Points times the share of the first rung's checks that pass, to the cent; the star earns none."""
    passed, expected = exercise["checks"]["passed"], exercise["checks"]["expected"]
    return round(exercise["points_possible"] * passed / expected, 2)


def code(week: str) -> str:
    """The answers' code as one file."""
    if ANSWERS in os.environ:
        return Path(os.environ[ANSWERS]).read_text(encoding="utf-8")
    from IPython import get_ipython

    if get_ipython() is None:
        raise CannotGrade("this runs in a notebook; for a file there is `uv run pytest weeks/NN`")
    return module(get_ipython().user_ns["In"], stub_parts(load_week(week)).prelude)


def trusted() -> bool:
    """Is it our own code? While nbgrader autogrades it is somebody else's."""
    return os.environ.get("NBGRADER_EXECUTION") != "autograde" or os.environ.get(TRUST) == "1"


@functools.lru_cache(maxsize=8)
def graded(week: str, source: str, seed: int, trust: bool) -> dict:
    """The scores of one week's file (the JSON of `pytest weeks/NN --score-json`). Raises CannotGrade."""
    with tempfile.TemporaryDirectory(prefix="rlhf-notebook-") as scratch:
        file = Path(scratch, week, f"{load_week(week).module}.py")
        file.parent.mkdir()
        file.write_text(source, encoding="utf-8", errors="replace")
        result = Path(scratch, "score.json")
        command = [sys.executable, "-m", "pytest", f"weeks/{week}", "-p", "no:cacheprovider"]
        command += ["--impl", scratch, "--seed", str(seed), "--score-json", str(result), *["--trust"] * trust]
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "PYTHON"))}
        try:
            ran = subprocess.run(command, cwd=CHECKOUT, env=ours, capture_output=True, text=True, timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            raise CannotGrade(f"grading week {week} took more than {PATIENCE} seconds") from None
        if ran.returncode not in (0, 1) or not result.is_file():
            raise CannotGrade((ran.stderr.strip().splitlines() or ["pytest gave no result"])[-1])
        return json.loads(result.read_text(encoding="utf-8"))["weeks"][0]


# --- in words ---------------------------------------------------------------------------------------------------------


def report(exercise: dict) -> list[str]:
    """A few lines: how many checks pass, and the first that does not."""
    name, checks = exercise["name"], exercise["checks"]
    points = f"{share(exercise):g} of {exercise['points_possible']} points"
    if exercise["state"] in ("not written", "missing"):
        return [f"· {name} is {STATES[exercise['state']]}; {points}"]
    star = " ★" if exercise["star"] else ""
    lines = [f"{'✓' if exercise['green'] else '✗'} {name}: {passed_of(checks)}; {points}{star}"]
    if broken := [check["test"] for check in exercise["not_passed"] if check["status"] == "broken"]:
        return [*lines, f"  The grader itself is broken in {broken[0]}; please report it."]
    for check in exercise["not_passed"]:
        if check["status"] == "failed" and (not exercise["green"] or not exercise["star"]):
            return [*lines, *failure(check, robust=exercise["green"])]
    return lines


STATES = {"not written": "not written yet", "missing": "not among the cells (is there a syntax error in its cell?)"}


def passed_of(checks: dict) -> str:
    if checks["passed"] == checks["expected"]:
        return f"all {checks['expected']} checks pass"
    return f"{checks['passed']} of {checks['expected']} checks pass"


def failure(check: dict, robust: bool) -> list[str]:
    """One check that does not pass: the claim, what happened, on which input."""
    lines = [f"  {'for the star: ' if robust else ''}{check['claim']}", f"  {check['words']}"]
    lines += [f"    {line}" for line in check["input"].splitlines()[:8]]
    lines += [f"    {name:<10} {check[name]}" for name in ("expected", "got") if check[name]]
    if check["misconception"]:
        lines += [f"  Your numbers equal “{check['misconception']}”."]
    return [line[:300] for line in lines]
