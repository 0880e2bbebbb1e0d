"""Reward models from public data: Bradley-Terry on preference pairs, a process model on rated steps (PRM800K).

The same learner and loop as on sampled completions (reward.py). Nothing is sampled here, so there is no best-of-N: what
is measured is held out by prompt, the pair accuracy and calibration of the one, the step accuracy of the other.
"""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from reference_impl.algorithms import RewardObjective
from reference_impl.data.conversations import Dropped, is_held_out
from reference_impl.data.prm800k import Trace, traces
from reference_impl.data.public import rows
from reference_impl.errors import UserError
from reference_impl.loops.process import step_accuracy
from reference_impl.loops.public_data import enough, pair_table, public_pairs, say
from reference_impl.loops.ranking import auc, calibration_error
from reference_impl.loops.reward import LABELS, Learner, train_reward_models
from reference_impl.models import load_model
from reference_impl.reward_model import pairwise_accuracy
from reference_impl.runs.progress import console
from reference_impl.runs.run import Run
from reference_impl.settings import RewardSettings
from reference_impl.tasks.splits import Prompt

STEP_END = "\n"


def train_on_pairs(objectives: dict[str, RewardObjective], settings: RewardSettings, run: Run) -> dict[str, float]:
    """Train those of the objectives that learn from pairs; their held-out numbers."""
    paired = [objective for objective in objectives.values() if objective.paired]
    if not paired:
        raise UserError(f"{settings.algorithm} learns from verdicts, and --data {settings.data} has pairs.")
    policy, tokenizer = load_model(settings.policy)
    training, held_out = public_pairs(settings, tokenizer, run)
    data, index = pair_table(training, tokenizer.pad_token_id)
    unseen, unseen_index = pair_table(held_out, tokenizer.pad_token_id)
    learners = [Learner(objective, policy, settings) for objective in paired]

    def scores(learner: Learner, pairs: int) -> tuple[Tensor, Tensor]:
        some = unseen_index[:pairs].T.flatten()
        part = {name: tensor[some] for name, tensor in vars(unseen).items()}
        return learner.scores(SimpleNamespace(**part)).chunk(2)

    def measure(pairs: int) -> dict[str, float]:
        found = {learner.name: scores(learner, pairs) for learner in learners}
        return {f"pair_accuracy_{name}": float(pairwise_accuracy(*both)) for name, both in found.items()}

    speed = train_reward_models(learners, tokenizer, lambda learner: (data, index), measure, settings, run)
    run.log(settings.steps, **measure(settings.final_eval_prompts))
    results = {"training pairs": float(len(training)), "held-out pairs": float(len(held_out))}
    for learner in learners:
        results |= about_pairs(LABELS[learner.name], *scores(learner, settings.final_eval_prompts))
    length = unseen.completion_mask.sum(1).float().chunk(2)
    results["length alone: pair accuracy"] = float(pairwise_accuracy(*length))
    return show(results, run) | speed


def about_pairs(name: str, chosen: Tensor, rejected: Tensor) -> dict[str, float]:
    """Accuracy, mean margin, and calibration of P(chosen over rejected) = sigma(difference), asked both ways round."""
    margin = chosen - rejected
    probability = torch.sigmoid(torch.cat([margin, -margin]))
    won = torch.cat([torch.ones_like(margin), torch.zeros_like(margin)])
    return {
        f"{name}: pair accuracy": float(pairwise_accuracy(chosen, rejected)),
        f"{name}: mean margin": margin.mean().item(),
        f"{name}: calibration error": calibration_error(probability, won),
    }


