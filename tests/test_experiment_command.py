"""`rlhf experiment new` never overwrites; `rlhf replicate` runs what its file says and compares over seeds."""

import json
import subprocess
import sys

import pytest

from course import experiment, replicate
from reference_impl.algorithms import ALGORITHMS
from reference_impl.config import parse_override, resolve
from reference_impl.errors import UserError
from reference_impl.implementations import ROOT, week_folder
from reference_impl.launch import find_launcher

TARGETS = sorted(path.stem for path in (week_folder("11") / "replications").glob("*.yaml"))
SMALL = """
claim: pairs teach
source: here
failure: they do not
arms:
  short: {week: "08", algorithm: dpo, set: [steps=1]}
  long: {week: "08", algorithm: dpo, set: [steps=2]}
compare:
  - {what: accuracy, a: "long: sampled_accuracy", b: "short: sampled_accuracy", expect: above 0}
  - {what: nothing, a: "short: eval_kl", b: "short: eval_kl", expect: above 0}
"""
QUICK = ("pair_prompts=24", "held_out_pairs=4", "final_eval_prompts=8", "eval_prompts=4", "batch_size=4")


def test_an_experiment_gets_a_log_with_all_its_parts_and_a_folder(tmp_path):
    log = experiment.new_experiment("  GRPO vs.\nRLOO: G=8?", "2026-11-05", tmp_path)
    assert log == tmp_path / "2026-11-05-grpo-vs-rloo-g-8.md"
    text = log.read_text(encoding="utf-8")
    parts = [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]
    assert parts == ["Question", "Hypothesis", "Prediction", "Setup", "Command", "Results", "Conclusion"]
    assert text.startswith("# GRPO vs. RLOO: G=8?\n") and "{" not in text
    assert "We would have been wrong if" in text and "commit " in text and "torch 2" in text
    assert list((tmp_path / "2026-11-05-grpo-vs-rloo-g-8").iterdir()) != []


def test_what_exists_is_never_overwritten(tmp_path):
    log = experiment.new_experiment("once", "2026-11-05", tmp_path)
    log.write_text("my results", encoding="utf-8")
    with pytest.raises(UserError, match="exists already"):
        experiment.new_experiment("Once!", "2026-11-05", tmp_path)
    assert log.read_text(encoding="utf-8") == "my results"
    log.unlink()  # the folder with the figures is still there
    with pytest.raises(UserError, match="exists already"):
        experiment.new_experiment("once", "2026-11-05", tmp_path)
    assert not log.exists()


def test_a_log_that_cannot_be_written_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "write_text", lambda *args: (_ for _ in ()).throw(UserError("the disk is full")))
    with pytest.raises(UserError, match="full"):
        experiment.new_experiment("lost", "2026-11-05", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_members_own_slug_can_be_plugged_in_and_is_refused_by_name_while_it_is_a_stub(tmp_path):
    assert experiment.new_experiment("mine", "2026-11-05", tmp_path, "solution").name == "2026-11-05-mine.md"
    with pytest.raises(UserError, match="experiment_slug is not written yet"):
        experiment.new_experiment("mine", "2026-11-05", tmp_path, "student")


def test_a_slug_that_is_no_file_name_is_refused(tmp_path):
    (tmp_path / "11").mkdir()
    (tmp_path / "11" / "research.py").write_text("def experiment_slug(date, title):\n    return '../' + title\n")
    with pytest.raises(UserError, match="should return a file name"):
        experiment.new_experiment("out", "2026-11-05", tmp_path / "experiments", str(tmp_path))
    assert not (tmp_path / "out.md").exists() and not (tmp_path / "experiments").exists()


@pytest.mark.parametrize(
    "args, message",
    [
        (["experiment", "new", "§§"], "has no letter a-z"),
        (["experiment", "new", "x", "--date", "5.11."], "YYYY-MM-DD"),
        (["replicate", "r1zero"], "did you mean 'r1-zero'"),
        (["replicate", "r1-zero", "--seeds", "a"], "--seeds a"),
        (["replicate", "r1-zero"], "paired_bootstrap is not written yet"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(args, message):
    done = subprocess.run([sys.executable, "-m", "course.cli", *args], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


def test_there_are_three_targets():
    assert TARGETS == ["dpo-overoptimization", "prm-orm", "r1-zero"]


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_is_ready_to_run(name):
    _, target = replicate.read_target(name)
    for arm in target.arms.values():
        overrides = dict(map(parse_override, arm.set))
        settings = resolve(
            find_launcher(arm.week).settings, arm.week, algorithm=arm.algorithm, scale=None, overrides=overrides
        )
        assert ALGORITHMS[settings.algorithm].plugs_in(arm.week)
    for item in target.compare:
        assert {item.a.partition(": ")[0], item.b.partition(": ")[0]} <= target.arms.keys()


def test_arms_are_run_for_every_seed_and_compared_in_pairs(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    file = tmp_path / "small.yaml"
    file.write_text(SMALL)
    command = replicate.ReplicateCommand(str(file), "3,5", "solution", QUICK, tmp_path / "runs")
    folder = replicate.replicate(command)
    saved = json.loads((folder / "results.json").read_text())
    first, second = saved["compare"]
    pairs = list(zip(saved["arms"]["long"], saved["arms"]["short"], strict=True))
    differences = [a["sampled_accuracy"] - b["sampled_accuracy"] for a, b in pairs]
    assert len(differences) == 2 and first["difference"] == pytest.approx(sum(differences) / 2)
    assert first["low"] == pytest.approx(min(differences)) and first["high"] == pytest.approx(max(differences))
    assert second["difference"] == 0 and second["held"] is False
    assert "not shown" in (folder / "report.md").read_text()
    assert sorted(run["seed"] for run in map(summary, folder.glob("08-*"))) == [3, 3, 5, 5]


def summary(run):
    return json.loads((run / "summary.json").read_text())


@pytest.mark.parametrize("change, message", [("week:", "arms"), ("expect: above 0", "expect"), ("claim", "claim")])
def test_a_target_that_is_not_well_formed_is_named(tmp_path, change, message):
    file = tmp_path / "broken.yaml"
    file.write_text(SMALL.replace(change, "expect: up" if change.startswith("expect") else "other:", 1))
    with pytest.raises(UserError, match=message):
        replicate.read_target(str(file))


def test_a_result_that_the_runs_do_not_have_is_named():
    found = {"dpo": [{"sampled_accuracy": 0.5}]}
    with pytest.raises(UserError, match="did you mean 'sampled_accuracy'"):
        replicate.values("dpo: sampled_acuracy", found)
    with pytest.raises(UserError, match="names no arm"):
        replicate.values("ppo: sampled_accuracy", found)
