"""`rlhf update`: bring upstream's changes into a fork. What the member wrote stays as it is.

The merge is made in a worktree of its own, a second folder of the same repository, and this checkout moves to it only
when it is finished: a conflict leaves nothing half done.
"""

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated

from graders.exercises import load_week, weeks
from graders.submission import signatures
from reference_impl.errors import UserError
from reference_impl.implementations import ROOT
from reference_impl.launch import clean_exit
from reference_impl.options import value

GIT_SECONDS = 300
THEIRS = ("weeks/*/test_mine.py", "notes/*", "experiments/*")  # and the stubs: the members write these
QUIET = (
    "core.hooksPath=/dev/null",
    "merge.renames=false",
    "commit.gpgSign=false",
    "gc.auto=0",
    "advice.detachedHead=0",
)
NO_REMOTE = """this checkout has no remote called {remote!r}. Tell git once where upstream lies:
    git remote add {remote} {url}
or name one that you have (git remote): rlhf update --remote NAME"""


@dataclass(frozen=True)
class UpdateCommand:
    """Bring upstream's changes into your fork; stubs, notes and experiments that you wrote are not touched."""

    remote: Annotated[str, value("NAME")] = "upstream"
    """The git remote that is the course itself."""
    branch: Annotated[str, value("NAME")] = "main"
    """Its branch."""


def main(args: list[str]) -> None:
    """Exits 2 with one message, and nothing changed, when the update cannot be made."""
    import tyro

    with clean_exit():
        command = tyro.cli(UpdateCommand, prog="rlhf update", args=args)
        print("\n".join(update(ROOT, command.remote, command.branch)))


def update(root: Path, remote: str = "upstream", branch: str = "main") -> list[str]:
    """Fetch, merge, move the checkout; the lines to print. UserError when it cannot be done; then nothing changed."""
    require_quiet(root)
    new = fetched(root, remote, branch)
    old = git(root, "rev-parse", "HEAD")
    if succeeds(root, "merge-base", "--is-ancestor", new, old):
        return [f"Already up to date with {remote}/{branch}."]
    base = merge_base(root, old, new, remote)
    mine = changed_by_member(root, base, old)
    merged = new if base == old else merge(root, base, new, mine, f"{remote}/{branch}")
    if not succeeds(root, "merge", "--ff-only", "--quiet", merged):
        raise UserError(f"git would overwrite files that are not committed:\n{blocking(root, merged)}Move them away.")
    count = git(root, "rev-list", "--count", "--no-merges", f"{old}..{new}")
    lines = [f"{count} commit{'' if count == '1' else 's'} of {remote}/{branch} are in."]
    lines += [f"Yours as before: {', '.join(mine)}"] if mine else []
    lines += put_beside(root, [path for path in mine if both_changed(root, base, old, new, path)], new)
    lines += news(shown(root, old, "CHANGELOG.md"), shown(root, new, "CHANGELOG.md"))
    if shown(root, old, "pyproject.toml") != shown(root, merged, "pyproject.toml"):
        lines += ["", "Packages may have changed: the next `uv run` installs them."]
    return lines


# --- may it be done? --------------------------------------------------------------------------------------------------


def require_quiet(root: Path) -> None:
    """A branch is checked out, no merge or rebase is under way, and everything is committed."""
    if not succeeds(root, "rev-parse", "--git-dir"):
        raise UserError(f"{root} is no git repository: clone your fork with git to be able to update it")
    git_dir = root / git(root, "rev-parse", "--git-dir")
    for name, what in (("MERGE_HEAD", "merge"), ("rebase-merge", "rebase"), ("rebase-apply", "rebase")):
        if (git_dir / name).exists():
            raise UserError(f"a {what} is under way: finish it, or `git {what} --abort`")
    if not succeeds(root, "symbolic-ref", "--quiet", "HEAD"):
        raise UserError("no branch is checked out (detached HEAD): `git switch main` first")
    if dirty := git(root, "status", "--porcelain", "--untracked-files=no").splitlines():
        shown_files = ", ".join(line.split(maxsplit=1)[1] for line in dirty[:5]) + (" …" if len(dirty) > 5 else "")
        raise UserError(f"changes that are not committed: {shown_files}. Commit them first (or `git stash` them)")


