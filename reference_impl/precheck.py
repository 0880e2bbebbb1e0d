"""Are the functions that a run is about to train with green? Asked of the week's own grader, and remembered.

The grader runs as a command of its own (`pytest weeks/NN --score-json`), as a student would run it. The answer for a
file that has not changed since is read from .rlhf/prechecks/.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from reference_impl.errors import UserError
from reference_impl.implementations import ROOT, WEEKS, shown, week_file, week_folder
from reference_impl.runs.files import write_text
from reference_impl.runs.progress import console

PROVEN = ("solution", "solutions", "reference")  # graded by the course's own tests
CACHE = ROOT / ".rlhf" / "prechecks"


def warn_unless_green(week: str, impl: str, needs: tuple[str, ...]) -> None:
    """Print a warning that names each of `needs` which the grader finds wrong; training goes on all the same."""
    if impl in PROVEN:
        return
    with console.status(f"Checking {shown(week_file(week, impl))} before training ..."):
        found = red_functions(week, impl)
    if found is None:
        console.print(f"[bold]Warning:[/] the grader gave no verdict; `uv run pytest weeks/{week}` says why.")
    red = [name for name in found or [] if name in needs]
    if red:
        console.print(
            f"[bold]Warning:[/] not green yet: {', '.join(red)}. `uv run pytest weeks/{week}` says why; "
            "the run goes on, and its curves show what the mistake does.",
            soft_wrap=True,
        )


def red_functions(week: str, impl: str) -> list[str] | None:
    """The functions of the week that the grader finds wrong or missing; None when it gives no verdict."""
    test = week_folder(week) / f"test_{WEEKS[week]}.py"
    if not test.is_file():
        return []
    content = week_file(week, impl).read_bytes() + test.read_bytes()
    remembered = CACHE / f"{week}-{hashlib.sha256(content).hexdigest()[:24]}.json"
    try:
        return json.loads(remembered.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        pass
    red = grade(week, impl)
    if red is None:
        return None
    try:
        remembered.parent.mkdir(parents=True, exist_ok=True)
        write_text(remembered, json.dumps(red))
    except (OSError, UserError):  # then it is asked again next time
        pass
    return red


def grade(week: str, impl: str) -> list[str] | None:
    """Run the grader on all functions. Someone else's file is about to run here anyway, hence --trust."""
    with tempfile.TemporaryDirectory() as folder:
        score = Path(folder) / "score.json"
        path = impl if impl == "student" else str(Path(impl).expanduser().resolve())
        command = [sys.executable, "-m", "pytest", "-p", "graders.plugin", f"weeks/{week}", "--impl", path]
        command += ["--trust", "--score-json", str(score)]
        subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
        try:
            exercises = json.loads(score.read_text(encoding="utf-8"))["weeks"][0]["exercises"]
        except (OSError, json.JSONDecodeError, KeyError, IndexError):
            return None
    return [exercise["name"] for exercise in exercises if not exercise["green"]]
