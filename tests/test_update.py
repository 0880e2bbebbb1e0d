"""`rlhf update` on repositories made here: what the member wrote stays, and a failure leaves nothing behind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from course.update import update
from graders.exercises import CHECKOUT
from reference_impl.errors import UserError

STUB = '"""Week 05."""\n\n\ndef rloo_advantages(rewards):\n    raise NotImplementedError\n'
WRITTEN = STUB.replace("raise NotImplementedError", "return rewards - rewards.mean()")
NEWER_STUB = STUB.replace("(rewards)", "(rewards, scale=1.0)") + "\n\ndef batch_baseline(rewards):\n    ...\n"
CHANGELOG = "# Changelog\n\n## 0.1.0\n\n- The beginning.\n"


@pytest.fixture
def repos(tmp_path, monkeypatch):
    """Upstream, and a fork of it with a branch, a remote called upstream and one commit of the member's."""
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "kim")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "kim@example.org")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    upstream, fork = tmp_path / "upstream", tmp_path / "fork"
    upstream.mkdir()
    git(upstream, "init", "--quiet", "--initial-branch=main")
    files = {"weeks/05/reinforce.py": STUB, "weeks/06/ppo_grpo.py": STUB, "notes/papers.md": "papers\n"}
    files |= {"graders/x.py": "1\n", "CHANGELOG.md": CHANGELOG, "pyproject.toml": '[project]\nname = "course"\n'}
    commit(upstream, files)
    git(tmp_path, "clone", "--quiet", str(upstream), str(fork))
    git(fork, "remote", "rename", "origin", "upstream")
    return upstream, fork


def git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", "-C", folder, *words], check=True, capture_output=True, text=True).stdout.strip()


def commit(folder: Path, files: dict[str, str | None]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).unlink() if text is None else (folder / name).write_text(text)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "-m", "change")


def state(folder: Path) -> tuple:
    """Everything that a failed update must leave alone."""
    files = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and ".git" not in p.parts}
    return (
        git(folder, "rev-parse", "HEAD"),
        git(folder, "status", "--porcelain"),
        git(folder, "worktree", "list"),
        files,
    )


def refused(fork: Path, **settings) -> str:
    before = state(fork)
    with pytest.raises(UserError) as problem:
        update(fork, **settings)
    assert state(fork) == before
    return str(problem.value)


def test_without_changes_of_ones_own_it_moves_on_to_upstream(repos):
    upstream, fork = repos
    commit(upstream, {"graders/x.py": "2\n", "weeks/05/reinforce.py": NEWER_STUB})
    said = "\n".join(update(fork))
    assert "1 commit of upstream/main" in said
    assert git(fork, "rev-parse", "HEAD") == git(upstream, "rev-parse", "HEAD")
    assert update(fork) == ["Already up to date with upstream/main."]


def test_what_the_member_wrote_stays_and_the_rest_is_upstreams(repos):
    upstream, fork = repos
    mine = {"weeks/05/reinforce.py": WRITTEN, "weeks/05/test_mine.py": "mine\n", "notes/papers.md": "mine\n"}
    mine |= {"experiments/2026-01-01-clip.md": "mine\n"}
    commit(fork, mine)
    commit(upstream, {"graders/x.py": "2\n", "weeks/06/ppo_grpo.py": NEWER_STUB, "pyproject.toml": "[project]\n"})
    said = "\n".join(update(fork))
    assert {name: (fork / name).read_text() for name in mine} == mine
    assert (fork / "graders/x.py").read_text() == "2\n"
    assert (fork / "weeks/06/ppo_grpo.py").read_text() == NEWER_STUB  # not begun: upstream's, as it is now
    assert git(fork, "status", "--porcelain") == ""
    assert "Yours as before" in said and "weeks/05/reinforce.py" in said and "Packages may have changed" in said
    assert git(fork, "log", "-1", "--format=%an %p").count(" ") == 2  # a merge: both histories are there
    assert git(fork, "log", "-1", "--format=%an").strip() == "kim"


def test_a_stub_changed_on_both_sides_is_the_members_and_upstreams_lies_beside_it(repos):
    upstream, fork = repos
    commit(fork, {"weeks/05/reinforce.py": WRITTEN})
    commit(upstream, {"weeks/05/reinforce.py": NEWER_STUB, "graders/x.py": "2\n"})
    said = "\n".join(update(fork))
    assert (fork / "weeks/05/reinforce.py").read_text() == WRITTEN
    assert (fork / "weeks/05/upstream_reinforce.py").read_text() == NEWER_STUB
    assert "Upstream changed weeks/05/reinforce.py too" in said
    assert "new: batch_baseline(rewards)" in said
    assert "now rloo_advantages(rewards, scale=1.0), yours rloo_advantages(rewards)" in said
    assert (fork / "graders/x.py").read_text() == "2\n"
    assert update(fork) == ["Already up to date with upstream/main."]  # the file beside is not in the way


