# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Week 04: where did it go wrong, and can the judge be trusted?
#
# A model that rates steps beside one that hears the verdict only. Ask the room for a prediction before each figure.
# As a script: `uv run python weeks/04/demo.py` (figures under `runs/demo-04/`); in JupyterLab it opens as a notebook.

# %%
import torch

from reference_impl import reward_model
from reference_impl.algorithms import orm, prm
from reference_impl.config import resolve
from reference_impl.data.steps import step_labels
from reference_impl.implementations import load_functions
from reference_impl.loops.best_of_n import choose_by_each
from reference_impl.loops.process import AGGREGATIONS, model_scores
from reference_impl.loops.reward import Learner, prepare
from reference_impl.runs.figures import pyplot, show
from reference_impl.settings import ProcessSettings

IMPL = "solution"  # whose functions are shown: student, solution, reference, or a member's folder ("../kims-fork")
functions = load_functions("04", IMPL)
plt = pyplot()

# %% [markdown]
# ## 1 What is asked where
#
# Wrong completions of the base model with the task's own ratings: `+` good, `-` the mistake, `0` right in itself but
# carrying a mistake on. The room rates first. Who stops too early made good steps only: the mistake is the *end*.

# %%
SMALL = {"reward_prompts": 600, "final_eval_prompts": 64, "held_out_samples": 32, "steps": 120}
settings = resolve(ProcessSettings, "04", algorithm=None, scale=None, overrides=SMALL)
torch.manual_seed(0)
policy, tokenizer, task, sampled, held_out = prepare(settings)
for data in (sampled, held_out):
    data.labels = step_labels(data, task, tokenizer, functions, label_eos=True)


def rated(row):
    """The completion with a mark behind each rated token."""
    text = ""
    for token, label in zip(held_out.input_ids[row].tolist(), held_out.labels[row].tolist(), strict=True):
        text += "<end>" if token == tokenizer.eos_token_id else tokenizer.decode([token])
        text += {0: "[-] ", 1: "[0] ", 2: "[+] "}.get(label, "")
    return text


carries_on = (held_out.labels == 1).any(1)
for some in ((held_out.correct == 0) & ~carries_on, carries_on):
    for row in some.nonzero()[::37][:3, 0].tolist():
        print(rated(row))

# %% [markdown]
# ## 2 Four ways to make one number of many
#
# Three solutions, one score a step. *Which does each rule choose?*

# %%
steps = torch.tensor([[0.95, 0.60, 0.95, 0.95], [0.80, 0.80, 0.80, 0.80], [0.99, 0.99, 0.99, 0.50]])
mask = torch.ones_like(steps)
print("solution   " + "".join(f"{how:>8}" for how in AGGREGATIONS))
table = torch.stack([functions.aggregate_steps(steps, mask, how) for how in AGGREGATIONS], 1)
for number, row in enumerate(table.tolist(), 1):
    print(f"{number:<11}" + "".join(f"{value:8.3f}" for value in row))
print("chosen     " + "".join(f"{best + 1:8d}" for best in table.argmax(0).tolist()))

# %% [markdown]
# ## 3 Train both on the same completions
#
# And a third: the process model without a label at the end. *Its loss will be the lowest of all. Is it the best?*

# %%
without_end = step_labels(sampled, task, tokenizer, functions, label_eos=False)
learners = {
    "orm": Learner(orm(reward_model, settings)["orm"], policy, settings),
    "prm": Learner(prm(functions, settings)["prm"], policy, settings),
    "prm, end forgotten": Learner(prm(functions, settings)["prm"], policy, settings),
}
labels, losses = sampled.labels, {name: [] for name in learners}
generator = torch.Generator().manual_seed(0)
for _ in range(settings.steps):
    rows = torch.randint(len(sampled), (64,), generator=generator)
    for name, learner in learners.items():
        sampled.labels = without_end if "forgotten" in name else labels
        losses[name].append(learner.update(sampled, rows))
figure, axis = plt.subplots(figsize=(6, 3))
for name, curve in losses.items():
    axis.plot(torch.tensor(curve).unfold(0, 10, 5).mean(1), label=name)
axis.set(title="training loss", xlabel="steps / 5")
axis.legend(frameon=False)
show(figure, "04", "1-loss")

# %% [markdown]
# ## 4 The best of N
#
# Draw each curve on paper before it appears: random, majority, the verifier; then the outcome model, then the process
# model. Nothing is trained here: *choosing harder* is all that happens from left to right.

# %%
full, ends = held_out.labels, step_labels(held_out, task, tokenizer, functions, label_eos=False)
scores = model_scores(list(learners.values())[:1], learners["prm"].logits(held_out), held_out, functions)
held_out.labels = ends
forgot = learners["prm, end forgotten"]
scores["prm, end forgotten"] = forgot.scores(held_out).view(-1, held_out.group)
held_out.labels = full
curves = choose_by_each(scores, held_out, task, functions)

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4))
shown = ("orm", "prm min", "prm, end forgotten", "random", "majority", "verifier")
for number, name in enumerate(shown):
    style = f"C{number}" + ("-" if name in scores else "--")
    points = list(curves[name].values())
    left.errorbar(list(curves[name]), [p.accuracy for p in points], [p.error for p in points], fmt=style, label=name)
    if name in scores:
        right.plot(list(curves[name]), [p.score for p in points], style, marker=".", label=name)
left.set(title="accuracy of the chosen", xlabel="N")
right.set(title="score of the chosen, by whom it was chosen", xlabel="N")
for axis in (left, right):
    axis.set_xscale("log", base=2)
    axis.set_xticks(list(curves["orm"]), list(curves["orm"]))
    axis.legend(frameon=False, fontsize=8)
show(figure, "04", "2-best-of-n")

# %% [markdown]
# The score never falls; the accuracy does. Where it turns, the largest scores begin to belong to the judge's mistakes.
# *Which of the curves would you see in production, where nobody has the verifier?*

# %%
for name in ("orm", "prm min", "prm, end forgotten", "majority"):
    curve = curves[name]
    top, last = max(curve, key=lambda n: curve[n].accuracy), max(curve)
    print(f"{name:<20} best at N = {top:<3} {curve[top].accuracy:.2f}   at N = {last}: {curve[last].accuracy:.2f}")
    print(f"{'':<20} length of the chosen: {curve[1].length:.1f} tokens at N = 1, {curve[last].length:.1f} at {last}")
