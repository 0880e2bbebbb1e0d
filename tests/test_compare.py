"""`rlhf compare`: what each fork gets, whatever the others do; where the forks come from; what is said about errors."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from course.compare import forks as places
from course.compare import gather, runs
from course.compare.code import versions
from graders.exercises import CHECKOUT

SOLUTION = (CHECKOUT / "solutions" / "05" / "reinforce.py").read_text()
STUB = (CHECKOUT / "weeks" / "05" / "reinforce.py").read_text()
FULL = {"points": 20, "stars": 5}

needs_sandbox = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")


def compare(*words, cwd: Path, **environment) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "course.cli", "compare", *map(str, words)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), "XDG_CACHE_HOME": str(cwd / "cache"), **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def fork(folder: Path, source: str) -> Path:
    (folder / "weeks" / "05").mkdir(parents=True)
    (folder / "weeks" / "05" / "reinforce.py").write_text(source)
    return folder


def with_function(body: str, name: str = "batch_baseline(rewards)") -> str:
    """The solution with another body of one function."""
    return f"{SOLUTION}\n\ndef {name}:\n{textwrap.indent(textwrap.dedent(body).strip(), '    ')}\n"


def git(folder: Path, *words: str) -> None:
    who = ["-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True)


RIGHT = "total = rewards.sum()\nreturn (total - rewards) / (len(rewards) - 1) if len(rewards) > 1 else rewards * 0"
ATTACK = f"""
import ctypes, os
libc = ctypes.CDLL(None)
libc.kill(1, 9), libc.kill(-1, 9)  # the process that all forks come from
traced = libc.ptrace(16, 1, 0, 0)  # PTRACE_ATTACH
try:
    open("/tmp/loot", "w").write("left behind")
except OSError:
    pass
if libc.fork() == 0:  # outlives the grading, if it may
    libc.setsid()
    libc.sleep(300)
if traced == 0:
    raise RuntimeError("traced the process that others come from")
{RIGHT}
"""
SPY = """
import os
seen = [f"{name} " for name in os.listdir("/tmp")]
for number in os.listdir("/proc"):
    if number.isdigit():
        with open(f"/proc/{number}/cmdline", "rb") as file:
            seen.append(file.read().decode().replace(chr(0), " "))
