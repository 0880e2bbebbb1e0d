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
# # Week 08: preferences without a reward model
#
# Three losses of one number, and what they do to the probabilities behind it. Ask the room for a prediction before each
# figure. As a script: `uv run python weeks/08/demo.py` (figures under `runs/demo-08/`); in JupyterLab it opens as a
# notebook.

# %%
from pathlib import Path

import torch

from reference_impl.implementations import load_functions
from reference_impl.launch import find_launcher, launch
from reference_impl.options import Options
from reference_impl.runs.figures import pyplot, show
from reference_impl.runs.run import read_metrics

IMPL = "solution"  # whose functions are shown: student, solution, reference, or a member's folder ("../kims-fork")
functions = load_functions("08", IMPL)
plt = pyplot()

# %% [markdown]
# ## 1 Three losses of one number
#
# $\Delta$ is how much further than the reference the policy prefers the chosen answer. Below, the pull: what gradient
# descent does to $\Delta$. *Which loss never stops pulling, which turns around, and where?* (IPO's β is chosen so that
# its target lies in the picture.)

# %%
LOSSES = {
    "DPO": lambda *logps: functions.dpo_loss(*logps, beta=0.5),
    "cDPO, ε = 0.1": lambda *logps: functions.dpo_loss(*logps, beta=0.5, label_smoothing=0.1),
    "IPO": lambda *logps: functions.ipo_loss(*logps, beta=0.125),
}
deltas, zero = torch.linspace(-6, 12, 181, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4))
for name, loss_fn in LOSSES.items():
    losses, pulls = [], []
    for delta in deltas:
        chosen = delta[None].clone().requires_grad_(True)  # the three other log-probs are 0
        loss = loss_fn(chosen, zero, zero, zero)
        losses.append(loss.item())
        pulls.append(-torch.autograd.grad(loss, chosen)[0].item())
    scale = 1 / max(map(abs, losses)) if name == "IPO" else 1 / losses[0]
    left.plot(deltas, [loss * scale for loss in losses], label=name)
    right.plot(deltas, [pull / pulls[0] for pull in pulls], label=name)
    turn = [delta.item() for delta, pull in zip(deltas, pulls, strict=True) if pull <= 0]
    print(f"{name}: " + (f"stops pulling at Δ = {turn[0]:.1f}" if turn else "pulls everywhere"))
left.set(xlabel="Δ", ylabel="loss, 1 at its highest", title="DPO only falls; the two others have a lowest point")
right.axhline(0, color="grey", linewidth=0.8)
right.set(xlabel="Δ", ylabel="pull, 1 at the left edge", title="below 0: the margin is pulled back")
left.legend(frameon=False)
show(figure, "08", "1-losses")

# %% [markdown]
# ## 2 The loss sees a difference only
#
# Every point is a policy: how far chosen and rejected have moved from the reference. Along a dotted line the loss is
# the same. *An arrow is one step of gradient descent: why do all of them point the same way? And which points of the
# dark corner would you not call an improvement?*

# %%
moves = torch.linspace(-4, 4, 9, dtype=torch.float64)
up, down = torch.meshgrid(moves, moves, indexing="xy")
chosen, rejected = up.flatten().requires_grad_(True), down.flatten().requires_grad_(True)
nothing = torch.zeros_like(chosen).detach()
pull = torch.autograd.grad(functions.dpo_loss(chosen, rejected, nothing, nothing, beta=0.5), (chosen, rejected))
fine = torch.linspace(-4.5, 4.5, 46, dtype=torch.float64)
height = torch.stack(
    [torch.stack([functions.dpo_loss(c[None], r[None], zero, zero, beta=0.5) for c in fine]) for r in fine]
)
figure, axis = plt.subplots(figsize=(5.4, 4.6))
figure.colorbar(axis.contourf(fine, fine, height, levels=12, cmap="Blues_r"), label="DPO loss")
axis.contour(fine, fine, height, levels=12, colors="white", linestyles=":", linewidths=0.8)
axis.quiver(up, down, *(-part.view(9, 9) for part in pull), color="C3", width=0.005)
axis.axvline(0, color="black", linewidth=0.8)
axis.text(-1.7, -4.35, "both less likely,\nand the loss is low", fontsize=8, color="white", ha="center")
axis.set(xlabel="log-ratio of the chosen answer", ylabel="log-ratio of the rejected answer")
axis.set_title("left of the line the chosen answer has lost", fontsize=10)
show(figure, "08", "2-difference")

