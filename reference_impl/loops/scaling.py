"""Inference-time scaling: what n samples buy, and what thinking longer buys, measured on N samples of each prompt.

    pass@n       a perfect verifier picks             majority    the commonest answer
    best-of-n    the highest score picks: the model's own log-prob of the completion, or a saved reward model's score
    budget       share of the samples that are right and have ended within so many tokens

Extraction, matching and all estimators are the week's functions.
"""

import json
from dataclasses import dataclass

import torch
from torch import Tensor

from reference_impl.data.pairs import SAMPLING_BATCH
from reference_impl.errors import UserError
from reference_impl.loops.evaluate import EVAL_SEED, held_out_prompts, rollout
from reference_impl.rewards import load_reward
from reference_impl.runs.run import Run
from reference_impl.settings import ReasoningSettings

RULES = ("pass@n", "majority", "best-of-n")


@dataclass
class Samples:
    """P prompts with N completions each."""

    targets: list[str]  # P
    answers: list[list[str | None]]  # P lists of N
    correct: Tensor  # (P, N) 1.0 or 0.0
    scores: Tensor  # (P, N)
    lengths: Tensor  # (P, N) in tokens
    steps: Tensor  # (P, N) how many steps the completion writes: its `=` signs


def with_tags(text: str, finished: bool) -> str:
    r"""A completion as a verifier of tagged answers reads it. One with tags or a box stays as it is.

    The nano model states its answer after the last `=`: `4-1=3-7=-4` becomes `4-1=3-7=<answer>-4</answer>`. What
    did not end gets no closing tag: it has not answered yet.
    """
    if "<answer>" in text or r"\boxed" in text:
        return text
    steps, equals, answer = text.rpartition("=")
    return f"{steps}{equals}<answer>{answer}" + ("</answer>" if finished else "")


