"""PPO's critic: a value model that says, before each token, what reward to expect.

    V_t = head(hidden state that predicts token t)
    delta_t = r_t + gamma V_{t+1} - V_t,   A_t = sum_k (gamma lam)^k delta_{t+k},   returns = A + V

The reward stands at the last token of the completion; all others get 0. Advantages and returns come from the week's
`gae`, the loss from its `value_clip_loss`.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from reference_impl.distributed import over_rows, sum_gradients
from reference_impl.errors import UserError
from reference_impl.loops.accumulate import backward
from reference_impl.loops.batch import Batch
from reference_impl.models import HeadedLM
from reference_impl.settings import PPOSettings
from reference_impl.sharding import shard


class Critic:
    """A copy of the start policy with a value head, and its optimizer."""

    def __init__(self, policy: nn.Module, functions, settings: PPOSettings):
        self.model = shard(HeadedLM.from_lm(policy, outputs=1), settings)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), settings.value_lr, settings.betas, weight_decay=0.0, fused=True
        )
        self.functions, self.settings = functions, settings

    def values(self, batch: Batch) -> Tensor:
        """V_t (B, T), beside the token t that it was said before."""
        logits = self.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits[..., 0]
        return pad(logits[:, :-1], (1, 0))

    @torch.no_grad()
    def judge(self, batch: Batch) -> dict[str, float]:
        """Fill in values, advantages and returns of a fresh rollout; the explained variance of the critic."""
        self.model.eval()
        batch.values = over_rows(lambda rows: self.values(batch.rows(rows)), len(batch.rewards))
        at_the_end = last_token(batch.mask) * batch.rewards[:, None]
        batch.advantages, batch.returns = self.gae(at_the_end, batch, self.settings.lam)
        _, reward_to_go = self.gae(at_the_end, batch, lam=1.0)
        return {"explained_variance": explained_variance(batch.values, reward_to_go, batch.mask)}

    def gae(self, rewards: Tensor, batch: Batch, lam: float) -> tuple[Tensor, Tensor]:
        """The week's `gae`; UserError unless it returns two tensors (B, T)."""
        result = self.functions.gae(rewards, batch.values, batch.mask, self.settings.gamma, lam)
        if not isinstance(result, tuple) or [getattr(part, "shape", None) for part in result] != [rewards.shape] * 2:
            raise UserError(f"gae should return (advantages, returns), both of shape {tuple(rewards.shape)}.")
        return result

    def update(self, part: Batch) -> float:
        """One optimizer step of the critic; its loss."""
        self.model.train()
        self.optimizer.zero_grad()
        _, loss = backward(
            lambda rows: self.values(part.rows(rows)),
            part.attention_mask.sum(1),
            lambda values: self.functions.value_clip_loss(
                values, part.values, part.returns, part.mask, self.settings.value_clip
            ),
            self.settings.micro_batches,
        )
        sum_gradients(self.model)
        nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.max_grad_norm)
        self.optimizer.step()
        return loss.item()


def last_token(mask: Tensor) -> Tensor:
    """1 at each row's last completion token, 0 elsewhere: (B, T)."""
    return mask * (mask.flip(1).cumsum(1).flip(1) == 1)


def explained_variance(values: Tensor, reward_to_go: Tensor, mask: Tensor) -> float:
    """1 - Var(R - V) / Var(R) over completion tokens: 1 is perfect, 0 as good as a constant, below 0 worse.

    R is the reward that really followed (lam = 1), so that critics trained under different lam compare. 0 when all
    rewards are equal: then there is nothing to explain.
    """
    rewards, errors = reward_to_go[mask.bool()], (reward_to_go - values)[mask.bool()]
    total = rewards.var().item()
    return 1 - errors.var().item() / total if total > 0 else 0.0
