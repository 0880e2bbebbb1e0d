"""`rlhf notebook`: weeks become nbgrader source notebooks, cells become files, forks become submissions."""

import ast
import json
import subprocess
import sys

import pytest

from course import notebook, notebook_grade
from course.notebook_build import as_text, source_notebook, student_sources, submission_notebook
from course.notebook_cells import module, split
from graders.exercises import CHECKOUT, load_week, weeks
from reference_impl.errors import UserError

ALL = [load_week(number) for number in weeks()]


def code_cells(built: dict) -> dict[str, dict]:
    return {c["metadata"]["nbgrader"]["grade_id"]: c for c in built["cells"] if c["metadata"].get("nbgrader")}


def solution(week) -> str:
    return (CHECKOUT / "solutions" / week.week / f"{week.module}.py").read_text()


# --- building ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("week", ALL, ids=lambda week: week.week)
def test_a_source_notebook_is_valid_and_declares_the_weeks_points(week):
    built = source_notebook(week)
    cells = code_cells(built)
    functions = [e for e in week.exercises if f"answer-{e.name}" in cells]
    assert [f"answer-{e.name}" for e in functions] == [name for name in cells if name.startswith("answer-")]
    for exercise in functions:
        answer, test = (cells[f"{kind}-{exercise.name}"]["metadata"]["nbgrader"] for kind in ("answer", "test"))
        assert answer == answer | {"solution": True, "grade": False, "locked": False, "schema_version": 3}
        assert test == test | {"solution": False, "grade": True, "locked": True, "schema_version": 3}
        assert test["points"] == exercise.points
    assert len({cell["id"] for cell in built["cells"]}) == len(built["cells"])
    prose = "\n".join(cell["source"] for cell in built["cells"] if cell["cell_type"] == "markdown")
    assert all(f"### {e.section}\n" in prose for e in functions), "each function's section of the lesson is there"


@pytest.mark.parametrize("week", ALL, ids=lambda week: week.week)
def test_nbformat_and_nbgrader_accept_the_notebook(week):
    nbformat = pytest.importorskip("nbformat")
    metadata = pytest.importorskip("nbgrader.nbgraderformat").MetadataValidator()
    read = nbformat.reads(as_text(source_notebook(week)), as_version=4)
    nbformat.validate(read)
    metadata.validate_nb(read)


def test_the_same_files_give_the_same_bytes():
    for week in ALL:
        assert as_text(source_notebook(week)) == as_text(source_notebook(week))
    command = (
        "from course.notebook_build import as_text, source_notebook; from graders.exercises import load_week; "
        "print(as_text(source_notebook(load_week('05'))), end='')"
    )
    again = subprocess.run([sys.executable, "-c", command], cwd=CHECKOUT, capture_output=True, text=True)
    assert again.stdout == as_text(source_notebook(load_week("05")))  # in a process with other hashes


@pytest.mark.parametrize("week", ALL, ids=lambda week: week.week)
def test_the_source_holds_the_solution_and_the_students_copy_the_stub(week):
    filled = "\n\n\n".join(
        cell["source"] for name, cell in code_cells(source_notebook(week)).items() if not name.startswith("test-")
    )
    theirs, ours = functions(filled), functions(solution(week))
    assert theirs.keys() == ours.keys()
    for name, node in theirs.items():
        assert [ast.dump(line) for line in body(node)] == [ast.dump(line) for line in body(ours[name])]
    stub = ast.parse(week.stub.read_text())
    copy = ast.parse("\n\n\n".join(student_sources(week).values()))
    assert {name: ast.dump(node) for name, node in functions(ast.unparse(copy)).items()} == {
        name: ast.dump(node) for name, node in functions(ast.unparse(stub)).items()
    }


def functions(source: str) -> dict[str, ast.FunctionDef]:
    return {node.name: node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)}


def body(node: ast.FunctionDef) -> list[ast.stmt]:
    return node.body[1:] if ast.get_docstring(node) else node.body


