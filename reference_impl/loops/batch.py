"""A rollout as the losses see it, cut into minibatches and joined with others; and DAPO's dynamic sampling."""

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from reference_impl.distributed import over_rows
from reference_impl.errors import UserError
from reference_impl.objective import kl_shaped_rewards
from reference_impl.ppo_grpo import overlong_penalty
from reference_impl.sampling import Rollout, score
from reference_impl.settings import RLSettings


@dataclass
class Batch:
    """B = prompts * group rows, a prompt's rows together; T tokens, padded on the right."""

    input_ids: Tensor  # (B, T)
    attention_mask: Tensor  # (B, T)
    mask: Tensor  # (B, T) 1 on completion tokens
    old_logprobs: Tensor  # (B, T) under the policy that sampled them
    ref_logprobs: Tensor  # (B, T)
    rewards: Tensor  # (B,) as the reward function gave them; from the update on, as `learning_rewards` does
    advantages: Tensor | None = None  # (B,), or (B, T) from a critic
    values: Tensor | None = None  # (B, T) of the critic at the time of the rollout
    returns: Tensor | None = None  # (B, T) what the critic should have said

    def rows(self, index: Tensor | slice) -> "Batch":
        """The batch of these rows."""
        return Batch(**{name: part[index] for name, part in self.tensors().items()})

    def tensors(self) -> dict[str, Tensor]:
        """Those fields that are filled in."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: part for name, part in named.items() if part is not None}


def make_batch(sampled: Rollout, rewards: Tensor, reference: nn.Module, settings: RLSettings) -> Batch:
    """The rollout with its rewards and the reference's log-probs; the advantages come later."""
    mask = sampled.response_mask
    ref_logprobs = shared_score(reference, sampled, settings.temperature)
    return Batch(sampled.input_ids, sampled.attention_mask, mask, sampled.logprobs, ref_logprobs, rewards)


@torch.no_grad()
def shared_score(model: nn.Module, sampled: Rollout, temperature: float = 1.0) -> Tensor:
    """Log-probs (B, T) of a rollout's completions under another model; of several processes each reads its share."""

    def of_rows(rows: slice) -> Tensor:
        mask = sampled.response_mask[rows]
        return score(model, sampled.input_ids[rows], sampled.attention_mask[rows], temperature, mask)

    return over_rows(of_rows, len(sampled.input_ids))


def learning_rewards(batch: Batch, settings: RLSettings) -> Tensor:
    """What the policy learns from, (B,): reward, shift, KL penalty, and DAPO's penalty near the length limit."""
    rewards = batch.rewards + settings.reward_shift
    if settings.kl_penalty > 0:
        rewards = kl_shaped_rewards(rewards, batch.old_logprobs, batch.ref_logprobs, batch.mask, settings.kl_penalty)
    if settings.overlong_cache == 0:
        return rewards
    return rewards + overlong_penalty(batch.mask.sum(1), settings.max_new_tokens, settings.overlong_cache)


def group_advantages(rewards: Tensor, advantages_fn: Callable[[Tensor], Tensor], settings: RLSettings) -> Tensor:
    """Rewards (B,) to advantages (B,), group by group. UserError when `advantages_fn` returns something else."""
    groups = rewards.view(-1, settings.group)
    advantages = advantages_fn(groups)
    if not isinstance(advantages, Tensor) or advantages.shape != groups.shape:
        got = tuple(advantages.shape) if isinstance(advantages, Tensor) else type(advantages).__name__
        raise UserError(f"The advantages of {settings.algorithm} should have shape {tuple(groups.shape)}, not {got}.")
    return advantages.detach().flatten()


class DynamicSampling:
    """Rollouts lose their groups of equal rewards, which teach nothing; the rest waits until it fills a batch.

    A step always samples `prompts_per_step` prompts, so that algorithms compare at equal samples: what dynamic sampling
    costs is the steps without an update. The policy does not change meanwhile, so what waits stays on-policy.
    """

    def __init__(self, informative: Callable[[Tensor], Tensor], settings: RLSettings):
        self.informative, self.group = informative, settings.group
        self.full = settings.prompts_per_step * settings.group
        self.waiting: Batch | None = None

    def add(self, batch: Batch) -> Batch | None:
        """The full batch to update on, or None while there are too few groups."""
        groups = batch.rewards.view(-1, self.group)
        kept = self.informative(groups)
        if not isinstance(kept, Tensor) or kept.dtype != torch.bool or kept.shape != groups.shape[:1]:
            raise UserError(f"informative_groups should return a bool tensor of shape ({len(groups)},), not {kept!r}.")
        batch = batch.rows(kept.repeat_interleave(self.group))
        self.waiting = batch if self.waiting is None else join(self.waiting, batch)
        if len(self.waiting.rewards) < self.full:
            return None
        ready, self.waiting = self.waiting.rows(slice(self.full)), None  # what is left over would be off-policy
        return ready

    def state_dict(self) -> dict[str, Tensor]:
        return {} if self.waiting is None else self.waiting.tensors()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.waiting = Batch(**state) if state else None


def join(first: Batch, second: Batch) -> Batch:
    """The rows of both, the shorter ones padded on the right with 0 (the masks say what counts)."""
    width = max(first.mask.shape[1], second.mask.shape[1])

    def widened(part: Tensor) -> Tensor:
        return pad(part, (0, width - part.shape[1])) if part.dim() == 2 else part

    theirs = second.tensors()
    return Batch(**{name: torch.cat([widened(part), widened(theirs[name])]) for name, part in first.tensors().items()})
