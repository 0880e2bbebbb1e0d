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
# # Week 05: one number for a whole answer
#
# The policy gradient is right on average and noisy each time. Ask the room for a prediction before each figure.
# As a script: `uv run python weeks/05/demo.py` (figures under `runs/demo-05/`); in JupyterLab it opens as a notebook.

# %%
from pathlib import Path

import torch

from reference_impl.implementations import load_functions
from reference_impl.launch import find_launcher, launch
from reference_impl.options import Options
from reference_impl.runs.figures import pyplot, show
from reference_impl.runs.run import read_metrics

IMPL = "solution"  # whose functions are shown: student, solution, reference, or a member's folder ("../kims-fork")
functions = load_functions("05", IMPL)
plt = pyplot()

# %% [markdown]
# ## 1 The same mean, another spread
#
# A policy of three answers, one of them right; 16 samples make one estimate of the gradient (here of the right answer's
# logit). The same 1500 batches three times. *Where is the middle of each histogram, and how wide is it?*

# %%
PROBS, REWARDS, B = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64), torch.tensor([1.0, 0, 0]).double(), 16
ONES = torch.ones(B, 1, dtype=torch.float64)
truth = (PROBS[0] * (REWARDS[0] - PROBS @ REWARDS)).item()


def gradient(answers, shift, with_baseline):
    """The gradient of expected reward by logits (3,), as estimated from these answers (B,)."""
    logits = PROBS.log().requires_grad_(True)
    rewards = REWARDS[answers] + shift
    baseline = functions.batch_baseline(rewards) if with_baseline else 0.0
    logprobs = logits.log_softmax(-1)[answers][:, None]
    loss = functions.reinforce_loss(logprobs, rewards, ONES[: len(answers)], baseline=baseline)
    return -torch.autograd.grad(loss, logits)[0]


generator = torch.Generator().manual_seed(0)
batches = [torch.multinomial(PROBS, B, replacement=True, generator=generator) for _ in range(1500)]
figure, axes = plt.subplots(1, 3, figsize=(11, 3), sharex=True, sharey=True)
cases = {"rewards 0 and 1": (0.0, False), "rewards 3 and 4": (3.0, False), "3 and 4, batch baseline": (3.0, True)}
for axis, (name, case) in zip(axes, cases.items(), strict=True):
    found = torch.stack([gradient(answers, *case)[0] for answers in batches])
    axis.hist(found, bins=torch.linspace(-1.2, 1.7, 50), color="C0")
    axis.axvline(truth, color="C3", label=f"truth {truth:.2f}")
    axis.set(title=f"{name}\nmean {found.mean():.2f}, standard deviation {found.std():.2f}")
    axis.set(xlabel="estimated gradient", ylabel="batches" if axis is axes[0] else "")
    axis.legend(frameon=False)
show(figure, "05", "1-same-mean")

# %% [markdown]
# ## 2 Which baseline?
#
# Every constant baseline leaves the mean alone. The variance of a single sample is a parabola in it, summed exactly
# over the three answers. *Is its lowest point at the mean reward?*

# %%
constants = torch.linspace(-1, 2, 61, dtype=torch.float64)
variances = []
for baseline in constants:  # a reward lowered by b is a baseline of b
    each = torch.stack([gradient(torch.tensor([answer]), -baseline, False) for answer in range(3)])
    mean = PROBS @ each
    variances.append((PROBS @ (each - mean).square().sum(1)).item())
best = constants[torch.tensor(variances).argmin()]
figure, axis = plt.subplots(figsize=(5.5, 3.2))
axis.plot(constants, variances)
axis.axvline(PROBS @ REWARDS, color="C1", linestyle="--", label=f"mean reward {PROBS @ REWARDS:.2f}")
axis.axvline(best, color="C2", linestyle=":", label=f"least variance {best:.2f}")
axis.set(xlabel="constant baseline b", ylabel="tr Var of one sample's gradient", ylim=(0, None))
axis.set_title("a good baseline is near the mean reward, the best one is not it", fontsize=9)
axis.legend(frameon=False)
show(figure, "05", "2-baseline")

