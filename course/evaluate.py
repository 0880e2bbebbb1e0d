"""`rlhf eval RUN|MODEL ...`: held-out accuracy, pass@k, KL, length and what does not end; or a reward model's worth.

Held-out prompts are those of the evaluation split, the same for every model, so columns compare. A run brings its task,
its reference and its longest completion along; what is given on the command line goes before.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated

from tyro.conf import Positional, arg

from reference_impl.config import read_yaml
from reference_impl.errors import UserError
from reference_impl.implementations import ROOT
from reference_impl.launch import clean_exit
from reference_impl.options import value
from reference_impl.runs.files import write_text

LONGEST = {"chain_sum": 28, "gsm8k": 512}  # tokens of a completion, by task


@dataclass(frozen=True, kw_only=True)
class EvalCommand:
    """Measure models on held-out prompts; numbers in brackets are standard errors over prompts."""

    targets: Annotated[Positional[tuple[str, ...]], arg(metavar="RUN|MODEL ...", help_behavior_hint="")]
    """Runs, checkpoints, base, smol, hub names, or runs of week 03 or 04, whose reward model is then measured."""
    prompts: int = 256
    """Held-out prompts."""
    samples: int = 16
    """Completions of each."""
    temperature: float = 1.0
    """Of sampling."""
    reference: Annotated[str | None, value("MODEL")] = None
    """Model that the KL is measured against; a run's own by default, none for a model."""
    policy: Annotated[str | None, value("MODEL")] = None
    """Whose completions a reward model judges (default: those of its run's policy)."""
    task: Annotated[str | None, value("TASK")] = None
    """chain_sum or gsm8k (default: the run's, or chain_sum)."""
    data: Annotated[str | None, value("DATA")] = None
    """gsm8k, or a file of problems in its form, in place of the task."""
    max_new_tokens: Annotated[int | None, value("N")] = None
    """Longest completion (default: the run's, or 28 for chain_sum and 512 for gsm8k)."""
    device: str = "auto"
    """cpu, cuda or auto."""
    precision: str = "float32"
    """float32, bfloat16 or auto, of models other than nano."""
    out: Annotated[Path | None, value("FILE")] = None
    """Also write the numbers as JSON."""


def main(args: list[str]) -> None:
    """Exits 2 with one message after a mistake, 130 after Ctrl-C."""
    import tyro

    with clean_exit():
        evaluate(tyro.cli(EvalCommand, prog="rlhf eval", args=args))


def evaluate(command: EvalCommand) -> dict[str, dict]:
    """Measure every target, print the table, and write it when asked to; {target: {name: Number}}."""
    if not command.targets:
        raise UserError("Which model? Give a run (runs/...), a checkpoint folder, base, smol or a hub name.")
    for name in ("prompts", "samples"):
        if getattr(command, name) < 1:
            raise UserError(f"--{name} must be at least 1.")
    from reference_impl.models import hardware

    results = {}
    for target in command.targets:
        hardware.use(command.device, command.precision)
        print(f"{target} ...", file=sys.stderr, flush=True)
        results[target] = measure(target, settle(target, command))
    print(page(results))
    if command.out is not None:
        numbers = {target: {name: vars(number) for name, number in found.items()} for target, found in results.items()}
        write_text(command.out, json.dumps(numbers, indent=2) + "\n")
    return results


def settle(target: str, command: EvalCommand) -> SimpleNamespace:
    """The command with its gaps filled in from the run's config.yaml, if the target is a run."""
    run = run_settings(target)
    task = command.task or run.get("task", "chain_sum")
    given = {name: getattr(command, name) for name in ("prompts", "samples", "temperature", "data")}
    return SimpleNamespace(
        **given,
        task="gsm8k" if command.data else task,
        reference=command.reference or run.get("reference"),
        policy=command.policy or run.get("policy", "base"),
        max_new_tokens=command.max_new_tokens or run.get("max_new_tokens") or LONGEST.get(task, 28),
    )


def run_settings(target: str) -> dict:
    """config.yaml of the run of that path or name; {} for a model."""
    for folder in (Path(target).expanduser(), ROOT / "runs" / target):
        if (folder / "config.yaml").is_file():
            return read_yaml(folder / "config.yaml")
    return {}


def measure(target: str, settings: SimpleNamespace) -> dict:
    """{name: Number} of a policy or a reward model."""
    from reference_impl.loops.measure import measure_policy, measure_reward
    from reference_impl.models import HeadedLM, load_model
    from reference_impl.rewards import load_reward
    from reference_impl.tasks import get_task

    task = get_task(settings.task, **({"data": settings.data} if settings.data else {}))
    sizes = settings.prompts, settings.samples, settings.max_new_tokens
    if has_reward(target):
        policy, tokenizer = load_model(settings.policy)
        return measure_reward(load_reward(target), policy, tokenizer, task, *sizes)
    named = ROOT / "runs" / target
    model, tokenizer = load_model(named if (named / "config.yaml").is_file() else target)
    if isinstance(model, HeadedLM):
        raise UserError(f"{target} is a value or reward model without reward.json: it cannot be asked for text.")
    reference = load_model(settings.reference)[0] if settings.reference else None
    return measure_policy(model, tokenizer, task, *sizes, settings.temperature, reference)


def has_reward(target: str) -> bool:
    """Does the folder hold a reward model?"""
    from reference_impl.rewards import find_reward

    try:
        find_reward(target)
    except UserError:
        return False
    return True


def page(results: dict[str, dict]) -> str:
    """A line a number, a column a model."""
    names = list(dict.fromkeys(name for found in results.values() for name in found))
    columns = [[target, *(shown(found.get(name)) for name in names)] for target, found in results.items()]
    widths = [max(map(len, column)) for column in columns]
    lines = []
    for number, name in enumerate(["", *names]):
        cells = (column[number].rjust(width) for column, width in zip(columns, widths, strict=True))
        lines.append(f"{name:<24}" + "  ".join(cells))
    return "\n".join(lines)


def shown(number) -> str:
    """0.742 (0.013)."""
    if number is None:
        return "-"
    return f"{number.value:.3f}" + (f" ({number.error:.3f})" if number.error == number.error else "")
