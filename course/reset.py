"""`rlhf reset 05 rloo_advantages`: a function (or the whole file) as it was before you wrote it.

What you wrote is saved first, in `.rlhf/saved/`. The stub comes from git: the newest version of the file, in any branch
or remote that this clone knows, in which nothing is written yet; that works in a fork where your own version has long
been committed.
"""

import ast
import subprocess
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from course.exercise import find_exercise, find_week
from graders.exercises import CHECKOUT, Week
from reference_impl.errors import UserError
from reference_impl.implementations import shown, unwritten_in
from reference_impl.launch import clean_exit
from reference_impl.runs.files import write_text

SAVED = CHECKOUT / ".rlhf" / "saved"


@dataclass(frozen=True)
class ResetCommand:
    """Put a stub back; your version is saved aside first."""

    week: Annotated[Positional[str], arg(metavar="WEEK")]
    """The week, for example 05."""
    function: Annotated[Positional[str | None], arg(metavar="FUNCTION")] = None
    """One function; default: the whole file."""


def main(args: list[str]) -> None:
    """Exits 2 with one message, and nothing changed, when the stub cannot be put back."""
    import tyro

    with clean_exit():
        command = tyro.cli(ResetCommand, prog="rlhf reset", args=args)
        week = find_week(command.week)
        print("\n".join(reset(week, command.function)))


def reset(week: Week, function: str | None) -> list[str]:
    """Save the student's version, put the stub back; the lines to print."""
    if function is not None:
        find_exercise(week, function)
    mine = week.stub.read_text(encoding="utf-8") if week.stub.is_file() else ""
    stub = pristine(week)
    new = stub if function is None else with_stub(mine, stub, function, week.stub)
    what = shown(week.stub) if function is None else f"{function} in {shown(week.stub)}"
    if new == mine:
        return [f"{what} is as it was handed out already."]
    lines = []
    if mine:
        copy = save(week, mine)
        lines = [f"Your version is saved: {shown(copy)}", f"  `cp {shown(copy)} {shown(week.stub)}` brings it back."]
    write_text(week.stub, new)
    return [f"{what}: the stub is back.", *lines]


def save(week: Week, text: str) -> Path:
    """A copy in .rlhf/saved/, under a name that is not taken."""
    SAVED.mkdir(parents=True, exist_ok=True)
    stem = f"{week.week}-{week.module}-{datetime.now():%Y%m%d-%H%M%S}"
    names = [stem, *(f"{stem}-{number}" for number in range(2, 100))]
    copy = next(path for name in names if not (path := SAVED / f"{name}.py").exists())
    write_text(copy, text)
    return copy


def pristine(week: Week) -> str:
    """The file as it was handed out: the newest version that git knows in which no function is written."""
    path = week.stub.relative_to(CHECKOUT).as_posix()
    names = [exercise.name for exercise in week.exercises]
    for commit in git("log", "--all", "--full-history", "--format=%H", "--", path).split():
        try:
            text = git("show", f"{commit}:{path}")
            if unwritten_in(text, names) == names:
                return text
        except (UserError, SyntaxError):  # deleted there, or broken
            continue
    raise UserError(
        f"git knows no version of {path} without your changes (a shallow clone, or a copy without history?). "
        "`git fetch --unshallow` gets the history; `git fetch upstream` gets the course's own version."
    )


def git(*words: str) -> str:
    """What git prints. UserError when there is no git, no repository, or git fails."""
    try:
        done = subprocess.run(["git", "-C", str(CHECKOUT), *words], capture_output=True, text=True, encoding="utf-8")
    except OSError:
        raise UserError("The stub comes from git's history, and git is not installed here.") from None
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1].removeprefix("fatal: ")
        raise UserError(f"The stub comes from git's history, and git says: {reason}.")
    return done.stdout


def with_stub(mine: str, stub: str, function: str, path: Path) -> str:
    """`mine` with the stub's text in place of this function; at the end when the function is gone."""
    try:
        begin, end = span(mine, function) or (None, None)
    except SyntaxError as error:
        raise UserError(
            f"Python cannot read {shown(path)}, line {error.lineno}: mend that first, or reset the whole file."
        ) from None
    old, new = mine.splitlines(keepends=True), stub.splitlines(keepends=True)
    first, last = span(stub, function)
    body = new[first:last]
    if begin is None:
        return mine.rstrip("\n") + "\n\n\n" + "".join(body)
    return "".join([*old[:begin], *body, *old[end:]])


def span(text: str, function: str) -> tuple[int, int] | None:
    """First line (from 0) and end of the top-level function that counts, the last of its name, with decorators."""
    for node in reversed(ast.parse(text).body):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == function:
            return min([node.lineno, *(d.lineno for d in node.decorator_list)]) - 1, node.end_lineno
    return None
