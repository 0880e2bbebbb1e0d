"""Week 02, wrong: what learners' instruction tuning computes instead."""

import math

import torch
import torch.nn.functional as F

from graders.misconceptions import wrong

# --- build_example ----------------------------------------------------------------------------------------------------

LABELS = "From a conversation to labels"


@wrong(
    "build_example",
    "no EOS",
    computed="prompt and response without an end",
    why="the model learns to stop from the EOS that follows each response",
    effect="generations never stop",
    lesson=LABELS,
)
def example_without_eos(prompt_ids, response_ids, eos_id, max_length):
    labels = [-100] * len(prompt_ids) + response_ids
    return {"input_ids": (prompt_ids + response_ids)[:max_length], "labels": labels[:max_length]}


@wrong(
    "build_example",
    "EOS not supervised",
    computed="the EOS as input with the label -100",
    why="a token without a label is never learned, and the EOS is what ends a response",
    effect="generations never stop",
    lesson=LABELS,
)
def example_with_unsupervised_eos(prompt_ids, response_ids, eos_id, max_length):
    input_ids = prompt_ids + response_ids + [eos_id]
    labels = [-100] * len(prompt_ids) + response_ids + [-100]
    return {"input_ids": input_ids[:max_length], "labels": labels[:max_length]}


@wrong(
    "build_example",
    "prompt supervised",
    computed="labels equal to the whole input",
    why="the user writes the prompt; the model has to answer it",
    effect="the model learns to write questions, and spends its gradient on them",
    lesson=LABELS,
)
def example_with_supervised_prompt(prompt_ids, response_ids, eos_id, max_length):
    input_ids = (prompt_ids + response_ids + [eos_id])[:max_length]
    return {"input_ids": input_ids, "labels": list(input_ids)}


@wrong(
    "build_example",
    "cut from the left",
    computed="the last max_length tokens",
    why="the contract cuts from the right: the prompt comes first and the end is lost",
    effect="responses to prompts that the model does not see",
    lesson=LABELS,
)
def example_cut_from_the_left(prompt_ids, response_ids, eos_id, max_length):
    input_ids = prompt_ids + response_ids + [eos_id]
    labels = [-100] * len(prompt_ids) + response_ids + [eos_id]
    return {"input_ids": input_ids[-max_length:], "labels": labels[-max_length:]}


@wrong(
    "build_example",
    "room kept for the EOS",
    computed="prompt and response cut to max_length - 1, then the EOS",
    why="a response that was cut did not end there: an EOS after it is a false one",
    effect="the model learns to stop in the middle of long answers",
    lesson=LABELS,
)
def example_that_always_ends(prompt_ids, response_ids, eos_id, max_length):
    labels = ([-100] * len(prompt_ids) + response_ids)[: max_length - 1] + [eos_id]
    return {"input_ids": (prompt_ids + response_ids)[: max_length - 1] + [eos_id], "labels": labels}


@wrong(
    "build_example",
    "EOS after the cut",
    computed="prompt and response cut to max_length, then the EOS: one token too long",
    why="max_length bounds the whole example",
    effect="sequences longer than the model's context, or than the memory that was planned",
    lesson=LABELS,
)
def example_one_too_long(prompt_ids, response_ids, eos_id, max_length):
    labels = ([-100] * len(prompt_ids) + response_ids)[:max_length] + [eos_id]
    return {"input_ids": (prompt_ids + response_ids)[:max_length] + [eos_id], "labels": labels}


@wrong(
    "build_example",
    "labels shifted already",
    computed="labels moved one place to the left",
    why="the shift happens inside sft_loss, once",
    effect="shifted twice, every position predicts the token after the next",
    lesson=LABELS,
)
def example_with_shifted_labels(prompt_ids, response_ids, eos_id, max_length):
    input_ids = prompt_ids + response_ids + [eos_id]
    labels = [-100] * len(prompt_ids) + response_ids + [eos_id]
    return {"input_ids": input_ids[:max_length], "labels": (labels[1:] + [-100])[:max_length]}


@wrong(
    "build_example",
    "first response token not supervised",
    computed="-100 on the prompt and on one token more",
    why="the last prompt token predicts the first response token: that is a decision of the model",
    effect="the beginning of every answer is never trained",
    lesson=LABELS,
)
def example_mask_one_too_long(prompt_ids, response_ids, eos_id, max_length):
    input_ids = prompt_ids + response_ids + [eos_id]
    n = len(prompt_ids) + 1
    return {"input_ids": input_ids[:max_length], "labels": ([-100] * n + input_ids[n:])[:max_length]}


@wrong(
    "build_example",
    "last prompt token supervised",
    computed="-100 on all of the prompt but its last token",
    why="the prompt's own tokens are never labels",
    effect="one token of every prompt is trained",
    lesson=LABELS,
)
def example_mask_one_too_short(prompt_ids, response_ids, eos_id, max_length):
    input_ids = prompt_ids + response_ids + [eos_id]
    n = max(len(prompt_ids) - 1, 0)
    return {"input_ids": input_ids[:max_length], "labels": ([-100] * n + input_ids[n:])[:max_length]}


