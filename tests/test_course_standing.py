"""`rlhf status`, `rlhf solution`, `rlhf reset` and the memory of verdicts that they read."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from course import exercise, reset, solution, status
from graders import exercises, memory
from graders.exercises import CHECKOUT, load_week
from graders.report import Painter

STUB = '''"""Week 10."""

from torch import Tensor


def top_per_prompt(rewards: Tensor, k: int = 1) -> Tensor:
    """The best."""
    raise NotImplementedError("Week 10, task 1")


def best_of_n_kl(n: int) -> float:
    """The KL."""
    raise NotImplementedError("Week 10, task 3")
'''


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    """A checkout with week 10 alone that holds what the commands read; the graders stay where they are."""
    (tmp_path / "weeks" / "10").mkdir(parents=True)
    for module in (exercises, memory, solution, status, reset):
        monkeypatch.setattr(module, "CHECKOUT", tmp_path)
    monkeypatch.setattr(memory, "VERDICTS", tmp_path / ".rlhf" / "verdicts")
    monkeypatch.setattr(solution, "GAVE_UP", tmp_path / ".rlhf" / "gave-up.toml")
    monkeypatch.setattr(reset, "SAVED", tmp_path / ".rlhf" / "saved")
    monkeypatch.setattr(status, "RUNS", tmp_path / "runs")
    shutil.copy(CHECKOUT / "weeks" / "10" / "test_rejection_sampling.py", tmp_path / "weeks" / "10")
    for folder in ("reference_impl", "solutions/10"):
        (tmp_path / folder).mkdir(parents=True)
        shutil.copy(CHECKOUT / folder / "rejection_sampling.py", tmp_path / folder)
    return tmp_path


@pytest.fixture
def week(checkout):
    found = load_week("10")
    found.stub.write_text(STUB)
    return found


def remember(week, green: list[str]) -> None:
    """As if the file had been graded, with these functions right."""
    verdict = memory.brief(blank_score(week))
    for name in green:
        verdict["functions"][name] |= {"green": True, "star": True, "points": week.exercise(name).points}
    verdict["green"] = all(f["green"] for f in verdict["functions"].values())
    verdict["of"] = memory.fingerprint(week, week.stub.read_bytes())
    memory.VERDICTS.mkdir(parents=True, exist_ok=True)
    (memory.VERDICTS / "10.json").write_text(json.dumps(verdict))


def blank_score(week):
    from graders.scores import blank
    from graders.submission import expected_checks, read

    return blank(week, read(week), expected_checks(week))


def written(name: str) -> str:
    """STUB with one function written."""
    head, _, tail = STUB.partition(f"def {name}")
    body, sep, rest = tail.partition("\n\n\n")
    lines = body.splitlines()
    return head + f"def {name}" + "\n".join([*lines[:-1], "    return 1.0"]) + (sep + rest or "\n")


# --- memory -----------------------------------------------------------------------------------------------------------


def test_a_file_with_nothing_written_needs_no_grading(week):
    assert not any(f["green"] for f in memory.recall(week)["functions"].values())


def test_a_verdict_counts_until_the_file_or_its_grader_changes(week):
    week.stub.write_text(written("best_of_n_kl"))
    assert memory.recall(week) is None
    remember(week, ["best_of_n_kl"])
    assert memory.recall(week)["functions"]["best_of_n_kl"]["green"]
    text = week.grader.read_text()
    week.grader.write_text(text + "\n")
    assert memory.recall(week) is None
    week.grader.write_text(text)
    assert memory.recall(week) is not None
    week.stub.write_text(written("best_of_n_kl") + "\n")
    assert memory.recall(week) is None


@pytest.mark.parametrize("damage", ["", "not json", "[]", '{"of": 3}'])
def test_a_damaged_verdict_is_none(week, damage):
    week.stub.write_text(written("best_of_n_kl"))
    remember(week, [])
    (memory.VERDICTS / "10.json").write_text(damage)
    assert memory.recall(week) is None


def test_pytest_remembers_its_verdict(week, monkeypatch):
    week.stub.write_text(written("best_of_n_kl"))
    score = blank_score(week)
    for e in score.exercises:
        for outcome in (*e.correct, *e.robust):
            outcome.status = "failed"
    memory.remember(score)
    assert memory.recall(week) == memory.brief(score) | {"of": memory.recall(week)["of"]}


@pytest.mark.parametrize("change", [{"seed": 3}, {"in_process": True}, {"robust_decides": True}])
def test_other_gradings_are_not_remembered(week, change):
    week.stub.write_text(written("best_of_n_kl"))
    score = blank_score(week)
    for outcome in score.outcomes:
        outcome.status = "failed"
    for name, value in change.items():
        setattr(score, name, value)
    memory.remember(score)
    assert memory.recall(week) is None


def test_what_is_wrong_comes_before_what_is_not_written(week):
    assert exercise.current_exercise(week).name == "top_per_prompt"
    week.stub.write_text(written("best_of_n_kl"))
    remember(week, [])
    assert exercise.current_exercise(week).name == "best_of_n_kl"
    remember(week, ["best_of_n_kl"])
    assert exercise.current_exercise(week).name == "top_per_prompt"


# --- status -----------------------------------------------------------------------------------------------------------


def run_of(checkout, name, **summary):
    folder = checkout / "runs" / name
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps(summary))


def standing_of_10():
    return next(s for s in status.standings(grade=False) if s.week.week == "10")


def test_runs_count_when_they_finished_with_the_students_functions(checkout, week):
    mine = "weeks/10/rejection_sampling.py"
    run_of(checkout, "10-a", status="finished", functions=mine)
    run_of(checkout, "10-demo/10-b", status="finished", functions=mine)
    run_of(checkout, "10-c", status="failed", functions=mine)
    run_of(checkout, "10-d", status="finished", functions="solutions/10/rejection_sampling.py")
    (checkout / "runs" / "10-e").mkdir()
    (checkout / "runs" / "10-e" / "summary.json").write_text("{cut o")
    assert standing_of_10().runs == 2


def test_the_table_is_one_screen_and_says_all(checkout, week):
    week.stub.write_text(written("best_of_n_kl"))
    remember(week, ["best_of_n_kl"])
    solution.give_up(week, week.exercise("cohen_kappa"))
    lines = status.table(status.standings(grade=False), Painter(), "10")
    assert len(lines) <= 20 and max(map(len, lines)) <= 100
    line = next(line for line in lines if " 10  " in line)
    assert line.startswith(">") and "1 of 7" in line and "/20" in line
    assert any("1 solution opened" in line for line in lines)
    assert not any("\033" in line for line in lines)


def standing(week, functions: dict[str, tuple[str, bool]], runs=0):
    functions = {n: {"state": s, "green": g, "star": g, "points": 0} for n, (s, g) in functions.items()}
    return status.Standing(
        week, {"green": all(f["green"] for f in functions.values()), "functions": functions}, runs, 0
    )


def test_the_next_step_finishes_then_trains_then_begins(week):
    fresh = standing(week, {"f": ("not written", False)})
    begun = standing(week, {"f": ("written", True), "g": ("not written", False)})
    wrong = standing(week, {"f": ("not written", False), "g": ("written", False)})
    green, trained = (standing(week, {"f": ("written", True)}, runs) for runs in (0, 2))
    assert "write g" in status.next_step([fresh, green, begun])[0]
    assert "mend g" in status.next_step([wrong])[0]
    assert "rlhf train 10 --impl student" in status.next_step([green, fresh])[0]
    assert "rlhf watch 10" in status.next_step([trained, fresh])[0]
    assert "experiment" in status.next_step([trained])[0]
    week.stub.unlink()
    assert "rlhf reset 10" in status.next_step([trained])[0]


# --- solution ---------------------------------------------------------------------------------------------------------


def test_a_solution_opens_when_green_or_given_up_and_that_is_recorded(week, capsys):
    week.stub.write_text(written("best_of_n_kl"))
    remember(week, ["best_of_n_kl"])
    solution.main(["10", "best_of_n_kl"])
    assert "def best_of_n_kl" in capsys.readouterr().out and solution.given_up() == {}
    with pytest.raises(SystemExit) as refused:
        solution.main(["10", "top_per_prompt"])
    said = capsys.readouterr().out
    assert refused.value.code == 1 and "--give-up" in said and "def " not in said
    solution.main(["10", "top_per_prompt", "--give-up"])
    assert "def top_per_prompt" in capsys.readouterr().out
    assert list(solution.given_up()) == ["10.top_per_prompt"]
    solution.main(["10", "top_per_prompt"])  # once open, it stays open
    assert "def top_per_prompt" in capsys.readouterr().out


def test_giving_up_on_what_is_green_is_not_recorded(week):
    week.stub.write_text(written("best_of_n_kl"))
    remember(week, ["best_of_n_kl"])
    solution.give_up(week, week.exercise("best_of_n_kl"))
    assert solution.given_up() == {}


def test_an_excerpt_brings_the_helpers_along_and_nothing_else(tmp_path):
    file = tmp_path / "file.py"
    file.write_text(
        "A = 1\nB = 2\n\n\ndef _help():\n    return A\n\n\ndef f():\n    return _help()\n\n\ndef g():\n    return B\n"
    )
    assert solution.excerpt(file, "f") == "A = 1\n\n\ndef _help():\n    return A\n\n\ndef f():\n    return _help()"


# --- reset ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def fork(week, checkout):
    """The stub committed, then what the student wrote committed too."""

    def git(*words):
        identity = ["-c", "user.name=student", "-c", "user.email=student@example.org"]
        subprocess.run(["git", "-C", str(checkout), *identity, *words], check=True, capture_output=True)

    names = [e.name for e in week.exercises]
    more = [f'def {n}():\n    raise NotImplementedError("task")\n' for n in names if n not in STUB]
    stub = STUB + "\n\n" + "\n\n".join(more)
    week.stub.write_text(stub)
    git("init", "-q")
    git("add", "weeks")
    git("commit", "-q", "-m", "the course")
    mine = stub.replace('    raise NotImplementedError("Week 10, task 1")', "    return 'mine'  # ünïcode")
    week.stub.write_text(mine)
    git("commit", "-q", "-a", "-m", "my work")
    return stub, mine


def saved(checkout) -> list[str]:
    return [path.read_text(encoding="utf-8") for path in sorted((checkout / ".rlhf" / "saved").glob("*.py"))]


def test_reset_puts_the_stub_back_though_the_work_is_committed_and_saves_it(fork, week, checkout):
    stub, mine = fork
    said = "\n".join(reset.reset(week, None))
    assert week.stub.read_text(encoding="utf-8") == stub and saved(checkout) == [mine]
    assert "the stub is back" in said and ".rlhf/saved/" in said


def test_reset_of_one_function_leaves_the_others(fork, week, checkout):
    stub, mine = fork
    edited = (
        mine.replace('raise NotImplementedError("Week 10, task 3")', "return 2.0") + "\n\ndef helper():\n    pass\n"
    )
    week.stub.write_text(edited, encoding="utf-8")
    reset.reset(week, "top_per_prompt")
    assert week.stub.read_text(encoding="utf-8") == edited.replace(
        "    return 'mine'  # ünïcode", '    raise NotImplementedError("Week 10, task 1")'
    )
    reset.reset(week, "best_of_n_kl")
    assert week.stub.read_text(encoding="utf-8") == stub + "\n\ndef helper():\n    pass\n"
    assert len(saved(checkout)) == 2


def test_reset_brings_a_deleted_function_and_a_deleted_file_back(fork, week, checkout):
    stub, _ = fork
    week.stub.write_text("x = 1\n")
    reset.reset(week, "best_of_n_kl")
    assert week.stub.read_text().startswith("x = 1\n") and "def best_of_n_kl" in week.stub.read_text()
    week.stub.unlink()
    reset.reset(week, None)
    assert week.stub.read_text() == stub and len(saved(checkout)) == 1


def test_reset_of_what_is_not_written_changes_and_saves_nothing(fork, week, checkout):
    assert "already" in reset.reset(week, "best_of_n_kl")[0]
    assert saved(checkout) == []


@pytest.mark.parametrize(
    "break_it, words",
    [
        (lambda week, root: week.stub.write_text("def f(:\n"), "mend that first"),
        (lambda week, root: shutil.rmtree(root / ".git"), "git says"),
    ],
)
def test_reset_that_cannot_be_done_is_one_message_and_changes_nothing(fork, week, checkout, capsys, break_it, words):
    break_it(week, checkout)
    before = week.stub.read_bytes()
    with pytest.raises(SystemExit) as exit_:
        reset.main(["10", "top_per_prompt"])
    assert exit_.value.code == 2 and words in capsys.readouterr().err
    assert week.stub.read_bytes() == before and saved(checkout) == []


@pytest.mark.parametrize("main", [solution.main, reset.main])
@pytest.mark.parametrize("args, words", [(["42", "f"], "no week 42"), (["10", "nix"], "no function 'nix'")])
def test_bad_input_is_one_message_and_exit_2(week, capsys, main, args, words):
    with pytest.raises(SystemExit) as exit_:
        main(args)
    assert exit_.value.code == 2 and words in capsys.readouterr().err
