"""Week 10's launcher: what is selected is what is trained on, samples are equal, KL and cycles are measured right."""

import json
from pathlib import Path

import pytest
import torch

from reference_impl import rejection_sampling
from reference_impl.algorithms import ALGORITHMS
from reference_impl.config import resolve
from reference_impl.data.annotators import make_pool
from reference_impl.errors import UserError
from reference_impl.launch import find_launcher, launch
from reference_impl.loops.annotators import measure
from reference_impl.loops.bon_kl import frontier, measured_kl
from reference_impl.loops.rejection import Sample, checked_selection, example, rl_settings, standard_errors
from reference_impl.options import Options
from reference_impl.runs.run import read_metrics
from reference_impl.settings import RejectionSettings
from tests.test_runs import same_after_interruption

SMALL = (
    "sample_prompts=12",
    "samples_per_prompt=3",
    "batch_size=4",
    "max_new_tokens=12",
    "eval_prompts=4",
    "final_eval_prompts=8",
    "checkpoint_every=2",
)
SELECTIONS = ("top-per-prompt", "random-per-prompt", "top-k-overall", "random-k-overall")


@pytest.fixture(autouse=True)
def no_wandb(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")


def settle(algorithm: str = "top-per-prompt", **overrides):
    return resolve(RejectionSettings, "10", algorithm=algorithm, scale=None, overrides=overrides)


def rewards_table():
    return torch.rand(5, 7, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def select(name: str, rewards: torch.Tensor, **overrides) -> torch.Tensor:
    return ALGORITHMS[name].build(rejection_sampling, settle(name, **overrides))(rewards)


@pytest.mark.parametrize("name", SELECTIONS)
def test_selections_are_equally_large_and_hold_no_sample_twice(name):
    rows = select(name, rewards_table(), keep=3)
    assert rows.shape == (15, 2) and len({tuple(row) for row in rows.tolist()}) == 15
    checked_selection(rows, rewards_table(), settle(name, keep=3))
    if name.endswith("per-prompt"):
        assert rows[:, 0].bincount().tolist() == [3] * 5


def test_the_best_have_the_highest_rewards_and_the_controls_do_not_look():
    rewards = rewards_table()
    best = rewards.sort(1, descending=True).values[:, :2]
    p, i = select("top-per-prompt", rewards, keep=2).T
    torch.testing.assert_close(rewards[p, i], best.flatten())
    p, i = select("top-k-overall", rewards, keep=2).T
    torch.testing.assert_close(rewards[p, i], rewards.flatten().sort(descending=True).values[:10])
    for name in ("random-per-prompt", "random-k-overall"):
        assert torch.equal(select(name, rewards, keep=2), select(name, -rewards, keep=2))
        assert not torch.equal(select(name, rewards, keep=2), select(name, rewards, keep=2, seed=1))


def test_a_selection_of_the_wrong_form_is_one_message():
    rewards, settings = rewards_table(), settle()
    for wrong in (torch.zeros(5, 3).long(), torch.zeros(5, 2), None, torch.zeros(4, 2).long()):
        with pytest.raises(UserError, match="should select 5"):
            checked_selection(wrong, rewards, settings)
    with pytest.raises(UserError, match="outside the table"):
        checked_selection(torch.full((5, 2), 7), rewards, settings)


@pytest.mark.parametrize("name", SELECTIONS)
def test_every_selection_trains_on_what_it_chose_and_says_what_that_was(tmp_path, name):
    options = Options(algorithm=name, impl="reference", steps=4, set=SMALL, runs_dir=tmp_path)
    summary = launch(find_launcher("10"), options)
    run, results = Path(summary["path"]), summary["results"]
    chosen = [json.loads(line) for line in (run / "chosen.jsonl").read_text().splitlines()]
    assert len(chosen) == results["chosen"] == 12
    assert results["chosen_reward"] == sum(sample["reward"] for sample in chosen) / 12
    assert 0 < results["chosen_prompts"] <= 12 and 0 <= results["sampled_accuracy_se"] <= 0.18
    rows = read_metrics(run)
    assert abs(rows[0]["kl"]) < 1e-5 and rows[-1]["kl"] != 0 and rows[-1]["entropy"] > 0
    assert ("reference_impl" in summary["functions"]) and (name.startswith("top") or "-reference-" in run.name)


def test_an_interrupted_run_resumes_to_the_same_numbers(tmp_path, monkeypatch):
    options = Options(impl="reference", steps=4, set=SMALL)
    same_after_interruption("10", options, 4, tmp_path, monkeypatch)


def test_rl_draws_exactly_as_many_samples():
    equal = rl_settings(settle("rloo"))
    assert equal.steps * equal.prompts_per_step * equal.group == 1600 * 8
    assert equal.weight_decay == 0 and equal.algorithm == "rloo" and equal.aggregate == "sequence_sum"
    with pytest.raises(UserError, match="divides sample_prompts"):
        rl_settings(settle("rloo", steps=199))


def test_a_completion_that_was_cut_off_is_not_taught_to_end():
    ended = example(Sample(0, [5, 6], [7, 2], 1.0), eos_id=2, max_length=64)
    assert ended == {"input_ids": [5, 6, 7, 2], "labels": [-100, -100, 7, 2]}
    cut = example(Sample(0, [5, 6], [7, 8], 0.0), eos_id=2, max_length=64)
    assert cut == {"input_ids": [5, 6, 7, 8], "labels": [-100, -100, 7, 8]}


def test_standard_errors_are_those_of_a_coin():
    errors = standard_errors({"sampled_accuracy": 0.5, "greedy_accuracy_before": 1.0, "kl": 3.0}, 100)
    assert errors == {"sampled_accuracy_se": 0.05, "greedy_accuracy_before_se": 0.0}


@pytest.mark.parametrize("n", [1, 2, 5, 16])
def test_measured_kl_is_the_closed_form_for_two_levels_and_the_formula_without_ties(n):
    p = 3 / 8
    q = 1 - (1 - p) ** n
    exact = q * torch.log(torch.tensor(q / p)) + ((1 - q) * torch.log(torch.tensor((1 - q) / (1 - p))) if q < 1 else 0)
    right = torch.tensor([[1.0, 0, 0, 1, 0, 0, 1, 0]] * 3)
    assert measured_kl(right, n) == pytest.approx(float(exact), abs=1e-6)
    many = torch.rand(2, 20_000, generator=torch.Generator().manual_seed(0))
    assert measured_kl(many, n) == pytest.approx(rejection_sampling.best_of_n_kl(n), abs=2e-3)
    tied = many.mul(20).floor()
    assert measured_kl(tied, n) <= rejection_sampling.best_of_n_kl(n) + 1e-9


def test_measured_kl_is_that_of_the_policy_which_best_of_n_plays():
    """Three completions of known probability, best of 3 by enumerating all 27 draws; the first of equals is taken."""
    probs, rewards = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.0, 1.0, 1.0])
    picked = torch.zeros(3)
    for draw in torch.cartesian_prod(*[torch.arange(3)] * 3):
        picked[draw[rewards[draw].argmax()]] += probs[draw].prod()
    exact = (picked * (picked / probs).log()).sum().item()
    table = torch.repeat_interleave(rewards, torch.tensor([5, 3, 2]))[None]
    assert measured_kl(table, 3) == pytest.approx(exact, abs=1e-6)


