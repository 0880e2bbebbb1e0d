"""A run is a folder; everything that reads runs reads these files.

config.yaml       every setting, resolved
metrics.jsonl     one line a logged step, appended and flushed
checkpoint/       see checkpoint.py
samples.md        completions of the same held-out prompts before and after
curves.png        the metrics over the band of the reference runs
summary.json      status, results, seed, versions, machine, the file whose functions ran
"""

import hashlib
import json
import platform
import shutil
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from reference_impl.algorithms import ALGORITHMS
from reference_impl.errors import UserError
from reference_impl.implementations import ROOT, impl_name, shown, week_file
from reference_impl.runs import wandb_mirror
from reference_impl.runs.files import append_line, settled_folder, write_text
from reference_impl.runs.progress import Ticker, track
from reference_impl.settings import Settings

PACKAGES = ("torch", "transformers", "reasoning-gym", "safetensors", "numpy")


class Run:
    """One run's folder, open for writing. `Run.create` starts one, `Run.reopen` continues one."""

    def __init__(self, path: Path, settings: Settings, summary: dict[str, Any], resumed: bool, mirrored: bool = True):
        from reference_impl import distributed

        self.path, self.settings, self.summary, self.resumed = path, settings, summary, resumed
        self.checkpoint = path / "checkpoint"  # that `restore` reads
        self.is_main = distributed.is_main()
        self.seconds_before = summary.get("seconds", 0.0) if resumed else 0.0
        self.began = time.perf_counter()
        self.mirror = wandb_mirror.start(path, settings.model_dump(), resumed) if mirrored and self.is_main else None

    @classmethod
    def create(cls, settings: Settings, runs_dir: Path, experiment: str | None = None, mirrored: bool = True) -> "Run":
        """A new folder under `runs_dir`. Raises UserError when it cannot be made.

        Of several processes the first makes it, and the others one of its name, each in its own `runs_dir`.
        """
        from reference_impl import distributed

        name = distributed.from_main(lambda: new_folder(runs_dir, settings, experiment or settings.algorithm).name)
        path = Path(runs_dir) / name
        path.mkdir(parents=True, exist_ok=True)
        write_text(path / "config.yaml", yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False))
        write_text(path / "metrics.jsonl", "")
        summary = {"status": "running", "experiment": experiment, **provenance(settings)}
        run = cls(path, settings, summary, resumed=False, mirrored=mirrored)
        run.summarise()
        return run

    @classmethod
    def reopen(cls, path: Path, settings: Settings) -> "Run":
        """The unfinished run at `path`, to go on from its checkpoint."""
        from reference_impl import distributed

        summary = json.loads((path / "summary.json").read_text(encoding="utf-8"))
        if summary["status"] == "finished":
            raise UserError(f"{shown(path)} is finished; there is nothing left to resume.")
        if summary["experiment"]:
            raise UserError(f"{shown(path)} is an experiment; run it again with --experiment {summary['experiment']}.")
        rows = read_metrics(path)
        summary["seconds"] = rows[-1]["seconds"] if rows else 0.0
        own = path
        if distributed.is_main():
            settled_folder(path / "checkpoint")
        else:  # a copy to write into; what is read of the checkpoint stays where it is
            own = distributed.scratch() / path.name
            left_out = shutil.ignore_patterns("checkpoint", "wandb")
            shutil.copytree(path, own, ignore=left_out, dirs_exist_ok=True)
        distributed.barrier()
        run = cls(own, settings, summary, resumed=True)
        run.checkpoint = path / "checkpoint"
        return run

    @property
    def seconds(self) -> float:
        """Wall time of the run, over all its sessions."""
        return self.seconds_before + time.perf_counter() - self.began

    def log(self, step: int, **metrics: float) -> None:
        """Append one line to metrics.jsonl, and mirror it."""
        row = {"step": step, "seconds": round(self.seconds, 3), **metrics}
        append_line(self.path / "metrics.jsonl", json.dumps(row))
        if self.mirror is not None:
            self.mirror.log(metrics, step=step)

    def steps(self, start: int, total: int, label: str) -> Iterator[Ticker]:
        """The steps start + 1 ... total, with progress on the screen."""
        return track(label, start, total)

    def write(self, name: str, text: str) -> None:
        """A file of the run folder, replaced in one step."""
        write_text(self.path / name, text)

    def save(self, step: int, model, tokenizer, **parts) -> None:
        """A checkpoint to resume from, if one is due after `step`: every `checkpoint_every` steps, first and last.

        It holds the model, and the state of optimizer, schedule and generators in `parts`.
        """
        from reference_impl.runs.checkpoint import save_checkpoint

        due = step % self.settings.checkpoint_every == 0 or step == self.settings.steps
        if due and self.keeps(model):
            save_checkpoint(self.path / "checkpoint", step, model, tokenizer, parts)

    def keeps(self, model) -> bool:
        """Does this process write the weights? Of several all do, so that each has a complete folder to read from, but
        those of a large model are written by the first alone; of one that is divided all hand over their share."""
        from reference_impl.logprobs import large_vocabulary
        from reference_impl.sharding import is_sharded

        return self.is_main or not large_vocabulary(model) or is_sharded(model)

    def restore(self, model, **parts) -> int:
        """The step to go on from: 0 in a new run; otherwise the checkpoint's, with everything put back in place.

        Metrics logged after the checkpoint are dropped: those steps are done again.
        """
        from reference_impl.runs.checkpoint import load_checkpoint

        checkpoint = settled_folder(self.checkpoint)
        step = load_checkpoint(checkpoint, model, parts) if self.resumed and checkpoint.is_dir() else 0
        rows = [row for row in read_metrics(self.path) if row["step"] <= step] if step else []
        self.write("metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        return step

    def summarise(self, **results: Any) -> None:
        """Write summary.json with `results` added."""
        self.summary.update(results, seconds=round(self.seconds, 3))
        self.write("summary.json", json.dumps(self.summary, indent=2) + "\n")

    def close(self, status: str, **results: Any) -> None:
        """The last word: status finished, interrupted or failed, and the results."""
        self.summarise(status=status, **results)
        if self.mirror is not None:
            self.mirror.summary.update(results)
            self.mirror.finish(exit_code=0 if status == "finished" else 1)

    def functions_changed(self) -> bool:
        """Has the file whose functions run been edited since the run began?"""
        now = file_provenance(self.settings)
        return now["functions_sha256"] != self.summary["functions_sha256"]

    def discard_if_empty(self) -> None:
        """Remove the folder of a new run that has logged nothing."""
        if not self.resumed and not read_metrics(self.path):
            shutil.rmtree(self.path, ignore_errors=True)


def new_folder(runs_dir: Path, settings: Settings, name: str) -> Path:
    """runs/<week>-<name>-<impl>-<scale>-s<seed>-<time>/, with a number behind it when that name is taken."""
    stem = f"{settings.week}-{name}-{impl_name(settings.impl)}-{settings.scale}-s{settings.seed}"
    stem += datetime.now().strftime("-%Y%m%d-%H%M%S")
    for number in range(100):
        path = Path(runs_dir) / (stem if number == 0 else f"{stem}-{number}")
        try:
            path.mkdir(parents=True)
            return path
        except FileExistsError as error:
            if not path.exists():  # a file stands where a parent folder should
                raise UserError(f"{shown(runs_dir)} is not a folder; choose another with --runs-dir.") from error
        except OSError as error:
            raise UserError(
                f"No run folder can be made in {shown(runs_dir)}: {error.strerror}. Choose another with --runs-dir."
            ) from error
    raise UserError(f"{shown(runs_dir)} already holds 100 runs named {stem}.")


def find_run(text: str | Path) -> Path:
    """A run folder by its path, or by its name under runs/. UserError when there is none."""
    for path in (Path(text), ROOT / "runs" / text):
        if (path / "config.yaml").is_file() and (path / "summary.json").is_file():
            return path
    raise UserError(f"{text} is no run folder: it has no config.yaml and summary.json.")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a run's metrics.jsonl; a last line cut off by a crash is left out."""
    rows = []
    for line in (path / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def provenance(settings: Settings) -> dict[str, Any]:
    """What it takes to know later how a number came about."""
    return {
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "started": datetime.now().isoformat(timespec="seconds"),
        "seed": settings.seed,
        **file_provenance(settings),
        **machine(),
    }


def file_provenance(settings: Settings) -> dict[str, str]:
    """The file whose functions ran, and its hash."""
    path = week_file(ALGORITHMS[settings.algorithm].week, settings.impl)
    return {"functions": shown(path), "functions_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def machine() -> dict[str, Any]:
    """Versions and the machine, without importing anything heavy."""
    import os

    return {
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in PACKAGES},
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "cores": os.cpu_count(),
    }


def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
