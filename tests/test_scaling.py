"""Week 07's launcher: the week's verifier is the reward, and the scaling curves are what they say."""

import json
from pathlib import Path

import pytest
import torch

from reference_impl import reasoning
from reference_impl.errors import UserError
from reference_impl.launch import find_launcher, launch
from reference_impl.loops import habits
from reference_impl.loops.scaling import Samples, accuracy_curves, budget_curve, by_steps, verified_reward, with_tags
from reference_impl.options import Options
from reference_impl.settings import ReasoningSettings
from reference_impl.tasks import get_task

SETTINGS = ReasoningSettings(week="07", algorithm="rlvr")
SMALL = (
    "prompts_per_step=2",
    "group=4",
    "max_new_tokens=18",
    "eval_prompts=4",
    "final_eval_prompts=8",
    "scaling_prompts=6",
    "scaling_samples=8",
)


@pytest.fixture(autouse=True)
def no_wandb(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")


def test_a_nano_completion_is_read_as_a_tagged_answer():
    assert with_tags("4-1=3-7=-4", True) == "4-1=3-7=<answer>-4</answer>"
    assert with_tags("-4", True) == "<answer>-4</answer>"
    assert reasoning.extract_answer(with_tags("4-1=3-7=-4", False)) is None
    assert with_tags("so <answer>3</answer>", True) == "so <answer>3</answer>"
    assert with_tags(r"so \boxed{3}", False) == r"so \boxed{3}"


def test_the_reward_is_one_exactly_where_the_tasks_own_verifier_says_right():
    task, reward = get_task(), verified_reward(reasoning, SETTINGS)
    (prompt,) = task.prompts("rl", 1)
    texts = [task.solve(prompt), prompt.answer, task.solve(prompt) + "1", "7-7=", "", task.solve(prompt)]
    finished = torch.tensor([True, True, True, True, True, False])
    got = reward([prompt], texts, type("Rollout", (), {"finished": finished}))
    theirs = torch.tensor(
        [task.reward(prompt, text, done) for text, done in zip(texts, finished.tolist(), strict=True)]
    )
    assert (got == 1).tolist() == (theirs == 1).tolist()
    torch.testing.assert_close(got, torch.tensor([1.0, 1.0, 0.1, 0.1, 0.1, 0.0]))


def test_a_reward_that_is_no_number_is_one_message():
    class Broken:
        verifiable_reward = staticmethod(lambda text, target, weight: None)

    (prompt,) = get_task().prompts("rl", 1)
    with pytest.raises(UserError, match="should return a float"):
        verified_reward(Broken, SETTINGS)([prompt], ["1"], type("Rollout", (), {"finished": torch.tensor([True])}))


def some_samples() -> Samples:
    """Two prompts, four samples: right once and three times."""
    return Samples(
        targets=["1", "2"],
        answers=[["1", "5", "5", None], ["2", "2", "3", "2"]],
        correct=torch.tensor([[1.0, 0, 0, 0], [1.0, 1, 0, 1]]),
        scores=torch.tensor([[0.0, 3, 2, 1], [3.0, 2, 4, 1]]),
        lengths=torch.tensor([[2, 5, 5, 9], [3, 3, 5, 8]]),
        steps=torch.tensor([[0, 1, 1, 2], [0, 0, 1, 2]]),
    )


def test_curves_of_two_prompts_worked_by_hand():
    curves = accuracy_curves(some_samples(), reasoning)
    assert list(curves["pass@n"]) == [1, 2, 4]
    assert all(curve[1] == pytest.approx(0.5) for curve in curves.values())
    assert curves["pass@n"][2] == pytest.approx((1 / 2 + 1) / 2) and curves["pass@n"][4] == 1
    assert curves["majority"] == pytest.approx({1: 0.5, 2: 2 / 4, 4: 1 / 2})  # blocks 1|5, 5|None, 2|2, 3|2
    assert curves["best-of-n"][4] == 0  # the best scores are both wrong


def test_budget_and_steps_count_what_they_say():
    curve = budget_curve(some_samples(), 9)
    assert [curve[n] for n in (1, 2, 3, 8, 9)] == pytest.approx([0, 1 / 8, 3 / 8, 4 / 8, 4 / 8])
    assert by_steps(some_samples()) == {0: (3 / 8, 1.0), 1: (3 / 8, 0.0), 2: (2 / 8, 0.5)}


@pytest.mark.parametrize("experiment", [None, "r1-zero"])
def test_the_launcher_measures_before_and_after(tmp_path, monkeypatch, experiment):
    monkeypatch.setattr(habits, "STEPS", 2)
    options = Options(impl="solution", steps=2, set=SMALL, runs_dir=tmp_path, experiment=experiment)
    summary = launch(find_launcher("07"), options)
    names = {path.name for path in Path(summary["path"]).iterdir()}
    assert {"scaling.png", "scaling.md", "scaling.json", "curves.png", "samples.md"} <= names
    assert {"pass@1_before", "pass@1", "pass@8", "majority 8", "best-of-n 8", "sample_length"} <= summary[
        "results"
    ].keys()
    measured = json.loads((Path(summary["path"]) / "scaling.json").read_text())
    assert measured["after"]["accuracy"]["pass@n"]["8"] == summary["results"]["pass@8"]


def test_dynamic_sampling_and_longer_problems_are_settings(tmp_path):
    small = (*SMALL, "dynamic_sampling=true", "scaling_terms=5")
    launch(find_launcher("07"), Options(impl="solution", steps=2, set=small, runs_dir=tmp_path))
    with pytest.raises(UserError, match="scaling_terms"):
        launch(find_launcher("07"), Options(impl="solution", set=("scaling_terms=1",), runs_dir=tmp_path))


def test_an_unwritten_verifier_is_refused_by_name(tmp_path):
    with pytest.raises(UserError, match="extract_answer, answers_match, verifiable_reward"):
        launch(find_launcher("07"), Options(impl="student", runs_dir=tmp_path))