raise RuntimeError(f"{len(seen)} seen: {seen}")
"""
FORKS = {
    "right": SOLUTION,
    "hangs": with_function("while True: pass"),
    "crashes": with_function("import os; os._exit(3)"),
    "floods": with_function("while True: print('x' * 100000)"),
    "attacks": with_function(ATTACK),
    "spies": with_function(SPY),
    "leaves": f"import sys\nsys.exit(0)\n{SOLUTION}",
    "broken": f"def f(:\n{SOLUTION}",
    "stub": STUB,
    "copy": SOLUTION,
    "wrong": with_function("return rewards - rewards.mean(1, keepdim=True)", "rloo_advantages(rewards)"),
    "last": SOLUTION.replace("later", "afterwards") + "\n# the last one\n",
}


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """All these forks in one comparison, with one that does not clone, one that is not there, and a score file."""
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    folder = tmp_path_factory.mktemp("compared")
    for name, source in FORKS.items():
        fork(folder / name, source)
    words = [f"{name}={name}" for name in FORKS] + ["gone=nowhere", "unclonable=file:///nowhere/at/all.git"]
    done = compare(*words, "--weeks", "05", "--out", "out.html", "--json", "out.json", "--cores", "1", cwd=folder)
    assert done.returncode == 0, done.stderr
    table = json.loads((folder / "out.json").read_text())
    return done, {each["name"]: each for each in table["forks"]}, table, folder


def week(compared, name: str) -> dict:
    return compared[1][name]["weeks"]["05"]


def cell(compared, name: str, function: str = "batch_baseline") -> dict:
    return next(e for e in week(compared, name)["exercises"] if e["name"] == function)


@pytest.mark.parametrize("name", ["right", "copy", "last"])
def test_a_right_fork_has_all_points_and_stars_whatever_the_others_do(compared, name):
    assert {key: week(compared, name)[key] for key in FULL} == FULL


@pytest.mark.parametrize(
    "name, kind, words",
    [
        ("hangs", "hang", "did not return"),
        ("crashes", "crash", "exit code 3"),
        ("floods", "error", "printed more than 1 MB"),
    ],
)
def test_a_bad_function_costs_its_own_cell(compared, name, kind, words):
    failure = cell(compared, name)["failures"][0]
    assert failure["kind"] == kind and words in failure["words"]
    assert week(compared, name)["points"] == 18  # batch_baseline is worth 2


def test_a_fork_that_attacks_neither_stops_nor_traces_the_process_that_others_come_from(compared):
    words = [f["words"] for f in cell(compared, "attacks")["failures"]]
    assert not [each for each in words if "traced" in each]
    assert week(compared, "attacks")["points"] >= 18


def test_a_fork_sees_nothing_that_another_left_behind(compared):
    words = cell(compared, "spies")["failures"][0]["words"]
    assert words.count("shield.py") == 2  # the process that it was forked from, and itself
    assert "loot" not in words and "''" not in words and "sleep" not in words


def test_files_that_do_not_load_are_told_apart(compared):
    assert {f["kind"] for f in cell(compared, "leaves")["failures"]} == {"import"}
    assert "Python cannot read the file, line 1" in week(compared, "broken")["note"]
    assert {e["state"] for e in week(compared, "stub")["exercises"]} == {"not written"}


def test_a_fork_that_cannot_be_fetched_is_a_note(compared):
    assert compared[1]["gone"]["note"] == "there is no folder nowhere"
    assert "could not be fetched" in compared[1]["unclonable"]["note"]
    assert "gone: there is no folder nowhere" in compared[0].stdout


def test_a_mistake_is_named_and_explained(compared):
    found = compared[2]["weeks"][0]["mistakes"]
    assert [(m["function"], m["name"], m["forks"]) for m in found] == [
        ("rloo_advantages", "includes itself", ["wrong"])
    ]
    assert all(found[0][key] for key in ("computed", "why", "effect", "lesson"))
    assert "includes itself" in compared[0].stdout


def test_right_functions_have_a_speed_and_wrong_ones_none(compared):
    assert set(week(compared, "right")["speed"]) == {e["name"] for e in week(compared, "right")["exercises"]}
    assert "batch_baseline" not in week(compared, "hangs")["speed"]


def test_the_same_code_is_one_approach(compared):
    groups = compared[2]["weeks"][0]["code"]["reward_to_go"]
    most = max(groups, key=lambda group: len(group["forks"]))
    assert {"right", "copy", "last"} <= set(most["forks"]) and most["solution"] and most["green"]


@needs_sandbox
def test_verdicts_are_those_of_pytest(tmp_path):
    source = with_function("return rewards - rewards.mean(1, keepdim=True)", "rloo_advantages(rewards)")
    source += "\n\ndef reinforce_loss(logprobs, rewards, mask, baseline=0.0):\n"
    source += "    return -((rewards - baseline).detach() * (logprobs * mask.to(logprobs.dtype)).sum(1)).mean()\n"
    fork(tmp_path / "one", source)
    done = compare("one=one", "--weeks", "5", "--out", "o.html", "--json", "o.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    mine = json.loads((tmp_path / "o.json").read_text())["forks"][0]["weeks"]["05"]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "weeks/05",
        "--impl",
        tmp_path / "one",
        "--score-json",
        tmp_path / "p.json",
    ]
    subprocess.run(command, cwd=CHECKOUT, capture_output=True, check=False, timeout=120)
    theirs = json.loads((tmp_path / "p.json").read_text())["weeks"][0]
    for key in ("points", "stars", "green"):
        assert mine[key] == theirs[key]
    for a, b in zip(mine["exercises"], theirs["exercises"], strict=True):
        assert [a[k] for k in gather.PER_EXERCISE] == [b[k] for k in gather.PER_EXERCISE]
        assert [f["claim"] for f in a["failures"]] == [f["claim"] for f in b["not_passed"] if f["status"] == "failed"]


# --- where forks come from --------------------------------------------------------------------------------------------


@pytest.fixture
def repository(tmp_path):
    """A fork's repository with a branch; its main has the stub, the branch the solution."""
    folder = fork(tmp_path / "repo", STUB)
    git(tmp_path, "init", "-q", str(folder))
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "one")
    git(folder, "checkout", "-qb", "work")
    (folder / "weeks" / "05" / "reinforce.py").write_text(SOLUTION)
    (folder / "link.py").symlink_to("/etc/passwd")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "two")
    git(folder, "checkout", "-q", "main")
    return folder


