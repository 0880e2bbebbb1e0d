"""Traps of well-known training code, each with what it does wrong written out beside what ours does.

Proven beside the functions they concern: KL with its policies swapped (test_objective), "Dr. GRPO" that keeps the
length bias and groups of equal rewards that are not zero (test_ppo_grpo), bfloat16 sums of log-probs (test_dpo,
test_reinforce, test_reference_free), KTO's reference point from matched pairs (test_reference_free). Here are the rest.
"""

import ast
import inspect

import pytest
import torch

from reference_impl import algorithms
from reference_impl.algorithms import ALGORITHMS
from reference_impl.config import resolve
from reference_impl.data.prm800k import Trace, traces
from reference_impl.errors import UserError
from reference_impl.models import load_model, save_model
from reference_impl.sampling import generate, score
from reference_impl.settings import PPOSettings, PreferenceSettings, ReasoningSettings, RLSettings


def settle(schema, week, algorithm=None, experiment=None, **overrides):
    return resolve(schema, week, algorithm=algorithm, scale=None, overrides=overrides, experiment=experiment)


def moved(weights: torch.Tensor, steps: int = 100, lr: float = 1e-6) -> float:
    """The share of weights that a hundred Adam-sized steps in one direction change."""
    start = weights.clone()
    for _ in range(steps):
        weights = weights - torch.tensor(lr, dtype=weights.dtype)
    return (weights != start).float().mean().item()


def test_weights_are_kept_in_float32_whatever_was_saved(tmp_path):
    """In bfloat16 a step of 1e-6 is less than half the spacing between most weights, and is rounded away."""
    model, tokenizer = load_model("base")
    save_model(model, tokenizer, tmp_path / "half", dtype=torch.bfloat16)
    loaded = load_model(tmp_path / "half")[0]
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    weights = torch.cat([p.detach().flatten() for p in loaded.parameters()])
    assert moved(weights) > 0.99
    assert moved(weights.bfloat16()) < 0.1


@pytest.mark.parametrize("temperature", [0.6, 1.5])
def test_log_probs_are_those_of_the_temperature_that_was_sampled_at(temperature):
    model, tokenizer = load_model("base")
    prompt = tokenizer.encode("3+4-5=")
    generator = torch.Generator().manual_seed(0)
    rollout = generate(model, [prompt], 32, 12, tokenizer.eos_token_id, tokenizer.pad_token_id, temperature, generator)
    with torch.no_grad():
        ours = score(model, rollout.input_ids, rollout.attention_mask, temperature)
        trap = score(model, rollout.input_ids, rollout.attention_mask)
    mask = rollout.response_mask.bool()
    ratio = (ours - rollout.logprobs)[mask].exp()
    assert (ratio - 1).abs().max() < 1e-4
    assert ((trap - rollout.logprobs)[mask].exp() - 1).abs().max() > 0.1  # a ratio that is not 1 before any update


def test_what_follows_from_another_setting_follows_its_override():
    assert settle(PreferenceSettings, "08", policy="runs/mine").reference == "runs/mine"
    assert settle(PreferenceSettings, "08", beta=0.1).beta == 0.1  # not taken for "left at the default"
    assert settle(RLSettings, "05", reward="runs/03-mine").kl_penalty == 0.5
    assert settle(RLSettings, "05", reward="runs/03-mine", kl_penalty=0.0).kl_penalty == 0.0


@pytest.mark.parametrize(
    "schema, week, algorithm, setting",
    [
        (PPOSettings, "06", "maxrl", {"beta": 0.1}),
        (PPOSettings, "06", "cispo", {"beta": 0.1}),
        (PPOSettings, "06", "grpo", {"lam": 0.9}),
        (RLSettings, "05", "reinforce", {"aggregate": "token_mean"}),
        (PreferenceSettings, "08", "ipo", {"label_smoothing": 0.1}),
        (ReasoningSettings, "07", "rlvr", {"reward": "runs/03-mine"}),
    ],
)
def test_a_setting_that_would_change_nothing_is_refused(schema, week, algorithm, setting):
    with pytest.raises(UserError, match=next(iter(setting))):
        settle(schema, week, algorithm, **setting)


