"""Train the base checkpoint from random weights: `python -m reference_impl.models.pretrain_base --seed 2`.

Week 02's launcher trains the same recipe through the week's own functions; the numbers live here, once. One pass over
the demonstrations; the model is left middling on purpose: it has learned the arithmetic, and the crowd's bad habits.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from reference_impl.data.order import batch_indices
from reference_impl.models import NanoLM, save_model
from reference_impl.models.tokenizer import CharTokenizer
from reference_impl.sampling import completions, generate
from reference_impl.sft import build_example, collate, lr_at, sft_loop
from reference_impl.tasks import Prompt, get_task


@dataclass(frozen=True)
class Recipe:
    """Settings of the base checkpoint's training, found on the `pref` split (never on `eval`)."""

    steps: int = 900
    batch_size: int = 64
    demonstrations: int = 900 * 64
    lr: float = 1.2e-2
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.01
    warmup_steps: int = 50
    min_ratio: float = 0.05
    max_grad_norm: float = 1.0
    max_length: int = 64


def pretrain(recipe: Recipe, seed: int, log_every: int = 100) -> NanoLM:
    """A NanoLM trained on the mixed crowd's demonstrations; the same seed gives the same model on the same machine."""
    torch.manual_seed(seed)
    model, tokenizer = NanoLM(), CharTokenizer()
    examples = [
        build_example(tokenizer.encode(prompt.text), tokenizer.encode(text), tokenizer.eos_token_id, recipe.max_length)
        for prompt, text in get_task().demonstrations(recipe.demonstrations, seed)
    ]
    optimizer = torch.optim.AdamW(
        model.parameters(), recipe.lr, recipe.betas, weight_decay=recipe.weight_decay, fused=True
    )
    # update number `step` takes lr_at(step + 1), since lr_at(0) is 0
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: lr_at(step + 1, recipe.steps, recipe.lr, recipe.warmup_steps, recipe.min_ratio) / recipe.lr,
    )

    def batches(first: int, last: int) -> Iterator[list[dict]]:
        for step in range(first, last):
            rows = [examples[i] for i in batch_indices(step, len(examples), recipe.batch_size, seed)]
            yield [collate(rows, tokenizer.pad_token_id)]

    began = time.perf_counter()
    for first in range(0, recipe.steps, log_every):
        last = min(first + log_every, recipe.steps)
        losses = sft_loop(model, batches(first, last), optimizer, recipe.max_grad_norm, schedule)
        seconds = time.perf_counter() - began
        print(f"step {last:5d}  loss {sum(losses) / len(losses):.3f}  {seconds:.0f} s", flush=True)
    return model


def accuracy(model: nn.Module, prompts: list[Prompt], temperature: float, samples: int, seed: int = 0) -> float:
    """Mean verifier reward of `samples` completions a prompt."""
    task, tokenizer = get_task(), CharTokenizer()
    rollout = generate(
        model,
        [tokenizer.encode(prompt.text) for prompt in prompts],
        samples,
        max_new_tokens=28,
        eos_id=tokenizer.eos_token_id,
        pad_id=tokenizer.pad_token_id,
        temperature=temperature,
        generator=torch.Generator().manual_seed(seed),
    )
    texts = completions(rollout, tokenizer)
    rewards = [
        task.reward(prompts[row // samples], text, bool(rollout.finished[row])) for row, text in enumerate(texts)
    ]
    return sum(rewards) / len(rewards)


def report(model: nn.Module, split: str, n: int = 1024, samples: int = 8) -> str:
    """Sampled and greedy accuracy on `n` prompts of a split: the default mix, and sums of four terms alone."""
    rows = []
    for name, task in (("3 and 4 terms", get_task()), ("4 terms", get_task(min_terms=4))):
        prompts = task.prompts(split, n)
        sampled, greedy = accuracy(model, prompts, 1.0, samples), accuracy(model, prompts, 0.0, 1)
        rows.append(f"{split:5s} {name:14s} sampled {sampled:.3f}  greedy {greedy:.3f}")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the base checkpoint from random weights.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder to write the checkpoint to")
    parser.add_argument("--split", default="pref", help="split to measure accuracy on")
    arguments = parser.parse_args()
    model = pretrain(Recipe(), arguments.seed)
    print(report(model, arguments.split))
    if arguments.out:
        save_model(model, CharTokenizer(), arguments.out, dtype=torch.float16)


if __name__ == "__main__":
    main()