def test_best_of_n_never_beats_the_frontier():
    right = (torch.rand(40, 64, generator=torch.Generator().manual_seed(1)) < 0.4).float()
    points = sorted(frontier(right))
    for n in (2, 4, 8):
        kl = measured_kl(right, n)
        accuracy = sum(float(rejection_sampling.expected_max_reward(row, n)) for row in right) / len(right)
        at_most = next(reward for cost, reward in points if cost >= kl)
        assert accuracy <= at_most + 0.01


def test_every_annotator_votes_once_on_every_pair_and_equal_camps_make_cycles():
    generator = torch.Generator().manual_seed(0)
    pool = make_pool(2 / 3, 30, 9, generator)
    assert pool.camps.bincount().tolist() == [10, 10, 10]
    votes = pool.votes + pool.votes.transpose(1, 2)
    assert torch.equal(votes, (1 - torch.eye(9)).expand(30, 9, 9))
    mixed = [measure(make_pool(2 / 3, 60, 12, generator), rejection_sampling) for _ in range(5)]
    alone = [measure(make_pool(0.0, 60, 12, generator), rejection_sampling) for _ in range(5)]
    assert sum(m["cycles"] for m in mixed) > 20 * max(1, sum(m["cycles"] for m in alone))
    assert max(m["spread"] for m in mixed) < min(m["spread"] for m in alone)
    assert all(m["kappa_between"] is None for m in alone)


