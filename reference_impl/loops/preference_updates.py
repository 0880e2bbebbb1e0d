"""The two updates of direct alignment: by the week's `dpo_step`, and from the log-probs of single tokens.

update(step, training, policy, reference, optimizer) -> (metrics, tokens read): one optimizer step on the batch of
update `step` (from 0) out of the training pairs.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from reference_impl.config import PreferenceSettings, ReferenceFreeSettings
from reference_impl.data.answers import Answers, collate, good_and_bad
from reference_impl.data.order import batch_indices
from reference_impl.data.pairs import Pair, collate_pairs
from reference_impl.errors import UserError
from reference_impl.loops.update import checked_loss
from reference_impl.sampling import score

Update = Callable[[int, list[Pair], nn.Module, nn.Module, torch.optim.Optimizer], tuple[dict[str, float], int]]
STEP_KEYS = ("loss", "accuracy", "margin", "grad_norm")


def pair_update(functions, loss_for, tokenizer, settings: PreferenceSettings) -> Update:
    """By week 08's `dpo_step`. `loss_for(batch)` is the loss of the four summed log-probs that it calls."""

    def update(step, training, policy, reference, optimizer):
        rows = batch_indices(step, len(training), settings.batch_size, settings.seed)
        batch = collate_pairs([training[row] for row in rows], tokenizer.pad_token_id)
        metrics = functions.dpo_step(policy, reference, batch, optimizer, loss_for(batch), settings.max_grad_norm)
        check_step(metrics)
        return metrics, int(batch["chosen_attention_mask"].sum() + batch["rejected_attention_mask"].sum())

    return update


def check_step(metrics) -> None:
    """UserError unless dpo_step returned its four floats."""
    if not isinstance(metrics, dict) or any(not isinstance(metrics.get(key), float) for key in STEP_KEYS):
        raise UserError(f"dpo_step should return a dict with the floats {', '.join(STEP_KEYS)}, not {metrics!r}.")


def answer_update(
    loss_fn: Callable[[Tensor, Answers], Tensor], tokenizer, settings: ReferenceFreeSettings, anchored: bool
) -> Update:
    """From the token log-probs of all answers in one forward pass: loss_fn(logprobs (R, T), answers) -> scalar.

    The reference is only asked when the loss is `anchored` to it (KTO), then also about mismatched pairs.
    """

    def update(step, training, policy, reference, optimizer):
        answers, others = collate(*good_and_bad(training, step, settings), tokenizer.pad_token_id)
        metrics = anchor(answers, others, policy, reference) if anchored else {}
        logprobs = score(policy, answers.input_ids, answers.attention_mask)
        loss = checked_loss(loss_fn(logprobs, answers))
        optimizer.zero_grad()
        loss.backward()
        grad_norm = nn.utils.clip_grad_norm_(policy.parameters(), settings.max_grad_norm)
        optimizer.step()
        metrics |= {"loss": loss.item(), "grad_norm": grad_norm.item()}
        return metrics, int(answers.attention_mask.sum())

    return update


@torch.no_grad()
def anchor(answers: Answers, others: Answers, policy: nn.Module, reference: nn.Module) -> dict[str, float]:
    """Put the log-probs that KTO compares with into `answers`.

    mismatched_gap: mean of log pi - log ref over the mismatched pairs, which `kto_kl` clamps at 0.
    """
    answers.ref_logps = summed_logps(reference, answers)
    answers.kl_logps, answers.ref_kl_logps = summed_logps(policy, others), summed_logps(reference, others)
    return {"mismatched_gap": (answers.kl_logps - answers.ref_kl_logps).mean().item()}


def summed_logps(model: nn.Module, answers: Answers) -> Tensor:
    """log pi(answer | prompt) of each row (R,)."""
    return (score(model, answers.input_ids, answers.attention_mask) * answers.mask).sum(1)
