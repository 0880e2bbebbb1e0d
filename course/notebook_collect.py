"""From forks to nbgrader's submitted/: the file that a member wrote becomes the notebook that nbgrader expects.

Nothing of a fork is run or checked out here: files are read as text, from a folder or from a commit.
"""

import os
import re
import subprocess
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from course.notebook_build import as_text, submission_notebook
from graders.exercises import Week, load_week
from graders.submission import read
from reference_impl.errors import UserError
from reference_impl.runs.files import write_text

LARGEST = 2**20  # bytes of a week's file
GIT_SECONDS = 120


@dataclass(frozen=True)
class Found:
    """A member's file of one week, and when it was last changed."""

    source: str
    changed: datetime


class Folder:
    """A fork that lies in a folder, as it is now."""

    def __init__(self, root: Path):
        self.root = root.resolve()

    def find(self, path: str) -> Found | None:
        file = self.root / path
        if not file.is_file() or self.root not in file.resolve().parents:  # no link may lead out of the fork
            return None
        data = file.read_bytes()[: LARGEST + 1]
        return found(data, datetime.fromtimestamp(file.stat().st_mtime, UTC))


class Commit:
    """A fork at a commit of a git repository."""

    def __init__(self, repository: Path, commit: str):
        self.repository, self.commit = repository, commit

    def find(self, path: str) -> Found | None:
        shown = git("-C", self.repository, "show", f"{self.commit}:{path}")
        if shown.returncode != 0:
            return None
        when = git("-C", self.repository, "log", "-1", "--format=%ct", self.commit, "--", path).stdout
        return found(shown.stdout[: LARGEST + 1], datetime.fromtimestamp(int(when or 0), UTC))


def found(data: bytes, changed: datetime) -> Found | None:
    """None for a file too large to be an exercise."""
    return None if len(data) > LARGEST else Found(data.decode("utf-8", errors="replace"), changed)


def collect(spec: str, submitted: Path, numbers: list[str]) -> list[str]:
    """Fill submitted/<name>/ from one fork, `name=where`; the assignments written. UserError for a fork that is not to
    be had."""
    name, where = named(spec)
    with tempfile.TemporaryDirectory(prefix="rlhf-collect-") as scratch:
        fork = opened(where, Path(scratch))
        written = []
        for week in map(load_week, numbers):
            mine = fork.find(f"weeks/{week.week}/{week.module}.py")
            if mine is not None and begun(week, mine.source, Path(scratch)):
                hand_in(submitted / name / f"week{week.week}", week, mine)
                written.append(f"week{week.week}")
    return written


def named(spec: str) -> tuple[str, str]:
    """`kim=../kims-fork` or a place alone, whose last part is the name. UserError for a name that cannot be a folder."""
    name, equals, where = spec.partition("=")
    if not equals or "/" in name:
        where = spec
        name = re.sub(r"\.git$", "", Path(where.rstrip("/")).resolve().name)
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise UserError(f"{spec}: {name!r} cannot be a student's id; name the fork, kim={where}")
    return name, where


def opened(where: str, scratch: Path):
    """The fork: a folder, folder:branch, or a git URL, which is fetched shallowly. UserError."""
    if Path(where).is_dir():
        return Folder(Path(where))
    folder, colon, branch = where.rpartition(":")
    if colon and Path(folder).is_dir():
        if git("-C", folder, "rev-parse", "--verify", "--quiet", f"{branch}^{{commit}}").returncode != 0:
            raise UserError(f"{where}: {folder} has no branch {branch!r}")
        return Commit(Path(folder), branch)
    if "://" not in where and not where.startswith("git@"):
        raise UserError(f"{where}: there is no such folder, and it is no git URL")
    cloned = git("clone", "--quiet", "--depth", "1", "--no-checkout", "--", where, scratch / "fork")
    if cloned.returncode != 0:
        said = cloned.stderr.decode(errors="replace").strip().splitlines()
        raise UserError(f"{where} cannot be fetched: {said[-1] if said else 'git gave no reason'}")
    return Commit(scratch / "fork", "HEAD")


def begun(week: Week, source: str, scratch: Path) -> bool:
    """Is anything of this week written? An untouched stub is not a submission."""
    file = scratch / "begun" / week.week / f"{week.module}.py"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(source, encoding="utf-8")
    submission = read(week, str(scratch / "begun"))
    return submission.syntax_error is not None or any(
        submission.state[e.name] not in ("not written", "missing") for e in week.exercises
    )


def hand_in(folder: Path, week: Week, mine: Found) -> None:
    """The submission of one week: the notebook and nbgrader's timestamp."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / f"{week.module}.ipynb", as_text(submission_notebook(week, mine.source)))
    write_text(folder / "timestamp.txt", f"{mine.changed:%Y-%m-%d %H:%M:%S.%f} UTC\n")


def git(*words) -> subprocess.CompletedProcess:
    """Run git, without its questions. UserError when there is no git or it takes too long."""
    environment = os.environ | {"GIT_TERMINAL_PROMPT": "0", "GIT_LFS_SKIP_SMUDGE": "1"}
    command = ["git", *map(str, words)]
    try:
        return subprocess.run(command, capture_output=True, timeout=GIT_SECONDS, env=environment, check=False)
    except FileNotFoundError:
        raise UserError("git is not installed") from None
    except subprocess.TimeoutExpired:
        raise UserError(f"git took more than {GIT_SECONDS} seconds: {' '.join(command[:3])} …") from None
