"""scaling.png: what samples and tokens buy, before and after training."""

from pathlib import Path

from reference_impl.runs.plots import save_figure


def plot_scaling(measured: dict, target: Path) -> None:
    """Accuracy against samples, within a budget of tokens, and by steps written; dashed before, solid after."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (samples, budget, steps) = plt.subplots(1, 3, figsize=(13.5, 3.8))
    for name, style in (("before", "--"), ("after", "-")):
        for color, (rule, curve) in enumerate(measured[name]["accuracy"].items()):
            samples.plot(curve.keys(), curve.values(), style, color=f"C{color}", marker=".", label=f"{rule}, {name}")
        curve = measured[name]["budget"]
        budget.plot(curve.keys(), curve.values(), style, color="C3", label=name)
        rows = measured[name]["steps"]
        offset = -0.2 if name == "before" else 0.2
        places = [count + offset for count in rows]
        face = "none" if name == "before" else "C4"
        steps.bar(places, [share for share, _ in rows.values()], 0.4, facecolor=face, edgecolor="C4", label=name)
        steps.bar(
            places,
            [share * right for share, right in rows.values()],
            0.4,
            facecolor="none",
            hatch="///",
            edgecolor="C4" if name == "before" else "black",
            label=f"{name}, of them right",
        )
    samples.set_xscale("log", base=2)
    samples.set_xticks(list(measured["before"]["accuracy"]["pass@n"]))
    samples.xaxis.set_major_formatter("{x:.0f}")
    for axis, title, label in (
        (samples, "accuracy from n samples", "n"),
        (budget, "right and ended within the budget", "tokens"),
        (steps, "share of the samples", "steps written"),
    ):
        axis.set_title(title, fontsize=9)
        axis.set_xlabel(label, fontsize=8)
        axis.set_ylim(0, 1.02)
        axis.tick_params(labelsize=8)
        axis.legend(fontsize=7, frameon=False)
    figure.tight_layout()
    save_figure(figure, target)
