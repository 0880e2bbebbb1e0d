"""`rlhf solution 05 rloo_advantages`: the worked answer, once your own is green.

`--give-up` opens it before; that is recorded, with the day, in `.rlhf/gave-up.toml`.
"""

import ast
import sys
import tomllib
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from course.exercise import find_exercise, find_week, verdict_of
from graders.exercises import CHECKOUT, Exercise, Week
from reference_impl.errors import UserError
from reference_impl.launch import clean_exit
from reference_impl.runs.files import write_text

GAVE_UP = CHECKOUT / ".rlhf" / "gave-up.toml"


@dataclass(frozen=True)
class SolutionCommand:
    """The worked answer to a function, once your own is green."""

    week: Annotated[Positional[str], arg(metavar="WEEK")]
    """The week, for example 05."""
    function: Annotated[Positional[str], arg(metavar="FUNCTION")]
    """The function."""
    give_up: bool = False
    """Open it before your own is green; this is recorded."""


def main(args: list[str]) -> None:
    """Exits 1 while the function is not green, 2 with one message for a week or function that does not exist."""
    import tyro

    with clean_exit():
        command = tyro.cli(SolutionCommand, prog="rlhf solution", args=args)
        week = find_week(command.week)
        exercise = find_exercise(week, command.function)
        if command.give_up:
            give_up(week, exercise)
        elif not is_open(week, exercise):
            print(f"{exercise.name} of week {week.week} is not green yet. {ADVICE.format(week.week, exercise.name)}")
            sys.exit(1)
        print(worked_answer(week, exercise))


ADVICE = "`rlhf hint {0} {1}` goes one step further; `rlhf solution {0} {1} --give-up` opens the answer (recorded)."


def is_open(week: Week, exercise: Exercise) -> bool:
    """Green, by the last verdict or by grading now, or given up before."""
    if f"{week.week}.{exercise.name}" in given_up():
        return True
    from course.status import graded

    verdict = verdict_of(week) or graded([week])[week.week]
    if verdict is None:
        raise UserError(f"The grader gave no verdict; `uv run pytest weeks/{week.week}` says why.")
    return verdict["functions"][exercise.name]["green"]


def given_up() -> dict[str, str]:
    """The day on which each solution was opened before its function was green, by "week.function"."""
    try:
        return {name: str(day) for name, day in tomllib.loads(GAVE_UP.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError):
        return {}


def give_up(week: Week, exercise: Exercise) -> None:
    """Record it, unless the function is green by the last verdict or was given up before."""
    key, days = f"{week.week}.{exercise.name}", given_up()
    verdict = verdict_of(week)
    if key in days or (verdict and verdict["functions"][exercise.name]["green"]):
        return
    GAVE_UP.parent.mkdir(exist_ok=True)
    lines = sorted((days | {key: date.today().isoformat()}).items())
    write_text(GAVE_UP, "".join(f'"{name}" = {day}\n' for name, day in lines))


def worked_answer(week: Week, exercise: Exercise) -> str:
    """The function of solutions/NN with the helpers that it uses, as the file has them."""
    path = CHECKOUT / "solutions" / week.week / f"{week.module}.py"
    if not path.is_file():
        raise UserError(f"{path} is gone; `git checkout -- {path.relative_to(CHECKOUT)}` brings it back.")
    return f"# {path.relative_to(CHECKOUT)}\n\n" + excerpt(path, exercise.name)


def excerpt(path: Path, name: str) -> str:
    """One definition of a file and those of the same file that it needs, in the file's order."""
    text = path.read_text(encoding="utf-8")
    found = {}
    for node in ast.parse(text).body:
        for defined in _names(node):
            found[defined] = node
    needed, open_names = set(), [name]
    while open_names:
        defined = open_names.pop()
        if defined in found and defined not in needed:
            needed.add(defined)
            open_names += [n.id for n in ast.walk(found[defined]) if isinstance(n, ast.Name)]
    nodes = {id(found[defined]): found[defined] for defined in needed}.values()
    lines = text.splitlines()
    pieces = ["\n".join(lines[_first_line(node) - 1 : node.end_lineno]) for node in sorted(nodes, key=_first_line)]
    return "\n\n\n".join(pieces)


def _names(node: ast.stmt) -> list[str]:
    """What a top-level statement defines."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return [node.name]
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    return []


def _first_line(node: ast.stmt) -> int:
    return min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