# %% [markdown]
# ## 3 Where does the probability go?
#
# The three losses on the same pairs, which the shipped model sampled and the verifier labelled; then DPO with a weak β
# and a large learning rate. *Draw log-probs of chosen and rejected over training, and the accuracy, for each.*

# %%
SMALL = ("pair_prompts=500", "held_out_pairs=96", "eval_every=10", "eval_prompts=256", "final_eval_prompts=256")
RUNS = {
    "DPO": ("dpo", ()),
    "cDPO": ("cdpo", ()),
    "IPO": ("ipo", ()),
    "DPO, β = 0.03, lr 1e-3": ("dpo", ("beta=0.03", "lr=1e-3")),
}
curves = {}
for name, (algorithm, changes) in RUNS.items():
    run = launch(find_launcher("08"), Options(algorithm=algorithm, impl=IMPL, steps=50, set=SMALL + changes))
    curves[name] = [row for row in read_metrics(Path(run["path"])) if "chosen_logps" in row]

# %%
figure, axes = plt.subplots(1, 4, figsize=(13, 3), sharey=True)
for axis, (name, rows) in zip(axes, curves.items(), strict=True):
    steps = [row["step"] for row in rows]
    for side, color in (("chosen", "C0"), ("rejected", "C3")):
        axis.plot(steps, [row[f"{side}_logps"] - rows[0][f"{side}_logps"] for row in rows], color=color, label=side)
    axis.axhline(0, color="grey", linewidth=0.8, linestyle=":")
    axis.set(title=name, xlabel="step")
axes[0].set_ylabel("change of the log-prob (nats)")
axes[0].legend(frameon=False)
show(figure, "08", "3-displacement")

# %% [markdown]
# Where two answers share tokens, what pushes one down takes the other along, and nothing in the loss asks for the
# chosen one to become likelier. With large steps on a weak leash both fall: likelihood displacement. *Which curve of
# which panel would you put on a dashboard?*
#
# ## 4 Margin is not quality
#
# The same four runs: the margin that the loss asked for, and what the verifier says of fresh samples. *Order the four
# by margin, then by accuracy, before you look.*

# %%
figure, axes = plt.subplots(1, 3, figsize=(12, 3.2))
titles = {
    "eval_margin": "held-out margin Δ (nats)",
    "eval_accuracy": "held-out pairs ranked right",
    "sampled_accuracy": "held-out sampled accuracy",
}
for axis, (metric, title) in zip(axes, titles.items(), strict=True):
    for name, rows in curves.items():
        axis.plot([row["step"] for row in rows], [row[metric] for row in rows], marker=".", label=name)
    axis.set(title=title, xlabel="step")
axes[0].legend(frameon=False, fontsize=8)
show(figure, "08", "4-margin")
print(f"{'':<26}{'margin':>8}{'sampled':>10}{'greedy':>10}{'chosen':>10}{'rejected':>10}")
for name, rows in curves.items():
    first, last = rows[0], rows[-1]
    moved = [last[f"{side}_logps"] - first[f"{side}_logps"] for side in ("chosen", "rejected")]
    accuracies = [f"{last[metric]:>10.3f}" for metric in ("sampled_accuracy", "greedy_accuracy")]
    print(f"{name:<26}{last['eval_margin']:>8.1f}" + "".join(accuracies) + "".join(f"{m:>+10.2f}" for m in moved))

# %% [markdown]
# ## Whose loss was it?
#
# Set `IMPL` at the top to a member's folder and run all cells again: all figures are drawn by their functions.
