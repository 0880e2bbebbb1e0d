"""Best of N: let somebody choose one of N samples, and ask how often the chosen one is right.

Each prompt's samples are cut into groups of N = 1, 2, 4, ...; the accuracy is the mean over a prompt's groups, then
over prompts, and its standard error that of independent prompts.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from reference_impl.data.judged import Judged
from reference_impl.loops.ranking import mean_and_error


@dataclass
class Chosen:
    """What one chooser makes of groups of N samples."""

    per_prompt: Tensor  # (P,) accuracy
    accuracy: float
    error: float  # standard error over prompts
    score: float  # mean score of the chosen samples
    length: float  # mean number of their tokens


def choose_by_each(scores: dict[str, Tensor], data: Judged, task, functions) -> dict[str, dict[int, Chosen]]:
    """chooser -> N -> what it chose, for the models' scores (P, N) and for choosers that need no model."""
    correct, lengths = data.correct.view(-1, data.group), data.completion_mask.sum(1).float().view(-1, data.group)
    answers = answer_numbers(data, task)
    sizes = [2**k for k in range(data.group.bit_length()) if 2**k <= data.group]
    fixed = {"random": torch.zeros_like(correct), **scores, "verifier": correct}
    curves = {name: {n: choose(score, correct, lengths, n, functions) for n in sizes} for name, score in fixed.items()}
    curves["majority"] = {n: choose(votes(answers, n), correct, lengths, n, functions) for n in sizes}
    return curves


def choose(scores: Tensor, correct: Tensor, lengths: Tensor, n: int, functions) -> Chosen:
    """Cut (P, N) into groups of n and take the best-scored of each; accuracy by the week's `rerank_accuracy`."""
    per_prompt = torch.stack(
        [functions.rerank_accuracy(s.view(-1, n), c.view(-1, n)) for s, c in zip(scores, correct, strict=True)]
    ).float()
    groups = scores.reshape(-1, n)
    best = groups == groups.amax(1, keepdim=True)
    length = (best * lengths.reshape(-1, n)).sum(1) / best.sum(1)
    return Chosen(per_prompt, *mean_and_error(per_prompt), groups.amax(1).mean().item(), length.mean().item())


def answer_numbers(data: Judged, task) -> Tensor:
    """The answers of each prompt as numbers (P, N): equal answers get equal numbers, no answer gets -1."""
    rows = []
    for first in range(0, len(data), data.group):
        texts, ended = data.texts[first : first + data.group], data.finished[first : first + data.group].tolist()
        answers = [task.extract(text) if end else None for text, end in zip(texts, ended, strict=True)]
        seen = {answer: number for number, answer in enumerate(dict.fromkeys(answers))}
        rows.append([-1 if answer is None else seen[answer] for answer in answers])
    return torch.tensor(rows)


def votes(answers: Tensor, n: int) -> Tensor:
    """As a score (P, N): how many samples of the group of n give the same answer. No answer, no votes."""
    groups = answers.view(-1, n)
    same = (groups[:, :, None] == groups[:, None, :]).sum(-1)
    return torch.where(groups >= 0, same, 0).float().view_as(answers)


def peak(name: str, curve: dict[int, Chosen]) -> dict[str, float]:
    """Where choosing by a score is best, and how much is lost from there to the largest N (paired over prompts)."""
    top, last = max(curve, key=lambda n: curve[n].accuracy), max(curve)
    loss, error = mean_and_error(curve[top].per_prompt - curve[last].per_prompt)
    return {f"peak of {name}": float(top), f"loss after the peak of {name}": loss, f"its standard error, {name}": error}


def best_of_n_page(curves: dict[str, dict[int, Chosen]]) -> str:
    """A table of all choosers: accuracy and its standard error; below it the length of what they choose."""
    sizes = list(next(iter(curves.values())))
    lines = ["Accuracy of the best of N, with its standard error over prompts", ""]
    lines += ["| chosen by | " + " | ".join(map(str, sizes)) + " |", "|---|" + "---|" * len(sizes)]
    for name, curve in curves.items():
        lines.append(f"| {name} | " + " | ".join(f"{c.accuracy:.3f} ± {c.error:.3f}" for c in curve.values()) + " |")
    lines += ["", "Tokens of the chosen completion", ""]
    lines += ["| chosen by | " + " | ".join(map(str, sizes)) + " |", "|---|" + "---|" * len(sizes)]
    for name, curve in curves.items():
        lines.append(f"| {name} | " + " | ".join(f"{c.length:.1f}" for c in curve.values()) + " |")
    return "\n".join(lines) + "\n"