@wrong(
    "build_example",
    "mask by token id",
    computed="-100 wherever a token also occurs in the prompt",
    why="what is prompt follows from the position; a response repeats the prompt's words",
    effect="answers lose every word that the question contains",
    lesson=LABELS,
)
def example_masked_by_id(prompt_ids, response_ids, eos_id, max_length):
    input_ids = (prompt_ids + response_ids + [eos_id])[:max_length]
    return {"input_ids": input_ids, "labels": [-100 if i in prompt_ids else i for i in input_ids]}


@wrong(
    "build_example",
    "EOS between prompt and response",
    computed="prompt, EOS, response, EOS",
    why="the prompt does not end the conversation",
    effect="a separator that is missing when the model is used",
    lesson=LABELS,
)
def example_with_eos_after_the_prompt(prompt_ids, response_ids, eos_id, max_length):
    input_ids = prompt_ids + [eos_id] + response_ids + [eos_id]
    labels = [-100] * (len(prompt_ids) + 1) + response_ids + [eos_id]
    return {"input_ids": input_ids[:max_length], "labels": labels[:max_length]}


@wrong(
    "build_example",
    "response list changed",
    computed="the right example, after appending the EOS to the caller's own list",
    why="the caller's data grows with every call",
    effect="in the second epoch every response has two EOS",
    lesson=LABELS,
)
def example_appends_in_place(prompt_ids, response_ids, eos_id, max_length):
    response_ids.append(eos_id)
    labels = [-100] * len(prompt_ids) + response_ids
    return {"input_ids": (prompt_ids + response_ids)[:max_length], "labels": labels[:max_length]}


@wrong(
    "build_example",
    "only the inputs cut",
    computed="labels of the full length beside inputs that were cut",
    why="input_ids and labels belong together, position by position",
    effect="a shape error on the first long example",
    lesson=LABELS,
)
def example_cuts_inputs_only(prompt_ids, response_ids, eos_id, max_length):
    input_ids = prompt_ids + response_ids + [eos_id]
    return {"input_ids": input_ids[:max_length], "labels": [-100] * len(prompt_ids) + response_ids + [eos_id]}


# --- collate ----------------------------------------------------------------------------------------------------------

BATCH = "A batch of unequal lengths"


def _right(rows, value):
    width = max(len(row) for row in rows)
    return torch.tensor([row + [value] * (width - len(row)) for row in rows])


def _left(rows, value):
    width = max(len(row) for row in rows)
    return torch.tensor([[value] * (width - len(row)) + row for row in rows])


def _columns(examples):
    return (
        [e["input_ids"] for e in examples],
        [[1] * len(e["input_ids"]) for e in examples],
        [e["labels"] for e in examples],
    )


@wrong(
    "collate",
    "padding found by id",
    computed="attention 0 wherever input_ids equals pad_id",
    why="many tokenizers pad with EOS, so that a real EOS looks like padding",
    effect="the end of every answer is not attended",
    lesson=BATCH,
)
def collate_attention_by_id(examples, pad_id):
    ids, _, labels = _columns(examples)
    ids = _right(ids, pad_id)
    return {"input_ids": ids, "attention_mask": (ids != pad_id).long(), "labels": _right(labels, -100)}


@wrong(
    "collate",
    "labels masked by id",
    computed="label -100 wherever input_ids equals pad_id",
    why="where pad and EOS share an id, the EOS loses its label",
    effect="generations never stop",
    lesson=BATCH,
)
def collate_labels_by_id(examples, pad_id):
    ids, mask, labels = _columns(examples)
    ids = _right(ids, pad_id)
    labels = _right(labels, -100).masked_fill(ids == pad_id, -100)
    return {"input_ids": ids, "attention_mask": _right(mask, 0), "labels": labels}


@wrong(
    "collate",
    "labels padded with pad_id",
    computed="pad_id as label of the padding",
    why="-100 is what the loss ignores; pad_id is a token like any other",
    effect="the model is trained to write padding, and the loss depends on the batch's width",
    lesson=BATCH,
)
def collate_pads_labels_with_pad_id(examples, pad_id):
    ids, mask, labels = _columns(examples)
    return {"input_ids": _right(ids, pad_id), "attention_mask": _right(mask, 0), "labels": _right(labels, pad_id)}


@wrong(
    "collate",
    "labels padded with 0",
    computed="token 0 as label of the padding",
    why="-100 is what the loss ignores; 0 is a token",
    effect="the model is trained to write token 0 after each answer",
    lesson=BATCH,
)
def collate_pads_labels_with_zero(examples, pad_id):
    ids, mask, labels = _columns(examples)
    return {"input_ids": _right(ids, pad_id), "attention_mask": _right(mask, 0), "labels": _right(labels, 0)}


@wrong(
    "collate",
    "padded on the left",
    computed="padding before the tokens",
    why="left padding is for generation; here positions start at 0",
    effect="with absolute positions the model is trained on places it never sees again",
    lesson=BATCH,
)
def collate_pads_on_the_left(examples, pad_id):
    ids, mask, labels = _columns(examples)
    return {"input_ids": _left(ids, pad_id), "attention_mask": _left(mask, 0), "labels": _left(labels, -100)}


@wrong(
    "collate",
    "padding attended",
    computed="attention 1 everywhere",
    why="padding is no context",
    effect="what a row computes depends on its neighbours' lengths",
    lesson=BATCH,
)
def collate_attends_to_padding(examples, pad_id):
    ids, _, labels = _columns(examples)
    ids = _right(ids, pad_id)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": _right(labels, -100)}


