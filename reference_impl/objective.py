"""Week 01: the objective of RLHF.

    J(pi) = E_{y ~ pi}[ r(y) ] - beta KL(pi || ref),   KL(pi || ref) = E_{y ~ pi}[ log pi(y) - log ref(y) ]

With d = log pi - log ref on samples from pi (Schulman 2020, "Approximating KL divergence"):

    k1 = d                   unbiased, may be negative
    k2 = d^2 / 2             biased, never negative; its gradient is unbiased for the gradient of the KL
    k3 = exp(-d) - 1 + d     unbiased, never negative

Where others differ: the book's code computes k1 and k3 with the two policies swapped, so that with samples from pi its
k1 averages to -KL(pi || ref) and its k3 to chi2(pi || ref) - KL(pi || ref). TRL and DeepSeekMath agree with this file.
"""

import torch
from torch import Tensor

from reference_impl.masking import keep, upcast


def token_logprobs(logits: Tensor, labels: Tensor) -> Tensor:
    """log softmax of `logits` at `labels`, without any shift. Shapes: (B, T, V), (B, T) -> (B, T).

    log_softmax subtracts the largest logit first: logits of 1e4 do not overflow, -inf at other labels is a probability
    of 0. Half precision is computed and returned in float32.
    """
    return upcast(logits).log_softmax(dim=-1).gather(-1, labels.unsqueeze(-1)).squeeze(-1)


def sequence_logprobs(logits: Tensor, input_ids: Tensor, response_mask: Tensor) -> Tensor:
    """log pi(response | prompt): the sum over response tokens; the logits at t - 1 predict the token at t.

    Shapes: logits (B, T, V), input_ids (B, T), response_mask (B, T) over `input_ids` -> (B,). The token at 0 has no
    prediction and never counts; an empty row gives 0. Only the predictions of response tokens enter the softmax, which
    saves the memory of the prompt's and keeps NaN of padding out of the gradient.
    """
    predicts = response_mask[:, 1:].bool()
    logprobs = token_logprobs(logits[:, :-1][predicts], input_ids[:, 1:][predicts])  # (n,): all response tokens
    per_token = torch.zeros_like(predicts, dtype=logprobs.dtype).masked_scatter(predicts, logprobs)
    return per_token.sum(dim=1)


def kl_estimates(logprobs: Tensor, ref_logprobs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Per-token estimators (k1, k2, k3) of KL(pi || ref) on tokens sampled from pi.

    Shapes: (B, T), (B, T) -> three (B, T). Gradients flow into `logprobs` only. expm1 keeps k3 accurate near d = 0,
    where exp(-d) - 1 would round to 0.
    """
    d = upcast(logprobs) - upcast(ref_logprobs).detach()
    return d, d.square() / 2, torch.expm1(-d) + d


def kl_shaped_rewards(rewards: Tensor, logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, beta: float) -> Tensor:
    """Rewards with the penalty inside: r - beta sum_t mask (log pi - log ref). Ouyang et al., arXiv:2203.02155, eq. 2.

    Shapes: rewards (B,), logprobs (B, T), ref_logprobs (B, T), mask (B, T) -> (B,), constants.
    """
    log_ratio = keep(upcast(logprobs) - upcast(ref_logprobs), mask).sum(dim=1)
    return (upcast(rewards) - beta * log_ratio).detach()


def optimal_policy(ref_probs: Tensor, rewards: Tensor, beta: float) -> Tensor:
    """The maximiser of E[r] - beta KL(pi || ref): ref(y) exp(r(y)/beta), normalised.

    Shapes: (..., Y), (..., Y) -> (..., Y). Rewards are measured from the best one that ref can produce, so that the
    exponent is at most 0 for any beta; exactly 0 where ref is 0. Rafailov et al., arXiv:2305.18290, eq. 4.
    """
    possible = ref_probs > 0
    rewards = torch.where(possible, upcast(rewards), -torch.inf)
    exponent = (rewards - rewards.amax(dim=-1, keepdim=True)) / beta
    log_ref = torch.where(possible, upcast(ref_probs), 1).log()
    return torch.softmax(torch.where(possible, log_ref + exponent, -torch.inf), dim=-1)
