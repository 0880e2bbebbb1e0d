"""Week 03: a preference model and an outcome model, trained on the same completions and measured on the same prompts.

    policy -> completions -> verdicts -> right-wrong pairs -> Bradley-Terry          a score to compare answers with
                                      -> single completions -> ORM                   a probability of being right

Beside the held-out accuracy stands what it may hide: the AUC across prompts, calibration, pairs that look alike, and
what selecting by the score gives.
"""

import torch
from torch import Tensor

from reference_impl.algorithms import RewardObjective
from reference_impl.data.judged import Judged, all_pairs, join, same_format, some_pairs, with_twins
from reference_impl.loops.evaluate import EVAL_SEED
from reference_impl.loops.ranking import auc, brier, calibration_error, reliability
from reference_impl.loops.reward import LABELS, Learner, prepare, train_reward_models, write_page
from reference_impl.reasoning import best_of_n_accuracy
from reference_impl.runs.reward_figures import plot_along, plot_reward_models
from reference_impl.runs.run import Run, read_metrics
from reference_impl.settings import RewardSettings

SHOWN = 6  # wrong completions of along.png


def train_outcome(functions, objectives: dict[str, RewardObjective], settings: RewardSettings, run: Run) -> dict:
    """Train the models of `objectives`; returns what they are worth on held-out prompts."""
    policy, tokenizer, task, sampled, held_out = prepare(settings)
    training, pairs = sampled, some_pairs(sampled, settings.pairs_per_prompt, settings.seed)
    if settings.negatives != "sampled":
        edited, twin_pairs = with_twins(sampled, tokenizer, task, settings.seed)
        both = settings.negatives == "both"
        pairs = torch.cat([pairs, twin_pairs + len(sampled)]) if both else twin_pairs
        training = join([sampled, edited]) if both else edited
    singles = torch.arange(len(training))
    learners = [Learner(objective, policy, settings) for objective in objectives.values()]

    def measure(prompts: int) -> dict[str, float]:
        part = held_out.part(0, prompts * settings.held_out_samples)
        return {
            f"{name}_{learner.name}": number
            for learner in learners
            for name, number in quality(learner, learner.scores(part), part, all_pairs(part), functions).items()
        }

    speed = train_reward_models(
        learners,
        tokenizer,
        lambda learner: (training, pairs if learner.objective.paired else singles),
        measure,
        settings,
        run,
    )
    scores = {learner.name: learner.scores(held_out) for learner in learners}
    twins = with_twins(held_out, tokenizer, task, EVAL_SEED)
    run.log(settings.steps, **measure(settings.final_eval_prompts))
    results = {"training completions": float(len(training)), "training pairs": float(len(pairs))}
    for learner in learners:
        results |= report(learner, scores[learner.name], held_out, twins, functions)
    results |= floors(held_out, functions)
    write_page(run, results, held_out, scores)
    chosen = {name: best_of(score, held_out) for name, score in scores.items()}
    bins = reliability(scores["orm"], held_out.correct) if "orm" in scores else []
    plot_reward_models(run.path / "reward_models.png", read_metrics(run.path), LABELS, bins, chosen)
    for learner in learners:
        if learner.name == "orm":
            plot_along(run.path / "along.png", *wrong_completions(learner, held_out, tokenizer))
    return results | speed


def quality(learner: Learner, scores: Tensor, data: Judged, pairs: Tensor, functions) -> dict[str, float]:
    """The numbers of the curves."""
    found = {
        "pair_accuracy": float(functions.pairwise_accuracy(*scores[pairs.T])),
        "auc": auc(scores, data.correct),
    }
    return found | ({"brier": brier(scores, data.correct)} if learner.name == "orm" else {})


def report(learner: Learner, scores: Tensor, data: Judged, twins: tuple[Judged, Tensor], functions) -> dict[str, float]:
    """The final numbers of one model, by name.

    Pairs that look alike (both ended, in equally many tokens) and twins (one digit of the answer changed) say how much
    of the pair accuracy is more than a glance at the form.
    """

    name, pairs = LABELS[learner.name], all_pairs(data)
    asked = {
        "pair accuracy": (scores, pairs),
        "pair accuracy, same format": (scores, same_format(data, pairs)),
        "pair accuracy, one digit changed": (learner.scores(twins[0]), twins[1]),
    }
    found = {
        f"{name}: {what}": float(functions.pairwise_accuracy(*scored[some.T]))
        for what, (scored, some) in asked.items()
        if len(some) > 0
    }
    found[f"{name}: AUC across prompts"] = auc(scores, data.correct)
    if learner.name == "orm":
        found[f"{name}: accuracy at 1/2"] = ((scores > 0.5) == (data.correct == 1)).float().mean().item()
        found[f"{name}: Brier score"] = brier(scores, data.correct)
        found[f"{name}: calibration error"] = calibration_error(scores, data.correct)
        found[f"{name}: mean probability"] = scores.mean().item()
    return found | {f"{name}: best of {n}": accuracy for n, accuracy in best_of(scores, data).items()}


def floors(data: Judged, functions) -> dict[str, float]:
    """What needs no model: the length alone as the score, the commoner label, a random and an all-knowing choice."""
    length, pairs = data.completion_mask.sum(1).float(), all_pairs(data)
    right = data.correct.mean().item()
    return {
        "length alone: pair accuracy": float(functions.pairwise_accuracy(*length[pairs.T])),
        "length alone: AUC across prompts": auc(length, data.correct),
        "share of right completions": right,
        "always the commoner label: accuracy": max(right, 1 - right),
        f"any of {data.group} right": data.correct.view(-1, data.group).amax(1).mean().item(),
    }


def best_of(scores: Tensor, data: Judged) -> dict[int, float]:
    """Accuracy of the best-scored of n completions, n = 1, 2, 4, ... up to all of a prompt's."""
    table, correct = scores.view(-1, data.group), data.correct.view(-1, data.group)
    sizes = [2**k for k in range(data.group.bit_length()) if 2**k <= data.group]
    return {n: float(best_of_n_accuracy(table, correct, n)) for n in sizes}


def wrong_completions(learner: Learner, data: Judged, tokenizer) -> tuple[list[str], list[list[str]], list]:
    """Some wrong completions: titles, their tokens as text, and the probability of being right at each token."""
    rows = [row for row in range(0, len(data), data.group) if data.correct[row] == 0][:SHOWN]
    some = data.part(0, max(rows, default=0) + 1)
    probabilities = torch.sigmoid(learner.logits(some)[..., 0])
    titles, tokens, along = [], [], []
    for row in rows:
        inside = data.completion_mask[row].bool()
        ids = data.input_ids[row, inside].tolist()
        titles.append(f"{data.prompts[row].text} (answer {data.prompts[row].answer})")
        tokens.append(["end" if i == tokenizer.eos_token_id else tokenizer.decode([i]) for i in ids])
        along.append(probabilities[row, inside[: probabilities.shape[1]]].tolist())
    return titles, tokens, along