def verified_reward(functions, settings: ReasoningSettings):
    """reward(prompts, texts, rollout) -> (P * G,) by the week's `verifiable_reward`."""

    def reward(prompts, texts, sampled) -> Tensor:
        group = len(texts) // len(prompts)
        rewards = [
            functions.verifiable_reward(with_tags(text, done), prompts[row // group].answer, settings.format_weight)
            for row, (text, done) in enumerate(zip(texts, sampled.finished.tolist(), strict=True))
        ]
        odd = [value for value in rewards if not isinstance(value, int | float)]
        if odd:
            raise UserError(f"verifiable_reward should return a float, not {odd[0]!r}.")
        return torch.tensor(rewards, dtype=torch.float32)

    return reward


def draw(policy, tokenizer, task, functions, settings: ReasoningSettings) -> Samples:
    """`scaling_samples` completions of each of `scaling_prompts` held-out prompts at the training temperature."""
    prompts = held_out_prompts(task, settings.scaling_prompts)
    scorer = load_reward(settings.scorer) if settings.scorer else None
    generator = torch.Generator().manual_seed(EVAL_SEED)
    count, parts = settings.scaling_samples, []
    answers, correct = [], []
    for first in range(0, len(prompts), SAMPLING_BATCH):
        some = prompts[first : first + SAMPLING_BATCH]
        sampled, texts = rollout(
            policy, tokenizer, some, count, settings.max_new_tokens, settings.temperature, generator
        )
        tagged = [with_tags(*pair) for pair in zip(texts, sampled.finished.tolist(), strict=True)]
        stated = [functions.extract_answer(text) for text in tagged]
        right = [functions.answers_match(answer, some[row // count].answer) for row, answer in enumerate(stated)]
        scores = sampled.logprobs.sum(1)
        if scorer is not None:
            scores = scorer.scores(sampled.input_ids, sampled.attention_mask, sampled.response_mask)
        steps = torch.tensor([text.count("=") for text in texts])
        parts.append([part.view(-1, count) for part in (scores, sampled.response_mask.sum(1), steps)])
        answers += [stated[row : row + count] for row in range(0, len(stated), count)]
        correct.append(torch.tensor(right, dtype=torch.float32).view(-1, count))
    scores, lengths, steps = (torch.cat(column) for column in zip(*parts, strict=True))
    return Samples([prompt.answer for prompt in prompts], answers, torch.cat(correct), scores, lengths, steps)


def accuracy_curves(samples: Samples, functions) -> dict[str, dict[int, float]]:
    """rule -> {n: accuracy}, n = 1, 2, 4 ... N."""
    total = samples.correct.shape[1]
    counts = samples.correct.sum(1).int().tolist()
    sizes = [2**power for power in range(total.bit_length()) if 2**power <= total]
    return {
        "pass@n": {n: mean([functions.pass_at_k(total, c, n) for c in counts]) for n in sizes},
        "majority": {n: majority_accuracy(samples, n, functions) for n in sizes},
        "best-of-n": {n: float(functions.best_of_n_accuracy(samples.scores, samples.correct, n)) for n in sizes},
    }


def majority_accuracy(samples: Samples, n: int, functions) -> float:
    """Mean accuracy of the vote of n samples, over all blocks of n that the samples of a prompt divide into."""
    right = []
    for answers, target in zip(samples.answers, samples.targets, strict=True):
        for first in range(0, len(answers) - n + 1, n):
            vote = functions.majority_vote(answers[first : first + n])
            right.append(functions.answers_match(vote, target))
    return mean(right)


def budget_curve(samples: Samples, longest: int) -> dict[int, float]:
    """{tokens: share of the samples that are right and that long at most}."""
    return {tokens: (samples.correct * (samples.lengths <= tokens)).mean().item() for tokens in range(1, longest + 1)}


def by_steps(samples: Samples) -> dict[int, tuple[float, float]]:
    """{steps written: (share of the samples, accuracy of these)}."""
    rows = {}
    for count in samples.steps.unique().tolist():
        some = samples.steps == count
        rows[count] = (some.float().mean().item(), samples.correct[some].mean().item())
    return rows


def report_scaling(before: Samples, after: Samples, functions, settings: ReasoningSettings, run: Run) -> dict:
    """Write scaling.json, scaling.md and scaling.png; returns the numbers for the summary."""
    from reference_impl.runs.scaling_plot import plot_scaling

    measured = {
        name: {
            "accuracy": accuracy_curves(samples, functions),
            "budget": budget_curve(samples, settings.max_new_tokens),
            "steps": by_steps(samples),
            "length": samples.lengths.float().mean().item(),
        }
        for name, samples in (("before", before), ("after", after))
    }
    run.write("scaling.json", json.dumps(measured, indent=1) + "\n")
    run.write("scaling.md", scaling_page(measured))
    plot_scaling(measured, run.path / "scaling.png")
    results = {}
    for name, suffix in (("before", "_before"), ("after", "")):
        for rule, curve in measured[name]["accuracy"].items():
            results |= {
                f"{rule.replace('n', str(n)) if rule == 'pass@n' else f'{rule} {n}'}{suffix}": value
                for n, value in curve.items()
            }
        results[f"sample_length{suffix}"] = measured[name]["length"]
    return results


def scaling_page(measured: dict) -> str:
    """The accuracies before and after in Markdown."""
    sizes = list(measured["before"]["accuracy"]["pass@n"])
    lines = ["Held-out accuracy from n samples, before -> after training", ""]
    lines += ["| n | " + " | ".join(RULES) + " |", "|---|" + "---|" * len(RULES)]
    for n in sizes:
        pairs = [(measured["before"]["accuracy"][rule][n], measured["after"]["accuracy"][rule][n]) for rule in RULES]
        lines.append(f"| {n} | " + " | ".join(f"{old:.3f} -> {new:.3f}" for old, new in pairs) + " |")
    lines += ["", "| steps written | share of samples | accuracy |", "|---|---|---|"]
    old, new = measured["before"]["steps"], measured["after"]["steps"]
    for count in sorted(old.keys() | new.keys()):
        (share, right), (share_after, right_after) = old.get(count, (0, 0)), new.get(count, (0, 0))
        lines.append(f"| {count} | {share:.3f} -> {share_after:.3f} | {right:.3f} -> {right_after:.3f} |")
    return "\n".join(lines) + "\n"


def mean(values) -> float:
    return sum(map(float, values)) / len(values)
