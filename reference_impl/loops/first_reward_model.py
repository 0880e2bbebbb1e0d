"""A first outcome reward model: read a worked answer, say how likely it is right. Week 03 is about these.

A few hundred completions sampled from the base model, labelled by the verifier, learned by binary cross-entropy on
every completion token; the score of a completion is the probability at its last token.
"""

import torch
from torch import Tensor

from reference_impl.data.order import batch_indices
from reference_impl.logprobs import large_vocabulary
from reference_impl.loops.evaluate import held_out_prompts, rollout, verifier_rewards
from reference_impl.loops.public_data import task_of
from reference_impl.loops.ranking import auc
from reference_impl.models import HeadedLM, load_model
from reference_impl.reward_model import orm_loss, orm_score
from reference_impl.sampling import score
from reference_impl.settings import ObjectiveSettings

BATCH = 32
SAMPLES = 4  # completions of each prompt


class FirstRewardModel:
    """The model, its optimizer, and its training and held-out completions."""

    def __init__(self, settings: ObjectiveSettings):
        self.policy, self.tokenizer = load_model(settings.policy)
        self.model = HeadedLM.from_lm(self.policy, outputs=1)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), settings.reward_lr, weight_decay=0.0)
        self.seed = settings.seed
        task, generator = task_of(settings), torch.Generator().manual_seed(settings.seed)
        training = task.prompts("reward", settings.reward_prompts, settings.seed)
        held_out = held_out_prompts(task, settings.eval_prompts)

        def labelled(prompts) -> tuple:
            sampled, texts = rollout(
                self.policy, self.tokenizer, prompts, SAMPLES, settings.max_new_tokens, 1.0, generator
            )
            return sampled, verifier_rewards(task, prompts, texts, sampled.finished)

        self.rollout, self.correct = labelled(training)
        self.held_out, self.held_out_correct = labelled(held_out)

    def update(self, step: int) -> dict[str, float]:
        """One optimizer step on a batch of completions."""
        rows = torch.tensor(batch_indices(step, len(self.correct), BATCH, self.seed))
        part = self.rollout
        self.model.train()
        logits = self.model(input_ids=part.input_ids[rows], attention_mask=part.attention_mask[rows]).logits[..., 0]
        loss = orm_loss(logits, self.correct[rows], part.response_mask[rows])
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return {"loss": loss.item()}

    @torch.no_grad()
    def scores(self) -> Tensor:
        """Probability of being right, of each held-out completion."""
        self.model.eval()
        part = self.held_out
        logits = self.model(input_ids=part.input_ids, attention_mask=part.attention_mask).logits[..., 0]
        return orm_score(logits, part.response_mask, how="last")

    def measure(self) -> dict[str, float]:
        """Held-out accuracy at one half, and AUC: how often a right completion scores above a wrong one."""
        scores = self.scores()
        hits = (scores > 0.5) == (self.held_out_correct == 1)
        return {"accuracy_orm": hits.float().mean().item(), "auc": auc(scores, self.held_out_correct)}

    @torch.no_grad()
    def report(self, functions) -> dict[str, float]:
        """The final numbers, and two things to compare with: always saying the commoner label, and the base model's
        own log-prob of the completion (the week's `sequence_logprobs`) as the score.
        """
        share = self.held_out_correct.mean().item()
        part = self.held_out
        if large_vocabulary(self.policy):
            logprobs = score(self.policy, part.input_ids, part.attention_mask, mask=part.response_mask).sum(1)
        else:
            logits = self.policy(input_ids=part.input_ids, attention_mask=part.attention_mask).logits
            logprobs = functions.sequence_logprobs(logits, part.input_ids, part.response_mask)
        final = self.measure()
        return {
            "reward model: training completions": float(len(self.correct)),
            "reward model: held-out accuracy": final["accuracy_orm"],
            "guessing the commoner label": max(share, 1 - share),
            "reward model: AUC": final["auc"],
            "base model's log-prob: AUC": auc(logprobs, self.held_out_correct),
        }
