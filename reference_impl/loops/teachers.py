"""Four ways to learn from equal samples, over several seeds: whose answers, and how much is said about each of them.

    sequence-distillation    a better model's answers, token by token
    on-policy-distillation   one's own answers, the better model's whole distribution at each token
    sdpo                     one's own answers, one's own distribution with a right answer in sight
    rloo                     one's own answers, right or wrong

All start from one student, and seed k draws the same prompts in all four: differences are paired over seeds.
"""

import json
from pathlib import Path

import torch

from reference_impl.algorithms import ALGORITHMS
from reference_impl.config import checked
from reference_impl.implementations import require_written
from reference_impl.loops.arms import run_arm
from reference_impl.loops.distill import load_teacher
from reference_impl.loops.evaluate import evaluate, held_out_prompts
from reference_impl.loops.habits import start_with_habit
from reference_impl.loops.public_data import task_of
from reference_impl.models import save_model
from reference_impl.runs.progress import console
from reference_impl.runs.run import Run, read_metrics
from reference_impl.runs.teachers_plot import plot_teachers
from reference_impl.settings import ResearchSettings

ARMS = {  # each with the step size that was best for it, on prompts of the reward split
    "rloo": {"lr": 3e-4},
    "sdpo": {"lr": 3e-4, "frozen_teacher": True},
    "on-policy-distillation": {"lr": 1e-3},
    "sequence-distillation": {"lr": 1e-3},
}
OTHERS = [arm for arm in ARMS if arm != "rloo"]
DRAWS = 10_000  # bootstrap means behind each interval


def compare_teachers(train, functions, settings: ResearchSettings, run: Run) -> dict[str, float]:
    """Train every arm with every seed; the differences from RLOO with their intervals by the week's `paired_bootstrap`.

    The student is the start policy after it has learned to use a shown answer (SDPO's teacher needs that); the better
    model is the start policy after careful demonstrations. Both are made once.
    """
    needed = [name for arm in ARMS if ALGORITHMS[arm].plugs_in(settings.week) for name in ALGORITHMS[arm].needs]
    require_written(settings.week, settings.impl, [*needed, "paired_bootstrap"])
    task = task_of(settings)
    teacher = load_teacher(settings, task, run)
    student, _, tokenizer = start_with_habit(settings.model_copy(update={"habit": "shown", "seed": 0}), task)
    save_model(student, tokenizer, run.path / "student")
    prompts = held_out_prompts(task, settings.final_eval_prompts)
    knows = evaluate(teacher, tokenizer, task, prompts, settings.max_new_tokens)
    start = str(run.path / "student")
    shared = {"policy": start, "reference": start, "teacher": settings.teacher or str(run.path / "teacher")}
    paths: dict[str, list[Path]] = {arm: [] for arm in ARMS}
    results: dict[str, list[dict[str, float]]] = {arm: [] for arm in ARMS}
    for seed in range(settings.seed, settings.seed + settings.seeds):
        for arm in ARMS:
            changes = shared | ARMS[arm] | {"algorithm": arm, "seed": seed, "habit": None}
            arm_settings = checked(type(settings), settings.model_dump() | changes)
            path, found = run_arm(f"{arm} seed {seed}", arm_settings, train, functions, run)
            paths[arm].append(path)
            results[arm].append(found)
    table = compared(results, functions, settings)
    table["teacher: sampled_accuracy"] = knows["sampled_accuracy"]
    table["teacher: greedy_accuracy"] = knows["greedy_accuracy"]
    run.write("teachers.json", json.dumps(table, indent=1) + "\n")
    page = teachers_page(table, settings)
    run.write("teachers.md", page)
    console.print(page, markup=False)
    curves = {arm: [read_metrics(path) for path in folders] for arm, folders in paths.items()}
    plot_teachers(run.path / "teachers.png", curves, settings.prompts_per_step * settings.group)
    return table


def compared(results: dict[str, list[dict[str, float]]], functions, settings: ResearchSettings) -> dict[str, float]:
    """Means over seeds, and differences from RLOO with their intervals."""
    table = {}
    for metric in ("sampled_accuracy", "greedy_accuracy"):
        values = {arm: torch.tensor([found[metric] for found in found_of]) for arm, found_of in results.items()}
        for arm in ARMS:
            table[f"{arm}: {metric}"] = values[arm].mean().item()
        for arm in OTHERS:
            generator = torch.Generator().manual_seed(settings.seed)
            found = functions.paired_bootstrap(values[arm], values["rloo"], DRAWS, generator)
            for name, number in zip(("minus rloo", "low", "high"), found, strict=True):
                table[f"{arm}: {metric} {name}"] = float(number)
    first = results["rloo"][0]
    table["student: sampled_accuracy"] = first["sampled_accuracy_before"]
    table["student: greedy_accuracy"] = first["greedy_accuracy_before"]
    return table


def teachers_page(table: dict[str, float], settings: ResearchSettings) -> str:
    """teachers.md."""
    samples = settings.steps * settings.prompts_per_step * settings.group
    lines = [f"Held-out accuracy after {samples:,} samples, mean over {settings.seeds} seeds", ""]
    lines += ["| | sampled | minus RLOO, 95% interval | greedy | minus RLOO, 95% interval |", "|---|---|---|---|---|"]
    for who in ("student", "teacher", *ARMS):
        cells = []
        for metric in ("sampled_accuracy", "greedy_accuracy"):
            key = f"{who}: {metric}"
            cells.append(f"{table[key]:.3f}")
            interval = [table.get(f"{key} {name}") for name in ("minus rloo", "low", "high")]
            cells.append("" if None in interval else "{:+.3f} [{:+.3f}, {:+.3f}]".format(*interval))
        lines.append(f"| {who} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
