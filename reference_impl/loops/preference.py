"""Direct alignment: pairs sampled from the start policy and labelled by the verifier, learned by the week's `dpo_step`.

    samples of the policy -> right/wrong pairs -> dpo_step(policy, reference, batch, optimizer, loss) for each batch

Watch chosen_logps: preferring chosen over rejected does not keep chosen likely. When both fall and rejected falls
faster, the loss and the margin look well while the probability goes elsewhere (likelihood displacement).
"""

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from reference_impl.config import PreferenceSettings
from reference_impl.data.order import batch_indices
from reference_impl.data.pairs import Pair, collate_pairs, read_pairs, sample_pairs, split_pairs, write_pairs
from reference_impl.errors import UserError
from reference_impl.loops.evaluate import HeldOut
from reference_impl.runs.run import Run

STEP_KEYS = ("loss", "accuracy", "margin", "grad_norm")


def train_preferences(
    policy: nn.Module,
    reference: nn.Module,
    tokenizer,
    task,
    functions,
    loss_for: Callable[[dict[str, Tensor]], Callable[..., Tensor]],
    settings: PreferenceSettings,
    run: Run,
) -> dict[str, float]:
    """Train `policy` on preference pairs; returns held-out accuracies before and after.

    `loss_for(batch)` gives the loss of the four log-probs that `functions.dpo_step` calls on that batch.
    """
    optimizer = torch.optim.AdamW(
        policy.parameters(), settings.lr, settings.betas, weight_decay=settings.weight_decay, fused=True
    )
    training, last = pairs_of(run, policy, tokenizer, task, settings)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / settings.steps)
    parts = {"optimizer": optimizer, "schedule": schedule}
    pairs = collate_pairs(last, tokenizer.pad_token_id)
    reference_logps = pair_logps(reference, pairs, functions)

    def on_pairs(model: nn.Module, n: int) -> dict[str, float]:
        return pair_metrics(pair_logps(model, pairs, functions), reference_logps, functions, settings.beta)

    held_out = HeldOut(task, tokenizer, settings, run, also=on_pairs)
    before = held_out.before(policy)
    start = run.restore(policy, **parts)
    if start == 0:
        run.log(0, **before)
        run.save(0, policy, tokenizer, **parts)

    total_tokens, total_seconds = 0, 0.0
    for tick in run.steps(start, settings.steps, settings.algorithm):
        began = time.perf_counter()
        rows = batch_indices(tick.step - 1, len(training), settings.batch_size, settings.seed)
        batch = collate_pairs([training[row] for row in rows], tokenizer.pad_token_id)
        lr = schedule.get_last_lr()[0]
        policy.train()
        metrics = functions.dpo_step(policy, reference, batch, optimizer, loss_for(batch), settings.max_grad_norm)
        check_step(metrics)
        schedule.step()
        elapsed = time.perf_counter() - began
        tokens = int(batch["chosen_attention_mask"].sum() + batch["rejected_attention_mask"].sum())
        total_tokens, total_seconds = total_tokens + tokens, total_seconds + elapsed
        metrics = {**metrics, "lr": lr, "tokens_per_second": tokens / elapsed}
        run.log(tick.step, **metrics, **held_out.during(policy, tick.step))
        tick.note(f"loss {metrics['loss']:.3f}  accuracy {metrics['accuracy']:.2f}")
        run.save(tick.step, policy, tokenizer, **parts)

    return held_out.after(policy) | ({"tokens_per_second": total_tokens / total_seconds} if total_seconds else {})


def pairs_of(run: Run, policy, tokenizer, task, settings: PreferenceSettings) -> tuple[list[Pair], list[Pair]]:
    """(training, held out) pairs, sampled once and kept in the run folder, where a resumed run finds them again."""
    path = run.path / "pairs.jsonl"
    if not (run.resumed and path.exists()):
        prompts = task.prompts("pref", settings.pair_prompts, settings.seed)
        pairs = sample_pairs(
            policy,
            tokenizer,
            task,
            prompts,
            settings.samples_per_prompt,
            settings.pairs_per_prompt,
            settings.max_new_tokens,
            settings.seed,
        )
        write_pairs(path, pairs)
    return split_pairs(read_pairs(path), settings.held_out_pairs)


@torch.no_grad()
def pair_logps(model: nn.Module, batch: dict[str, Tensor], functions) -> tuple[Tensor, Tensor]:
    """The week's `preference_logps` without gradient: (chosen (B,), rejected (B,))."""
    model.eval()
    return functions.preference_logps(model, batch)


def pair_metrics(logps, reference_logps, functions, beta: float) -> dict[str, float]:
    """Of the held-out pairs: mean log-probs, implicit rewards, margin (mean Delta), share of pairs with Delta > 0."""
    (chosen, rejected), (ref_chosen, ref_rejected) = logps, reference_logps
    delta = (chosen - ref_chosen) - (rejected - ref_rejected)
    return {
        "chosen_logps": chosen.mean().item(),
        "rejected_logps": rejected.mean().item(),
        "chosen_rewards": functions.implicit_rewards(chosen, ref_chosen, beta).mean().item(),
        "rejected_rewards": functions.implicit_rewards(rejected, ref_rejected, beta).mean().item(),
        "eval_margin": delta.mean().item(),
        "eval_accuracy": ((delta > 0).float() + 0.5 * (delta == 0).float()).mean().item(),
    }


def check_step(metrics) -> None:
    """UserError unless dpo_step returned its four floats."""
    if not isinstance(metrics, dict) or any(not isinstance(metrics.get(key), float) for key in STEP_KEYS):
        raise UserError(f"dpo_step should return a dict with the floats {', '.join(STEP_KEYS)}, not {metrics!r}.")
