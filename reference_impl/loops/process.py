"""Week 04: a process reward model beside an outcome model, and what choosing the best of N by each of them gives.

    policy -> completions -> a rating for each step and for the end -> PRM     P(good) at every step
                          -> one verdict for each completion        -> ORM     P(right) at the last token

Both learn from the same completions, the PRM from several labels of each. The outcome model's functions are week 03's
and come from reference_impl.
"""

import torch
from torch import Tensor

from reference_impl import reward_model
from reference_impl.algorithms import RewardObjective, orm
from reference_impl.data.judged import Judged, all_pairs, ends_step
from reference_impl.data.steps import step_labels
from reference_impl.loops.best_of_n import best_of_n_page, choose_by_each, peak
from reference_impl.loops.ranking import auc
from reference_impl.loops.reward import Learner, prepare, train_reward_models, write_page
from reference_impl.runs.progress import console
from reference_impl.runs.reward_figures import plot_best_of_n
from reference_impl.runs.run import Run
from reference_impl.settings import ProcessSettings

AGGREGATIONS = ("min", "prod", "mean", "last")


def train_process(functions, objectives: dict[str, RewardObjective], settings: ProcessSettings, run: Run) -> dict:
    """Train the PRM and an ORM; returns their held-out numbers and the accuracy of the best of N by every chooser."""
    policy, tokenizer, task, sampled, held_out = prepare(settings)
    for data in (sampled, held_out):
        data.labels = step_labels(data, task, tokenizer, functions, settings.label_eos)
    learners = [Learner(goal, policy, settings) for goal in (objectives | orm(reward_model, settings)).values()]
    everything = torch.arange(len(sampled))
    index = {"orm": everything, "prm": everything[: max(1, int(settings.prm_share * len(sampled)))]}
    step_end = ends_step(held_out.input_ids, tokenizer)

    def measure(prompts: int) -> dict[str, float]:
        part = held_out.part(0, prompts * settings.held_out_samples)
        numbers, pairs = {}, all_pairs(part)
        for learner in learners:
            scores = learner.scores(part)
            numbers[f"pair_accuracy_{learner.name}"] = float(reward_model.pairwise_accuracy(*scores[pairs.T]))
            numbers[f"auc_{learner.name}"] = auc(scores, part.correct)
        return numbers | {"step_accuracy_prm": step_accuracy(learners[0].logits(part), part.labels)}

    speed = train_reward_models(
        learners, tokenizer, lambda learner: (sampled, index[learner.name]), measure, settings, run
    )
    run.log(settings.steps, **measure(settings.final_eval_prompts))
    logits = {learner.name: learner.logits(held_out) for learner in learners}
    results = {
        "labels of the process model": float((sampled.labels[index["prm"]] != -100).sum()),
        "labels of the outcome model": float(len(sampled)),
    }
    results |= step_numbers(logits, held_out, step_end)
    scores = model_scores(learners, logits["prm"], held_out, functions)
    for name in ("orm", f"prm {settings.prm_how}"):
        results[f"AUC across prompts: {name}"] = auc(scores[name].flatten(), held_out.correct)
    chosen = choose_by_each(scores, held_out, task, functions)
    for name, curve in chosen.items():
        results |= {f"best of {n} by {name}": point.accuracy for n, point in curve.items()}
    for name in scores:
        results |= peak(name, chosen[name])
    held_out_scores = {"orm": scores["orm"].flatten(), "prm": scores[f"prm {settings.prm_how}"].flatten()}
    write_page(run, results, held_out, held_out_scores)
    page = best_of_n_page(chosen)
    run.write("best_of_n.md", page)
    console.print(page, markup=False, soft_wrap=True)
    plot_best_of_n(run.path / "best_of_n.png", chosen, list(scores))
    return results | speed


def step_accuracy(logits: Tensor, labels: Tensor) -> float:
    """Share of the labelled positions whose class has the largest logit."""
    labelled = labels != -100
    return (logits[labelled].argmax(-1) == labels[labelled]).float().mean().item()


def step_numbers(logits: dict[str, Tensor], data: Judged, step_end: Tensor) -> dict[str, float]:
    """How well the two models know a good step from another, and a right end from a wrong one.

    The outcome model was never told about steps; its probability of being right, read at a step's end, is asked here
    as if it were a verdict on the step.
    """
    labels = data.labels
    steps, ends = (labels != -100) & step_end, (labels != -100) & ~step_end
    good, right = logits["prm"].softmax(-1)[..., 2], torch.sigmoid(logits["orm"][..., 0])
    counts = torch.bincount(labels[steps], minlength=3)
    numbers = {
        "accuracy at all labels: process model": step_accuracy(logits["prm"], labels),
        "step accuracy: process model": step_accuracy(logits["prm"][steps], labels[steps]),
        "step accuracy: always the commonest class": (counts.max() / counts.sum()).item(),
        "step AUC: process model": auc(good[steps], labels[steps] == 2),
        "step AUC: outcome model": auc(right[steps], labels[steps] == 2),
    }
    if ends.any():
        numbers["end AUC: process model"] = auc(good[ends], labels[ends] == 2)
    return numbers


def model_scores(learners: list[Learner], prm_logits: Tensor, data: Judged, functions) -> dict[str, Tensor]:
    """Scores (P, N) of the outcome model, and of the process model under each aggregation."""
    steps = functions.step_scores(prm_logits, data.labels)
    padded = torch.nn.utils.rnn.pad_sequence(steps, batch_first=True)
    if padded.shape[1] == 0:  # nobody wrote a step
        padded = padded.new_zeros(len(steps), 1)
    mask = torch.arange(padded.shape[1]) < torch.tensor([len(row) for row in steps])[:, None]
    scores = {learner.name: learner.scores(data) for learner in learners if learner.name == "orm"}
    scores |= {f"prm {how}": functions.aggregate_steps(padded, mask, how) for how in AGGREGATIONS}
    return {name: score.view(-1, data.group) for name, score in scores.items()}
