"""Week 09: preference losses without a reference model (SimPO, ORPO), and KTO, which needs no pairs.

    SimPO   -log sigma(beta (chosen_avg - rejected_avg - gamma_beta_ratio))
    ORPO    NLL(chosen) - lam log sigma(log odds(chosen_avg) - log odds(rejected_avg)),  odds = p/(1-p), p = exp(avg)
    KTO     w (1 - sigma(+-beta (logratio - kl))),  logratio = policy - ref,  + for desirable, - for undesirable

`*_avg` are log-probs averaged over the response's tokens (`average_logps`); KTO's are sums.

Where others differ
- SimPO's margin is a ratio here and in the book's code: beta (gap - ratio). The paper and TRL name the absolute margin
  gamma = beta ratio: beta gap - gamma. The defaults 2.0 and 0.5 are the paper's gamma of 1.0.
- ORPO's NLL is the mean over the response's tokens, so chosen_nll = -chosen_avg and no further forward pass is needed
  (the book's code runs one). TRL averages the NLL over prompt and response.
- KTO is one mean over the batch, as in TRL. The book's code adds the mean over desirable and the mean over undesirable
  examples: twice ours on a balanced batch. It also estimates the KL on the matched rejected responses, where it is 0
  almost always; `kto_kl` takes mismatched pairs, as the paper does.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from reference_impl.masking import keep, upcast


def average_logps(logprobs: Tensor, mask: Tensor) -> Tensor:
    """Mean log-prob of each response's tokens: sum_t mask logprob / sum_t mask.

    Shapes: (B, T), (B, T) -> (B,). A row with an empty mask is 0.
    """
    return keep(logprobs, mask).sum(dim=1) / mask.bool().sum(dim=1).clamp(min=1)


def simpo_loss(chosen_avg: Tensor, rejected_avg: Tensor, beta: float = 2.0, gamma_beta_ratio: float = 0.5) -> Tensor:
    """Mean of -log sigma(beta (chosen - rejected - ratio)). Meng et al., arXiv:2405.14734 eq. 6.

    Shapes: (B,), (B,) -> scalar.
    """
    gap = upcast(chosen_avg) - upcast(rejected_avg)
    return -F.logsigmoid(beta * (gap - gamma_beta_ratio)).mean()


def log_odds_ratio(chosen_avg: Tensor, rejected_avg: Tensor) -> Tensor:
    """log odds(chosen) - log odds(rejected), with log odds = avg - log(1 - exp(avg)). Hong et al., arXiv:2403.07691.

    Shapes: (B,), (B,) -> (B,). A probability of exactly 1 (avg = 0, by rounding) has infinite odds; it
    counts as a probability just below 1, so that value and gradient stay finite.
    """
    chosen_avg, rejected_avg = upcast(chosen_avg), upcast(rejected_avg)
    return (chosen_avg - rejected_avg) - (_log_complement(chosen_avg) - _log_complement(rejected_avg))


def _log_complement(avg: Tensor) -> Tensor:
    """log(1 - exp(avg)) for avg <= 0.

    -expm1 keeps all digits near 0, where 1 - exp(avg) has none left. Far from 0 the result is tiny and only rounded in
    an absolute sense, which is all that a log-odds needs: there it is added to a much larger avg.
    """
    below_zero = avg.clamp(max=-torch.finfo(avg.dtype).tiny)
    return torch.log(-torch.expm1(below_zero))


def orpo_loss(chosen_avg: Tensor, rejected_avg: Tensor, chosen_nll: Tensor, lam: float = 0.1) -> Tensor:
    """Mean of NLL(chosen) - lam log sigma(log odds ratio). Hong et al., arXiv:2403.07691 eq. 6 and 7.

    Shapes: (B,), (B,), scalar or (B,) -> scalar. All three carry gradient.
    """
    odds_ratio_loss = -F.logsigmoid(log_odds_ratio(chosen_avg, rejected_avg))
    return (chosen_nll + lam * odds_ratio_loss).mean()


def kto_kl(policy_kl_logps: Tensor, ref_kl_logps: Tensor) -> Tensor:
    """KTO's reference point: max(mean(policy - ref), 0) over mismatched pairs. arXiv:2402.01306 section 4.

    Shapes: (B,), (B,) -> scalar, a constant. Prompt i stands with the completion of another prompt, so that the point
    measures how far the policy has moved everywhere, not how well it likes these answers.
    """
    return (upcast(policy_kl_logps) - upcast(ref_kl_logps)).mean().clamp(min=0).detach()


def kto_loss(
    policy_logps: Tensor,
    ref_logps: Tensor,
    desirable: Tensor,
    kl: Tensor | float,
    beta: float = 0.1,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """Mean over the batch of w (1 - sigma(+-beta (policy - ref - kl))). Ethayarajh et al., arXiv:2402.01306 section 4.

    Shapes: (B,), (B,), (B,) bool, scalar -> scalar. Only `policy_logps` carries gradient. A batch of one kind is fine.
    """
    desirable = desirable.bool()
    kl = kl.detach() if isinstance(kl, Tensor) else kl
    gain = beta * (upcast(policy_logps) - upcast(ref_logps).detach() - kl)
    value_lost = torch.sigmoid(torch.where(desirable, -gain, gain))  # 1 - sigma(x) = sigma(-x), without cancellation
    return torch.where(desirable, desirable_weight * value_lost, undesirable_weight * value_lost).mean()
