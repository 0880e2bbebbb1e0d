"""`rlhf sweep 06 --algorithms ppo,grpo --seeds 0-4`: algorithms times seeds, on all cores or GPUs at once.

runs/sweep-06-student-nano/                 another folder for other settings (--set)
  grpo-s0/06-grpo-student-nano-s0-.../      a trial is an ordinary run of the week's launcher, one on a core or a GPU
  grpo-s0/log.txt                           what it said
  sweep.png, sweep.md                       curves with confidence bands; means, and differences with intervals

The same command again skips the trials that are finished and resumes the others, and more seeds or algorithms join the
folder. A trial counts as long as neither its settings nor the file whose functions ran have changed since. Ray deals
the trials out, to several machines too when it is told of them (RAY_ADDRESS, and the folder on a shared disk).
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from reference_impl.algorithms import ALGORITHMS
from reference_impl.config import nearest, read_yaml, resolve, week_config
from reference_impl.errors import UserError
from reference_impl.implementations import ROOT, impl_name, require_written, shown, week_folder, week_name
from reference_impl.launch import clean_exit, find_launcher
from reference_impl.options import Options, value
from reference_impl.runs.files import write_text
from reference_impl.runs.progress import console
from reference_impl.runs.reference import parse_seeds
from reference_impl.settings import Settings

METRICS = (  # the first of these that the runs have is what they are compared by
    "sampled_accuracy",
    "preference model: pair accuracy",
    "outcome model: AUC across prompts",
    "step accuracy: process model",
)
HASH = "functions_sha256"  # in summary.json: of the file whose functions ran
FAREWELL = 60  # seconds that trials get to close their folders after Ctrl-C


@dataclass(frozen=True, kw_only=True)
class SweepCommand:
    """Train several algorithms over several seeds, and compare them: one figure, one table."""

    week: Annotated[Positional[str], arg(metavar="WEEK")]
    """The week, for example 06."""
    algorithms: Annotated[str | None, value("NAME,NAME")] = None
    """Which of the week's algorithms (default: those of its demo)."""
    seeds: Annotated[str, value("SEEDS")] = "0-4"
    """For example 0-4, or 0,3,7."""
    impl: Annotated[str | None, value("WHOSE")] = None
    """Whose functions run: student (your own, the default), solution, reference, or a folder such as a fork."""
    scale: Annotated[str | None, value("NAME")] = None
    """Size of model and data, for example nano."""
    set: Annotated[tuple[str, ...], value("KEY=VALUE ...")] = ()
    """Settings of every trial, for example --set steps=50 lr=3e-4."""
    metric: Annotated[str | None, value("RESULT")] = None
    """The final number that the table compares (default: held-out accuracy)."""
    runs_dir: Annotated[Path, value("FOLDER")] = ROOT / "runs"
    """Where the folder of the sweep is made (default: runs/ in this checkout)."""


@dataclass(frozen=True)
class Trial:
    """One algorithm with one seed."""

    algorithm: str
    seed: int
    folder: Path
    settings: Settings

    def __str__(self) -> str:
        return f"{self.algorithm}, seed {self.seed}"

    def runs(self) -> list[Path]:
        """Its runs that count, the newest last: same settings, same functions."""
        from reference_impl.runs.run import file_provenance

        now = file_provenance(self.settings)["functions_sha256"]
        ours = self.settings.model_dump(mode="json")
        found = sorted(path.parent for path in self.folder.glob("*/summary.json"))
        return [run for run in found if read_yaml(run / "config.yaml") == ours and summary(run)[HASH] == now]

    def finished(self) -> Path | None:
        """Its finished run, if there is one."""
        return next((run for run in self.runs() if summary(run)["status"] == "finished"), None)

    def command(self, given: SweepCommand) -> list[str]:
        """The launcher, with the options that start the trial, or go on with what was begun and did not fail."""
        begun = [run for run in self.runs() if summary(run)["status"] != "failed"]
        words = [sys.executable, str(week_folder(self.settings.week) / "train.py"), "--runs-dir", str(self.folder)]
        if begun:
            return [*words, "--resume", str(begun[-1])]
        words += ["--algorithm", self.algorithm, "--seed", str(self.seed)]
        words += ["--impl", given.impl] if given.impl else []
        words += ["--scale", given.scale] if given.scale else []
        return [*words, "--set", *given.set] if given.set else words


