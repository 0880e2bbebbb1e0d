"""Grading in CI: the workflow's own step, run here on a fork that has edited everything that it could edit."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from course import ci_grade
from graders.exercises import CHECKOUT
from reference_impl.errors import UserError

WORKFLOW = CHECKOUT / ".github" / "workflows" / "grade.yml"
SOLUTION = (CHECKOUT / "solutions" / "05" / "reinforce.py").read_text()
MARK = "try:\n    open({mark!r}, 'a').write('the fork ran here')\nexcept OSError:\n    pass\n"


def workflow() -> dict:
    return yaml.safe_load(WORKFLOW.read_text())


def step(name: str) -> dict:
    return next(step for step in workflow()["jobs"]["grade"]["steps"] if step.get("name") == name)


def write(fork: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (fork / name).parent.mkdir(parents=True, exist_ok=True)
        (fork / name).write_text(text)


def git(fork: Path, *words: str) -> str:
    identity = ["-c", "user.name=kim", "-c", "user.email=kim@example.org"]
    return subprocess.run(["git", "-C", fork, *identity, *words], check=True, capture_output=True, text=True).stdout


def test_the_workflow_grades_with_upstreams_graders_and_few_rights():
    read = workflow()
    assert read["permissions"] == {"contents": "read"}
    assert step("Check out upstream's main")["with"] | {"repository": ""} == {
        "repository": "",
        "ref": "main",
        "path": "upstream",
        "persist-credentials": False,
    }
    assert step("Grade")["working-directory"] == "upstream"  # whose course, graders and pyproject.toml are used
    for one in read["jobs"]["grade"]["steps"]:
        assert "${{" not in one.get("run", ""), "a name of a branch or a message must not become a command"


@pytest.mark.slow
def test_a_fork_with_edited_graders_gets_the_score_that_it_deserves(tmp_path):
    fork, mark, summary = tmp_path / "fork", tmp_path / "mark", tmp_path / "summary.md"
    ran = MARK.format(mark=str(mark))
    wrong = "\n\ndef rloo_advantages(rewards):\n    raise RuntimeError('| <b>20 points</b> |')\n"
    fake_test = f"{ran}def test_everything():\n    pass\n"
    files = {"weeks/05/reinforce.py": ran + SOLUTION + wrong, "weeks/05/test_reinforce.py": fake_test}
    files |= {name: ran for name in ("conftest.py", "graders/__init__.py", "graders/plugin.py", "course/ci_grade.py")}
    files |= {name: ran for name in ("sitecustomize.py", "reference_impl/reinforce.py", "torch/__init__.py")}
    files |= {"pytest.ini": "[pytest]\naddopts = --collect-only\n", "score.json": '{"weeks": []}'}
    write(fork, files)
    git(tmp_path, "init", "--quiet", str(fork))
    git(fork, "add", "--all")
    git(fork, "commit", "--quiet", "-m", "mine")

    uv = tmp_path / "bin" / "uv"  # stands for `uv run --no-dev python`
    write(tmp_path, {"bin/uv": f'#!/bin/sh\nshift 3\nexec "{sys.executable}" "$@"\n'})
    uv.chmod(0o755)
    names = {"FORK": str(fork), "BEFORE": "0" * 40, "RESULT": str(tmp_path / "score.json")}
    env = {**os.environ, **names, "GITHUB_STEP_SUMMARY": str(summary), "PATH": f"{uv.parent}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-ec", step("Grade")["run"]], cwd=CHECKOUT, env=env, capture_output=True, text=True)
    if "bubblewrap" in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr

    assert not mark.exists()
    result = json.loads((tmp_path / "score.json").read_text())
    assert result["graded"] and [week["week"] for week in result["weeks"]] == ["05"]
    points = {e["name"]: e["points"] for e in result["weeks"][0]["exercises"]}
    assert points["rloo_advantages"] == 0 and sum(points.values()) == 16
    text = summary.read_text()
    assert "16 of 20 points" in text and "<b>" not in text and "\\| &lt;b&gt;20 points" in text


def test_the_weeks_that_a_push_changed_are_graded(tmp_path):
    fork = tmp_path.resolve()
    stubs = {name: (CHECKOUT / name).read_text() for name in ("weeks/05/reinforce.py", "weeks/08/dpo.py")}
    write(fork, stubs)
    git(fork, "init", "--quiet")
    git(fork, "add", "--all")
    git(fork, "commit", "--quiet", "-m", "stubs")
    assert ci_grade.begun(fork) == []
    write(fork, {"weeks/05/reinforce.py": SOLUTION})
    git(fork, "commit", "--quiet", "--all", "-m", "week 05")
    before = git(fork, "rev-parse", "HEAD").strip()
    write(fork, {"weeks/08/dpo.py": stubs["weeks/08/dpo.py"] + "\n"})
    git(fork, "commit", "--quiet", "--all", "-m", "week 08")
    assert ci_grade.begun(fork) == ["05", "08"]
    assert ci_grade.changed(fork, ["05", "08"], before) == ["08"]
    for unknown in ("", "0" * 40, "--output=x", "deadbeef"):  # a new branch, a forced push, nonsense
        assert ci_grade.changed(fork, ["05", "08"], unknown) == ["05", "08"]


def test_a_link_out_of_the_fork_is_no_submission(tmp_path):
    (tmp_path / "weeks" / "05").mkdir(parents=True)
    (tmp_path / "weeks" / "05" / "reinforce.py").symlink_to(CHECKOUT / "solutions" / "05" / "reinforce.py")
    assert ci_grade.begun(tmp_path.resolve()) == []


def test_a_fork_that_has_not_begun_is_told_so(tmp_path, capsys):
    ci_grade.main([str(tmp_path), "--json", str(tmp_path / "score.json")])
    assert "nothing to grade" in capsys.readouterr().out
    assert not (tmp_path / "score.json").exists()


def test_a_grading_that_fails_is_an_error_and_leaves_no_old_result(tmp_path, monkeypatch):
    result = tmp_path / "score.json"
    result.write_text('{"weeks": [], "graded": true}')
    with pytest.raises(UserError):
        ci_grade.graded(tmp_path / "nowhere", ["05"], result)
    assert not result.exists()
