"""Week 05: REINFORCE and RLOO, the score-function estimator and the baselines that make it usable.

    grad E[r] = E[ (r - b) grad log pi(y|x) ],   log pi(y|x) = sum_t logprobs_t,   b independent of y

A loss here is a scalar whose gradient, averaged over completions y ~ pi, is -grad E[r]; its value means little.
Rewards, baselines and advantages are constants of the loss.

Where others differ: the book's code averages the log-probs of a completion in REINFORCE and RLOO ("sequence_mean"),
which divides each completion's gradient by its length; here and in TRL's RLOO they are summed. TRL's RLOO also clips
a sequence-level ratio; with one optimizer step per rollout that ratio is 1 and the gradients agree.
"""

import torch
from torch import Tensor

from reference_impl.masking import aggregate_tokens, keep, upcast


def reinforce_loss(logprobs: Tensor, rewards: Tensor, mask: Tensor, baseline: float | Tensor = 0.0) -> Tensor:
    """The score-function estimator: -(1/B) sum_i (r_i - b_i) sum_t mask logprob. Williams 1992.

    Shapes: logprobs (B, T), rewards (B,), mask (B, T), baseline scalar or (B,) -> scalar.
    Rewards and baseline are constants; a row with an empty mask contributes 0 and still counts in B.
    """
    advantages = (upcast(rewards) - baseline).detach()
    sequence_logprobs = keep(logprobs, mask).sum(dim=1)
    return -(advantages.to(sequence_logprobs.dtype) * sequence_logprobs).mean()


def rloo_advantages(rewards: Tensor) -> Tensor:
    """Reward minus the mean reward of the other G - 1 completions of the prompt. Ahmadian et al., arXiv:2402.14740.

    Shapes: (P, G) -> (P, G), constants. Exactly 0 in a group of equal rewards. ValueError when G < 2.
    """
    if rewards.shape[-1] < 2:
        raise ValueError(
            f"rewards of shape {tuple(rewards.shape)}: leave-one-out needs 2 completions per prompt or more"
        )
    return (upcast(rewards) - _mean_of_others(rewards)).detach()


def batch_baseline(rewards: Tensor) -> Tensor:
    """For each completion the mean reward of the others of the batch; 0 when it is alone.

    Shapes: (B,) -> (B,), constants. Its own reward stays out: a baseline that contains it is not independent of y.
    """
    if len(rewards) == 1:
        return torch.zeros_like(upcast(rewards)).detach()
    return _mean_of_others(rewards).detach()


def _mean_of_others(rewards: Tensor) -> Tensor:
    """Mean over the last dimension without the element itself.

    Measured from the first reward, so that equal rewards give back exactly that reward: summing eight times 0.7 in
    float32 and dividing does not, and the advantages of a group without signal would be rounding noise.
    """
    rewards = upcast(rewards)
    first = rewards[..., :1]
    shifted = rewards - first
    return first + (shifted.sum(dim=-1, keepdim=True) - shifted) / (rewards.shape[-1] - 1)


def reward_to_go(rewards: Tensor, mask: Tensor, gamma: float) -> Tensor:
    """Discounted sum of this and the later rewards of the completion: G_t = r_t + gamma G_{t+1}.

    Shapes: rewards (B, T), mask (B, T) -> (B, T), constants. Rewards at masked positions do not count; they give 0.
    """
    rewards = keep(rewards, mask).detach()
    returns = torch.zeros_like(rewards)
    later = rewards.new_zeros(len(rewards))
    for t in reversed(range(rewards.shape[1])):
        later = rewards[:, t] + gamma * later
        returns[:, t] = later
    return keep(returns, mask)


def policy_gradient_loss(
    logprobs: Tensor, advantages: Tensor, mask: Tensor, aggregate: str, max_length: int | None = None
) -> Tensor:
    """-advantage * logprob, aggregated over tokens ("sequence_sum", "sequence_mean", "token_mean", "constant").

    Shapes: logprobs (B, T), advantages (B,) or (B, T), mask (B, T) -> scalar. Advantages are constants.
    ValueError for an unknown `aggregate` and for "constant" without `max_length`.
    """
    logprobs = keep(logprobs, mask)
    if advantages.dim() == 1:
        advantages = advantages.unsqueeze(1).expand_as(logprobs)  # one advantage for every token of the completion
    advantages = keep(advantages, mask).to(logprobs.dtype).detach()
    return aggregate_tokens(-advantages * logprobs, mask, aggregate, max_length)
