"""What best-of-n costs and gains: KL to the policy and reward, by the formulas and as measured, for n = 1 ... 64.

Best-of-n of a policy is a policy too. Of samples with rewards r it picks level r with probability
q(r) = P(R <= r)^n - P(R < r)^n instead of p(r), and among equals it picks at random, so its KL is

    sum_r q(r) log q(r)/p(r)        log n - (n-1)/n when no two completions share a reward, less when they do

measured here with the shares of each level among many samples of a prompt, mean over prompts. Two rewards: the verifier
(two levels, many ties) and a reward model (hardly any ties).
"""

from pathlib import Path

import torch
from torch import Tensor

from reference_impl.algorithms import ALGORITHMS
from reference_impl.config import checked
from reference_impl.data.judged import Judged, sample_judged
from reference_impl.data.order import batch_indices
from reference_impl.implementations import load_functions, require_written
from reference_impl.loops.evaluate import EVAL_SEED, held_out_prompts
from reference_impl.loops.public_data import task_of
from reference_impl.loops.reward import Learner
from reference_impl.models import load_model
from reference_impl.objective import optimal_policy
from reference_impl.reasoning import best_of_n_accuracy
from reference_impl.rewards import load_reward
from reference_impl.runs.plots import save_figure
from reference_impl.runs.progress import console
from reference_impl.runs.run import Run
from reference_impl.settings import RejectionSettings, RewardSettings

NEEDS = ("best_of_n_kl", "expected_max_reward")
NS = (1, 2, 4, 8, 16, 32, 64)
FRONTIER_BETAS = torch.logspace(-1.5, 1.5, 40).tolist()
REWARD_STEPS, REWARD_PROMPTS, REWARD_LR = 150, 400, 2e-3  # of the reward model that is trained on the spot


def measure_best_of_n(functions, settings: RejectionSettings, run: Run) -> dict[str, float]:
    """The table for both rewards, also written to best_of_n.md, and best_of_n.png."""
    require_written(settings.week, settings.impl, NEEDS)
    policy, tokenizer = load_model(settings.policy)
    task = task_of(settings)
    if settings.reward == "verifier":
        scores_of = train_reward_model(policy, tokenizer, task, settings, run).scores
    else:
        scores_of = load_reward(settings.reward).scores
    prompts = held_out_prompts(task, settings.bon_prompts)
    samples = sample_judged(
        policy.eval(), tokenizer, task, prompts, settings.bon_samples, settings.max_new_tokens, EVAL_SEED
    )
    shape = (settings.bon_prompts, settings.bon_samples)
    right, scores = samples.correct.view(shape), one_score_a_text(samples, scores_of(samples)).view(shape)

    rows = [row(n, right, scores, functions) for n in NS]
    page = table_page(rows, settings)
    run.write("best_of_n.md", page)
    console.print(page)
    draw(run.path / "best_of_n.png", rows, frontier(right))
    return {f"{name} n={line['n']:g}": number for line in rows for name, number in line.items() if name != "n"}


def train_reward_model(policy, tokenizer, task, settings: RejectionSettings, run: Run) -> Learner:
    """A small outcome reward model, by week 03's reference, on prompts that are not held out."""
    values = {"week": "03", "algorithm": "orm", "steps": REWARD_STEPS, "lr": REWARD_LR}
    own = checked(RewardSettings, values | {"seed": settings.seed, "max_new_tokens": settings.max_new_tokens})
    objective = ALGORITHMS["orm"].build(load_functions("03", "reference"), own)["orm"]
    prompts = task.prompts("reward", REWARD_PROMPTS, settings.seed)
    data: Judged = sample_judged(
        policy, tokenizer, task, prompts, own.samples_per_prompt, own.max_new_tokens, settings.seed
    )
    learner = Learner(objective, policy, own)
    for tick in run.steps(0, own.steps, "reward model"):
        rows = torch.tensor(batch_indices(tick.step - 1, len(data), own.batch_size, own.seed))
        tick.note(f"loss {learner.update(data, rows):.3f}")
    return learner


