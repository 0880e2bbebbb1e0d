"""Week 06, solved: PPO, GRPO and their clipping.

Read it after your own attempt. Each comment says why a line is there; most of them guard against something that real
training code got wrong.
"""

import math

import torch
from torch import Tensor


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """A_t = delta_t + gamma lam A_{t+1}, R = A + V.  Shapes: three times (B, T) -> advantages, returns (B, T)."""
    # detach: the critic learns from `value_clip_loss`, never through the advantages of the policy loss.
    rewards, values = _masked(rewards, mask).detach(), _masked(values, mask).detach()
    advantages = torch.zeros_like(values)
    # Nothing comes after the last token: its next value and next advantage are 0. Padding to the right of it holds
    # zeros now, so the recursion still arrives there with zeros, however long the padding is.
    next_value = next_advantage = torch.zeros(len(values), dtype=values.dtype, device=values.device)
    for t in reversed(range(values.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        next_advantage = delta + gamma * lam * next_advantage
        advantages[:, t] = next_advantage
        next_value = values[:, t]
    advantages = _masked(advantages, mask)  # prompt tokens saw the first token's value and advantage
    return advantages, advantages + values


def ppo_clip_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    aggregate: str = "token_mean",
    max_length: int | None = None,
) -> Tensor:
    """-min(rho A, clip(rho) A), aggregated.  Shapes: (B, T), (B, T), (B, T) or (B,), (B, T) -> scalar."""
    log_ratio = _masked(logprobs, mask) - _masked(old_logprobs, mask).detach()
    if advantages.dim() == 1:
        advantages = advantages[:, None].expand(logprobs.shape)  # every token of a completion shares its credit
    advantages = _masked(advantages, mask).detach().to(log_ratio.dtype)
    return _aggregate(-_clipped_surrogate(log_ratio, advantages, clip_low, clip_high), mask, aggregate, max_length)


def value_clip_loss(values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, clip: float = 0.2) -> Tensor:
    """1/2 max((v - R)^2, (clip(v, old +- clip) - R)^2), token mean.  Shapes: four times (B, T) -> scalar."""
    values = _masked(values, mask)
    old_values = _masked(old_values, mask).detach()
    returns = _masked(returns, mask).detach()
    clipped = torch.clamp(values, old_values - clip, old_values + clip)
    # max is the pessimistic choice for an error, as min is for an objective. Once v has moved more than `clip` towards
    # R, the clipped error is the larger one and it is constant in v: no gradient, no further step in this rollout.
    errors = torch.maximum((values - returns) ** 2, (clipped - returns) ** 2)
    return _aggregate(0.5 * errors, mask, "token_mean")


def grpo_advantages(rewards: Tensor, normalize_std: bool = True, eps: float = 1e-4) -> Tensor:
    """(r - group mean) / (unbiased std + eps).  Shapes: (P, G) -> (P, G)."""
    rewards = _full_precision(rewards).detach()
    # Measured from the first reward of each group. Mathematically this changes nothing; numerically, equal rewards
    # become exact zeros. Without it, a group without any signal keeps rounding noise, and the division blows that up.
    shifted = rewards - rewards[:, :1]
    advantages = shifted - shifted.mean(dim=1, keepdim=True)
    if normalize_std and rewards.shape[1] > 1:  # the unbiased std of one number is 0 / 0
        advantages = advantages / (shifted.std(dim=1, keepdim=True) + eps)
    constant = (shifted == 0).all(dim=1, keepdim=True)
    return torch.where(constant, 0, advantages)  # still 0, and not NaN, when eps is 0


def grpo_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    ref_logprobs: Tensor | None,
    advantages: Tensor,
    mask: Tensor,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    beta: float = 0.0,
    aggregate: str = "sequence_mean",
    max_length: int | None = None,
) -> Tensor:
    """Clipped surrogate + beta k3(pi || ref).  Shapes: (B, T) three times, (B,), (B, T) -> scalar."""
    loss = ppo_clip_loss(logprobs, old_logprobs, advantages, mask, clip_low, clip_high, aggregate, max_length)
    if beta == 0:  # skipped rather than multiplied by 0: there may be no reference, and 0 * inf is NaN
        return loss
    if ref_logprobs is None:
        raise ValueError(f"beta={beta} needs ref_logprobs, got None")
    log_ratio = _masked(logprobs, mask) - _masked(ref_logprobs, mask).detach()
    # k3 = exp(-d) - 1 + d with d = log pi - log ref, the samples coming from pi. With d the other way round it would
    # estimate another quantity (chi squared minus KL). expm1 keeps the digits that exp(-d) - 1 loses near d = 0.
    k3 = torch.expm1(-log_ratio) + log_ratio
    return loss + beta * _aggregate(k3, mask, aggregate, max_length)


