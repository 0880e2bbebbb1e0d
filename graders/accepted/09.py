"""Week 09, right: SimPO, ORPO and KTO written in other ways."""

import math

import torch
import torch.nn.functional as F

from graders.accepted import right

# --- average_logps ----------------------------------------------------------------------------------------------------


@right("average_logps", "mask by multiplication, a matrix product for the sum")
def average_by_product(logprobs, mask):
    weights = mask.to(logprobs.dtype)
    return torch.einsum("bt,bt->b", logprobs, weights) / weights.sum(-1)


@right("average_logps", "a loop over the rows")
def average_by_rows(logprobs, mask):
    return torch.stack([row[keep].mean() for row, keep in zip(logprobs, mask.bool(), strict=True)])


@right("average_logps", "masked_fill and nanmean")
def average_by_nanmean(logprobs, mask):
    return logprobs.masked_fill(mask == 0, torch.nan).nanmean(dim=1)


# --- simpo_loss -------------------------------------------------------------------------------------------------------


@right("simpo_loss", "softplus of minus the absolute margin's surplus")
def simpo_by_softplus(chosen_avg, rejected_avg, beta=2.0, gamma_beta_ratio=0.5):
    gamma = beta * gamma_beta_ratio
    return F.softplus(gamma - (beta * chosen_avg - beta * rejected_avg)).mean()


@right("simpo_loss", "binary cross-entropy with logits")
def simpo_by_cross_entropy(chosen_avg, rejected_avg, beta=2.0, gamma_beta_ratio=0.5):
    x = (chosen_avg - rejected_avg - gamma_beta_ratio) * beta
    return F.binary_cross_entropy_with_logits(x, torch.ones_like(x))


@right("simpo_loss", "log of the sigmoid, pair by pair")
def simpo_by_pairs(chosen_avg, rejected_avg, beta=2.0, gamma_beta_ratio=0.5):
    losses = [
        -torch.log(torch.sigmoid(beta * (c - r - gamma_beta_ratio)))
        for c, r in zip(chosen_avg, rejected_avg, strict=True)
    ]
    return sum(losses) / len(losses)


# --- log_odds_ratio ---------------------------------------------------------------------------------------------------


def _log1mexp(x):
    """log(1 - exp(x)) by cases: expm1 near 0, log1p far from it."""
    near = x > -math.log(2)
    return torch.where(
        near,
        torch.log(-torch.expm1(torch.where(near, x, -1.0))),
        torch.log1p(-torch.exp(torch.where(near, -1.0, x))),
    )


@right("log_odds_ratio", "log1mexp by cases")
def odds_by_cases(chosen_avg, rejected_avg):
    return (chosen_avg - _log1mexp(chosen_avg)) - (rejected_avg - _log1mexp(rejected_avg))


@right("log_odds_ratio", "1 - exp in float64, cast back")
def odds_in_double(chosen_avg, rejected_avg):
    c, r = chosen_avg.double(), rejected_avg.double()
    odds = (c - torch.log(1 - c.exp())) - (r - torch.log(1 - r.exp()))
    return odds.to(chosen_avg.dtype)


@right("log_odds_ratio", "minus the log of exp(-avg) - 1, in a form that does not overflow")
def odds_by_negated_expm1(chosen_avg, rejected_avg):
    def log_odds(x):  # -log(exp(-x) - 1) = x - log(1 - exp(x))
        return x - (-x.expm1()).log()

    both = log_odds(torch.stack([chosen_avg, rejected_avg]))
    return both[0] - both[1]


# --- orpo_loss --------------------------------------------------------------------------------------------------------


@right("orpo_loss", "two means added, softplus")
def orpo_by_two_means(chosen_avg, rejected_avg, chosen_nll, lam=0.1):
    return chosen_nll.mean() + lam * F.softplus(-odds_by_cases(chosen_avg, rejected_avg)).mean()


@right("orpo_loss", "minus lam times the mean log sigmoid")
def orpo_subtracts_the_log(chosen_avg, rejected_avg, chosen_nll, lam=0.1):
    ratio = torch.nn.LogSigmoid()(odds_by_negated_expm1(chosen_avg, rejected_avg))
    return torch.mean(chosen_nll - lam * ratio)


@right("orpo_loss", "the odds ratio's share, pair by pair, log of the sigmoid")
def orpo_by_pairs(chosen_avg, rejected_avg, chosen_nll, lam=0.1):
    ratios = odds_in_double(chosen_avg, rejected_avg)
    terms = [-torch.log(torch.sigmoid(ratio)) for ratio in ratios]
    return chosen_nll.mean() + lam * sum(terms) / len(terms)


# --- kto_kl -----------------------------------------------------------------------------------------------------------


@right("kto_kl", "under no_grad, relu of the difference of two means")
@torch.no_grad()
def kl_by_relu(policy_kl_logps, ref_kl_logps):
    return torch.relu(policy_kl_logps.mean() - ref_kl_logps.mean())


@right("kto_kl", "detached first, torch.clamp_min")
def kl_detached_first(policy_kl_logps, ref_kl_logps):
    return torch.clamp_min(torch.sub(policy_kl_logps.detach(), ref_kl_logps.detach()).sum() / len(ref_kl_logps), 0.0)


@right("kto_kl", "torch.maximum with a zero")
def kl_by_maximum(policy_kl_logps, ref_kl_logps):
    kl = torch.mean(policy_kl_logps.data - ref_kl_logps.data)
    return torch.maximum(kl, kl.new_zeros(()))


# --- kto_loss ---------------------------------------------------------------------------------------------------------


def _constant(kl):
    return kl.detach() if torch.is_tensor(kl) else kl


@right("kto_loss", "1 - sigmoid written out, a sign and a weight for each response")
def kto_by_signs(policy_logps, ref_logps, desirable, kl, beta=0.1, desirable_weight=1.0, undesirable_weight=1.0):
    d = desirable.to(policy_logps.dtype)
    weight = d * desirable_weight + (1 - d) * undesirable_weight
    gain = beta * (policy_logps - ref_logps.detach() - _constant(kl))
    return (weight * (1 - torch.sigmoid((2 * d - 1) * gain))).mean()


@right("kto_loss", "the two kinds selected, summed and divided by all")
def kto_by_selection(policy_logps, ref_logps, desirable, kl, beta=0.1, desirable_weight=1.0, undesirable_weight=1.0):
    ratio = policy_logps - ref_logps.detach()
    good, bad = ratio[desirable], ratio[~desirable]
    kl = _constant(kl)
    lost = desirable_weight * (1 - torch.sigmoid(beta * (good - kl))).sum()
    lost = lost + undesirable_weight * (1 - torch.sigmoid(beta * (kl - bad))).sum()
    return lost / len(ratio)


@right("kto_loss", "concatenated losses, weights outside, the reference under no_grad")
def kto_by_concatenation(
    policy_logps, ref_logps, desirable, kl, beta=0.1, desirable_weight=1.0, undesirable_weight=1.0
):
    with torch.no_grad():
        point = ref_logps + _constant(kl)
    x = (policy_logps - point) * beta
    good, bad = F.sigmoid(-x[desirable]), F.sigmoid(x[desirable.logical_not()])
    return torch.cat([desirable_weight * good, undesirable_weight * bad]).mean()
