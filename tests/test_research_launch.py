"""Week 11's launcher: teachers speak about the tokens that the student wrote; proxy and gold are measured as said."""

import json
import math
from pathlib import Path

import pytest
import torch

from reference_impl import research
from reference_impl.algorithms import ALGORITHMS
from reference_impl.errors import UserError
from reference_impl.launch import find_launcher, launch
from reference_impl.loops import habits
from reference_impl.loops.distill import by_own_answer, by_teacher
from reference_impl.loops.evaluate import evaluate, rollout, sampled_kl
from reference_impl.loops.overoptimization import fit, train_proxy
from reference_impl.models import load_model
from reference_impl.options import Options
from reference_impl.rewards import load_reward
from reference_impl.runs.run import Run, read_metrics
from reference_impl.sampling import score
from reference_impl.settings import ResearchSettings
from reference_impl.tasks import Prompt, get_task

SMALL = ("prompts_per_step=2", "group=4", "eval_prompts=16", "final_eval_prompts=16", "lr=1e-3")
PROXY = ("proxy_prompts=12", "proxy_samples=4", "proxy_steps=2", "bon_prompts=8", "bon_samples=8", "eval_every=2")
WEEK = [name for name, row in ALGORITHMS.items() if row.week == "11"]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setattr(habits, "STEPS", 2)


@pytest.fixture(scope="module")
def sampled():
    """(policy, tokenizer, prompts, texts, rollout) of the base model."""
    policy, tokenizer = load_model("base")
    prompts = get_task().prompts("rl", 6)
    generator = torch.Generator().manual_seed(0)
    result, texts = rollout(policy.eval(), tokenizer, prompts, 4, 28, 1.0, generator)
    return policy, tokenizer, prompts, texts, result


def train(runs_dir, algorithm="overoptimization", **changes) -> Path:
    options = {"impl": "reference", "algorithm": algorithm, "steps": 4, "set": (*SMALL, *PROXY), "runs_dir": runs_dir}
    return Path(launch(find_launcher("11"), Options(**options | changes))["path"])


def results(run: Path) -> dict:
    return json.loads((run / "summary.json").read_text())["results"]


def taken(lesson) -> torch.Tensor:
    """The teacher's log-prob of each completion token, 0 elsewhere (R, T - 1)."""
    logprobs = lesson.teacher_logits.log_softmax(-1).gather(-1, lesson.tokens[..., None])[..., 0]
    return logprobs * lesson.mask


# Teachers


def test_a_teacher_speaks_about_the_tokens_of_the_completion(sampled):
    policy, _, prompts, texts, result = sampled
    lesson = by_teacher(policy)(None, prompts, texts, result, None)
    expected = score(policy, result.input_ids, result.attention_mask)[:, 1:] * result.response_mask[:, 1:]
    torch.testing.assert_close(taken(lesson), expected)
    torch.testing.assert_close(taken(lesson).sum(1), result.logprobs.sum(1), atol=1e-4, rtol=1e-4)