def fetched(root: Path, remote: str, branch: str) -> str:
    """Upstream's newest commit."""
    if remote not in git(root, "remote").split():
        raise UserError(NO_REMOTE.format(remote=remote, url=upstream_url(root) or "URL-OF-THE-COURSE"))
    ran = run(root, "fetch", "--quiet", "--no-tags", remote, f"refs/heads/{branch}")
    if ran.returncode != 0:
        said = [line for line in ran.stderr.splitlines() if line.strip()]
        why = next((line for line in said if line.startswith("fatal:")), said[-1] if said else "git gave no reason")
        raise UserError(f"{remote}/{branch} cannot be fetched, nothing was changed ({why.removeprefix('fatal: ')})")
    return git(root, "rev-parse", "FETCH_HEAD")


def upstream_url(root: Path) -> str | None:
    """The course's address, where pyproject.toml tells it."""
    import tomllib

    urls = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"].get("urls", {})
    return next((url for name, url in urls.items() if name.lower() in ("repository", "source")), None)


def merge_base(root: Path, old: str, new: str, remote: str) -> str:
    ran = run(root, "merge-base", old, new)
    if ran.returncode == 0:
        return ran.stdout.strip()
    if git(root, "rev-parse", "--is-shallow-repository") == "true":
        raise UserError(f"this clone is shallow, its history ends too early: `git fetch --unshallow {remote}` first")
    raise UserError(f"this repository shares no commit with {remote}: it is a copy of the course, not a fork of it")


# --- the merge --------------------------------------------------------------------------------------------------------


def changed_by_member(root: Path, base: str, old: str) -> list[str]:
    """The members' files that differ from what upstream had handed out, also those deleted."""
    patterns = (*THEIRS, *(f"weeks/{number}/{load_week(number).module}.py" for number in weeks()))
    paths = git(root, "diff", "--no-renames", "--name-only", "-z", base, old).split("\0")
    return [path for path in paths if any(fnmatch(path, pattern) for pattern in patterns)]


def merge(root: Path, base: str, new: str, mine: list[str], name: str) -> str:
    """A merge commit of HEAD and upstream in which the member's files are as in HEAD. UserError on a conflict."""
    with worktree(root) as tree:
        run(tree, *identity(root), "merge", "--no-commit", "--no-ff", "--quiet", new)  # a conflict is seen below
        for path in mine:
            if succeeds(root, "cat-file", "-e", f"HEAD:{path}"):
                git(tree, "checkout", "--quiet", "HEAD", "--", path)
            else:
                git(tree, "rm", "--quiet", "--force", "--ignore-unmatch", "--", path)
        if conflicts := git(tree, "diff", "--name-only", "--diff-filter=U", "-z").strip("\0"):
            files = conflicts.replace("\0", ", ")
            raise UserError(
                f"you and upstream both changed {files}. Nothing was merged. Put it back as it was (`git checkout "
                f"{base[:10]} -- FILE`, commit) and update again, or merge by hand: `git merge {name}`"
            )
        git(tree, *identity(root), "commit", "--quiet", "--no-verify", "-m", f"Merge {name}")
        return git(tree, "rev-parse", "HEAD")


def identity(root: Path) -> list[str]:
    """Whose name the merge carries: the member's, as git knows it."""
    known = succeeds(root, "config", "user.email") or "GIT_COMMITTER_EMAIL" in os.environ
    return [] if known else ["-c", "user.name=rlhf update", "-c", "user.email=rlhf-update@localhost"]


