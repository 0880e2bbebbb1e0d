"""The command line that every launcher shares."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import arg

from reference_impl.config import parse_override
from reference_impl.implementations import ROOT


def value(name: str):
    """How an option that may be left out is shown in --help: its name, without a default."""
    return arg(metavar=name, help_behavior_hint="")


@dataclass(frozen=True)
class Options:
    """What can be said on the command line; what is left out comes from the week's config.yaml."""

    algorithm: Annotated[str | None, value("NAME")] = None
    """Which of the week's algorithms."""
    impl: Annotated[str | None, value("WHOSE")] = None
    """Whose functions run: student (your own, the default), solution, reference, or a folder such as a fork."""
    seed: Annotated[int | None, value("N")] = None
    """Seed of the sampler, the prompts and the order of the data."""
    steps: Annotated[int | None, value("N")] = None
    """Optimizer steps."""
    scale: Annotated[str | None, value("NAME")] = None
    """Size of model and data, for example nano."""
    policy: Annotated[str | None, value("MODEL")] = None
    """Start model: base, random, smol, a run folder, a checkpoint folder or a hub name."""
    data: Annotated[str | None, value("DATA")] = None
    """A public data set (gsm8k, ultrafeedback, hh, no_robots, prm800k, ...) or a file in its form."""
    reward: Annotated[str | None, value("REWARD")] = None
    """Reward: verifier, or a reward model saved by a run of week 03 or 04."""
    set: Annotated[tuple[str, ...], value("KEY=VALUE ...")] = ()
    """Any other setting, for example --set lr=3e-4 group=16."""
    experiment: Annotated[str | None, value("NAME")] = None
    """One of the week's experiments instead of training."""
    resume: Annotated[str | None, value("RUN")] = None
    """Go on with the run in this folder, under its own settings."""
    runs_dir: Annotated[Path, value("FOLDER")] = ROOT / "runs"
    """Where run folders are made (default: runs/ in this checkout)."""

    def overrides(self) -> dict[str, Any]:
        """The settings that were given on the command line."""
        named = {key: getattr(self, key) for key in ("impl", "seed", "steps", "policy", "data", "reward")}
        given = {key: value for key, value in named.items() if value is not None}
        return given | dict(map(parse_override, self.set))