def test_sdpo_reads_each_completion_behind_the_first_right_one_of_its_group(sampled):
    policy, tokenizer, prompts, texts, result = sampled
    rewards = torch.tensor([0.0, 0, 1, 1] + [1.0, 0, 0, 0] + [0.0] * 4 + [0.0, 1, 0, 1] + [0.0] * 4 + [0.0, 0, 0, 1])
    lesson = by_own_answer(tokenizer)(policy, prompts, texts, result, rewards)
    kept = [*range(0, 8), *range(12, 16), *range(20, 24)]
    assert torch.equal(lesson.input_ids, result.input_ids[kept])
    shown = {0: texts[2], 1: texts[4], 3: texts[13], 5: texts[23]}
    for place, row in enumerate(kept):
        prompt, end = prompts[row // 4].text, [tokenizer.eos_token_id] if result.finished[row] else []
        prefix = tokenizer.encode(f"{prompt}{shown[row // 4]};{prompt}")
        ids = torch.tensor([prefix + tokenizer.encode(texts[row]) + end])
        with torch.no_grad():
            alone = score(policy, ids, torch.ones_like(ids))[0, len(prefix) :]
        torch.testing.assert_close(taken(lesson)[place][lesson.mask[place].bool()], alone, atol=1e-4, rtol=1e-4)


def test_sdpo_learns_nothing_from_prompts_without_a_right_answer(sampled):
    policy, tokenizer, prompts, texts, result = sampled
    assert by_own_answer(tokenizer)(policy, prompts, texts, result, torch.zeros(24)) is None


def test_a_frozen_teacher_is_the_one_that_is_asked(sampled):
    policy, tokenizer, prompts, texts, result = sampled
    other = load_model("random")[0].eval()
    moving = by_own_answer(tokenizer)(other, prompts, texts, result, torch.ones(24))
    frozen = by_own_answer(tokenizer, frozen=other)(policy, prompts, texts, result, torch.ones(24))
    torch.testing.assert_close(moving.teacher_logits, frozen.teacher_logits)
    assert not frozen.teacher_logits.requires_grad


def test_learning_from_the_teachers_answers_is_cross_entropy_on_them(sampled):
    policy, _, prompts, texts, result = sampled
    lesson = by_teacher(policy)(None, prompts, texts, result, None)
    loss = ALGORITHMS["sequence-distillation"].build(None, ResearchSettings(week="11", algorithm="sdpo"))
    got = loss(lesson.teacher_logits, None, lesson.tokens, lesson.mask)
    assert got.item() == pytest.approx(-(result.logprobs.sum() / result.response_mask.sum()).item(), abs=1e-5)


def test_the_habit_of_using_what_is_shown_adds_no_arithmetic():
    import random

    task, rng = get_task(), random.Random(0)
    (prompt,) = task.prompts("sft", 1)
    texts = {habits.crowd(task, prompt, rng) for _ in range(60)}
    assert len(texts) > 2 and task.solve(prompt) in texts
    shown = habits.shown(Prompt("1+2=", "3"), "1+2=3")
    assert shown.text == "1+2=1+2=3;1+2="


# Proxy and gold


def test_the_kl_of_samples_is_that_of_their_log_probs(sampled):
    policy, *_, result = sampled
    assert sampled_kl(result, policy) == pytest.approx(0.0, abs=1e-4)
    other = load_model("random")[0].eval()
    with torch.no_grad():
        theirs = (score(other, result.input_ids, result.attention_mask) * result.response_mask).sum(1)
    assert sampled_kl(result, other) == pytest.approx((result.logprobs.sum(1) - theirs).mean().item(), rel=1e-4)


def test_a_learned_reward_and_the_gold_one_are_measured_on_the_same_samples(sampled):
    policy, tokenizer, prompts, *_ = sampled
    task = get_task()
    found = evaluate(policy, tokenizer, task, prompts, 28, policy, lambda p, texts, r: r.finished.float() * 2)
    assert found["eval_kl"] == pytest.approx(0.0, abs=1e-4)
    assert found["eval_reward"] == pytest.approx(2 * found["eval_finished"])
    assert not {"eval_kl", "eval_reward"} & evaluate(policy, tokenizer, task, prompts, 28).keys()


@pytest.mark.parametrize("kind", ["bon", "rl"])
def test_the_fit_finds_the_law_that_made_the_points(kind):
    def gold(d):
        return 0.5 + d * (0.6 - 0.3 * (d if kind == "bon" else math.log(d))) if d else 0.5

    points = [{"kl": d * d, "gold": gold(d)} for d in (0.0, 0.3, 0.8, 1.5, 2.2)]
    found = fit(points, kind, research)
    assert found == pytest.approx({"alpha": 0.6, "beta": 0.3, "r2": 1.0})
    assert math.isnan(fit(points[:2], kind, research)["alpha"])


def test_a_proxy_is_trained_on_right_above_wrong():
    from reference_impl.data.judged import all_pairs, sample_judged

    policy, tokenizer = load_model("base")
    task = get_task()
    data = sample_judged(policy, tokenizer, task, task.prompts("reward", 24), 8, 28, seed=0)
    settings = ResearchSettings(week="11", algorithm="overoptimization", reward="proxy", proxy_steps=25)
    scores, pairs = train_proxy(policy, data, settings).scores(data), all_pairs(data)
    assert (scores[pairs[:, 0]] > scores[pairs[:, 1]]).float().mean() > 0.75


# Runs


@pytest.mark.parametrize("algorithm", WEEK)
def test_every_algorithm_of_the_week_runs(algorithm, tmp_path):
    run = train(tmp_path, algorithm)
    assert {"sampled_accuracy", "greedy_accuracy_before"} <= results(run).keys()
    assert (run / "curves.png").is_file() and (run / "samples.md").is_file()
    assert load_model(run)[0] is not None


def test_over_optimization_measures_both_ways_and_keeps_its_proxy(tmp_path):
    run = train(tmp_path)
    saved = json.loads((run / "overoptimization.json").read_text())
    assert [point["n"] for point in saved["points"]["bon"]] == [1, 2, 4, 8]
    proxies = [point["proxy"] for point in saved["points"]["bon"]]
    assert proxies == sorted(proxies) and saved["points"]["bon"][0]["kl"] == 0
    assert len(saved["points"]["rl"]) == 3 and (run / "overoptimization.png").is_file()
    assert load_reward(run).objective.name == "bt"
    assert {"bon: alpha", "rl: beta", "rl: gold at its peak"} <= results(run).keys()
    again = train(tmp_path, reward=str(run))
    assert not (again / "rewards").exists()
    bon = json.loads((again / "overoptimization.json").read_text())["points"]["bon"]
    assert bon == saved["points"]["bon"]


def test_the_gold_reward_itself_cannot_be_over_optimized(tmp_path):
    with pytest.raises(UserError, match="gold reward"):
        train(tmp_path, reward="verifier")


@pytest.mark.parametrize("algorithm", ["on-policy-distillation", "sdpo"])
def test_micro_batches_change_no_number_of_a_distillation(algorithm, tmp_path):
    whole = read_metrics(train(tmp_path / "whole", algorithm))
    parts = read_metrics(train(tmp_path / "parts", algorithm, set=(*SMALL, *PROXY, "micro_batches=3")))
    for one, other in zip(whole, parts, strict=True):
        for name in one.keys() - {"seconds", "tokens_per_second"}:
            assert other[name] == pytest.approx(one[name], rel=1e-3, abs=1e-5), name


@pytest.mark.parametrize("algorithm", ["overoptimization", "on-policy-distillation", "sdpo"])
def test_an_interrupted_run_resumes_to_the_same_numbers(algorithm, tmp_path, monkeypatch):
    whole = train(tmp_path / "whole", algorithm)
    log = Run.log

    def interrupted(self, at, **metrics):
        if at == 3:
            raise KeyboardInterrupt
        log(self, at, **metrics)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "log", interrupted)
        with pytest.raises(SystemExit):
            train(tmp_path / "parts", algorithm)
    (run,) = (tmp_path / "parts").iterdir()
    torch.manual_seed(987)
    launch(find_launcher("11"), Options(resume=str(run)))

    def numbers(path):
        rows = read_metrics(path)
        return [{k: v for k, v in row.items() if k not in ("seconds", "tokens_per_second")} for row in rows]

    assert numbers(run) == numbers(whole)