def main(args: list[str]) -> None:
    """Exits 1 when a trial failed, 2 with one message after a mistake, 130 after Ctrl-C."""
    import tyro

    with clean_exit():
        sys.exit(sweep(tyro.cli(SweepCommand, prog="rlhf sweep", args=args)))


def sweep(command: SweepCommand) -> int:
    """Run what is not finished, then compare; the exit code."""
    folder, trials = plan(command)
    waiting = [trial for trial in trials if trial.finished() is None]
    if waiting and importlib.util.find_spec("ray") is None:
        raise UserError("The trials are dealt out by Ray, which is not installed: `uv sync --extra distributed`.")
    console.print(f"{len(trials)} trials, {len(trials) - len(waiting)} of them finished already", soft_wrap=True)
    failed: dict[str, str] = {}

    def ended(trial: Trial, message: str, left: int) -> None:
        if message:
            failed[str(trial)] = message
        said = f"failed: {message}" if message else outcome(trial, command)
        console.print(f"{len(trials) - left}/{len(trials)}  {trial}  {said}", soft_wrap=True, markup=False)

    run_trials(waiting, command, folder, ended)
    compare(trials, command, folder, failed)
    for name, message in failed.items():
        print(f"error: {name}: {message}", file=sys.stderr)
    return 1 if failed else 0


def plan(command: SweepCommand) -> tuple[Path, list[Trial]]:
    """The folder, and every trial with its settings. UserError for whatever a trial would refuse."""
    week = week_name(command.week)
    names = command.algorithms.split(",") if command.algorithms else week_config(week)["demo"]
    launcher, seeds, planned = find_launcher(week), parse_seeds(command.seeds), []
    for name in dict.fromkeys(names):
        for seed in dict.fromkeys(seeds):
            given = Options(impl=command.impl, seed=seed, set=command.set).overrides()
            planned.append(
                resolve(launcher.settings, week, algorithm=name.strip(), scale=command.scale, overrides=given)
            )
        row = ALGORITHMS[planned[-1].algorithm]
        require_written(row.week, planned[-1].impl, row.needs)
    whose = command.impl or week_config(week)["defaults"].get("impl", "student")
    stem = f"sweep-{week}-{impl_name(whose)}-{planned[0].scale}"
    if command.set:
        stem += "-" + hashlib.sha256("\n".join(sorted(command.set)).encode()).hexdigest()[:8]
    folder = command.runs_dir.absolute() / stem
    return folder, [
        Trial(settings.algorithm, settings.seed, folder / f"{settings.algorithm}-s{settings.seed}", settings)
        for settings in planned
    ]


def summary(run: Path) -> dict:
    """A run's summary.json."""
    return json.loads((run / "summary.json").read_text(encoding="utf-8"))


def run_trials(
    trials: list[Trial], given: SweepCommand, folder: Path, ended: Callable[[Trial, str, int], None]
) -> None:
    """Run them; `ended` hears of each what went wrong, or nothing, and how many are left. Ctrl-C ends all of them."""
    if not trials:
        return
    ray = start_ray()
    gpus = ray.cluster_resources().get("GPU", 0) if getattr(trials[0].settings, "device", "cpu") != "cpu" else 0
    task = ray.remote(num_cpus=1, num_gpus=1 if gpus else 0, max_retries=0)(run_trial)
    pending = {}
    try:
        for trial in trials:
            trial.folder.mkdir(parents=True, exist_ok=True)
            log = str(trial.folder / "log.txt")
            pending[task.remote(trial.command(given), log, os.getcwd())] = trial
        while pending:
            (ready, *_), _ = ray.wait(list(pending))
            try:
                message = ray.get(ready)
            except ray.exceptions.RayError as error:
                message = f"Ray lost it ({type(error).__name__})"
            ended(pending.pop(ready), message, len(pending))
    except KeyboardInterrupt:
        print(f"\nInterrupted: the trials close; the same command goes on in {shown(folder)}.", file=sys.stderr)
        for reference in pending:
            ray.cancel(reference)
        ray.wait(list(pending), num_returns=len(pending), timeout=FAREWELL)
        sys.exit(130)
    finally:
        ray.shutdown()