def test_hidden_tests_stand_between_nbgraders_markers():
    for name, cell in code_cells(source_notebook(load_week("05"), hidden_seed=731)).items():
        if name.startswith("test-"):
            begin, end = cell["source"].index("### BEGIN HIDDEN TESTS"), cell["source"].index("### END HIDDEN TESTS")
            assert begin < cell["source"].index("731") < end


def test_a_member_who_has_begun_still_builds_the_stub(tmp_path, monkeypatch):
    week = load_week("05")
    file = tmp_path / "reinforce.py"
    text = week.stub.read_text()
    function = split(text, ["rloo_advantages"]).functions["rloo_advantages"]
    start = function.index("    raise NotImplementedError")
    file.write_text("import math\n" + text.replace(function[start:], "    return rewards - _mean(rewards)"))
    expected = student_sources(week)
    monkeypatch.setattr(type(week), "stub", property(lambda self: file))
    assert student_sources(week)["answer-rloo_advantages"] == expected["answer-rloo_advantages"]


# --- cells to a file --------------------------------------------------------------------------------------------------


def run(source: str) -> dict:
    names: dict = {}
    exec(compile(source, "answers.py", "exec"), names)
    return names


def test_definitions_and_constants_of_any_cell_count_and_bare_calls_do_not():
    cells = ["HALF = 0.5", "print(1 / 0)\nraise SystemExit", "for i in 3:\n    pass", "def f(x):\n    return HALF * x"]
    assert run(module(cells, []))["f"](4) == 2


def test_a_cell_that_fails_costs_what_needs_it_and_no_more():
    cells = ["import no_such_package", "y = 1 / 0", "x = exit()", "def f(:\n", "%matplotlib inline\nz = 3", "!ls"]
    text = module([*cells, "def g():\n    return z"], ["import math"])
    assert run(text)["g"]() == 3 and "y" not in run(text) and "cell 4 is left out: SyntaxError" in text


def test_of_two_definitions_the_later_wins():
    assert run(module(["def f():\n    return 1", "def f():\n    return 2"], []))["f"]() == 2


def test_decorators_and_comments_stay_with_their_function():
    text = "import functools\n\n# why\n@functools.cache\ndef f():\n    return 1; x = 2\n\nA = 1; B = 2\n"
    parts = split(text, ["f"])
    assert parts.functions["f"].startswith("# why\n@functools.cache\ndef f")
    assert parts.prelude == ["import functools", "A = 1; B = 2"]


@pytest.mark.parametrize("week", ALL, ids=lambda week: week.week)
def test_a_file_survives_the_way_through_a_notebook(week):
    cells = [c["source"] for name, c in code_cells(submission_notebook(week, solution(week))).items()]
    answers = [source for source in cells if "course.notebook_grade" not in source]
    back = functions(module(answers, []))
    assert {n: ast.dump(f) for n, f in back.items()} == {n: ast.dump(f) for n, f in functions(solution(week)).items()}


# --- grading ----------------------------------------------------------------------------------------------------------


def exercise(passed: int, expected: int, points: int = 4, **more) -> dict:
    checks = {"passed": passed, "expected": expected}
    base = {"name": "f", "state": "written", "points_possible": points, "checks": checks, "not_passed": []}
    return base | {"green": passed == expected, "star": False} | more


def test_the_credit_is_a_plain_float_between_zero_and_the_points():
    for expected in range(1, 12):
        shares = [notebook_grade.share(exercise(passed, expected)) for passed in range(expected + 1)]
        assert all(type(value) is float for value in shares) and shares == sorted(shares)
        assert shares[0] == 0.0 and shares[-1] == 4.0
    assert notebook_grade.share(exercise(1, 3)) == 1.33


def test_a_failing_check_is_told_with_its_input():
    check = {"test": "t", "claim": "the claim", "status": "failed", "words": "it is wrong", "input": "x = 1"}
    check |= {"expected": "1", "got": "2", "misconception": "includes itself"}
    said = "\n".join(notebook_grade.report(exercise(1, 2, not_passed=[check])))
    for words in ("1 of 2 checks", "2 of 4 points", "the claim", "x = 1", "expected   1", "got        2", "“includes"):
        assert words in said


