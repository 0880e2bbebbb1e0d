"""Every presenter's demo runs from its first cell to its last, as a script and as a notebook would."""

import os
import subprocess
import sys

import pytest

from reference_impl.implementations import ROOT

DEMOS = sorted(ROOT.glob("weeks/*/demo.py"))


@pytest.mark.slow
@pytest.mark.parametrize("demo", DEMOS, ids=[path.parent.name for path in DEMOS])
def test_the_demo_runs_from_the_first_cell_to_the_last(demo):
    environment = {**os.environ, "WANDB_MODE": "disabled"}
    done = subprocess.run([sys.executable, str(demo)], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "figure: " in done.stdout


@pytest.mark.parametrize("demo", DEMOS, ids=[path.parent.name for path in DEMOS])
def test_the_demo_is_a_jupytext_script_with_a_slot_for_a_students_file(demo):
    text = demo.read_text(encoding="utf-8")
    assert text.startswith("# ---\n# jupyter:") and "# %% [markdown]" in text and "\n# %%\n" in text
    assert '\nIMPL = "solution"' in text


@pytest.mark.parametrize("demo", DEMOS, ids=[path.parent.name for path in DEMOS])
def test_the_demo_explains_before_it_computes(demo):
    """A cell of prose first, never two in a row, and at most two cells of code without a word between them."""
    cells = [line.strip() for line in demo.read_text(encoding="utf-8").splitlines() if line.startswith("# %%")]
    kinds = "".join({"# %% [markdown]": "p", "# %%": "c"}[cell] for cell in cells)
    assert kinds.startswith("pc") and "pp" not in kinds and "ccc" not in kinds, kinds
