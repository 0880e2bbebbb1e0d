"""`rlhf present 05`: the week's demo in JupyterLab, one document on the screen, in letters for the last row.

`--build` runs it beforehand and keeps the outputs under .rlhf/present/, for a room without time or a laptop on battery;
every cell can still be run again. Nothing here needs a network.
"""

import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from reference_impl.errors import UserError
from reference_impl.implementations import ROOT, WEEKS, shown, week_folder, week_name
from reference_impl.launch import clean_exit
from reference_impl.options import value
from reference_impl.runs.files import write_text

FOLDER = ROOT / ".rlhf" / "present"
SEED_CELL = """import random

import numpy
import torch

for seed in (random.seed, numpy.random.seed, torch.manual_seed):
    seed({seed})  # the same figures every time"""
SETTINGS = {  # of this JupyterLab alone; your own stay as they are
    "apputils-extension/themes": {
        "overrides": {"code-font-size": "18px", "content-font-size1": "20px", "ui-font-size1": "15px"}
    },
    "apputils-extension/notification": {"checkForUpdates": False, "fetchNews": "false"},
}
NO_EXTRA = "presenting needs JupyterLab and jupytext: uv run --extra notebooks rlhf present {week}"


@dataclass(frozen=True)
class PresentCommand:
    """Open a week's demo in JupyterLab for the meeting."""

    week: Annotated[Positional[str], arg(metavar="WEEK")]
    """The week, for example 05."""
    build: bool = False
    """Run all cells first and keep their outputs (takes as long as the demo, some minutes)."""
    seed: Annotated[int, value("N")] = 0
    """Seed of Python, numpy and torch at the start."""
    open: bool = True
    """Open JupyterLab; --no-open only prepares the notebook."""
    browser: bool = True
    """Let JupyterLab open a browser window; --no-browser prints the address."""


def main(args: list[str]) -> None:
    """Exits 2 with one message when there is no such demo, no JupyterLab, or a cell of the demo fails."""
    import tyro

    with clean_exit():
        command = tyro.cli(PresentCommand, prog="rlhf present", args=args)
        target = prepare(week_name(command.week), command.seed, command.build)
        if command.open:
            subprocess.run(lab(target, command.browser), check=False)


def prepare(week: str, seed: int = 0, build: bool = False) -> Path:
    """The notebook to open: with its outputs when it was built from this demo, else without."""
    demo = week_folder(week) / "demo.py"
    if not demo.is_file():
        raise UserError(f"Week {week} has no demo: {shown(demo)} does not exist.")
    target, made_of = FOLDER / f"{week}.ipynb", fingerprint(week, demo, seed)
    had = kept(target)
    if not build and had == made_of:
        print(f"{shown(target)}: with the outputs of an earlier run; every cell can be run again.")
        return target
    notebook = from_script(demo, week, seed)
    if build:
        run_all(notebook, demo.parent)
        notebook.metadata["rlhf"] = {"made_of": made_of}
    FOLDER.mkdir(parents=True, exist_ok=True)
    write_text(target, json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")
    if build:
        print(f"{shown(target)}: every cell has its output.")
    else:
        why = "the demo has changed since its outputs were made" if had else "no outputs yet"
        print(f"{shown(target)}: {why}. Run the cells as you talk, or `rlhf present {week} --build` beforehand.")
    return target


def fingerprint(week: str, demo: Path, seed: int) -> str:
    """What the outputs depend on: the demo, the solution that it shows, the seed."""
    digest = hashlib.sha256(f"{seed}\n".encode())
    for path in (demo, ROOT / "solutions" / week / f"{WEEKS[week]}.py"):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def kept(target: Path) -> str | None:
    """What a notebook's outputs were made of; None when it has none, or cannot be read."""
    try:
        return json.loads(target.read_text(encoding="utf-8"))["metadata"]["rlhf"]["made_of"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def from_script(demo: Path, week: str, seed: int):
    """The percent script as a notebook; after its title, a folded cell that sets the seed."""
    try:
        import jupytext
        from nbformat.v4 import new_code_cell
    except ImportError:
        raise UserError(NO_EXTRA.format(week=week)) from None
    notebook = jupytext.read(demo, fmt="py:percent")
    folded = new_code_cell(SEED_CELL.format(seed=seed), metadata={"jupyter": {"source_hidden": True}})
    notebook.cells.insert(1, folded)
    return notebook


def run_all(notebook, folder: Path) -> None:
    """Run every cell, in the week's folder as JupyterLab would. UserError when one fails: then nothing is kept."""
    try:
        from nbclient import NotebookClient
        from nbclient.exceptions import CellExecutionError
    except ImportError:
        raise UserError(NO_EXTRA.format(week=folder.name)) from None
    count = len(notebook.cells)
    client = NotebookClient(notebook, timeout=None, resources={"metadata": {"path": str(folder)}})
    client.on_cell_start = lambda cell, cell_index: print(f"\rcell {cell_index + 1} of {count}", end="", flush=True)
    try:
        client.execute()
    except CellExecutionError as error:
        raise UserError(f"a cell of {shown(folder / 'demo.py')} failed: {error.ename}: {error.evalue}") from None
    finally:
        print("\r", end="")


def lab(target: Path, browser: bool) -> list[str]:
    """The command that opens one notebook in JupyterLab's single-document view, with settings of its own."""
    try:
        import jupyterlab  # noqa: F401
    except ImportError:
        raise UserError(NO_EXTRA.format(week=target.stem)) from None
    settings = FOLDER / "settings"
    for name, setting in SETTINGS.items():
        file = settings / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps(setting, indent=1) + "\n")
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={target.parent}"]
    command += [f"--LabApp.default_url=/doc/tree/{target.name}", f"--LabApp.user_settings_dir={settings}"]
    command += [f"--LabApp.workspaces_dir={FOLDER / 'workspaces'}"]
    return command if browser else [*command, "--no-browser"]