def test_a_stub_that_merges_cleanly_is_still_the_members(repos):
    """Upstream edits another line: git alone would change the member's file without asking."""
    upstream, fork = repos
    long = STUB.replace('"""Week 05."""', '"""Week 05."""' + "\n# a line" * 20)
    commit(upstream, {"weeks/05/reinforce.py": long})
    update(fork)
    mine = long.replace("raise NotImplementedError", "return rewards - rewards.mean()")
    commit(fork, {"weeks/05/reinforce.py": mine})
    commit(upstream, {"weeks/05/reinforce.py": long.replace("Week 05.", "Week 05, once more.")})
    update(fork)
    assert (fork / "weeks/05/reinforce.py").read_text() == mine


def test_a_file_that_the_member_deleted_stays_deleted(repos):
    upstream, fork = repos
    commit(fork, {"notes/papers.md": None})
    commit(upstream, {"notes/papers.md": "papers\nmore\n"})
    update(fork)
    assert not (fork / "notes/papers.md").exists()
    assert (fork / "notes/upstream_papers.md").read_text() == "papers\nmore\n"


def test_the_changelog_since_the_members_version_is_printed(repos):
    upstream, fork = repos
    entry = "## 0.2.0\n\n**To do:** nothing.\n"
    commit(upstream, {"CHANGELOG.md": CHANGELOG.replace("## 0.1.0", f"{entry}\n## 0.1.0") + "- One line more.\n"})
    said = update(fork)
    start = said.index("What changed (CHANGELOG.md):")
    assert said[start + 1 :] == ["", "## 0.2.0", "**To do:** nothing.", "", "## 0.1.0", "- One line more."]


def test_a_conflict_elsewhere_leaves_nothing_behind(repos):
    upstream, fork = repos
    commit(fork, {"graders/x.py": "mine\n", "weeks/05/reinforce.py": WRITTEN})
    commit(upstream, {"graders/x.py": "2\n", "weeks/05/reinforce.py": NEWER_STUB})
    words = refused(fork)
    assert "graders/x.py" in words and "Nothing was merged" in words and "reinforce" not in words


def test_a_dirty_tree_is_refused_and_files_that_git_does_not_know_are_not(repos):
    upstream, fork = repos
    commit(upstream, {"graders/x.py": "2\n"})
    (fork / "weeks/05/reinforce.py").write_text(WRITTEN)
    assert "not committed: weeks/05/reinforce.py" in refused(fork)
    git(fork, "add", "--all")
    assert "not committed: weeks/05/reinforce.py" in refused(fork)
    git(fork, "reset", "--quiet", "--hard")
    (fork / "scratch.py").write_text("1")
    update(fork)
    assert (fork / "scratch.py").read_text() == "1"


def test_an_untracked_file_in_the_way_is_named_and_kept(repos):
    upstream, fork = repos
    commit(fork, {"weeks/05/reinforce.py": WRITTEN})
    commit(upstream, {"graders/new.py": "upstream\n"})
    (fork / "graders/new.py").write_text("mine")
    assert "graders/new.py" in refused(fork)


def test_no_remote_says_which_command_adds_one(repos):
    _, fork = repos
    git(fork, "remote", "remove", "upstream")
    assert "git remote add upstream" in refused(fork)


@pytest.mark.parametrize("url", ["/nowhere/at/all", "http://127.0.0.1:9/course.git"])
def test_no_network_is_one_message(repos, url):
    _, fork = repos
    git(fork, "remote", "set-url", "upstream", url)
    assert "cannot be fetched, nothing was changed" in refused(fork)


def test_a_branch_that_upstream_does_not_have(repos):
    assert "upstream/mian cannot be fetched" in refused(repos[1], branch="mian")


def test_a_detached_head_is_refused(repos):
    upstream, fork = repos
    commit(upstream, {"graders/x.py": "2\n"})
    git(fork, "checkout", "--quiet", "--detach")
    assert "git switch main" in refused(fork)


def test_a_merge_under_way_is_refused(repos):
    _, fork = repos
    (fork / ".git" / "MERGE_HEAD").write_text(git(fork, "rev-parse", "HEAD") + "\n")
    assert "git merge --abort" in refused(fork)


def test_a_copy_without_common_history_is_told_so(repos, tmp_path):
    upstream, _ = repos
    copy = tmp_path / "copy"
    copy.mkdir()
    git(copy, "init", "--quiet", "--initial-branch=main")
    commit(copy, {"README.md": "a copy\n"})
    git(copy, "remote", "add", "upstream", str(upstream))
    assert "shares no commit" in refused(copy)


def test_a_folder_that_is_no_repository(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    with pytest.raises(UserError, match="no git repository"):
        update(tmp_path)


def test_a_member_without_a_name_in_git_can_update(repos, monkeypatch):
    upstream, fork = repos
    commit(fork, {"weeks/05/reinforce.py": WRITTEN})
    commit(upstream, {"graders/x.py": "2\n"})
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.delenv(f"GIT_{name}_NAME")
        monkeypatch.delenv(f"GIT_{name}_EMAIL")
    update(fork)
    assert (fork / "graders/x.py").read_text() == "2\n"


def test_the_command_ends_in_one_message_and_exit_code_2():
    ran = subprocess.run(
        [sys.executable, "-m", "course.cli", "update", "--remote", "no-such-remote"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 2 and ran.stderr.startswith("error: ") and "Traceback" not in ran.stderr
