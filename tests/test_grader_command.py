"""`pytest weeks/05` as students meet it: the screens, the exit codes, the JSON; and the checks' own honesty."""

import json
import os
import subprocess
import sys

import pytest
import torch

from graders import declare, rules, scores, session, wire
from graders import strategies as st
from graders.candidate import Candidate
from graders.exercises import CHECKOUT, load_week
from graders.session import BrokenCheck, CheckFailed, Grading
from graders.submission import Submission, expected_checks, find, read

WEEK = load_week("05")
SOLUTION = (CHECKOUT / "solutions" / "05" / "reinforce.py").read_text()
STUB = WEEK.stub.read_text()


def grade(*options: str, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pytest", *options]
    return subprocess.run(
        command,
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
        check=False,
    )


def fork(folder, source: str):
    """A fork's root that holds this week 05."""
    (folder / "weeks" / "05").mkdir(parents=True)
    (folder / "weeks" / "05" / "reinforce.py").write_text(source)
    return str(folder)


def test_a_fresh_clone_shows_what_there_is_to_write_in_order_on_one_screen(tmp_path):
    done = grade("weeks/05", "--impl", fork(tmp_path, STUB), "--trust")
    lines = done.stdout.splitlines()
    assert done.returncode == 1 and len(lines) <= 25
    places = [done.stdout.index(f"{i}. {e.name}(") for i, e in enumerate(WEEK.exercises, 1)]
    assert places == sorted(places)
    assert all(exercise.section in done.stdout for exercise in WEEK.exercises)


def test_a_failing_check_shows_claim_input_expected_got_and_difference(tmp_path):
    wrong = f"{STUB}\n\ndef rloo_advantages(rewards):\n    return rewards - rewards.mean(1, keepdim=True)\n"
    result = tmp_path / "score.json"
    done = grade("weeks/05", "--impl", fork(tmp_path, wrong), "--trust", "--score-json", str(result))
    assert done.returncode == 1 and len(done.stdout.splitlines()) <= 25
    for words in ("mean of the other G - 1", "rloo_advantages(torch.tensor([[", "expected", "got", "0.5 times"):
        assert words in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert "1. reinforce_loss" in done.stdout  # what is not written hides nothing, and is not hidden
    score = json.loads(result.read_text())
    week = score["weeks"][0]
    assert (score["schema"], score["version"], score["graded"], week["green"]) == ("rlhf-course/score", 1, True, False)
    states = {e["name"]: (e["state"], e["points"]) for e in week["exercises"]}
    assert states["rloo_advantages"] == ("written", 0) and states["reinforce_loss"] == ("not written", 0)
    assert all(e["checks"]["expected"] >= 3 for e in week["exercises"])


def test_the_solution_is_green_with_every_star_and_a_part_of_it_is_not_a_grade(tmp_path):
    result = tmp_path / "score.json"
    done = grade("weeks/05", "--impl", "solutions", "--robust", "--score-json", str(result))
    week = json.loads(result.read_text())["weeks"][0]
    assert done.returncode == 0 and week["green"] and week["points"] == week["points_possible"] and week["stars"] == 5
    part = grade("weeks/05", "--impl", "solutions", "-k", "baseline", "--score-json", str(result))
    assert part.returncode == 1 and "not a grade" in part.stdout
    assert json.loads(result.read_text())["graded"] is False


def test_a_lost_star_is_green_with_its_remedy_and_red_with_robust(tmp_path):
    leaking = "    return -((rewards - baseline).detach() * (logprobs * mask).sum(1)).mean().to(logprobs.dtype)"
    source = f"{SOLUTION}\n\ndef reinforce_loss(logprobs, rewards, mask, baseline=0.0):\n{leaking}\n"
    done = grade("weeks/05", "--impl", fork(tmp_path, source), "--trust")
    assert done.returncode == 0 and "☆ reinforce_loss" in done.stdout and "torch.where" in done.stdout
    assert grade("weeks/05", "--impl", str(tmp_path), "--trust", "--robust").returncode == 1


@pytest.mark.parametrize(
    "options, words",
    [
        (["weeks/99"], "no week"),
        (["weeks/5"], "weeks/05"),
        (["weeks/05", "--impl", "/nowhere"], "no such folder"),
        (["weeks/05", "--seed", "x"], "--seed"),
        (["weeks/05", "--score-json", "/nowhere/x.json"], "no folder"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(options, words):
    done = grade(*options)
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr + done.stdout
    assert len(done.stderr.strip().splitlines()) == 1


def test_files_that_cannot_be_graded_say_why_without_running(tmp_path):
    submission = read(WEEK, fork(tmp_path / "a", STUB.replace("def reinforce_loss(", "def reinforce_loss((")))
    assert submission.syntax_error.lineno > 0
    renamed = STUB.replace("def batch_baseline(rewards", "def batch_baseline(r").replace("def rloo_adv", "def rl_adv")
    submission = read(
        WEEK, fork(tmp_path / "b", renamed.replace('raise NotImplementedError("Week 05, task 3', 'print("'))
    )
    assert submission.state["rloo_advantages"] == "missing"
    assert submission.state["batch_baseline"] == "wrong signature"
    assert "batch_baseline(r)" in submission.complaint["batch_baseline"]
    assert find(WEEK, str(tmp_path / "a")).parts[-3:] == ("weeks", "05", "reinforce.py")


# --- the checks' own honesty ------------------------------------------------------------------------------------------


@pytest.fixture
def grading():
    submission = Submission(WEEK, WEEK.stub, SOLUTION, impl="solution")
    current = Grading(submission, Candidate(submission), shrink=True)
    session.set_current(current)
    yield current
    session.set_current(None)
    current.candidate.stop()


def run(test, **settings):
    declare.run_check(declare.Check("rloo_advantages", "", robust=False, **settings), test, session.current())


def test_a_check_that_zero_would_pass_is_broken(grading):
    equal = torch.full((2, 3), 0.5)
    with pytest.raises(BrokenCheck, match="returns zero"):
        run(lambda: declare.compare("rloo_advantages", equal))
    with pytest.raises(BrokenCheck, match="1% off"):
        run(lambda: declare.compare("rloo_advantages", torch.rand(2, 3), tolerance=0.02))
    run(lambda: declare.compare("rloo_advantages", equal), floor=False)


def test_worked_numbers_that_the_reference_does_not_give_are_broken(grading):
    with pytest.raises(BrokenCheck, match="the reference gives"):
        run(lambda: declare.returns("rloo_advantages", torch.zeros(1, 2), torch.tensor([[1.0, 0.0]])))
    with pytest.raises(BrokenCheck, match="does not raise"):
        run(lambda: declare.raises("rloo_advantages", ValueError, torch.rand(2, 2)))


BREAKING = """
import graders.plugin

def pytest_runtest_setup(item):
    from graders import verdict
    verdict.check_purity = lambda *_: {}["no such thing"]
"""


def test_an_error_of_the_grader_itself_is_said_loudly_and_is_no_grade(tmp_path):
    (tmp_path / "breaking.py").write_text(BREAKING)
    result = tmp_path / "score.json"
    options = ["weeks/05", "--impl", "solutions", "-p", "breaking", "--score-json", str(result)]
    done = grade(*options, PYTHONPATH=str(tmp_path))
    assert done.returncode == 1 and "Traceback" not in done.stdout + done.stderr
    assert "the grader itself is broken" in done.stdout and "KeyError: 'no such thing'" in done.stdout
    assert "not a grade, please report it" in done.stdout
    score = json.loads(result.read_text())
    kinds = {c["status"] for e in score["weeks"][0]["exercises"] for c in e["not_passed"]}
    assert score["graded"] is False and kinds <= {"broken", "skipped"} and "broken" in kinds


def test_an_answer_that_changes_from_call_to_call_is_the_submissions_failure(grading):
    from hypothesis import given

    grading.candidate.submission.source += UNSTEADY
    test = given(rewards=st.reward_groups())(lambda rewards: declare.compare("rloo_advantages", rewards))
    with pytest.raises(CheckFailed, match="the same input gives different answers"):
        run(test)


UNSTEADY = """

calls = []

def rloo_advantages(rewards):
    calls.append(0)
    right = (rewards - rewards.mean(1, keepdim=True)) * rewards.shape[1] / (rewards.shape[1] - 1)
    return right + (len(calls) == 2)
"""


def test_every_expected_check_that_does_not_run_is_not_run():
    submission = read(WEEK, "solutions")
    score = scores.blank(WEEK, submission, expected_checks(WEEK))
    assert not score.complete and not score.green
    for outcome in score.outcomes[1:]:
        outcome.status = "passed"
    assert not score.complete and not score.green
    score.outcomes[0].status = "passed"
    assert score.complete and score.green


def test_tolerances_follow_the_scale_of_the_answer():
    for size in (1e-3, 1.0, 1e6):
        expected = size * torch.tensor([1.0, -0.5], dtype=torch.float64)
        for factor, right in ((1 + 1e-7, True), (1.01, False), (0.0, False)):
            assert bool(rules.close(factor * expected, expected, 1e-5, 1.0).all()) == right


def test_numbers_survive_the_wire_bit_for_bit():
    values = [torch.randn(3, 5).to(d) for d in (torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.bool)]
    values += [torch.tensor([float("nan"), float("inf")]), torch.zeros(0, 3), torch.tensor(2.5), torch.randn(5, 3).mT]
    values += [None, True, 7, 2.5, "text", [1, (2, None)], {"a": 1, 2: [3]}]
    frame = wire.pack({"values": values})
    head = int.from_bytes(frame[:8], "big")
    back = wire.unpack(frame[16 : 16 + head], frame[16 + head :])["values"]
    for value, got in zip(values, back, strict=True):
        assert type(value) is type(got)
        if torch.is_tensor(value):
            assert value.dtype == got.dtype and value.stride() == got.stride()
            assert torch.equal(value.nan_to_num(1), got.nan_to_num(1)) if value.is_floating_point() else True
        else:
            assert value == got


def test_drawn_inputs_have_different_sizes_one_span_a_row_and_garbage_under_the_mask():
    from hypothesis import given

    @given(x=st.tensors(logprobs="B T logprob", mask="B T mask", rewards="B reward", under_mask=("nan",)))
    def look(x):
        assert x.sizes.B != x.sizes.T or x.sizes.B == 1
        mask = x.mask.bool()
        starts = mask & ~torch.nn.functional.pad(mask, (1, 0))[:, :-1]
        assert (starts.sum(1) == 1).all()
        assert torch.equal(x.logprobs.isnan(), ~mask)

    look()


def test_a_smallest_input_is_found_and_is_code(grading):
    from hypothesis import given

    grading.candidate.submission.source += "\n\ndef rloo_advantages(rewards):\n    return rewards * 0.9\n"
    test = given(rewards=st.reward_groups())(lambda rewards: declare.compare("rloo_advantages", rewards))
    with pytest.raises(CheckFailed) as caught:
        run(test)
    code = caught.value.failure.code
    rewards = eval(code.removeprefix("rloo_advantages"), {"torch": torch})
    assert rewards.numel() == 2 and rewards.dtype == torch.float32
