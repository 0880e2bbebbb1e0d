"""Rejection sampling: sample, judge, select, fine-tune on the chosen.

    N completions of each of P prompts -> rewards (P, N) -> the week's selection -> sft loop on the chosen

What is fine-tuned on is kept in the run folder as chosen.jsonl, so that one can read what was chosen, and so that a
resumed run goes on with it.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from reference_impl import sft
from reference_impl.algorithms import ALGORITHMS
from reference_impl.config import checked
from reference_impl.data.pairs import SAMPLING_BATCH
from reference_impl.errors import UserError
from reference_impl.loops.evaluate import EVAL_SEED, held_out_prompts, rollout, sampled_kl
from reference_impl.loops.sft import train_sft
from reference_impl.runs.progress import console
from reference_impl.runs.run import Run
from reference_impl.settings import RejectionSettings, RLSettings

Select = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Sample:
    """One completion: which prompt's, the token ids of both, and what it was worth."""

    prompt_number: int
    prompt: list[int]
    response: list[int]  # with the end of sequence, if it ended by itself
    reward: float


def train_on_chosen(
    policy: nn.Module,
    reference: nn.Module,
    tokenizer,
    task,
    reward_fn,
    select: Select,
    settings: RejectionSettings,
    run: Run,
) -> dict[str, float]:
    """Fine-tune `policy` on what `select` picks out of its own samples; accuracies with standard errors."""
    chosen = chosen_of(run, policy, tokenizer, task, reward_fn, select, settings)
    about = about_chosen(chosen)
    console.print("chosen: " + ", ".join(f"{name} {number:.3g}" for name, number in about.items()))
    examples = [example(sample, tokenizer.eos_token_id, settings.max_length) for sample in chosen]
    drift = drift_from(reference, tokenizer, held_out_prompts(task, settings.final_eval_prompts), settings)
    results = train_sft(policy, tokenizer, task, sft, settings, run, examples, drift)
    return results | about | standard_errors(results, settings.final_eval_prompts)


def chosen_of(run: Run, policy, tokenizer, task, reward_fn, select: Select, settings) -> list[Sample]:
    """The selected samples, from chosen.jsonl when the run is resumed."""
    path = run.path / "chosen.jsonl"
    if not (run.resumed and path.exists()):
        samples, rewards = sample_table(policy, tokenizer, task, reward_fn, settings)
        rows = checked_selection(select(rewards), rewards, settings)
        run.write(path.name, "".join(json.dumps(asdict(samples[p][i])) + "\n" for p, i in rows.tolist()))
    return [Sample(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def sample_table(policy, tokenizer, task, reward_fn, settings) -> tuple[list[list[Sample]], Tensor]:
    """P lists of N samples, and their rewards (P, N)."""
    prompts = task.prompts("rl", settings.sample_prompts, settings.seed)
    generator, table = torch.Generator().manual_seed(settings.seed), []
    for first in range(0, len(prompts), SAMPLING_BATCH):
        some = prompts[first : first + SAMPLING_BATCH]
        sampled, texts = rollout(
            policy, tokenizer, some, settings.samples_per_prompt, settings.max_new_tokens, 1.0, generator
        )
        rewards = reward_fn(some, texts, sampled).tolist()
        responses = [
            ids[mask.bool()].tolist() for ids, mask in zip(sampled.input_ids, sampled.response_mask, strict=True)
        ]
        for number, prompt in enumerate(some):
            rows = range(number * settings.samples_per_prompt, (number + 1) * settings.samples_per_prompt)
            encoded = tokenizer.encode_prompt(prompt)
            table.append([Sample(first + number, encoded, responses[row], rewards[row]) for row in rows])
    return table, torch.tensor([[sample.reward for sample in row] for row in table])


def checked_selection(rows, rewards: Tensor, settings: RejectionSettings) -> Tensor:
    """UserError unless the selection is (prompt, sample) pairs of the table, as many as were asked for."""
    wanted = (settings.keep * len(rewards), 2)
    if not isinstance(rows, Tensor) or rows.is_floating_point() or tuple(rows.shape) != wanted:
        got = f"{rows.dtype} of shape {tuple(rows.shape)}" if isinstance(rows, Tensor) else type(rows).__name__
        raise UserError(
            f"{settings.algorithm} should select {wanted[0]} (prompt, sample) pairs of integers, not {got}."
        )
    if ((rows < 0) | (rows >= torch.tensor(rewards.shape))).any():
        raise UserError(f"{settings.algorithm} selects samples outside the table of {tuple(rewards.shape)} rewards.")
    return rows


def about_chosen(chosen: list[Sample]) -> dict[str, float]:
    """chosen_reward: their mean reward. chosen_prompts, chosen_distinct: how many different prompts, and different
    examples, are among them. chosen_length: mean tokens of a response.
    """
    return {
        "chosen": float(len(chosen)),
        "chosen_reward": sum(sample.reward for sample in chosen) / len(chosen),
        "chosen_prompts": float(len({sample.prompt_number for sample in chosen})),
        "chosen_distinct": float(len({(tuple(sample.prompt), tuple(sample.response)) for sample in chosen})),
        "chosen_length": sum(len(sample.response) for sample in chosen) / len(chosen),
    }


def example(sample: Sample, eos_id: int, max_length: int) -> dict[str, list[int]]:
    """A training example. A completion that was cut off is not taught to end where it was cut."""
    prompt, response = sample.prompt, sample.response
    if response[-1] == eos_id:
        return sft.build_example(prompt, response[:-1], eos_id, max_length)
    return sft.build_example(prompt, response, eos_id, min(max_length, len(prompt) + len(response)))


def drift_from(reference: nn.Module, tokenizer, prompts, settings) -> Callable[[nn.Module, int], dict[str, float]]:
    """kl: from the start policy, in nats a completion; entropy: in nats a token. Both on the policy's own samples."""

    @torch.no_grad()
    def drift(model: nn.Module, n: int) -> dict[str, float]:
        generator = torch.Generator().manual_seed(EVAL_SEED)
        sampled, _ = rollout(model, tokenizer, prompts[:n], 1, settings.max_new_tokens, 1.0, generator)
        return {
            "kl": sampled_kl(sampled, reference),
            "entropy": (-sampled.logprobs.sum() / sampled.response_mask.sum()).item(),
        }

    return drift


def standard_errors(results: dict[str, float], prompts: int) -> dict[str, float]:
    """Of an accuracy measured on so many independent prompts: sqrt(p (1 - p) / n)."""
    names = [name for name in results if name.endswith(("_accuracy", "_accuracy_before"))]
    return {f"{name}_se": (results[name] * (1 - results[name]) / prompts) ** 0.5 for name in names}


def rl_settings(settings: RejectionSettings) -> RLSettings:
    """RL that draws exactly as many samples: `steps` rollouts that together take P prompts, N completions each."""
    if settings.sample_prompts % settings.steps:
        raise UserError(
            f"{settings.algorithm} should draw the {settings.sample_prompts} prompts of the table in its "
            f"{settings.steps} steps: choose a number of steps that divides sample_prompts."
        )
    own = {"weight_decay": 0.0, "betas": RLSettings.model_fields["betas"].default}
    shared = {key: value for key, value in settings.model_dump().items() if key in RLSettings.model_fields}
    sizes = {"prompts_per_step": settings.sample_prompts // settings.steps, "group": settings.samples_per_prompt}
    return checked(RLSettings, ALGORITHMS[settings.algorithm].defaults | shared | own | sizes)
