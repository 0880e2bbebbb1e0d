"""Week 06: PPO, GRPO and their relatives: several optimizer steps on one rollout, held back by a clip.

    ratio rho = exp(logprobs - old_logprobs),   surrogate = min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A)

The minimum has one active side for each sign of A, and the code computes only that side:

    A >= 0:  A min(rho, 1 + clip_high)         A < 0:  A max(rho, 1 - clip_low)

taken on log rho, so that the side which the minimum throws away is never exponentiated: a ratio of exp(200) is inf in
float32, and its discarded branch would still send 0 * inf = NaN back through the gradient.

Where others differ: the "Dr. GRPO" of the book's code drops the std but keeps GRPO's mean per sequence; here it is
aggregate="constant" with max_length, as in the paper and TRL. The book's code standardises with eps=1e-8 (eight rewards
of 0.7 then get advantages of 0.8, pure rounding); here and in TRL eps=1e-4, and a group of equal rewards is exactly 0.
The book's code has the two policies of k3 swapped; here it is exp(ref - pi) - 1 - (ref - pi). It clips GSPO at 0.2,
where the clip hardly ever binds. TRL's CISPO clips above only, at epsilon_high where ours is at 1 + clip_high.

From reference_impl alone, not exercises: `sapo_loss`, `maxrl_advantages`, `overlong_penalty`.
"""

import math

import torch
from torch import Tensor

