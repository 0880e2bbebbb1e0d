"""How good is a policy on held-out prompts: the two numbers that stand beside every training reward."""

import random

import torch
from torch import nn

from reference_impl.sampling import Rollout, completions, generate
from reference_impl.tasks import Prompt

EVAL_SEED = 1_000_003  # of the held-out prompts and of the sampler, the same in every run, so that runs compare


def held_out_prompts(task, n: int) -> list[Prompt]:
    """n different prompts of the evaluation split, the same in every run.

    Shuffled, since easy prompts (there are fewer) come early in the draw: so a part of the list is a fair sample.
    """
    prompts = task.prompts("eval", n, seed=EVAL_SEED)
    random.Random(EVAL_SEED).shuffle(prompts)
    return prompts


def rollout(
    model: nn.Module,
    tokenizer,
    prompts: list[Prompt],
    group: int,
    max_new_tokens: int,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
) -> tuple[Rollout, list[str]]:
    """Sample `group` completions of each prompt: the token-level rollout and its texts, prompt by prompt."""
    result = generate(
        model,
        [tokenizer.encode(prompt.text) for prompt in prompts],
        group,
        max_new_tokens,
        eos_id=tokenizer.eos_token_id,
        pad_id=tokenizer.pad_token_id,
        temperature=temperature,
        generator=generator,
    )
    return result, completions(result, tokenizer)


def verifier_rewards(task, prompts: list[Prompt], texts: list[str], finished: torch.Tensor) -> torch.Tensor:
    """1.0 for each right and finished completion, else 0.0: (P * G,), in the order of `texts`."""
    group = len(texts) // len(prompts)
    rewards = [
        task.reward(prompts[row // group], text, done)
        for row, (text, done) in enumerate(zip(texts, finished.tolist(), strict=True))
    ]
    return torch.tensor(rewards)


def evaluate(model, tokenizer, task, prompts: list[Prompt], max_new_tokens: int) -> dict[str, float]:
    """Accuracy on held-out prompts, one sample a prompt at temperature 1 and one greedy; length and end of the samples.

    The sampled accuracy is the expected verifier reward of the policy itself.
    """
    generator = torch.Generator().manual_seed(EVAL_SEED)
    sampled, texts = rollout(model, tokenizer, prompts, 1, max_new_tokens, 1.0, generator)
    greedy, greedy_texts = rollout(model, tokenizer, prompts, 1, max_new_tokens, 0.0)
    return {
        "sampled_accuracy": verifier_rewards(task, prompts, texts, sampled.finished).mean().item(),
        "greedy_accuracy": verifier_rewards(task, prompts, greedy_texts, greedy.finished).mean().item(),
        "eval_finished": sampled.finished.float().mean().item(),
        "eval_length": sampled.response_mask.sum(1).float().mean().item(),
    }


def show(model, tokenizer, task, prompts: list[Prompt], max_new_tokens: int) -> list[tuple[str, float]]:
    """A sampled completion of each prompt with its reward, for samples.md."""
    generator = torch.Generator().manual_seed(EVAL_SEED)
    result, texts = rollout(model, tokenizer, prompts, 1, max_new_tokens, 1.0, generator)
    return list(zip(texts, verifier_rewards(task, prompts, texts, result.finished).tolist(), strict=True))
