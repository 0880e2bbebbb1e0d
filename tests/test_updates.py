"""Week 06's loop: minibatches, the critic, dynamic sampling, the metrics of an update; all eight algorithms run."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from reference_impl import ppo_grpo
from reference_impl.algorithms import ALGORITHMS
from reference_impl.errors import UserError
from reference_impl.launch import find_launcher, launch
from reference_impl.loops import habits
from reference_impl.loops.batch import Batch, DynamicSampling, learning_rewards
from reference_impl.loops.critic import Critic, explained_variance, last_token
from reference_impl.loops.update import gradient_metrics, minibatches, update, without_gradient
from reference_impl.models import NanoConfig, NanoLM
from reference_impl.options import Options
from reference_impl.reasoning import informative_groups
from reference_impl.runs import plots
from reference_impl.runs.run import Run, read_metrics
from reference_impl.sampling import score

SMALL = ("prompts_per_step=2", "group=4", "max_new_tokens=18", "eval_prompts=4", "final_eval_prompts=8", "lr=1e-3")
MEASURED = {"seconds", "tokens_per_second"}
LEAGUE = [name for name, row in ALGORITHMS.items() if row.week == "06"]


@pytest.fixture(autouse=True)
def no_wandb(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")


def settings(**changes):
    defaults = {
        "group": 2,
        "epochs": 1,
        "minibatches": 1,
        "temperature": 1.0,
        "max_grad_norm": 1e9,
        "micro_batches": 1,
        "algorithm": "grpo",
    }
    return SimpleNamespace(**defaults | changes)


def a_batch(rewards: list[float], length: int = 6, seed: int = 0) -> Batch:
    """Rows of random tokens, the first two of them the prompt, under a policy that is not the one to be trained."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(rewards), length)
    ids = torch.randint(3, 60, shape, generator=generator)
    mask = torch.ones(shape, dtype=torch.long)
    mask[:, :2] = 0
    logprobs = -torch.rand(shape, generator=generator)
    return Batch(ids, torch.ones_like(mask), mask, logprobs, logprobs, torch.tensor(rewards))


def on_policy_batch(model) -> Batch:
    batch = a_batch([1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0])
    with torch.no_grad():
        batch.old_logprobs = score(model, batch.input_ids, batch.attention_mask)
    batch.advantages = ppo_grpo.grpo_advantages(batch.rewards.view(-1, 2)).flatten()
    return batch


def a_model(seed: int = 0) -> NanoLM:
    torch.manual_seed(seed)
    return NanoLM(NanoConfig())


def grpo_loss(logprobs, part):
    return ppo_grpo.grpo_loss(logprobs, part.old_logprobs, None, part.advantages, part.mask)


def test_one_update_is_one_step_on_the_policy_gradient():
    """With ratio 1 everywhere the clipped surrogate has the gradient of -A log pi, the mean of each row's mean."""
    model, other = a_model(), a_model()
    batch = on_policy_batch(model)
    update(model, torch.optim.SGD(model.parameters(), 0.1), batch, grpo_loss, settings(), torch.Generator())
    logprobs = score(other, batch.input_ids, batch.attention_mask)
    loss = -(batch.advantages[:, None] * logprobs * batch.mask).sum() / (8 * 4)
    loss.backward()
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs - 0.1 * theirs.grad, atol=1e-6, rtol=1e-4)


def test_several_updates_move_the_ratio_and_every_step_of_them_is_counted():
    model = a_model()
    steps = []
    optimizer = torch.optim.SGD(model.parameters(), 0.3)
    step, optimizer.step = optimizer.step, lambda: steps.append(1) or step()
    many = settings(epochs=3, minibatches=2)
    metrics = update(model, optimizer, on_policy_batch(model), grpo_loss, many, torch.Generator())
    assert len(steps) == 6
    assert metrics["ratio_low"] < 0.99 and metrics["ratio_high"] > 1.01
    assert metrics["gradient_variance"] > 0 and 0 < metrics["gradient_noise"] < 2


def test_minibatches_are_whole_groups_and_use_every_row_once():
    parts = minibatches(12, settings(group=3, minibatches=2), torch.Generator().manual_seed(1))
    assert sorted(torch.cat(parts).tolist()) == list(range(12))
    assert all(part.view(-1, 3).diff().eq(1).all() and part[0] % 3 == 0 for part in parts)
    assert torch.cat(parts).tolist() != list(range(12))


