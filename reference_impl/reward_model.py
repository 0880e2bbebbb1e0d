"""Week 03: reward models: Bradley-Terry on pairs, and outcome reward models on single completions.

    P(chosen > rejected) = sigmoid(chosen - rejected),      P(correct | tokens up to t) = sigmoid(logits_t)

The preference model gives one value a sequence, read at its last attended token. Its loss sees differences only:
adding a constant to all rewards of a prompt changes nothing, so its scores cannot be compared across prompts. The
outcome model is asked at every completion token whether the completion will turn out right.

Where others differ: Bradley-Terry is the same number in TRL and in the book's code; TRL can add a centring term,
c (chosen + rejected)^2, which pins the free constant. The book's code finds the last token by counting the mask,
which is wrong with left padding; here the position is found, not counted. The ORM loss of the book's code is ours: a
mean over all completion tokens of the batch, in which a long completion weighs more than a short one.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from reference_impl.masking import aggregate_tokens, keep, upcast


def last_token_rewards(values: Tensor, attention_mask: Tensor) -> Tensor:
    """The value at each row's last attended token, with right or left padding.

    Shapes: values, attention_mask (B, T) -> (B,). A row with an empty mask gives 0.
    """
    attended = attention_mask.bool()
    last = (attended * torch.arange(values.shape[1], device=values.device)).amax(dim=1)  # the largest attended position
    rewards = values.gather(1, last.unsqueeze(1)).squeeze(1)
    return torch.where(attended.any(dim=1), rewards, 0)


def bradley_terry_loss(chosen: Tensor, rejected: Tensor, margin: float | Tensor = 0.0) -> Tensor:
    """Mean of -log sigmoid(chosen - rejected - margin): the likelihood of the observed preferences.

    Shapes: chosen, rejected (B,), margin a number or (B,), a constant -> scalar. Bradley and Terry 1952; InstructGPT,
    arXiv:2203.02155, eq. 1; the margin is Llama 2's, arXiv:2307.09288, eq. 2.
    """
    if isinstance(margin, Tensor):
        margin = upcast(margin).detach()
    return -F.logsigmoid(upcast(chosen) - upcast(rejected) - margin).mean()


def pairwise_accuracy(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Share of pairs with chosen > rejected; a tie counts one half. Shapes: (B,), (B,) -> scalar, a constant."""
    chosen, rejected = upcast(chosen), upcast(rejected)
    credit = (chosen > rejected).to(chosen.dtype) + 0.5 * (chosen == rejected).to(chosen.dtype)
    return credit.mean()


def orm_loss(logits: Tensor, correct: Tensor, completion_mask: Tensor) -> Tensor:
    """Binary cross-entropy of every completion token against its completion's correctness, token mean.

    Shapes: logits (B, T), correct (B,) of any dtype, completion_mask (B, T) -> scalar. `correct` is a constant; without
    completion tokens the loss is 0. Cobbe et al., arXiv:2110.14168; Lightman et al., arXiv:2305.20050.
    """
    logits = keep(logits, completion_mask)
    labels = correct.detach().to(logits.dtype).unsqueeze(1).expand_as(logits)
    per_token = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    return aggregate_tokens(per_token, completion_mask, "token_mean")


def orm_score(logits: Tensor, completion_mask: Tensor, how: str) -> Tensor:
    """One probability of correctness a completion: that of the "last" token, the tokens' "mean", or their "min".

    Shapes: logits, completion_mask (B, T) -> (B,). A row with an empty mask scores 0. ValueError for another `how`.
    """
    mask = completion_mask.bool()
    probabilities = torch.sigmoid(keep(logits, mask))
    if how == "last":
        scores = last_token_rewards(probabilities, mask)
    elif how == "mean":
        scores = keep(probabilities, mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
    elif how == "min":
        scores = torch.where(mask, probabilities, 1).amin(dim=1)
    else:
        raise ValueError(f'how={how!r}: choose "last", "mean" or "min"')
    return keep(scores, mask.any(dim=1))
