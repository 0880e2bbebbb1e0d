"""Supervised fine-tuning on demonstrations, through the week's own `sft_loop`.

    demonstrations -> build_example -> shuffled batches -> collate -> sft_loop(model, batches, optimizer, ...)

This file makes the batches and reads the results; every gradient comes from the functions that are plugged in. The
corpus is shuffled anew each epoch, by seed and epoch alone, so that a resumed run sees the batches it would have seen.
"""

import math
import time
from collections.abc import Callable

import torch
from torch import nn

from reference_impl.data.order import batch_indices
from reference_impl.distributed import each_ranks
from reference_impl.errors import UserError
from reference_impl.loops.evaluate import EVAL_SEED, HeldOut
from reference_impl.loops.sft_steps import batch_loss, sft_steps
from reference_impl.runs.run import Run
from reference_impl.settings import SupervisedSettings
from reference_impl.sharding import shard

LOG_EVERY = 10


def train_sft(
    model: nn.Module,
    tokenizer,
    task,
    functions,
    settings: SupervisedSettings,
    run: Run,
    examples: list[dict] | None = None,
    also: Callable[[nn.Module, int], dict[str, float]] | None = None,
) -> dict[str, float]:
    """Fine-tune `model` on `examples`; returns held-out accuracy before and after, and what `also` measures.

    By default the examples are the task's demonstrations, and perplexity is measured on held-out ones.
    """
    shard(model, settings)
    optimizer = torch.optim.AdamW(
        model.parameters(), settings.lr, settings.betas, weight_decay=settings.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: relative_lr(step, functions, settings))
    parts = {"optimizer": optimizer, "schedule": schedule}
    if examples is None:
        examples = make_examples(
            task.demonstrations(settings.demonstrations, settings.seed), tokenizer, functions, settings
        )

    def on_demonstrations(model: nn.Module, n: int) -> dict[str, float]:
        return held_out_loss(model, unseen[:n], tokenizer, functions)

    held_out = HeldOut(task, tokenizer, settings, run, also=also or on_demonstrations)
    if also is None:
        unseen = make_examples(
            task.held_out_demonstrations(held_out.prompts, EVAL_SEED), tokenizer, functions, settings
        )
    before = held_out.before(model)
    start = run.restore(model, **parts)
    if start == 0:
        run.log(0, **before)
        run.save(0, model, tokenizer, **parts)

    pending, began, total_tokens, total_seconds = [], time.perf_counter(), 0, 0.0
    for tick in run.steps(start, settings.steps, settings.algorithm):
        rows = [examples[i] for i in batch_indices(tick.step - 1, len(examples), settings.batch_size, settings.seed)]
        pending.append(micro_batches(rows, tokenizer.pad_token_id, functions, settings))
        stops = (LOG_EVERY, settings.eval_every, settings.checkpoint_every)
        if tick.step < settings.steps and all(tick.step % every for every in stops):
            continue
        losses = sft_steps(model, pending, optimizer, settings.max_grad_norm, schedule, functions)
        check_losses(losses, len(pending))
        elapsed = time.perf_counter() - began
        tokens = sum(int((part["labels"] != -100).sum()) for batch in pending for part in batch)
        total_tokens, total_seconds = total_tokens + tokens, total_seconds + elapsed
        metrics = {"loss": sum(losses) / len(losses), "lr": schedule.get_last_lr()[0]}
        metrics["tokens_per_second"] = tokens / elapsed
        run.log(tick.step, **metrics, **held_out.during(model, tick.step))
        tick.note(f"loss {metrics['loss']:.3f}")
        run.save(tick.step, model, tokenizer, **parts)
        pending, began = [], time.perf_counter()

    return held_out.after(model) | ({"tokens_per_second": total_tokens / total_seconds} if total_seconds else {})


def relative_lr(step: int, functions, settings: SupervisedSettings) -> float:
    """The week's schedule as a factor of the peak. Update number `step` uses lr_at(step + 1): lr_at(0) is 0."""
    lr = functions.lr_at(step + 1, settings.steps, settings.lr, settings.warmup_steps, settings.min_ratio)
    return lr / settings.lr


def make_examples(demonstrations, tokenizer, functions, settings: SupervisedSettings) -> list[dict]:
    """Prompt and response as token ids and labels, by the week's `build_example`."""
    return [
        functions.build_example(
            tokenizer.encode_prompt(prompt), tokenizer.encode(response), tokenizer.eos_token_id, settings.max_length
        )
        for prompt, response in demonstrations
    ]


def micro_batches(rows: list[dict], pad_id: int, functions, settings: SupervisedSettings) -> list[dict]:
    """One batch, cut into `settings.micro_batches` parts, each collated by itself; several processes share a part."""
    size = -(-len(rows) // each_ranks(settings.micro_batches))
    return [functions.collate(rows[i : i + size], pad_id) for i in range(0, len(rows), size)]


@torch.no_grad()
def held_out_loss(model, examples: list[dict], tokenizer, functions) -> dict[str, float]:
    """The week's `sft_loss` on held-out demonstrations, and its exponential, the perplexity of a response token."""
    was_training = model.training
    model.eval()
    batch = functions.collate(examples, tokenizer.pad_token_id)
    loss = float(batch_loss(model, batch, functions.sft_loss))
    model.train(was_training)
    return perplexity(loss)


def perplexity(loss: float) -> dict[str, float]:
    return {"eval_loss": loss, "perplexity": math.exp(min(loss, 50.0))}


def check_losses(losses, steps: int) -> None:
    """UserError unless `losses` is one finite float a step."""
    if not isinstance(losses, list) or len(losses) != steps:
        got = f"{len(losses)} of them" if isinstance(losses, list) else type(losses).__name__
        raise UserError(f"sft_loop should return a list with the loss of each of its {steps} steps, not {got}.")
    for loss in losses:
        if not isinstance(loss, float) or not math.isfinite(loss):
            raise UserError(f"sft_loop should return finite floats, but one of its losses is {loss!r}.")
