"""`rlhf hint 05 rloo_advantages`: one rung of a function's ladder of hints at a time.

How many rungs a member has seen stands in `.rlhf/hints.toml`, a line a function; the hints themselves stand in
graders/exercises/NN.toml.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from course.exercise import current_exercise, find_exercise, find_week
from graders.exercises import CHECKOUT, Exercise, Week
from reference_impl.errors import UserError
from reference_impl.launch import clean_exit
from reference_impl.runs.files import write_text

SEEN = CHECKOUT / ".rlhf" / "hints.toml"


@dataclass(frozen=True)
class HintCommand:
    """The next hint for a function: first a nudge, then the formula, then the shapes."""

    week: Annotated[Positional[str], arg(metavar="WEEK")]
    """The week, for example 05."""

    function: Annotated[Positional[str | None], arg(metavar="FUNCTION")] = None
    """The function, or test_mine where the week asks for a property of your own; default: the function you are at, the
    first that is wrong or not written."""

    again: bool = False
    """Show the hints seen so far, without a new one."""


def main(args: list[str]) -> None:
    """Exits 2 with one message for a week or function that does not exist."""
    import tyro

    with clean_exit():
        command = tyro.cli(HintCommand, prog="rlhf hint", args=args)
        week = find_week(command.week)
        exercise = chosen(week, command.function)
        print("\n".join(ladder(week, exercise, command.again)))


def chosen(week: Week, name: str | None) -> Exercise:
    """The exercise of that name, or the one that the student is at."""
    if week.own and name == week.own.name:
        return week.own
    if name is not None:
        return find_exercise(week, name)
    exercise = current_exercise(week)
    if exercise is None:
        names = ", ".join(exercise.name for exercise in week.exercises)
        raise UserError(f"Every function of week {week.week} is written. For which one? {names}.")
    return exercise


def ladder(week: Week, exercise: Exercise, again: bool) -> list[str]:
    """The lines to print: the hints seen so far and, unless `again`, one more, which is recorded."""
    seen = read_seen()
    key = f"{week.week}.{exercise.name}"
    count = min(seen.get(key, 0) + (not again), len(exercise.hints))
    if count != seen.get(key, 0):
        SEEN.parent.mkdir(exist_ok=True)
        write_text(SEEN, "".join(f'"{name}" = {n}\n' for name, n in sorted((seen | {key: count}).items())))
    lines = [f"Week {week.week}, {exercise.name}: lesson section '{exercise.section}' in {lesson(week)}"]
    lines += [f"  hint {rung} of {len(exercise.hints)}: {exercise.hints[rung - 1]}" for rung in range(1, count + 1)]
    if count == len(exercise.hints) and exercise is week.own:
        lines.append(f"  That was the last one. `pytest weeks/{week.week}` says what your property catches.")
    elif count == len(exercise.hints):
        lines.append(
            f"  That was the last one. `rlhf solution {week.week} {exercise.name}` opens the worked answer when your"
        )
        lines.append("  own is green, or with --give-up.")
    elif count:
        lines.append(f"  Still stuck? `rlhf hint {week.week} {exercise.name}` goes one rung further.")
    else:
        lines.append("  No hint seen yet.")
    return lines


def lesson(week: Week) -> Path:
    return week.stub.with_name("README.md").relative_to(CHECKOUT)


def read_seen() -> dict[str, int]:
    """How many hints of each function have been seen; a file that cannot be read counts as none."""
    try:
        table = tomllib.loads(SEEN.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError):
        return {}
    return {name: count for name, count in table.items() if isinstance(count, int)}
