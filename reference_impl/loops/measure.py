"""What a policy, or a reward model, is worth on held-out prompts, each number with its standard error.

A prompt is the unit that is drawn: numbers are means over prompts, and their errors come from the spread between
prompts. Completions of one prompt are not independent, and more of them do not make up for few prompts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reference_impl.data.judged import Judged, all_pairs, sample_judged
from reference_impl.errors import UserError
from reference_impl.loops.evaluate import EVAL_SEED, held_out_prompts, rollout, verifier_rewards
from reference_impl.loops.ranking import auc, brier, calibration_error, mean_and_error, wins
from reference_impl.reasoning import pass_at_k
from reference_impl.rewards import RewardModel
from reference_impl.sampling import score


@dataclass(frozen=True)
class Number:
    """A mean over prompts, and its standard error; NaN where there is none."""

    value: float
    error: float = float("nan")


def measure_policy(
    model: nn.Module,
    tokenizer,
    task,
    prompts: int,
    samples: int,
    max_new_tokens: int,
    temperature: float = 1.0,
    reference: nn.Module | None = None,
) -> dict[str, Number]:
    """Held-out accuracy, greedy and sampled, pass@k, length, share that ends, KL from a reference; by name.

    greedy accuracy        one greedy completion a prompt: right, and ended by itself
    sampled accuracy       share right of `samples` completions at `temperature`; pass@1
    pass@k                 chance that k of them hold a right one, unbiased, k = 2, 4, ... up to `samples`
    never finished         share of sampled completions that did not end within `max_new_tokens`
    KL to reference        sum over a completion of log pi - log ref, in nats; of samples at temperature 1 only
    """
    some = held_out_prompts(task, prompts)
    greedy, texts = rollout(model, tokenizer, some, 1, max_new_tokens, 0.0)
    right = verifier_rewards(task, some, texts, greedy.finished)
    found = {
        "greedy accuracy": Number(*mean_and_error(right)),
        "greedy never finished": Number(*mean_and_error(1 - greedy.finished.float())),
    }
    generator = torch.Generator().manual_seed(EVAL_SEED)
    sampled, texts = rollout(model, tokenizer, some, samples, max_new_tokens, temperature, generator)
    correct = verifier_rewards(task, some, texts, sampled.finished).view(-1, samples)
    found["sampled accuracy"] = Number(*mean_and_error(correct.mean(1)))
    for k in powers_of_two(samples)[1:]:
        chances = torch.tensor([pass_at_k(samples, int(count), k) for count in correct.sum(1)])
        found[f"pass@{k}"] = Number(*mean_and_error(chances))
    lengths = sampled.response_mask.sum(1).float()
    found["length"] = Number(*mean_and_error(lengths.view(-1, samples).mean(1)))
    found["never finished"] = Number(*mean_and_error(1 - sampled.finished.float().view(-1, samples).mean(1)))
    if reference is not None:
        if temperature != 1.0:
            raise UserError("The KL is that of the policy itself: leave temperature at 1, or the reference out.")
        with torch.no_grad():
            mask = sampled.response_mask
            ref_logprobs = score(reference, sampled.input_ids, sampled.attention_mask, mask=mask)
        kl = ((sampled.logprobs - ref_logprobs) * mask).sum(1)
        found["KL to reference"] = Number(*mean_and_error(kl.view(-1, samples).mean(1)))
    return found


def measure_reward(
    reward: RewardModel, policy: nn.Module, tokenizer, task, prompts: int, samples: int, max_new_tokens: int
) -> dict[str, Number]:
    """A reward model on completions of `policy`, judged by the verifier.

    pair accuracy          right above wrong, over the pairs of a prompt, then over prompts that have both
    pair calibration error of sigma(difference) as the chance to be the right one of a pair, ten intervals
    best of n              accuracy of the best-scored of all samples, beside that of a random and of a perfect choice
    AUC, Brier score, calibration error   of an outcome model's probabilities, across prompts
    """
    data = sample_judged(policy, tokenizer, task, held_out_prompts(task, prompts), samples, max_new_tokens, EVAL_SEED)
    scores = reward.scores(data.input_ids, data.attention_mask, data.completion_mask)
    pairs = all_pairs(data)
    if len(pairs) == 0:
        raise UserError("No prompt got both a right and a wrong completion, so there are no pairs: ask for more.")
    found = pair_numbers(scores, pairs, data)
    best = data.correct.view(-1, samples).gather(1, scores.view(-1, samples).argmax(1, keepdim=True))[:, 0]
    found[f"best of {samples}"] = Number(*mean_and_error(best))
    found["any sample"] = Number(*mean_and_error(data.correct.view(-1, samples).mean(1)))
    found[f"any of {samples} right"] = Number(*mean_and_error(data.correct.view(-1, samples).amax(1)))
    found["AUC across prompts"] = Number(auc(scores, data.correct))
    if reward.objective.name == "orm":
        found["Brier score"] = Number(brier(scores, data.correct))
        found["calibration error"] = Number(calibration_error(scores, data.correct))
    return found


def pair_numbers(scores: Tensor, pairs: Tensor, data: Judged) -> dict[str, Number]:
    """Pair accuracy, a tie counting one half, and calibration."""
    difference = scores[pairs[:, 0]] - scores[pairs[:, 1]]
    hits = wins(difference)
    prompt = pairs[:, 0] // data.group
    of_prompts = torch.stack([hits[prompt == number].mean() for number in prompt.unique()])
    probability = torch.sigmoid(torch.cat([difference, -difference]))
    won = torch.cat([torch.ones_like(difference), torch.zeros_like(difference)])
    return {
        "pair accuracy": Number(*mean_and_error(of_prompts)),
        "pair calibration error": Number(calibration_error(probability, won)),
    }


def powers_of_two(most: int) -> list[int]:
    """1, 2, 4, ... up to `most`."""
    return [2**power for power in range(most.bit_length()) if 2**power <= most]