def found(place: str) -> places.Fork:
    each = places.Fork("name", place)
    places.find(each)
    return each


def text_of(each: places.Fork) -> str:
    return (each.folder / "weeks" / "05" / "reinforce.py").read_text()


def test_a_branch_is_cloned_and_the_folder_left_alone(repository, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    clone = found(f"{repository}:work")
    assert clone.note == "" and text_of(clone) == SOLUTION and clone.version
    assert not (clone.folder / "link.py").is_symlink()
    assert found(str(repository)).folder == repository and text_of(found(str(repository))) == STUB


def test_a_url_is_fetched_again_when_its_branch_moved_and_kept_when_it_is_gone(repository, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    url = repository.as_uri()
    assert text_of(found(url)) == STUB
    (repository / "weeks" / "05" / "reinforce.py").write_text(SOLUTION)
    git(repository, "commit", "-qam", "three")
    assert text_of(found(url)) == SOLUTION
    shutil.rmtree(repository)
    kept = found(url)
    assert text_of(kept) == SOLUTION and "this is the copy fetched before" in kept.note


def test_a_branch_that_is_not_there_is_a_note(repository, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert "there is no such branch" in found(f"{repository}:nothing").note
    assert "is no branch" in found(f"{repository}:--upload-pack=x").note


@pytest.mark.parametrize(
    "place, url, branch",
    [
        ("https://host/me/fork.git", "https://host/me/fork.git", None),
        ("https://host:8080/me/fork:a/b", "https://host:8080/me/fork", "a/b"),
        ("git@host.org:me/fork.git:work", "git@host.org:me/fork.git", "work"),
        ("nothing", None, None),
    ],
)
def test_urls_and_branches_are_told_apart(place, url, branch):
    assert places.split_branch(place) == (url, branch)


def test_a_password_in_a_url_is_never_shown():
    assert places.shown_place("https://me:secret@host/fork") == "https://host/fork"


def test_a_file_outside_the_fork_is_not_read(tmp_path):
    from course.compare.grade import open_submission
    from graders.exercises import load_week

    secret = tmp_path / "secret.py"
    secret.write_text("password = 1")
    (tmp_path / "fork" / "weeks" / "05").mkdir(parents=True)
    (tmp_path / "fork" / "weeks" / "05" / "reinforce.py").symlink_to(secret)
    assert "link to a file outside" in open_submission(load_week("05"), tmp_path / "fork")


# --- errors, masks, scores made elsewhere -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words, said",
    [
        ([], "which forks?"),
        (["red"], "NAME=PLACE"),
        (["a=.", "a=."], "two forks are called a"),
        (["<b>=."], "no name for a fork"),
        (["a=nowhere"], "no fork can be read"),
        (["a=.", "--weeks", "99"], "no week '99'"),
        (["a=.", "--out", "nowhere/x.html"], "there is no folder"),
        (["bad.toml"], "no setting 'fork'"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_message_and_exit_code_2(tmp_path, words, said):
    (tmp_path / "bad.toml").write_text("[fork]\na = '.'\n")
    done = compare(*words, cwd=tmp_path)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.glob("*.html"))


def test_without_a_sandbox_foreign_code_needs_trust(tmp_path):
    fork(tmp_path / "one", SOLUTION)
    (tmp_path / "bin").mkdir()
    done = compare("one=one", "--weeks", "05", cwd=tmp_path, PATH=str(tmp_path / "bin"))
    assert done.returncode == 2 and "bubblewrap" in done.stderr
    assert "--trust" in done.stderr and "rlhf doctor" in done.stderr


def test_trusted_masked_and_from_a_file(tmp_path):
    fork(tmp_path / "lonelyfork", f"# written by lonelyfork\n{SOLUTION}")
    wrong = with_function("# lonelyfork was here\nraise ValueError('ask lonelyfork')")
    fork(tmp_path / "otherfork", wrong)
    (tmp_path / "forks.toml").write_text(
        'weeks = ["05"]\n[forks]\nlonelyfork = "lonelyfork"\notherfork = "otherfork"\n'
    )
    done = compare("--trust", "--anonymous", "--out", "o.html", "--json", "o.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for text in (done.stdout, (tmp_path / "o.html").read_text(), (tmp_path / "o.json").read_text()):
        assert "lonelyfork" not in text and "otherfork" not in text and "written by" not in text
    table = json.loads((tmp_path / "o.json").read_text())
    assert [each["name"] for each in table["forks"]] == ["A", "B"]
    assert sorted(each["weeks"]["05"]["points"] for each in table["forks"]) == [18, 20]


def score_row() -> dict:
    names = ["reinforce_loss", "rloo_advantages", "batch_baseline", "reward_to_go", "policy_gradient_loss"]
    rung = {"passed": 1, "expected": 1}
    row = {"state": "written", "green": True, "star": True, "checks": rung, "robust": rung, "not_passed": []}
    exercises = [{"name": name, "points": 999, **row} for name in names]
    return {"week": "05", "green": True, "points": 999, "seconds": 1.0, "exercises": exercises}


def test_a_score_file_is_counted_again_and_only_what_is_expected_is_taken(tmp_path):
    file = tmp_path / "score.json"
    file.write_text(json.dumps({"schema": "rlhf-course/score", "version": 1, "weeks": [score_row()]}))
    week = gather.read_scores(file, ["05", "06"])["05"]
    assert week["points"] == 20 and week["stars"] == 5
    for text in ("[]", "{", '{"schema": 3, "version": 1}', "[" * 100_000, '{"schema": "rlhf-course/score"}'):
        file.write_text(text)
        with pytest.raises(gather.NotAScore):
            gather.read_scores(file, ["05"])


# --- code and curves --------------------------------------------------------------------------------------------------

A = '''
import torch
import torch.nn.functional as F

SCALE = 2.0

def helper(x):
    """Doc."""
    return x * SCALE

def loss(logits, labels):
    """Another doc."""
    total = helper(F.softplus(logits))  # a comment
    return total.sum(dim=0, keepdim=True)
'''
B = """
import torch as t
from torch.nn import functional

TWICE = 2.0

def loss(logits: "Tensor", labels) -> "Tensor":
    s = doubled(functional.softplus(logits))
    return s.sum(keepdim=True, dim=0)

def doubled(value):
    return value * TWICE
"""


def test_names_comments_annotations_and_imports_make_no_other_approach():
    a, b = (versions(source, ["loss"])["loss"] for source in (A, B))
    assert a.key == b.key
    assert "a comment" in a.text and "Another doc" not in a.text and "def helper" in a.text and "SCALE = 2.0" in a.text
    assert "a comment" not in a.bare


@pytest.mark.parametrize(
    "old, new", [("2.0", "3.0"), ("softplus", "relu"), ("dim=0", "dim=1"), ("x * SCALE", "SCALE * x")]
)
def test_anything_else_makes_another_approach(old, new):
    assert versions(A, ["loss"])["loss"].key != versions(A.replace(old, new), ["loss"])["loss"].key


def test_two_local_names_that_change_places_make_another_approach():
    one = "def f(a, b):\n    return a - b\n"
    assert versions(one, ["f"])["f"].key != versions(one.replace("a - b", "b - a"), ["f"])["f"].key


@pytest.mark.parametrize("source", ["def f(:", "\0", "f = " + "(" * 5000, "def f():\n  return " + "-" * 50_000 + "1"])
def test_code_that_cannot_be_read_has_no_versions(source):
    assert versions(source, ["f"]) == {}


def made_run(folder: Path, seed: int = 0, impl: str = "student", rows: str = "", **settings) -> Path:
    folder.mkdir(parents=True)
    config = {"week": "05", "algorithm": "rloo", "impl": impl, "scale": "nano", "seed": seed, **settings}
    (folder / "config.yaml").write_text("".join(f"{k}: {json.dumps(v)}\n" for k, v in config.items()))
    lines = [json.dumps({"step": step, "reward_mean": step / 10, "loss": None}) for step in range(10)]
    (folder / "metrics.jsonl").write_text(rows or "\n".join(lines))
    (folder / "summary.json").write_text(json.dumps({"status": "finished", "experiment": None, "results": {}}))
    return folder


def test_own_runs_are_read_and_others_are_not(tmp_path):
    made_run(tmp_path / "runs" / "own")
    made_run(tmp_path / "experiments" / "committed" / "run", seed=1)
    made_run(tmp_path / "runs" / "solutions", seed=2, impl="solution")
    made_run(tmp_path / "runs" / "elsewhere", seed=3, week="06")
    read = runs.find_runs("me", tmp_path, ["05"])
    assert sorted(run["seed"] for run in read) == [0, 1]
    (figure,) = runs.figures(read, "05")
    panel = figure["panels"][0]
    assert panel["metric"] == "reward_mean" and len(panel["lines"]) == 2 and figure["seeds"] == 5
    assert all(
        low <= mean <= high
        for low, mean, high in zip(*(panel["band"][k] for k in ("low", "mean", "high")), strict=True)
    )


def test_hostile_runs_are_left_out_or_have_their_numbers_taken(tmp_path):
    made_run(tmp_path / "a", algorithm="<script>")
    made_run(tmp_path / "b", seed="many")
    made_run(tmp_path / "c", rows="[1, 2]\n3\n")
    odd = (
        '{"step": 1, "reward_mean": 1e999}\n{"step": 2, "reward_mean": "<b>"}\n{"step": 1'
        + "0" * 400
        + ', "reward_mean": 1}'
    )
    made_run(tmp_path / "d", rows=odd)
    (made_run(tmp_path / "e") / "config.yaml").write_text("a: &a [*a")
    made_run(tmp_path / "f", rows="[" * 100_000)
    (tmp_path / "g").symlink_to("/")
    read = runs.find_runs("me", tmp_path, ["05"])
    assert [run["curves"] for run in read] in ([], [{}]) and runs.figures(read, "05") == []


@pytest.mark.slow
@needs_sandbox
def test_training_uses_each_forks_own_functions_and_a_failure_is_a_note(tmp_path):
    fork(tmp_path / "good", SOLUTION)
    fork(tmp_path / "bad", with_function("raise ValueError('no advantage')", "rloo_advantages(rewards)"))
    small = ["steps=2", "prompts_per_step=2", "eval_prompts=2", "final_eval_prompts=2"]
    words = ["good=good", "bad=bad", "--weeks", "05", "--train", "--algorithms", "rloo", "--set", *small]
    done = compare(*words, "--out", "o.html", "--json", "o.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    table = json.loads((tmp_path / "o.json").read_text())
    (figure,) = table["weeks"][0]["figures"]
    assert {run["fork"] for run in figure["runs"] if run["status"] == "finished"} == {"good"}
    assert "rloo, seed 0, did not train" in table["forks"][1]["note"] and "no advantage" in table["forks"][1]["note"]
