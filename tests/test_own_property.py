"""weeks/NN/test_mine.py, a property of the student's own: what is named, what earns the bonus, what it cannot break."""

import json
import subprocess
import sys
import textwrap

import pytest

from graders import mine
from graders.exercises import CHECKOUT, load_week, weeks
from graders.scores import graders_hash
from graders.submission import read

ASKING = [week for week in weeks() if load_week(week).own]
SOLUTION = (CHECKOUT / "solutions" / "05" / "reinforce.py").read_text()
HEAD = """\
import torch
from hypothesis import assume, given
from hypothesis import strategies as st


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(prompts=st.integers(1, 4), group=st.integers(2, 4), seed=st.integers(0, 99))
def test_mine(week, prompts, group, seed):
"""


def fork(folder, body: str, head: str = HEAD, functions: str = SOLUTION):
    """A folder laid out like solutions/, with this body of test_mine in week 05."""
    (folder / "05").mkdir()
    (folder / "05" / "reinforce.py").write_text(functions)
    (folder / "05" / "test_mine.py").write_text(head + textwrap.indent(textwrap.dedent(body).strip(), "    ") + "\n")
    return folder


def graded(folder, week: str = "05") -> mine.OwnProperty:
    own = mine.read(load_week(week), read(load_week(week), str(folder)))
    if own.status == "not run":
        mine.grade(own, mine.Trials(own.submission), seed=0)
    return own


def test_four_weeks_ask_for_one():
    assert ASKING == ["02", "05", "06", "08"]


@pytest.mark.parametrize("week", ASKING)
def test_the_worked_answer_earns_the_bonus_and_the_stub_is_not_written(week):
    own = graded(CHECKOUT / "solutions", week)
    assert (own.status, own.words, own.points) == ("passed", "", own.exercise.points)
    assert own.catches >= 5 and own.catches <= own.tried
    stub = mine.read(load_week(week), read(load_week(week), "student"))
    assert stub.status in ("not written", "not run")  # a fork may have written it
    assert len(own.exercise.hints) >= 3 and own.exercise.points > 0


def test_the_lessons_explain_it():
    for week in ASKING:
        lesson = load_week(week).stub.with_name("README.md").read_text(encoding="utf-8")
        assert f"### {load_week(week).own.section}\n" in lesson


BODIES = {
    "calls nothing": ("assert prompts * group >= 2", "vacuous: it calls no function"),
    "asserts nothing": ("week.rloo_advantages(draw(seed, prompts, group))", "vacuous: it asserts nothing"),
    "asserts what always holds": (
        "assert week.rloo_advantages(draw(seed, prompts, group)).shape == (prompts, group)",
        "vacuous: it passes on all 12 known wrong versions of rloo_advantages",
    ),
    "compares the function with itself": (
        "x = draw(seed, prompts, group)\nassert torch.equal(week.rloo_advantages(x), week.rloo_advantages(x))",
        "vacuous: it passes on all",
    ),
    "lets no input through": ("assume(False)\nassert week.rloo_advantages(draw(seed, 1, 2)) is None", "assume"),
    "catches one": (
        """
        refused = False
        try:
            week.rloo_advantages(draw(seed, prompts, 1))
        except ValueError:
            refused = True
        assert refused
        """,
        "catches one of 12 known wrong versions of rloo_advantages, “a group of one is accepted”: 2 are asked for",
    ),
    "is not true": (
        "x = draw(seed, prompts, group)\nassert torch.allclose(week.rloo_advantages(2 * x), week.rloo_advantages(x))",
        "it fails on the reference, so the property is not true",
    ),
    "always fails": ("assert not week.rloo_advantages(draw(seed, 1, 2)).isfinite().any()", "fails on the reference"),
    "names a function that is not there": ("week.rloo_advantage(draw(seed, 1, 2))", "AttributeError"),
    "remembers earlier runs": (
        """
        week.rloo_advantages(draw(seed, 1, 2))
        draw.calls = getattr(draw, "calls", 0) + 1
        assert draw.calls <= 100
        """,
        "must not remember",
    ),
    "ends its process": ("import os; os._exit(0)", "ended its process"),
    "leaves by exit": ("week.rloo_advantages(draw(seed, 1, 2)); raise SystemExit(0)", "SystemExit"),
    "imports the answers": ("import reference_impl.reinforce", "may not be imported"),
    "opens the answers": (f"open({str(CHECKOUT / 'graders' / 'misconceptions' / '05.py')!r})", "may not be opened"),
    "skips": ("import pytest\nweek.rloo_advantages(draw(seed, 1, 2))\npytest.skip()", "Skipped"),
}


@pytest.mark.parametrize("name", BODIES)
def test_what_is_wrong_with_a_property_is_said(name, tmp_path):
    body, words = BODIES[name]
    own = graded(fork(tmp_path, body))
    assert own.status == "failed" and own.points == 0
    assert words in own.words, own.words