def gspo_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    clip_low: float = 3e-4,
    clip_high: float = 4e-4,
) -> Tensor:
    """Clipped surrogate on s = exp(mean log-ratio).  Shapes: (B, T), (B, T), (B,), (B, T) -> scalar."""
    log_ratio = _masked(logprobs, mask) - _masked(old_logprobs, mask).detach()
    lengths = mask.bool().sum(dim=1)
    sequence_log_ratio = log_ratio.sum(dim=1) / lengths.clamp(min=1)  # (B,), the mean over real tokens only
    # A row without tokens has s = exp(0) = 1 and would contribute -A: its advantage is set to 0 instead.
    advantages = _masked(advantages, lengths > 0).detach().to(log_ratio.dtype)
    return -_clipped_surrogate(sequence_log_ratio, advantages, clip_low, clip_high).mean()


def cispo_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    clip_low: float = 1.0,
    clip_high: float = 4.0,
) -> Tensor:
    """-stop_gradient(clip(rho)) A logprob, token mean.  Shapes: (B, T), (B, T), (B,), (B, T) -> scalar."""
    logprobs = _masked(logprobs, mask)
    log_ratio = (logprobs - _masked(old_logprobs, mask)).detach()
    # Only the weight is clipped, and it is a constant: the gradient of a far-off token is made smaller, never zero.
    weights = torch.exp(log_ratio.clamp(_log(1 - clip_low), _log(1 + clip_high)))
    advantages = _masked(advantages[:, None].expand(logprobs.shape), mask).detach().to(logprobs.dtype)
    return _aggregate(-weights * advantages * logprobs, mask, "token_mean")


def _clipped_surrogate(log_ratio: Tensor, advantages: Tensor, clip_low: float, clip_high: float) -> Tensor:
    """min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A), without computing the branch that min throws away.

    For A >= 0 the smaller one is A min(rho, 1 + clip_high); for A < 0 it is A max(rho, 1 - clip_low). Note what is not
    clipped: a bad token that became likelier (A < 0, rho > 1) is pushed back without limit.
    """
    # The choice is made on log rho. torch.min(rho * A, clip(rho) * A) is the same number, but when rho overflows, its
    # discarded branch sends a gradient of 0 * inf = NaN through exp.
    not_above = log_ratio.clamp(max=_log(1 + clip_high))
    not_below = log_ratio.clamp(min=_log(1 - clip_low))
    return advantages * torch.exp(torch.where(advantages >= 0, not_above, not_below))


def _log(bound: float) -> float:
    """log of a clip bound; clip_low = 1 puts the bound at 0, which no ratio can cross."""
    return math.log(bound) if bound > 0 else -math.inf


def _aggregate(per_token: Tensor, mask: Tensor, aggregate: str, max_length: int | None = None) -> Tensor:
    """From token losses (B, T), 0 outside the mask or made so here, to a scalar: the four rules of week 05."""
    per_token = _masked(per_token, mask)
    lengths = mask.bool().sum(dim=1)
    # clamp(min=1): a row without tokens has sum 0, and 0 / 1 is 0 where 0 / 0 would be NaN.
    if aggregate == "sequence_sum":
        return per_token.sum(dim=1).mean()
    if aggregate == "sequence_mean":
        return (per_token.sum(dim=1) / lengths.clamp(min=1)).mean()
    if aggregate == "token_mean":
        return per_token.sum() / lengths.sum().clamp(min=1)
    if aggregate == "constant":
        if max_length is None:
            raise ValueError('aggregate="constant" needs max_length, got None')
        return per_token.sum() / (len(per_token) * max_length)
    raise ValueError(f'unknown aggregate {aggregate!r}: "sequence_sum", "sequence_mean", "token_mean" or "constant"')


def _masked(values: Tensor, mask: Tensor) -> Tensor:
    """Zero outside the mask. Not `values * mask`: 0 * NaN is NaN, and padding may hold anything."""
    return torch.where(mask.bool(), _full_precision(values), 0)


def _full_precision(values: Tensor) -> Tensor:
    """Half precision to float32 before any difference or sum: bfloat16 keeps 8 bits of each number."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
