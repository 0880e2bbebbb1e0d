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
# # Week 06: how far can one go on old samples?
#
# Several optimizer steps on each rollout, and what holds them back. Ask the room for a prediction before each figure.
# As a script: `uv run python weeks/06/demo.py` (figures under `runs/demo-06/`); in JupyterLab it opens as a notebook.

# %%
import math
from pathlib import Path

import torch

from reference_impl.implementations import load_functions
from reference_impl.launch import find_launcher, launch
from reference_impl.options import Options
from reference_impl.runs.figures import pyplot, show
from reference_impl.runs.run import read_metrics

IMPL = "solution"  # whose functions are shown: student, solution, reference, or a member's folder ("../kims-fork")
functions = load_functions("06", IMPL)
plt = pyplot()

# %% [markdown]
# ## 1 The clip, for both signs of A
#
# The surrogate of one token against its ratio $\rho = \pi/\pi_{old}$. *Where is it flat?* Flat means no gradient: this
# token is done. The two other far corners keep their slope, so that harm can be undone.

# %%
ratio = torch.linspace(0.4, 1.8, 281, dtype=torch.float64)
figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True)
for axis, sign in zip(axes, (1.0, -1.0), strict=True):
    loss = []
    for rho in ratio:
        one = torch.ones(1, 1, dtype=torch.float64)
        loss.append(functions.ppo_clip_loss(rho.log() * one, 0 * one, sign * one[0], one).item())
    axis.plot(ratio, [-value for value in loss], label="clipped surrogate")
    axis.plot(ratio, sign * ratio, ":", color="grey", label=r"$\rho A$")
    for edge in (0.8, 1.2):
        axis.axvline(edge, color="lightgrey", linewidth=1)
    axis.set(title=f"A = {sign:+.0f}", xlabel=r"$\rho$")
    axis.legend(frameon=False)
show(figure, "06", "1-clip")
# %% [markdown]
# ## 2 Credit with a critic
#
# Five tokens, reward 1 at the end; the critic hopes, doubts after the third, and is surprised. With $\lambda = 0$ a
# token is praised for what it changed in the critic's mind, with $\lambda = 1$ for everything that came after it.

# %%
values = torch.tensor([[0.5, 0.6, 0.7, 0.2, 0.4]], dtype=torch.float64)
rewards = torch.tensor([[0.0, 0, 0, 0, 1]], dtype=torch.float64)
figure, axis = plt.subplots(figsize=(6, 3))
axis.plot(range(1, 6), values[0], "k--", marker="o", label="critic's value before the token")
for number, lam in enumerate((0.0, 0.5, 0.95, 1.0)):
    advantages, _ = functions.gae(rewards, values, torch.ones_like(values), 1.0, lam)
    axis.bar([t - 0.3 + 0.2 * number for t in range(1, 6)], advantages[0], 0.2, label=rf"A, $\lambda$ = {lam:g}")
axis.axhline(0, color="grey", linewidth=0.5)
axis.set(xlabel="token", xticks=range(1, 6))
axis.legend(frameon=False, fontsize=8)
show(figure, "06", "2-gae")
# %% [markdown]
# ## 3 What the division by the group's std climbs
#
# A prompt is solved with chance p. Averaged over all groups of G = 64, how hard does each rule push p up? Dots: the
# expectation of the plugged-in `grpo_advantages`, enumerated exactly; lines: the theory of the lesson.

# %%
G = 64
chances = torch.linspace(0.02, 0.98, 49, dtype=torch.float64)
solved = torch.arange(G + 1)
groups = (torch.arange(G)[None] < solved[:, None]).double()  # one group for each number of right answers
log_binomial = torch.tensor([math.lgamma(G + 1) - math.lgamma(k + 1) - math.lgamma(G - k + 1) for k in range(G + 1)])
weight = (log_binomial + solved * chances.log()[:, None] + (G - solved) * (1 - chances).log()[:, None]).exp()
figure, axis = plt.subplots(figsize=(6, 3.4))
curves = {"Dr. GRPO": (False, torch.ones_like(chances)), "GRPO": (True, 1 / (chances * (1 - chances)).sqrt())}
for color, (name, (standardised, theory)) in enumerate(curves.items()):
    advantages = functions.grpo_advantages(groups, normalize_std=standardised)
    # E[sum of A over right answers] / (G p (1 - p)): the push on p, in units of the gradient of p
    push = weight @ (advantages * groups).sum(1) / (G * chances * (1 - chances))
    axis.plot(chances, push, ".", color=f"C{color}", label=f"{name}, enumerated")
    axis.plot(chances, theory, color=f"C{color}", linewidth=1)
axis.plot(chances, 1 / chances, color="C2", linewidth=1, label="MaxRL, 1/p")
axis.set(xlabel="p", ylabel="weight of the prompt", ylim=(0, 10))
axis.legend(frameon=False, fontsize=8)
show(figure, "06", "3-what-is-climbed")
# %% [markdown]
# ## 4 Who pays for a long wrong answer?
#
# Two wrong answers of 2 and of 8 tokens, the same advantage. The push on each token under GRPO (mean of each row) and
# Dr. GRPO (one constant for all). *Which of the two policies learns to be wrong at length?*

# %%
mask = (torch.arange(8)[None] < torch.tensor([[2], [8]])).double()
figure, axes = plt.subplots(1, 2, figsize=(9, 2.6), sharey=True)
for axis, aggregate in zip(axes, ("sequence_mean", "constant"), strict=True):
    logprobs = torch.zeros(2, 8, dtype=torch.float64, requires_grad=True)
    wrong = -torch.ones(2, dtype=torch.float64)
    functions.grpo_loss(logprobs, logprobs.detach(), None, wrong, mask, aggregate=aggregate, max_length=8).backward()
    axis.bar([t - 0.2 for t in range(1, 9)], logprobs.grad[0], 0.4, label="short answer")
    axis.bar([t + 0.2 for t in range(1, 9)], logprobs.grad[1], 0.4, label="long answer")
    axis.set(title=f'aggregate="{aggregate}"', xlabel="token")
axes[0].set_ylabel("push down")
axes[0].legend(frameon=False)
show(figure, "06", "4-length")
# %% [markdown]
# ## 5 Take the brakes off
#
# lr 1e-3 and 16 optimizer steps on each rollout, with the clip and without, from the same seed. *Both accuracies?* The
# three-arm run on the length bias takes a little longer: `uv run rlhf train 06 --experiment length-bias`.

# %%
summary = launch(
    find_launcher("06"),
    Options(experiment="no-clip", impl=IMPL, set=("steps=8", "eval_every=2", "eval_prompts=128")),
)

# %%
figure, axes = plt.subplots(1, 3, figsize=(11, 3))
for arm in sorted((Path(summary["path"]) / "arms").iterdir()):
    rows, name = read_metrics(arm), "no clip" if "no-clip" in arm.name else "clip"
    for axis, metric in zip(axes, ("sampled_accuracy", "kl", "ratio_high"), strict=True):
        points = [(row["step"], row[metric]) for row in rows if metric in row]
        axis.plot(*zip(*points, strict=True), marker=".", label=name)
        axis.set(title=metric, xlabel="rollout")
axes[0].legend(frameon=False)
show(figure, "06", "5-no-clip")

# %% [markdown]
# ## Which row would you ship?
#
# Set `IMPL` at the top to a member's folder and run all cells again: the figures are drawn by their functions.
