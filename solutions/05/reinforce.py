"""Week 05, solved: REINFORCE and RLOO.

Read it after your own attempt. Each comment says why a line is there; most of them guard against something that real
training code got wrong.
"""

import torch
from torch import Tensor


def reinforce_loss(logprobs: Tensor, rewards: Tensor, mask: Tensor, baseline: float | Tensor = 0.0) -> Tensor:
    """-(1/B) sum_i (r_i - b_i) sum_t mask logprob.  Shapes: (B, T), (B,), (B, T), scalar or (B,) -> scalar."""
    sequence_logprobs = _masked(logprobs, mask).sum(dim=1)  # (B,): log pi(y|x) is a sum over tokens, never a mean
    # detach: the estimator differentiates log pi only; a reward or baseline network must not learn from this loss.
    advantages = (rewards - baseline).detach().to(sequence_logprobs.dtype)
    # Both factors are (B,). A (B, 1) here would broadcast to (B, B) and give every row every reward.
    return -(advantages * sequence_logprobs).mean()


def rloo_advantages(rewards: Tensor) -> Tensor:
    """r minus the mean of the other G - 1 rewards of the same prompt.  Shapes: (P, G) -> (P, G)."""
    if rewards.shape[1] < 2:
        raise ValueError(f"rloo_advantages needs G >= 2, got rewards of shape {tuple(rewards.shape)}")
    return (_full_precision(rewards) - _mean_of_others(rewards)).detach()


def batch_baseline(rewards: Tensor) -> Tensor:
    """For each completion the mean reward of the others of the batch.  Shapes: (B,) -> (B,)."""
    if len(rewards) == 1:
        return torch.zeros_like(rewards)  # nobody else to average: no baseline
    return _mean_of_others(rewards).detach()


def _mean_of_others(rewards: Tensor) -> Tensor:
    """Leave-one-out mean over the last dimension: (sum - own) / (n - 1)."""
    rewards = _full_precision(rewards)
    # Rewards are measured from the first one. Mathematically this changes nothing; numerically, equal rewards become
    # exact zeros, so that a group without any signal has an advantage of exactly 0 and not 1e-8 of rounding.
    first = rewards[..., :1]
    shifted = rewards - first
    return first + (shifted.sum(dim=-1, keepdim=True) - shifted) / (rewards.shape[-1] - 1)


def reward_to_go(rewards: Tensor, mask: Tensor, gamma: float) -> Tensor:
    """G_t = r_t + gamma G_{t+1} inside the mask, 0 outside.  Shapes: (B, T), (B, T) -> (B, T)."""
    rewards = _masked(rewards, mask).detach()
    returns = torch.zeros_like(rewards)
    later = torch.zeros(len(rewards), dtype=rewards.dtype, device=rewards.device)
    for t in reversed(range(rewards.shape[1])):  # from the last token: each return is built from the next one
        later = rewards[:, t] + gamma * later
        returns[:, t] = later
    return _masked(returns, mask)  # before the span, `later` already holds the first token's return


def policy_gradient_loss(
    logprobs: Tensor, advantages: Tensor, mask: Tensor, aggregate: str, max_length: int | None = None
) -> Tensor:
    """-advantage * logprob, aggregated over tokens.  Shapes: (B, T), (B,) or (B, T), (B, T) -> scalar."""
    if advantages.dim() == 1:
        advantages = advantages[:, None].expand(logprobs.shape)  # (B, T): every token of a completion shares its credit
    logprobs = _masked(logprobs, mask)
    advantages = _masked(advantages, mask).detach().to(logprobs.dtype)
    per_token = -advantages * logprobs
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
        return per_token.sum() / (len(logprobs) * max_length)
    raise ValueError(f'unknown aggregate {aggregate!r}: "sequence_sum", "sequence_mean", "token_mean" or "constant"')


def _masked(values: Tensor, mask: Tensor) -> Tensor:
    """Zero outside the mask. Not `values * mask`: 0 * NaN is NaN, and padding may hold anything."""
    return torch.where(mask.bool(), _full_precision(values), 0)


def _full_precision(values: Tensor) -> Tensor:
    """Half precision to float32 before any sum: near -400 neighbouring bfloat16 numbers are 2 nats apart."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
