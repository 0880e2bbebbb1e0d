"""Week 08: direct preference optimization.

The optimal policy of J(pi) = E[r] - beta KL(pi || ref) is proportional to ref(y) exp(r(y)/beta). Read backwards, every
policy is optimal for the reward beta log(pi/ref), its implicit reward, and a Bradley-Terry model of preferences can be
fitted to the policy itself. With Delta = (policy_chosen - ref_chosen) - (policy_rejected - ref_rejected):

    DPO   -log sigma(beta Delta)                                       arXiv:2305.18290
    cDPO  -(1-eps) log sigma(beta Delta) - eps log sigma(-beta Delta)  Mitchell 2023, ericmitchell.ai/cdpo.pdf
    IPO   (Delta - 1/(2 beta))^2                                       arXiv:2310.12036

Where others differ: TRL gives IPO length-averaged log-probs (so does our launcher), the book's code summed ones; the
formula is the same. TRL's label_smoothing belongs to its "robust" loss, which is cDPO's sum with a minus, divided by
1 - 2 eps (arXiv:2403.00409). The book's code sums log-probs in bfloat16; near -360 its neighbours are 2 nats apart.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from reference_impl.masking import upcast
from reference_impl.objective import sequence_logprobs


def implicit_rewards(policy_logps: Tensor, ref_logps: Tensor, beta: float) -> Tensor:
    """The reward for which the policy is optimal, up to a constant of the prompt: beta (policy - ref).

    Shapes: (B,), (B,) -> (B,), without gradient.
    """
    return (beta * (upcast(policy_logps) - upcast(ref_logps))).detach()


def dpo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Mean of -(1-eps) log sigma(beta Delta) - eps log sigma(-beta Delta), with eps = `label_smoothing`.

    Shapes: four times (B,) -> scalar. The reference is constant. Where the sigmoid underflows, logsigmoid
    is linear: the worst pairs keep their gradient.
    """
    logits = beta * _delta(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps)
    return (-(1 - label_smoothing) * F.logsigmoid(logits) - label_smoothing * F.logsigmoid(-logits)).mean()


def ipo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    beta: float = 0.1,
) -> Tensor:
    """Mean of (Delta - 1/(2 beta))^2: a target for the margin, where DPO asks for ever more.

    Shapes: four times (B,) -> scalar. The reference is constant.
    """
    delta = _delta(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps)
    return (delta - 1 / (2 * beta)).square().mean()


def _delta(policy_chosen: Tensor, policy_rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor) -> Tensor:
    """(policy_chosen - ref_chosen) - (policy_rejected - ref_rejected), the reference being constant; (B,)."""
    chosen = upcast(policy_chosen) - upcast(ref_chosen).detach()
    rejected = upcast(policy_rejected) - upcast(ref_rejected).detach()
    return chosen - rejected


def preference_logps(model: torch.nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Summed log-probs of the chosen and the rejected responses, from one forward pass over both together.

    `batch` holds {chosen,rejected}_{input_ids,attention_mask,response_mask}, each (B, T) right-padded to the side's own
    length. Returns (chosen (B,), rejected (B,)), equal to two separate passes: what is added is padding, which is
    neither attended nor counted.
    """
    width = max(batch["chosen_input_ids"].shape[1], batch["rejected_input_ids"].shape[1])

    def both(name: str) -> Tensor:
        sides = batch[f"chosen_{name}"], batch[f"rejected_{name}"]
        return torch.cat([F.pad(side, (0, width - side.shape[1])) for side in sides])

    input_ids = both("input_ids")
    logits = model(input_ids=input_ids, attention_mask=both("attention_mask")).logits
    logps = sequence_logprobs(logits, input_ids, both("response_mask"))
    chosen, rejected = logps.split([len(batch["chosen_input_ids"]), len(batch["rejected_input_ids"])])
    return chosen, rejected


def dpo_step(
    policy: torch.nn.Module,
    reference: torch.nn.Module,
    batch: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    loss_fn: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
    max_grad_norm: float = 1.0,
) -> dict[str, float]:
    """One update of the policy on a batch of pairs; the reference runs without gradient and stays as it is.

    `loss_fn` takes policy_chosen, policy_rejected, ref_chosen, ref_rejected, each (B,). Returns floats: `loss`,
    `accuracy` (share of pairs with Delta > 0, a tie counts one half), `margin` (mean Delta, without beta) and
    `grad_norm` (before clipping), all measured before the update.
    """
    optimizer.zero_grad()
    policy_chosen, policy_rejected = preference_logps(policy, batch)
    with torch.no_grad():
        ref_chosen, ref_rejected = preference_logps(reference, batch)
    loss = loss_fn(policy_chosen, policy_rejected, ref_chosen, ref_rejected)
    loss.backward()
    grad_norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), max_grad_norm)
    optimizer.step()

    delta = _delta(policy_chosen, policy_rejected, ref_chosen, ref_rejected).detach()
    accuracy = (delta > 0).float() + 0.5 * (delta == 0).float()
    return {
        "loss": loss.item(),
        "accuracy": accuracy.mean().item(),
        "margin": delta.mean().item(),
        "grad_norm": grad_norm.item(),
    }
