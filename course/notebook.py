"""`rlhf notebook build 05` writes nbgrader's source notebooks, `rlhf notebook collect ../kims-fork` its submissions.

What comes after is nbgrader's: generate_assignment, autograde, generate_feedback, export (nbgrader_config.py).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import OmitSubcommandPrefixes, Positional, arg, subcommand

from course.compare.forks import find_all, wanted
from course.notebook_build import HIDDEN_SEED, as_text, source_notebook
from course.notebook_collect import collect
from graders.exercises import CHECKOUT, UnknownWeek, load_week, weeks
from reference_impl.errors import UserError
from reference_impl.implementations import shown
from reference_impl.launch import clean_exit
from reference_impl.options import value
from reference_impl.runs.files import write_text

FOLDER = CHECKOUT / "notebooks"


@dataclass(frozen=True)
class Build:
    """Write the source notebooks (with solutions, for whoever grades) of the weeks named, or of all."""

    numbers: Annotated[Positional[tuple[str, ...]], arg(metavar="WEEK", name="weeks")] = ()
    """Weeks, for example 05 06; none means all."""
    folder: Annotated[Path, value("FOLDER")] = FOLDER
    """nbgrader's course folder (default: notebooks/ in this checkout)."""
    hidden_seed: Annotated[int, value("N")] = HIDDEN_SEED
    """Seed of the inputs that decide the grade; it is not in the students' copy."""


@dataclass(frozen=True)
class Collect:
    """Fill submitted/ from forks, one folder a member."""

    forks: Annotated[Positional[tuple[str, ...]], arg(metavar="NAME=PLACE")] = ()
    """kim=../kims-fork, kim=../fork:branch, kim=https://… (as for rlhf compare), or a forks.toml."""
    weeks: Annotated[str, value("05,06")] = ""
    """Weeks to collect; default: all that the fork has begun."""
    folder: Annotated[Path, value("FOLDER")] = FOLDER
    """nbgrader's course folder (default: notebooks/ in this checkout)."""


def main(args: list[str]) -> None:
    """Exits 2 with one message for an unknown week or a fork that is not to be had; the other forks are collected."""
    import tyro

    with clean_exit():
        commands = Annotated[Build, subcommand("build")] | Annotated[Collect, subcommand("collect")]
        command = tyro.cli(OmitSubcommandPrefixes[commands], prog="rlhf notebook", args=args)
        build(command) if isinstance(command, Build) else collect_all(command)


def build(command: Build) -> None:
    """One notebook a week; all weeks are made before the first is written."""
    made = {}
    for week in map(known, command.numbers or weeks()):
        place = command.folder / "source" / f"week{week.week}" / f"{week.module}.ipynb"
        made[place] = as_text(source_notebook(week, command.hidden_seed))
    prepare(command.folder)
    for place, text in made.items():
        place.parent.mkdir(parents=True, exist_ok=True)
        write_text(place, text)
        print(shown(place))
    first = next(iter(made)).parent.name
    print(
        f"Next: `uv run --extra notebooks nbgrader generate_assignment {first}` makes the students' copy in release/."
    )


def collect_all(command: Collect) -> None:
    """Every fork; one that is not to be had does not stop the others."""
    forks, theirs = wanted(list(command.forks))
    chosen = list(filter(None, command.weeks.split(","))) or theirs or weeks()
    numbers = [known(number).week for number in chosen]
    find_all(forks)
    prepare(command.folder)
    missing = []
    for fork in forks:
        if fork.folder is None:
            missing.append(fork.note or f"{fork.place} is a score file, not a fork")
            continue
        written = collect(fork, command.folder / "submitted", numbers)
        print(f"{fork.name}: {', '.join(written) or 'nothing written yet'}{f' ({fork.note})' if fork.note else ''}")
    if missing:
        raise UserError("; ".join(missing))


def prepare(folder: Path) -> None:
    """The course folder; git leaves it alone, since it holds solutions and other people's work."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / ".gitignore").exists():
        write_text(folder / ".gitignore", "*\n")


def known(number: str):
    """The week of that number, or a UserError that lists those there are."""
    try:
        return load_week(number)
    except UnknownWeek as problem:
        raise UserError(str(problem)) from None
