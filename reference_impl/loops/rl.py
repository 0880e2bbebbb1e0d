"""Policy-gradient training: sample, reward, compare, update.

    completions ~ policy  ->  rewards  ->  advantages  ->  loss(log-probs, advantages)  ->  steps of AdamW (update.py)

Scored at the temperature at which they were sampled. With one optimizer step for each rollout (week 05) every step is
on-policy; week 06 takes several. AdamW without weight decay, learning rate falling linearly to 0.
"""

import time
from collections.abc import Callable
from itertools import islice

import torch
from torch import Tensor, nn

from reference_impl.loops.batch import Batch, DynamicSampling, group_advantages, learning_rewards, make_batch
from reference_impl.loops.critic import Critic
from reference_impl.loops.evaluate import HeldOut, rollout
from reference_impl.loops.update import update
from reference_impl.runs.run import Run
from reference_impl.sampling import Rollout
from reference_impl.settings import RLSettings
from reference_impl.sharding import shard
from reference_impl.tasks import Prompt

RewardFn = Callable[[list[Prompt], list[str], Rollout], Tensor]


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
    critic: Critic | None = None,
    informative: Callable[[Tensor], Tensor] | None = None,
) -> dict[str, float]:
    """Train `policy`; returns its held-out accuracy before and after.

    reward_fn(prompts, texts, rollout) -> (B,); advantages_fn(rewards (P, G)) -> (P, G); loss_fn(logprobs (B, T), batch)
    -> scalar. A critic (PPO) takes the place of advantages_fn; `informative`, rewards (P, G) -> bool (P,), turns on
    dynamic sampling (DAPO). Held-out prompts never occur in training: a prompt's text decides its split.
    """
    shard(policy, settings)
    optimizer = torch.optim.AdamW(
        policy.parameters(), settings.lr, settings.betas, weight_decay=settings.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / settings.steps)
    generator = torch.Generator().manual_seed(settings.seed)
    parts = {"optimizer": optimizer, "schedule": schedule, "generator": generator}
    if critic is not None:
        parts |= {"critic": critic.model, "critic_optimizer": critic.optimizer}
    if informative is not None:
        parts["dynamic_sampling"] = dynamic_sampling = DynamicSampling(informative, settings)
    prompts = task.draw("rl", settings.seed)
    learned = {} if settings.reward == "verifier" else {"reference": reference, "reward_fn": reward_fn}
    held_out = HeldOut(task, tokenizer, settings, run, **learned)  # a learned reward is watched beside the gold one

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
        batch = make_batch(sampled, reward_fn(step_prompts, texts, sampled), reference, settings)
        metrics = rollout_metrics(batch, sampled, settings.group) | {"lr": schedule.get_last_lr()[0]}

        if informative is not None:
            batch = dynamic_sampling.add(batch)
        if batch is not None:
            batch.rewards = learning_rewards(batch, settings)
            if critic is None:
                batch.advantages = group_advantages(batch.rewards, advantages_fn, settings)
            else:
                metrics |= critic.judge(batch)
            metrics |= update(policy, optimizer, batch, loss_fn, settings, generator, critic)
        schedule.step()

        elapsed = time.perf_counter() - began
        tokens, seconds = tokens + sampled.response_mask.sum().item(), seconds + elapsed
        metrics["tokens_per_second"] = sampled.response_mask.sum().item() / elapsed
        run.log(tick.step, **metrics, **held_out.during(policy, tick.step))
        tick.note(f"reward {metrics['reward_mean']:.2f}  length {metrics['response_length']:.0f}")
        run.save(tick.step, policy, tokenizer, **parts)

    return held_out.after(policy) | ({"tokens_per_second": tokens / seconds} if seconds else {})


def rollout_metrics(batch: Batch, sampled: Rollout, group: int) -> dict[str, float]:
    """What the rollout says about the policy that made it; each number is defined once, here.

    length_right, length_wrong   mean length of the completions with the full reward of 1, and of all others
    entropy                      minus the mean log-prob of the sampled tokens: unbiased for a token's entropy, in nats
    kl                           sum over a completion of log pi - log ref, mean over completions: unbiased for the
                                 KL from the reference, in nats
    """
    mask, lengths = batch.mask.bool(), batch.mask.sum(1).float()
    log_ratio = torch.where(mask, batch.old_logprobs - batch.ref_logprobs, 0.0)
    groups, right = batch.rewards.view(-1, group), batch.rewards >= 1
    metrics = {
        "reward_mean": batch.rewards.mean().item(),
        "informative_groups": (groups != groups[:, :1]).any(1).float().mean().item(),
        "response_length": lengths.mean().item(),
        "finished": sampled.finished.float().mean().item(),
        "entropy": -batch.old_logprobs[mask].mean().item(),
        "kl": log_ratio.sum(1).mean().item(),
    }
    for name, some in (("length_right", right), ("length_wrong", ~right)):
        if some.any():
            metrics[name] = lengths[some].mean().item()
    return metrics
