"""Week 03, solved: Bradley-Terry and outcome reward models.

Read it after your own attempt. Each comment says why a line is there; most of them guard against something that real
training code got wrong.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def last_token_rewards(values: Tensor, attention_mask: Tensor) -> Tensor:
    """The value at the last attended token.  Shapes: (B, T), (B, T) -> (B,)."""
    attended = attention_mask.bool()
    positions = torch.arange(values.shape[1], device=values.device)
    # The largest attended position. mask.sum() - 1 is right with right padding only, column -1 with left padding only.
    last = torch.where(attended, positions, 0).amax(dim=1)
    rewards = values.gather(1, last[:, None]).squeeze(1)  # squeeze(1), not squeeze(): a batch of one stays a batch
    return torch.where(attended.any(dim=1), rewards, 0)  # nothing attended: 0, and not whatever stands in column 0


def bradley_terry_loss(chosen: Tensor, rejected: Tensor, margin: float | Tensor = 0.0) -> Tensor:
    """Mean of -log sigmoid(chosen - rejected - margin).  Shapes: (B,), (B,), scalar or (B,) -> scalar."""
    if isinstance(margin, Tensor):
        margin = _full_precision(margin).detach()  # a label that comes with the data, not something to learn
    difference = _full_precision(chosen) - _full_precision(rejected) - margin
    # logsigmoid, not log(sigmoid()): at a difference of -200 the sigmoid underflows to 0 in float32, and the loss of
    # the worst pairs would be inf with a NaN gradient. The margin stands inside, or it would have no gradient at all.
    return -F.logsigmoid(difference).mean()


def pairwise_accuracy(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Share of pairs ranked right, a tie counting one half.  Shapes: (B,), (B,) -> scalar."""
    chosen = _full_precision(chosen)
    # The half makes a model that gives every text the same score 50% accurate, which is what it is.
    credit = torch.where(chosen > rejected, 1.0, torch.where(chosen == rejected, 0.5, 0.0))
    return credit.to(chosen.dtype).mean()


def orm_loss(logits: Tensor, correct: Tensor, completion_mask: Tensor) -> Tensor:
    """Binary cross-entropy of each completion token, token mean.  Shapes: (B, T), (B,), (B, T) -> scalar."""
    mask = completion_mask.bool()
    # Not `loss * mask` afterwards: 0 * NaN is NaN, and padding may hold anything.
    logits = torch.where(mask, _full_precision(logits), 0)
    # (B, 1): every token of a completion is asked the same question, "will this turn out right?"
    labels = correct.detach().to(logits.dtype)[:, None].expand(logits.shape)
    per_token = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")  # stable at logits of 1e4
    per_token = torch.where(mask, per_token, 0)  # a masked logit of 0 would cost log 2
    return per_token.sum() / mask.sum().clamp(min=1)  # clamp: no completion token at all gives 0, not 0 / 0


def orm_score(logits: Tensor, completion_mask: Tensor, how: str) -> Tensor:
    """Probability of correctness by "last", "mean" or "min" token.  Shapes: (B, T), (B, T) -> (B,)."""
    mask = completion_mask.bool()
    # Probabilities first, then the mean: the mean of the logits is another number once they have different signs.
    probabilities = torch.sigmoid(torch.where(mask, _full_precision(logits), 0))
    if how == "last":
        scores = last_token_rewards(probabilities, mask)
    elif how == "mean":
        scores = torch.where(mask, probabilities, 0).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
    elif how == "min":
        scores = torch.where(mask, probabilities, 1).amin(dim=1)  # 1 never is the smallest unless all are
    else:
        raise ValueError(f'unknown how {how!r}: "last", "mean" or "min"')
    return torch.where(mask.any(dim=1), scores, 0)  # an empty completion scores 0, whichever way


def _full_precision(values: Tensor) -> Tensor:
    """Half precision to float32 before any difference or sum: bfloat16 keeps 8 bits of each number."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