@wrong(
    "collate",
    "attention on the response only",
    computed="attention 1 where there is a label",
    why="the response depends on the prompt, which must be attended",
    effect="answers to questions that the model cannot see",
    lesson=BATCH,
)
def collate_attends_to_labels_only(examples, pad_id):
    ids, _, labels = _columns(examples)
    labels = _right(labels, -100)
    return {"input_ids": _right(ids, pad_id), "attention_mask": (labels != -100).long(), "labels": labels}


@wrong(
    "collate",
    "labels copied from the inputs",
    computed="the real tokens of each row as labels, prompt included",
    why="the examples say what is supervised",
    effect="the model learns to write questions",
    lesson=BATCH,
)
def collate_copies_labels(examples, pad_id):
    ids, mask, _ = _columns(examples)
    return {"input_ids": _right(ids, pad_id), "attention_mask": _right(mask, 0), "labels": _right(ids, -100)}


@wrong(
    "collate",
    "cut to the shortest",
    computed="rows cut to the length of the shortest example",
    why="a batch is padded to its longest example; nothing is thrown away here",
    effect="long answers lose their end",
    lesson=BATCH,
)
def collate_cuts_to_the_shortest(examples, pad_id):
    width = min(len(e["input_ids"]) for e in examples)
    ids, mask, labels = ([row[:width] for row in rows] for rows in _columns(examples))
    return {"input_ids": _right(ids, pad_id), "attention_mask": _right(mask, 0), "labels": _right(labels, -100)}


@wrong(
    "collate",
    "one column too many",
    computed="a batch that is one padding column wider than its longest example",
    why="the longest example has no padding",
    effect="wasted work in every step, and a changed width where it is asserted",
    lesson=BATCH,
)
def collate_too_wide(examples, pad_id):
    ids, mask, labels = _columns(examples)
    parts = [F.pad(_right(rows, v), (0, 1), value=v) for rows, v in ((ids, pad_id), (mask, 0), (labels, -100))]
    return dict(zip(("input_ids", "attention_mask", "labels"), parts, strict=True))


@wrong(
    "collate",
    "float attention mask",
    computed="the right numbers as float32",
    why="the contract says LongTensors, as models and datasets expect",
    effect="attention code that adds a float mask to the scores adds 1 where it should add 0",
    lesson=BATCH,
)
def collate_float_mask(examples, pad_id):
    ids, mask, labels = _columns(examples)
    mask = _right(mask, 0).float()
    return {"input_ids": _right(ids, pad_id), "attention_mask": mask, "labels": _right(labels, -100)}


@wrong(
    "collate",
    "examples padded in place",
    computed="the right batch, after padding the caller's own lists",
    why="the next epoch finds padding inside the examples and takes it for tokens",
    effect="from the second epoch on, padding is attended",
    lesson=BATCH,
)
def collate_pads_in_place(examples, pad_id):
    mask = _right(_columns(examples)[1], 0)
    width = mask.shape[1]
    for example in examples:
        missing = width - len(example["input_ids"])
        example["input_ids"] += [pad_id] * missing
        example["labels"] += [-100] * missing
    ids, _, labels = _columns(examples)
    return {"input_ids": torch.tensor(ids), "attention_mask": mask, "labels": torch.tensor(labels)}


@wrong(
    "collate",
    "trailing EOS taken for padding",
    computed="padding found by id at the end of each row only",
    why="the last real token of an example is its EOS, and pad may be the same id",
    effect="the EOS is never learned, though an EOS inside the text is",
    lesson=BATCH,
)
def collate_strips_trailing_pads(examples, pad_id):
    ids, _, labels = _columns(examples)
    ids, labels = _right(ids, pad_id), _right(labels, -100)
    real = (ids != pad_id).long().flip(1).cumsum(1).flip(1) > 0
    return {"input_ids": ids, "attention_mask": real.long(), "labels": labels.masked_fill(~real, -100)}


# --- sft_loss ---------------------------------------------------------------------------------------------------------

SHIFT = "The loss and its shift"


@wrong(
    "sft_loss",
    "no shift",
    computed="the logits at t against the label at t",
    why="the logits at t have seen the token at t: they predict the next one",
    effect="the loss falls to 0 by copying the input, and generations are garbage",
    lesson=SHIFT,
)
def loss_without_shift(logits, labels):
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum") / (labels != -100).sum().clamp(
        min=1
    )


@wrong(
    "sft_loss",
    "shifted twice",
    computed="the logits at t against the label at t + 2",
    why="labels are aligned with input_ids: one shift is enough",
    effect="every position learns to skip a token",
    lesson=SHIFT,
)
def loss_shifted_twice(logits, labels):
    targets = F.pad(labels[:, 1:], (0, 1), value=-100)
    return _mean(logits[:, :-1], targets[:, 1:])


@wrong(
    "sft_loss",
    "shifted the wrong way",
    computed="the logits at t + 1 against the label at t",
    why="a model predicts forwards",
    effect="the loss falls by remembering the previous token",
    lesson=SHIFT,
)
def loss_shifted_backwards(logits, labels):
    return _mean(logits[:, 1:], labels[:, :-1])


def _mean(logits, targets):
    total = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")
    return total / (targets != -100).sum().clamp(min=1)


