"""`rlhf compare ours=. red=../red-fork blue=https://… --weeks 05,06`: everybody's version, in one HTML file."""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from reference_impl.errors import UserError
from reference_impl.implementations import ROOT, WEEKS, shown, week_name
from reference_impl.launch import clean_exit
from reference_impl.options import value
from reference_impl.runs.files import write_text
from reference_impl.runs.progress import console


@dataclass(frozen=True)
class CompareCommand:
    """Grade several forks with this checkout's graders and lay them side by side in one HTML file."""

    forks: Annotated[Positional[tuple[str, ...]], arg(metavar="NAME=PLACE", help_behavior_hint="")] = ()
    """For each fork its name and a folder, folder:branch, git URL or score file; or one forks.toml (the default)."""
    weeks: Annotated[str, value("WEEKS")] = ""
    """For example 05,06 (default: all)."""
    out: Annotated[Path, value("FILE")] = ROOT / "runs" / "compare.html"
    """The HTML file (default: runs/compare.html in this checkout)."""
    json: Annotated[Path | None, value("FILE")] = None
    """Write everything as JSON too."""
    anonymous: bool = False
    """Call the forks A, B, C … and show no comments of their code."""
    trust: bool = False
    """Run the forks' code without a sandbox."""
    train: bool = False
    """Train with each fork's functions first, all with the same seeds; the runs lie beside the HTML file."""
    algorithms: Annotated[str, value("NAMES")] = ""
    """What to train, for example rloo,grpo (default: what `rlhf demo` trains in these weeks)."""
    seeds: Annotated[str, value("SEEDS")] = "0"
    """Seeds of the training, for example 0-2."""
    set: Annotated[tuple[str, ...], value("KEY=VALUE ...")] = ()
    """Settings of the training, for example --set steps=50."""
    cores: Annotated[int | None, value("N")] = None
    """How many processes work at once (default: one a core)."""


def main(args: list[str]) -> None:
    """Exits 2 with one message after a mistake, 130 after Ctrl-C."""
    import tyro

    with clean_exit():
        compare(tyro.cli(CompareCommand, prog="rlhf compare", args=args))


def compare(command: CompareCommand) -> dict[str, Any]:
    """Fetch, grade, train, read, write; returns the table that the page shows."""
    from course.compare import forks as places

    forks, from_file = places.wanted(list(command.forks))
    weeks = chosen_weeks(command.weeks, from_file)
    for path in filter(None, (command.out, command.json)):
        check_writable(path)
    with console.status("Fetching the forks ..."):
        places.find_all(forks)
    if all(fork.folder is None and fork.scores is None for fork in forks):
        raise UserError("no fork can be read:\n" + "\n".join(f"  {fork.name}: {fork.note}" for fork in forks))
    os.environ["OMP_NUM_THREADS"] = "1"  # tiny tensors, and one process a core
    cores = command.cores or os.cpu_count() or 1
    wrap = sandbox(forks, command.trust)
    results = graded(forks, weeks, wrap, cores)
    runs = found_runs(forks, weeks)
    if command.train:
        from course.compare.train import train_all

        runs += train_all(forks, weeks, command, wrap, cores)

    from course.compare import gather, page, table

    data = gather.gather(forks, weeks, results, runs)
    if command.anonymous:
        data = gather.masked(data, forks)
    write_text(command.out, page.render(data))
    if command.json:
        write_text(command.json, json.dumps(data, indent=1) + "\n")
    table.show(data, console)
    console.print(f"{shown(command.out.resolve())} has it all, side by side; a browser opens it.", soft_wrap=True)
    return data


def chosen_weeks(text: str, from_file: list[str] | None) -> list[str]:
    """The weeks of --weeks, of forks.toml, or all of them."""
    names = [part.strip() for part in text.split(",") if part.strip()] or from_file or list(WEEKS)
    return sorted({week_name(name) for name in names})


def check_writable(path: Path) -> None:
    """Before the work, not after it."""
    if path.is_dir():
        raise UserError(f"{path} is a folder; name a file")
    if not path.resolve().parent.is_dir():
        if path.resolve().parent != ROOT / "runs":
            raise UserError(f"{path}: there is no folder {path.resolve().parent}")
        path.resolve().parent.mkdir()


def sandbox(forks: list, trust: bool) -> list[str] | None:
    """The sandbox for all forks; None with --trust, or when there is none and nothing comes from outside."""
    from course.compare import fence
    from graders.sandbox import NoSandbox

    if trust:
        return None
    try:
        return fence.wrap()
    except NoSandbox as problem:
        if all(fork.folder is None or fork.folder.is_relative_to(ROOT) for fork in forks):
            return None
        raise UserError(f"{problem}. `rlhf doctor` tells how to get it") from None


def graded(forks: list, weeks: list[str], wrap, cores: int) -> dict[tuple[str, str], dict[str, Any]]:
    """(fork, week) -> result of everything that can be graded, and of what was graded elsewhere."""
    import torch  # noqa: F401  (here, before the grading processes are forked, so that they share it)

    from course.compare import gather, grade
    from graders import declare, diagnosis, scores  # noqa: F401

    results: dict[tuple[str, str], dict[str, Any]] = {}
    for fork in forks:
        if fork.scores:
            try:
                found = gather.read_scores(fork.scores, weeks)
                results |= {(fork.name, week): result for week, result in found.items()}
                fork.note = "graded elsewhere; no code to show"
            except gather.NotAScore as problem:
                fork.note = f"{fork.place} is no score file: {problem}"
    here = tuple((fork.name, fork.folder) for fork in forks if fork.folder)
    jobs = [grade.Job(week, here) for week in weeks] if here else []
    with console.status("") as status:
        status.update(f"Grading {len(here)} forks, {len(weeks)} weeks ...")
        for done, (name, week, result) in enumerate(grade.grade_all(jobs, wrap, cores), 1):
            results[name, week] = result
            status.update(f"Grading: {done} of {len(here) * len(weeks)} done ...")
    return results


def found_runs(forks: list, weeks: list[str]) -> list[dict[str, Any]]:
    """The runs of all forks."""
    from course.compare.runs import find_runs

    return [run for fork in forks if fork.folder for run in find_runs(fork.name, fork.folder, weeks)]


if __name__ == "__main__":
    main(sys.argv[1:])
