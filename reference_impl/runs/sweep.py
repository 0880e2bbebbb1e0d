"""What a sweep, algorithms x seeds, comes to: a figure with confidence bands, a table with intervals.

Bands are 95% t-intervals of the mean over seeds, at every logged step by itself. Two algorithms are compared by week
11's `paired_bootstrap`, over the seeds that both have: what a seed does to both cancels.
"""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from statistics import mean, stdev

from reference_impl.runs.plots import PANELS, grid, save_figure, smooth
from reference_impl.runs.run import read_metrics

MOST_PANELS = 6
LEFT_OUT = {"eval_length", "length_right", "length_wrong"}  # of the panels, for others to have room
LINES, MARKERS = ("-", "--", "-.", ":"), ("o", "s", "^", "D", "v", "P", "X", "*")
DRAWS = 10_000
# 97.5% quantile of Student's t by degrees of freedom; between two of them the wider one holds
STUDENT = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26, 14: 2.14, 29: 2.05}

Numbers = dict[str, dict[int, float]]  # algorithm -> seed -> the final number


def half_width(values: list[float]) -> float:
    """Of the 95% t-interval of their mean; 0 of a single number, which has none."""
    if len(values) < 2:
        return 0.0
    return STUDENT[max(known for known in STUDENT if known < len(values))] * standard_error(values)


def standard_error(values: list[float]) -> float:
    """Of the mean over seeds; NaN of a single number."""
    return stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")


def plot_sweep(runs: dict[str, list[Path]], target: Path) -> None:
    """Mean over the seeds and its band, {algorithm: run folders}; told apart by colour, line and marker alike."""
    import matplotlib

    matplotlib.use("Agg")

    rows = {name: [read_metrics(run) for run in folders] for name, folders in runs.items()}
    logged = {key for seeds in rows.values() for run in seeds for row in run for key in row}
    panels = [panel for panel in PANELS if panel[0] in logged - LEFT_OUT][:MOST_PANELS]
    figure, axes = grid(panels)
    for number, (name, seeds) in enumerate(rows.items()):
        for axis, (metric, _) in zip(axes.flat, panels, strict=False):
            curves = [smooth([(row["step"], row[metric]) for row in run if metric in row]) for run in seeds]
            draw_band(axis, [curve for curve in curves if curve], number, name)
    axes.flat[0].legend(fontsize=8, frameon=False)
    most = max(map(len, runs.values()))
    figure.supxlabel("step" + (f"        mean and its 95% interval over {most} seeds" if most > 1 else ""), fontsize=8)
    figure.tight_layout()
    save_figure(figure, target)


def draw_band(axis, curves: list[list[tuple[float, float]]], number: int, label: str) -> None:
    """One algorithm in one panel: where every seed has a point."""
    steps = [step for step, _ in curves[0]] if curves else []
    at = [dict(curve) for curve in curves]
    shared = [step for step in steps if all(step in points for points in at)]
    columns = [[points[step] for points in at] for step in shared]
    middle, half = [mean(column) for column in columns], [half_width(column) for column in columns]
    low, high = ([m + sign * h for m, h in zip(middle, half, strict=True)] for sign in (-1, 1))
    color = f"C{number}"
    axis.fill_between(shared, low, high, color=color, alpha=0.18, linewidth=0)
    axis.plot(
        shared,
        middle,
        color=color,
        linestyle=LINES[number % len(LINES)],
        marker=MARKERS[number % len(MARKERS)],
        markersize=4,
        markevery=max(1, len(shared) // 8),
        linewidth=1.5,
        label=label,
    )


def differences(numbers: Numbers) -> list[tuple[str, float, float, float, int]]:
    """(a - b, mean, low, high, seeds) of each two algorithms that share at least two seeds."""
    import torch

    from reference_impl.research import paired_bootstrap

    found = []
    for a, b in combinations(numbers, 2):
        seeds = sorted(numbers[a].keys() & numbers[b].keys())
        if len(seeds) > 1:
            pair = (torch.tensor([numbers[name][seed] for seed in seeds], dtype=torch.float64) for name in (a, b))
            found.append((f"{a} - {b}", *paired_bootstrap(*pair, DRAWS, torch.Generator().manual_seed(0)), len(seeds)))
    return found


def means(numbers: Numbers) -> list[tuple[str, str, str]]:
    """(algorithm, mean ± standard error, seeds) in words."""
    rows = []
    for name, seeds in numbers.items():
        values = list(seeds.values())
        error = f" ± {standard_error(values):.3f}" if len(values) > 1 else ""
        rows.append((name, f"{mean(values):.3f}{error}", str(len(values))))
    return rows


def verdict(low: float, high: float) -> str:
    return "above 0" if low > 0 else "below 0" if high < 0 else "not told apart"


def tables(numbers: Numbers, metric: str) -> list[tuple[list[str], list[tuple[str, ...]]]]:
    """Two tables, each its header and its rows."""
    told = [
        (what, f"{middle:+.3f}", f"{low:+.3f} to {high:+.3f}", str(seeds), verdict(low, high))
        for what, middle, low, high, seeds in differences(numbers)
    ]
    first = (["", f"{metric.replace('_', ' ')}, mean ± standard error", "seeds"], means(numbers))
    return [first, (["", "difference", "95% interval (paired bootstrap)", "seeds", ""], told)] if told else [first]


def sweep_page(numbers: Numbers, metric: str, failed: dict[str, str], command: str) -> str:
    """sweep.md."""
    lines = ["# Final numbers", "", f"`{command}`", ""]
    for header, rows in tables(numbers, metric):
        lines += [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)] + [""]
    if len(numbers) > 1:
        lines += ["With few seeds a bootstrap interval is too narrow: five are a beginning.", ""]
    lines += [f"- failed: {name}: {message}" for name, message in failed.items()]
    return "\n".join(lines).rstrip() + "\n"


def sweep_table(numbers: Numbers, metric: str) -> None:
    """The same on the screen."""
    from rich.table import Table

    from reference_impl.runs.progress import console

    for header, rows in tables(numbers, metric):
        table = Table(*header)
        for row in rows:
            table.add_row(*row)
        console.print(table)
