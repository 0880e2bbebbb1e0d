"""Train reward models, several side by side on the same completions: a headed copy of the policy for each.

    completions of the policy -> verdicts -> batches -> logits (B, T, outputs) -> the week's loss -> AdamW

What a model learns from, and how its logits become one score a completion, says its `RewardObjective`
(reference_impl/algorithms.py). Prompts that are measured on never occur in training: their text decides their split.
"""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from reference_impl.algorithms import RewardObjective
from reference_impl.data.judged import Judged, sample_judged
from reference_impl.data.order import batch_indices
from reference_impl.distributed import sum_gradients
from reference_impl.loops.accumulate import backward, reader
from reference_impl.loops.evaluate import EVAL_SEED, held_out_prompts
from reference_impl.loops.public_data import task_of
from reference_impl.models import HeadedLM, load_model
from reference_impl.rewards import logits_of, rows_of, save_reward, scores_of
from reference_impl.runs.progress import console
from reference_impl.runs.run import Run
from reference_impl.settings import RewardSettings
from reference_impl.sharding import shard

LABELS = {"bt": "preference model", "orm": "outcome model", "prm": "process model"}


def prepare(settings: RewardSettings) -> tuple[nn.Module, Any, Any, Judged, Judged]:
    """(policy, tokenizer, task, training completions, held-out completions); the same settings give the same."""
    policy, tokenizer = load_model(settings.policy)
    task = task_of(settings)
    training = task.prompts("reward", settings.reward_prompts, settings.seed)
    unseen = held_out_prompts(task, settings.final_eval_prompts)
    longest = settings.max_new_tokens
    sampled = sample_judged(policy, tokenizer, task, training, settings.samples_per_prompt, longest, settings.seed)
    held_out = sample_judged(policy, tokenizer, task, unseen, settings.held_out_samples, longest, EVAL_SEED)
    return policy, tokenizer, task, sampled, held_out


class Learner:
    """One reward model in training."""

    def __init__(self, objective: RewardObjective, policy: nn.Module, settings: RewardSettings):
        self.name, self.objective, self.settings = objective.name, objective, settings
        self.model = shard(HeadedLM.from_lm(policy, objective.outputs).requires_grad_(True), settings)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), settings.lr, settings.betas, weight_decay=settings.weight_decay, fused=True
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: 1 - step / settings.steps)

    def update(self, data: Judged, index: Tensor) -> float:
        """One optimizer step on these rows, or, if the model learns from pairs, on these pairs (N, 2); its loss."""
        rows = rows_of(data, index.T.flatten() if self.objective.paired else index)
        self.model.train()
        self.optimizer.zero_grad()
        forward, lengths = reader(self.model, rows.input_ids, rows.attention_mask), rows.attention_mask.sum(1)
        _, loss = backward(
            forward, lengths, lambda logits: self.objective.loss(logits, rows), self.settings.micro_batches
        )
        sum_gradients(self.model)
        nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.max_grad_norm)
        self.optimizer.step()
        self.schedule.step()
        return loss.item()

    def scores(self, data: Judged) -> Tensor:
        """(B,), higher is better."""
        return scores_of(self.model, self.objective, data)

    def logits(self, data: Judged) -> Tensor:
        """(B, T, outputs)."""
        return logits_of(self.model, data)

    def parts(self) -> dict:
        """What a checkpoint keeps of it."""
        return {f"{self.name}_optimizer": self.optimizer, f"{self.name}_schedule": self.schedule}


def train_reward_models(
    learners: list[Learner],
    tokenizer,
    data_of: Callable[[Learner], tuple[Judged, Tensor]],
    measure: Callable[[int], dict[str, float]],
    settings: RewardSettings,
    run: Run,
) -> dict[str, float]:
    """Train all of them, one step each in turn; returns the tokens read a second.

    data_of(learner) -> (completions, index), where the rows of index are what it is trained on: single completions
    (N,) or pairs (N, 2). measure(n) gives held-out numbers, from about n prompts. The models are saved in the run
    folder under rewards/, where `--reward` finds them.
    """
    first, others = learners[0], learners[1:]
    parts = {learner.name: learner.model for learner in others}
    for learner in learners:
        parts |= learner.parts()
    start = run.restore(first.model, **parts)
    if start == 0:
        run.log(0, **measure(settings.eval_prompts))
        run.save(0, first.model, tokenizer, **parts)

    tokens, seconds = 0, 0.0
    for tick in run.steps(start, settings.steps, settings.algorithm):
        began, metrics = time.perf_counter(), {"lr": first.schedule.get_last_lr()[0]}
        for learner in learners:
            data, index = data_of(learner)
            chosen = index[batch_indices(tick.step - 1, len(index), settings.batch_size, settings.seed)]
            metrics[f"loss_{learner.name}"] = learner.update(data, chosen)
            tokens += int(data.attention_mask[chosen].sum())
        seconds += time.perf_counter() - began
        if tick.step % settings.eval_every == 0 and tick.step < settings.steps:
            metrics |= measure(settings.eval_prompts)
        run.log(tick.step, **metrics)
        tick.note("  ".join(f"loss {learner.name} {metrics[f'loss_{learner.name}']:.3f}" for learner in learners))
        run.save(tick.step, first.model, tokenizer, **parts)

    for learner in learners:
        if run.keeps(learner.model):
            save_reward(run.path / "rewards" / learner.name, learner.model, tokenizer, learner.objective)
    return {"tokens_per_second": tokens / seconds} if seconds else {}


def write_page(run: Run, results: dict[str, float], data: Judged, scores: dict[str, Tensor]) -> None:
    """samples.md: some held-out completions and what the models say; results.md: the numbers."""
    lines = [f"# {run.path.name}", "", "A tick marks what the verifier accepts.", ""]
    lines += ["| prompt | completion | " + " | ".join(LABELS[name] for name in scores) + " |"]
    lines += ["|---|---|" + "---|" * len(scores)]
    for row in range(0, min(len(data), 16 * data.group), data.group):
        cells = " | ".join(f"{score[row].item():.2f}" for score in scores.values())
        tick = "✓" if data.correct[row] == 1 else "✗"
        lines.append(f"| `{data.prompts[row].text}` | `{data.texts[row] or ' '}` {tick} | {cells} |")
    run.write("samples.md", "\n".join(lines) + "\n")
    table = ["| held out | |", "|---|---|", *(f"| {name} | {number:.4g} |" for name, number in results.items())]
    run.write("results.md", "\n".join(table) + "\n")
    shown = {name: number for name, number in results.items() if not name.startswith("best of")}
    console.print("\n".join(f"{name:<52}{number:.4g}" for name, number in shown.items()), markup=False)
