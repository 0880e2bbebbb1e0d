"""`rlhf gallery`: its lists name misconceptions of what its algorithm trains with; what is committed was measured."""

import json
import subprocess
import sys

import pytest

from course import gallery
from reference_impl.algorithms import ALGORITHMS
from reference_impl.implementations import ROOT, week_folder

LISTED = sorted(path.stem for path in gallery.BUGS.glob("*.toml"))
PUBLISHED = [week for week in LISTED if (week_folder(week) / "gallery.json").is_file()]


@pytest.mark.parametrize("week", LISTED)
def test_every_listed_bug_is_a_misconception_of_a_function_that_is_trained_with(week):
    listed = gallery.read_gallery(week)
    assert 5 <= len(listed.bugs) <= 8
    for bug in listed.bugs:
        assert gallery.find(week, bug).function in ALGORITHMS[listed.algorithm].needs
        assert bug.metric in gallery.LABELS


@pytest.mark.parametrize("week", PUBLISHED)
def test_the_committed_gallery_is_that_of_the_list_and_its_numbers_are_those_of_its_curves(week):
    listed, page = gallery.read_gallery(week), gallery.read_published(week)
    assert page["algorithm"] == listed.algorithm and page["set"] == list(listed.set)
    assert [(b["function"], b["name"], b["metric"], b["look"]) for b in page["bugs"]] == [
        (bug.function, bug.name, bug.metric, bug.look) for bug in listed.bugs
    ]
    for bug in page["bugs"]:
        curves = [page["curves"][key][bug["metric"]] for key in (gallery.key_of(bug), gallery.RIGHT)]
        assert bug["look"]
        for curve in filter(None, curves):
            assert gallery.number(curve[-1]) in bug["measured"]


@pytest.mark.parametrize("week", PUBLISHED)
def test_the_figure_stands_in_the_lesson_and_is_small(week):
    picture = week_folder(week) / "gallery.png"
    assert picture.stat().st_size < 150_000
    assert "](gallery.png)" in (week_folder(week) / "README.md").read_text(encoding="utf-8")


def test_a_redraw_takes_the_words_of_the_list_and_leaves_every_number():
    listed, page = gallery.read_gallery("05"), gallery.read_published("05")
    old = page | {"bugs": [bug | {"look": "what was said before"} for bug in page["bugs"]]}
    assert gallery.reworded(old, listed) == page != old


def command(*args: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "course.cli", "gallery", *args], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("args, words", [(("99",), "no week"), (("05", "--only", "sing flipped"), "sign flipped")])
def test_a_mistake_is_one_message(args, words):
    done = command(*args)
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr


def test_a_bug_is_trained_beside_the_right_version_and_drawn(tmp_path):
    short = ["--set", "steps=2", "eval_prompts=8", "final_eval_prompts=8", "prompts_per_step=2", "group=2"]
    done = command("05", "--only", "sign flipped", "--runs-dir", str(tmp_path), *short)
    assert done.returncode == 0, done.stderr
    folder = next(tmp_path.iterdir())
    page = json.loads((folder / "gallery.json").read_text())
    assert set(page["curves"]) == {"right", "policy_gradient_loss: sign flipped"}
    assert (folder / "gallery.png").read_bytes().startswith(b"\x89PNG")
    right, wrong = (page["curves"][key]["response_length"] for key in page["curves"])
    assert right[0] == wrong[0] and right != wrong  # the same first rollout; another update


def test_a_run_that_a_bug_ends_is_part_of_the_gallery(tmp_path, capsys):
    from graders.misconceptions import Misconception
    from reference_impl.launch import find_launcher
    from reference_impl.options import Options

    def raises(rewards):
        raise RuntimeError("probability tensor contains inf")

    wrong = Misconception("rloo_advantages", "raises", "", "", "", "", False, raises)
    small = ("steps=2", "eval_prompts=8", "final_eval_prompts=8", "prompts_per_step=2", "group=2")
    curves, end = gallery.trained(
        find_launcher("05"), wrong, Options(algorithm="rloo", impl="reference", set=small, runs_dir=tmp_path)
    )
    assert "RuntimeError: probability tensor contains inf" in end and curves["reward_mean"] == []
