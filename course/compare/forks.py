"""Which forks are compared, and where their files lie: a folder, a branch of a repository, a git URL, or a score file.

    ours=.   red=../red-fork   green=../green-fork:branch   blue=https://host/someone/fork.git:branch   old=score.json

What git fetches goes into a cache, one shallow clone a place; when the network is away, the cached one is used and said
so. Whatever is wrong with one fork becomes its `note`, and the others are compared all the same.
"""

import hashlib
import os
import re
import shutil
import subprocess
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from reference_impl.errors import UserError
from reference_impl.runs.files import replacing_folder

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,23}")
URL = re.compile(r"[a-z+]+://[^/]*/|[\w.-]+@[\w.-]+:")  # https://host/…  or  git@host:…
FETCH_SECONDS = 120.0
FORM = "write NAME=PLACE, where the place is a folder, a folder:branch, a git URL or a score file"


@dataclass
class Fork:
    """One column of the comparison."""

    name: str
    place: str  # as it was written
    folder: Path | None = None  # where its files lie; None when it could not be fetched, or is a score file
    scores: Path | None = None  # the result of a grading elsewhere, for example in CI
    version: str = ""  # commit and its date, when git knows
    note: str = ""  # what went wrong, or is worth knowing


# --- what was asked for -----------------------------------------------------------------------------------------------


def wanted(arguments: list[str]) -> tuple[list[Fork], list[str] | None]:
    """The forks named on the command line, or in a TOML file (./forks.toml when nothing is named), and the weeks that
    the file asks for. UserError for anything that cannot be meant."""
    files = [argument for argument in arguments if "=" not in argument and argument.endswith(".toml")]
    if not arguments and Path("forks.toml").is_file():
        files = ["forks.toml"]
    if files and (len(files) > 1 or len(arguments) > 1):
        raise UserError("give either one forks.toml, or NAME=PLACE for each fork, not both")
    pairs, weeks = read_toml(Path(files[0])) if files else ([pair(argument) for argument in arguments], None)
    if not pairs:
        raise UserError(f"which forks? For each of them {FORM}; or put them into a forks.toml")
    for name, _ in pairs:
        if not NAME.fullmatch(name):
            raise UserError(f"{name!r} is no name for a fork: up to 24 letters, digits, dots, dashes and underscores")
    names = [name for name, _ in pairs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"two forks are called {twice[0]}; give each a name of its own")
    return [Fork(name, place) for name, place in pairs], weeks


def pair(argument: str) -> tuple[str, str]:
    """NAME=PLACE."""
    name, equals, place = argument.partition("=")
    if not equals or not place:
        raise UserError(f"{argument!r}: {FORM}")
    return name, place


def read_toml(path: Path) -> tuple[list[tuple[str, str]], list[str] | None]:
    """`[forks]` with NAME = "PLACE", and `weeks = ["05", "06"]` if wanted. Folders are relative to the file."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    forks, weeks = table.get("forks"), table.get("weeks")
    if unknown := sorted(table.keys() - {"forks", "weeks"}):
        raise UserError(f'{path}: there is no setting {unknown[0]!r}; it takes a table [forks] and weeks = ["05"]')
    if not isinstance(forks, dict) or not all(isinstance(place, str) and place for place in forks.values()):
        raise UserError(f'{path}: it needs a table [forks] with a line NAME = "PLACE" for each fork')
    if weeks is not None and not (isinstance(weeks, list) and all(isinstance(week, str) for week in weeks)):
        raise UserError(f'{path}: weeks is a list of texts, for example weeks = ["05", "06"]')
    places = {n: p if URL.match(p) else str(path.parent / Path(p).expanduser()) for n, p in forks.items()}
    return list(places.items()), weeks


# --- where the files are ----------------------------------------------------------------------------------------------


def find_all(forks: list[Fork]) -> None:
    """Fill in every fork's folder, or the note that says why it has none; what needs git is fetched side by side."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(find, forks))


