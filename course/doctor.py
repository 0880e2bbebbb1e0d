"""`rlhf doctor`: what works on this machine, what falls back, what to do."""

import sys
from dataclasses import dataclass

from graders.report import Painter
from graders.sandbox import NoSandbox, wrap
from reference_impl.launch import clean_exit
from reference_impl.runs import doctor
from reference_impl.runs.doctor import BROKEN, FALLS_BACK, OK, Finding

MARKS = {OK: ("✓", "green"), FALLS_BACK: ("-", "yellow"), BROKEN: ("✗", "red")}


@dataclass(frozen=True)
class DoctorCommand:
    """Look at this machine: what works, what falls back, and what to do about it."""


def main(args: list[str]) -> None:
    """Exits 0, or 1 when something is broken that the course needs."""
    import tyro

    with clean_exit():
        tyro.cli(DoctorCommand, prog="rlhf doctor", args=args)
        found, paint = [], Painter()
        for look in looks():
            found.append(look())
            print("\n".join(lines(found[-1], paint)), flush=True)
        print("\n" + verdict(found))
        sys.exit(1 if any(finding.state == BROKEN for finding in found) else 0)


def looks() -> list:
    """What is looked at, in order. Without torch, the rest that asks torch is left out."""
    first = [doctor.python, doctor.packages, doctor.torch_and_speed]
    needs_torch = [doctor.accelerator, doctor.attention] if doctor.util.find_spec("torch") else []
    last = [
        doctor.memory,
        lambda: doctor.disk(doctor.ROOT / "runs"),
        doctor.base_model,
        sandbox,
        doctor.wandb,
        doctor.hub,
    ]
    return [*first, *needs_torch, *last]


def sandbox() -> Finding:
    """Can other people's submissions be fenced in?"""
    try:
        wrap()
    except NoSandbox:
        remedy = "Your own file needs none. For other people's: `sudo apt install bubblewrap` (Linux), or --trust them."
        return Finding("sandbox", FALLS_BACK, "bubblewrap is not installed or does not work here", remedy)
    return Finding("sandbox", OK, "bubblewrap works: other people's submissions run without network and files")


def lines(finding: Finding, paint: Painter) -> list[str]:
    """A line, and below it the remedy."""
    mark, colour = MARKS[finding.state]
    state = "" if finding.state == OK else f"{finding.state}: "
    first = f"{paint(mark, colour, 'bold')} {finding.what:<12} {state}{finding.words}"
    return [first, *([f"  {'':<12} {finding.remedy}"] if finding.remedy else [])]


def verdict(found: list[Finding]) -> str:
    broken = [finding.what for finding in found if finding.state == BROKEN]
    if broken:
        return f"Broken: {', '.join(broken)}. The lines above say what to do."
    falling = [finding.what for finding in found if finding.state == FALLS_BACK]
    less = f" ({', '.join(falling)}: the course does without)" if falling else ""
    return f"Everything that the course needs works{less}. Next: `rlhf demo`, or `rlhf status`."
