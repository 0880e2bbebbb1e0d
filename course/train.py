"""`rlhf train 05 --algorithm rloo`: the launcher of any week."""

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from reference_impl.launch import clean_exit, find_launcher, launch
from reference_impl.options import Options


@dataclass(frozen=True, kw_only=True)
class TrainCommand(Options):
    """Train one of a week's algorithms; the run lands in a folder of its own under runs/."""

    week: Annotated[Positional[str], arg(metavar="WEEK")]
    """The week, for example 05."""


def main(args: list[str]) -> None:
    """Exits 2 with one message after a mistake, 130 after Ctrl-C."""
    import tyro

    with clean_exit():
        command = tyro.cli(TrainCommand, prog="rlhf train", args=args)
        launch(find_launcher(command.week), command)
