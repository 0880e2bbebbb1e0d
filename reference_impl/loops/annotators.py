"""What a pool of annotators prefers: fitted strengths, cycles that no strengths can explain, and agreement.

The second and third camp of a made pool (reference_impl/data/annotators.py) grow from none to two thirds of it. Nobody
contradicts themselves at any time; the majority does.
"""

from pathlib import Path
from statistics import mean, stdev

import torch
from torch import Tensor

from reference_impl.data.annotators import Pool, make_pool
from reference_impl.errors import UserError
from reference_impl.implementations import require_written
from reference_impl.runs.plots import save_figure
from reference_impl.runs.progress import console
from reference_impl.runs.run import Run
from reference_impl.settings import RejectionSettings

NEEDS = ("fit_bradley_terry", "preference_cycles", "cohen_kappa")
SHARES = (0.0, 1 / 6, 1 / 3, 1 / 2, 2 / 3)  # of the second and third camp together; at 2/3 all three are equal


def measure_pools(functions, settings: RejectionSettings, run: Run) -> dict[str, float]:
    """Means over `settings.pools` pools of each mixture, also written to pool.md; and pool.png."""
    require_written(settings.week, settings.impl, NEEDS)
    generator = torch.Generator().manual_seed(settings.seed)
    rows, shown = [], {}
    for share in SHARES:
        pools = [make_pool(share, settings.annotators, settings.items, generator) for _ in range(settings.pools)]
        measured = [measure(pool, functions) for pool in pools]
        rows.append({"share": share} | {key: [m[key] for m in measured if m[key] is not None] for key in measured[0]})
        shown[share] = (pools[0].scores[0], functions.fit_bradley_terry(pools[0].wins))
    page = table_page(rows, settings)
    run.write("pool.md", page)
    console.print(page)
    draw(run.path / "pool.png", rows, shown, settings)
    return {
        f"{key} share={row['share']:.2f}": mean(values)
        for row in rows
        for key, values in row.items()
        if key != "share" and values
    }


def measure(pool: Pool, functions) -> dict[str, float | None]:
    """One pool.

    cycles       3-cycles of majorities
    spread       standard deviation of the fitted strengths
    upset        share of the pairs whose majority goes against the fitted strengths
    kappa_within, kappa_between    of two annotators of one camp, and of two camps; None when there is no such pair
    """
    strengths = functions.fit_bradley_terry(pool.wins)
    if not isinstance(strengths, Tensor) or strengths.shape != (len(pool.wins),):
        raise UserError(f"fit_bradley_terry should return a tensor of shape ({len(pool.wins)},), not {strengths!r}.")
    majority = pool.wins > pool.wins.T
    against = majority & (strengths[:, None] < strengths[None, :])
    first = torch.nonzero(pool.camps == pool.camps[-1])[:, 0].tolist()
    others = torch.nonzero(pool.camps != pool.camps[-1])[:, 0].tolist()
    return {
        "cycles": float(len(functions.preference_cycles(pool.wins))),
        "spread": strengths.std().item(),
        "upset": (against.sum() / majority.sum()).item(),
        "kappa_within": kappa(pool, first[0], first[1], functions),
        "kappa_between": kappa(pool, first[0], others[0], functions) if others else None,
    }


def kappa(pool: Pool, one: int, other: int, functions) -> float:
    """Agreement of two annotators on every pair of answers."""
    i, j = torch.triu_indices(*pool.wins.shape, offset=1)
    return functions.cohen_kappa(pool.votes[one, i, j], pool.votes[other, i, j])


def triples(items: int) -> float:
    """How many of them there are."""
    return items * (items - 1) * (items - 2) / 6


def table_page(rows: list[dict], settings: RejectionSettings) -> str:
    """Markdown: mean and standard error over the pools."""
    coin = triples(settings.items) / 4
    lines = [
        f"{settings.pools} pools of {settings.annotators} annotators and {settings.items} answers a row; "
        f"{triples(settings.items):.0f} triples of answers, of which coin flips would make {coin:.0f} cyclic",
        "",
        "| share of camps 2 and 3 | cycles | spread of strengths | majorities against them | kappa within | between |",
        "|---|---|---|---|---|---|",
    ]
    keys = ("cycles", "spread", "upset", "kappa_within", "kappa_between")
    for row in rows:
        cells = [f"{mean(row[key]):.2f} ± {error(row[key]):.2f}" if row[key] else "" for key in keys]
        lines.append(f"| {row['share']:.2f} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def error(values: list[float]) -> float:
    """Standard error of the mean."""
    return stdev(values) / len(values) ** 0.5


def draw(target: Path, rows: list[dict], shown: dict, settings: RejectionSettings) -> None:
    """pool.png: cycles as the pool mixes, the strengths that are fitted to it, and agreement."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.6))
    shares = [row["share"] for row in rows]
    left.errorbar(shares, [mean(row["cycles"]) for row in rows], [2 * error(row["cycles"]) for row in rows], marker="o")
    left.axhline(triples(settings.items) / 4, color="black", linewidth=1, linestyle=":", label="coin flips")
    left.set_title(f"3-cycles of majorities, of {triples(settings.items):.0f} triples", fontsize=9)
    left.legend(fontsize=8, frameon=False)
    for share, (scores, strengths) in shown.items():
        middle.plot(scores, strengths, "o", markersize=4, label=f"{share:.2f}")
    middle.set_xlabel("score of an answer in the first camp")
    middle.set_title("fitted strength, one pool of each mixture", fontsize=9)
    middle.legend(fontsize=8, frameon=False, title="share of the others", title_fontsize=8)
    for key in ("kappa_within", "kappa_between"):
        points = [(row["share"], mean(row[key])) for row in rows if row[key]]
        right.plot(*zip(*points, strict=True), marker="o", label=key.replace("kappa_", "two annotators, "))
    right.axhline(0, color="black", linewidth=1)
    right.set_title("Cohen's kappa", fontsize=9)
    right.legend(fontsize=8, frameon=False)
    for axis in (left, right):
        axis.set_xlabel("share of the second and third camp")
    figure.tight_layout()
    save_figure(figure, target)
