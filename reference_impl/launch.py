"""Week + algorithm + implementation -> a run.

`weeks/NN/train.py` says in a dozen lines what is trained and hands a `Launcher` to `main`. Everything that all weeks
share is here: the command line, the settings, refusing what is not written, the run folder, and how a run ends.
"""

import sys
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from reference_impl.algorithms import ALGORITHMS
from reference_impl.config import Settings, checked, nearest, parse_override, read_yaml, resolve
from reference_impl.errors import UserError
from reference_impl.implementations import ROOT, import_file, load_functions, require_written, shown, week_folder
from reference_impl.runs.progress import console

Check = Callable[[str, str], list[str]]  # (week, impl) -> what is not green, in words; empty when all is well


@dataclass(frozen=True)
class Launcher:
    """What a week trains: train(functions, algorithm, settings, run) -> results, numbers by name.

    `experiments` are other things to do with the same settings, by name; `show(run, results)` prints what a week has
    to say beyond the usual lines.
    """

    week: str
    settings: type[Settings]
    train: Callable[..., dict[str, Any]]
    experiments: dict[str, Callable[..., dict[str, Any]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Options:
    """The command line of every launcher."""

    algorithm: str | None = None
    """Which algorithm of the week; config.yaml has the default."""
    impl: str | None = None
    """Whose functions run: student (the default), solution, reference, or a folder such as a fork."""
    seed: int | None = None
    """Seed of the sampler, the prompts and the order of the data."""
    steps: int | None = None
    """Optimizer steps."""
    scale: str | None = None
    """Model and data size; config.yaml lists the scales."""
    policy: str | None = None
    """Start model: base, random, a run folder or a checkpoint folder."""
    set: Annotated[tuple[str, ...], tyro.conf.arg(metavar="KEY=VALUE ...")] = ()
    """Any setting of config.yaml, for example --set lr=3e-4 group=16."""
    experiment: str | None = None
    """Run one of the week's experiments instead of training."""
    resume: str | None = None
    """Continue the run in this folder; its own settings hold."""
    runs_dir: Path = ROOT / "runs"
    """Where run folders are made."""

    def overrides(self) -> dict[str, Any]:
        """The settings that were given on the command line."""
        named = {key: getattr(self, key) for key in ("impl", "seed", "steps", "policy")}
        given = {key: value for key, value in named.items() if value is not None}
        return given | dict(map(parse_override, self.set))


def main(launcher: Launcher, check: Check | None = None, args: Sequence[str] | None = None) -> None:
    """The command line of one week's launcher. Exits 2 with one message after a mistake, 130 after Ctrl-C."""
    with clean_exit():
        week = launcher.week
        options = tyro.cli(Options, prog=f"weeks/{week}/train.py", description=f"Train week {week}.", args=args)
        launch(launcher, options, check)


@contextmanager
def clean_exit():
    """Mistakes that a user can mend end in one message on stderr and exit code 2, Ctrl-C in exit code 130."""
    try:
        yield
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)


def find_launcher(week: str) -> Launcher:
    """The launcher of weeks/NN/train.py. UserError when the week has none yet."""
    path = week_folder(week) / "train.py"
    if not path.is_file():
        raise UserError(f"Week {path.parent.name} has no launcher yet: {shown(path)} does not exist.")
    return import_file(path, f"train{path.parent.name}").launcher


def launch(launcher: Launcher, options: Options, check: Check | None = None) -> dict[str, Any]:
    """Train (or run an experiment), from options to a finished run folder; returns its summary."""
    settings, resumed = settle(launcher, options)
    train = choose(launcher, options.experiment)
    algorithm = ALGORITHMS[settings.algorithm]
    require_written(settings.week, settings.impl, algorithm.needs)
    functions = load_functions(settings.week, settings.impl)
    for complaint in check(settings.week, settings.impl) if check else []:
        console.print(f"[yellow]Warning:[/] {complaint}")

    import torch

    from reference_impl.runs.run import Run

    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    run = Run.reopen(resumed, settings) if resumed else Run.create(settings, options.runs_dir)
    console.print(f"Week {settings.week}, {algorithm.name}: functions from {run.summary['functions']}", soft_wrap=True)
    with ending(run):
        results = train(functions, algorithm, settings, run)
        run.close("finished", results=results)
    report(run, results)
    return run.summary | {"path": str(run.path)}


def settle(launcher: Launcher, options: Options) -> tuple[Settings, Path | None]:
    """The run's settings, and the folder to resume, if any."""
    if options.resume is None:
        return resolve(
            launcher.settings,
            launcher.week,
            algorithm=options.algorithm,
            scale=options.scale,
            overrides=options.overrides(),
        ), None
    from reference_impl.runs.run import find_run

    if options.overrides() or options.algorithm or options.scale or options.experiment:
        raise UserError("--resume continues a run under its own settings: leave the other options out.")
    path = find_run(options.resume)
    values = read_yaml(path / "config.yaml")
    if values.get("week") != launcher.week:
        raise UserError(f"{shown(path)} is a run of week {values.get('week')}, not of week {launcher.week}.")
    return checked(launcher.settings, values), path


def choose(launcher: Launcher, experiment: str | None) -> Callable[..., dict[str, Any]]:
    """The training function, or the experiment of that name."""
    if experiment is None:
        return launcher.train
    if experiment not in launcher.experiments:
        known = launcher.experiments
        hint = nearest(experiment, known) if known else ": it has none."
        raise UserError(f"Week {launcher.week} has no experiment {experiment!r}{hint}")
    return launcher.experiments[experiment]


@contextmanager
def ending(run):
    """However a run ends, its folder is readable and says how; Ctrl-C ends it in one sentence."""
    from reference_impl.runs.plots import plot_run

    resume = f"rlhf train {run.settings.week} --resume {shown(run.path)}"
    try:
        yield
        plot_run(run.path)
    except KeyboardInterrupt:
        run.close("interrupted")
        plot_run(run.path)
        print(f"\nInterrupted: {shown(run.path)} is readable as it is; `{resume}` goes on.", file=sys.stderr)
        sys.exit(130)
    except BaseException:
        try:
            run.close("failed")
        except UserError:  # the disk may be full; the first message is the one that counts
            pass
        raise


def report(run, results: dict[str, Any]) -> None:
    """The last lines of a run."""
    for name in ("sampled_accuracy", "greedy_accuracy"):
        if f"{name}_before" in results:
            words = name.replace("_", " ")
            console.print(f"held-out {words}: {results[f'{name}_before']:.3f} -> [bold]{results[name]:.3f}[/]")
    console.print(f"{run.seconds:.0f} s; {shown(run.path)}/ has curves.png, samples.md and the checkpoint", soft_wrap=True)
