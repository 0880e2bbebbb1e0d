"""`--train`: each fork's version trains under the same seeds, several runs at once, each in a sandbox of its own.

Inside there are this checkout's launchers and the fork's week files; a run can write into its own folder and nowhere
else. A run that fails or takes too long is a note, and the others go on.
"""

import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from course.compare.forks import Fork
from course.compare.grade import open_submission
from course.compare.runs import find_runs
from graders.exercises import load_week
from graders.submission import Submission
from reference_impl.algorithms import ALGORITHMS
from reference_impl.config import nearest, week_config
from reference_impl.errors import UserError
from reference_impl.implementations import ROOT, WEEKS
from reference_impl.runs.progress import console
from reference_impl.runs.reference import parse_seeds

MOST_SECONDS = 3600.0
MOST_BYTES = 2**28  # of one file that a run writes
INSIDE = "import sys; sys.path.insert(0, sys.argv[1]); from course.compare.train import run_one; run_one(*sys.argv[2:])"


@dataclass(frozen=True)
class Training:
    """One run to make."""

    fork: Fork
    week: str
    algorithm: str
    seed: int


def train_all(forks: list[Fork], weeks: list[str], command, wrap: list[str] | None, cores: int) -> list[dict[str, Any]]:
    """Make all runs, and read them; what went wrong is added to the fork's note."""
    seeds = parse_seeds(command.seeds)
    wanted = [(week, name) for week in weeks for name in chosen(week, command.algorithms)]
    if not wanted:
        raise UserError(f"--algorithms {command.algorithms}: weeks {', '.join(weeks)} train none of them")
    todo = [Training(f, week, name, seed) for week, name in wanted for seed in seeds for f in forks if f.folder]
    runs_dir = command.out.resolve().parent / f"compare-{datetime.now():%Y%m%d-%H%M%S}"
    with tempfile.TemporaryDirectory() as scratch:
        for fork in forks:
            if fork.folder:
                copy_files(fork, Path(scratch) / fork.name)
        with (
            console.status(f"Training: {len(todo)} runs, {cores} at once ...") as status,
            ThreadPoolExecutor(cores) as pool,
        ):
            jobs = [(t, Path(scratch) / t.fork.name, runs_dir / t.fork.name, command.set, wrap) for t in todo]
            for done, (training, problem) in enumerate(pool.map(lambda job: train(*job), jobs), 1):
                status.update(f"Training: {done} of {len(todo)} runs done ...")
                if problem:
                    words = f"{training.algorithm}, seed {training.seed}, did not train: {problem}"
                    training.fork.note = "; ".join(filter(None, (training.fork.note, words)))
    return [run for f in forks for run in find_runs(f.name, runs_dir / f.name, weeks, trained=True)]


def chosen(week: str, names: str) -> list[str]:
    """What to train in a week: those of `names` that it has, or what `rlhf demo` trains."""
    config = week_config(week)
    asked = [name.strip() for name in names.split(",") if name.strip()]
    for name in asked:
        if name not in ALGORITHMS:
            raise UserError(f"--algorithms: there is no algorithm {name!r}{nearest(name, ALGORITHMS)}")
    return [name for name in asked if name in config["algorithms"]] if asked else list(config["demo"])


def copy_files(fork: Fork, folder: Path) -> None:
    """The fork's week files, laid out as solutions/ is: all that its runs may see of it."""
    for number, module in WEEKS.items():
        submission = open_submission(load_week(number), fork.folder)
        if isinstance(submission, Submission):
            (folder / number).mkdir(parents=True)
            (folder / number / f"{module}.py").write_text(submission.source, encoding="utf-8")
    folder.mkdir(exist_ok=True)


def train(training: Training, files: Path, runs_dir: Path, settings: tuple[str, ...], wrap) -> tuple[Training, str]:
    """One run in a process of its own; why it failed, or nothing."""
    runs_dir.mkdir(parents=True, exist_ok=True)
    words = [str(files), training.week, training.algorithm, str(training.seed), str(runs_dir), *settings]
    command = [*fenced(wrap, files, runs_dir), sys.executable, "-I", "-c", INSIDE, str(ROOT), *words]
    environment = {key: os.environ[key] for key in ("PATH", "HOME", "LANG", "TMPDIR") if key in os.environ}
    environment |= {"OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}
    try:
        done = subprocess.run(
            command,
            cwd="/",
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=MOST_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return training, f"it took more than {MOST_SECONDS:.0f} seconds"
    said = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
    first = next((line for line in said if line.startswith("error: ")), said[-1] if said else "it ended without a word")
    return training, "" if done.returncode == 0 else first.removeprefix("error: ").replace(f"{files}/", "")[:300]


def fenced(wrap: list[str] | None, files: Path, runs_dir: Path) -> list[str]:
    """The sandbox of one run: what launchers need of this checkout, the fork's files, and one folder to write to."""
    if wrap is None:
        return []
    at, end = wrap.index("--remount-ro"), wrap.index("--")
    seen = [path for name in ("reference_impl", "course", "weeks") for path in ("--ro-bind", *2 * (str(ROOT / name),))]
    graders = ["--ro-bind", *2 * (str(ROOT / "graders"),)]  # declarations, which course imports
    own = ["--ro-bind", str(files), str(files), "--bind", str(runs_dir), str(runs_dir)]
    return [*wrap[:at], *seen, *graders, *own, *wrap[at : end + 1]]


def run_one(files: str, week: str, algorithm: str, seed: str, runs_dir: str, *settings: str) -> None:
    """Inside the sandbox: what `rlhf train` does, without the warning about what is not green."""
    import resource

    from reference_impl.launch import clean_exit, find_launcher, launch
    from reference_impl.options import Options

    resource.setrlimit(resource.RLIMIT_FSIZE, (MOST_BYTES, MOST_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with clean_exit():
        options = Options(algorithm=algorithm, impl=files, seed=int(seed), set=settings, runs_dir=Path(runs_dir))
        launch(find_launcher(week), options, graded=True)
