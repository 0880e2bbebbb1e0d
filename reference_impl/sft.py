"""Week 02: instruction tuning: cross-entropy on the response, and a loop that takes any batch size in any memory.

    L = -(1/n) sum over supervised tokens of log pi(token | everything before it),   n = supervised tokens of the batch

The prompt and the padding carry the label -100, which removes them from the sum and from n. n counts the tokens of all
micro-batches of an optimizer step: the mean of the micro-batches' means would weight a token by the company it keeps.

Where others differ: the book's code averages micro-batch means and computes the loss in bfloat16; here and in TRL the
mean runs over all tokens of the step. Padding is marked by length, never by comparing ids with the pad id, since many
tokenizers pad with EOS.
"""

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from reference_impl.masking import upcast

IGNORE = -100  # the label of positions without supervision, PyTorch's default `ignore_index`


def build_example(prompt_ids: list[int], response_ids: list[int], eos_id: int, max_length: int) -> dict[str, list[int]]:
    """One training example: `input_ids` = prompt + response + eos, `labels` = the same with the prompt set to -100.

    Both are cut to `max_length` from the right, so that a long example loses its end, EOS first. Lists in, lists out.
    Ouyang et al., arXiv:2203.02155.
    """
    input_ids = [*prompt_ids, *response_ids, eos_id]
    labels = [IGNORE] * len(prompt_ids) + [*response_ids, eos_id]
    return {"input_ids": input_ids[:max_length], "labels": labels[:max_length]}


def collate(examples: list[dict[str, list[int]]], pad_id: int) -> dict[str, Tensor]:
    """Right-pad examples to the longest: LongTensors `input_ids`, `attention_mask`, `labels`, each (B, T).

    Padding has `pad_id`, attention 0 and label -100. What is padding follows from lengths, so that an EOS inside an
    example stays attended and supervised when the tokenizer uses it as pad token.
    """
    width = max(len(example["input_ids"]) for example in examples)

    def pad(rows: list[list[int]], value: int) -> Tensor:
        return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows], dtype=torch.long)

    return {
        "input_ids": pad([example["input_ids"] for example in examples], pad_id),
        "attention_mask": pad([[1] * len(example["input_ids"]) for example in examples], 0),
        "labels": pad([example["labels"] for example in examples], IGNORE),
    }


def sft_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Shifted cross-entropy: position t predicts the label at t + 1; mean over the supervised tokens of the batch.

    Shapes: logits (B, T, V), labels (B, T) with -100 where unsupervised -> scalar. 0 without any supervised token.
    Unsupervised positions are dropped before the softmax: that saves memory and keeps their NaN out of the gradient.
    """
    predictions, targets = logits[:, :-1], labels[:, 1:]
    supervised = targets != IGNORE
    predictions, targets = predictions[supervised], targets[supervised]  # (n, V), (n,)
    return F.cross_entropy(upcast(predictions), targets, reduction="sum") / max(len(targets), 1)


def sft_loop(
    model: torch.nn.Module,
    batches: Iterable[list[dict[str, Tensor]]],
    optimizer: torch.optim.Optimizer,
    max_grad_norm: float = 1.0,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
) -> list[float]:
    """One optimizer step per element of `batches`, each a list of micro-batches; the token-mean loss of every step.

    The gradient of a step is that of the mean over all supervised tokens of its micro-batches together, however they
    are split: each micro-batch's mean is weighted by its share of the tokens. Order: backward, clip, step, schedule,
    zero. An element without a supervised token takes no step and reports 0.0. Batches are on the model's device.
    """

    def batch_loss(model: torch.nn.Module, batch: dict[str, Tensor]) -> Tensor:
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        return sft_loss(logits, batch["labels"])

    return token_mean_steps(model, batches, optimizer, batch_loss, max_grad_norm, scheduler)


def token_mean_steps(model, batches, optimizer, batch_loss, max_grad_norm, scheduler) -> list[float]:
    """`sft_loop` for any batch_loss(model, batch) that is a mean over the batch's supervised tokens."""
    model.train()
    optimizer.zero_grad()  # gradients left by somebody else are not part of the first step
    losses = []
    for micro_batches in batches:
        counts = [supervised_tokens(batch) for batch in micro_batches]
        total = sum(counts)
        if total == 0:
            losses.append(0.0)  # a step without gradient would still move the model by weight decay and momentum
            continue
        step_loss = 0.0
        for batch, count in zip(micro_batches, counts, strict=True):
            loss = batch_loss(model, batch) * (count / total)
            loss.backward()
            step_loss += loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        optimizer.zero_grad()
        losses.append(step_loss)
    return losses


def supervised_tokens(batch: dict[str, Tensor]) -> int:
    """How many tokens of a batch are learned. The first label of a row has nothing that predicts it."""
    return int((batch["labels"][:, 1:] != IGNORE).sum())


def lr_at(step: int, total_steps: int, peak_lr: float, warmup_steps: int, min_ratio: float = 0.0) -> float:
    """Linear warmup from 0 to `peak_lr`, then half a cosine down to `min_ratio * peak_lr`, held after `total_steps`.

    Without warmup, step 0 has the peak. Loshchilov and Hutter, arXiv:1608.03983.
    """
    if step < warmup_steps:
        return peak_lr * step / warmup_steps
    progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    return peak_lr * (min_ratio + (1 - min_ratio) * 0.5 * (1 + math.cos(math.pi * progress)))
