"""An experiment of several arms: the same training under settings that differ in one thing, side by side."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from reference_impl.algorithms import ALGORITHMS
from reference_impl.config import checked
from reference_impl.implementations import load_functions, require_written
from reference_impl.runs.plots import plot_run, plot_runs
from reference_impl.runs.progress import console
from reference_impl.runs.run import Run, read_metrics
from reference_impl.settings import RLSettings

COMPARED = ("sampled_accuracy", "greedy_accuracy", "eval_length")
LAST = ("kl", "entropy", "clip_fraction", "ratio_high", "length_right", "length_wrong", "gradient_noise")


def compare_arms(arms: dict[str, dict[str, Any]], train: Callable, functions, settings: RLSettings, run: Run):
    """Train every arm, {name: its settings}, from the same seed; a run folder each, one table and one figure for all.

    train(functions, algorithm, settings, run) is the week's own. Returns "<result> <arm>" -> number.
    """
    changed = {name: checked(type(settings), settings.model_dump() | changes) for name, changes in arms.items()}
    for arm_settings in changed.values():
        row = ALGORITHMS[arm_settings.algorithm]
        if row.plugs_in(settings.week):
            require_written(settings.week, settings.impl, row.needs)
    paths, table = [], {}
    for name, arm_settings in changed.items():
        path, results = run_arm(name, arm_settings, train, functions, run)
        paths.append(path)
        table[name] = {key: results[key] for key in COMPARED} | last_tenth(read_metrics(path))
    plot_runs(paths, run.path / "curves.png", list(arms))
    page = table_page(table)
    run.write("arms.md", page)
    console.print(page)
    return {f"{key} {name}": number for name, row in table.items() for key, number in row.items()}


def run_arm(name: str, settings: RLSettings, train: Callable, functions, run: Run) -> tuple[Path, dict[str, float]]:
    """One arm in its own folder below the run's: (folder, results)."""
    console.print(f"[bold]{name}[/]")
    torch.manual_seed(settings.seed)
    row = ALGORITHMS[settings.algorithm]
    plugged = functions if row.plugs_in(settings.week) else load_functions(row.week, "reference")
    arm = Run.create(settings, run.path / "arms", name.replace(" ", "-"), mirrored=False)
    results = train(plugged, row, settings, arm)
    plot_run(arm.path)
    arm.close("finished", results=results)
    return arm.path, results


def last_tenth(rows: list[dict]) -> dict[str, float]:
    """Means of the training metrics over the last tenth of the steps."""
    begin = 0.9 * rows[-1]["step"]
    means = {}
    for key in LAST:
        values = [row[key] for row in rows if row["step"] > begin and key in row]
        if values:
            means[key] = sum(values) / len(values)
    return means


def table_page(table: dict[str, dict[str, float]]) -> str:
    """One column an arm, in Markdown."""
    keys = dict.fromkeys(key for row in table.values() for key in row)
    lines = ["Held-out numbers after training, and means over the last tenth of it", ""]
    lines += ["| | " + " | ".join(table) + " |", "|---|" + "---|" * len(table)]
    for key in keys:
        lines.append(
            f"| {key} | " + " | ".join(f"{row[key]:.3g}" if key in row else "" for row in table.values()) + " |"
        )
    return "\n".join(lines) + "\n"