def start_ray():
    """Ray on this machine, or on the cluster of RAY_ADDRESS."""
    # its workers would otherwise be started by `uv run` again, each with a copy of the checkout
    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    local = {"address": "local", "include_dashboard": False, "object_store_memory": 2**27}
    ray.init(log_to_driver=False, logging_level="error", **({} if os.environ.get("RAY_ADDRESS") else local))
    return ray


def run_trial(command: list[str], log: str, place: str) -> str:
    """In a worker of Ray: the launcher as a process of its own; what went wrong, or nothing."""
    with open(log, "w", encoding="utf-8") as said:
        process = subprocess.Popen(
            command, cwd=place, stdout=said, stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=hear_ctrl_c
        )
        try:
            while process.poll() is None:
                time.sleep(0.1)
        except BaseException:  # cancelled
            process.send_signal(signal.SIGINT)
            process.wait(FAREWELL)
            raise
    if process.returncode == 0:
        return ""
    lines = [line for line in Path(log).read_text(encoding="utf-8").splitlines() if line.strip()]
    last = next((line.removeprefix("error: ") for line in reversed(lines) if line.startswith("error: ")), None)
    return last or f"exit code {process.returncode}: {lines[-1] if lines else 'it said nothing'} (see {log})"


def hear_ctrl_c() -> None:
    """Ray's workers block Ctrl-C, and so would what they start; and on Linux a trial ends when its worker does."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGINT)  # PR_SET_PDEATHSIG


def outcome(trial: Trial, command: SweepCommand) -> str:
    """A finished trial in a few words."""
    run = trial.finished()
    if run is None:
        return "finished, but does not count: the functions that it trained with have changed meanwhile"
    found = summary(run)
    name = command.metric if command.metric in found["results"] else metric_of([found["results"]], None)
    return f"{name.replace('_', ' ')} {found['results'][name]:.3f}  {found['seconds']:.0f} s"


def metric_of(results: list[dict], asked: str | None) -> str:
    """The result that the table compares. UserError when some run has none of that name."""
    known = [name for name in results[0] if all(name in others for others in results)]
    if asked is not None and asked not in known:
        raise UserError(f"--metric {asked}: the runs have no such result{nearest(asked, known)}")
    return asked or next((name for name in METRICS if name in known), known[0])


def words(command: SweepCommand) -> list[str]:
    """The command line again, wherever the runs are kept."""
    named = ("algorithms", "seeds", "impl", "scale", "metric")
    given = [(f"--{name}", getattr(command, name)) for name in named if getattr(command, name) is not None]
    return [command.week, *(word for pair in given for word in pair), *(["--set", *command.set] if command.set else [])]


def compare(trials: list[Trial], command: SweepCommand, folder: Path, failed: dict[str, str]) -> None:
    """sweep.png and sweep.md of the finished trials; the table on the screen, too."""
    from reference_impl.runs.sweep import plot_sweep, sweep_page, sweep_table

    runs: dict[str, dict[int, Path]] = {}
    for trial in trials:
        run = trial.finished()
        if run is not None:
            runs.setdefault(trial.algorithm, {})[trial.seed] = run
    if not runs:
        return
    results = {name: {seed: summary(run)["results"] for seed, run in seeds.items()} for name, seeds in runs.items()}
    metric = metric_of([found for seeds in results.values() for found in seeds.values()], command.metric)
    numbers = {name: {seed: found[metric] for seed, found in seeds.items()} for name, seeds in results.items()}
    plot_sweep({name: list(seeds.values()) for name, seeds in runs.items()}, folder / "sweep.png")
    page = sweep_page(numbers, metric, failed, shlex.join(["rlhf", "sweep", *words(command)]))
    write_text(folder / "sweep.md", page)
    sweep_table(numbers, metric)
    console.print(f"{shown(folder)}/ has sweep.png, sweep.md and the runs", soft_wrap=True)
