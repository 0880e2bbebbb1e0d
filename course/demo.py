"""`rlhf demo 05`: grade a week with an implementation plugged in, train with it live, compare before and after."""

import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from rich.panel import Panel
from rich.table import Table
from tyro.conf import Positional, arg

from reference_impl.config import week_config
from reference_impl.implementations import ROOT, WEEKS, impl_name, shown, week_file, week_name
from reference_impl.launch import clean_exit, find_launcher, launch
from reference_impl.options import Options, value
from reference_impl.runs.progress import console

BEFORE_AND_AFTER = {  # result: heading
    "sampled_accuracy": "mean verifier\nreward, held out",
    "greedy_accuracy": "greedy accuracy,\nheld out",
    "perplexity": "perplexity,\nheld out",
}


@dataclass(frozen=True)
class DemoCommand:
    """Grade a week, train its algorithms while you watch, and compare before with after."""

    week: Annotated[Positional[str], arg(metavar="WEEK")] = "05"
    """Which week (05 by default)."""
    impl: Annotated[str, value("WHOSE")] = "solution"
    """Whose functions: solution (the default), student (your own), reference, or a folder such as a fork."""
    seed: Annotated[int, value("N")] = 0
    """Seed of the runs."""
    steps: Annotated[int | None, value("N")] = None
    """Optimizer steps, if not those of config.yaml."""
    runs_dir: Annotated[Path, value("FOLDER")] = ROOT / "runs"
    """Where the demo's folder is made (default: runs/ in this checkout)."""


def main(args: list[str]) -> None:
    """Exits 2 with one message after a mistake, 130 after Ctrl-C."""
    import tyro

    with clean_exit():
        demo(tyro.cli(DemoCommand, prog="rlhf demo", args=args))


def demo(command: DemoCommand) -> None:
    """Grade, train, compare."""
    week = week_name(command.week)
    launcher, algorithms = find_launcher(week), week_config(week)["demo"]
    source = shown(week_file(week, command.impl))
    console.print(Panel(f"Week {week}: grade {source}, then train {' and '.join(algorithms)} with it", expand=False))

    console.rule(f"1  pytest weeks/{week} --impl {command.impl}", align="left")
    graded = grade(week, command.impl)

    folder = command.runs_dir / f"{week}-demo-{impl_name(command.impl)}-{datetime.now():%Y%m%d-%H%M%S}"
    summaries = {}
    for number, name in enumerate(algorithms, start=2):
        console.print()
        console.rule(f"{number}  rlhf train {week} --algorithm {name} --impl {command.impl}", align="left")
        options = Options(algorithm=name, impl=command.impl, seed=command.seed, steps=command.steps, runs_dir=folder)
        summaries[name] = launch(launcher, options, graded=True)

    console.print()
    console.rule("Before and after", align="left")
    console.print(table(summaries))
    compare_curves(summaries, folder / "curves.png")
    console.print(f"Curves   {shown(folder / 'curves.png')}", soft_wrap=True)
    console.print(f"Runs     {shown(folder)}/", soft_wrap=True)
    console.print(next_steps(week, command.impl, graded), soft_wrap=True)


def grade(week: str, impl: str) -> bool:
    """Run the week's grader as a student would; is it green?"""
    command = [sys.executable, "-m", "pytest", "-p", "graders.plugin", f"weeks/{week}", "--impl", impl]
    return subprocess.run(command, cwd=ROOT).returncode == 0


def table(summaries: dict[str, dict[str, Any]]) -> Table:
    """One row an algorithm: what it reached, how fast, how long it took."""
    results = {name: summary["results"] for name, summary in summaries.items()}
    shown_pairs = [key for key in BEFORE_AND_AFTER if any(f"{key}_before" in result for result in results.values())]
    if not shown_pairs:
        return plain_table(results)
    result_table = Table("algorithm", *(BEFORE_AND_AFTER[key] for key in shown_pairs), box=None, pad_edge=False)
    result_table.add_column("tokens/s", justify="right")
    result_table.add_column("seconds", justify="right")
    for name, result in results.items():
        cells = [f"{result[f'{key}_before']:.3f} -> [bold]{result[key]:.3f}[/]" for key in shown_pairs]
        speed = f"{result['tokens_per_second']:,.0f}" if "tokens_per_second" in result else ""
        result_table.add_row(name, *cells, speed, f"{summaries[name]['seconds']:.0f}")
    return result_table


def plain_table(results: dict[str, dict[str, Any]]) -> Table:
    """The results of every run, for a week that does not train a language model on a task.

    Not the curve "best of 1, 2, 4, ... by each": that is the runs' figure, and their summary.json has its numbers.
    """
    result_table = Table("result", *results, box=None, pad_edge=False)
    for key in dict.fromkeys(key for result in results.values() for key in result if "best of" not in key):
        result_table.add_row(key, *(f"{result[key]:.4g}" if key in result else "" for result in results.values()))
    return result_table


def compare_curves(summaries: dict[str, dict[str, Any]], target: Path) -> None:
    """All runs of the demo in one figure."""
    from reference_impl.runs.plots import plot_runs

    plot_runs([Path(summary["path"]) for summary in summaries.values()], target)


def next_steps(week: str, impl: str, graded: bool) -> str:
    """What to do now."""
    file = f"weeks/{week}/{WEEKS[week]}.py"
    if impl == "student" and graded:
        return f"\nThat was your own code. Next: the experiments in weeks/{week}/README.md."
    if impl == "student":
        return f"\nNext: `uv run pytest weeks/{week}` shows what is not green yet in {file}."
    return (
        f"\nNext, the same with your own code:\n"
        f"  1. read weeks/{week}/README.md and write {file}\n"
        f"  2. uv run pytest weeks/{week}\n"
        f"  3. uv run rlhf demo {week} --impl student"
    )
