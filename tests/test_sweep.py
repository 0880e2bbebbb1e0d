"""rlhf sweep: trials are ordinary runs, finished ones are skipped, and intervals are those of week 11."""

import json
import math
import textwrap
from pathlib import Path

import pytest
import torch

from course import sweep as command
from course.sweep import SweepCommand, metric_of, plan, run_trial, sweep
from reference_impl.errors import UserError
from reference_impl.launch import find_launcher, launch
from reference_impl.options import Options
from reference_impl.research import paired_bootstrap
from reference_impl.runs.sweep import DRAWS, STUDENT, differences, half_width, plot_sweep, standard_error, sweep_page

SMALL = (
    "steps=2",
    "prompts_per_step=2",
    "group=2",
    "max_new_tokens=4",
    "eval_prompts=2",
    "final_eval_prompts=2",
    "policy=random",
)
HALF_RIGHT = """
    def rloo_advantages(rewards):
        return "no tensor"

    def reinforce_loss(logprobs, rewards, mask):
        return -(rewards[:, None] * mask * logprobs).sum() / len(logprobs)

    def policy_gradient_loss(logprobs, advantages, mask, aggregate, max_length=None):
        return -(advantages[:, None] * mask * logprobs).sum() / len(logprobs)
"""


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")


def given(tmp_path, **changes) -> SweepCommand:
    options = {"algorithms": "rloo,reinforce", "seeds": "0-1", "impl": "reference", "set": SMALL, "runs_dir": tmp_path}
    return SweepCommand(week="05", **options | changes)


def train(trial, impl: str = "reference") -> Path:
    """The trial, run here."""
    options = Options(algorithm=trial.algorithm, seed=trial.seed, impl=impl, set=SMALL, runs_dir=trial.folder)
    return Path(launch(find_launcher("05"), options, graded=True)["path"])


def says(run: Path, **changes) -> None:
    """Change what a run's summary says."""
    file = run / "summary.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_every_algorithm_meets_every_seed_once_in_a_folder_that_more_seeds_share(tmp_path):
    folder, trials = plan(given(tmp_path, algorithms="rloo,reinforce,rloo"))
    assert [str(trial) for trial in trials] == [f"{a}, seed {s}" for a in ("rloo", "reinforce") for s in (0, 1)]
    assert plan(given(tmp_path, seeds="0-7"))[0] == folder
    assert plan(given(tmp_path, set=(*SMALL, "lr=1e-3")))[0] != folder


def test_a_finished_trial_counts_until_its_settings_or_functions_change(tmp_path):
    trial = plan(given(tmp_path))[1][0]
    assert trial.finished() is None and "--resume" not in trial.command(given(tmp_path))
    run = train(trial)
    assert trial.finished() == run
    says(run, functions_sha256="another")
    assert trial.finished() is None and "--resume" not in trial.command(given(tmp_path))
    changed = plan(given(tmp_path, set=(*SMALL, "lr=3e-4")))[1][0]
    assert command.Trial("rloo", 0, trial.folder, changed.settings).finished() is None


def test_what_was_begun_is_resumed_and_what_failed_begins_again(tmp_path):
    trial = plan(given(tmp_path))[1][0]
    run = train(trial)
    for status, resumed in (("failed", False), ("running", True), ("interrupted", True)):
        says(run, status=status)
        words = trial.command(given(tmp_path))
        assert (words[-2:] == ["--resume", str(run)]) == resumed
    assert run_trial(words, str(tmp_path / "log.txt"), str(tmp_path)) == "", "the launcher understands it"
    assert trial.finished() is not None


def test_without_ray_one_sentence_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr(command.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="uv sync --extra distributed"):
        sweep(given(tmp_path))
    assert not list(tmp_path.iterdir())


