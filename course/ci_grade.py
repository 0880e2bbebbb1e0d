"""`python -m course.ci_grade ../fork`: what .github/workflows/grade.yml runs in a checkout of upstream.

It grades the weeks of a fork that changed with the graders of this checkout, and writes the score table as Markdown and
the result as JSON. Exit code 0 when the fork was graded, whatever its score; 2 when it could not be.
"""

import html
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from graders.exercises import CHECKOUT, Week, load_week, weeks
from reference_impl.errors import UserError
from reference_impl.launch import clean_exit
from reference_impl.options import value

NOTHING = "No week of this fork differs from its stub yet: nothing to grade."
WORDS = 160  # letters of a failure that the table shows


@dataclass(frozen=True)
class GradeCommand:
    """Grade the changed weeks of a fork with this checkout's graders."""

    fork: Annotated[Positional[Path], arg(metavar="FORK")]
    """The fork's folder."""
    json: Annotated[Path, value("FILE")]
    """Where the result goes."""
    before: Annotated[str, value("COMMIT")] = ""
    """Grade the weeks that changed since this commit of the fork; default, or a commit unknown there: all begun."""
    summary: Annotated[Path | None, value("FILE")] = None
    """The Markdown table is appended to this file (default: printed)."""


def main(args: list[str] | None = None) -> None:
    import tyro

    with clean_exit():
        command = tyro.cli(GradeCommand, prog="python -m course.ci_grade", args=args)
        if not command.fork.is_dir():
            raise UserError(f"there is no folder {command.fork}")
        fork = command.fork.resolve()
        numbers = changed(fork, begun(fork), command.before)
        text = table(graded(fork, numbers, command.json), fork) if numbers else f"{NOTHING}\n"
        if command.summary is None:
            print(text)
            return
        with command.summary.open("a", encoding="utf-8") as file:
            file.write(text)


# --- which weeks ------------------------------------------------------------------------------------------------------


def begun(fork: Path) -> list[str]:
    """The weeks whose file is there and is not upstream's stub."""
    found = []
    for week in map(load_week, weeks()):
        file = file_of(fork, week)
        if file.is_file() and fork in file.resolve().parents and file.read_bytes() != week.stub.read_bytes():
            found.append(week.week)
    return found


def changed(fork: Path, numbers: list[str], before: str) -> list[str]:
    """Those of them whose folder changed since `before`; all where git cannot tell, or where it was none of them."""
    if not re.fullmatch(r"[0-9a-f]{7,64}", before):
        return numbers
    command = ["git", "-C", str(fork), "diff", "--name-only", f"{before}..HEAD", "--", "weeks"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    touched = {Path(line).parts[1] for line in ran.stdout.splitlines() if line.count("/") > 1}
    return [number for number in numbers if number in touched] or numbers


def file_of(fork: Path, week: Week) -> Path:
    return fork / "weeks" / week.week / f"{week.module}.py"


# --- grading ----------------------------------------------------------------------------------------------------------


def graded(fork: Path, numbers: list[str], result: Path) -> dict:
    """The result of these weeks, also written to `result`. Nothing of the fork runs outside the sandbox."""
    command = [sys.executable, "-m", "pytest", *(f"weeks/{number}" for number in numbers), "-p", "no:cacheprovider"]
    command += ["--impl", str(fork), "--score-json", str(result.resolve())]
    ours = {name: text for name, text in os.environ.items() if not name.startswith(("PYTEST", "PYTHON"))}
    result.unlink(missing_ok=True)
    ran = subprocess.run(command, cwd=CHECKOUT, env=ours, capture_output=True, text=True, check=False)
    if ran.returncode not in (0, 1) or not result.is_file():
        raise UserError((ran.stderr.strip().splitlines() or ["pytest gave no result"])[-1].removeprefix("rlhf: "))
    return json.loads(result.read_text(encoding="utf-8"))


# --- the table --------------------------------------------------------------------------------------------------------


def table(result: dict, fork: Path) -> str:
    """The result as Markdown."""
    lines = []
    for week in result["weeks"]:
        sign = "✓" if week["green"] else "✗"
        points = f"{week['points']} of {week['points_possible']} points"
        lines += [f"### {sign} Week {week['week']} · {cell(week['title'])}: {points}, {week['stars']} ★", ""]
        lines += ["| | function | points | checks | ★ | first failure |", "|---|---|---|---|---|---|"]
        lines += [row(exercise) for exercise in week["exercises"]] + [""]
    if not result["graded"]:
        lines += ["**Not every check ran, so this is no grade.**", ""]
    lines += [f"Graders {result['graders_sha256'][:12]} ({commit(CHECKOUT)}), submission {commit(fork)}.", ""]
    return "\n".join(lines)


def row(exercise: dict) -> str:
    checks, points = exercise["checks"], f"{exercise['points']}/{exercise['points_possible']}"
    first = exercise["not_passed"][0] if exercise["not_passed"] else None
    written = exercise["state"] not in ("not written", "missing")
    sign = "✓" if exercise["green"] else "✗" if written else "·"
    cells = [sign, f"`{exercise['name']}`", points, f"{checks['passed']}/{checks['expected']}"]
    cells += [
        "★" if exercise["star"] else "",
        why(first) if first and written else "" if written else exercise["state"],
    ]
    return f"| {' | '.join(cells)} |"


def why(check: dict) -> str:
    """The claim that failed, and the mistake's name where it has one."""
    text = f"{check['claim']}: {check['words'] or check['status']}"
    text = text if len(text) <= WORDS else f"{text[: WORDS - 1]}…"
    return cell(f"{text} (“{check['misconception']}”)" if check["misconception"] else text)


def cell(text: str) -> str:
    """Text that is a table's cell whatever it holds: a submission can put its own words into an error message."""
    return re.sub(r"([\\|`*_\[\]~])", r"\\\1", html.escape(" ".join(text.split()), quote=False))


def commit(folder: Path) -> str:
    ran = subprocess.run(
        ["git", "-C", str(folder), "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True, check=False
    )
    return ran.stdout.strip() or "not in git"


if __name__ == "__main__":
    main()
