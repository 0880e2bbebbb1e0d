"""Week 08, solved: direct preference optimization.

Read it after your own attempt. Both losses see the four log-probs only through one number a pair, `delta`.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def implicit_rewards(policy_logps: Tensor, ref_logps: Tensor, beta: float) -> Tensor:
    """beta (policy - ref), without gradient.  Shapes: (B,), (B,) -> (B,)."""
    return beta * (_full_precision(policy_logps) - _full_precision(ref_logps)).detach()


def dpo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Mean of -(1-eps) log sigma(beta Delta) - eps log sigma(-beta Delta).  Shapes: 4 x (B,) -> scalar."""
    logits = beta * _delta(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps)
    # logsigmoid, not log(sigmoid(...)): the sigmoid of -200 underflows to 0 in float32, its log would be -inf, and
    # exactly the pair that is most wrong would have no gradient.
    as_labelled = -F.logsigmoid(logits)
    flipped = -F.logsigmoid(-logits)  # the loss if the annotator had the pair the wrong way round, with probability eps
    return ((1 - label_smoothing) * as_labelled + label_smoothing * flipped).mean()


def ipo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    beta: float = 0.1,
) -> Tensor:
    """Mean of (Delta - 1/(2 beta))^2.  Shapes: 4 x (B,) -> scalar."""
    delta = _delta(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps)
    # A square has its minimum at a finite margin: where DPO pushes a pair apart for ever, IPO stops at 1/(2 beta).
    return ((delta - 1 / (2 * beta)) ** 2).mean()


def _delta(policy_chosen: Tensor, policy_rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor) -> Tensor:
    """How much further apart the policy holds the pair than the reference does.  Shapes: 4 x (B,) -> (B,)."""
    # detach: if policy and reference share weights, a gradient through the reference would cancel the policy's.
    chosen = _full_precision(policy_chosen) - _full_precision(ref_chosen).detach()
    rejected = _full_precision(policy_rejected) - _full_precision(ref_rejected).detach()
    return chosen - rejected


def preference_logps(model: torch.nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Summed response log-probs of both sides from one forward pass.  Returns (chosen (B,), rejected (B,))."""
    chosen_ids, rejected_ids = batch["chosen_input_ids"], batch["rejected_input_ids"]
    width = max(chosen_ids.shape[1], rejected_ids.shape[1])

    def stack(name: str) -> Tensor:
        """Chosen rows above rejected rows, zeros added on the right of the shorter side: padding by both masks."""
        sides = [batch["chosen_" + name], batch["rejected_" + name]]
        return torch.cat([F.pad(side, (0, width - side.shape[1])) for side in sides])

    input_ids = stack("input_ids")
    logits = model(input_ids=input_ids, attention_mask=stack("attention_mask")).logits

    # The logits at t - 1 predict the token at t; the mask belongs to the tokens and shifts with them.
    logits, labels, mask = logits[:, :-1], input_ids[:, 1:], stack("response_mask")[:, 1:].bool()
    # Zero the unused logits before the softmax: a NaN in padding would come back through its gradient.
    logits = torch.where(mask[..., None], _full_precision(logits), 0)
    logprobs = torch.log_softmax(logits, dim=-1).gather(-1, labels[..., None]).squeeze(-1)
    logps = torch.where(mask, logprobs, 0).sum(dim=1)  # a sum over tokens: a DPO log-prob is not an average
    return logps[: len(chosen_ids)], logps[len(chosen_ids) :]


def dpo_step(
    policy: torch.nn.Module,
    reference: torch.nn.Module,
    batch: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    loss_fn: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
    max_grad_norm: float = 1.0,
) -> dict[str, float]:
    """One update of the policy; returns loss, accuracy, margin and grad_norm as floats."""
    optimizer.zero_grad()  # what an earlier backward left behind is not part of this update
    policy_chosen, policy_rejected = preference_logps(policy, batch)
    with torch.no_grad():  # half the memory, and no way for the reference to learn
        ref_chosen, ref_rejected = preference_logps(reference, batch)

    loss = loss_fn(policy_chosen, policy_rejected, ref_chosen, ref_rejected)
    loss.backward()
    grad_norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), max_grad_norm)  # returns the norm before clipping
    optimizer.step()

    # Accuracy compares log-ratios, not log-probs: a pair that the reference already ranks right is no achievement.
    delta = _delta(policy_chosen, policy_rejected, ref_chosen, ref_rejected).detach()
    wins = (delta > 0).float() + 0.5 * (delta == 0).float()  # at the first step policy = reference: all ties, 0.5
    return {
        "loss": loss.item(),
        "accuracy": wins.mean().item(),
        "margin": delta.mean().item(),
        "grad_norm": grad_norm.item(),
    }


def _full_precision(values: Tensor) -> Tensor:
    """Half precision to float32: near -360 neighbouring bfloat16 numbers are 2 nats apart."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