def test_the_clip_fraction_counts_the_two_flat_corners_and_nothing_else():
    ratios = torch.tensor([[1.5, 0.5, 1.1, 0.9], [1.5, 0.5, 1.1, 0.9], [1.5, 0.5, 1.1, 0.9]])
    logprobs = ratios.log().requires_grad_()
    part = SimpleNamespace(
        old_logprobs=torch.zeros(3, 4), advantages=torch.tensor([1.0, -1.0, 0.0]), mask=torch.ones(3, 4)
    )
    grpo_loss(logprobs, part).backward()
    assert without_gradient(logprobs, part) == 2 / 8  # the row without an advantage does not count


def test_gradient_variance_is_that_of_the_minibatch_gradients():
    draws = torch.tensor([3.0, 4.0]) + 2 * torch.randn(4000, 2, generator=torch.Generator().manual_seed(0))
    metrics = gradient_metrics(draws)
    assert abs(metrics["gradient_variance"] - 8) < 0.5  # trace of the covariance, 4 + 4
    assert abs(metrics["gradient_noise"] - 8 / (25 + 8)) < 0.02


def test_dynamic_sampling_fills_a_batch_with_groups_that_teach():
    collector = DynamicSampling(informative_groups, settings(group=2, prompts_per_step=2))
    assert collector.add(a_batch([1.0, 1.0, 0.0, 1.0], length=5, seed=1)) is None
    kept = collector.waiting.input_ids
    again = DynamicSampling(informative_groups, settings(group=2, prompts_per_step=2))
    again.load_state_dict(collector.state_dict())
    for one in (collector, again):
        ready = one.add(a_batch([1.0, 0.0, 0.0, 1.0], length=7, seed=2))
        assert ready.rewards.tolist() == [0.0, 1.0, 1.0, 0.0]  # the second group of two is left over and dropped
        assert ready.input_ids.shape == (4, 7) and ready.input_ids[:2, :5].equal(kept)
        assert ready.mask[:2, 5:].sum() == 0 and one.waiting is None and one.state_dict() == {}


def test_a_wrong_informative_groups_is_one_message():
    collector = DynamicSampling(lambda rewards: rewards.std(1), settings(group=2, prompts_per_step=1))
    with pytest.raises(UserError, match="bool tensor of shape"):
        collector.add(a_batch([1.0, 0.0]))


def test_running_into_the_limit_costs_one_point():
    batch = a_batch([1.0, 1.0], length=10)
    batch.mask[1, 6:] = 0  # 8 and 4 tokens of at most 8
    shaped = learning_rewards(batch, settings(reward_shift=0.0, kl_penalty=0.0, overlong_cache=4, max_new_tokens=8))
    assert shaped.tolist() == [0.0, 1.0]


def critic_settings():
    return settings(value_lr=1e-2, betas=(0.9, 0.95), gamma=1.0, lam=0.95, value_clip=0.2)


def test_the_critic_speaks_before_the_token_and_learns_the_reward():
    critic = Critic(a_model(), ppo_grpo, critic_settings())
    batch = a_batch([1.0, 0.0, 1.0, 0.0])
    first = critic.judge(batch)
    changed = Batch(**batch.tensors() | {"input_ids": batch.input_ids.clone()})
    changed.input_ids[:, 4] = 5
    with torch.no_grad():
        torch.testing.assert_close(critic.values(changed)[:, :5], batch.values[:, :5])
        assert not critic.values(changed)[:, 5].allclose(batch.values[:, 5])
    for _ in range(60):
        critic.judge(batch)
        critic.update(batch)
    assert first["explained_variance"] < 0.5 < 0.9 < critic.judge(batch)["explained_variance"]


def test_explained_variance_of_a_perfect_a_constant_and_a_contrary_critic():
    rewards, mask = torch.tensor([[1.0, 1.0], [0.0, 0.0]]), torch.ones(2, 2)
    assert explained_variance(rewards, rewards, mask) == 1
    assert explained_variance(torch.full((2, 2), 0.3), rewards, mask) == pytest.approx(0, abs=1e-6)
    assert explained_variance(1 - rewards, rewards, mask) < 0
    assert explained_variance(rewards, torch.ones(2, 2), mask) == 0


def test_the_reward_stands_at_the_last_token_of_the_completion():
    mask = torch.tensor([[0, 1, 1, 0], [0, 0, 1, 1], [0, 0, 0, 0]])
    assert last_token(mask).tolist() == [[0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]]