@contextmanager
def worktree(root: Path) -> Iterator[Path]:
    """A second folder with HEAD checked out, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="rlhf-update-") as scratch:
        tree = Path(scratch, "tree")
        git(root, "worktree", "add", "--quiet", "--detach", str(tree), "HEAD")
        try:
            yield tree
        finally:
            run(root, "worktree", "remove", "--force", str(tree))
            run(root, "worktree", "prune")


def both_changed(root: Path, base: str, old: str, new: str, path: str) -> bool:
    """Has upstream a newer version of a file that the member wrote in?"""
    return shown(root, new, path) not in (None, shown(root, base, path), shown(root, old, path))


def blocking(root: Path, merged: str) -> str:
    """The untracked files that stand where the merge has files."""
    untracked = git(root, "ls-files", "--others", "-z").split("\0")
    coming = set(git(root, "ls-tree", "-r", "--name-only", "-z", merged).split("\0"))
    return "".join(f"    {path}\n" for path in untracked if path and path in coming)


# --- what is told -----------------------------------------------------------------------------------------------------


def put_beside(root: Path, paths: list[str], new: str) -> list[str]:
    """Upstream's version of each of these files beside the member's own, and what is new in it."""
    lines = []
    for path in paths:
        mine = root / path
        beside = mine.with_name(f"upstream_{mine.name}")
        beside.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(shown(root, new, path) or "", encoding="utf-8")
        lines.append(f"Upstream changed {path} too. Theirs lies beside it: {beside.relative_to(root)}")
        lines += [f"    {line}" for line in differences(mine, beside)] if mine.suffix == ".py" else []
    return lines


def differences(mine: Path, theirs: Path) -> list[str]:
    """Functions whose line differs."""
    try:
        have, want = signatures(mine), signatures(theirs)
    except (SyntaxError, ValueError):
        return []
    new = [f"new: {line}" for name, line in want.items() if name not in have]
    return new + [f"now {line}, yours {have[name]}" for name, line in want.items() if have.get(name, line) != line]


def news(old: str | None, new: str | None) -> list[str]:
    """The changelog's entries, and lines of entries, that the member has not had."""
    had, lines = entries(old or ""), []
    for heading, text in entries(new or "").items():
        before = set(had.get(heading, "").splitlines())
        fresh = [line for line in text.splitlines() if line.strip() and line not in before]
        lines += ["", heading, *fresh] if fresh else []
    return ["", "What changed (CHANGELOG.md):", *lines] if lines else []


def entries(changelog: str) -> dict[str, str]:
    """The changelog's text by heading, without comments."""
    pieces = re.split(r"(?m)^(?=## )", re.sub(r"(?s)<!--.*?-->", "", changelog))[1:]
    return {piece.partition("\n")[0]: piece.partition("\n")[2] for piece in pieces}


# --- git --------------------------------------------------------------------------------------------------------------


def shown(root: Path, commit: str, path: str) -> str | None:
    """A file's text at a commit."""
    ran = run(root, "show", f"{commit}:{path}")
    return ran.stdout if ran.returncode == 0 else None


def git(root: Path, *words: str) -> str:
    """What git prints. UserError with git's own last line when it fails."""
    ran = run(root, *words)
    if ran.returncode != 0:
        said = ran.stderr.strip().splitlines() or ["it gave no reason"]
        raise UserError(f"git {words[0]} failed: {said[-1]}")
    return ran.stdout.strip()


def succeeds(root: Path, *words: str) -> bool:
    return run(root, *words).returncode == 0


def run(root: Path, *words: str) -> subprocess.CompletedProcess:
    """git, without questions, hooks and signatures."""
    environment = {name: text for name, text in os.environ.items() if name not in ("GIT_DIR", "GIT_WORK_TREE")}
    environment |= {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C.UTF-8"}
    environment.setdefault("GIT_SSH_COMMAND", "ssh -oBatchMode=yes -oConnectTimeout=20")
    command = ["git", "-C", str(root), *(word for setting in QUIET for word in ("-c", setting)), *words]
    try:
        return subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env=environment,
            stdin=subprocess.DEVNULL,
            timeout=GIT_SECONDS,
            check=False,
        )
    except FileNotFoundError:
        raise UserError("git is not installed") from None
    except subprocess.TimeoutExpired:
        raise UserError(f"git {words[0]} took more than {GIT_SECONDS} seconds; nothing was changed") from None
