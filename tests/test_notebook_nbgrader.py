"""A week through nbgrader, from the source notebook to the grades: what each submission earns, and that nothing else
than right answers earns it. Needs the extra `notebooks`."""

import csv
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from course.notebook_build import as_text, source_notebook, student_sources
from graders import misconceptions, sandbox
from graders.exercises import CHECKOUT, load_week

pytest.importorskip("nbgrader")
pytestmark = pytest.mark.slow

WEEK = load_week("05")
POINTS = {"reinforce_loss": 5, "rloo_advantages": 4, "batch_baseline": 2, "reward_to_go": 4, "policy_gradient_loss": 5}
PARTIAL = {  # misconception: points for the checks that it passes
    ("rloo_advantages", "one baseline for the batch"): 2.0,  # 2 of 4, of 4 points
    ("batch_baseline", "NaN when alone"): 1.33,  # 2 of 3, of 2 points
    ("policy_gradient_loss", "one rule for all"): 2.0,  # 2 of 5, of 5 points
}
FORGERIES = """
print(5.0)
import sys, course.notebook_grade, graders.scores, json, subprocess, IPython
print(20.0, file=sys.stderr)
{mark}
course.notebook_grade.credit = lambda *a, **k: 5.0
course.notebook_grade.share = course.notebook_grade.graded = lambda *a, **k: 5.0
graders.scores.ExerciseScore.green = graders.scores.ExerciseScore.points = 5
subprocess.run = lambda *a, **k: None
get_ipython().events.register("post_run_cell", lambda *a: print(5.0))
sys.displayhook = lambda value: print(5.0)
""".strip()
MARK = "open({path!r}, 'a').write('a cell of a submission ran')"


@pytest.fixture(scope="module")
def course(tmp_path_factory) -> Path:
    """nbgrader's course folder with the week released, and all submissions below graded in one run."""
    try:
        sandbox.wrap()
    except sandbox.NoSandbox as problem:
        pytest.skip(str(problem))
    root = tmp_path_factory.mktemp("course")
    source = root / "source" / "week05" / "reinforce.ipynb"
    source.parent.mkdir(parents=True)
    source.write_text(as_text(source_notebook(WEEK)))
    nbgrader(root, "generate_assignment", "week05")
    for name, cells in submissions(root).items():
        folder = root / "submitted" / name / "week05"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "reinforce.ipynb").write_text(json.dumps(release(root) | {"cells": cells}))
        (folder / "timestamp.txt").write_text("2026-11-05 10:00:00 UTC\n")
    planted = root / "submitted" / "hostile-right" / "week05"
    for name in ("course/__init__.py", "torch.py", "sitecustomize.py", "conftest.py", "ipython_config.py"):
        (planted / name).parent.mkdir(exist_ok=True)
        (planted / name).write_text(MARK.format(path=str(root / "mark")))
    nbgrader(root, "autograde", "week05")
    return root


def nbgrader(root: Path, *words: str) -> str:
    """Run one of nbgrader's commands with the course's nbgrader_config.py."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # it calls alembic by name
    command = [sys.executable, "-m", "nbgrader", *words, f"--CourseDirectory.root={root}"]
    ran = subprocess.run(command, cwd=CHECKOUT, env=os.environ | {"PATH": path}, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return ran.stderr


def release(root: Path) -> dict:
    return json.loads((root / "release" / "week05" / "reinforce.ipynb").read_text())


def submissions(root: Path) -> dict[str, list[dict]]:
    """The cells that each of them hands in."""
    stub = release(root)["cells"]
    right = answered(stub, solutions())
    forged = code_cell(FORGERIES.format(mark=MARK.format(path=str(root / "mark"))))
    leaving = [code_cell("import sys\nleft = sys.exit(0)\nsys.exit(0)"), code_cell("import os\nos._exit(0)")]
    forgery = [forged, *leaving, code_cell("def credit(week, function, seed):\n    return 5.0")]
    noisy = answered(right, {"helpers": f"import warnings, sys\n{solutions()['helpers']}"})
    noise = "    warnings.warn('deprecated')\n    print('noise', file=sys.stderr)\n    print(3.0)\n"
    noisy = [before_the_body(cell, noise) if is_answer(cell) else cell for cell in noisy]
    scratch = [code_cell("import warnings, matplotlib\nwarnings.warn('scratch')\n1 / 0"), code_cell("for x in")]
    gone = ("answer-batch_baseline", "test-batch_baseline", "test-reward_to_go")
    found = {
        "stub": stub,
        "right": right,
        "noisy": [*scratch, *noisy],
        "deleted": [cell for cell in right if name_of(cell) not in gone],
        "hostile-stub": [*forgery, *(edited(cell) for cell in stub), *forgery],
        "hostile-right": [*forgery, *(edited(cell) for cell in right), *forgery],
    }
    wrong = {f"answer-{function}": mistaken(function, name) for function, name in PARTIAL}
    return found | {"three-mistakes": answered(right, wrong)}


def solutions() -> dict[str, str]:
    """The answer cells, solved, without nbgrader's markers."""
    cells = source_notebook(WEEK)["cells"]
    lines = {name_of(cell): cell["source"].splitlines() for cell in cells if name_of(cell) in student_sources(WEEK)}
    return {name: "\n".join(x for x in text if not x.strip().startswith("### ")) for name, text in lines.items()}


