"""Direct alignment: pairs sampled from the start policy and labelled by the verifier, learned batch by batch.

    samples of the policy -> right/wrong pairs -> update(step, pairs, policy, reference, optimizer) for each batch

Watch chosen_logps: preferring chosen over rejected does not keep chosen likely. When both fall and rejected falls
faster, the loss and the margin look well while the probability goes elsewhere (likelihood displacement).
"""

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from reference_impl.data.pairs import Pair, collate_pairs, read_pairs, sample_pairs, split_pairs, write_pairs
from reference_impl.logprobs import large_vocabulary
from reference_impl.loops.evaluate import HeldOut
from reference_impl.loops.preference_updates import Update, large_pair_logps
from reference_impl.loops.public_data import learns_from_data, public_pairs
from reference_impl.loops.ranking import wins
from reference_impl.runs.run import Run
from reference_impl.settings import PreferenceSettings
from reference_impl.sharding import shard

Logps = Callable[[nn.Module, dict[str, Tensor]], tuple[Tensor, Tensor]]


def train_preferences(
    policy: nn.Module,
    reference: nn.Module,
    tokenizer,
    task,
    update: Update,
    preference_logps: Logps,
    settings: PreferenceSettings,
    run: Run,
    implicit_rewards: Callable[[Tensor, Tensor, float], Tensor] | None = None,
) -> dict[str, float]:
    """Train `policy` on preference pairs; returns held-out accuracies before and after.

    The updates are those of preference_updates.py. Held-out pairs are measured with `preference_logps`, and, where the
    loss means them, with `implicit_rewards`.
    """
    shard(policy, settings)
    optimizer = torch.optim.AdamW(
        policy.parameters(), settings.lr, settings.betas, weight_decay=settings.weight_decay, fused=True
    )
    training, last = pairs_of(run, policy, tokenizer, task, settings)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / settings.steps)
    parts = {"optimizer": optimizer, "schedule": schedule}
    pairs = collate_pairs(last, tokenizer.pad_token_id)

    def on_held_out(model: nn.Module) -> tuple[Tensor, Tensor]:
        if large_vocabulary(model):
            return large_pair_logps(model, last, tokenizer.pad_token_id)
        return pair_logps(model, pairs, preference_logps)

    reference_logps = on_held_out(reference)

    def on_pairs(model: nn.Module, n: int) -> dict[str, float]:
        logps = on_held_out(model)
        metrics = pair_metrics(logps, reference_logps, pairs)
        if implicit_rewards is not None:
            for side, policy_logps, ref_logps in zip(("chosen", "rejected"), logps, reference_logps, strict=True):
                metrics[f"{side}_rewards"] = implicit_rewards(policy_logps, ref_logps, settings.beta).mean().item()
        return metrics

    held_out = HeldOut(task, tokenizer, settings, run, also=on_pairs, reference=reference)
    before = held_out.before(policy)
    start = run.restore(policy, **parts)
    if start == 0:
        run.log(0, **before)
        run.save(0, policy, tokenizer, **parts)

    total_tokens, total_seconds = 0, 0.0
    for tick in run.steps(start, settings.steps, settings.algorithm):
        began, lr = time.perf_counter(), schedule.get_last_lr()[0]
        policy.train()
        metrics, tokens = update(tick.step - 1, training, policy, reference, optimizer)
        schedule.step()
        elapsed = time.perf_counter() - began
        total_tokens, total_seconds = total_tokens + tokens, total_seconds + elapsed
        metrics = {**metrics, "lr": lr, "tokens_per_second": tokens / elapsed}
        run.log(tick.step, **metrics, **held_out.during(policy, tick.step))
        tick.note(f"loss {metrics['loss']:.3f}")
        run.save(tick.step, policy, tokenizer, **parts)

    return held_out.after(policy) | ({"tokens_per_second": total_tokens / total_seconds} if total_seconds else {})


def pairs_of(run: Run, policy, tokenizer, task, settings: PreferenceSettings) -> tuple[list[Pair], list[Pair]]:
    """(training, held out) pairs: those of `data`, else sampled once and kept in the run folder for a resumed run."""
    if learns_from_data(settings):
        training, held_out = public_pairs(settings, tokenizer, run)
        return training, held_out[: settings.held_out_pairs]
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
def pair_logps(model: nn.Module, pairs: dict[str, Tensor], preference_logps: Logps) -> tuple[Tensor, Tensor]:
    """The week's `preference_logps` without gradient: (chosen (B,), rejected (B,))."""
    model.eval()
    return preference_logps(model, pairs)


def pair_metrics(logps, reference_logps, pairs: dict[str, Tensor]) -> dict[str, float]:
    """Of the held-out pairs; each number is defined once, here.

    chosen_logps, rejected_logps    mean summed log-prob
    eval_margin                     mean of Delta, the gap of the log-ratios: without beta, the same for every loss
    eval_accuracy                   share of pairs with Delta > 0, a tie counts one half
    eval_average_gap                mean gap of the length-averaged log-probs, without a reference: SimPO's margin
    """
    (chosen, rejected), (ref_chosen, ref_rejected) = logps, reference_logps
    delta = (chosen - ref_chosen) - (rejected - ref_rejected)
    chosen_avg = chosen / pairs["chosen_response_mask"].sum(1)
    rejected_avg = rejected / pairs["rejected_response_mask"].sum(1)
    return {
        "chosen_logps": chosen.mean().item(),
        "rejected_logps": rejected.mean().item(),
        "eval_margin": delta.mean().item(),
        "eval_accuracy": wins(delta).mean().item(),
        "eval_average_gap": (chosen_avg - rejected_avg).mean().item(),
    }
