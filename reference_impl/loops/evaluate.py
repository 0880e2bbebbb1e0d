"""How good is a policy on held-out prompts: the two numbers that stand beside every training reward."""

import random
from collections.abc import Callable

import torch
from torch import nn

from reference_impl import vllm_engine
from reference_impl.distributed import gather_rollout, my_slice
from reference_impl.logprobs import large_vocabulary
from reference_impl.loops.batch import shared_score
from reference_impl.models import hardware
from reference_impl.runs.run import Run
from reference_impl.runs.samples import samples_page
from reference_impl.sampling import Rollout, completions, generate, join_rollouts, sampling_noise
from reference_impl.sharding import whole
from reference_impl.tasks import Prompt

EVAL_SEED = 1_000_003  # of the held-out prompts and of the sampler, the same in every run, so that runs compare
SHOWN_SAMPLES = 16


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
    """Sample `group` completions of each prompt: the token-level rollout and its texts, prompt by prompt.

    Of several processes each samples its share of the prompts, with its columns of the same noise, and gets the rest.
    With `engine=vllm`, vLLM samples.
    """
    if hardware.current().engine == "vllm":
        prompt_ids = [tokenizer.encode_prompt(prompt) for prompt in prompts]
        special = tokenizer.eos_token_id, tokenizer.pad_token_id
        result = vllm_engine.generate(model, prompt_ids, group, max_new_tokens, *special, temperature, generator)
        return result, completions(result, tokenizer)
    mine = my_slice(len(prompts))
    prompt_ids = [tokenizer.encode_prompt(prompt) for prompt in prompts[mine]]
    noise = None
    if temperature > 0:
        noise = sampling_noise(max_new_tokens, len(prompts) * group, generator)
        noise = noise.unflatten(1, (len(prompts), group))[:, mine].flatten(1)
    at_once = len(prompt_ids)
    if large_vocabulary(model):  # whose cache of keys and values would not fit
        at_once = max(1, hardware.current().rows_at_once // group)
    with whole(model):
        result = join_rollouts(
            [
                generate(
                    model,
                    prompt_ids[first : first + at_once],
                    group,
                    max_new_tokens,
                    eos_id=tokenizer.eos_token_id,
                    pad_id=tokenizer.pad_token_id,
                    temperature=temperature,
                    noise=None if noise is None else noise[:, first * group : (first + at_once) * group],
                )
                for first in range(0, len(prompt_ids), at_once)
            ],
            tokenizer.pad_token_id,
        )
    if len(prompt_ids) < len(prompts):
        result = gather_rollout(result, lambda parts: join_rollouts(parts, tokenizer.pad_token_id))
    return result, completions(result, tokenizer)


def verifier_rewards(task, prompts: list[Prompt], texts: list[str], finished: torch.Tensor) -> torch.Tensor:
    """1.0 for each right and finished completion, else 0.0: (P * G,), in the order of `texts`."""
    group = len(texts) // len(prompts)
    rewards = [
        task.reward(prompts[row // group], text, done)
        for row, (text, done) in enumerate(zip(texts, finished.tolist(), strict=True))
    ]
    return torch.tensor(rewards)


def evaluate(
    model, tokenizer, task, prompts: list[Prompt], max_new_tokens: int, reference=None, reward_fn=None
) -> dict[str, float]:
    """Accuracy on held-out prompts, one sample a prompt at temperature 1 and one greedy; length and end of the samples.

    The sampled accuracy is the expected verifier reward of the policy itself. Of the same samples, if asked:
    eval_kl       with a `reference`: mean over completions of the sum of log pi - log ref, unbiased for the KL, in nats
    eval_reward   with a `reward_fn`: its mean; where that is a reward model, sampled_accuracy is the gold beside it
    """
    generator = torch.Generator().manual_seed(EVAL_SEED)
    sampled, texts = rollout(model, tokenizer, prompts, 1, max_new_tokens, 1.0, generator)
    greedy, greedy_texts = rollout(model, tokenizer, prompts, 1, max_new_tokens, 0.0)
    also = {}
    if reference is not None:
        also["eval_kl"] = sampled_kl(sampled, reference)
    if reward_fn is not None:
        also["eval_reward"] = reward_fn(prompts, texts, sampled).mean().item()
    return also | {
        "sampled_accuracy": verifier_rewards(task, prompts, texts, sampled.finished).mean().item(),
        "greedy_accuracy": verifier_rewards(task, prompts, greedy_texts, greedy.finished).mean().item(),
        "eval_finished": sampled.finished.float().mean().item(),
        "eval_length": sampled.response_mask.sum(1).float().mean().item(),
    }


@torch.no_grad()
def sampled_kl(sampled: Rollout, reference: nn.Module) -> float:
    """KL(pi || ref) of whole completions, from samples of pi at temperature 1."""
    ref_logprobs = shared_score(reference, sampled)
    return ((sampled.logprobs - ref_logprobs) * sampled.response_mask).sum(1).mean().item()


class HeldOut:
    """The held-out prompts of a run, and what the policy makes of them before, during and after training.

    `also(model, n)` gives further numbers that a loop wants beside the accuracies, from about n held-out examples;
    `reference` and `reward_fn` those that `evaluate` speaks of.
    """

    def __init__(
        self,
        task,
        tokenizer,
        settings,
        run: Run,
        also: Callable[[nn.Module, int], dict] | None = None,
        reference: nn.Module | None = None,
        reward_fn: Callable[..., torch.Tensor] | None = None,
    ):
        self.task, self.tokenizer, self.settings, self.run, self.also = task, tokenizer, settings, run, also
        self.reference, self.reward_fn = reference, reward_fn
        self.prompts = held_out_prompts(task, settings.final_eval_prompts)
        self.shown: dict[str, list[tuple[str, float]]] = {}

    def before(self, model: nn.Module) -> dict[str, float]:
        """The numbers of the start policy."""
        self.shown["before"] = self._show(model)
        self.first = self._measure(model, self.settings.final_eval_prompts)
        return self.first

    def during(self, model: nn.Module, step: int) -> dict[str, float]:
        """The numbers after `step`, on fewer prompts; nothing unless an evaluation is due."""
        due = step % self.settings.eval_every == 0 and step < self.settings.steps
        return self._measure(model, self.settings.eval_prompts) if due else {}

    def after(self, model: nn.Module) -> dict[str, float]:
        """Log the final numbers and write samples.md; returns them beside those of the start (`..._before`)."""
        last = self._measure(model, self.settings.final_eval_prompts)
        self.run.log(self.settings.steps, **last)
        self.shown["after"] = self._show(model)
        self.run.write("samples.md", samples_page(self.run.path.name, self.prompts[:SHOWN_SAMPLES], self.shown))
        return {f"{name}_before": number for name, number in self.first.items()} | last

    def _measure(self, model: nn.Module, n: int) -> dict[str, float]:
        accuracy = evaluate(
            model,
            self.tokenizer,
            self.task,
            self.prompts[:n],
            self.settings.max_new_tokens,
            self.reference,
            self.reward_fn,
        )
        return accuracy | (self.also(model, n) if self.also else {})

    def _show(self, model: nn.Module) -> list[tuple[str, float]]:
        """A sampled completion of some prompts, with its reward."""
        some, generator = self.prompts[:SHOWN_SAMPLES], torch.Generator().manual_seed(EVAL_SEED)
        result, texts = rollout(model, self.tokenizer, some, 1, self.settings.max_new_tokens, 1.0, generator)
        return list(zip(texts, verifier_rewards(self.task, some, texts, result.finished).tolist(), strict=True))