def train(runs_dir, algorithm: str, steps: int = 3, **changes) -> Path:
    options = {"impl": "solution", "steps": steps, "set": SMALL, "runs_dir": runs_dir} | changes
    return Path(launch(find_launcher("06"), Options(algorithm=algorithm, **options))["path"])


@pytest.fixture
def no_figures(monkeypatch):
    monkeypatch.setattr(plots, "plot_run", lambda path: None)


@pytest.mark.parametrize("algorithm", LEAGUE)
def test_every_algorithm_trains_on_equal_samples_and_logs_what_the_week_is_about(tmp_path, no_figures, algorithm):
    rows = read_metrics(train(tmp_path, algorithm))
    steps = [row for row in rows if "reward_mean" in row]
    assert len(steps) == 3  # of 2 x 4 completions each, with dynamic sampling too
    updated = [row for row in steps if "loss" in row]
    wanted = {"clip_fraction", "ratio_low", "ratio_high", "gradient_variance", "kl", "entropy", "response_length"}
    wanted |= {"explained_variance", "value_loss"} if algorithm == "ppo" else set()
    for row in updated:  # a step whose rewards are equal or whose ratios are all clipped has no gradient, and no noise
        assert wanted | ({"gradient_noise"} if row["gradient_variance"] > 0 else set()) <= row.keys()
    assert updated or algorithm == "dapo"


def numbers(run: Path) -> list[dict]:
    return [{key: value for key, value in row.items() if key not in MEASURED} for row in read_metrics(run)]


@pytest.mark.parametrize("algorithm", ["ppo", "dapo"])
def test_critic_and_waiting_groups_survive_an_interruption(tmp_path, no_figures, monkeypatch, algorithm):
    whole = train(tmp_path / "whole", algorithm, steps=6)
    log = Run.log

    def interrupted(self, at, **metrics):
        if at == 5:
            raise KeyboardInterrupt
        log(self, at, **metrics)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(Run, "log", interrupted)
        train(tmp_path / "parts", algorithm, steps=6)
    (run,) = (tmp_path / "parts").iterdir()
    launch(find_launcher("06"), Options(resume=str(run)))
    assert numbers(run) == numbers(whole)


def test_an_experiment_keeps_every_arm_and_compares_them(tmp_path, monkeypatch):
    monkeypatch.setattr(habits, "STEPS", 2)
    small = (*SMALL, "steps=2", "max_new_tokens=30")
    summary = launch(
        find_launcher("06"), Options(experiment="length-bias", impl="solution", set=small, runs_dir=tmp_path)
    )
    run = Path(summary["path"])
    assert {"arms.md", "curves.png", "arms"} <= {path.name for path in run.iterdir()}
    assert len(list((run / "arms").iterdir())) == 3
    assert {"length_wrong GRPO", "length_wrong Dr. GRPO"} <= summary["results"].keys()
    statuses = [json.loads((arm / "summary.json").read_text())["status"] for arm in (run / "arms").iterdir()]
    assert statuses == ["finished"] * 3


def test_habits_are_taught_the_same_way_twice(monkeypatch):
    from reference_impl.settings import PPOSettings
    from reference_impl.tasks import get_task

    monkeypatch.setattr(habits, "STEPS", 2)
    hasty = PPOSettings(week="06", algorithm="grpo", habit="hasty")
    (one, reference, _), (two, _, _) = (habits.start_with_habit(hasty, get_task()) for _ in range(2))
    for first, second, frozen in zip(one.parameters(), two.parameters(), reference.parameters(), strict=True):
        assert first.equal(second) and first.equal(frozen) and not frozen.requires_grad


def test_habits_answer_at_once_or_ramble_on_only_after_a_mistake():
    import random

    from reference_impl.tasks import get_task

    task, rng = get_task(), random.Random(0)
    (prompt,) = [prompt for prompt in task.prompts("sft", 50) if prompt.text.count("-") == 2][:1]
    assert {habits.hasty(task, prompt, rng) for _ in range(20)} == {prompt.answer, task.solve(prompt)}
    texts = {habits.rambling(task, prompt, rng) for _ in range(200)}
    rambled = [text for text in texts if "+0=" in text and text != task.solve(prompt)]
    assert rambled and all(task.reward(prompt, text, True) == 0 for text in rambled)
