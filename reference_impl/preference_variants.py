"""Preference losses that are not exercises: DPO-norm, APO-zero, APO-down.

With h_w = policy_chosen - ref_chosen and h_l = policy_rejected - ref_rejected, each (B,):

    DPO-norm   -log sigma(beta (h_w - h_l)),  h of length-averaged log-probs
    APO-zero   -sigma(beta h_w) + sigma(beta h_l)          chosen up, rejected down
    APO-down    sigma(beta h_w) - sigma(beta (h_w - h_l))  both down, rejected further

The four arguments are those of week 08's losses, so that one loop trains them all. The APO paper and TRL write
1 - sigma where we and the book's code write -sigma: their value is larger by exactly 1, the gradient is the same.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from reference_impl.masking import upcast


def dpo_norm_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    beta: float = 2.0,
) -> Tensor:
    """DPO on length-averaged log-probs (TRL's "sigmoid_norm"). Lambert et al., arXiv:2411.15124 section 5.

    Shapes: four (B,) averages over the response's tokens -> scalar. Beta is larger than DPO's 0.1, since an average is
    smaller than a sum by the length.
    """
    chosen = _log_ratio(policy_chosen_logps, ref_chosen_logps)
    rejected = _log_ratio(policy_rejected_logps, ref_rejected_logps)
    return -F.logsigmoid(beta * (chosen - rejected)).mean()


def apo_zero_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    beta: float = 0.1,
) -> Tensor:
    """For chosen answers better than the policy's own: raise them, lower the rejected. arXiv:2408.06266 eq. 7.

    Shapes: four (B,) summed log-probs -> scalar.
    """
    chosen = _log_ratio(policy_chosen_logps, ref_chosen_logps)
    rejected = _log_ratio(policy_rejected_logps, ref_rejected_logps)
    return (torch.sigmoid(beta * rejected) - torch.sigmoid(beta * chosen)).mean()


def apo_down_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    beta: float = 0.1,
) -> Tensor:
    """For chosen answers worse than the policy's own: lower both, the rejected further. arXiv:2408.06266 eq. 8.

    Shapes: four (B,) summed log-probs -> scalar.
    """
    chosen = _log_ratio(policy_chosen_logps, ref_chosen_logps)
    rejected = _log_ratio(policy_rejected_logps, ref_rejected_logps)
    return (torch.sigmoid(beta * chosen) - torch.sigmoid(beta * (chosen - rejected))).mean()


def _log_ratio(policy_logps: Tensor, ref_logps: Tensor) -> Tensor:
    """log pi - log ref of each response; the reference is a constant."""
    return upcast(policy_logps) - upcast(ref_logps).detach()