def test_strengths_fit_every_pool_that_the_experiment_draws():
    generator = torch.Generator().manual_seed(5)
    for _ in range(60):
        rejection_sampling.fit_bradley_terry(make_pool(0.0, 60, 12, generator).wins)


@pytest.mark.parametrize("name", ["pool", "best-of-n"])
def test_experiments_write_their_table_and_figure(tmp_path, monkeypatch, name):
    from reference_impl.loops import bon_kl

    monkeypatch.setattr(bon_kl, "REWARD_STEPS", 2)
    monkeypatch.setattr(bon_kl, "REWARD_PROMPTS", 16)
    small = ("pools=2", "items=6", "bon_prompts=3", "bon_samples=64", "max_new_tokens=12")
    options = Options(impl="reference", set=small, runs_dir=tmp_path, experiment=name)
    summary = launch(find_launcher("10"), options)
    files = {path.name for path in Path(summary["path"]).iterdir()}
    stem = name.replace("-", "_")
    assert {f"{stem}.md", f"{stem}.png"} <= files and len(summary["results"]) > 10


def test_the_comparison_trains_all_five_on_equal_samples_and_draws_them(tmp_path):
    small = (
        *SMALL,
        "sample_prompts=200",
        "samples_per_prompt=2",
        "pass_samples=2",
        "eval_every=500",
        "checkpoint_every=500",
    )
    options = Options(impl="reference", steps=2, set=small, runs_dir=tmp_path, experiment="compare")
    summary = launch(find_launcher("10"), options)
    run, results = Path(summary["path"]), summary["results"]
    assert (run / "compare.png").stat().st_size > 10_000 and "rloo" in (run / "compare.md").read_text()
    for name in (*SELECTIONS, "rloo"):
        assert {f"sampled_accuracy {name}", f"sampled_accuracy_se {name}", f"pass@2 {name}"} <= results.keys()
    (rl,) = (run / "arms").glob("*-rloo-*")
    assert json.loads((rl / "summary.json").read_text())["functions"] == "reference_impl/reinforce.py"
    assert read_metrics(rl)[-1]["step"] == 200  # of one prompt with two samples each, as many as the table has


def test_a_saved_reward_model_can_do_the_selecting(tmp_path):
    from reference_impl.implementations import load_functions
    from reference_impl.models import HeadedLM, load_model
    from reference_impl.rewards import save_reward

    policy, tokenizer = load_model("base")
    objective = ALGORITHMS["bradley-terry"].build(load_functions("03", "reference"), None)["bt"]
    save_reward(tmp_path / "judge", HeadedLM.from_lm(policy, 1), tokenizer, objective)
    small = (*SMALL, f"reward={tmp_path / 'judge'}")
    summary = launch(find_launcher("10"), Options(impl="reference", steps=2, set=small, runs_dir=tmp_path / "runs"))
    lines = (Path(summary["path"]) / "chosen.jsonl").read_text().splitlines()
    assert len({json.loads(line)["reward"] for line in lines}) > 2  # scores, not verdicts