def test_a_false_property_shows_the_smallest_input_and_its_line(tmp_path):
    body = "x = draw(seed, prompts, group)\nassert (week.rloo_advantages(x) < 1).all() or group < 3"
    own = graded(fork(tmp_path, body))
    assert own.status == "failed" and "assert (week.rloo_advantages(x) < 1)" in own.source
    drawn = dict(pair.split("=") for pair in own.input.split(", "))
    assert (drawn["prompts"], drawn["group"]) == ("1", "3")


@pytest.mark.parametrize(
    "where", ["week.rloo_advantages(draw(seed, 1, 2))", "assert week.rloo_advantages(torch.ones(1, 2)).sum() > -1"]
)
def test_a_hang_costs_this_line_alone(where, tmp_path, monkeypatch):
    monkeypatch.setattr(mine, "CALL_SECONDS", 1.0)
    own = graded(fork(tmp_path, f"{where}\nwhile True: pass"))
    assert own.status == "failed" and "did not return" in own.words and own.seconds < 20


def test_only_what_it_calls_is_tried_and_every_catch_has_a_name(tmp_path):
    body = """
    x = draw(seed, prompts, group)
    assert torch.allclose(week.rloo_advantages(x).sum(1), torch.zeros(prompts, dtype=torch.float64), atol=1e-9)
    assert torch.allclose(week.rloo_advantages(x + 5), week.rloo_advantages(x))
    """
    own = graded(fork(tmp_path, body))
    assert own.status == "passed" and list(own.caught) == ["rloo_advantages"] and own.tried == 12
    assert {"the baseline itself", "own reward not removed"} <= set(own.caught["rloo_advantages"])
    assert not {"includes itself", "sign flipped"} & set(own.caught["rloo_advantages"])  # both pass this property


@pytest.mark.parametrize(
    "source, status, words",
    [
        ("def test_mine(week:\n", "failed", "Python cannot read it"),
        ("def test_other(week): pass\n", "failed", "defines no test_mine"),
        ("def test_mine(week):\n    assert week\n", "failed", "draws no inputs"),
        ("def deco(f): return f\n@deco\ndef test_mine(week):\n    assert week\n", "failed", "draws no inputs"),
        ("raise RuntimeError('no')\n" + HEAD + "    assert week\n", "failed", "does not load: RuntimeError: no"),
        (HEAD + "    raise NotImplementedError('later')\n", "not written", ""),
    ],
)
def test_files_that_are_no_property_are_told_apart(source, status, words, tmp_path):
    own = graded(fork(tmp_path, "", head=source))
    assert own.status == status and words in own.words


def test_a_fork_without_the_file_has_not_written_it(tmp_path):
    (fork(tmp_path, "pass") / "05" / "test_mine.py").unlink()
    assert graded(tmp_path).status == "not written"


# --- through the command line -----------------------------------------------------------------------------------------


def pytest_on(folder, *options: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pytest", "weeks/05", "--impl", str(folder), "--trust", *options]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=120, check=False)


def test_a_hostile_property_leaves_the_grade_alone(tmp_path):
    attack = "import os, sys\nfor m in list(sys.modules): sys.modules[m] = None\nos._exit(0)\n"
    result = tmp_path / "score.json"
    done = pytest_on(fork(tmp_path, "pass", head=attack + HEAD), "--score-json", str(result))
    score = json.loads(result.read_text())
    week = score["weeks"][0]
    assert done.returncode == 0 and score["graded"] and week["green"] and week["points"] == week["points_possible"]
    assert "✗ your own property (bonus)" in done.stdout and "exit code 0" in week["own_property"]["words"]
    assert week["own_property"]["status"] == "failed" and week["own_property"]["points"] == 0


def test_the_report_and_the_scores_name_the_catches(tmp_path):
    result = tmp_path / "score.json"
    done = pytest_on("solutions", "--score-json", str(result))
    own = json.loads(result.read_text())["weeks"][0]["own_property"]
    assert done.returncode == 0 and "and 2 of bonus" in done.stdout and len(done.stdout.splitlines()) <= 25
    assert "✓ your own property catches" in done.stdout and "includes itself" in " ".join(done.stdout.split())
    assert own["status"] == "passed" and own["points"] == own["points_possible"] == 2
    assert sum(map(len, own["caught"].values())) >= 5


def test_the_property_alone_is_a_part_and_not_a_grade():
    command = [sys.executable, "-m", "pytest", "weeks/05/test_mine.py", "--impl", "solutions"]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1 and "a part only" in done.stdout and "✓ your own property" in done.stdout


def test_a_students_property_is_no_part_of_the_graders(tmp_path, monkeypatch):
    before = graders_hash()
    (tmp_path / "weeks" / "05").mkdir(parents=True)
    (tmp_path / "weeks" / "05" / "test_mine.py").write_text("1")
    monkeypatch.setattr("graders.scores.CHECKOUT", tmp_path)
    empty = graders_hash()
    (tmp_path / "weeks" / "05" / "test_mine.py").write_text("2")
    assert graders_hash() == empty != before