@wrong(
    "sft_loss",
    "mean of row means",
    computed="each row's mean, averaged over rows",
    why="every supervised token of the batch has the same weight",
    effect="short answers count more per token, and the loss depends on how rows are grouped",
    lesson=SHIFT,
)
def loss_as_mean_of_rows(logits, labels):
    rows = [_mean(row[None, :-1], label[None, 1:]) for row, label in zip(logits, labels, strict=True)]
    return torch.stack(rows).mean()


@wrong(
    "sft_loss",
    "summed",
    computed="the sum over supervised tokens",
    why="the loss is a mean over tokens",
    effect="the gradient grows with batch and length, and no learning rate transfers",
    lesson=SHIFT,
)
def loss_summed(logits, labels):
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="sum")


@wrong(
    "sft_loss",
    "divided by all positions",
    computed="the sum over supervised tokens divided by B (T - 1)",
    why="prompt and padding are not part of the mean",
    effect="the loss falls when padding grows",
    lesson=SHIFT,
)
def loss_over_padded_length(logits, labels):
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="none").mean()


@wrong(
    "sft_loss",
    "divided by the number of rows",
    computed="the sum over supervised tokens divided by B",
    why="the mean runs over tokens",
    effect="long answers have long gradients",
    lesson=SHIFT,
)
def loss_over_rows(logits, labels):
    return loss_summed(logits, labels) / len(labels)


@wrong(
    "sft_loss",
    "count before the shift",
    computed="the shifted sum divided by all labels, the first one included",
    why="the first label is never predicted, so it is not part of the mean",
    effect="the loss is too small when an example has no prompt",
    lesson=SHIFT,
)
def loss_counts_the_first_label(logits, labels):
    return loss_summed(logits, labels) / (labels != -100).sum().clamp(min=1)


@wrong(
    "sft_loss",
    "-100 read as a token",
    computed="unsupervised positions trained towards token 0",
    why="-100 means that there is no label",
    effect="prompt and padding are trained to produce token 0",
    lesson=SHIFT,
)
def loss_clamps_labels(logits, labels):
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].clamp(min=0).flatten())


@wrong(
    "sft_loss",
    "sign flipped",
    computed="the mean log-prob",
    why="optimizers minimise; the loss is minus the log-prob",
    effect="the data become less likely with every step",
    lesson=SHIFT,
)
def loss_with_the_sign_flipped(logits, labels):
    return -_mean(logits[:, :-1], labels[:, 1:])


@wrong(
    "sft_loss",
    "probabilities averaged",
    computed="minus the mean probability of the labels",
    why="maximum likelihood takes the log before the mean",
    effect="the gradient vanishes on exactly the tokens that are most wrong",
    lesson=SHIFT,
)
def loss_without_log(logits, labels):
    targets = labels[:, 1:]
    p = logits[:, :-1].softmax(-1).gather(-1, targets.clamp(min=0)[..., None])[..., 0]
    keep = (targets != -100).to(p.dtype)
    return 1 - (p * keep).sum() / keep.sum().clamp(min=1)


@wrong(
    "sft_loss",
    "softmax twice",
    computed="cross_entropy of probabilities",
    why="F.cross_entropy takes logits and applies log_softmax itself",
    effect="the loss cannot fall below log(1 + (V-1)/e), and learning is slow",
    lesson=SHIFT,
)
def loss_with_two_softmaxes(logits, labels):
    return _mean(logits.softmax(-1)[:, :-1], labels[:, 1:])


@wrong(
    "sft_loss",
    "softmax over the wrong axis",
    computed="log_softmax over positions",
    why="the distribution runs over the vocabulary, the last axis",
    effect="what a token gets depends on how long its row is",
    lesson=SHIFT,
)
def loss_normalised_over_time(logits, labels):
    targets = labels[:, 1:]
    lp = logits[:, :-1].log_softmax(1).gather(-1, targets.clamp(min=0)[..., None])[..., 0]
    keep = (targets != -100).to(lp.dtype)
    return -(lp * keep).sum() / keep.sum().clamp(min=1)


@wrong(
    "sft_loss",
    "without a graph",
    computed="the right number, detached",
    why="nothing can be trained with a loss that has no gradient",
    effect="the model never moves",
    lesson=SHIFT,
)
def loss_without_graph(logits, labels):
    return _mean(logits[:, :-1], labels[:, 1:]).detach()


@wrong(
    "sft_loss",
    "no shift and summed",
    computed="the sum of unshifted log-probs",
    why="the logits predict the next token, and the loss is a mean",
    effect="the model learns to copy, in steps that grow with the batch",
    lesson=SHIFT,
)
def loss_unshifted_and_summed(logits, labels):
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")


@wrong(
    "sft_loss",
    "NaN without supervision",
    computed="0/0 when no token of the batch is supervised",
    why="an empty mean is NaN; the contract says 0",
    effect="one batch of cut prompts destroys the model",
    lesson=SHIFT,
    star=True,
)
def loss_nan_without_supervision(logits, labels):
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())


@wrong(
    "sft_loss",
    "log of softmax",
    computed="log(softmax(x)): -inf where the probability underflows",
    why="log_softmax subtracts the largest logit first and never takes the log of 0",
    effect="infinite loss and NaN gradient as soon as the model is confident",
    lesson=SHIFT,
    star=True,
)
def loss_log_of_softmax(logits, labels):
    targets = labels[:, 1:]
    lp = logits[:, :-1].softmax(-1).gather(-1, targets.clamp(min=0)[..., None])[..., 0].log()
    keep = targets != -100
    return -torch.where(keep, lp, 0).sum() / keep.sum().clamp(min=1)


