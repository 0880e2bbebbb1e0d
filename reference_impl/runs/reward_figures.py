"""The figures of weeks 03 and 04: reward models while they learn, and what choosing by them gives."""

from pathlib import Path

from reference_impl.runs.plots import save_figure

GREYS = {"random": "0.7", "majority": "0.45", "verifier": "black"}  # choosers that need no model


def plot_reward_models(
    target: Path,
    rows: list[dict],
    labels: dict[str, str],
    bins: list[tuple[float, float, int]],
    chosen: dict[str, dict[int, float]],
) -> None:
    """Pair accuracy and AUC while training, one curve a model; reliability of the outcome model; best of n."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(9, 6.6))
    panels = (("pair_accuracy", "held-out pair accuracy"), ("auc", "AUC across prompts"))
    for axis, (metric, title) in zip(axes[0], panels, strict=True):
        for number, (name, label) in enumerate(labels.items()):
            points = [(row["step"], row[f"{metric}_{name}"]) for row in rows if f"{metric}_{name}" in row]
            if points:
                axis.plot(*zip(*points, strict=True), marker=".", color=f"C{number}", label=label)
        axis.axhline(0.5, color="grey", linewidth=0.8, linestyle=":")
        axis.set(title=title, xlabel="step", ylim=(0.3, 1.0))
    axes[0, 0].legend(fontsize=8, frameon=False)
    axes[1, 0].plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle=":")
    if bins:
        most = max(count for *_, count in bins)
        said, was, sizes = zip(*[(said, was, 10 + 150 * count / most) for said, was, count in bins], strict=True)
        axes[1, 0].scatter(said, was, s=sizes, color="C1", alpha=0.6)
    axes[1, 0].set(title="outcome model: said and was (area: how many)", xlabel="probability", ylabel="share right")
    for number, name in enumerate(labels):
        if name in chosen:
            axes[1, 1].plot(chosen[name].keys(), chosen[name].values(), marker="o", color=f"C{number}")
    axes[1, 1].set(title="accuracy of the best-scored of n", xlabel="n")
    sizes = sorted({n for curve in chosen.values() for n in curve})
    axes[1, 1].set_xscale("log", base=2)
    axes[1, 1].set_xticks(sizes, sizes)
    figure.tight_layout()
    save_figure(figure, target)


def plot_along(target: Path, titles: list[str], tokens: list[list[str]], along: list[list[float]]) -> None:
    """The probability of being right at each token of some wrong completions."""
    if not titles:
        return
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    height = -(-len(titles) // 2)
    figure, axes = plt.subplots(height, 2, figsize=(10, 2.1 * height), squeeze=False)
    for axis in axes.flat[len(titles) :]:
        axis.remove()
    for axis, title, text, values in zip(axes.flat, titles, tokens, along, strict=False):
        axis.step(range(len(values)), values, where="mid", color="C1")
        axis.axhline(0.5, color="grey", linewidth=0.8, linestyle=":")
        axis.set(ylim=(0, 1.02))
        axis.set_xticks(range(len(text)), text, fontsize=7)
        axis.set_title(title, fontsize=9)
    figure.supylabel("P(right in the end | tokens so far)", fontsize=9)
    figure.tight_layout()
    save_figure(figure, target)


def plot_best_of_n(target: Path, curves: dict[str, dict], models: list[str]) -> None:
    """Accuracy against N with error bars for every chooser; and, of the models, the score of what they choose."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6))
    for name, curve in curves.items():
        style = {"linestyle": "-"} if name in models else {"linestyle": "--", "color": GREYS[name]}
        points = list(curve.values())
        left.errorbar(list(curve), [c.accuracy for c in points], [c.error for c in points], label=name, **style)
        if name in models:
            right.plot(list(curve), [c.score for c in points], marker=".", label=name)
    left.set(title="accuracy of the chosen sample", xlabel="N")
    right.set(title="its score", xlabel="N")
    for axis in (left, right):
        axis.set_xscale("log", base=2)
        axis.set_xticks(list(curve), list(curve))
        axis.legend(fontsize=8, frameon=False)
    figure.tight_layout()
    save_figure(figure, target)
