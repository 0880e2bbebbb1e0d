"""The two updates of direct alignment: by the week's `dpo_step`, and from the log-probs of single tokens.

update(step, training, policy, reference, optimizer) -> (metrics, tokens read): one optimizer step on the batch of
update `step` (from 0) out of the training pairs.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from reference_impl.data.answers import Answers, collate, good_and_bad
from reference_impl.data.order import batch_indices
from reference_impl.data.pairs import Pair, collate_answers, collate_pairs
from reference_impl.distributed import divided, over_rows, sum_gradients
from reference_impl.errors import UserError
from reference_impl.logprobs import large_vocabulary
from reference_impl.loops.accumulate import backward, scorer
from reference_impl.loops.ranking import wins
from reference_impl.sampling import score
from reference_impl.settings import PreferenceSettings, ReferenceFreeSettings

Update = Callable[[int, list[Pair], nn.Module, nn.Module, torch.optim.Optimizer], tuple[dict[str, float], int]]
STEP_KEYS = ("loss", "accuracy", "margin", "grad_norm")


def pair_update(functions, loss_for, tokenizer, settings: PreferenceSettings) -> Update:
    """By week 08's `dpo_step`. `loss_for(batch)` is the loss of the four summed log-probs that it calls.

    `dpo_step` and `preference_logps` ask for whole logits; for a large vocabulary `large_pair_update` takes their
    place, around the same loss.
    """
    large = large_pair_update(loss_for, tokenizer, settings)

    def update(step, training, policy, reference, optimizer):
        if large_vocabulary(policy):
            return large(step, training, policy, reference, optimizer)
        rows = batch_indices(step, len(training), settings.batch_size, settings.seed)
        batch = collate_pairs([training[row] for row in rows], tokenizer.pad_token_id)
        with divided(policy, reference):
            metrics = functions.dpo_step(policy, reference, batch, optimizer, loss_for(batch), settings.max_grad_norm)
        check_step(metrics)
        return metrics, int(batch["chosen_attention_mask"].sum() + batch["rejected_attention_mask"].sum())

    return update


def large_pair_update(loss_for, tokenizer, settings: PreferenceSettings) -> Update:
    """What `dpo_step` does, without whole logits: log-probs from hidden states, the reference's computed once for all.

    accuracy and margin are those of `dpo_step`, measured before the update.
    """
    of_reference: list[Tensor] = []  # (2, N) summed log-probs of chosen and rejected, of every training pair

    def update(step, training, policy, reference, optimizer):
        if not of_reference:
            of_reference.append(torch.stack(large_pair_logps(reference, training, tokenizer.pad_token_id)))
        rows = batch_indices(step, len(training), settings.batch_size, settings.seed)
        pairs, ref_logps = [training[row] for row in rows], of_reference[0][:, rows]
        answers, attention, mask = both_sides(pairs, tokenizer.pad_token_id)
        loss_fn = loss_for(collate_pairs(pairs, tokenizer.pad_token_id))

        def of_logprobs(logprobs: Tensor) -> Tensor:
            return loss_fn(*(logprobs * mask).sum(1).chunk(2), *ref_logps)

        optimizer.zero_grad()
        policy.train()
        forward = scorer(policy, answers, attention, mask)
        logprobs, loss = backward(forward, attention.sum(1), of_logprobs, settings.micro_batches)
        sum_gradients(policy)
        grad_norm = nn.utils.clip_grad_norm_(policy.parameters(), settings.max_grad_norm)
        optimizer.step()
        chosen, rejected = (logprobs.detach() * mask).sum(1).chunk(2)
        delta = (chosen - ref_logps[0]) - (rejected - ref_logps[1])
        metrics = {
            "loss": loss.item(),
            "accuracy": wins(delta).mean().item(),
            "margin": delta.mean().item(),
            "grad_norm": grad_norm.item(),
        }
        return metrics, int(attention.sum())

    return update


def both_sides(pairs: list[Pair], pad_id: int) -> tuple[Tensor, Tensor, Tensor]:
    """ids, attention mask and answer mask (2N, T): first the chosen answers, then the rejected ones."""
    rows = [(pair.prompt, pair.chosen) for pair in pairs] + [(pair.prompt, pair.rejected) for pair in pairs]
    return collate_answers(rows, pad_id)


@torch.no_grad()
def large_pair_logps(model: nn.Module, pairs: list[Pair], pad_id: int) -> tuple[Tensor, Tensor]:
    """Summed log-probs of all chosen and all rejected answers, each (N,), read in parts of like length."""
    model.eval()
    return summed_scores(model, *both_sides(pairs, pad_id)).chunk(2)


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
        optimizer.zero_grad()
        forward = scorer(policy, answers.input_ids, answers.attention_mask, answers.mask)
        lengths = answers.attention_mask.sum(1)
        _, loss = backward(forward, lengths, lambda logprobs: loss_fn(logprobs, answers), settings.micro_batches)
        sum_gradients(policy)
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
    return summed_scores(model, answers.input_ids, answers.attention_mask, answers.mask)


@torch.no_grad()
def summed_scores(model: nn.Module, input_ids: Tensor, attention_mask: Tensor, mask: Tensor) -> Tensor:
    """The log-probs where the mask is 1, summed over each row (R,)."""

    def of_rows(rows: slice) -> Tensor:
        return (score(model, input_ids[rows], attention_mask[rows], mask=mask[rows]) * mask[rows]).sum(1)

    return over_rows(of_rows, len(input_ids))
