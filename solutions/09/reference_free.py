"""Week 09, solved: SimPO, ORPO and KTO.

Read it after your own attempt. Each comment says why a line is there; most of them guard against something that real
training code got wrong.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def average_logps(logprobs: Tensor, mask: Tensor) -> Tensor:
    """sum_t mask logprob / sum_t mask.  Shapes: (B, T), (B, T) -> (B,)."""
    # where, not `logprobs * mask`: 0 * NaN is NaN, and padding may hold anything.
    kept = torch.where(mask.bool(), _full_precision(logprobs), 0)
    # The row's own count, not T. clamp(min=1): an empty row is 0 / 1 and not 0 / 0.
    return kept.sum(dim=1) / mask.bool().sum(dim=1).clamp(min=1)


def simpo_loss(chosen_avg: Tensor, rejected_avg: Tensor, beta: float = 2.0, gamma_beta_ratio: float = 0.5) -> Tensor:
    """Mean of -log sigma(beta (chosen - rejected - ratio)).  Shapes: (B,), (B,) -> scalar."""
    gap = _full_precision(chosen_avg) - _full_precision(rejected_avg)
    # The margin stands inside the bracket: in absolute terms it is gamma = beta * ratio.
    # logsigmoid, not log(sigmoid(x)): for a badly ranked pair sigmoid rounds to 0, its log is -inf, its gradient NaN.
    return -F.logsigmoid(beta * (gap - gamma_beta_ratio)).mean()


def log_odds_ratio(chosen_avg: Tensor, rejected_avg: Tensor) -> Tensor:
    """log odds(chosen) - log odds(rejected).  Shapes: (B,), (B,) -> (B,)."""
    return _log_odds(chosen_avg) - _log_odds(rejected_avg)


def _log_odds(avg: Tensor) -> Tensor:
    """log(p / (1 - p)) of p = exp(avg)."""
    avg = _full_precision(avg)
    # A token of probability 1 (avg = 0, by rounding) has infinite odds. The clamp is at the smallest number there is:
    # a coarser one, such as -1e-3, would bias every confident response.
    avg = avg.clamp(max=-torch.finfo(avg.dtype).tiny)
    # 1 - p as -expm1(avg): at avg = -1e-8, float32 rounds exp(avg) to 1 and the difference to 0.
    return avg - torch.log(-torch.expm1(avg))


def orpo_loss(chosen_avg: Tensor, rejected_avg: Tensor, chosen_nll: Tensor, lam: float = 0.1) -> Tensor:
    """Mean of NLL + lam (-log sigma(log odds ratio)).  Shapes: (B,), (B,), scalar or (B,) -> scalar."""
    # Without the NLL term nothing holds the chosen responses up: the odds ratio may grow while both fall.
    odds_ratio_loss = -F.logsigmoid(log_odds_ratio(chosen_avg, rejected_avg))
    return (chosen_nll + lam * odds_ratio_loss).mean()


def kto_kl(policy_kl_logps: Tensor, ref_kl_logps: Tensor) -> Tensor:
    """max(mean(policy - ref), 0), a constant.  Shapes: (B,), (B,) -> scalar."""
    kl = (_full_precision(policy_kl_logps) - _full_precision(ref_kl_logps)).mean()
    # The mean first, then the clamp: a KL is not negative, but single log-ratios are, and they have to cancel.
    return kl.clamp(min=0).detach()


def kto_loss(
    policy_logps: Tensor,
    ref_logps: Tensor,
    desirable: Tensor,
    kl: Tensor | float,
    beta: float = 0.1,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """Mean of w (1 - sigma(+-beta (logratio - kl))).  Shapes: (B,), (B,), (B,) bool, scalar -> scalar."""
    desirable = desirable.bool()
    # Reference and reference point are constants: a kl with gradient would let the loss fall by moving the point.
    kl = kl.detach() if isinstance(kl, Tensor) else kl
    logratio = _full_precision(policy_logps) - _full_precision(ref_logps).detach()
    gain = beta * (logratio - kl)
    # 1 - sigma(x) = sigma(-x); the right side keeps its digits when x is large.
    losses = torch.where(desirable, desirable_weight * torch.sigmoid(-gain), undesirable_weight * torch.sigmoid(gain))
    # One mean over the batch, so that a batch of only one kind needs no special case.
    return losses.mean()


def _full_precision(values: Tensor) -> Tensor:
    """Half precision to float32 before any sum: near -400 neighbouring bfloat16 numbers are 2 nats apart."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
