"""Week 08: direct preference optimization (book chapter 8). Fill in five functions; `pytest weeks/08` grades this file.

Notation: `..._logps` are log-probabilities of whole responses, (B,), one entry a pair. For each pair
Delta = (policy_chosen - ref_chosen) - (policy_rejected - ref_rejected). sigma is the logistic function.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def implicit_rewards(policy_logps: Tensor, ref_logps: Tensor, beta: float) -> Tensor:
    """The reward that a policy implies: the one for which it would be the optimal policy.

    Formula: beta (policy_logps - ref_logps).
    Shapes:  (B,), (B,), a number -> (B,).
    Edges:   a measurement, not a loss: no gradient flows through it. Star: half precision is subtracted in float32.
    Example: policy [-10, -12], ref [-11, -9], beta 0.1 -> [0.1, -0.3]
    Source:  Rafailov et al. 2023, arXiv:2305.18290, section 4 (below eq. 7); book ch. 8, implicit rewards.
    """
    raise NotImplementedError("Week 08, task 1: write implicit_rewards (lesson section 'The reward inside a policy')")


def dpo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
) -> Tensor:
    """The DPO loss, and with label smoothing conservative DPO, for labels that are wrong with probability eps.

    Formula: mean of -(1 - eps) log sigma(beta Delta) - eps log sigma(-beta Delta), eps = label_smoothing.
    Shapes:  four times (B,) -> scalar.
    Edges:   gradients flow into the policy's log-probs only; the reference's are constants.
             Star: beta Delta of +-200 gives a finite loss and the right gradient (log(sigmoid(x)) does not: use
             logsigmoid); half precision is computed in float32.
    Example: policy (-10, -12), ref (-11, -11), beta 0.5: Delta = 2, loss log(1 + 1/e) = 0.3133; with eps 0.1: 0.4133
    Source:  Rafailov et al. 2023, arXiv:2305.18290, eq. 7; cDPO: Mitchell 2023, ericmitchell.ai/cdpo.pdf; book ch. 8.
    """
    raise NotImplementedError("Week 08, task 2: write dpo_loss (lesson section 'The DPO loss')")


def ipo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    beta: float = 0.1,
) -> Tensor:
    """The IPO loss: the squared distance of each pair's Delta from a target, so that no pair is pushed apart for ever.

    Formula: mean of (Delta - 1/(2 beta))^2.
    Shapes:  four times (B,) -> scalar.
    Edges:   gradients flow into the policy's log-probs only. The function takes log-probs as they come; the launcher
             gives it averages over tokens, as the authors and TRL do. Star: half precision is computed in float32.
    Example: policy (-10, -12), ref (-11, -11), beta 0.5: Delta = 2, target 1, loss 1.0
    Source:  Azar et al. 2023, arXiv:2310.12036, eq. 17 (their tau is beta); book ch. 8, IPO.
    """
    raise NotImplementedError("Week 08, task 3: write ipo_loss (lesson section 'A target instead of a race: IPO')")


def preference_logps(model: torch.nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Log-probs of the chosen and the rejected responses of a batch of pairs, from one forward pass over both.

    Formula: sum over t of mask[i, t] log pi(token t | tokens before t), mask the response mask; the logits at t - 1
             predict the token at t.
    Shapes:  batch["chosen_input_ids"], batch["chosen_attention_mask"], batch["chosen_response_mask"] are (B, Tc), the
             same three of "rejected_" (B, Tr), each side right-padded to its own length. model(input_ids=...,
             attention_mask=...).logits is (2B, T, V). Returns (chosen (B,), rejected (B,)).
    Edges:   call the model once: pad the shorter side on the right (ids any, both masks 0) and put chosen rows above
             rejected rows. The result equals two separate passes. Sums, not averages; prompt and padding do not count;
             differentiable with respect to the model. Star: NaN in the logits of padding changes neither value nor
             gradient; half-precision logits are computed in float32.
    Example: a model whose logits are all 0, V = 8, responses of 3 and 1 tokens -> -3 log 8 = -6.2383, -log 8 = -2.0794
    Source:  book ch. 8, implementation; the trick is as old as the first public DPO code (concatenated forward).
    """
    raise NotImplementedError(
        "Week 08, task 4: write preference_logps (lesson section 'Two responses, one forward pass')"
    )


def dpo_step(
    policy: torch.nn.Module,
    reference: torch.nn.Module,
    batch: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    loss_fn: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
    max_grad_norm: float = 1.0,
) -> dict[str, float]:
    """One update of the policy on a batch of pairs (as in `preference_logps`), with what you would log about it.

    Formula: loss = loss_fn(policy_chosen, policy_rejected, ref_chosen, ref_rejected); accuracy = share of pairs with
             Delta > 0, a tie counts one half; margin = mean Delta, without beta.
    Shapes:  the log-probs given to loss_fn are (B,). Returns a dict of floats: loss, accuracy, margin, grad_norm.
    Edges:   stale gradients are cleared first. The reference runs without gradient and stays untouched: no .grad, no
             change of weights or mode. The gradient is clipped to max_grad_norm (torch.nn.utils.clip_grad_norm_);
             grad_norm is the norm before clipping. All four numbers describe the policy before the update.
    Example: at the first step policy = reference, every Delta is 0: DPO loss log 2 = 0.6931, accuracy 0.5, margin 0
    Source:  Rafailov et al. 2023, arXiv:2305.18290, section 4 (DPO outline); book ch. 8.
    """
    raise NotImplementedError("Week 08, task 5: write dpo_step (lesson section 'One update')")
