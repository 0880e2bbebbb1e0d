"""Tasks: prompts, demonstrations and verifiers. Problems and the scoring of answers come from reasoning_gym."""

from __future__ import annotations

from reference_impl.errors import UserError
from reference_impl.tasks.chain_sum import ChainSum
from reference_impl.tasks.gsm8k import GSM8K
from reference_impl.tasks.splits import SPLITS, Prompt, split_of

__all__ = ["GSM8K", "SPLITS", "TASKS", "ChainSum", "Prompt", "get_task", "split_of"]

TASKS = {"chain_sum": ChainSum, "gsm8k": GSM8K}


def get_task(name: str = "chain_sum", **settings) -> ChainSum | GSM8K:
    """The task of that name; UserError for a name or a setting that does not exist."""
    if name not in TASKS:
        raise UserError(f"there is no task {name!r}; there are: {', '.join(TASKS)}")
    try:
        return TASKS[name](**settings)
    except (TypeError, ValueError) as error:
        raise UserError(f"task {name!r}: {error}") from None
