"""curves.png: a run's metrics, over the band of the reference runs of the same algorithm.

The reference curves are small CSV files, weeks/NN/reference_curves/*.csv (columns algorithm, seed, step, metrics ...),
each with a .json beside it that tells settings, command, machine and versions.
"""

import csv
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from reference_impl.config import read_yaml
from reference_impl.errors import UserError
from reference_impl.implementations import week_folder
from reference_impl.runs.files import writing
from reference_impl.runs.run import read_metrics

MOST_PANELS = 15
PANELS = (  # metric, axis label; a run shows the first of those that it logged
    ("objective_gap", "J* - J, the largest over beta"),
    ("reward_mean", "training reward"),
    ("eval_reward", "held-out reward by the reward model"),
    ("sampled_accuracy", "held-out sampled accuracy"),
    ("greedy_accuracy", "held-out greedy accuracy"),
    ("pair_accuracy_bt", "pair accuracy: preference model"),
    ("pair_accuracy_orm", "pair accuracy: outcome model"),
    ("pair_accuracy_prm", "pair accuracy: process model"),
    ("auc_bt", "AUC across prompts: preference model"),
    ("auc_orm", "AUC across prompts: outcome model"),
    ("auc_prm", "AUC across prompts: process model"),
    ("brier_orm", "Brier score: outcome model"),
    ("step_accuracy_prm", "step accuracy: process model"),
    ("loss_bt", "loss: preference model"),
    ("loss_orm", "loss: outcome model"),
    ("loss_prm", "loss: process model"),
    ("eval_loss", "held-out loss"),
    ("accuracy_orm", "held-out accuracy of the reward model"),
    ("eval_accuracy", "held-out accuracy of the implicit reward"),
    ("chosen_logps", "log-prob of chosen"),
    ("rejected_logps", "log-prob of rejected"),
    ("eval_margin", "held-out margin"),
    ("eval_average_gap", "held-out gap of average log-probs"),
    ("response_length", "response length"),
    ("eval_length", "held-out response length"),
    ("length_right", "length of right completions"),
    ("length_wrong", "length of wrong completions"),
    ("entropy", "entropy (nats a token)"),
    ("kl", "KL to the reference (nats)"),
    ("eval_kl", "held-out KL to the reference (nats)"),
    ("clip_fraction", "share of tokens without gradient (clipped)"),
    ("ratio_low", "1% quantile of pi / pi_old"),
    ("ratio_high", "99% quantile of pi / pi_old"),
    ("gradient_noise", "gradient variance / mean square"),
    ("explained_variance", "explained variance of the critic"),
    ("informative_groups", "share of groups with unequal rewards"),
    ("grad_norm", "gradient norm"),
    ("loss", "training loss"),
)
SHARES = {"reward_mean", "sampled_accuracy", "greedy_accuracy", "accuracy_orm", "eval_accuracy"}  # drawn from 0 to 1
UNPLOTTED_DIFFERENCES = {"seed", "impl", "threads", "algorithm", "checkpoint_every"}


def plot_run(path: Path) -> None:
    """Write `curves.png` of one run folder."""
    plot_runs([path], path / "curves.png")


def plot_runs(paths: list[Path], target: Path, labels: list[str] | None = None) -> None:
    """Several runs in one figure, each over the band of its algorithm's reference runs.

    Runs are called by their algorithm, or by `labels`, and then drawn without bands: those have other settings.
    """
    import matplotlib

    matplotlib.use("Agg")

    runs = [(read_yaml(path / "config.yaml"), read_metrics(path)) for path in paths]
    logged = {name for _, rows in runs for row in rows for name in row}
    panels = [panel for panel in PANELS if panel[0] in logged][:MOST_PANELS]
    if not panels:
        return
    figure, axes = grid(panels)
    for number, (settings, rows) in enumerate(runs):
        name = labels[number] if labels else settings["algorithm"]
        band = None if labels else reference_band(settings)
        for axis, (metric, _) in zip(axes.flat, panels, strict=False):
            color = f"C{number}"
            draw_band(axis, band, metric, color)
            points = [(row["step"], row[metric]) for row in rows if metric in row]
            axis.plot(*zip(*smooth(points), strict=True) if points else ((), ()), color=color, label=name)
    axes.flat[0].legend(fontsize=8, frameon=False)
    figure.supxlabel("step" + ("" if labels else band_note(runs)), fontsize=8)
    figure.tight_layout()
    save_figure(figure, target)


