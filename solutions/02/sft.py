"""Week 02, solved: instruction tuning.

Read it after your own attempt. The two lines that most implementations get wrong are the shift in `sft_loss` and the
weight of a micro-batch in `sft_loop`.
"""

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor


def build_example(prompt_ids: list[int], response_ids: list[int], eos_id: int, max_length: int) -> dict[str, list[int]]:
    """input_ids = prompt + response + eos, labels = -100 on the prompt; both cut from the right."""
    input_ids = prompt_ids + response_ids + [eos_id]
    # The model must learn to stop: the EOS is a target like any other token of the response.
    labels = [-100] * len(prompt_ids) + response_ids + [eos_id]
    return {"input_ids": input_ids[:max_length], "labels": labels[:max_length]}


def collate(examples: list[dict[str, list[int]]], pad_id: int) -> dict[str, Tensor]:
    """Right-padded LongTensors input_ids, attention_mask, labels, each (B, T)."""
    width = max(len(example["input_ids"]) for example in examples)
    input_ids, attention_mask, labels = [], [], []
    for example in examples:
        length = len(example["input_ids"])
        padding = width - length
        # Lengths say what is padding. Comparing ids with pad_id would also hide a real EOS where pad and EOS share an
        # id, and the model would never learn to stop.
        input_ids.append(example["input_ids"] + [pad_id] * padding)
        attention_mask.append([1] * length + [0] * padding)
        labels.append(example["labels"] + [-100] * padding)
    return {
        "input_ids": torch.tensor(input_ids, dtype=torch.long),
        "attention_mask": torch.tensor(attention_mask, dtype=torch.long),
        "labels": torch.tensor(labels, dtype=torch.long),
    }


def sft_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Shifted cross-entropy, mean over supervised tokens.  Shapes: (B, T, V), (B, T) -> scalar."""
    logits, labels = logits[:, :-1], labels[:, 1:]  # the logits at t predict the token at t + 1
    supervised = labels != -100
    # Selecting first, instead of ignore_index: a NaN at an unsupervised position would survive in the gradient.
    logits, labels = logits[supervised], labels[supervised]  # (n, V), (n,)
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()  # log-sum-exp over thousands of labels needs more than 8 bits of mantissa
    total = F.cross_entropy(logits, labels, reduction="sum")
    return total / max(len(labels), 1)  # no supervised token: 0 / 1, with a zero gradient, where a mean would be NaN


def sft_loop(
    model: torch.nn.Module,
    batches: Iterable[list[dict[str, Tensor]]],
    optimizer: torch.optim.Optimizer,
    max_grad_norm: float = 1.0,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
) -> list[float]:
    """One optimizer step per list of micro-batches, on the mean over all their tokens; returns the losses."""
    model.train()
    optimizer.zero_grad()
    losses = []
    for micro_batches in batches:
        # Count before the first backward: a micro-batch's share of the tokens is known only when all are counted.
        # labels[:, 1:], because the first token of a row is never predicted.
        counts = [(batch["labels"][:, 1:] != -100).sum().item() for batch in micro_batches]
        total = sum(counts)
        if total == 0:
            losses.append(0.0)  # nothing to learn: no step, or weight decay and momentum would still move the model
            continue
        step_loss = 0.0
        for batch, count in zip(micro_batches, counts, strict=True):
            logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
            # Mean of this micro-batch x its share = its part of the mean over everything. Dividing by the number of
            # micro-batches instead would let a token in a short micro-batch weigh more than one in a long one.
            loss = sft_loss(logits, batch["labels"]) * count / total
            loss.backward()  # adds to .grad and frees this micro-batch's activations
            step_loss += loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)  # once, on the complete gradient
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        optimizer.zero_grad()
        losses.append(step_loss)
    return losses


def lr_at(step: int, total_steps: int, peak_lr: float, warmup_steps: int, min_ratio: float = 0.0) -> float:
    """Linear warmup, cosine decay to min_ratio * peak_lr, constant afterwards."""
    if step < warmup_steps:
        return peak_lr * step / warmup_steps
    # max(1, ...): no division by zero when the warmup fills the run; min(1, ...): the cosine must not rise again.
    progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    cosine = 0.5 * (1.0 + math.cos(math.pi * progress))  # 1 at the end of the warmup, 0 at total_steps
    return peak_lr * (min_ratio + (1.0 - min_ratio) * cosine)
