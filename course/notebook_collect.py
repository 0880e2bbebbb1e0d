"""From forks to nbgrader's submitted/: the file that a member wrote becomes the notebook that nbgrader expects.

Nothing of a fork is run here: its files are read as text.
"""

import tempfile
from datetime import UTC, datetime
from pathlib import Path

from course.compare.forks import Fork
from course.notebook_build import as_text, submission_notebook
from graders.exercises import Week, load_week
from graders.submission import read
from reference_impl.errors import UserError
from reference_impl.runs.files import write_text

LARGEST = 2**20  # bytes of a week's file


def collect(fork: Fork, submitted: Path, numbers: list[str]) -> list[str]:
    """Fill submitted/<name>/ from one fork that was found; the assignments written."""
    written = []
    for week in map(load_week, numbers):
        file = fork.folder / "weeks" / week.week / f"{week.module}.py"
        source = text_of(file, fork.folder)
        if source is not None and begun(week, source):
            folder = submitted / fork.name / f"week{week.week}"
            folder.mkdir(parents=True, exist_ok=True)
            write_text(folder / f"{week.module}.ipynb", as_text(submission_notebook(week, source)))
            changed = datetime.fromtimestamp(file.stat().st_mtime, UTC)
            write_text(folder / "timestamp.txt", f"{changed:%Y-%m-%d %H:%M:%S.%f} UTC\n")  # nbgrader's form
            written.append(f"week{week.week}")
    return written


def text_of(file: Path, root: Path) -> str | None:
    """A file's text; None when there is none, or a link leads out of the fork. UserError for a huge one."""
    if not file.is_file() or root not in file.resolve().parents:
        return None
    if file.stat().st_size > LARGEST:
        raise UserError(f"{file} has more than {LARGEST >> 20} MB")
    return file.read_text(encoding="utf-8", errors="replace")


def begun(week: Week, source: str) -> bool:
    """Is anything of this week written? An untouched stub is not a submission."""
    with tempfile.TemporaryDirectory(prefix="rlhf-collect-") as scratch:
        file = Path(scratch, week.week, f"{week.module}.py")
        file.parent.mkdir()
        file.write_text(source, encoding="utf-8")
        submission = read(week, scratch)
    return submission.syntax_error is not None or any(
        submission.state[e.name] not in ("not written", "missing") for e in week.exercises
    )
