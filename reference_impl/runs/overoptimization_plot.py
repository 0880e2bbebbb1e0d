"""overoptimization.png: proxy and gold reward against the distance that the policy has gone."""

import math
from pathlib import Path

from reference_impl.runs.plots import save_figure

TITLES = {"bon": "best of n", "rl": "RL"}


def plot_overoptimization(target: Path, arms: dict[str, tuple[dict, dict]]) -> None:
    """`arms`: name -> (points of each kind, fits of each kind). Dots are measured, lines are the fitted laws.

    Gold and proxy have different units: the verifier's share of right answers, and a preference model's score.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(10, 6.4), sharex="col")
    for column, kind in zip(axes.T, TITLES, strict=True):
        gold, proxy = column
        for number, (name, (points, fits)) in enumerate(arms.items()):
            color, found = f"C{number}", fits[kind]
            d = [math.sqrt(point["kl"]) for point in points[kind]]
            gained = [point["gold"] - points[kind][0]["gold"] for point in points[kind]]
            label = f"α = {found['alpha']:.2f}, β = {found['beta']:.2f}"
            label = f"{name}: {label}" if len(arms) > 1 else label
            gold.plot(d, gained, "o", color=color, markersize=3.5, label=label)
            if max(d) > 0 and not math.isnan(found["alpha"]):
                ticks = [max(d) * i / 100 for i in range(1, 101)]
                gold.plot(ticks, [law(kind, found, tick) for tick in ticks], color=color, linewidth=1)
            proxy.plot(d, [point["proxy"] for point in points[kind]], ".-", color=color, linewidth=0.8)
        gold.axhline(0, color="grey", linewidth=0.8, linestyle=":")
        gold.set_title(f"{TITLES[kind]}: gold reward gained (verifier)", fontsize=9)
        gold.legend(fontsize=7, frameon=False)
        proxy.set_title(f"{TITLES[kind]}: proxy reward", fontsize=9)
        proxy.set_xlabel("d = sqrt(KL)", fontsize=8)
    for axis in axes.flat:
        axis.tick_params(labelsize=8)
    figure.tight_layout()
    save_figure(figure, target)


def law(kind: str, found: dict[str, float], d: float) -> float:
    """d (alpha - beta d), or with log d."""
    return d * (found["alpha"] - found["beta"] * (d if kind == "bon" else math.log(d)))
