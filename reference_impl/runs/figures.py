"""Figures of the presenters' demos: inline in JupyterLab, as PNG files under runs/ when the demo runs as a script."""

import sys
from pathlib import Path

from reference_impl.implementations import ROOT, shown


def pyplot():
    """matplotlib.pyplot; without a notebook it draws to files only and opens no window."""
    import matplotlib

    if "ipykernel" not in sys.modules:
        matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def show(figure, week: str, name: str, folder: Path | None = None) -> None:
    """Save `figure` as runs/demo-<week>/<name>.png; a notebook shows it as well."""
    folder = folder or ROOT / "runs" / f"demo-{week}"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.png"
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    if "ipykernel" not in sys.modules:
        pyplot().close(figure)
        print(f"figure: {shown(path)}")
