"""The reward of a run: the verifier, or a reward model that week 03 or 04 saved.

    reward = reward_function("verifier", task, tokenizer)              1.0 for a right answer that ended, else 0.0
    reward = reward_function("runs/03-...", task, tokenizer)           the model's score
    rewards = reward(prompts, texts, rollout)                          (P * G,)

A saved reward model is a folder with the model (model.safetensors, config.json) and reward.json, which says how its
logits become a score. A run keeps its models under rewards/. They are read with `reference_impl`'s functions, whoever's
functions trained them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from reference_impl.algorithms import ALGORITHMS, RewardObjective
from reference_impl.data.judged import ends_step
from reference_impl.distributed import over_rows
from reference_impl.errors import UserError
from reference_impl.implementations import ROOT, load_functions, shown
from reference_impl.models import load_model, save_model
from reference_impl.runs.files import replacing_folder, write_text
from reference_impl.sharding import whole

ABOUT = "reward.json"
MEANT = ("prm", "bt", "orm")  # which of a run's models its name stands for: the first of these that it has
SCORING_ROWS, SCORING_TOKENS = 1024, 2**18  # completions scored at once, and their tokens, padding included
TENSORS = ("input_ids", "attention_mask", "completion_mask", "correct", "labels")


@dataclass
class RewardModel:
    """A saved reward model, ready to score."""

    path: Path
    model: nn.Module
    tokenizer: object
    objective: RewardObjective

    def scores(self, input_ids: Tensor, attention_mask: Tensor, completion_mask: Tensor) -> Tensor:
        """One score a completion: three times (B, T) -> (B,), higher is better."""
        rows = SimpleNamespace(input_ids=input_ids, attention_mask=attention_mask, completion_mask=completion_mask)
        if self.objective.outputs == 3:
            rows.labels = asked(rows, self.tokenizer, self.objective.reading["label_eos"])
        return scores_of(self.model, self.objective, rows)


def reward_function(name: str, task, tokenizer) -> Callable[..., Tensor]:
    """reward(prompts, texts, rollout) -> (P * G,) by "verifier", or by the reward model saved under `name`.

    UserError when there is no such model, or when it reads other tokens than `tokenizer` writes.
    """
    if name == "verifier":
        from reference_impl.loops.evaluate import verifier_rewards

        return lambda prompts, texts, rollout: verifier_rewards(task, prompts, texts, rollout.finished)
    saved = load_reward(name)
    if type(saved.tokenizer) is not type(tokenizer) or saved.tokenizer.vocab_size != tokenizer.vocab_size:
        raise UserError(f"The reward model in {shown(saved.path)} and the policy do not have the same tokenizer.")
    return lambda prompts, texts, rollout: saved.scores(
        rollout.input_ids, rollout.attention_mask, rollout.response_mask
    )


def load_reward(name: str | Path) -> RewardModel:
    """The reward model in that folder, or the one that a run of that path or name stands for. UserError if none."""
    path = find_reward(name)
    try:
        about = json.loads((path / ABOUT).read_text(encoding="utf-8"))
        row = ALGORITHMS[about["algorithm"]]
        functions = load_functions(row.week, "reference")
        objective = row.build(functions, SimpleNamespace(**about["reading"]))[about["name"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{shown(path / ABOUT)} does not describe a reward model: {error!r}.") from error
    model, tokenizer = load_model(path)
    if getattr(model, "outputs", None) != objective.outputs:
        raise UserError(f"The model in {shown(path)} does not have the outputs that its {ABOUT} speaks of.")
    return RewardModel(path, model.eval().requires_grad_(False), tokenizer, objective)


def find_reward(name: str | Path) -> Path:
    """The folder that holds reward.json."""
    folders = [path for path in (Path(name).expanduser(), ROOT / "runs" / name) if path.is_dir()]
    for folder in folders:
        for path in (folder, *(folder / "rewards" / kind for kind in MEANT)):
            if (path / ABOUT).is_file():
                return path
    found = f"{shown(folders[0])} holds no reward model" if folders else "there is no such folder"
    raise UserError(f"reward {str(name)!r}: {found}. Give 'verifier' or a finished run of week 03 or 04 (runs/03-...).")


def save_reward(path: Path, model: nn.Module, tokenizer, objective: RewardObjective) -> None:
    """Write a reward model that `load_reward` reads; the folder appears complete or not at all."""
    about = {"name": objective.name, "algorithm": objective.algorithm, "reading": objective.reading}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing_folder(path) as fresh:
        save_model(model, tokenizer, fresh)
        write_text(fresh / ABOUT, json.dumps(about, indent=2) + "\n")


def asked(completions, tokenizer, label_eos: bool) -> Tensor:
    """Where a process reward model is read: 0 at each `=` of the completion (and at its end), -100 elsewhere (B, T)."""
    ids, inside = completions.input_ids, completions.completion_mask.bool()
    ends = ends_step(ids, tokenizer)
    if label_eos:
        ends |= ids == tokenizer.eos_token_id
    return torch.where(ends & inside, 0, -100)


def rows_of(completions, index) -> SimpleNamespace:
    """What a loss or a score needs of some completions, without the columns that none of them uses."""
    width = int(completions.attention_mask[index].sum(1).max())
    parts = {name: getattr(completions, name, None) for name in TENSORS}
    named = {name: part[index] for name, part in parts.items() if part is not None}
    return SimpleNamespace(**{name: part[:, :width] if part.dim() == 2 else part for name, part in named.items()})


def scoring_chunks(input_ids: Tensor, rows: slice) -> list[slice]:
    """Of these rows, those to read at once."""
    size = max(1, min(SCORING_ROWS, SCORING_TOKENS // input_ids.shape[1]))
    start, stop, _ = rows.indices(len(input_ids))
    return [slice(first, min(first + size, stop)) for first in range(start, stop, size)]


@torch.no_grad()
def scores_of(model: nn.Module, objective: RewardObjective, completions) -> Tensor:
    """The objective's score of each completion (B,)."""
    model.eval()

    def of_rows(mine: slice) -> Tensor:
        scores = [torch.zeros(0)]  # of no completions there are no scores
        for chunk in scoring_chunks(completions.input_ids, mine):
            rows = rows_of(completions, chunk)
            logits = model(input_ids=rows.input_ids, attention_mask=rows.attention_mask).logits
            scores.append(objective.score(logits, rows))
        return torch.cat(scores)

    with whole(model):
        return over_rows(of_rows, len(completions.input_ids))


@torch.no_grad()
def logits_of(model: nn.Module, completions) -> Tensor:
    """The logits at every token (B, T, outputs), 0 in the columns that a part of the completions does not use."""
    model.eval()

    def of_rows(mine: slice) -> Tensor:
        logits = torch.zeros(*completions.input_ids.shape, model.outputs)
        for chunk in scoring_chunks(completions.input_ids, mine):
            rows = rows_of(completions, chunk)
            width = rows.input_ids.shape[1]
            logits[chunk, :width] = model(input_ids=rows.input_ids, attention_mask=rows.attention_mask).logits
        return logits[mine]

    with whole(model):
        return over_rows(of_rows, len(completions.input_ids))