def train_on_steps(functions, objective: RewardObjective, settings: RewardSettings, run: Run) -> dict[str, float]:
    """Train a process model on rated steps; its held-out numbers."""
    policy, tokenizer = load_model(settings.policy)
    training, held_out = read_traces(settings, tokenizer, functions, run)
    learner = Learner(objective, policy, settings)
    index = torch.arange(len(training.input_ids))

    def measure(n: int) -> dict[str, float]:
        part = SimpleNamespace(**{name: tensor[:n] for name, tensor in vars(held_out).items()})
        return {"step_accuracy_prm": step_accuracy(learner.logits(part), part.labels)}

    speed = train_reward_models([learner], tokenizer, lambda learner: (training, index), measure, settings, run)
    run.log(settings.steps, **measure(settings.final_eval_prompts))
    labels = held_out.labels[held_out.labels != -100]
    good = learner.logits(held_out).softmax(-1)[..., 2][held_out.labels != -100]
    results = {
        "training traces": float(len(index)),
        "step accuracy: process model": step_accuracy(learner.logits(held_out), held_out.labels),
        "step accuracy: always the commonest class": (torch.bincount(labels).max() / len(labels)).item(),
        "step AUC: process model": auc(good, (labels == 2).float()),
    }
    return show(results, run) | speed


def read_traces(settings, tokenizer, functions, run: Run) -> tuple[SimpleNamespace, SimpleNamespace]:
    """(training, held out): traces as rows with labels by the week's `prm_labels`; a problem is on one side only."""
    sides: dict[bool, list] = {True: [], False: []}
    dropped = Dropped()
    for row in rows(settings.data):
        if dropped.kept >= settings.data_rows:
            break
        for trace in traces(row):
            dropped.read += 1
            encoded = encode_trace(trace, tokenizer)
            if len(encoded[0]) + len(encoded[1]) > settings.max_length:
                dropped.drop(f"of more than {settings.max_length} tokens")
                continue
            dropped.kept += 1
            sides[is_held_out(({"content": trace.problem},))].append(encoded)
    say(dropped, len(sides[True]), settings, run)
    return tuple(trace_table(enough(sides[side], settings), tokenizer, functions) for side in (False, True))


def encode_trace(trace: Trace, tokenizer) -> tuple[list[int], list[int], list[int | None]]:
    """(prompt, steps each with one end-of-step token behind it, ratings). Line ends inside a step become spaces."""
    prompt = Prompt(trace.problem, "", messages=({"role": "user", "content": trace.problem},))
    separator = tokenizer.encode(STEP_END)[-1:]
    steps = [tokenizer.encode(step.replace("\n", " ")) + separator for step in trace.steps]
    return tokenizer.encode_prompt(prompt), [token for step in steps for token in step], list(trace.ratings)


def trace_table(encoded: list, tokenizer, functions) -> SimpleNamespace:
    """Rows with labels at the ends of the rated steps; the other steps' ends are not asked about."""
    rows = [torch.tensor(prompt + steps) for prompt, steps, _ in encoded]
    input_ids = pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_token_id)
    columns = torch.arange(input_ids.shape[1])
    lengths = torch.tensor([len(row) for row in rows])[:, None]
    attention_mask = (columns < lengths).long()
    completion_mask = attention_mask * (columns >= torch.tensor([len(prompt) for prompt, *_ in encoded])[:, None])
    separator = tokenizer.encode(STEP_END)[-1]
    labels = functions.prm_labels(
        input_ids, separator, [[rating or 0 for rating in ratings] for *_, ratings in encoded], completion_mask
    )
    rated = functions.prm_labels(  # the same, with 1 for "was rated": class 2
        input_ids,
        separator,
        [[int(rating is not None) for rating in ratings] for *_, ratings in encoded],
        completion_mask,
    )
    return SimpleNamespace(
        input_ids=input_ids,
        attention_mask=attention_mask,
        completion_mask=completion_mask,
        labels=torch.where(rated == 2, labels, -100),
    )


def show(results: dict[str, float], run: Run) -> dict[str, float]:
    """Print the results and write results.md."""
    table = ["| held out | |", "|---|---|", *(f"| {name} | {number:.4g} |" for name, number in results.items())]
    run.write("results.md", "\n".join(table) + "\n")
    console.print("\n".join(f"{name:<52}{number:.4g}" for name, number in results.items()), markup=False)
    return results