def find(fork: Fork) -> None:
    """Fill in one fork."""
    path = Path(fork.place).expanduser()
    try:
        if path.is_dir():
            fork.folder = path.resolve()
            return
        if path.suffix == ".json" and path.is_file():
            fork.scores = path
            return
    except OSError:  # longer than a file name may be
        pass
    url, branch = split_branch(fork.place)
    if url is None:
        fork.note = f"there is no folder {shown_place(fork.place)}"
        return
    fetch(fork, url, branch)


def split_branch(place: str) -> tuple[str | None, str | None]:
    """The git URL and the branch of `folder:branch`, `URL` or `URL:branch`; None for what is neither."""
    if head := URL.match(place):
        path, _, branch = place[head.end() :].partition(":")
        return head.group() + path, branch or None
    folder, colon, branch = place.rpartition(":")
    folder = Path(folder).expanduser()
    if colon and branch and folder.is_dir():
        return folder.resolve().as_uri(), branch
    return None, None


def shown_place(place: str) -> str:
    """A place without the password that a URL may hold."""
    return re.sub(r"://[^/@]*@", "://", place)


def fetch(fork: Fork, url: str, branch: str | None) -> None:
    """A shallow clone in the cache, made anew when the branch has moved."""
    if branch and branch.startswith("-"):
        fork.note = f"{branch!r} is no branch"
        return
    folder = cache() / hashlib.sha256(f"{url}\n{branch}".encode()).hexdigest()[:20]
    try:
        tip = git("ls-remote", "--exit-code", "--", url, f"refs/heads/{branch}" if branch else "HEAD").split()
        if not tip or tip[0] != commit(folder):
            with replacing_folder(folder) as fresh:
                choice = ["--branch", branch] if branch else []
                shallow = ["--depth", "1", "--single-branch", "--no-tags", "--template="]
                git("clone", "--quiet", *shallow, *choice, "--", url, str(fresh))
    except (CannotFetch, UserError) as problem:
        fork.note = f"{shown_place(fork.place)} could not be fetched: {problem}"
        if commit(folder) is None:
            return
        fork.note += "; this is the copy fetched before"
    fork.folder, fork.version = folder, git("-C", str(folder), "log", "-1", "--format=%h of %cs").strip()


class CannotFetch(Exception):
    """git did not do it; the message says why."""


def git(*words: str) -> str:
    """git's answer. It asks no questions, follows no symbolic link out of the clone and runs no hook or filter."""
    if shutil.which("git") is None:
        raise CannotFetch("git is not installed")
    settings = ("core.symlinks=false", "core.hooksPath=/dev/null", "protocol.ext.allow=never", "gc.auto=0")
    command = ["git", *(word for setting in settings for word in ("-c", setting)), *words]
    environment = {name: text for name, text in os.environ.items() if name not in ("GIT_DIR", "GIT_WORK_TREE")}
    environment |= {"GIT_TERMINAL_PROMPT": "0", "GIT_LFS_SKIP_SMUDGE": "1", "LC_ALL": "C"}
    environment.setdefault("GIT_SSH_COMMAND", "ssh -oBatchMode=yes -oConnectTimeout=20")
    try:
        done = subprocess.run(
            command, capture_output=True, env=environment, stdin=subprocess.DEVNULL, timeout=FETCH_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise CannotFetch(f"git took more than {FETCH_SECONDS:.0f} seconds") from None
    if done.returncode == 2 and "ls-remote" in words:
        raise CannotFetch("there is no such branch")
    if done.returncode != 0:
        said = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
        fatal = (
            [line for line in said if line.startswith(("fatal:", "error:", "ERROR:"))] or said or ["no reason given"]
        )
        raise CannotFetch(shown_place(fatal[0].partition(": ")[2] or fatal[0])[:300])
    return done.stdout.decode(errors="replace")


def commit(folder: Path) -> str | None:
    """The commit that lies in the cache."""
    try:
        return git("-C", str(folder), "rev-parse", "HEAD").strip() if (folder / ".git").is_dir() else None
    except CannotFetch:
        return None


def cache() -> Path:
    """Where clones are kept: $XDG_CACHE_HOME/rlhf-course/forks, or under ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "rlhf-course" / "forks"
