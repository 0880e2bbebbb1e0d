"""Week 02: instruction tuning (book chapter 4). Fill in the five functions; `pytest weeks/02` grades this file.

Shapes: B examples, T tokens, V vocabulary. A label of -100 means "no supervision here" (PyTorch's `ignore_index`).
Labels are aligned with `input_ids`; the shift by one token happens inside `sft_loss`, nowhere else.
"""

from collections.abc import Iterable

import torch
from torch import Tensor


def build_example(prompt_ids: list[int], response_ids: list[int], eos_id: int, max_length: int) -> dict[str, list[int]]:
    """One training example: the whole conversation as input, only the response and its EOS as labels.

    Formula: input_ids = prompt + response + [eos]; labels = the same with every prompt token replaced by -100; both cut
             to their first `max_length` entries.
    Shapes:  lists of ids in; {"input_ids": list, "labels": list} of one common length out.
    Edges:   the EOS is supervised when it survives the cut. A prompt that fills `max_length` leaves only -100. The
             prompt's own tokens are never labels, whatever their ids. The lists given are not changed.
    Example: build_example([5, 6], [7, 8], eos_id=2, max_length=10) -> input_ids [5, 6, 7, 8, 2],
             labels [-100, -100, 7, 8, 2]; with max_length=4 the EOS is lost: [5, 6, 7, 8], [-100, -100, 7, 8]
    Source:  Ouyang et al. 2022 (InstructGPT), arXiv:2203.02155, section 3; book ch. 4, prompt masking.
    """
    raise NotImplementedError("Week 02, task 1: write build_example (lesson section 'From a conversation to labels')")


def collate(examples: list[dict[str, list[int]]], pad_id: int) -> dict[str, Tensor]:
    """A batch from examples of different lengths, padded on the right to the longest of them.

    Formula: padding has input_ids = pad_id, attention_mask = 0, labels = -100; real tokens have attention_mask = 1.
    Shapes:  B dicts as `build_example` returns -> {"input_ids", "attention_mask", "labels"}, LongTensors (B, T).
    Edges:   many tokenizers pad with EOS (pad_id == eos_id): an EOS inside an example stays attended and supervised, so
             padding must follow from lengths, not from ids. The examples given are not changed.
    Example: input_ids [5, 7, 0] and [6], labels [-100, 7, 0] and [-100], pad_id 0 -> input_ids [[5, 7, 0], [6, 0, 0]],
             attention_mask [[1, 1, 1], [1, 0, 0]], labels [[-100, 7, 0], [-100, -100, -100]]
    Source:  book ch. 4, batching; the same mistake in the wild: github.com/huggingface/trl/issues/1623.
    """
    raise NotImplementedError("Week 02, task 2: write collate (lesson section 'A batch of unequal lengths')")


def sft_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Next-token cross-entropy, averaged over all supervised tokens of the batch.

    Formula: -(1/n) sum of log softmax(logits[i, t])[labels[i, t+1]] over the n pairs i, t with labels[i, t+1] != -100.
    Shapes:  logits (B, T, V), labels (B, T) -> scalar.
    Edges:   the logits at t predict the label at t + 1: the last logits and the first label are unused. One mean over
             the batch, not a mean of row means. Without a supervised token the loss is 0 with zero gradient.
             Star: NaN or infinity in the logits of unsupervised positions changes nothing; logits of +-1e4, and of -inf
             at labels that are not asked for, give finite losses; half precision is computed in float32.
    Example: logits [[[0, 0], [log 3, 0], [9, 9]]], labels [[-100, 1, 0]] -> (log 2 + log 4/3) / 2 = 0.4904
    Source:  book ch. 4, the loss of instruction tuning; Ouyang et al. 2022, arXiv:2203.02155.
    """
    raise NotImplementedError("Week 02, task 3: write sft_loss (lesson section 'The loss and its shift')")


def sft_loop(
    model: torch.nn.Module,
    batches: Iterable[list[dict[str, Tensor]]],
    optimizer: torch.optim.Optimizer,
    max_grad_norm: float = 1.0,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
) -> list[float]:
    """Train: one optimizer step for each element of `batches`, which is a list of micro-batches that fit in memory.

    Formula: the gradient of a step is that of L = -(1/n) sum of logprobs over the n supervised tokens of all its
             micro-batches together (labels[:, 1:] != -100): the split into micro-batches must not matter.
    Shapes:  micro-batches are dicts as `collate` returns, (B, T) each, B and T may differ;
             model(input_ids=..., attention_mask=...).logits is (B, T, V). Returns a list of floats: L of every step.
    Edges:   put the model in train mode and clear stale gradients first. Then for each element: backward through its
             micro-batches, clip the gradient to max_grad_norm (torch.nn.utils.clip_grad_norm_), optimizer.step(),
             scheduler.step() if there is one, clear the gradients. An element without any supervised token takes no
             step (neither optimizer nor scheduler) and reports 0.0. `batches` may be a generator: go over it once.
    Example: micro-batches with 1 and 3 supervised tokens, mean losses 4.0 and 2.0 -> (1*4.0 + 3*2.0) / 4 = 2.5, not 3.0
    Source:  book ch. 4; the mistake and its repair: github.com/huggingface/transformers/pull/34191.
    """
    raise NotImplementedError("Week 02, task 4: write sft_loop (lesson section 'Any batch size on any machine')")


def lr_at(step: int, total_steps: int, peak_lr: float, warmup_steps: int, min_ratio: float = 0.0) -> float:
    """The learning rate at a step: linear warmup, then a cosine decay, then constant.

    Formula: step < warmup_steps:  peak_lr * step / warmup_steps
             afterwards, with p = (step - warmup_steps) / (total_steps - warmup_steps), at most 1:
             peak_lr * (min_ratio + (1 - min_ratio) * (1 + cos(pi p)) / 2)
    Shapes:  numbers in, a float out.
    Edges:   peak_lr at warmup_steps, min_ratio * peak_lr at total_steps and for ever after. warmup_steps = 0 starts at
             peak_lr. warmup_steps = total_steps must not divide by zero.
    Example: lr_at(5, 100, 1e-3, 10) -> 5e-4; lr_at(55, 100, 1e-3, 10) -> 5e-4; lr_at(100, 100, 1e-3, 10, 0.1) -> 1e-4
    Source:  Loshchilov and Hutter 2017 (SGDR), arXiv:1608.03983, eq. 5; book ch. 4, hyperparameters.
    """
    raise NotImplementedError("Week 02, task 5: write lr_at (lesson section 'Warmup and decay')")