def test_the_launcher_refuses_by_name_what_is_not_written(tmp_path):
    for algorithm, name in (
        ("overoptimization", "overoptimization_fit"),
        ("on-policy-distillation", "on_policy_distillation_loss"),
    ):
        with pytest.raises(UserError, match=f"{name} is not written yet"):
            train(tmp_path, algorithm, impl="student")
    assert not any(tmp_path.iterdir())


def test_proxies_are_compared_in_one_figure(tmp_path):
    run = train(tmp_path, experiment="labels", impl="solution", steps=2)
    assert {"overoptimization.png", "curves.png", "arms.md"} <= {path.name for path in run.iterdir()}
    assert {"bon: alpha 12 prompts", "rl: gold at its peak 48 prompts"} <= results(run).keys()


def test_teachers_are_compared_over_seeds_with_the_weeks_bootstrap(tmp_path):
    small = (*SMALL, "seeds=2", "eval_every=1")
    run = train(tmp_path, experiment="teachers", impl="solution", steps=2, set=small)
    found = results(run)
    assert len(list((run / "arms").iterdir())) == 8
    assert {"teachers.png", "teachers.md", "teachers.json", "student", "teacher"} <= {p.name for p in run.iterdir()}
    arm = "sdpo: sampled_accuracy"
    assert found[f"{arm} low"] <= found[f"{arm} minus rloo"] <= found[f"{arm} high"]
    difference = found[arm] - found["rloo: sampled_accuracy"]
    assert found[f"{arm} minus rloo"] == pytest.approx(difference, abs=1e-6)
