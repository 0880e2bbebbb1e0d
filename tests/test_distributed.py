"""Two processes share a run: the numbers, the folder and the checkpoint are those of one process.

Run as a script (by torchrun, see `both`) this file is the two processes: one pair does all launchers in turn.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from reference_impl import distributed
from reference_impl.errors import UserError
from reference_impl.implementations import ROOT
from reference_impl.launch import find_launcher, launch, main
from reference_impl.loops import habits, rl
from reference_impl.models import hardware
from reference_impl.options import Options
from reference_impl.runs import plots
from reference_impl.runs.run import Run, read_metrics
from tests.test_hub import write_model

pytestmark = pytest.mark.slow  # half a minute for a pair of processes that does all launchers

EVALUATED = ("eval_prompts=6", "final_eval_prompts=10", "checkpoint_every=2", "max_new_tokens=12")
SMALL_RL = (*EVALUATED, "prompts_per_step=4", "group=4", "lr=1e-3")
SMALL_PAIRS = (*EVALUATED, "pair_prompts=24", "samples_per_prompt=6", "held_out_pairs=4", "batch_size=5")
SMALL_REWARDS = (*EVALUATED, "reward_prompts=30", "held_out_samples=8", "batch_size=15")
SMALL_SFT = (*EVALUATED, "batch_size=7", "demonstrations=50", "micro_batches=4")

CASES = {  # name: (week, algorithm, settings)
    "objective": ("01", None, ("reward_prompts=20", "eval_prompts=10", "outcomes=8", "samples=64")),
    "sft": ("02", "sft", SMALL_SFT),
    "reward-models": ("03", "reward-models", SMALL_REWARDS),
    "prm": ("04", "prm", SMALL_REWARDS),
    "rloo": ("05", "rloo", (*SMALL_RL, "micro_batches=4")),
    "grpo": ("06", "grpo", (*SMALL_RL, "epochs=2", "minibatches=2", "aggregate=token_mean")),
    "ppo": ("06", "ppo", (*SMALL_RL, "epochs=2", "minibatches=2")),
    "rlvr": ("07", "rlvr", (*SMALL_RL, "scaling_prompts=4", "scaling_samples=4")),
    "dpo": ("08", "dpo", SMALL_PAIRS),
    "kto": ("09", "kto", SMALL_PAIRS),
    "top-per-prompt": ("10", "top-per-prompt", (*EVALUATED, "sample_prompts=12", "samples_per_prompt=3")),
    "on-policy-distillation": ("11", "on-policy-distillation", SMALL_RL),
    "sdpo": ("11", "sdpo", SMALL_RL),
}
LARGE = ("policy={model}", "rows_at_once=8", "shard=true", "max_new_tokens=6", *EVALUATED[:3])
CASES |= {  # a tiny Qwen3, whose weights and optimizer the two processes divide
    "sharded-sft": ("02", "sft", (*LARGE, "batch_size=7", "demonstrations=50", "micro_batches=4", "max_length=256")),
    "sharded-ppo": (
        "06",
        "ppo",
        (*LARGE, "prompts_per_step=4", "group=2", "epochs=1", "minibatches=2", "micro_batches=4", "kl_penalty=0.1"),
    ),
    "sharded-bradley-terry": ("03", "bradley-terry", (*LARGE, "data={pairs}", "batch_size=6")),
    "sharded-dpo": ("08", "dpo", (*LARGE, "data={pairs}", "held_out_pairs=4", "batch_size=5", "micro_batches=4")),
    "whole-kto": ("09", "kto", (*LARGE, "shard=false", "data={pairs}", "held_out_pairs=4", "batch_size=5")),
    "sharded-on-policy-distillation": ("11", "on-policy-distillation", (*LARGE, "prompts_per_step=4", "group=2")),
}
ROUNDING = {  # what rounding decides here: ties with the reference, the variance of rewards that are all 0
    "sharded-dpo": "accuracy",
    "sharded-ppo": "explained_variance",
}
MEASURED = {"seconds", "tokens_per_second"}
STEPS = 3
RESUMED = ("ppo", "sharded-ppo")


def settings_of(declared: tuple[str, ...], folder: Path) -> tuple[str, ...]:
    """With the paths of what `both` has written beside the runs."""
    return tuple(each.format(model=folder.parent / "model", pairs=folder.parent / "pairs.jsonl") for each in declared)


def run_all(folder: Path) -> None:
    """Every case, and some of them interrupted and resumed, in this process or this pair of processes."""
    os.environ["WANDB_MODE"] = "disabled"
    habits.STEPS = 2
    draw, plots.plot_run = plots.plot_run, lambda path: None
    for name, (week, algorithm, declared) in CASES.items():
        runs_dir, settings = folder / name, settings_of(declared, folder)
        launch(
            find_launcher(week),
            Options(algorithm=algorithm, impl="solution", steps=STEPS, set=settings, runs_dir=runs_dir),
        )
    log = Run.log

    def interrupted(self, step, **metrics):
        if step == STEPS:
            raise KeyboardInterrupt
        log(self, step, **metrics)

    for name in RESUMED:
        (week, algorithm, declared), runs_dir = CASES[name], folder / f"resumed-{name}"
        settings = settings_of(declared, folder)
        Run.log = interrupted
        try:
            launch(
                find_launcher(week),
                Options(algorithm=algorithm, impl="solution", steps=STEPS, set=settings, runs_dir=runs_dir),
            )
        except SystemExit:
            distributed.barrier()
        finally:
            Run.log = log
        launch(find_launcher(week), Options(resume=str(only_run(runs_dir))))
    plots.plot_run = draw


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> dict[str, Path]:
    """Where the runs of one process lie, and those of two."""
    folder = tmp_path_factory.mktemp("distributed")
    write_model(folder / "model")
    words = ("one", "two", "three", "step", "answer", "the answer of 12")
    pairs = [{"prompt": f"say {i} {w}", "chosen": w, "rejected": f"{w} {i}"} for i in range(9) for w in words]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    pair = subprocess.Popen(
        torchrun("-m", "tests.test_distributed", str(folder / "two")),
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("WANDB_MODE", "disabled")
            patch.setattr(habits, "STEPS", habits.STEPS)
            run_all(folder / "one")
        said = pair.communicate(timeout=240)[0]
    finally:
        pair.kill()
    assert pair.returncode == 1 and "only the second process minds" in said, said[-3000:]
    (folder / "said.txt").write_text(said)
    return {"one": folder / "one", "two": folder / "two", "said": folder / "said.txt"}


def torchrun(*args: str) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *args]


def only_run(folder: Path) -> Path:
    (run,) = folder.iterdir()
    return run


def numbers(run: Path) -> list[dict]:
    return [{key: value for key, value in row.items() if key not in MEASURED} for row in read_metrics(run)]


@pytest.mark.parametrize("name", [*CASES, *(f"resumed-{name}" for name in RESUMED)])
def test_two_processes_log_the_numbers_of_one(both, name):
    one, two = numbers(only_run(both["one"] / name)), numbers(only_run(both["two"] / name))
    assert len(one) == len(two) >= STEPS
    for single, shared in zip(one, two, strict=True):
        for row in (single, shared):
            row.pop(ROUNDING.get(name.removeprefix("resumed-")), None)
        assert single == pytest.approx(shared, rel=2e-4, abs=2e-5)
    assert any(value != 0 for row in one for key, value in row.items() if key.startswith("loss"))


@pytest.mark.parametrize("name", CASES)
def test_two_processes_leave_one_folder_with_the_weights_of_one(both, name):
    from safetensors.torch import load_file

    one, two = only_run(both["one"] / name), only_run(both["two"] / name)
    assert {file.name for file in one.iterdir()} == {file.name for file in two.iterdir()}
    assert json.loads((two / "summary.json").read_text())["status"] == "finished"
    weights, shared = (load_file(run / "checkpoint" / "model.safetensors") for run in (one, two))
    assert weights.keys() == shared.keys()
    for key, tensor in weights.items():
        if name in ("reward-models", "sharded-bradley-terry") and key == "head.bias":
            continue  # it cancels in every pair, so its gradient is rounding alone, which Adam makes steps of
        torch.testing.assert_close(shared[key], tensor, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("name", RESUMED)
def test_a_resumed_pair_goes_on_exactly(both, name):
    assert numbers(only_run(both["two"] / f"resumed-{name}")) == numbers(only_run(both["two"] / name))


def test_one_process_does_the_talking(both):
    said = both["said"].read_text()
    assert (
        said.count("2 processes share the run") == ("\n" + said).count("\nWeek ") == len(CASES) + 2 * len(RESUMED) + 1
    )
    assert said.count("goes on.") == len(RESUMED), "an interruption is said once"


def fail_on_the_second(folder: Path) -> None:
    """A run that ends because one of its processes has something to say."""

    def refused(*args):
        raise UserError("only the second process minds")

    if distributed.rank() == 1:
        rl.rollout_metrics = refused
    main(find_launcher("05"), ["--impl", "reference", "--runs-dir", str(folder / "failed"), "--set", *SMALL_RL])


def test_an_error_in_one_process_ends_both_with_one_message(both):
    said = both["said"].read_text()
    assert said.count("error: only the second process minds") == 1
    assert "RuntimeError" not in said and "DistBackendError" not in said
    assert json.loads((only_run(both["two"] / "failed") / "summary.json").read_text())["status"] == "failed"


def test_shares_hold_every_row_once(monkeypatch):
    monkeypatch.setattr(distributed, "world_size", lambda: 3)
    for rows in (3, 7, 9):
        shares = []
        for number in range(3):
            monkeypatch.setattr(distributed, "rank", lambda number=number: number)
            shares.append(list(range(rows))[distributed.my_slice(rows)])
        assert sum(shares, []) == list(range(rows)) and max(map(len, shares)) - min(map(len, shares)) <= 1
        assert [part.tolist() for part in torch.arange(rows).tensor_split(distributed.bounds(rows))] == shares
        dealt = distributed.deal(torch.arange(rows))
        assert sorted(torch.cat(dealt).tolist()) == list(range(rows))
    assert list(range(2))[distributed.my_slice(2)] == [0, 1], "fewer things than processes: each takes all"
    with pytest.raises(UserError, match="A batch of 2 cannot be divided among 3 processes"):
        distributed.deal(torch.arange(2))


def test_more_processes_than_gpus_is_one_sentence(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(UserError, match="this machine has 1.*--nproc-per-node"):
        hardware.use("cuda")


if __name__ == "__main__":
    run_all(Path(sys.argv[1]))
    fail_on_the_second(Path(sys.argv[1]))
