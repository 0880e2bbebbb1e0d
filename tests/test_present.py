"""`rlhf present`: the demos are notebooks, run beforehand or not, and JupyterLab gets the right one."""

import json

import pytest

from course import present
from reference_impl.errors import UserError
from reference_impl.implementations import ROOT

jupytext = pytest.importorskip("jupytext")
DEMOS = sorted(ROOT.glob("weeks/*/demo.py"))
DEMO = """# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A demo

# %%
import random
import torch
print(round(random.random(), 6), round(torch.rand(1).item(), 6))
"""


@pytest.fixture
def week(tmp_path, monkeypatch):
    """A week 05 with a small demo, and a folder for what is kept of it."""
    monkeypatch.setattr(present, "FOLDER", tmp_path / "present")
    monkeypatch.setattr(present, "week_folder", lambda week: tmp_path)
    (tmp_path / "demo.py").write_text(DEMO)
    return tmp_path


def printed(target) -> list[str]:
    cells = json.loads(target.read_text())["cells"]
    return ["".join(output["text"]) for cell in cells for output in cell.get("outputs", [])]


@pytest.mark.parametrize("demo", DEMOS, ids=[path.parent.name for path in DEMOS])
def test_jupyterlab_opens_the_demo_as_the_notebook_that_it_is(demo):
    """As jupytext's contents manager reads it, from the file's own header."""
    text = demo.read_text(encoding="utf-8")
    read = jupytext.reads(text, fmt="py")
    assert [cell.cell_type for cell in read.cells] == [
        "markdown" if "[markdown]" in line else "code" for line in text.splitlines() if line.startswith("# %%")
    ]
    assert read.cells[0].source.startswith("# ") and not any("%%" in cell.source for cell in read.cells)
    again = jupytext.reads(jupytext.writes(read, fmt="py:percent"), fmt="py")
    assert [cell.source for cell in again.cells] == [cell.source for cell in read.cells]


def test_without_a_build_the_demo_opens_at_once_and_without_outputs(week, capsys):
    target = present.prepare("05")
    assert printed(target) == [] and "no outputs yet" in capsys.readouterr().out


@pytest.mark.slow
def test_a_build_keeps_the_outputs_until_the_demo_changes(week, capsys):
    first = printed(present.prepare("05", seed=3, build=True))
    assert len(first) == 1
    assert printed(present.prepare("05", seed=3)) == first  # opened again: nothing was run
    assert "outputs of an earlier run" in capsys.readouterr().out
    assert printed(present.prepare("05", seed=4)) == []  # other numbers would come
    assert printed(present.prepare("05", seed=3, build=True)) == first  # the seed decides
    (week / "demo.py").write_text(DEMO + "x = 1\n")
    assert printed(present.prepare("05", seed=3)) == []
    assert "has changed since" in capsys.readouterr().out
    (week / "demo.py").write_text(DEMO + "raise RuntimeError('no')\n")
    before = (week / "present" / "05.ipynb").read_bytes()
    with pytest.raises(UserError, match="demo.py failed: RuntimeError: no"):
        present.prepare("05", build=True)
    assert (week / "present" / "05.ipynb").read_bytes() == before


def test_a_file_that_is_no_notebook_counts_as_none(week):
    (week / "present").mkdir()
    (week / "present" / "05.ipynb").write_text("{")
    assert printed(present.prepare("05")) == []


def test_jupyterlab_shows_one_document_in_large_letters_with_settings_of_its_own(week):
    pytest.importorskip("jupyterlab")
    target = present.prepare("05")
    command = present.lab(target, browser=False)
    assert f"--ServerApp.root_dir={target.parent}" in command and "--LabApp.default_url=/doc/tree/05.ipynb" in command
    assert command[-1] == "--no-browser"
    themes = week / "present" / "settings" / "@jupyterlab" / "apputils-extension" / "themes.jupyterlab-settings"
    assert json.loads(themes.read_text())["overrides"]["code-font-size"] == "18px"


def test_a_week_that_is_not_there_is_one_message(capsys):
    with pytest.raises(SystemExit) as stop:
        present.main(["77", "--no-open"])
    assert stop.value.code == 2 and capsys.readouterr().err.startswith("error: There is no week '77'")


def test_without_the_extra_the_message_says_what_to_type(week, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "jupytext", None)
    with pytest.raises(UserError, match="uv run --extra notebooks rlhf present 05"):
        present.prepare("05")
