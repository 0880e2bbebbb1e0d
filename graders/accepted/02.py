"""Week 02, right: instruction tuning written in other ways."""

import math

import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence

from graders.accepted import right

# --- build_example ----------------------------------------------------------------------------------------------------


@right("build_example", "a loop that stops when the example is full")
def example_by_loop(prompt_ids, response_ids, eos_id, max_length):
    input_ids, labels = [], []
    for index, token in enumerate([*prompt_ids, *response_ids, eos_id]):
        if index == max_length:
            break
        input_ids.append(token)
        labels.append(token if index >= len(prompt_ids) else -100)
    return {"labels": labels, "input_ids": input_ids}


@right("build_example", "copies extended in place, then cut with del")
def example_by_copies(prompt_ids, response_ids, eos_id, max_length):
    ids = prompt_ids.copy()
    ids.extend(response_ids)
    ids.append(eos_id)
    del ids[max_length:]
    return {"input_ids": ids, "labels": [-100] * min(len(prompt_ids), max_length) + ids[len(prompt_ids) :]}


@right("build_example", "through tensors and back to lists")
def example_by_tensors(prompt_ids, response_ids, eos_id, max_length):
    ids = torch.tensor(prompt_ids + response_ids + [eos_id], dtype=torch.long)[:max_length]
    labels = ids.clone()
    labels[: len(prompt_ids)] = -100
    return dict(input_ids=ids.tolist(), labels=labels.tolist())


# --- collate ----------------------------------------------------------------------------------------------------------


@right("collate", "pad_sequence")
def collate_by_pad_sequence(examples, pad_id):
    def pad(rows, value):
        return pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=value)

    return {
        "input_ids": pad([e["input_ids"] for e in examples], pad_id),
        "labels": pad([e["labels"] for e in examples], -100),
        "attention_mask": pad([[1] * len(e["labels"]) for e in examples], 0),
    }


@right("collate", "full tensors, filled row by row")
def collate_by_full(examples, pad_id):
    shape = len(examples), max(len(e["labels"]) for e in examples)
    ids, mask, labels = torch.full(shape, pad_id), torch.zeros(shape, dtype=torch.long), torch.full(shape, -100)
    for i, example in enumerate(examples):
        n = len(example["input_ids"])
        ids[i, :n] = torch.as_tensor(example["input_ids"])
        labels[i, :n] = torch.as_tensor(example["labels"])
        mask[i, :n] = 1
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


@right("collate", "the attention mask from lengths and arange, F.pad and stack")
def collate_by_lengths(examples, pad_id):
    lengths = torch.tensor([len(e["input_ids"]) for e in examples])
    width = int(lengths.max())

    def stack(key, value):
        return torch.stack([F.pad(torch.tensor(e[key]), (0, width - len(e[key])), value=value) for e in examples])

    mask = (torch.arange(width)[None, :] < lengths[:, None]).long()
    return {"input_ids": stack("input_ids", pad_id), "attention_mask": mask, "labels": stack("labels", -100)}


# --- sft_loss ---------------------------------------------------------------------------------------------------------


@right("sft_loss", "F.cross_entropy with its defaults: mean and ignore_index=-100")
def loss_by_cross_entropy(logits, labels):
    return F.cross_entropy(logits[:, :-1].reshape(-1, logits.shape[-1]), labels[:, 1:].reshape(-1))


@right("sft_loss", "labels shifted with an ignored last one, classes on dimension 1")
def loss_by_padding_labels(logits, labels):
    targets = torch.cat([labels[:, 1:], torch.full_like(labels[:, :1], -100)], dim=1)
    return F.cross_entropy(logits.transpose(1, 2), targets)


@right("sft_loss", "logsumexp minus the label's logit, mask by multiplication")
def loss_by_logsumexp(logits, labels):
    logits, labels = logits[:, :-1], labels[:, 1:]
    mask = (labels != -100).to(logits.dtype)
    picked = logits.gather(2, labels.clamp(min=0).unsqueeze(2)).squeeze(2)
    return ((logits.logsumexp(-1) - picked) * mask).sum() / mask.sum()


@right("sft_loss", "a loop over positions")
def loss_by_loop(logits, labels):
    terms = [
        -torch.log_softmax(logits[i, t - 1], dim=0)[labels[i, t]]
        for i in range(labels.shape[0])
        for t in range(1, labels.shape[1])
        if labels[i, t] != -100
    ]
    return sum(terms) / len(terms)