# --- sft_loop ---------------------------------------------------------------------------------------------------------

LOOP = "Any batch size on any machine"
clip = torch.nn.utils.clip_grad_norm_


def _sum(model, batch):
    """What the mistakes below share with the right answer: the summed loss of a micro-batch and its tokens."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    labels = batch["labels"][:, 1:]
    keep = labels != -100
    return F.cross_entropy(logits[keep], labels[keep], reduction="sum"), int(keep.sum())


def _count(step):
    return sum(int((batch["labels"][:, 1:] != -100).sum()) for batch in step)


@wrong(
    "sft_loop",
    "mean of micro-batch means",
    computed="each micro-batch's mean, divided by the number of micro-batches",
    why="a token in a short micro-batch then weighs more than one in a long one",
    effect="the split into micro-batches changes the training",
    lesson=LOOP,
)
def loop_averages_means(model, batches, optimizer, max_grad_norm=1.0, scheduler=None):
    model.train()
    optimizer.zero_grad()
    losses = []
    for step in batches:
        parts = [_sum(model, batch) for batch in step if _count([batch])]
        losses.append(sum((s / n / len(parts)).item() for s, n in parts) if parts else 0.0)
        if parts:
            sum(s / n / len(parts) for s, n in parts).backward()
            clip(model.parameters(), max_grad_norm)
            optimizer.step()
            scheduler and scheduler.step()
            optimizer.zero_grad()
    return losses


@wrong(
    "sft_loop",
    "micro-batch losses summed",
    computed="the sum of the micro-batches' means",
    why="the step's loss is one mean over all tokens",
    effect="the learning rate grows with the number of micro-batches; clipping hides it",
    lesson=LOOP,
)
def loop_sums_means(model, batches, optimizer, max_grad_norm=1.0, scheduler=None):
    model.train()
    optimizer.zero_grad()
    losses = []
    for step in batches:
        parts = [s / n for s, n in (_sum(model, batch) for batch in step) if n]
        losses.append(float(sum(part.item() for part in parts)))
        if parts:
            sum(parts).backward()
            clip(model.parameters(), max_grad_norm)
            optimizer.step()
            scheduler and scheduler.step()
            optimizer.zero_grad()
    return losses


@wrong(
    "sft_loop",
    "one step a micro-batch",
    computed="an optimizer step after each micro-batch",
    why="micro-batches are parts of one batch: they share one step",
    effect="more and noisier steps than asked for; the schedule ends early",
    lesson=LOOP,
)
def loop_steps_each_micro_batch(model, batches, optimizer, max_grad_norm=1.0, scheduler=None):
    model.train()
    losses = []
    for step in batches:
        total = 0.0
        for batch in step:
            optimizer.zero_grad()
            loss, n = _sum(model, batch)
            if n:
                (loss / n).backward()
                clip(model.parameters(), max_grad_norm)
                optimizer.step()
                total += loss.item()
        if _count(step):
            scheduler and scheduler.step()
        losses.append(total / max(_count(step), 1))
    return losses


def _loop(model, batches, optimizer, max_grad_norm, scheduler, **mistake):
    """The right loop with one switch for each of the mistakes below that differ from it by a line."""
    if not mistake.get("keeps_mode"):
        model.train()
    if not mistake.get("keeps_stale"):
        optimizer.zero_grad()
    losses = []
    for step in batches:
        total = _count(step)
        if total == 0 and not mistake.get("steps_on_nothing"):
            losses.append(math.nan if mistake.get("reports_nan") else 0.0)
            if mistake.get("schedules_on_nothing") and scheduler:
                scheduler.step()
            continue
        loss = 0.0
        for batch in step:
            summed, n = _sum(model, batch)
            (summed / max(total, 1)).backward()
            loss += summed.item() / max(total, 1)
            if mistake.get("clips_each"):
                clip(model.parameters(), max_grad_norm)
            if mistake.get("zeroes_each") and batch is not step[-1]:
                optimizer.zero_grad()
        if scheduler and mistake.get("schedules_first"):
            scheduler.step()
        if mistake.get("clips_values"):
            torch.nn.utils.clip_grad_value_(model.parameters(), max_grad_norm)
        elif not mistake.get("never_clips"):
            clip(model.parameters(), 1.0 if mistake.get("clips_at_one") else max_grad_norm)
        if mistake.get("zeroes_before_step"):
            optimizer.zero_grad()
        optimizer.step()
        if scheduler and not mistake.get("schedules_first") and not mistake.get("never_schedules"):
            scheduler.step()
        if not mistake.get("never_zeroes"):
            optimizer.zero_grad()
        losses.append(loss * len(step) if mistake.get("reports_scaled") else loss)
    return losses


@wrong(
    "sft_loop",
    "gradients never cleared",
    computed="each step along the sum of all gradients so far",
    why="backward adds to .grad; somebody has to clear it between steps",
    effect="the gradient grows and the old data are trained again and again",
    lesson=LOOP,
)
def loop_never_clears(model, batches, optimizer, max_grad_norm=1.0, scheduler=None):
    return _loop(model, batches, optimizer, max_grad_norm, scheduler, never_zeroes=True)


@wrong(
    "sft_loop",
    "stale gradients kept",
    computed="a first step that includes whatever .grad held before",
    why="gradients of somebody else's backward are not part of this training",
    effect="one wrong step at the start, after an evaluation that called backward",
    lesson=LOOP,
)
def loop_keeps_stale_gradients(model, batches, optimizer, max_grad_norm=1.0, scheduler=None):
    return _loop(model, batches, optimizer, max_grad_norm, scheduler, keeps_stale=True)


@wrong(
    "sft_loop",
    "cleared between micro-batches",
    computed="the gradient of the last micro-batch alone",
    why="accumulating means that .grad is kept until the step",
    effect="most of the data is thrown away",
    lesson=LOOP,
)
def loop_clears_each_micro_batch(model, batches, optimizer, max_grad_norm=1.0, scheduler=None):
    return _loop(model, batches, optimizer, max_grad_norm, scheduler, zeroes_each=True)


@wrong(
    "sft_loop",
    "cleared before the step",
    computed="a step along no gradient",
    why="the order is backward, clip, step, clear",
    effect="the weights never move, though the loss is logged",
    lesson=LOOP,
)
def loop_clears_before_the_step(model, batches, optimizer, max_grad_norm=1.0, scheduler=None):
    return _loop(model, batches, optimizer, max_grad_norm, scheduler, zeroes_before_step=True)


@wrong(
    "sft_loop",
    "clipped after each micro-batch",
    computed="partial sums clipped before the rest is added",
    why="the norm that is bounded is that of the complete gradient",
    effect="the direction of the step depends on the order of the micro-batches",
    lesson=LOOP,
)
def loop_clips_each_micro_batch(model, batches, optimizer, max_grad_norm=1.0, scheduler=None):
    return _loop(model, batches, optimizer, max_grad_norm, scheduler, clips_each=True)


@wrong(
    "sft_loop",
    "never clipped",
    computed="a step along the gradient as it is",
    why="max_grad_norm bounds the gradient's norm",
    effect="one strange batch can throw the model far away",
    lesson=LOOP,
)
def loop_never_clips(model, batches, optimizer, max_grad_norm=1.0, scheduler=None):
    return _loop(model, batches, optimizer, max_grad_norm, scheduler, never_clips=True)


@wrong(
    "sft_loop",
    "clipped at 1 always",
    computed="clipping to 1.0 whatever max_grad_norm says",
    why="the bound is an argument",
    effect="the option has no effect",
    lesson=LOOP,
)
def loop_clips_at_one(model, batches, optimizer, max_grad_norm=1.0, scheduler=None):
    return _loop(model, batches, optimizer, max_grad_norm, scheduler, clips_at_one=True)


@wrong(
    "sft_loop",
    "values clipped, not the norm",
    computed="each entry of the gradient cut to max_grad_norm",
    why="clipping the norm keeps the direction; cutting entries does not",
    effect="the step points elsewhere",
    lesson=LOOP,
)
def loop_clips_values(model, batches, optimizer, max_grad_norm=1.0, scheduler=None):
    return _loop(model, batches, optimizer, max_grad_norm, scheduler, clips_values=True)


@wrong(
    "sft_loop",
    "schedule ignored",
    computed="a constant learning rate",
    why="the scheduler steps once after each optimizer step",
    effect="no warmup and no decay",
    lesson=LOOP,
)
def loop_never_schedules(model, batches, optimizer, max_grad_norm=1.0, scheduler=None):
    return _loop(model, batches, optimizer, max_grad_norm, scheduler, never_schedules=True)


@wrong(
    "sft_loop",
    "schedule before the step",
    computed="the first step with the second learning rate",
    why="scheduler.step() sets the rate of the next step and comes after optimizer.step()",
    effect="the whole schedule is one step early",
    lesson=LOOP,
)
def loop_schedules_first(model, batches, optimizer, max_grad_norm=1.0, scheduler=None):
    return _loop(model, batches, optimizer, max_grad_norm, scheduler, schedules_first=True)


@wrong(
    "sft_loop",
    "steps without supervision",
    computed="an optimizer step with a gradient of 0",
    why="momentum and weight decay move the weights even when the gradient is 0",
    effect="weights drift on batches that teach nothing",
    lesson=LOOP,
)
def loop_steps_on_nothing(model, batches, optimizer, max_grad_norm=1.0, scheduler=None):
    return _loop(model, batches, optimizer, max_grad_norm, scheduler, steps_on_nothing=True)


@wrong(
    "sft_loop",
    "schedule moves without a step",
    computed="a scheduler step for an element that took no optimizer step",
    why="the schedule counts optimizer steps",
    effect="warmup and decay end too early",
    lesson=LOOP,
)
def loop_schedules_on_nothing(model, batches, optimizer, max_grad_norm=1.0, scheduler=None):
    return _loop(model, batches, optimizer, max_grad_norm, scheduler, schedules_on_nothing=True)


@wrong(
    "sft_loop",
    "NaN reported without supervision",
    computed="NaN as the loss of an element without supervised tokens",
    why="the contract says 0.0, and one NaN makes every average of the log NaN",
    effect="the run looks broken though it is not",
    lesson=LOOP,
)
def loop_reports_nan(model, batches, optimizer, max_grad_norm=1.0, scheduler=None):
    return _loop(model, batches, optimizer, max_grad_norm, scheduler, reports_nan=True)


@wrong(
    "sft_loop",
    "left in eval mode",
    computed="training with dropout off, if the model came from an evaluation",
    why="train mode is part of training: model.train()",
    effect="no dropout, and no error",
    lesson=LOOP,
)
def loop_keeps_the_mode(model, batches, optimizer, max_grad_norm=1.0, scheduler=None):
    return _loop(model, batches, optimizer, max_grad_norm, scheduler, keeps_mode=True)


@wrong(
    "sft_loop",
    "reported loss is scaled",
    computed="the loss times the number of micro-batches",
    why="the number that is logged should be the mean whose gradient was taken",
    effect="runs with different splits look different, and are not",
    lesson=LOOP,
)
def loop_reports_scaled(model, batches, optimizer, max_grad_norm=1.0, scheduler=None):
    return _loop(model, batches, optimizer, max_grad_norm, scheduler, reports_scaled=True)


@wrong(
    "sft_loop",
    "goes over the batches twice",
    computed="nothing, when the batches come from a generator",
    why="a generator can be gone over once: len(list(batches)) empties it",
    effect="a run that ends at once, without a step",
    lesson=LOOP,
)
def loop_counts_first(model, batches, optimizer, max_grad_norm=1.0, scheduler=None):
    steps = sum(1 for _ in batches)
    losses = _loop(model, batches, optimizer, max_grad_norm, scheduler)
    return losses[:steps]


@wrong(
    "sft_loop",
    "empty micro-batch is NaN",
    computed="a mean of no tokens for a micro-batch that is all prompt",
    why="0/0 is NaN, also when it is weighted with 0",
    effect="one micro-batch of cut prompts destroys the model",
    lesson=LOOP,
    star=True,
)
def loop_nan_on_empty_micro_batch(model, batches, optimizer, max_grad_norm=1.0, scheduler=None):
    model.train()
    optimizer.zero_grad()
    losses = []
    for step in batches:
        total = _count(step)
        loss = 0.0
        for batch in step if total else []:
            summed, n = _sum(model, batch)
            part = summed / torch.tensor(float(n)) * n / total
            part.backward()
            loss += part.item()
        if total:
            clip(model.parameters(), max_grad_norm)
            optimizer.step()
            scheduler and scheduler.step()
            optimizer.zero_grad()
        losses.append(loss)
    return losses


# --- lr_at ------------------------------------------------------------------------------------------------------------

RATE = "Warmup and decay"


def _cosine(p, peak, ratio):
    return peak * (ratio + (1 - ratio) * (1 + math.cos(math.pi * p)) / 2)


@wrong(
    "lr_at",
    "cosine over the whole run",
    computed="progress step / total_steps after the warmup",
    why="the cosine starts where the warmup ends: (step - warmup) / (total - warmup)",
    effect="the rate jumps down at the end of the warmup",
    lesson=RATE,
)
def lr_cosine_from_zero(step, total_steps, peak_lr, warmup_steps, min_ratio=0.0):
    if step < warmup_steps:
        return peak_lr * step / warmup_steps
    return _cosine(min(step / total_steps, 1.0), peak_lr, min_ratio)


@wrong(
    "lr_at",
    "cosine too long",
    computed="progress (step - warmup) / total_steps",
    why="total - warmup steps remain after the warmup",
    effect="the rate has not come down when the run ends",
    lesson=RATE,
)
def lr_cosine_too_long(step, total_steps, peak_lr, warmup_steps, min_ratio=0.0):
    if step < warmup_steps:
        return peak_lr * step / warmup_steps
    return _cosine(min((step - warmup_steps) / total_steps, 1.0), peak_lr, min_ratio)


@wrong(
    "lr_at",
    "warmup starts at step one",
    computed="peak * (step + 1) / warmup",
    why="the contract has 0 at step 0 and the peak at warmup_steps",
    effect="the schedule is one step early",
    lesson=RATE,
)
def lr_warmup_one_early(step, total_steps, peak_lr, warmup_steps, min_ratio=0.0):
    if step < warmup_steps:
        return peak_lr * (step + 1) / warmup_steps
    return _cosine(min((step - warmup_steps) / max(1, total_steps - warmup_steps), 1.0), peak_lr, min_ratio)


@wrong(
    "lr_at",
    "linear decay",
    computed="a straight line down",
    why="the decay is half a cosine: slow at both ends",
    effect="less time at high and at low rates than planned",
    lesson=RATE,
)
def lr_linear_decay(step, total_steps, peak_lr, warmup_steps, min_ratio=0.0):
    if step < warmup_steps:
        return peak_lr * step / warmup_steps
    p = min((step - warmup_steps) / max(1, total_steps - warmup_steps), 1.0)
    return peak_lr * (1.0 - (1 - min_ratio) * p)


@wrong(
    "lr_at",
    "quarter of a cosine",
    computed="cos(pi p / 2)",
    why="half a cosine, (1 + cos(pi p)) / 2, arrives at the bottom with slope 0",
    effect="the rate stays high and then falls off a cliff",
    lesson=RATE,
)
def lr_quarter_cosine(step, total_steps, peak_lr, warmup_steps, min_ratio=0.0):
    if step < warmup_steps:
        return peak_lr * step / warmup_steps
    p = min((step - warmup_steps) / max(1, total_steps - warmup_steps), 1.0)
    return peak_lr * (min_ratio + (1 - min_ratio) * math.cos(math.pi * p / 2))


@wrong(
    "lr_at",
    "rises again",
    computed="a cosine that goes on after total_steps",
    why="the rate is held at min_ratio * peak_lr after the end",
    effect="a run that goes on a little longer speeds up again",
    lesson=RATE,
)
def lr_rises_again(step, total_steps, peak_lr, warmup_steps, min_ratio=0.0):
    if step < warmup_steps:
        return peak_lr * step / warmup_steps
    return _cosine((step - warmup_steps) / max(1, total_steps - warmup_steps), peak_lr, min_ratio)


@wrong(
    "lr_at",
    "zero after the end",
    computed="0 once step exceeds total_steps",
    why="the rate is held at min_ratio * peak_lr",
    effect="the last steps of a run that counts from 1 do nothing",
    lesson=RATE,
)
def lr_zero_after_the_end(step, total_steps, peak_lr, warmup_steps, min_ratio=0.0):
    if step < warmup_steps:
        return peak_lr * step / warmup_steps
    if step > total_steps:
        return 0.0
    return _cosine((step - warmup_steps) / max(1, total_steps - warmup_steps), peak_lr, min_ratio)


@wrong(
    "lr_at",
    "min_ratio as a floor",
    computed="max(cosine, min_ratio) * peak_lr",
    why="min_ratio is where the cosine ends, so that all of it is scaled",
    effect="the rate sits on the floor for the last part of the run",
    lesson=RATE,
)
def lr_with_a_floor(step, total_steps, peak_lr, warmup_steps, min_ratio=0.0):
    if step < warmup_steps:
        return peak_lr * step / warmup_steps
    p = min((step - warmup_steps) / max(1, total_steps - warmup_steps), 1.0)
    return peak_lr * max(min_ratio, (1 + math.cos(math.pi * p)) / 2)


@wrong(
    "lr_at",
    "min_ratio as a rate",
    computed="a cosine that ends at min_ratio itself",
    why="it is a share of peak_lr",
    effect="the final rate is orders of magnitude too high",
    lesson=RATE,
)
def lr_min_ratio_as_a_rate(step, total_steps, peak_lr, warmup_steps, min_ratio=0.0):
    if step < warmup_steps:
        return peak_lr * step / warmup_steps
    p = min((step - warmup_steps) / max(1, total_steps - warmup_steps), 1.0)
    return min_ratio + (peak_lr - min_ratio) * (1 + math.cos(math.pi * p)) / 2


@wrong(
    "lr_at",
    "warmup from min_ratio",
    computed="a warmup that starts at min_ratio * peak_lr",
    why="the warmup starts at 0",
    effect="Adam's first steps, whose second moments are guesses, are too large",
    lesson=RATE,
)
def lr_warmup_from_the_minimum(step, total_steps, peak_lr, warmup_steps, min_ratio=0.0):
    if step < warmup_steps:
        return peak_lr * (min_ratio + (1 - min_ratio) * step / warmup_steps)
    return _cosine(min((step - warmup_steps) / max(1, total_steps - warmup_steps), 1.0), peak_lr, min_ratio)


@wrong(
    "lr_at",
    "no warmup",
    computed="a cosine from the first step on",
    why="the first warmup_steps are a line from 0 to the peak",
    effect="Adam's first steps, whose second moments are guesses, are too large",
    lesson=RATE,
)
def lr_without_warmup(step, total_steps, peak_lr, warmup_steps, min_ratio=0.0):
    return _cosine(min(max(0, step - warmup_steps) / max(1, total_steps - warmup_steps), 1.0), peak_lr, min_ratio)


@wrong(
    "lr_at",
    "zero at the start without warmup",
    computed="0 at step 0 whatever warmup_steps is",
    why="without warmup the run starts at the peak",
    effect="the first batch is lost",
    lesson=RATE,
)
def lr_zero_at_zero(step, total_steps, peak_lr, warmup_steps, min_ratio=0.0):
    if step < warmup_steps or step == 0:
        return peak_lr * step / max(1, warmup_steps)
    return _cosine(min((step - warmup_steps) / max(1, total_steps - warmup_steps), 1.0), peak_lr, min_ratio)


@wrong(
    "lr_at",
    "min_ratio ignored",
    computed="a cosine down to 0",
    why="the cosine ends at min_ratio * peak_lr",
    effect="the end of the run hardly learns",
    lesson=RATE,
)
def lr_ignores_min_ratio(step, total_steps, peak_lr, warmup_steps, min_ratio=0.0):
    if step < warmup_steps:
        return peak_lr * step / warmup_steps
    return _cosine(min((step - warmup_steps) / max(1, total_steps - warmup_steps), 1.0), peak_lr, 0.0)


@wrong(
    "lr_at",
    "too long and without a hold",
    computed="progress step / total_steps, going on after the end",
    why="the cosine starts after the warmup and is held at the end",
    effect="a jump after the warmup, and a rate that rises again",
    lesson=RATE,
)
def lr_from_zero_and_rising(step, total_steps, peak_lr, warmup_steps, min_ratio=0.0):
    if step < warmup_steps:
        return peak_lr * step / warmup_steps
    return _cosine(step / total_steps, peak_lr, min_ratio)
