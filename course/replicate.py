"""`rlhf replicate r1-zero`: a published claim at nano scale, over several seeds, with an interval.

What is run and compared stands in weeks/11/replications/NAME.yaml: arms (runs of any week's launcher, one for each
seed) and differences of their results, whose intervals are those of week 11's `paired_bootstrap`.
"""

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from tyro.conf import Positional, arg

from reference_impl.config import nearest, read_yaml
from reference_impl.errors import UserError
from reference_impl.implementations import ROOT, impl_name, load_functions, require_written, shown, week_folder
from reference_impl.launch import clean_exit, find_launcher, launch
from reference_impl.options import Options, value
from reference_impl.runs.files import write_text
from reference_impl.runs.progress import console
from reference_impl.runs.reference import parse_seeds

DRAWS = 10_000


class Arm(BaseModel):
    """One way to run: a week's launcher and what to change in its settings."""

    model_config = ConfigDict(extra="forbid")
    week: str
    algorithm: str | None = None
    set: tuple[str, ...] = ()


class Difference(BaseModel):
    """`a` minus `b`, each "arm: result", paired over seeds, and which sign the claim predicts."""

    model_config = ConfigDict(extra="forbid")
    what: str
    a: str
    b: str
    expect: Literal["above 0", "below 0"]


class Replication(BaseModel):
    """A target file."""

    model_config = ConfigDict(extra="forbid")
    claim: str
    source: str
    failure: str
    arms: dict[str, Arm] = Field(min_length=1)
    compare: list[Difference] = Field(min_length=1)


@dataclass(frozen=True)
class ReplicateCommand:
    """Run a replication target of week 11 over several seeds, and say with an interval what came out."""

    target: Annotated[Positional[str], arg(metavar="TARGET")]
    """A file of weeks/11/replications by its name, or the path of one of your own."""
    seeds: Annotated[str, value("SEEDS")] = "0-4"
    """For example 0-4, or 0,3,7."""
    impl: Annotated[str, value("WHOSE")] = "student"
    """Whose functions run: student (your own, the default), solution, reference, or a folder such as a fork."""
    set: Annotated[tuple[str, ...], value("KEY=VALUE ...")] = ()
    """Settings changed in every arm, for example --set steps=20."""
    runs_dir: Annotated[Path, value("FOLDER")] = ROOT / "runs"
    """Where the folder of the runs is made (default: runs/ in this checkout)."""


def main(args: list[str]) -> None:
    """Exits 2 with one message after a mistake, 130 after Ctrl-C."""
    import tyro

    with clean_exit():
        replicate(tyro.cli(ReplicateCommand, prog="rlhf replicate", args=args))


def replicate(command: ReplicateCommand) -> Path:
    """Run all arms with all seeds, compare, write report.md; returns its folder."""
    name, target = read_target(command.target)
    seeds = parse_seeds(command.seeds)
    require_written("11", command.impl, ["paired_bootstrap"])
    bootstrap = load_functions("11", command.impl).paired_bootstrap
    folder = command.runs_dir / f"replicate-{name}-{impl_name(command.impl)}-{datetime.now():%Y%m%d-%H%M%S}"
    results: dict[str, list[dict[str, float]]] = {arm: [] for arm in target.arms}
    for seed in seeds:
        for arm, run in target.arms.items():
            console.rule(f"{arm}, seed {seed}", align="left")
            changes = (*run.set, *command.set)
            options = Options(algorithm=run.algorithm, impl=command.impl, seed=seed, set=changes, runs_dir=folder)
            results[arm].append(launch(find_launcher(run.week), options)["results"])
    rows = [compared(item, results, bootstrap) for item in target.compare]
    page = report(target, rows, seeds)
    write_text(folder / "report.md", page)
    write_text(folder / "results.json", json.dumps({"seeds": seeds, "arms": results, "compare": rows}, indent=1) + "\n")
    console.print()
    console.print(page, markup=False, soft_wrap=True)
    console.print(f"{shown(folder)}/ has report.md and the runs", soft_wrap=True)
    return folder


def read_target(name: str) -> tuple[str, Replication]:
    """The target of that name or path; UserError when there is none, or when it is not written as it should be."""
    known = {path.stem: path for path in sorted((week_folder("11") / "replications").glob("*.yaml"))}
    path = Path(name).expanduser() if name.endswith((".yaml", ".yml")) else known.get(name)
    if path is None:
        raise UserError(f"There is no replication target {name!r}{nearest(name, known)}")
    try:
        return path.stem, Replication(**read_yaml(path))
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{shown(path)}: {'.'.join(map(str, first['loc']))}: {first['msg']}.") from error


def compared(item: Difference, results: dict[str, list[dict[str, float]]], bootstrap) -> dict:
    """One difference with its interval, and whether the claim's sign is outside doubt."""
    import torch

    a, b = (values(key, results) for key in (item.a, item.b))
    diff, low, high = map(float, bootstrap(a, b, DRAWS, torch.Generator().manual_seed(0)))
    held = low > 0 if item.expect == "above 0" else high < 0
    return {
        "what": item.what,
        "a": a.mean().item(),
        "b": b.mean().item(),
        "difference": diff,
        "low": low,
        "high": high,
        "expected": item.expect,
        "held": held,
    }


def values(key: str, results: dict[str, list[dict[str, float]]]):
    """The result "arm: name" of every seed (K,)."""
    import torch

    arm, _, name = key.partition(": ")
    if arm not in results:
        raise UserError(f"compare: {key!r} names no arm{nearest(arm, results)}")
    if name not in results[arm][0]:
        raise UserError(f"compare: {key!r}: the runs have no such result{nearest(name, results[arm][0])}")
    return torch.tensor([found[name] for found in results[arm]], dtype=torch.float64)


def report(target: Replication, rows: list[dict], seeds: list[int]) -> str:
    """report.md."""
    lines = [f"**Claim** {target.claim} ({target.source})", "", f"**It would have failed if** {target.failure}.", ""]
    lines += [f"Means and paired 95% bootstrap intervals over {len(seeds)} seeds", ""]
    lines += ["| | a | b | a - b | 95% interval | predicted | |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        verdict = "as predicted" if row["held"] else "not shown"
        cells = [row["what"], *(f"{row[key]:.3f}" for key in ("a", "b")), f"{row['difference']:+.3f}"]
        lines.append(
            "| " + " | ".join([*cells, f"{row['low']:+.3f} to {row['high']:+.3f}", row["expected"], verdict]) + " |"
        )
    return "\n".join(lines) + "\n"