from reference_impl.masking import aggregate_tokens, keep, upcast


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation over each row's masked span. Schulman et al., arXiv:1506.02438, eq. 16.

    delta_t = r_t + gamma V_{t+1} - V_t with V = 0 after the last token;  A_t = delta_t + gamma lam A_{t+1};  R = A + V.
    Shapes: rewards, values, mask (B, T) -> advantages (B, T), returns (B, T), constants, 0 where the mask is 0.
    """
    rewards, values = keep(rewards, mask).detach(), keep(values, mask).detach()
    next_values = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], dim=1)
    deltas = rewards + gamma * next_values - values
    advantages = torch.empty_like(deltas)
    later = deltas.new_zeros(len(deltas))
    for t in reversed(range(deltas.shape[1])):
        later = deltas[:, t] + gamma * lam * later
        advantages[:, t] = later
    advantages = keep(advantages, mask)  # the tokens before the span saw the first value and advantage
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
    """PPO's clipped surrogate, -min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A). arXiv:1707.06347, eq. 7.

    Shapes: logprobs, old_logprobs, mask (B, T), advantages (B, T) or (B,) -> scalar.
    Old log-probs and advantages are constants. `aggregate` and its ValueErrors as in `aggregate_tokens`.
    """
    log_ratio = _log_ratio(logprobs, old_logprobs, mask)
    advantages = _per_token(advantages, mask, log_ratio)
    surrogate = advantages * _clipped_ratio(log_ratio, advantages, clip_low, clip_high)
    return aggregate_tokens(-surrogate, mask, aggregate, max_length)


def value_clip_loss(values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, clip: float = 0.2) -> Tensor:
    """PPO's value loss: half the larger of the squared errors with and without the clip, token mean.

    1/2 max((v - R)^2, (clip(v, old - clip, old + clip) - R)^2). Shapes: four times (B, T) -> scalar. Old values and
    returns are constants. The larger error stays: a value that moved too far *towards* its return gets no gradient.
    """
    values = keep(values, mask)
    old_values = keep(old_values, mask).detach()
    returns = keep(returns, mask).detach()
    clipped = values.clamp(old_values - clip, old_values + clip)
    errors = torch.maximum((values - returns).square(), (clipped - returns).square())
    return aggregate_tokens(0.5 * errors, mask, "token_mean")


def grpo_advantages(rewards: Tensor, normalize_std: bool = True, eps: float = 1e-4) -> Tensor:
    """Reward minus the mean of its group, over (unbiased std + eps) if asked. GRPO, arXiv:2402.03300, section 4.1.2.

    Shapes: (P, G) -> (P, G), constants. A group of one, or of equal rewards, is exactly 0. Dr. GRPO: no std.
    """
    rewards = upcast(rewards).detach()
    # Measured from the first reward, equal rewards are exact zeros: no rounding noise for 1 / eps to blow up.
    shifted = rewards - rewards[:, :1]
    advantages = shifted - shifted.mean(dim=1, keepdim=True)
    if normalize_std and rewards.shape[1] > 1:
        advantages = advantages / (shifted.std(dim=1, keepdim=True) + eps)
    return torch.where((shifted == 0).all(dim=1, keepdim=True), 0, advantages)  # eps = 0 would make it 0 / 0


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
    """Clipped surrogate plus beta k3(pi || ref) at each token, aggregated. arXiv:2402.03300, eq. 3 and 4.

    Shapes: logprobs, old_logprobs, ref_logprobs, mask (B, T), advantages (B,) -> scalar.
    Old and reference log-probs and advantages are constants. ValueError if `ref_logprobs` is None and beta is not 0.
    Dr. GRPO: aggregate="constant"; DAPO: aggregate="token_mean", clip_high=0.28.
    """
    loss = ppo_clip_loss(logprobs, old_logprobs, advantages, mask, clip_low, clip_high, aggregate, max_length)
    if beta == 0:
        return loss
    if ref_logprobs is None:
        raise ValueError(f"beta={beta} needs ref_logprobs, which is None: pass them or set beta to 0")
    log_ratio = _log_ratio(logprobs, ref_logprobs, mask)
    k3 = torch.expm1(-log_ratio) + log_ratio
    return loss + beta * aggregate_tokens(k3, mask, aggregate, max_length)


def gspo_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    clip_low: float = 3e-4,
    clip_high: float = 4e-4,
) -> Tensor:
    """The clip on one ratio a completion, the geometric mean of its tokens'. GSPO, arXiv:2507.18071, eq. 5 and 7.

    s_i = exp((1/n_i) sum_t (logprob - old));  -(1/B) sum_i min(s_i A_i, clip(s_i, 1 - clip_low, 1 + clip_high) A_i).
    Shapes: logprobs, old_logprobs, mask (B, T), advantages (B,) -> scalar. A row with an empty mask contributes 0.
    """
    log_ratio = _log_ratio(logprobs, old_logprobs, mask)
    lengths = mask.bool().sum(dim=1)
    sequence_log_ratio = log_ratio.sum(dim=1) / lengths.clamp(min=1)
    advantages = keep(advantages, lengths > 0).to(log_ratio.dtype).detach()  # exp(0) = 1: an empty row would count as A
    return -(advantages * _clipped_ratio(sequence_log_ratio, advantages, clip_low, clip_high)).mean()


def cispo_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    clip_low: float = 1.0,
    clip_high: float = 4.0,
) -> Tensor:
    """REINFORCE with a clipped, detached importance weight: every token keeps a gradient. MiniMax-M1, arXiv:2506.13585.

    -stop_gradient(clip(rho, 1 - clip_low, 1 + clip_high)) A logprob, token mean. clip_low >= 1 means no lower clip.
    Shapes: logprobs, old_logprobs, mask (B, T), advantages (B,) -> scalar.
    """
    logprobs = keep(logprobs, mask)
    log_ratio = _log_ratio(logprobs, old_logprobs, mask).detach()
    weights = log_ratio.clamp(_log(1 - clip_low), _log(1 + clip_high)).exp()
    advantages = _per_token(advantages, mask, logprobs)
    return aggregate_tokens(-weights * advantages * logprobs, mask, "token_mean")


def sapo_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    tau_pos: float = 1.0,
    tau_neg: float = 1.05,
    aggregate: str = "sequence_mean",
    max_length: int | None = None,
) -> Tensor:
    """A soft gate in place of the clip: -(4 / tau) sigmoid(tau (rho - 1)) A. SAPO, arXiv:2511.20347.

    The gate is steepest at rho = 1, where its slope is 1, and flattens out on both sides; tau is tau_pos where A > 0,
    else tau_neg. Shapes: logprobs, old_logprobs, mask (B, T), advantages (B,) or (B, T) -> scalar.
    """
    log_ratio = _log_ratio(logprobs, old_logprobs, mask)
    advantages = _per_token(advantages, mask, log_ratio)
    tau = torch.full_like(advantages, tau_neg).masked_fill(advantages > 0, tau_pos)
    ratio = log_ratio.clamp(max=20).exp()  # at exp(20) the gate is flat to the last digit; exp(200) would be inf
    return aggregate_tokens(-(4 / tau) * torch.sigmoid(tau * (ratio - 1)) * advantages, mask, aggregate, max_length)


def maxrl_advantages(rewards: Tensor) -> Tensor:
    """(r - group mean) / group mean, 0 where every completion failed. MaxRL, arXiv:2602.02710.

    Shapes: rewards (P, G) in {0, 1} -> (P, G), constants. With p the chance of success, the policy gradient with these
    advantages ("sequence_sum") is unbiased for -sum_{k=1}^{G-1} (1 - p)^k / k: log p, cut off after G - 1 terms.
    """
    rewards = upcast(rewards).detach()
    means = rewards.mean(dim=1, keepdim=True)
    return torch.where(means > 0, (rewards - means) / torch.where(means > 0, means, 1), 0)


def overlong_penalty(lengths: Tensor, max_length: int, cache: int) -> Tensor:
    """DAPO's soft length penalty, added to the reward: 0, then a ramp down over `cache` tokens, then -1.

    0 up to max_length - cache, (max_length - cache - length) / cache up to max_length, then -1 (arXiv:2503.14476,
    eq. 13). Shapes: lengths (B,) of any dtype -> (B,) float. ValueError unless 0 < cache <= max_length.
    """
    if not 0 < cache <= max_length:
        raise ValueError(f"cache={cache}: the ramp needs between 1 and max_length={max_length} tokens")
    return ((max_length - cache - lengths) / cache).clamp(-1, 0)


def _log_ratio(logprobs: Tensor, other_logprobs: Tensor, mask: Tensor) -> Tensor:
    """logprobs - other_logprobs (a constant), upcast before the subtraction, 0 under the mask."""
    return keep(logprobs, mask) - keep(other_logprobs, mask).detach()


def _clipped_ratio(log_ratio: Tensor, advantages: Tensor, clip_low: float, clip_high: float) -> Tensor:
    """The ratio that the minimum keeps: min(rho, 1 + clip_high) where A >= 0, max(rho, 1 - clip_low) where A < 0."""
    below_upper = log_ratio.clamp(max=_log(1 + clip_high))
    above_lower = log_ratio.clamp(min=_log(1 - clip_low))
    return torch.where(advantages >= 0, below_upper, above_lower).exp()


def _log(bound: float) -> float:
    """log of a clip bound; a bound of 0 or below clips nothing."""
    return math.log(bound) if bound > 0 else -math.inf


def _per_token(advantages: Tensor, mask: Tensor, like: Tensor) -> Tensor:
    """Advantages (B,) or (B, T) as constants (B, T) in the dtype of `like`, 0 under the mask."""
    if advantages.dim() == 1:
        advantages = advantages.unsqueeze(1).expand_as(like)
    return keep(advantages, mask).to(like.dtype).detach()