def test_a_setting_that_some_arm_of_an_experiment_reads_is_taken():
    assert settle(PPOSettings, "06", "gspo", experiment="length-bias", beta=0.1).beta == 0.1


def settings_read(function) -> set[str]:
    """The settings that a builder reads, and those that the builders it hands its settings to read."""
    found = set()
    for node in ast.walk(ast.parse(inspect.getsource(function))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "settings":
            found.add(node.attr)
        if isinstance(node, ast.Call) and any(isinstance(a, ast.Name) and a.id == "settings" for a in node.args):
            if isinstance(node.func, ast.Name) and hasattr(algorithms, node.func.id):
                found |= settings_read(getattr(algorithms, node.func.id))
    return found


CRITIC = {"gamma", "lam", "value_lr", "value_clip"}  # read by loops/critic.py


@pytest.mark.parametrize("name", [name for name, row in ALGORITHMS.items() if row.reads])
def test_the_settings_that_a_row_says_it_reads_are_those_that_it_reads(name):
    critic = CRITIC if name == "ppo" else set()
    assert set(ALGORITHMS[name].reads) == (settings_read(ALGORITHMS[name].build) | critic) - {"max_new_tokens"}


def test_no_row_reads_a_setting_of_another_loss_without_saying_so():
    declared = {key for row in ALGORITHMS.values() for key in row.reads}
    for name, row in ALGORITHMS.items():
        if row.build is not None:
            assert settings_read(row.build) & declared <= set(row.reads), name


@pytest.mark.parametrize("week, algorithm", [("05", "reinforce"), ("05", "rloo"), ("07", "rlvr")])
@pytest.mark.parametrize("steps", [{"epochs": 2}, {"minibatches": 4}])
def test_several_steps_on_a_rollout_need_an_importance_ratio(week, algorithm, steps):
    schema = RLSettings if week == "05" else ReasoningSettings
    with pytest.raises(UserError, match="no importance ratio"):
        settle(schema, week, algorithm, **steps)
    settings = settle(PPOSettings, "06", "grpo", **steps)
    assert settings.epochs * settings.minibatches > 1


def candidate(text, rating):
    return {"text": text, "rating": rating}


LABELLED = {
    "question": {"problem": "p"},
    "label": {
        "steps": [
            {"completions": [candidate("a", 1)], "chosen_completion": 0, "human_completion": None},
            {"completions": [candidate("c", -1), candidate("b", 1)], "chosen_completion": 1, "human_completion": None},
            {
                "completions": [candidate("x", None), candidate("y", 0)],
                "chosen_completion": None,
                "human_completion": candidate("h", None),
            },
            {"completions": [candidate("d", -1)], "chosen_completion": 0, "human_completion": None},
        ],
        "finish_reason": "found_error",
    },
}


def test_alternative_steps_are_never_laid_end_to_end():
    """A trace is the chosen prefix and one candidate; each rating is counted once."""
    assert traces(LABELLED) == [
        Trace("p", ("a", "b", "h", "d"), (1, 1, None, -1)),
        Trace("p", ("a", "c"), (None, -1)),
        Trace("p", ("a", "b", "y"), (None, None, 0)),
    ]
    given = [c["rating"] for step in LABELLED["label"]["steps"] for c in step["completions"]]
    counted = [rating for trace in traces(LABELLED) for rating in trace.ratings]
    assert sorted(r for r in counted if r is not None) == sorted(r for r in given if r is not None)


def test_a_solution_that_nobody_carried_on_with_keeps_its_alternatives():
    row = {"question": {"problem": "p"}, "label": {"steps": [dict(LABELLED["label"]["steps"][1])]}}
    row["label"]["steps"][0]["chosen_completion"] = None
    assert traces(row) == [Trace("p", ("c",), (-1,)), Trace("p", ("b",), (1,))]


@pytest.mark.parametrize(
    "row", [{}, {"question": {"problem": "p"}}, {"question": {"problem": "p"}, "label": {"steps": [{}]}}]
)
def test_a_row_of_another_data_set_is_named(row):
    with pytest.raises(UserError, match="PRM800K"):
        traces(row)