def one_score_a_text(samples: Judged, scores: Tensor) -> Tensor:
    """Repeats of a completion are one choice: they share a score to the last bit, whatever their batch was."""
    first: dict[tuple[str, str], float] = {}
    texts = [(prompt.text, text) for prompt, text in zip(samples.prompts, samples.texts, strict=True)]
    return torch.tensor([first.setdefault(text, score) for text, score in zip(texts, scores.tolist(), strict=True)])


def row(n: int, right: Tensor, scores: Tensor, functions) -> dict[str, float]:
    """KL by the formula and as measured under each reward, and the accuracy that each buys."""
    return {
        "n": n,
        "formula": functions.best_of_n_kl(n),
        "KL verifier": measured_kl(right, n),
        "KL reward model": measured_kl(scores, n),
        "accuracy verifier": sum(float(functions.expected_max_reward(prompt, n)) for prompt in right) / len(right),
        "accuracy reward model": float(best_of_n_accuracy(scores, right, n)),
        "score": sum(float(functions.expected_max_reward(prompt, n)) for prompt in scores) / len(scores),
    }


def measured_kl(rewards: Tensor, n: int) -> float:
    """KL(best of n || policy) from the levels of rewards (P, M), mean over prompts."""
    total = 0.0
    for prompt in rewards.double():
        _, counts = prompt.unique(return_counts=True)  # ascending
        p = counts.double() / len(prompt)
        below_or_at = p.cumsum(0)
        q = below_or_at**n - (below_or_at - p).clamp(min=0) ** n
        total += torch.where(q > 0, q * (q / p).log(), 0.0).sum().item()
    return total / len(rewards)


def frontier(right: Tensor) -> list[tuple[float, float]]:
    """(KL, accuracy) of the optimal policies of all betas over the same samples: no policy does better at its KL."""
    ref = torch.full_like(right, 1 / right.shape[1])
    points = []
    for beta in FRONTIER_BETAS:
        probs = optimal_policy(ref, right, beta)
        kl = torch.where(probs > 0, probs * (probs / ref).log(), 0.0).sum(1).mean().item()
        points.append((kl, (probs * right).sum(1).mean().item()))
    return points


def table_page(rows: list[dict[str, float]], settings: RejectionSettings) -> str:
    """Markdown."""
    lines = [
        f"Best of n on {settings.bon_prompts} held-out prompts, from {settings.bon_samples} samples of each",
        "",
        "| n | log n - (n-1)/n | KL, verifier | KL, reward model | accuracy, verifier | accuracy, reward model |",
        "|---|---|---|---|---|---|",
    ]
    keys = ("formula", "KL verifier", "KL reward model", "accuracy verifier", "accuracy reward model")
    lines += [f"| {line['n']:g} | " + " | ".join(f"{line[key]:.3f}" for key in keys) + " |" for line in rows]
    return "\n".join(lines) + "\n"


def draw(target: Path, rows: list[dict[str, float]], best: list[tuple[float, float]]) -> None:
    """best_of_n.png: KL against n on the left; accuracy against KL, below the frontier, on the right."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.8))
    n = [line["n"] for line in rows]
    left.plot(n, [line["formula"] for line in rows], color="black", linewidth=1, label="log n - (n-1)/n")
    left.plot(n, [line["KL reward model"] for line in rows], "o-", label="measured, reward model")
    left.plot(n, [line["KL verifier"] for line in rows], "s-", label="measured, right or wrong")
    left.set_xscale("log", base=2)
    left.set_xlabel("n")
    left.set_ylabel("KL(best of n || policy), nats")
    left.legend(fontsize=8, frameon=False)
    right.plot(*zip(*sorted(best), strict=True), color="black", linewidth=1, label="optimal policies, all beta")
    for reward, marker in (("reward model", "o-"), ("verifier", "s-")):
        kl, accuracy = ([line[f"{what} {reward}"] for line in rows] for what in ("KL", "accuracy"))
        right.plot(kl, accuracy, marker, label=f"best of n by the {reward}")
    right.set_xlabel("KL, nats")
    right.set_ylabel("accuracy")
    right.legend(fontsize=8, frameon=False)
    figure.tight_layout()
    save_figure(figure, target)
