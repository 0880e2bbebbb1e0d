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
# # Week 07: is it right, and what do n samples buy?
#
# First the verifier, then the estimators, then RL on a base that mixes answering at once with writing the steps.
# As a script: `uv run python weeks/07/demo.py` (figures under `runs/demo-07/`); in JupyterLab it opens as a notebook.

# %%
import json
from itertools import combinations
from pathlib import Path

import torch

from reference_impl.implementations import load_functions
from reference_impl.launch import find_launcher, launch
from reference_impl.options import Options
from reference_impl.runs.figures import pyplot, show
from reference_impl.runs.run import read_metrics

IMPL = "solution"  # whose functions are shown: student, solution, reference, or a member's folder ("../kims-fork")
functions = load_functions("07", IMPL)
plt = pyplot()

# %% [markdown]
# ## 1 Ten strings, one target
#
# *Right or wrong?* The room votes, then the verifier answers. What would a policy in training do with each mistake?

# %%
TARGET = "1/2"
TEXTS = (
    r"so it is <answer>0.5</answer>",
    r"<answer>50\%</answer>",
    r"\boxed{\frac{1}{2}}",
    r"<answer>\boxed{\dfrac12}</answer>",
    "<answer>.500</answer> no wait, <answer>1",
    "<answer>2</answer> no: <answer> 1/2 </answer>",
    "<answer>1 1/2</answer>",
    "<answer>0.4999999999999999999</answer>",
    "the answer is 1/2",
    "<answer>1/2 or 3</answer>",
)
for text in TEXTS:
    reward = functions.verifiable_reward(text, TARGET)
    print(f"{reward:4.1f}   {text:48s} read as {functions.extract_answer(text)!r}")

# %% [markdown]
# ## 2 pass@k, by counting
#
# Four samples, one right. Of the six pairs, how many hold it? The obvious formula $1 - (1 - c/n)^k$ draws *with*
# replacement and comes out too low, for every k above 1.

# %%
right = (True, False, False, False)
print(
    "pass@2 by counting:",
    sum(any(pair) for pair in combinations(right, 2)) / 6,
    " yours:",
    functions.pass_at_k(4, 1, 2),
)
sizes = range(1, 17)
figure, axis = plt.subplots(figsize=(5.5, 3.2))
for color, c in enumerate((1, 4)):
    axis.plot(
        sizes, [functions.pass_at_k(16, c, k) for k in sizes], "o-", color=f"C{color}", label=f"unbiased, c = {c}"
    )
    axis.plot(sizes, [1 - (1 - c / 16) ** k for k in sizes], "--", color=f"C{color}", label="1 - (1 - c/n)^k")
axis.set(xlabel="k, of n = 16 samples", ylabel="pass@k")
axis.legend(frameon=False, fontsize=8)
show(figure, "07", "1-pass-at-k")
# %% [markdown]
# ## 3 Where voting levels off
#
# A prompt whose right answer comes up with chance 0.4, beside one wrong answer of chance 0.5, or beside five of 0.12.
# pass@n goes to 1 for both. *Where does the majority go?*

# %%
generator = torch.Generator().manual_seed(0)
figure, axis = plt.subplots(figsize=(5.5, 3.2))
worlds = {"one rival of 0.5": [0.4, 0.5, 0.1], "five rivals of 0.12": [0.4] + 5 * [0.12]}
for color, (name, chances) in enumerate(worlds.items()):
    accuracy = []
    for n in (1, 2, 4, 8, 16, 32, 64):
        draws = torch.multinomial(torch.tensor(chances), 200 * n, replacement=True, generator=generator).view(200, n)
        votes = [functions.majority_vote([str(answer) for answer in row]) for row in draws.tolist()]
        accuracy.append(sum(vote == "0" for vote in votes) / 200)
    axis.plot((1, 2, 4, 8, 16, 32, 64), accuracy, marker=".", color=f"C{color}", label=name)
axis.set(xscale="log", xlabel="votes", ylabel="majority is right", ylim=(0, 1.02))
axis.legend(frameon=False)
show(figure, "07", "2-majority")
# %% [markdown]
# ## 4 Nano R1-Zero
#
# The base answers at once half of the time, and hardly ever right. The reward asks for right answers, not for steps.
# *Predict: accuracy, mean length, pass@64, before and after.* (Half a minute on one core.)

# %%
small = ("steps=100", "scaling_prompts=96", "final_eval_prompts=512", "eval_prompts=128")
summary = launch(find_launcher("07"), Options(experiment="r1-zero", impl=IMPL, set=small))
folder = Path(summary["path"])
print((folder / "scaling.md").read_text())

# %%
rows = [row for row in read_metrics(folder) if "reward_mean" in row]
figure, (reward, length) = plt.subplots(1, 2, figsize=(9, 3))
for axis, metric in ((reward, "reward_mean"), (length, "response_length")):
    windows = [rows[i : i + 5] for i in range(0, len(rows), 5)]
    axis.plot(
        [part[-1]["step"] for part in windows], [sum(row[metric] for row in part) / len(part) for part in windows]
    )
    axis.set(title=metric, xlabel="step")
show(figure, "07", "3-r1-zero")
# %% [markdown]
# ## 5 Sharpening or learning?
#
# Dashed before, solid after. One sample of the trained model is worth many of the base. At n = 64 the curves meet: RL
# moved probability to where one sample finds it.

# %%
measured = json.loads((folder / "scaling.json").read_text())
figure, (samples, budget) = plt.subplots(1, 2, figsize=(10, 3.4))
for name, style in (("before", "--"), ("after", "-")):
    for color, (rule, curve) in enumerate(measured[name]["accuracy"].items()):
        samples.plot([int(n) for n in curve], curve.values(), style, color=f"C{color}", label=f"{rule}, {name}")
    curve = measured[name]["budget"]
    budget.plot([int(tokens) for tokens in curve], curve.values(), style, color="C3", label=name)
samples.set(xscale="log", xlabel="n", title="accuracy from n samples", ylim=(0, 1.02))
budget.set(xlabel="tokens", title="right and ended within the budget", ylim=(0, 1.02))
for axis in (samples, budget):
    axis.legend(frameon=False, fontsize=7)
show(figure, "07", "4-scaling")

# %% [markdown]
# ## What is the general lesson for rewards made of code?
#
# Set `IMPL` at the top to a member's folder and run all cells again. Then make a verifier that accepts any text which
# *contains* the target, train with it, and read the samples.
