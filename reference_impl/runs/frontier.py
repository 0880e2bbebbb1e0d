"""frontier.png: reward against KL, the climbs of week 01 and the closed-form frontier that none can cross."""

from pathlib import Path

from reference_impl.runs.plots import save_figure


def plot_frontier(
    target: Path,
    frontier: list[dict[str, float]],
    paths: dict[float, list[tuple[float, float]]],
    best: dict[float, dict[str, float]],
) -> None:
    """`frontier` holds optima of many betas; `paths` the (KL, reward) of each climb; `best` the optimum of its beta."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(5.5, 4))
    points = sorted((point["kl"], point["reward"]) for point in frontier)
    axis.plot(*zip(*points, strict=True), color="black", linewidth=1, label="closed form, all beta")
    for number, (beta, path) in enumerate(paths.items()):
        axis.plot(*zip(*path, strict=True), color=f"C{number}", label=f"climb, beta = {beta:g}")
        axis.plot(best[beta]["kl"], best[beta]["reward"], "o", color=f"C{number}", markersize=6)
    axis.set_xlabel("KL to the reference (nats)")
    axis.set_ylabel("expected reward")
    axis.set_title("dots: where the closed form says each climb ends", fontsize=9)
    axis.legend(fontsize=8, frameon=False)
    figure.tight_layout()
    save_figure(figure, target)
