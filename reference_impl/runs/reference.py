"""Reference curves: the reference implementation over several seeds, as a small CSV that every plot is drawn over.

    python -m reference_impl.runs.reference --week 05 --seeds 0-4
    python -m reference_impl.runs.reference --week 05 --seeds 0-4 --name shift --set reward_shift=3
    python -m reference_impl.runs.reference --week 05 --algorithms rloo --seeds 0 --scale smol

writes weeks/05/reference_curves/NAME.csv (algorithm, seed, step, metrics), NAME.json (settings, results, command,
machine, versions) and NAME.png. Seeds run one after another.
"""

import csv
import io
import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Annotated

from reference_impl.config import nearest, read_yaml, week_config
from reference_impl.errors import UserError
from reference_impl.implementations import ROOT, shown, week_folder, week_name
from reference_impl.launch import clean_exit, find_launcher, launch
from reference_impl.options import Options, value
from reference_impl.runs.files import write_text
from reference_impl.runs.plots import PANELS, plot_reference, smooth
from reference_impl.runs.progress import console
from reference_impl.runs.run import machine, read_metrics

LEFT_OUT = {"seed", "impl"}  # of the settings: what the curves of one algorithm do not share or say elsewhere
DIGITS = 4


@dataclass(frozen=True)
class Reference:
    """Run a week's algorithms over several seeds with the reference implementation, and keep their curves."""

    week: Annotated[str, value("WEEK")]
    """The week, for example 05."""
    seeds: Annotated[str, value("SEEDS")] = "0-4"
    """For example 0-4, or 0,3,7."""
    algorithms: Annotated[tuple[str, ...], value("NAME ...")] = ()
    """Which of the week's algorithms; all by default."""
    scale: Annotated[str, value("SCALE")] = "nano"
    """nano, smol or full."""
    name: Annotated[str | None, value("NAME")] = None
    """Name of the CSV file; by default curves, at another scale than nano the scale."""
    set: Annotated[tuple[str, ...], value("KEY=VALUE ...")] = ()
    """Settings, as for a launcher."""
    runs_dir: Annotated[Path, value("FOLDER")] = ROOT / "runs" / "reference"
    """Where the runs are kept."""


def main() -> None:
    """Exits 2 with one message after a mistake, 130 after Ctrl-C."""
    import tyro

    with clean_exit():
        produce(tyro.cli(Reference))


def produce(reference: Reference) -> Path:
    """Run everything, then write the CSV and the JSON; returns the path of the CSV."""
    week = week_name(reference.week)
    known = week_config(week)["algorithms"]
    algorithms = reference.algorithms or tuple(known)
    for name in algorithms:
        if name not in known:
            raise UserError(f"Week {week} has no algorithm {name!r}{nearest(name, known)}")
    seeds, launcher, runs = parse_seeds(reference.seeds), find_launcher(week), []
    for name in algorithms:
        for seed in seeds:
            options = Options(
                algorithm=name,
                scale=reference.scale,
                seed=seed,
                impl="reference",
                set=reference.set,
                runs_dir=reference.runs_dir,
            )
            runs.append(launch(launcher, options))
    folder = week_folder(week) / "reference_curves"
    folder.mkdir(exist_ok=True)
    default = "curves" if reference.scale == "nano" else reference.scale
    target = folder / f"{reference.name or default}.csv"
    write_text(target, curves_csv([Path(run["path"]) for run in runs]))
    about = {"command": command(reference), "seeds": seeds, "settings": {}, "results": {}, "seconds": {}, **machine()}
    for name in algorithms:
        mine = [run for run in runs if read_yaml(Path(run["path"]) / "config.yaml")["algorithm"] == name]
        settings = read_yaml(Path(mine[0]["path"]) / "config.yaml")
        about["settings"][name] = {key: item for key, item in settings.items() if key not in LEFT_OUT}
        about["results"][name] = spread([run["results"] for run in mine])
        about["seconds"][name] = spread([{"run": run["seconds"]} for run in mine])["run"]
    write_text(target.with_suffix(".json"), json.dumps(about, indent=2) + "\n")
    plot_reference(target)
    console.print(
        f"{shown(target)}, {target.stem}.json and {target.stem}.png written: {len(runs)} runs", soft_wrap=True
    )
    return target


def parse_seeds(text: str) -> list[int]:
    """`0-4` or `0,3,7` as numbers."""
    try:
        if "-" in text:
            first, last = map(int, text.split("-"))
            seeds = list(range(first, last + 1))
        else:
            seeds = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise UserError(f"--seeds {text}: write 0-4 or 0,3,7.") from error
    if not seeds:
        raise UserError(f"--seeds {text}: there is no seed in it.")
    return seeds


def curves_csv(runs: list[Path]) -> str:
    """The plotted metrics of all runs, each averaged over short stretches of steps as the plots show it."""
    logged = {name for run in runs for row in read_metrics(run) for name in row}
    metrics = [name for name, _ in PANELS if name in logged]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["algorithm", "seed", "step", *metrics])
    for run in runs:
        settings, rows = read_yaml(run / "config.yaml"), read_metrics(run)
        steps: dict[float, dict[str, float]] = {}
        for name in metrics:
            for step, number in smooth([(row["step"], row[name]) for row in rows if name in row]):
                steps.setdefault(step, {})[name] = number
        for step, row in sorted(steps.items()):
            cells = [f"{row[name]:.{DIGITS}g}" if name in row else "" for name in metrics]
            writer.writerow([settings["algorithm"], settings["seed"], f"{step:g}", *cells])
    return text.getvalue()


def spread(results: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """mean, standard deviation over seeds, min and max of each result."""
    summary = {}
    for key in results[0]:
        values = [float(result[key]) for result in results]
        deviation = stdev(values) if len(values) > 1 else 0.0
        summary[key] = {"mean": mean(values), "std": deviation, "min": min(values), "max": max(values)}
    return {key: {name: round(number, 5) for name, number in item.items()} for key, item in summary.items()}


def command(reference: Reference) -> str:
    """The command line that makes the file, wherever the runs are kept."""
    words = ["python", "-m", "reference_impl.runs.reference", "--week", reference.week, "--seeds", reference.seeds]
    words += ["--scale", reference.scale] if reference.scale != "nano" else []
    words += ["--name", reference.name] if reference.name else []
    words += ["--algorithms", *reference.algorithms] if reference.algorithms else []
    words += ["--set", *reference.set] if reference.set else []
    return shlex.join(words)


if __name__ == "__main__":
    main()
