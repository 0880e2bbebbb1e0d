"""The four selections and RLOO on equal samples: accuracies with error bars, and pass@k, as a figure and a table."""

import json
from pathlib import Path

import torch
from torch import Tensor

from reference_impl.config import week_config
from reference_impl.loops.arms import compare_arms
from reference_impl.loops.evaluate import EVAL_SEED, held_out_prompts, rollout, verifier_rewards
from reference_impl.loops.public_data import task_of
from reference_impl.loops.rejection import standard_errors
from reference_impl.models import load_model
from reference_impl.reasoning import pass_at_k
from reference_impl.runs.plots import save_figure
from reference_impl.runs.progress import console
from reference_impl.runs.run import Run
from reference_impl.settings import RejectionSettings

ACCURACIES = ("sampled_accuracy", "greedy_accuracy")


def compare_selections(train, functions, settings: RejectionSettings, run: Run) -> dict[str, float]:
    """Train the week's algorithms from the same start, a run folder each; "<result> <algorithm>" -> number."""
    file = week_config(settings.week)
    arms = {name: {"algorithm": name} | file["algorithm_overrides"].get(name, {}) for name in file["algorithms"]}
    results = compare_arms(arms, train, functions, settings, run)

    folders = {name: next((run.path / "arms").glob(f"*-{name}-*")) for name in arms}
    curves = {"start": pass_curve(settings.policy, settings)}
    curves |= {name: pass_curve(folder, settings) for name, folder in folders.items()}
    before = json.loads((folders[file["algorithms"][0]] / "summary.json").read_text(encoding="utf-8"))["results"]
    results |= {f"{key} start": before[f"{key}_before"] for key in ACCURACIES}
    for name in ("start", *arms):
        own = {key: results[f"{key} {name}"] for key in ACCURACIES}
        results |= {f"{key} {name}": se for key, se in standard_errors(own, settings.final_eval_prompts).items()}
        results |= {f"pass@{k} {name}": rate for k, rate in ends(curves[name]).items()}
    draw(run.path / "compare.png", results, list(arms), curves)
    page = compare_page(results, list(arms), settings)
    run.write("compare.md", page)
    console.print(page)
    return results


def pass_curve(model: str | Path, settings: RejectionSettings) -> dict[int, float]:
    """pass@k for k = 1, 2, 4, ... of a saved policy, on held-out prompts."""
    policy, tokenizer = load_model(model)
    task, generator = task_of(settings), torch.Generator().manual_seed(EVAL_SEED)
    prompts, n = held_out_prompts(task, settings.eval_prompts), settings.pass_samples
    sampled, texts = rollout(policy, tokenizer, prompts, n, settings.max_new_tokens, 1.0, generator)
    right: Tensor = verifier_rewards(task, prompts, texts, sampled.finished).view(-1, n).sum(1)
    powers = [2**i for i in range(n.bit_length()) if 2**i <= n]
    return {k: float(pass_at_k(torch.full_like(right, n).long(), right.long(), k).mean()) for k in powers}


def ends(curve: dict[int, float]) -> dict[int, float]:
    """The first and the last point."""
    return {k: curve[k] for k in (min(curve), max(curve))}


def compare_page(results: dict[str, float], names: list[str], settings: RejectionSettings) -> str:
    """The table in Markdown."""
    n = settings.pass_samples
    lines = [
        f"Held out, {settings.final_eval_prompts} prompts (accuracy ± standard error), from "
        f"{settings.sample_prompts * settings.samples_per_prompt} samples each",
        "",
        f"| | sampled accuracy | greedy accuracy | pass@1 | pass@{n} |",
        "|---|---|---|---|---|",
    ]
    for name in ("start", *names):
        cells = [f"{results[f'{key} {name}']:.3f} ± {results[f'{key}_se {name}']:.3f}" for key in ACCURACIES]
        cells += [f"{results[f'pass@{k} {name}']:.3f}" for k in (1, n)]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def draw(target: Path, results: dict[str, float], names: list[str], curves: dict[str, dict[int, float]]) -> None:
    """compare.png: accuracies with two standard errors on the left, pass@k on the right."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
    for offset, key in ((-0.17, "sampled_accuracy"), (0.17, "greedy_accuracy")):
        heights = [results[f"{key} {name}"] for name in names]
        errors = [2 * results[f"{key}_se {name}"] for name in names]
        places = [number + offset for number in range(len(names))]
        left.bar(places, heights, 0.32, yerr=errors, capsize=3, label=key.replace("_", " "))
    left.axhline(
        results["sampled_accuracy start"], color="black", linewidth=1, linestyle=":", label="sampled, before training"
    )
    left.set_xticks(range(len(names)), names, rotation=20, ha="right", fontsize=8)
    left.set_ylim(0, 1.02)
    left.set_title("held-out accuracy, ± 2 standard errors", fontsize=9)
    left.legend(fontsize=8, loc="lower right")
    for name, curve in curves.items():
        style = {"color": "black", "linestyle": ":"} if name == "start" else {}
        right.plot(list(curve), list(curve.values()), marker=".", label=name, **style)
    right.set_xscale("log", base=2)
    right.set_xlabel("k")
    right.set_title("pass@k", fontsize=9)
    right.legend(fontsize=8, frameon=False)
    figure.tight_layout()
    save_figure(figure, target)
