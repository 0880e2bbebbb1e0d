"""From the committed base checkpoint, the launchers' algorithms learn what they are there to learn, in short runs."""

import json
from pathlib import Path

import pytest

from reference_impl.config import resolve
from reference_impl.data.order import batch_indices
from reference_impl.data.pairs import Pair, collate_pairs, read_pairs, sample_pairs, split_pairs, write_pairs
from reference_impl.errors import UserError
from reference_impl.launch import find_launcher, launch
from reference_impl.loops.evaluate import held_out_prompts
from reference_impl.models import load_model
from reference_impl.models.pretrain_base import Recipe
from reference_impl.options import Options
from reference_impl.settings import SFTSettings
from reference_impl.tasks import get_task, split_of


@pytest.fixture(autouse=True)
def no_wandb(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")


def results(tmp_path, week: str, **options) -> dict[str, float]:
    options.setdefault("impl", "reference")
    settings = ("final_eval_prompts=512", "eval_prompts=32", *options.pop("set", ()))
    return launch(find_launcher(week), Options(runs_dir=tmp_path, set=settings, **options))["results"]


def gain(result: dict[str, float]) -> float:
    return result["sampled_accuracy"] - result["sampled_accuracy_before"]


def test_rloo_raises_held_out_accuracy_by_a_quarter(tmp_path):
    assert gain(results(tmp_path, "05", algorithm="rloo", steps=50)) >= 0.25


def test_three_points_for_showing_up_ruin_reinforce_and_a_baseline_saves_it(tmp_path):
    without = results(tmp_path, "05", algorithm="reinforce", steps=40, set=("reward_shift=3",))
    saved = results(tmp_path, "05", algorithm="reinforce-baseline", steps=40, set=("reward_shift=3",))
    assert without["greedy_accuracy"] < without["greedy_accuracy_before"] - 0.1
    assert gain(saved) > 0.2 and gain(saved) > gain(without) + 0.1


def test_dpo_raises_held_out_accuracy_and_the_margin(tmp_path):
    result = results(tmp_path, "08", algorithm="dpo", steps=30, set=("pair_prompts=700", "held_out_pairs=128"))
    assert gain(result) >= 0.12
    assert result["eval_margin"] > 0.5 and result["eval_margin_before"] == pytest.approx(0, abs=1e-4)
    assert result["rejected_logps"] < result["rejected_logps_before"]


def test_tables_climb_to_the_closed_form_beside_a_reward_model_that_beats_guessing(tmp_path):
    result = results(tmp_path, "01", steps=150, set=("kl_weights=[0.2, 1.0]", "eval_every=150"))
    assert 0 <= result["gap beta=1"] < 1e-3 and 0 <= result["gap beta=0.2"] < 0.02
    assert result["reward model: held-out accuracy"] > result["guessing the commoner label"] + 0.1


def test_the_signal_experiment_finds_the_shift_harmless_only_behind_a_baseline(tmp_path):
    result = results(tmp_path, "05", experiment="snr", set=("signal_batches=12",))
    assert result["snr rloo r+3"] == pytest.approx(result["snr rloo r+0"], rel=1e-3)
    assert result["snr reinforce r+3"] < 0.3 * result["snr reinforce r+0"]
    (page,) = tmp_path.glob("*/signal.md")
    assert "| rloo |" in page.read_text()


def test_week_02_trains_the_recipe_of_the_base_checkpoint():
    settings, recipe = resolve(SFTSettings, "02", algorithm=None, scale="nano", overrides={}), Recipe()
    for name in ("steps", "batch_size", "demonstrations", "lr", "betas", "weight_decay", "warmup_steps", "min_ratio"):
        assert getattr(settings, name) == getattr(recipe, name), name
    assert (settings.max_grad_norm, settings.max_length) == (recipe.max_grad_norm, recipe.max_length)


def test_held_out_prompts_are_the_same_each_time_and_of_the_eval_split():
    task = get_task()
    prompts = held_out_prompts(task, 64)
    assert prompts == held_out_prompts(task, 64) and len({prompt.text for prompt in prompts}) == 64
    assert {split_of(prompt.text) for prompt in prompts} == {"eval"}


def test_an_epoch_shows_every_example_once_in_an_order_of_its_own():
    first = [i for step in range(5) for i in batch_indices(step, 10, 2, seed=3)]
    second = [i for step in range(5, 10) for i in batch_indices(step, 10, 2, seed=3)]
    assert sorted(first) == sorted(second) == list(range(10)) and first != second


def test_pairs_are_right_and_wrong_completions_of_the_same_prompt(tmp_path):
    model, tokenizer = load_model("base")
    task = get_task()
    prompts = task.prompts("pref", 12)
    pairs = sample_pairs(model, tokenizer, task, prompts, samples=6, per_prompt=2, max_new_tokens=28, seed=0)
    by_ids = {tuple(tokenizer.encode(prompt.text)): prompt for prompt in prompts}
    assert pairs
    for pair in pairs:
        prompt = by_ids[tuple(pair.prompt)]
        ended = tokenizer.eos_token_id in pair.rejected
        assert pair.chosen[-1] == tokenizer.eos_token_id
        assert task.reward(prompt, tokenizer.decode(pair.chosen), True) == 1.0
        assert task.reward(prompt, tokenizer.decode(pair.rejected), ended) == 0.0
    write_pairs(tmp_path / "pairs.jsonl", pairs)
    assert read_pairs(tmp_path / "pairs.jsonl") == pairs


def test_held_out_pairs_share_no_prompt_with_training_pairs():
    pairs = [Pair([n // 2], [5, 2], [6, 2]) for n in range(11)]
    training, held_out = split_pairs(pairs, 4)
    assert {pair.prompt[0] for pair in training}.isdisjoint(pair.prompt[0] for pair in held_out)
    assert len(training) + len(held_out) == 11 and len(held_out) >= 4
    with pytest.raises(UserError, match="Only 11 pairs"):
        split_pairs(pairs, 11)


def test_collated_pairs_mark_the_response_tokens_of_each_side():
    batch = collate_pairs([Pair([7, 8], [9, 2], [5, 6, 2]), Pair([7], [4, 4, 4, 2], [2])], pad_id=0)
    assert batch["chosen_input_ids"].tolist() == [[7, 8, 9, 2, 0], [7, 4, 4, 4, 2]]
    assert batch["chosen_response_mask"].tolist() == [[0, 0, 1, 1, 0], [0, 1, 1, 1, 1]]
    assert batch["rejected_attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]
    assert batch["rejected_response_mask"].tolist() == [[0, 0, 1, 1, 1], [0, 1, 0, 0, 0]]


def test_reference_curves_name_settings_command_and_spread(tmp_path, monkeypatch):
    from reference_impl.runs import plots, reference

    (tmp_path / "05").mkdir()
    monkeypatch.setattr(reference, "week_folder", lambda week: tmp_path / week)
    monkeypatch.setattr(plots, "week_folder", lambda week: tmp_path / week)
    small = ("policy=random", "steps=4", "final_eval_prompts=4", "prompts_per_step=1", "group=2", "max_new_tokens=4")
    made = reference.produce(
        reference.Reference("05", seeds="0,1", algorithms=("rloo",), set=small, runs_dir=tmp_path / "runs")
    )
    about = json.loads(made.with_suffix(".json").read_text())
    assert about["seeds"] == [0, 1] and about["settings"]["rloo"]["steps"] == 4 and about["versions"]["torch"]
    assert {"mean", "std", "min", "max"} == about["results"]["rloo"]["sampled_accuracy"].keys()
    curves = plots.read_curves(made, "rloo")
    assert [[step for step, _ in curve] for curve in curves["reward_mean"]] == [[1, 2, 3, 4]] * 2
    run = next(Path(tmp_path / "runs").iterdir())
    settings = plots.read_yaml(run / "config.yaml")
    assert plots.reference_band(settings)["differs"] == []
    assert plots.reference_band(settings | {"lr": 1.0})["differs"] == ["lr"]
    assert plots.reference_band(settings | {"algorithm": "reinforce"}) is None
    for text in ("a-b", "", "3-1"):
        with pytest.raises(UserError, match="--seeds"):
            reference.parse_seeds(text)
