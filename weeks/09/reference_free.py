"""Week 09: SimPO, KTO, ORPO (book chapter 8). Fill in the six functions; `pytest weeks/09` grades this file.

Shapes: B responses of up to T tokens. `logprobs[i, t]` is the policy's log-probability of the token at t. `mask[i, t]`
is 1 on response tokens and 0 elsewhere, of bool, int or float dtype; what stands under a 0 must not matter. `*_avg` are
log-probs averaged over a response's tokens, `*_logps` are summed. sigma is the logistic function. Losses have the dtype
of the floating inputs; no input is changed in place.
"""

from torch import Tensor


def average_logps(logprobs: Tensor, mask: Tensor) -> Tensor:
    """The mean log-prob of each response's tokens: the implicit reward of SimPO, without the length.

    Formula: avg_i = sum_t mask[i, t] logprobs[i, t] / sum_t mask[i, t].
    Shapes:  logprobs (B, T), mask (B, T) -> (B,).
    Edges:   each row is divided by its own number of tokens, never by T.
             Star: a row with an empty mask is 0; NaN or infinity under the mask changes neither value nor gradient;
             half precision is summed in float32.
    Example: logprobs [[-1, -2, -9], [-3, -5, -7]], mask [[1, 1, 0], [1, 1, 1]] -> [-1.5, -5]
    Source:  Meng et al. 2024, arXiv:2405.14734 eq. 3; book ch. 8, SimPO.
    """
    raise NotImplementedError("Week 09, task 1: write average_logps (lesson section 'A reward without its length')")


def simpo_loss(chosen_avg: Tensor, rejected_avg: Tensor, beta: float = 2.0, gamma_beta_ratio: float = 0.5) -> Tensor:
    """SimPO: the chosen response's average log-prob should beat the rejected one's by a target margin; no reference.

    Formula: mean over pairs of -log sigma(beta (chosen_avg - rejected_avg - gamma_beta_ratio)).
             The margin is a ratio: the paper's gamma (and TRL's simpo_gamma) is beta * gamma_beta_ratio.
    Shapes:  chosen_avg (B,), rejected_avg (B,) -> scalar.
    Edges:   gradient flows into both.
             Star: finite, with the right gradient, when the gap is +-200; half precision is computed in float32.
    Example: chosen_avg [-1, -2], rejected_avg [-2, -1.5] -> 1.220095
    Source:  Meng et al. 2024, arXiv:2405.14734 eq. 6; book ch. 8, SimPO.
    """
    raise NotImplementedError("Week 09, task 2: write simpo_loss (lesson section 'A margin to win by')")


def log_odds_ratio(chosen_avg: Tensor, rejected_avg: Tensor) -> Tensor:
    """How many times likelier than not is chosen, against rejected: the log of ORPO's odds ratio.

    Formula: log odds(chosen) - log odds(rejected), with odds = p / (1 - p) and p = exp(avg).
    Shapes:  chosen_avg (B,), rejected_avg (B,) -> (B,).
    Edges:   accurate, with its gradient, for averages from -1e4 (p near 0) up to -1e-6 (p near 1), in float32 too: no
             epsilon inside the log and no clamp that changes such values. Gradient flows into both.
             Star: finite, never NaN, at an average of exactly 0; half precision is computed in float32.
    Example: chosen_avg [-0.5], rejected_avg [-2] -> [2.287339]
    Source:  Hong et al. 2024, arXiv:2403.07691 eq. 4 and 5; book ch. 8, ORPO.
    """
    raise NotImplementedError("Week 09, task 3: write log_odds_ratio (lesson section 'Odds')")


def orpo_loss(chosen_avg: Tensor, rejected_avg: Tensor, chosen_nll: Tensor, lam: float = 0.1) -> Tensor:
    """ORPO: instruction tuning on the chosen response, plus a small push for its odds against the rejected one.

    Formula: mean over pairs of chosen_nll + lam * (-log sigma(log_odds_ratio)).
    Shapes:  chosen_avg (B,), rejected_avg (B,), chosen_nll a scalar (the batch's token mean) or (B,) -> scalar.
    Edges:   chosen_nll is a loss already (positive, to be minimised), and gradient flows into all three arguments.
             Star: finite, with the right gradient, at averages from -1e4 up to -1e-6; half precision is computed in
             float32.
    Example: chosen_avg [-0.5, -1], rejected_avg [-2, -0.8], chosen_nll [0.5, 1] -> 0.798652
    Source:  Hong et al. 2024, arXiv:2403.07691 eq. 6 and 7; book ch. 8, ORPO.
    """
    raise NotImplementedError("Week 09, task 4: write orpo_loss (lesson section 'Tuning and aligning at once')")


def kto_kl(policy_kl_logps: Tensor, ref_kl_logps: Tensor) -> Tensor:
    """KTO's reference point: how far the policy has moved from the reference, estimated on mismatched pairs.

    Formula: max(mean_i(policy_kl_logps[i] - ref_kl_logps[i]), 0). Entry i is the summed log-prob of another prompt's
             completion after prompt i, under the policy and under the reference.
    Shapes:  policy_kl_logps (B,), ref_kl_logps (B,) -> scalar.
    Edges:   the mean is clamped, not its entries. The result is a constant: no gradient flows through it.
             Star: half precision is computed in float32.
    Example: policy [-10, -20], ref [-12, -21] -> 1.5; policy [-12], ref [-10] -> 0
    Source:  Ethayarajh et al. 2024, arXiv:2402.01306 section 4; book ch. 8, KTO.
    """
    raise NotImplementedError("Week 09, task 5: write kto_kl (lesson section 'The reference point')")


def kto_loss(
    policy_logps: Tensor,
    ref_logps: Tensor,
    desirable: Tensor,
    kl: Tensor | float,
    beta: float = 0.1,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """KTO: single responses marked good or bad, no pairs; each gains or loses value against the reference point.

    Formula: mean over all B responses, with logratio = policy_logps - ref_logps, of
             desirable_weight   * (1 - sigma(beta (logratio - kl)))   for a desirable response,
             undesirable_weight * (1 - sigma(beta (kl - logratio)))   for an undesirable one.
    Shapes:  policy_logps (B,), ref_logps (B,), desirable (B,) bool, kl a number or scalar tensor -> scalar.
    Edges:   one mean over the batch, not one mean a kind: a batch of only desirable responses is ordinary. Gradient
             flows into policy_logps alone; ref_logps and kl are constants even if they require a gradient.
             Star: right at log-ratios of +-200 and for desirable of int or float dtype; half precision is computed in
             float32.
    Example: policy [-10, -12], ref [-11, -11], desirable [True, False], kl 0.5 -> 0.475036
    Source:  Ethayarajh et al. 2024, arXiv:2402.01306 section 4; book ch. 8, KTO.
    """
    raise NotImplementedError("Week 09, task 6: write kto_loss (lesson section 'Good or bad, one at a time')")
