"""Training data from public sets or files, as the loops take it; what was dropped, and why, stands in data.md.

Which kind of data it is says its first row (reference_impl/data/public.py). Problems become the run's task; pairs,
instructions and rated steps are learned from, while accuracy is measured on the run's task.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from reference_impl.data.conversations import Dropped, read_instructions, read_pairs
from reference_impl.data.pairs import Pair, collate_answers
from reference_impl.data.public import rows, source_kind
from reference_impl.errors import UserError
from reference_impl.loops.sft_steps import batch_loss
from reference_impl.runs.progress import console
from reference_impl.runs.run import Run
from reference_impl.sft import supervised_tokens
from reference_impl.tasks import get_task

LOSS_ROWS = 8  # held-out examples read at once


LEARNS_FROM = {"02": "instructions", "03": "pairs", "04": "steps", "08": "pairs", "09": "pairs"}  # by week


def task_of(settings):
    """The run's task: that of the problems in `data`, else `settings.task`. UserError for data of no use here."""
    if kind_for(settings) == "problems":
        return get_task("gsm8k", data=settings.data)
    return get_task(settings.task)


def learns_from_data(settings) -> bool:
    """Does the week learn from the rows of `data` themselves? Otherwise from samples or demonstrations of the task."""
    return kind_for(settings) not in (None, "problems")


def kind_for(settings) -> str | None:
    """What `data` holds; UserError when the week has no use for it, or the model cannot read it."""
    if settings.data is None:
        return None
    kind, own = source_kind(settings.data), LEARNS_FROM.get(settings.week)
    if kind not in ("problems", own):
        wanted = f"{own} or problems" if own else "problems"
        raise UserError(f"--data {settings.data} has {kind}, and week {settings.week} learns from {wanted}.")
    if settings.policy in ("base", "random"):
        raise UserError(f"--data {settings.data} needs a model that reads words: add --scale smol or --policy MODEL.")
    return kind


def say(dropped: Dropped, held_out: int, settings, run: Run) -> None:
    """What came of the rows, on the screen and in data.md."""
    text = f"{settings.data}: {dropped}; {held_out} of them held out, by a hash of their prompt"
    console.print(text, soft_wrap=True, markup=False)
    run.write("data.md", f"# Data\n\n{text}.\n")


def public_pairs(settings, tokenizer, run: Run) -> tuple[list[Pair], list[Pair]]:
    """(training, held out) pairs of `data`. UserError when one side is empty."""
    training, held_out, dropped = read_pairs(rows(settings.data), tokenizer, settings.max_length, settings.data_rows)
    say(dropped, len(held_out), settings, run)
    return enough(training, settings), enough(held_out, settings)


def enough(some: list, settings) -> list:
    if not some:
        raise UserError(f"--data {settings.data} leaves nothing to train on or nothing to hold out: give more rows.")
    return some


def public_instructions(settings, tokenizer, functions, run: Run) -> tuple[list[dict], Callable]:
    """Training examples of `data`, and also(model, n): the loss on held-out ones, as the SFT loop takes both."""
    from reference_impl.loops.sft import perplexity

    training, held_out, dropped = read_instructions(
        rows(settings.data), tokenizer, functions.build_example, settings.max_length, settings.demonstrations
    )
    say(dropped, len(held_out), settings, run)
    enough(held_out, settings)

    def also(model: nn.Module, n: int) -> dict[str, float]:
        return perplexity(mean_loss(model, held_out[:n], tokenizer, functions))

    return enough(training, settings), also


@torch.no_grad()
def mean_loss(model: nn.Module, examples: list[dict], tokenizer, functions) -> float:
    """The week's `sft_loss` over all supervised tokens of the examples, a few of them at a time."""
    model.eval()
    total, count = 0.0, 0
    for first in range(0, len(examples), LOSS_ROWS):
        batch = functions.collate(examples[first : first + LOSS_ROWS], tokenizer.pad_token_id)
        tokens = supervised_tokens(batch)
        if tokens:
            total, count = total + float(batch_loss(model, batch, functions.sft_loss)) * tokens, count + tokens
    return total / max(count, 1)


def pair_table(pairs: list[Pair], pad_id: int) -> tuple[SimpleNamespace, Tensor]:
    """All answers as the reward loop's rows, the chosen ones first, and each pair's two rows (N, 2)."""
    answers = [(pair.prompt, pair.chosen) for pair in pairs] + [(pair.prompt, pair.rejected) for pair in pairs]
    input_ids, attention_mask, completion_mask = collate_answers(answers, pad_id)
    index = torch.arange(len(answers)).view(2, -1).T
    return SimpleNamespace(input_ids=input_ids, attention_mask=attention_mask, completion_mask=completion_mask), index