def plot_reference(file: Path) -> None:
    """NAME.png beside a week's NAME.csv: mean and range over the seeds, a colour an algorithm."""
    import matplotlib
    from PIL import Image

    matplotlib.use("Agg")

    about = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
    found = {name: read_curves(file, name) for name in about["settings"]}
    panels = [panel for panel in PANELS if any(panel[0] in curves for curves in found.values())][:MOST_PANELS]
    figure, axes = grid(panels)
    for number, (name, curves) in enumerate(found.items()):
        for axis, (metric, _) in zip(axes.flat, panels, strict=False):
            draw_band(axis, {"curves": curves}, metric, f"C{number}", strength=0.9)
        axes.flat[0].plot([], [], color=f"C{number}", label=name)
    axes.flat[0].legend(fontsize=8, frameon=False)
    seeds = len(about["seeds"])
    whose = f"mean and range over {seeds} seeds" if seeds > 1 else f"one run, seed {about['seeds'][0]}"
    figure.supxlabel(f"step        {whose}", fontsize=8)
    figure.tight_layout()
    picture = file.with_suffix(".png")
    save_figure(figure, picture, dpi=80)
    with Image.open(picture) as full:  # it is committed, and 96 colours take a third of the space
        full.convert("RGB").quantize(96).save(picture, optimize=True)


def grid(panels: list[tuple[str, str]]):
    """An empty figure with one titled axis a panel: (figure, axes)."""
    import matplotlib.pyplot as plt

    columns = 1 if len(panels) == 1 else 2 if len(panels) <= 8 else 3
    height = -(-len(panels) // columns)
    figure, axes = plt.subplots(height, columns, figsize=(4.5 * columns, 2.7 * height), squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.remove()
    for axis, (metric, label) in zip(axes.flat, panels, strict=False):
        axis.set_title(label, fontsize=9)
        axis.tick_params(labelsize=8)
        if metric in SHARES:
            axis.set_ylim(0, 1.02)
    return figure, axes


def save_figure(figure, target: Path, dpi: int = 130) -> None:
    """Write a figure as PNG, in one step, and let go of it."""
    import matplotlib.pyplot as plt

    partial = target.with_name(f".{target.name}.partial")
    with writing(target):
        try:
            figure.savefig(partial, dpi=dpi, format="png")
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
            plt.close(figure)


def smooth(points: list[tuple[float, float]], parts: int = 40) -> list[tuple[float, float]]:
    """Means of about `parts` stretches, so that noise does not hide the curve; a short curve stays as it is."""
    width = len(points) // parts
    if width < 2:
        return points
    stretches = [points[i : i + width] for i in range(0, len(points), width)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in stretches]


def draw_band(axis, band: dict[str, Any] | None, metric: str, color: str, strength: float = 0.4) -> None:
    """Mean and range over the reference seeds, pale unless they are the subject."""
    curves = band["curves"].get(metric) if band else None
    if not curves:
        return
    smoothed = [smooth(curve) for curve in curves]
    length = min(map(len, smoothed))
    steps = [x for x, _ in smoothed[0][:length]]
    columns = [[curve[i][1] for curve in smoothed] for i in range(length)]
    axis.fill_between(steps, list(map(min, columns)), list(map(max, columns)), color=color, alpha=0.15, linewidth=0)
    axis.plot(steps, [sum(column) / len(column) for column in columns], color=color, alpha=strength, linewidth=1)


def reference_band(settings: dict[str, Any]) -> dict[str, Any] | None:
    """The reference curves of this algorithm whose settings differ least: {"curves": metric -> curves, "differs"}."""
    best = None
    for file in sorted((week_folder(settings["week"]) / "reference_curves").glob("*.csv")):
        about = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
        theirs = about["settings"].get(settings["algorithm"])
        if theirs is None:
            continue
        keys = (theirs.keys() & settings.keys()) - UNPLOTTED_DIFFERENCES  # a newer setting is not one they could have
        differs = sorted(key for key in keys if theirs.get(key) != settings.get(key))
        if best is None or len(differs) < len(best["differs"]):
            best = {"file": file, "differs": differs, "seeds": len(about["seeds"])}
    if best is None:
        return None
    return best | {"curves": read_curves(best["file"], settings["algorithm"])}


def read_curves(file: Path, algorithm: str) -> dict[str, list[list[tuple[float, float]]]]:
    """metric -> one curve [(step, value), ...] for each seed."""
    curves: dict[str, dict[str, list]] = defaultdict(lambda: defaultdict(list))
    try:
        with open(file, encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines):
                if row["algorithm"] != algorithm:
                    continue
                for metric, value in row.items():
                    if metric not in ("algorithm", "seed", "step") and value != "":
                        curves[metric][row["seed"]].append((float(row["step"]), float(value)))
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f"The reference curves {file} cannot be read: {error}.") from error
    return {metric: list(seeds.values()) for metric, seeds in curves.items()}


def band_note(runs: list[tuple[dict[str, Any], Any]]) -> str:
    """What the bands are, and in which settings they differ from the run."""
    bands = [band for band in (reference_band(settings) for settings, _ in runs) if band]
    if not bands:
        return ""
    differs = sorted({key for band in bands for key in band["differs"]})
    seeds = bands[0]["seeds"]
    note = f"        band: range over {seeds} reference seeds" if seeds > 1 else "        pale: one reference run"
    return note + (f", which differ in {', '.join(differs)}" if differs else "")