def answered(cells: list[dict], answers: dict[str, str]) -> list[dict]:
    return [cell | {"source": answers.get(name_of(cell), cell["source"])} for cell in cells]


def mistaken(function: str, name: str) -> str:
    """The misconception as an answer cell, with the helper functions of its file."""
    wrong = next(m.implementation for m in misconceptions.load("05") if (m.function, m.name) == (function, name))
    helpers = [v for n, v in wrong.__globals__.items() if n.startswith("_") and inspect.isfunction(v)]
    text = inspect.getsource(wrong)
    text = text[text.index("def ") :].replace(wrong.__name__, function, 1)
    return "\n\n\n".join([*map(inspect.getsource, helpers), text])


def edited(cell: dict) -> dict:
    """A test cell that its student has rewritten, text and metadata."""
    if not name_of(cell).startswith("test-"):
        return cell
    nbgrader = cell["metadata"]["nbgrader"]
    changed = {
        "test-reinforce_loss": {"locked": False},
        "test-rloo_advantages": {"points": 400},
        "test-batch_baseline": {"grade": False, "solution": True},
        "test-reward_to_go": {"checksum": "0"},
    }
    return cell | {"source": "5.0", "metadata": {"nbgrader": nbgrader | changed.get(name_of(cell), {})}}


def before_the_body(cell: dict, lines: str) -> dict:
    """The cell with these lines after its function's docstring."""
    head, quotes, body = "".join(cell["source"]).rpartition('"""\n')
    return cell | {"source": head + quotes + lines + body}


def code_cell(source: str) -> dict:
    number = f"extra-{abs(hash(source)) % 10**8}-{len(EXTRA)}"
    EXTRA.append(number)
    return {
        "cell_type": "code", "id": number, "metadata": {}, "source": source, "outputs": [], "execution_count": None
    }  # fmt: skip


EXTRA: list[str] = []


def name_of(cell: dict) -> str:
    return cell["metadata"].get("nbgrader", {}).get("grade_id", "")


def is_answer(cell: dict) -> bool:
    return name_of(cell).startswith("answer-")


def earned(course: Path, student: str) -> dict[str, float]:
    """The points of each function in nbgrader's database."""
    from nbgrader.api import Gradebook

    with Gradebook(f"sqlite:///{course / 'gradebook.db'}") as gradebook:
        grades = gradebook.find_submission_notebook("reinforce", "week05", student).grades
        assert not any(grade.needs_manual_grade for grade in grades)
        return {grade.cell.name.removeprefix("test-"): grade.auto_score for grade in grades}


# --- what a student sees ----------------------------------------------------------------------------------------------


def test_the_students_copy_is_the_stub_without_solutions_and_hidden_tests(course):
    cells = {name_of(cell): "".join(cell["source"]) for cell in release(course)["cells"]}
    assert {name: text for name, text in cells.items() if name in student_sources(WEEK)} == student_sources(WEEK)
    everything = "\n".join(cells.values())
    assert "SOLUTION" not in everything and "HIDDEN" not in everything and "_mean_of_others" not in everything
    assert cells["test-rloo_advantages"].splitlines()[-1] == 'credit("05", "rloo_advantages", seed)'


