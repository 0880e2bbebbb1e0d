"""The curves of forks: runs that lie in their `runs/` or that they committed elsewhere, and runs of `--train`.

Only runs with the fork's own functions count, and of each algorithm and seed the newest. Whatever stands in the files
was written by somebody else: numbers are taken from them, and names that this checkout knows.
"""

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reference_impl.algorithms import ALGORITHMS
from reference_impl.config import read_yaml
from reference_impl.errors import UserError
from reference_impl.runs.plots import PANELS, SHARES, reference_band, smooth
from reference_impl.runs.run import read_metrics

SKIPPED = {".git", ".venv", "venv", "node_modules", "__pycache__", "wandb", "checkpoint"}
MOST_FOLDERS, MOST_DEPTH, MOST_BYTES, MOST_SEEDS = 5000, 6, 8_000_000, 5
FEWEST_POINTS, MOST_PANELS = 2, 6
FILES = ("config.yaml", "metrics.jsonl", "summary.json")


def find_runs(fork: str, folder: Path, weeks: list[str], trained: bool = False) -> list[dict[str, Any]]:
    """The runs under `folder`, read. `trained`: of --train, where the functions came by a path."""
    newest: dict[tuple, dict] = {}
    for path in run_folders(folder):
        try:
            run = read_run(path, trained)
        except (UserError, OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            continue  # not a run, or not one that can be read
        if run is None or run["week"] not in weeks:
            continue
        key = (run["week"], run["algorithm"], run["experiment"], run["scale"], run["seed"])
        if key not in newest or newest[key]["started"] <= run["started"]:
            newest[key] = run
    return [
        {"fork": fork, "trained": trained, **run} for run in sorted(newest.values(), key=lambda run: run["started"])
    ]


def run_folders(folder: Path) -> Iterator[Path]:
    """Folders that hold a run's files; links are not followed."""
    seen = 0
    for here, inner, files in os.walk(folder):
        seen += 1
        depth = len(Path(here).relative_to(folder).parts)
        inner[:] = sorted(name for name in inner if name not in SKIPPED) if depth < MOST_DEPTH else []
        if seen > MOST_FOLDERS:
            return
        if set(FILES) <= set(files):
            inner[:] = []
            paths = [Path(here) / name for name in FILES]
            if not any(path.is_symlink() or path.stat().st_size > MOST_BYTES for path in paths):
                yield Path(here)


def read_run(path: Path, trained: bool) -> dict[str, Any] | None:
    """One run: where it belongs, its curves, its speed; None when the functions were not the fork's own."""
    settings, summary = read_yaml(path / "config.yaml"), json.loads((path / "summary.json").read_text(encoding="utf-8"))
    own = trained or settings.get("impl") == "student"
    if not own or settings["algorithm"] not in ALGORITHMS:
        return None
    curves: dict[str, list] = {}
    for row in read_metrics(path):
        for metric, _ in PANELS:
            if (value := number(row.get(metric))) is not None and (step := number(row.get("step"))) is not None:
                curves.setdefault(metric, []).append((step, value))
    results = summary.get("results") or {}
    return {
        "week": str(settings["week"]),
        "algorithm": settings["algorithm"],
        "experiment": str(summary["experiment"])[:40] if summary.get("experiment") else "",
        "scale": str(settings.get("scale", ""))[:20],
        "seed": int(settings["seed"]),
        "started": str(summary.get("started", ""))[:19],
        "status": str(summary.get("status", ""))[:20],
        "functions": str(summary.get("functions_sha256", "")),
        "tokens_per_second": number(results.get("tokens_per_second")),
        "seconds": number(summary.get("seconds")),
        "curves": {metric: smooth(points) for metric, points in curves.items()},
        "settings": {key: value for key, value in settings.items() if isinstance(key, str) and key.isidentifier()},
    }


def number(value: Any) -> float | None:
    """A finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(f"{value:.6g}") if math.isfinite(value) else None
    except OverflowError:
        return None


# --- figures ----------------------------------------------------------------------------------------------------------


def figures(runs: list[dict[str, Any]], week: str) -> list[dict[str, Any]]:
    """One figure for each algorithm (or experiment) of the week that somebody ran: panels with lines and a band."""
    kinds = dict.fromkeys((r["algorithm"], r["experiment"], r["scale"]) for r in runs if r["week"] == week)
    groups = [
        [r for r in runs if (r["week"], r["algorithm"], r["experiment"], r["scale"]) == (week, *k)] for k in kinds
    ]
    return [found for found in map(figure, groups) if found["panels"]]


def figure(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """All runs of one algorithm: for each metric the forks' lines over the range of the reference's seeds."""
    first = runs[0]
    shown: list[dict] = []
    for fork in dict.fromkeys(run["fork"] for run in runs):
        shown += [run for run in runs if run["fork"] == fork][-MOST_SEEDS:]
    band = reference_band(first["settings"]) if not first["experiment"] else None
    panels = []
    for metric, label in PANELS:
        lines = [
            {"fork": run["fork"], "seed": run["seed"], "points": run["curves"][metric]}
            for run in shown
            if len(run["curves"].get(metric, ())) >= FEWEST_POINTS
        ]
        if lines and len(panels) < MOST_PANELS:
            share = metric in SHARES
            panels.append(
                {"metric": metric, "label": label, "share": share, "lines": lines, "band": band_of(band, metric)}
            )
    return {
        "algorithm": first["algorithm"],
        "experiment": first["experiment"],
        "scale": first["scale"],
        "seeds": band["seeds"] if band else 0,
        "differs": band["differs"] if band else [],
        "runs": [{key: run[key] for key in run if key not in ("curves", "settings", "functions")} for run in shown],
        "panels": panels,
    }


def band_of(band: dict[str, Any] | None, metric: str) -> dict[str, list[float]] | None:
    """Steps, smallest, mean and largest value of the reference's seeds."""
    curves = [smooth(curve) for curve in (band or {}).get("curves", {}).get(metric, [])]
    if not curves:
        return None
    columns = list(zip(*curves, strict=False))
    values = [[value for _, value in column] for column in columns]
    return {
        "step": [column[0][0] for column in columns],
        "low": [min(column) for column in values],
        "mean": [number(sum(column) / len(column)) for column in values],
        "high": [max(column) for column in values],
    }
