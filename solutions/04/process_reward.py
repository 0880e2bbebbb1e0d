"""Week 04, solved: process reward models.

Read it after your own attempt. Each comment says why a line is there; most of them guard against something that real
training code got wrong.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def prm_labels(input_ids: Tensor, separator_id: int, step_ratings: list[list[int]], completion_mask: Tensor) -> Tensor:
    """Classes at the separators, -100 elsewhere.  Shapes: (B, T), B lists, (B, T) -> LongTensor (B, T)."""
    labels = torch.full_like(input_ids, -100, dtype=torch.long)
    # The mask matters: the prompt may contain separators of its own, and they end no step of the solution.
    step_ends = (input_ids == separator_id) & completion_mask.bool()
    for row, ratings in enumerate(step_ratings):
        positions = step_ends[row].nonzero().flatten()  # in order: the k-th separator ends the k-th step
        n = min(len(positions), len(ratings))  # a truncated trace has lost steps, an unfinished rating has skipped some
        labels[row, positions[:n]] = torch.tensor(ratings[:n], dtype=torch.long, device=labels.device) + 1
    return labels


def prm_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy at the labelled positions, averaged.  Shapes: (B, T, 3), (B, T) -> scalar."""
    # labels != -100, never labels.bool(): -100 is true, and every token would count as a rated step.
    labelled = labels != -100
    # Selecting first leaves NaN at unlabelled positions behind, in the value and in the gradient. No shift: the label
    # at the separator belongs to the logits at the separator.
    losses = F.cross_entropy(_full_precision(logits[labelled]), labels[labelled].long(), reduction="sum")
    return losses / labelled.sum().clamp(min=1)  # the sum over no positions is 0, and 0 / 1 is 0 where a mean is NaN


def step_scores(logits: Tensor, labels: Tensor) -> list[Tensor]:
    """P(good) of each rated step.  Shapes: (B, T, 3), (B, T) -> B tensors of (steps of the row,)."""
    # Select, then softmax: what stands at unrated positions takes no part. Class 2 is rating +1; neutral is not good.
    rated = [_full_precision(logits[row][labels[row] != -100]) for row in range(len(logits))]
    return [torch.softmax(steps, dim=-1)[:, 2] for steps in rated]


def aggregate_steps(scores: Tensor, step_mask: Tensor, how: str) -> Tensor:
    """One score a solution: "min", "prod", "mean" or "last".  Shapes: (B, S), (B, S) -> (B,)."""
    mask = step_mask.bool()
    scores = torch.where(mask, _full_precision(scores), 0)  # padding may hold NaN; each rule fills in its own neutral
    if how == "min":
        result = torch.where(mask, scores, torch.inf).amin(dim=1)
    elif how == "prod":
        # The product itself. exp(log(scores).sum()) needs an epsilon for a score of 0, and with it no chain of bad
        # steps can come near 0.
        result = torch.where(mask, scores, 1).prod(dim=1)
    elif how == "mean":
        result = scores.sum(dim=1) / mask.sum(dim=1).clamp(min=1)
    elif how == "last":
        positions = torch.arange(scores.shape[1], device=scores.device)
        last = torch.where(mask, positions, 0).amax(dim=1, keepdim=True)  # (B, 1); column -1 may be padding
        result = scores.gather(1, last).squeeze(1)
    else:
        raise ValueError(f'unknown how {how!r}: "min", "prod", "mean" or "last"')
    # No steps: 0, the score of a solution that shows nothing, and not the empty product 1 or the empty minimum inf.
    return torch.where(mask.any(dim=1), result, 0)


def rerank_accuracy(scores: Tensor, correct: Tensor) -> Tensor:
    """Accuracy of the best-scored sample of each prompt.  Shapes: (P, N), (P, N) -> scalar."""
    scores = _full_precision(scores)
    # argmax would take the first of several best ones: a model that scores everything alike would be judged by the
    # order of the samples. Sharing the credit is the expected accuracy of drawing one of them.
    best = (scores == scores.amax(dim=1, keepdim=True)).to(scores.dtype)
    return ((best * correct.to(scores.dtype)).sum(dim=1) / best.sum(dim=1)).mean()


def _full_precision(values: Tensor) -> Tensor:
    """Half precision to float32 before any sum or product: bfloat16 keeps 8 bits of each number."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
