"""Week 01, solved: log-probabilities, KL divergence, and the policy that RLHF looks for.

Read it after your own attempt. Every later week stands on the first two functions.
"""

import torch
from torch import Tensor


def token_logprobs(logits: Tensor, labels: Tensor) -> Tensor:
    """log softmax(logits) at labels, no shift.  Shapes: (B, T, V), (B, T) -> (B, T)."""
    # log_softmax, not log(softmax(...)): a probability below 1e-38 is 0 in float32, and its log -inf.
    logprobs = torch.log_softmax(_full_precision(logits), dim=-1)
    # gather wants an index with as many dimensions as logprobs: (B, T, 1). squeeze(-1) removes that one and no other.
    return logprobs.gather(-1, labels[..., None]).squeeze(-1)


def sequence_logprobs(logits: Tensor, input_ids: Tensor, response_mask: Tensor) -> Tensor:
    """Sum of the response's log-probs.  Shapes: (B, T, V), (B, T), (B, T) -> (B,)."""
    # The logits at t - 1 predict the token at t: drop the last logits and the first token, and shift the mask with the
    # tokens that it marks.
    logits, labels, mask = logits[:, :-1], input_ids[:, 1:], response_mask[:, 1:].bool()
    # Zeroing unused logits looks superfluous, since their log-probs are masked below. It is not: the softmax of a NaN
    # has a NaN gradient, even when it is multiplied by 0.
    logits = torch.where(mask[..., None], logits, 0)
    return torch.where(mask, token_logprobs(logits, labels), 0).sum(dim=1)


def kl_estimates(logprobs: Tensor, ref_logprobs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(k1, k2, k3), estimators of KL(pi || ref) on tokens from pi.  Shapes: (B, T), (B, T) -> 3 x (B, T)."""
    d = _full_precision(logprobs) - _full_precision(ref_logprobs).detach()
    k1 = d
    k2 = d**2 / 2
    # The ratio in k3 is ref/pi = exp(-d): its expectation under pi is 1, so adding (ratio - 1) to k1 changes no mean.
    # With exp(d) it would estimate something else. expm1 keeps the digits of exp(-d) - 1 near d = 0.
    k3 = torch.expm1(-d) + d
    return k1, k2, k3


def kl_shaped_rewards(rewards: Tensor, logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, beta: float) -> Tensor:
    """r - beta sum_t mask (log pi - log ref).  Shapes: (B,), (B, T), (B, T), (B, T), number -> (B,)."""
    log_ratio = _full_precision(logprobs) - _full_precision(ref_logprobs)
    # where, not a product: 0 * NaN is NaN. The result is a reward and therefore a constant of any loss.
    penalty = torch.where(mask.bool(), log_ratio, 0).sum(dim=1)
    return (_full_precision(rewards) - beta * penalty).detach()


def optimal_policy(ref_probs: Tensor, rewards: Tensor, beta: float) -> Tensor:
    """ref exp(r / beta), normalised.  Shapes: (..., Y), (..., Y), number -> (..., Y)."""
    ref_probs, rewards = _full_precision(ref_probs), _full_precision(rewards)
    possible = ref_probs > 0
    # exp(r / beta) overflows for small beta. Only differences of rewards matter, so measure from the best response
    # that the reference can produce at all: every exponent is then at most 0.
    best = torch.where(possible, rewards, -torch.inf).amax(dim=-1, keepdim=True)
    above = torch.where(possible, rewards - best, 0)  # impossible answers may have any reward, also NaN
    weights = ref_probs * torch.exp(above / beta)  # exactly 0 where ref is
    return weights / weights.sum(dim=-1, keepdim=True)


def _full_precision(values: Tensor) -> Tensor:
    """Half precision to float32 before sums and softmax."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