# --- what it earns ----------------------------------------------------------------------------------------------------


def test_the_stub_earns_nothing_and_the_solution_everything(course):
    assert earned(course, "stub") == dict.fromkeys(POINTS, 0.0)
    assert earned(course, "right") == POINTS


def test_a_misconception_earns_the_share_of_the_checks_that_it_passes(course):
    partial = {function: points for (function, _), points in PARTIAL.items()}
    assert earned(course, "three-mistakes") == POINTS | partial


def test_warnings_output_and_failing_scratch_cells_do_not_change_a_score(course):
    assert earned(course, "noisy") == POINTS


def test_deleted_test_cells_come_back_and_deleted_answers_earn_nothing(course):
    assert earned(course, "deleted") == POINTS | {"batch_baseline": 0.0}


def test_hostile_cells_change_no_score_and_never_run(course):
    assert earned(course, "hostile-stub") == dict.fromkeys(POINTS, 0.0)
    assert earned(course, "hostile-right") == POINTS
    assert not (course / "mark").exists()


def test_feedback_and_export_tell_the_same_numbers(course):
    nbgrader(course, "generate_feedback", "week05", "--student", "three-mistakes")
    page = (course / "feedback" / "three-mistakes" / "week05" / "reinforce.html").read_text()
    assert "Your numbers equal “NaN when alone”" in page
    nbgrader(course, "export", "--to", str(course / "grades.csv"))
    rows = {row["student_id"]: row for row in csv.DictReader((course / "grades.csv").open())}
    assert {row["max_score"] for row in rows.values()} == {"20.0"}
    scores = {name: float(row["score"]) for name, row in rows.items()}
    assert scores["right"] == scores["noisy"] == scores["hostile-right"] == 20.0
    assert scores["stub"] == scores["hostile-stub"] == 0.0 and scores["three-mistakes"] == pytest.approx(14.33)


def test_a_grading_that_fails_is_an_error_and_not_a_zero(monkeypatch):
    """Without a sandbox, say: nbgrader would take the error in the test cell for the student's."""
    from nbformat import from_dict
    from nbformat.v4 import new_notebook, new_output

    from course import notebook_nbgrader as ours

    def fails(self, nb, resources, **rest):
        nb.cells[0].outputs = [new_output("error", ename="CannotGrade", evalue="bubblewrap is not installed")]
        return nb, resources

    cells = [from_dict(cell) for cell in source_notebook(WEEK)["cells"]]
    known = {name_of(c): {"source": c.source, "nbgrader": c.metadata.nbgrader} for c in cells if name_of(c)}
    monkeypatch.setattr(ours.Execute, "preprocess", fails)
    monkeypatch.setattr(ours, "known_cells", lambda resources: known)
    with pytest.raises(
        RuntimeError, match="nothing was graded: bubblewrap is not installed .*FencedExecute.trust=True"
    ):
        ours.FencedExecute().preprocess(
            new_notebook(cells=cells), {"nbgrader": {"assignment": "week05"}, "metadata": {}}
        )


def test_in_a_plain_kernel_the_test_cells_return_the_points():
    """As a student runs them, or somebody whose nbgrader does not read the course's configuration."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.reads(as_text(source_notebook(WEEK)), as_version=4)
    names = ("helpers", "answer-rloo_advantages", "test-rloo_advantages", "test-batch_baseline")
    notebook.cells = [cell for cell in notebook.cells if name_of(cell) in names]
    NotebookClient(notebook, timeout=300).execute()
    outputs = {name_of(cell): cell.outputs for cell in notebook.cells if name_of(cell).startswith("test-")}
    assert [output.get("name", output.output_type) for output in outputs["test-rloo_advantages"]] == [
        "stdout",
        "execute_result",
    ]
    assert {name: output[-1]["data"]["text/plain"] for name, output in outputs.items()} == {
        "test-rloo_advantages": "4.0",
        "test-batch_baseline": "0.0",
    }