def test_a_grading_that_cannot_be_made_is_an_error_and_no_score(monkeypatch):
    monkeypatch.setattr(notebook_grade.sys, "executable", "/bin/false")
    with pytest.raises(notebook_grade.CannotGrade):
        notebook_grade.graded("05", "x = 1\n", seed=0, trust=True)


def test_while_nbgrader_autogrades_the_code_is_not_ours(monkeypatch):
    monkeypatch.delenv("NBGRADER_EXECUTION", raising=False)
    assert notebook_grade.trusted()
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    assert not notebook_grade.trusted()
    monkeypatch.setenv(notebook_grade.TRUST, "1")
    assert notebook_grade.trusted()


# --- the command ------------------------------------------------------------------------------------------------------


def test_build_writes_the_weeks_named_where_git_does_not_look(tmp_path, capsys):
    notebook.main(["build", "5", "06", "--folder", str(tmp_path)])
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.ipynb"))
    assert found == ["source/week05/reinforce.ipynb", "source/week06/ppo_grpo.ipynb"]
    assert (tmp_path / ".gitignore").read_text() == "*\n"
    assert "nbgrader generate_assignment week05" in capsys.readouterr().out


def test_an_unknown_week_is_one_message_and_nothing_is_written(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        notebook.main(["build", "05", "99", "--folder", str(tmp_path / "new")])
    assert stop.value.code == 2 and not (tmp_path / "new").exists()
    assert capsys.readouterr().err.startswith("error: there is no week 99")


def test_collect_fills_submitted_from_folders_and_branches(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    fork, course = tmp_path / "kims-fork", tmp_path / "course"
    (fork / "weeks" / "05").mkdir(parents=True)
    (fork / "weeks" / "06").mkdir()
    (fork / "weeks" / "05" / "reinforce.py").write_text(solution(load_week("05")))
    (fork / "weeks" / "06" / "ppo_grpo.py").write_text(load_week("06").stub.read_text())  # not begun
    git = ["git", "-C", str(fork), "-c", "user.name=kim", "-c", "user.email=kim@example.org"]
    for words in (["init", "--quiet", "--initial-branch=done"], ["add", "."], ["commit", "--quiet", "-m", "mine"]):
        subprocess.run([*git, *words], check=True)
    (fork / "weeks" / "05" / "reinforce.py").write_text("def broken(:\n")
    with pytest.raises(SystemExit) as stop:  # for nina, who is not there; the others are collected
        places = [f"kim={fork}:done", f"now={fork}", f"nina={tmp_path / 'nowhere'}"]
        notebook.main(["collect", *places, "--folder", str(course)])
    assert stop.value.code == 2 and "nowhere" in capsys.readouterr().err
    found = sorted(str(path.relative_to(course)) for path in course.rglob("*") if path.is_file())
    parts = [f"submitted/{n}/week05/{f}" for n in ("kim", "now") for f in ("reinforce.ipynb", "timestamp.txt")]
    assert found == [".gitignore", *parts]
    read = json.loads((course / "submitted" / "kim" / "week05" / "reinforce.ipynb").read_text())
    assert "def _mean_of_others" in "".join(code_cells(read)["helpers"]["source"])
    assert "return (_full_precision(rewards)" in "".join(code_cells(read)["answer-rloo_advantages"]["source"])
    assert (course / "submitted" / "kim" / "week05" / "timestamp.txt").read_text().endswith(" UTC\n")


def test_a_link_out_of_a_fork_is_not_followed_and_a_huge_file_is_refused(tmp_path):
    from course.notebook_collect import LARGEST, text_of

    (tmp_path / "fork").mkdir()
    link, huge = tmp_path / "fork" / "link.py", tmp_path / "fork" / "huge.py"
    link.symlink_to(CHECKOUT / "solutions" / "05" / "reinforce.py")
    huge.write_bytes(b"#" * (LARGEST + 1))
    assert text_of(link, tmp_path / "fork") is None
    with pytest.raises(UserError, match="more than 1 MB"):
        text_of(huge, tmp_path / "fork")
