"""Scenes for week 09: what must be constant, and what must be finite."""

import torch


def without_gradient(kto_kl, policy_kl_logps: torch.Tensor, ref_kl_logps: torch.Tensor):
    """The reference point of log-probs that require a gradient, and whether a gradient would flow back."""
    kl = kto_kl(policy_kl_logps.clone().requires_grad_(), ref_kl_logps.clone().requires_grad_())
    return {"kl": kl.detach(), "carries a graph": kl.requires_grad}


def finite(log_odds_ratio, chosen_avg: torch.Tensor, rejected_avg: torch.Tensor):
    """Whether values and gradients are finite: how large the odds of a certain response are is left open."""
    chosen, rejected = chosen_avg.clone().requires_grad_(), rejected_avg.clone().requires_grad_()
    ratio = log_odds_ratio(chosen, rejected)
    ratio.sum().backward()
    uncertain = (chosen_avg < 0) & (rejected_avg < 0)
    return {
        "finite": bool(ratio.isfinite().all()),
        "finite gradient": bool(chosen.grad.isfinite().all() and rejected.grad.isfinite().all()),
        "signs": torch.where(ratio == 0, 0, ratio.sign()).long(),
        "the others": ratio.detach()[uncertain],
    }
