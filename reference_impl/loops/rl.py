"""Policy-gradient training: sample, reward, compare, update; one optimizer step for each rollout.

    completions ~ policy  ->  rewards  ->  advantages  ->  loss(log-probs, advantages)  ->  one step of AdamW

The policy is updated only with completions that it sampled itself, at the same temperature: every step is on-policy, so
no ratio of old to new probabilities is needed. AdamW without weight decay, learning rate falling linearly to 0.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn

from reference_impl.config import RLSettings
from reference_impl.errors import UserError
from reference_impl.loops.evaluate import HeldOut, rollout
from reference_impl.runs.run import Run
from reference_impl.sampling import Rollout, score
from reference_impl.tasks import Prompt

RewardFn = Callable[[list[Prompt], list[str], Rollout], Tensor]


@dataclass
class Batch:
    """What a loss may look at, besides the log-probs: B = prompts * group rows, a prompt's rows together."""

    rewards: Tensor  # (B,)
    advantages: Tensor  # (B,)
    mask: Tensor  # (B, T) 1 on completion tokens
    ref_logprobs: Tensor  # (B, T)


def train_rl(
    policy: nn.Module,
    reference: nn.Module,
    tokenizer,
    task,
    reward_fn: RewardFn,
    advantages_fn: Callable[[Tensor], Tensor],
    loss_fn: Callable[[Tensor, Batch], Tensor],
    settings: RLSettings,
    run: Run,
) -> dict[str, float]:
    """Train `policy`; returns its held-out accuracy before and after.

    reward_fn(prompts, texts, rollout) -> (B,); advantages_fn(rewards (P, G)) -> (P, G); loss_fn(logprobs (B, T), batch)
    -> scalar. Held-out prompts never occur in training: a prompt's text decides its split.
    """
    optimizer = torch.optim.AdamW(
        policy.parameters(), settings.lr, settings.betas, weight_decay=settings.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / settings.steps)
    generator = torch.Generator().manual_seed(settings.seed)
    parts = {"optimizer": optimizer, "schedule": schedule, "generator": generator}
    prompts = task.draw("rl", settings.seed)
    held_out = HeldOut(task, tokenizer, settings, run)

    before = held_out.before(policy)
    start = run.restore(policy, **parts)
    if start == 0:
        run.log(0, **before)
        run.save(0, policy, tokenizer, **parts)
    for _ in islice(prompts, start * settings.prompts_per_step):
        pass  # a resumed run goes on with the prompts that come next

    tokens, seconds = 0.0, 0.0
    for tick in run.steps(start, settings.steps, settings.algorithm):
        began = time.perf_counter()
        step_prompts = list(islice(prompts, settings.prompts_per_step))
        sampled, texts = rollout(
            policy, tokenizer, step_prompts, settings.group, settings.max_new_tokens, settings.temperature, generator
        )
        rewards = reward_fn(step_prompts, texts, sampled)
        batch = make_batch(sampled, rewards + settings.reward_shift, reference, advantages_fn, settings)

        policy.train()
        logprobs = score(policy, sampled.input_ids, sampled.attention_mask, settings.temperature)
        loss = checked_loss(loss_fn(logprobs, batch))
        optimizer.zero_grad()
        loss.backward()
        grad_norm = nn.utils.clip_grad_norm_(policy.parameters(), settings.max_grad_norm)
        metrics = {"lr": schedule.get_last_lr()[0], "loss": loss.item(), "grad_norm": grad_norm.item()}
        optimizer.step()
        schedule.step()

        elapsed = time.perf_counter() - began
        tokens, seconds = tokens + batch.mask.sum().item(), seconds + elapsed
        metrics |= rollout_metrics(logprobs.detach(), batch, rewards, sampled, settings.group)
        metrics["tokens_per_second"] = batch.mask.sum().item() / elapsed
        run.log(tick.step, **metrics, **held_out.during(policy, tick.step))
        tick.note(f"reward {metrics['reward_mean']:.2f}  length {metrics['response_length']:.0f}")
        run.save(tick.step, policy, tokenizer, **parts)

    return held_out.after(policy) | ({"tokens_per_second": tokens / seconds} if seconds else {})


def make_batch(sampled: Rollout, rewards: Tensor, reference, advantages_fn, settings: RLSettings) -> Batch:
    """Rewards to advantages, group by group, and the reference's log-probs of the same tokens."""
    groups = rewards.view(-1, settings.group)
    advantages = advantages_fn(groups)
    if not isinstance(advantages, Tensor) or advantages.shape != groups.shape:
        got = tuple(advantages.shape) if isinstance(advantages, Tensor) else type(advantages).__name__
        raise UserError(f"The advantages of {settings.algorithm} should have shape {tuple(groups.shape)}, not {got}.")
    with torch.no_grad():
        ref_logprobs = score(reference, sampled.input_ids, sampled.attention_mask, settings.temperature)
    return Batch(rewards, advantages.detach().flatten(), sampled.response_mask, ref_logprobs)


def checked_loss(loss) -> Tensor:
    """`loss`, if it is something to train on: a finite scalar tensor with a gradient. UserError otherwise."""
    if not isinstance(loss, Tensor):
        raise UserError(f"The loss should be a scalar tensor, but it is a {type(loss).__name__}.")
    if loss.dim() != 0:
        raise UserError(f"The loss should be a scalar, but it has shape {tuple(loss.shape)}.")
    if not loss.requires_grad:
        raise UserError("The loss has no gradient: the log-probs were detached on the way.")
    if not loss.isfinite():
        raise UserError(f"The loss is {loss.item()}: training stops here.")
    return loss


def rollout_metrics(logprobs: Tensor, batch: Batch, rewards: Tensor, sampled: Rollout, group: int) -> dict[str, float]:
    """What the rollout says about the policy; each number is defined once, here.

    entropy  minus the mean log-prob of the sampled tokens: unbiased for the mean per-token entropy, in nats
    kl       sum over a completion of log pi - log ref, mean over completions: unbiased for KL(pi || ref) in nats
    """
    mask = batch.mask.bool()
    log_ratio = torch.where(mask, logprobs - batch.ref_logprobs, 0.0)
    groups = rewards.view(-1, group)
    return {
        "reward_mean": rewards.mean().item(),
        "informative_groups": (groups != groups[:, :1]).any(1).float().mean().item(),
        "response_length": mask.sum(1).float().mean().item(),
        "finished": sampled.finished.float().mean().item(),
        "entropy": -logprobs[mask].mean().item(),
        "kl": log_ratio.sum(1).mean().item(),
    }
