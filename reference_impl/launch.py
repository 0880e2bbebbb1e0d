"""Week + algorithm + implementation -> a run.

`weeks/NN/train.py` says in a dozen lines what is trained and hands a `Launcher` to `main`. What all weeks share is
here: resolving the settings, refusing what is not written, the run folder, and how a run ends. Under `torchrun` or
`accelerate launch` several processes share the run (distributed.py), and the first of them does the talking.
"""

import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reference_impl.algorithms import ALGORITHMS
from reference_impl.config import checked, nearest, read_yaml, resolve
from reference_impl.errors import UserError
from reference_impl.implementations import import_file, load_functions, require_written, shown, week_folder
from reference_impl.options import Options
from reference_impl.precheck import warn_unless_green
from reference_impl.runs.progress import console
from reference_impl.settings import Settings

Train = Callable[..., dict[str, Any]]  # (functions, algorithm, settings, run) -> results, numbers by name


@dataclass(frozen=True)
class Launcher:
    """What a week trains, under which settings; `experiments` are other things to do with the same settings."""

    week: str
    settings: type[Settings]
    train: Train
    experiments: dict[str, Train] = field(default_factory=dict)


def main(launcher: Launcher, args: Sequence[str] | None = None) -> None:
    """The command line of one week's launcher. Exits 2 with one message after a mistake, 130 after Ctrl-C."""
    import tyro

    with clean_exit():
        prog = f"weeks/{launcher.week}/train.py"
        options = tyro.cli(Options, prog=prog, description=f"Train week {launcher.week}.", args=args)
        launch(launcher, options)
        if several_processes():
            from reference_impl import distributed

            distributed.stop()


def several_processes() -> bool:
    """Has torchrun, or accelerate, started more than this one?"""
    return int(os.environ.get("WORLD_SIZE", 1)) > 1


def meet() -> bool:
    """Join the other processes, if there are any; is this the one that writes and speaks?"""
    if not several_processes():
        return True
    from reference_impl import distributed

    distributed.start()
    console.quiet = not distributed.is_main()
    return distributed.is_main()


@contextmanager
def clean_exit():
    """Mistakes that a user can mend end in one message on stderr and exit code 2, Ctrl-C in exit code 130.

    Of several processes the first that fails says why.
    """
    try:
        yield
    except UserError as error:
        if speaks():
            print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        if speaks():
            print("Interrupted.", file=sys.stderr)
        sys.exit(130)
    except Exception:
        if speaks():
            raise
        sys.exit(1)


def speaks() -> bool:
    """Is this the first process to fail?"""
    if not several_processes():
        return True
    from reference_impl import distributed

    return distributed.first_to_fail()


def find_launcher(week: str) -> Launcher:
    """The launcher of weeks/NN/train.py. UserError when the week has none yet."""
    path = week_folder(week) / "train.py"
    if not path.is_file():
        raise UserError(f"Week {path.parent.name} has no launcher yet: {shown(path)} does not exist.")
    return import_file(path, f"train{path.parent.name}").launcher


def launch(launcher: Launcher, options: Options, graded: bool = False) -> dict[str, Any]:
    """Train (or run an experiment), from options to a finished run folder; returns its summary and `path`.

    Functions that the week's grader finds wrong get a warning first, unless the caller has just `graded` them.
    """
    main = meet()
    settings, resumed = settle(launcher, options)
    train = choose(launcher, options.experiment)
    algorithm = ALGORITHMS[settings.algorithm]
    functions = load_functions(algorithm.week, settings.impl)
    require_written(algorithm.week, settings.impl, algorithm.needs)
    if main and not graded and algorithm.plugs_in(settings.week):
        warn_unless_green(settings.week, settings.impl, algorithm.needs)

    import torch

    from reference_impl import distributed
    from reference_impl.models import hardware
    from reference_impl.runs.plots import plot_run
    from reference_impl.runs.run import Run

    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    names = ("device", "precision", "gradient_checkpointing", "rows_at_once", "engine")
    machine = hardware.use(**{name: getattr(settings, name) for name in names if hasattr(settings, name)})
    torch.manual_seed(settings.seed)
    runs_dir = options.runs_dir if main else distributed.scratch()
    run = Run.reopen(resumed, settings) if resumed else Run.create(settings, runs_dir, options.experiment)
    if run.functions_changed():
        console.print(f"[bold]Warning:[/] {run.summary['functions']} has changed since this run began.")
    what = options.experiment or algorithm.name
    whose = f"with the functions of {run.summary['functions']}"
    if not algorithm.plugs_in(settings.week):
        whose = f"from reference_impl alone: no function of weeks/{settings.week} is plugged in"
    console.print(f"Week {settings.week}, {what}, {whose}", soft_wrap=True)
    if machine != hardware.Hardware():
        console.print(str(machine), soft_wrap=True)
    if distributed.world_size() > 1:
        console.print(f"{distributed.world_size()} processes share the run")
    with ending(run):
        results = train(functions, algorithm, settings, run)
        plot_run(run.path)
        run.close("finished", results=results)
    report(run, results)
    return run.summary | {"path": str(run.path)}


def settle(launcher: Launcher, options: Options) -> tuple[Settings, Path | None]:
    """The run's settings, and the folder to resume, if any."""
    if options.resume is not None:
        return resumed_settings(launcher, options)
    settings = resolve(
        launcher.settings,
        launcher.week,
        algorithm=options.algorithm,
        scale=options.scale,
        overrides=options.overrides(),
        experiment=options.experiment,
    )
    return settings, None


def resumed_settings(launcher: Launcher, options: Options) -> tuple[Settings, Path]:
    """The settings in a run's config.yaml, and its folder."""
    from reference_impl.runs.run import find_run

    if options.overrides() or options.algorithm or options.scale or options.experiment:
        raise UserError("--resume goes on with a run under its own settings: leave the other options out.")
    path = find_run(options.resume)
    values = read_yaml(path / "config.yaml")
    if values.get("week") != launcher.week:
        raise UserError(f"{shown(path)} is a run of week {values.get('week')}, not of week {launcher.week}.")
    return checked(launcher.settings, values), path


def choose(launcher: Launcher, experiment: str | None) -> Train:
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
    """However a run ends, its folder is readable and says how; Ctrl-C ends it in one sentence.

    A run that fails before its first number (a start model that does not exist, say) leaves no folder behind.
    """
    from reference_impl.runs.plots import plot_run

    try:
        try:
            yield
        except RuntimeError:
            if several_processes():  # others are gone; if Ctrl-C was the reason, it arrives here within the pause
                time.sleep(0.5)
            raise
    except KeyboardInterrupt:
        plot_run(run.path)
        run.close("interrupted")
        resume = f"rlhf train {run.settings.week} --resume {shown(run.path)}"
        if run.is_main:
            print(f"\nInterrupted: {shown(run.path)} is readable as it is; `{resume}` goes on.", file=sys.stderr)
        sys.exit(130)
    except BaseException:
        with suppress(UserError):  # the disk may be full; the first message is the one that counts
            run.close("failed")
        run.discard_if_empty()
        raise


def report(run, results: dict[str, Any]) -> None:
    """The last lines of a run."""
    for name in ("sampled_accuracy", "greedy_accuracy"):
        if f"{name}_before" in results:
            words = name.replace("_", " ")
            console.print(f"held-out {words}: {results[f'{name}_before']:.3f} -> [bold]{results[name]:.3f}[/]")
    files = ", ".join(sorted(file.name for file in run.path.iterdir() if file.suffix in (".png", ".md")))
    console.print(f"{run.seconds:.0f} s; {shown(run.path)}/ has {files}", soft_wrap=True)