# %% [markdown]
# ## 3 The same on a language model
#
# Signal-to-noise of whole gradients at the shipped checkpoint, 64 completions each. The shift by 3 changes no optimum.
# *Which bars move when 3 is added to every reward?*

# %%
signal = launch(find_launcher("05"), Options(experiment="snr", impl=IMPL, set=("signal_batches=24",)))["results"]

# %%
names = ("reinforce", "reinforce-baseline", "rloo")
figure, axis = plt.subplots(figsize=(6, 3.2))
for number, (shift, label) in enumerate(((0, "rewards 0 and 1"), (3, "rewards 3 and 4"))):
    heights = [signal[f"snr {name} r+{shift}"] for name in names]
    axis.bar([place + 0.4 * number for place in range(3)], heights, 0.38, label=label)
axis.set_xticks([place + 0.2 for place in range(3)], names)
axis.set(ylabel="|mean|² / variance", title="a shift drowns REINFORCE; a baseline does not notice it")
axis.legend(frameon=False)
show(figure, "05", "3-snr")

# %% [markdown]
# ## 4 Training under the shift
#
# Sixty steps from the same checkpoint, one seed: RLOO on rewards 0 and 1, both on rewards 3 and 4. *Draw the curves.*

# %%
curves = {}
for algorithm, shift in (("rloo", 0), ("rloo", 3), ("reinforce", 3)):
    small = (f"reward_shift={shift}", "eval_every=10", "eval_prompts=256", "final_eval_prompts=256")
    run = launch(find_launcher("05"), Options(algorithm=algorithm, impl=IMPL, steps=60, set=small))
    rows = read_metrics(Path(run["path"]))
    curves[f"{algorithm}, rewards {shift} and {shift + 1}"] = [
        (row["step"], row["sampled_accuracy"]) for row in rows if "sampled_accuracy" in row
    ]

# %%
figure, axis = plt.subplots(figsize=(6, 3.4))
for (name, points), style in zip(curves.items(), ("-", "--", "-"), strict=True):
    axis.plot(*zip(*points, strict=True), style, marker=".", label=name)
axis.set(xlabel="step", ylabel="held-out sampled accuracy", ylim=(0, 1))
axis.set_title("RLOO does not notice the shift, REINFORCE hardly learns")
axis.legend(frameon=False)
show(figure, "05", "4-curves")

# %% [markdown]
# ## 5 One advantage, four ways to spread it
#
# Three right answers of 2, 4 and 8 tokens, advantage 1. How hard each token is pushed up under the four aggregations.
# *In which pictures does a token's push depend on its own answer's length?*

# %%
WAYS = ("sequence_sum", "sequence_mean", "token_mean", "constant")
mask = (torch.arange(8)[None] < torch.tensor([[2], [4], [8]])).double()
figure, axes = plt.subplots(1, 4, figsize=(12, 2.4), sharey=True)
for axis, aggregate in zip(axes, WAYS, strict=True):
    logprobs = torch.zeros(3, 8, dtype=torch.float64, requires_grad=True)
    advantages = torch.ones(3, dtype=torch.float64)
    functions.policy_gradient_loss(logprobs, advantages, mask, aggregate, max_length=8).backward()
    push = -logprobs.grad
    axis.imshow(push, cmap="Blues", vmin=0, vmax=0.4)
    for row, column in mask.nonzero().tolist():
        color = "white" if push[row, column] > 0.2 else "black"
        axis.text(column, row, f"{push[row, column]:.2f}", ha="center", va="center", fontsize=7, color=color)
    axis.set(title=aggregate, xlabel="token", xticks=[], yticks=range(3))
axes[0].set(yticklabels=("2 tokens", "4 tokens", "8 tokens"))
show(figure, "05", "5-aggregate")

# %% [markdown]
# ## Whose gradient was it?
#
# Set `IMPL` at the top to a member's folder and run all cells again: all figures are drawn by their functions.