# --- sft_loop ---------------------------------------------------------------------------------------------------------


def _summed(model, batch):
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    return F.cross_entropy(logits.flatten(0, 1), batch["labels"][:, 1:].flatten(), reduction="sum")


def _tokens(batch):
    return (batch["labels"][:, 1:] != -100).sum()


@right("sft_loop", "summed losses, gradients divided before clipping")
def loop_divides_gradients(model, batches, optimizer, max_grad_norm=1.0, scheduler=None):
    model.train()
    history = []
    for step in batches:
        optimizer.zero_grad(set_to_none=True)
        tokens, total = 0, 0.0
        for batch in step:
            loss = _summed(model, batch)
            loss.backward()
            total += float(loss.detach())
            tokens += int(_tokens(batch))
        if tokens == 0:
            history.append(0.0)
            continue
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad /= tokens
        torch.nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)
        optimizer.step()
        if scheduler:
            scheduler.step()
        history.append(total / tokens)
    optimizer.zero_grad()
    return history


@right("sft_loop", "one graph over all micro-batches, one backward")
def loop_with_one_backward(model, batches, optimizer, max_grad_norm=1.0, scheduler=None):
    model.train()
    model.zero_grad()
    losses = []
    for step in batches:
        n = sum(_tokens(batch) for batch in step)
        if n == 0:
            losses.append(0.0)
            continue
        loss = torch.stack([_summed(model, batch) for batch in step]).sum() / n
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], max_grad_norm)
        optimizer.step()
        scheduler is not None and scheduler.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@right("sft_loop", "means weighted by their share, clipping written out")
def loop_with_own_clipping(model, batches, optimizer, max_grad_norm=1.0, scheduler=None):
    model.train()
    optimizer.zero_grad()
    losses = []
    for step in batches:
        weights = torch.stack([_tokens(batch) for batch in step]).double()
        if not weights.any():
            losses.append(0.0)
            continue
        weights = weights / weights.sum()
        loss = 0.0
        for weight, batch in zip(weights.tolist(), step, strict=True):
            if weight:
                part = weight * _summed(model, batch) / _tokens(batch)
                part.backward()
                loss += part.item()
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        norm = torch.sqrt(sum((g**2).sum() for g in grads))
        for g in grads:
            g.mul_(torch.clamp(max_grad_norm / (norm + 1e-6), max=1.0))
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        optimizer.zero_grad()
        losses.append(loss)
    return losses


# --- lr_at ------------------------------------------------------------------------------------------------------------


@right("lr_at", "cases in another order, cos^2 of the half angle")
def lr_by_cases(step, total_steps, peak_lr, warmup_steps, min_ratio=0.0):
    floor = min_ratio * peak_lr
    if warmup_steps <= step < total_steps:
        angle = math.pi / 2 * (step - warmup_steps) / (total_steps - warmup_steps)
        return floor + (peak_lr - floor) * math.cos(angle) ** 2
    return floor if step >= total_steps else step * (peak_lr / warmup_steps)


@right("lr_at", "tensors, returned as a float")
def lr_by_tensors(step, total_steps, peak_lr, warmup_steps, min_ratio=0.0):
    if warmup_steps and step <= warmup_steps and step < total_steps:
        return peak_lr * (step / warmup_steps)
    done = torch.tensor((step - warmup_steps) / max(total_steps - warmup_steps, 1e-9), dtype=torch.float64).clamp(0, 1)
    scale = min_ratio + (1 - min_ratio) * 0.5 * (1 + torch.cos(torch.pi * done))
    return float(peak_lr * scale)


@right("lr_at", "the step clipped to the run, a sine")
def lr_by_sine(step, total_steps, peak_lr, warmup_steps, min_ratio=0.0):
    if step < warmup_steps:
        return float(peak_lr * step / warmup_steps)
    step = min(step, total_steps)
    remaining = (total_steps - step) / (total_steps - warmup_steps) if total_steps > warmup_steps else 0.0
    bump = 0.5 + 0.5 * math.sin(math.pi * (remaining - 0.5))
    return float(peak_lr * min_ratio + peak_lr * (1 - min_ratio) * bump)