def test_finished_trials_are_compared_without_ray(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command.importlib.util, "find_spec", lambda name: None)
    folder, trials = plan(given(tmp_path))
    for number, trial in enumerate(trials):
        says(train(trial), results={"sampled_accuracy": 0.5 + 0.1 * number})
    assert sweep(given(tmp_path)) == 0
    page = (folder / "sweep.md").read_text()
    assert "`rlhf sweep 05 --algorithms rloo,reinforce --seeds 0-1 --impl reference --set steps=2" in page
    assert "| rloo | 0.550 ± 0.050 | 2 |" in page
    assert "| rloo - reinforce | -0.200 | -0.200 to -0.200 | 2 | below 0 |" in page
    assert (folder / "sweep.png").stat().st_size > 10_000
    assert "4 of them finished already" in capsys.readouterr().out
    asked = given(tmp_path, metric="sampled_acuracy")
    assert "sampled accuracy 0.500" in command.outcome(trials[0], asked), "a typing mistake ends no sweep half-way"
    with pytest.raises(UserError, match="did you mean 'sampled_accuracy'"):
        sweep(asked)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"algorithms": "rlo"}, "rloo"),
        ({"seeds": "a-b"}, "write 0-4"),
        ({"set": ("groups=2",)}, "group"),
        ({"scale": "nanoo"}, "nano"),
    ],
)
def test_what_a_trial_would_refuse_is_refused_before_any_starts(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        sweep(given(tmp_path, **changes))
    assert not list(tmp_path.iterdir())


def test_the_metric_is_the_held_out_accuracy_unless_another_is_asked_for():
    runs = [{"kl": 1.0, "sampled_accuracy": 0.5}, {"sampled_accuracy": 0.6, "kl": 2.0, "more": 1.0}]
    assert metric_of(runs, None) == "sampled_accuracy" and metric_of(runs, "kl") == "kl"
    with pytest.raises(UserError, match="no such result"):
        metric_of(runs, "more")


def test_the_interval_of_a_difference_is_the_paired_bootstrap_over_common_seeds():
    a, b = {0: 0.5, 1: 0.7, 2: 0.6, 3: 0.9}, {3: 0.7, 2: 0.5, 1: 0.7, 5: 0.0}
    ((what, *found, seeds),) = differences({"a": a, "b": b})
    pair = torch.tensor([0.7, 0.6, 0.9], dtype=torch.float64), torch.tensor([0.7, 0.5, 0.7], dtype=torch.float64)
    assert what == "a - b" and seeds == 3
    assert found == list(paired_bootstrap(*pair, DRAWS, torch.Generator().manual_seed(0)))
    assert differences({"a": a, "b": {9: 0.1}}) == []
    assert "failed: b, seed 1: no money" in sweep_page({"a": a}, "kl", {"b, seed 1": "no money"}, "rlhf sweep 05")


def test_bands_are_t_intervals_of_the_mean():
    for freedom, quantile in STUDENT.items():  # the density of Student's t, integrated
        x = torch.linspace(-quantile, quantile, 100_001, dtype=torch.float64)
        constant = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / (freedom * math.pi) ** 0.5
        inside = torch.trapezoid(constant * (1 + x * x / freedom) ** (-(freedom + 1) / 2), x)
        assert inside.item() == pytest.approx(0.95, abs=5e-4)
    values = [0.2, 0.5, 0.3, 0.4]
    assert standard_error(values) == pytest.approx(torch.tensor(values).std().item() / 2)
    assert half_width(values) == pytest.approx(3.18 * standard_error(values))
    assert half_width([1.0] * 12) == 0 == half_width([0.3])


def test_the_figure_takes_runs_of_other_lengths_and_single_seeds(tmp_path):
    for number, length in enumerate((3, 5, 4)):
        run = tmp_path / f"run{number}"
        run.mkdir()
        lines = [json.dumps({"step": step, "reward_mean": step / 10 + number}) for step in range(length)]
        (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    plot_sweep({"a": [tmp_path / "run0", tmp_path / "run1"], "b": [tmp_path / "run2"]}, tmp_path / "sweep.png")
    assert (tmp_path / "sweep.png").stat().st_size > 5_000


@pytest.mark.slow
def test_ray_runs_what_is_missing_and_a_failed_trial_stops_no_other(tmp_path, capfd):
    pytest.importorskip("ray")
    (tmp_path / "lab" / "05").mkdir(parents=True)
    (tmp_path / "lab" / "05" / "reinforce.py").write_text(textwrap.dedent(HALF_RIGHT))
    lab = str(tmp_path / "lab")
    asked = given(tmp_path / "runs", impl=lab)
    folder, trials = plan(asked)
    done = next(trial for trial in trials if str(trial) == "reinforce, seed 0")
    run = train(done, lab)
    before = (run / "summary.json").stat().st_mtime_ns

    assert sweep(asked) == 1
    assert (run / "summary.json").stat().st_mtime_ns == before and len(list(done.folder.iterdir())) == 1
    finished = {str(trial): trial.finished() is not None for trial in trials}
    assert finished == {f"{name}, seed {s}": name == "reinforce" for name in ("rloo", "reinforce") for s in (0, 1)}
    said = capfd.readouterr()
    for seed in (0, 1):
        assert f"error: rloo, seed {seed}: The advantages of rloo should have shape (2, 2), not str." in said.err
    assert "1 of them finished already" in said.out
    page = (folder / "sweep.md").read_text()
    assert "| reinforce |" in page and "failed: rloo, seed 1" in page and (folder / "sweep.png").is_file()
