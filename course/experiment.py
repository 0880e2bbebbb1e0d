"""`rlhf experiment new "GRPO vs. RLOO"`: a dated log to write a prediction into, and a folder for its figures.

experiments/2026-11-05-grpo-vs-rloo.md
experiments/2026-11-05-grpo-vs-rloo/
"""

import platform
import subprocess
from dataclasses import dataclass
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from reference_impl.errors import UserError
from reference_impl.implementations import ROOT, load_functions, require_written, shown
from reference_impl.launch import clean_exit
from reference_impl.options import value
from reference_impl.runs.files import write_text, writing

LOG = """# {title}

{date} · state: *designed* (then *running*, *answered* or *dropped*, with the reason)

## Question

One sentence that a run can answer with a number.

## Hypothesis

What you believe, and why: the mechanism, in the terms of the lesson.

## Prediction

Write this before the run. The number you expect, with a range: …

We would have been wrong if …

## Setup

- compared: … against …; the one thing that differs: …
- held fixed: model, data, samples, tuning effort
- metric, fixed in advance: …; seeds: 0-4
- {versions}

## Command

Exact, so that somebody else can paste it.

```
uv run rlhf train …
```

## Results

| | mean | difference, 95% interval (paired bootstrap) | seeds |
|---|---|---|---|
| | | | |

Figures and tables lie in [`{slug}/`]({slug}/).

## Conclusion

Was the prediction right? What surprised you? What was *not* varied, so that this run says nothing about it? What next?
"""


@dataclass(frozen=True)
class ExperimentCommand:
    """Scaffold an experiment: a log with question, hypothesis, prediction, setup, command, results, conclusion."""

    action: Annotated[Positional[Literal["new"]], arg(metavar="new")]
    """What to do: new."""
    title: Annotated[Positional[str], arg(metavar="TITLE")]
    """A short title in quotes; the file's name is made of it."""
    date: Annotated[str | None, value("YYYY-MM-DD")] = None
    """Default: today."""
    impl: Annotated[str, value("WHOSE")] = "reference"
    """Whose experiment_slug names the file: reference (the default), student (your own), solution or a folder."""
    folder: Annotated[Path, value("FOLDER")] = ROOT / "experiments"
    """Where it is made (default: experiments/ in this checkout)."""


def main(args: list[str]) -> None:
    """Exits 2 with one message after a mistake; an experiment that exists is left as it is."""
    import tyro

    with clean_exit():
        command = tyro.cli(ExperimentCommand, prog="rlhf experiment", args=args)
        log = new_experiment(command.title, command.date or date.today().isoformat(), command.folder, command.impl)
        print(f"{shown(log)} and {shown(log.with_suffix(''))}/ are made.")
        print("Write the question and the prediction now, before anything runs.")


def new_experiment(title: str, day: str, folder: Path, impl: str = "reference") -> Path:
    """The log of a new experiment and its folder; returns the log. UserError when either exists already."""
    require_written("11", impl, ["experiment_slug"])
    slug = slug_of(day, title, impl)
    log, assets = folder / f"{slug}.md", folder / slug
    if log.exists() or assets.exists():
        there = log if log.exists() else assets
        raise UserError(f"{shown(there)} exists already and is left as it is: choose another title.")
    text = LOG.format(title=" ".join(title.split()), date=day, versions=versions(), slug=slug)
    with writing(log):
        assets.mkdir(parents=True)
        try:
            (assets / ".gitkeep").touch()  # git does not keep an empty folder
            write_text(log, text)
        except BaseException:
            (assets / ".gitkeep").unlink(missing_ok=True)
            assets.rmdir()
            raise
    return log


def slug_of(day: str, title: str, impl: str) -> str:
    """The week's `experiment_slug`, if it is a name that can be used."""
    try:
        date.fromisoformat(day)
    except ValueError:
        raise UserError(f"--date {day}: write it as YYYY-MM-DD.") from None
    if not any(letter.isascii() and letter.isalnum() for letter in title):
        raise UserError(f"The title {title!r} has no letter a-z and no digit to make a file name of.")
    slug = load_functions("11", impl).experiment_slug(day, title)
    if not isinstance(slug, str) or not slug or Path(slug).name != slug:
        raise UserError(f"experiment_slug should return a file name such as 2026-11-05-grpo-vs-rloo, not {slug!r}.")
    return slug


def versions() -> str:
    """Commit, Python and torch, as far as they can be found out."""
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    try:
        commit = subprocess.run(git, capture_output=True, text=True, timeout=10).stdout.strip() or "unknown"
    except (OSError, subprocess.TimeoutExpired):
        commit = "unknown"
    return f"commit {commit}, Python {platform.python_version()}, torch {metadata.version('torch')}"
