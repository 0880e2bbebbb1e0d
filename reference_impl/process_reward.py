"""Week 04: process reward models: a rating for every step of a solution, and what to do with the ratings.

    logits_t = (bad, neutral, good) at the separator that ends a step,      P(good) = softmax(logits_t)[2]

A separator's logits have seen the whole step and everything before it, so the model is asked there, at that very
position: labels are not shifted. Where nothing is asked the label is -100, which the loss leaves out.

Where others differ: the loss of the book's code is ours, a three-class cross-entropy averaged over the labelled tokens;
TRL 1.16 has no process reward model. The book's data code lays all rated alternatives of a step one after another as if
they were one trace; rate each after the steps that were chosen before it instead (openai/prm800k, issue 11).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from reference_impl.masking import keep, upcast

IGNORED = -100


def prm_labels(input_ids: Tensor, separator_id: int, step_ratings: list[list[int]], completion_mask: Tensor) -> Tensor:
    """Class 0, 1, 2 for rating -1, 0, 1 at the separators of the completion, in order; -100 everywhere else.

    Shapes: input_ids, completion_mask (B, T) and B lists of ratings -> LongTensor (B, T). Surplus ratings (of a
    truncated trace) are dropped, surplus separators stay -100. ValueError for other ratings or another number of lists.
    """
    if len(step_ratings) != len(input_ids):
        raise ValueError(f"step_ratings has {len(step_ratings)} lists for {len(input_ids)} rows: give one list a row")
    labels = torch.full_like(input_ids, IGNORED, dtype=torch.long)
    step_ends = (input_ids == separator_id) & completion_mask.bool()
    for row, ratings in enumerate(step_ratings):
        if not set(ratings) <= {-1, 0, 1}:
            raise ValueError(f"step_ratings[{row}] = {ratings}: a rating is -1, 0 or 1")
        positions = step_ends[row].nonzero().flatten()[: len(ratings)]
        classes = torch.tensor(ratings[: len(positions)], dtype=torch.long, device=labels.device) + 1
        labels[row, positions] = classes
    return labels


def prm_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy at the labelled positions, averaged over them. Lightman et al., arXiv:2305.20050, section 2.6.

    Shapes: logits (B, T, 3), labels (B, T) with -100 where nothing is asked -> scalar; 0 when nothing is labelled.
    """
    labelled = labels != IGNORED
    losses = F.cross_entropy(upcast(logits[labelled]), labels[labelled].long(), reduction="sum")
    return losses / labelled.sum().clamp(min=1)


def step_scores(logits: Tensor, labels: Tensor) -> list[Tensor]:
    """P(good) at each labelled position, one 1-D tensor a row, empty for a row without steps.

    Shapes: logits (B, T, 3), labels (B, T) -> B tensors of (number of steps,).
    """
    labelled = labels != IGNORED
    return [upcast(logits[row, labelled[row]]).softmax(dim=-1)[:, 2] for row in range(len(logits))]


def aggregate_steps(scores: Tensor, step_mask: Tensor, how: str) -> Tensor:
    """One score a solution from those of its steps: "min", "prod", "mean" or "last". arXiv:2305.20050, appendix F.

    Shapes: scores, step_mask (B, S) -> (B,). A row without steps scores 0. ValueError for another `how`.
    """
    mask = step_mask.bool()
    if how == "min":
        aggregated = keep(scores, mask).masked_fill(~mask, torch.inf).amin(dim=1)
    elif how == "prod":
        # Multiplied, not exp(sum(log)): nothing to clamp at a score of 0, and the error does not grow with the logs.
        aggregated = keep(scores, mask).masked_fill(~mask, 1).prod(dim=1)
    elif how == "mean":
        aggregated = keep(scores, mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
    elif how == "last":
        last = (mask * torch.arange(mask.shape[1], device=mask.device)).amax(dim=1, keepdim=True)
        aggregated = keep(scores, mask).gather(1, last).squeeze(1)
    else:
        raise ValueError(f'how={how!r}: choose "min", "prod", "mean" or "last"')
    return keep(aggregated, mask.any(dim=1))


def rerank_accuracy(scores: Tensor, correct: Tensor) -> Tensor:
    """Accuracy of answering each prompt with the best-scored of its N samples; tied best samples share the credit.

    Shapes: scores (P, N), correct (P, N) of any dtype -> scalar. Cobbe et al., arXiv:2110.14168.
    """
    scores = upcast(scores)
    best = (scores == scores.amax(dim=1, keepdim=True)).to(scores.dtype)
    return ((best * correct.to(scores.dtype)).sum(dim=1) / best.sum(dim=1)).mean()
