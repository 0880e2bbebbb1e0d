"""A run folder tells the whole story, survives every way of dying, and is continued to the same numbers."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from reference_impl.errors import UserError
from reference_impl.implementations import ROOT
from reference_impl.launch import find_launcher, launch
from reference_impl.options import Options
from reference_impl.runs import files, wandb_mirror
from reference_impl.runs.checkpoint import load_checkpoint, save_checkpoint
from reference_impl.runs.plots import plot_run, plot_runs
from reference_impl.runs.run import Run, find_run, read_metrics

SMALL_RL = (
    "prompts_per_step=2",
    "group=2",
    "max_new_tokens=6",
    "eval_prompts=4",
    "final_eval_prompts=8",
    "checkpoint_every=2",
    "reward_shift=1",  # random weights solve nothing: the shift gives them something to learn from
)
SMALL_SFT = (
    "demonstrations=64",
    "batch_size=8",
    "max_new_tokens=6",
    "eval_prompts=4",
    "final_eval_prompts=8",
    "eval_every=4",
    "checkpoint_every=4",
)
SMALL_DPO = (
    "pair_prompts=24",
    "samples_per_prompt=6",
    "held_out_pairs=4",
    "batch_size=4",
    "max_new_tokens=16",
    "eval_prompts=4",
    "final_eval_prompts=8",
    "checkpoint_every=2",
)
MEASURED = {"seconds", "tokens_per_second"}  # what two equal runs do not share


@pytest.fixture(autouse=True)
def no_wandb(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")


def rl_options(runs_dir, **changes):
    settings = {"algorithm": "reinforce", "impl": "reference", "policy": "random", "steps": 6, "set": SMALL_RL}
    return Options(runs_dir=runs_dir, **(settings | changes))


def train_rl(runs_dir, **changes):
    return Path(launch(find_launcher("05"), rl_options(runs_dir, **changes))["path"])


def numbers(run: Path) -> list[dict]:
    return [{key: value for key, value in row.items() if key not in MEASURED} for row in read_metrics(run)]


def weights(run: Path) -> dict:
    from safetensors.torch import load_file

    return load_file(run / "checkpoint" / "model.safetensors")


def interrupt_at(monkeypatch, step: int) -> None:
    """Ctrl-C just before the metrics of `step` are logged."""
    log = Run.log

    def interrupted(self, at, **metrics):
        if at == step:
            raise KeyboardInterrupt
        log(self, at, **metrics)

    monkeypatch.setattr(Run, "log", interrupted)


def same_after_interruption(week: str, options: Options, step: int, tmp_path, monkeypatch) -> None:
    """Train once in one go and once with an interruption before `step` and a resume: the same numbers and weights."""
    from dataclasses import replace

    launcher = find_launcher(week)
    whole = Path(launch(launcher, replace(options, runs_dir=tmp_path / "whole"))["path"])
    with monkeypatch.context() as patch:
        interrupt_at(patch, step)
        with pytest.raises(SystemExit) as exit_:
            launch(launcher, replace(options, runs_dir=tmp_path / "parts"))
    assert exit_.value.code == 130
    (interrupted,) = (tmp_path / "parts").iterdir()
    assert json.loads((interrupted / "summary.json").read_text())["status"] == "interrupted"
    torch.manual_seed(987)  # whatever state the next process starts in
    launch(launcher, Options(resume=str(interrupted)))
    assert numbers(interrupted) == numbers(whole)
    resumed, uninterrupted = weights(interrupted), weights(whole)
    assert all(torch.equal(resumed[name], uninterrupted[name]) for name in uninterrupted)
    results = [json.loads((run / "summary.json").read_text()) for run in (interrupted, whole)]
    assert results[0]["status"] == results[1]["status"] == "finished"
    for key in results[1]["results"].keys() - MEASURED:
        assert results[0]["results"][key] == results[1]["results"][key]


def test_a_run_leaves_config_metrics_samples_curves_checkpoint_and_summary(tmp_path):
    run = train_rl(tmp_path)
    names = {path.name for path in run.iterdir()}
    assert names == {"config.yaml", "metrics.jsonl", "samples.md", "curves.png", "checkpoint", "summary.json"}
    rows = read_metrics(run)
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4, 5, 6, 6]
    assert {"reward_mean", "response_length", "entropy", "kl", "grad_norm", "tokens_per_second", "lr"} <= rows[1].keys()
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "finished" and summary["seed"] == 0
    assert summary["functions"] == "reference_impl/reinforce.py" and len(summary["functions_sha256"]) == 64
    assert summary["versions"]["torch"] == torch.__version__.split("+")[0]
    assert {"sampled_accuracy_before", "sampled_accuracy", "greedy_accuracy"} <= summary["results"].keys()


def test_kl_is_zero_before_the_first_update_and_gradients_move_the_policy(tmp_path):
    run = train_rl(tmp_path)
    rows = read_metrics(run)
    assert abs(rows[1]["kl"]) < 1e-5
    assert rows[1]["grad_norm"] > 0 and abs(rows[6]["kl"]) > 1e-5


def test_an_interrupted_rl_run_resumes_to_the_same_numbers(tmp_path, monkeypatch):
    same_after_interruption("05", rl_options(tmp_path), 4, tmp_path, monkeypatch)


def test_a_run_interrupted_before_its_first_checkpoint_resumes_to_the_same_numbers(tmp_path, monkeypatch):
    same_after_interruption("05", rl_options(tmp_path), 0, tmp_path, monkeypatch)


def test_an_interrupted_sft_run_resumes_to_the_same_numbers(tmp_path, monkeypatch):
    options = Options(impl="reference", steps=12, set=SMALL_SFT)
    same_after_interruption("02", options, 8, tmp_path, monkeypatch)


def test_an_interrupted_dpo_run_resumes_to_the_same_numbers(tmp_path, monkeypatch):
    options = Options(impl="reference", steps=4, set=SMALL_DPO)
    same_after_interruption("08", options, 3, tmp_path, monkeypatch)


def test_a_run_killed_at_any_moment_is_readable_and_resumes_to_the_same_numbers(tmp_path):
    whole = train_rl(tmp_path / "whole", steps=12)
    command = [sys.executable, "weeks/05/train.py", "--algorithm", "reinforce", "--impl", "reference"]
    command += ["--policy", "random", "--steps", "12", "--runs-dir", str(tmp_path / "killed"), "--set", *SMALL_RL]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: any((tmp_path / "killed").glob("*/checkpoint")) and count_rows(tmp_path / "killed") >= 4)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (killed,) = (tmp_path / "killed").iterdir()
    assert len(read_metrics(killed)) >= 4
    plot_run(killed)
    if json.loads((killed / "summary.json").read_text())["status"] == "running":
        launch(find_launcher("05"), Options(resume=str(killed)))
    assert numbers(killed) == numbers(whole)


def count_rows(folder: Path) -> int:
    return sum(len(path.read_text().splitlines()) for path in folder.glob("*/metrics.jsonl"))


def wait_until(condition, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "the run did not get going"
        time.sleep(0.01)


def test_a_line_cut_off_by_a_crash_is_left_out(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    assert read_metrics(tmp_path) == [{"step": 1, "loss": 2.0}]


def test_a_crash_between_the_two_renames_loses_no_checkpoint(tmp_path, monkeypatch):
    folder = tmp_path / "checkpoint"
    with files.replacing_folder(folder) as fresh:
        (fresh / "weights").write_text("first")
    rename = Path.rename

    def crash(self, target):
        if target == folder:
            raise MemoryError("power cut")
        return rename(self, target)

    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(Path, "rename", crash)
        with files.replacing_folder(folder) as fresh:
            (fresh / "weights").write_text("second")
    assert not folder.exists()
    assert (files.settled_folder(folder) / "weights").read_text() == "first"


def test_a_full_disk_takes_back_the_half_written_line(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    files.append_line(path, '{"step": 1}')
    write = os.write

    def full(file, data):
        if len(data) > 5:
            return write(file, data[:5])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(UserError, match="No space left on device"):
        files.append_line(path, '{"step": 2}')
    assert path.read_text() == '{"step": 1}\n'


def test_a_disk_that_fills_up_ends_a_run_in_one_message_and_leaves_it_readable(tmp_path):
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000));"
        "sys.argv[0] = 'train.py';"
        "import runpy; runpy.run_path('weeks/05/train.py', run_name='__main__')"
    )
    command = [sys.executable, "-c", code, "--algorithm", "reinforce", "--impl", "reference"]
    command += ["--policy", "random", "--steps", "4", "--runs-dir", str(tmp_path), "--set", *SMALL_RL]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ") and "Traceback" not in done.stderr
    (run,) = tmp_path.iterdir()
    assert not list(run.glob("**/*.partial")) and not list(run.glob("**/.checkpoint*"))
    assert read_metrics(run) and json.loads((run / "summary.json").read_text())["status"] == "failed"


def test_a_checkpoint_that_cannot_be_written_keeps_the_one_before(tmp_path, monkeypatch):
    from reference_impl.models import load_model

    model, tokenizer = load_model("random")
    generator = torch.Generator().manual_seed(5)
    save_checkpoint(tmp_path / "checkpoint", 1, model, tokenizer, {"generator": generator})
    torch.rand(3, generator=generator)

    def full(*args):
        raise RuntimeError("file write failed: no space left")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match="The one before it is kept"):
        save_checkpoint(tmp_path / "checkpoint", 2, model, tokenizer, {"generator": generator})
    assert load_checkpoint(tmp_path / "checkpoint", model, {"generator": generator}) == 1
    assert generator.get_state().equal(torch.Generator().manual_seed(5).get_state())


def test_a_folder_that_cannot_be_written_is_refused_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--runs-dir"):
        train_rl(tmp_path / "file")
    with pytest.raises(UserError, match="--runs-dir"):
        train_rl(tmp_path / "file" / "runs")


def test_what_is_no_run_or_finished_or_from_another_week_is_not_resumed(tmp_path):
    with pytest.raises(UserError, match="no run folder"):
        find_run(tmp_path)
    run = train_rl(tmp_path, steps=1)
    with pytest.raises(UserError, match="is finished"):
        launch(find_launcher("05"), Options(resume=str(run)))
    with pytest.raises(UserError, match="of week 05, not of week 08"):
        launch(find_launcher("08"), Options(resume=str(run)))
    with pytest.raises(UserError, match="leave the other options out"):
        launch(find_launcher("05"), Options(resume=str(run), seed=3))


def test_a_saved_run_is_another_runs_start_policy(tmp_path):
    first = train_rl(tmp_path, steps=2)
    second = train_rl(tmp_path, steps=1, policy=str(first))
    before = json.loads((second / "summary.json").read_text())["results"]["sampled_accuracy_before"]
    assert before == json.loads((first / "summary.json").read_text())["results"]["sampled_accuracy"]
    assert json.loads((second / "summary.json").read_text())["status"] == "finished"


def test_curves_of_runs_are_drawn_in_one_figure(tmp_path):
    runs = [train_rl(tmp_path, steps=2), train_rl(tmp_path, steps=2, algorithm="rloo", set=SMALL_RL)]
    plot_runs(runs, tmp_path / "both.png")
    assert (tmp_path / "both.png").stat().st_size > 10_000


def test_wandb_goes_offline_without_a_key_or_a_network_and_obeys_its_variables(monkeypatch):
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", "/nowhere/netrc")
    assert wandb_mirror.choose_mode() == "offline"
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setattr(wandb_mirror, "reachable", lambda host: False)
    assert wandb_mirror.choose_mode() == "offline"
    monkeypatch.setattr(wandb_mirror, "reachable", lambda host: True)
    assert wandb_mirror.choose_mode() == "online"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_mirror.choose_mode() == "disabled"


def test_a_run_that_is_mirrored_offline_has_its_wandb_files_in_the_run_folder(tmp_path):
    environment = {**os.environ, "WANDB_MODE": "offline", "WANDB_PROJECT": "tried", "WANDB_RUN_NAME": "named"}
    command = [sys.executable, "weeks/05/train.py", "--algorithm", "reinforce", "--impl", "reference"]
    command += ["--policy", "random", "--steps", "2", "--runs-dir", str(tmp_path), "--set", *SMALL_RL]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (run,) = tmp_path.iterdir()
    (mirror,) = run.glob("wandb/offline-run-*/*.wandb")
    content = mirror.read_bytes()
    assert b"tried" in content and b"named" in content and b"reward_mean" in content
