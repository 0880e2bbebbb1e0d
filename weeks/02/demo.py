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
# # Week 02: what is learned from
#
# Which tokens are supervised, how they are averaged, how fast one goes. Ask the room for a prediction before each
# figure. As a script: `uv run python weeks/02/demo.py` (figures under `runs/demo-02/`); in JupyterLab it opens as a
# notebook.

# %%
import random
from pathlib import Path

import torch

from reference_impl.implementations import load_functions
from reference_impl.launch import find_launcher, launch
from reference_impl.models import load_model
from reference_impl.options import Options
from reference_impl.runs.figures import pyplot, show
from reference_impl.runs.run import read_metrics
from reference_impl.tasks import get_task

IMPL = "solution"  # whose functions are shown: student, solution, reference, or a member's folder ("../kims-fork")
functions = load_functions("02", IMPL)
plt = pyplot()
model, tokenizer = load_model("base")
task = get_task("chain_sum")

# %% [markdown]
# ## 1 The label mask
#
# Four demonstrations, collated. Green is supervised, grey is read only, white is padding; `.` is the end token. *Which
# squares are green? How many of them does the last row have, cut at 12 tokens, and what is missing there?*


# %%
def example(prompt, response, max_length=64):
    return functions.build_example(
        tokenizer.encode(prompt), tokenizer.encode(response), tokenizer.eos_token_id, max_length
    )


rng = random.Random(3)
asked = task.prompts("sft", 3, seed=7)
answers = [task.solve(prompt, style, rng) for prompt, style in zip(asked, ("careful", "lazy", "careful"), strict=True)]
examples = [example(prompt.text, answer) for prompt, answer in zip(asked, answers, strict=True)]
examples.append(example(asked[0].text, answers[0], max_length=12))
batch = functions.collate(examples, tokenizer.pad_token_id)
rows, width = batch["input_ids"].shape
figure, axis = plt.subplots(figsize=(0.36 * width + 1, 0.5 * rows + 0.8))
for row in range(rows):
    for column in range(width):
        read = batch["attention_mask"][row, column] == 1
        color = "#8fd18f" if batch["labels"][row, column] != -100 else "#dddddd" if read else "white"
        axis.add_patch(plt.Rectangle((column, rows - 1 - row), 1, 1, facecolor=color, edgecolor="white"))
        token = batch["input_ids"][row, column].item()
        text = "." if token == tokenizer.eos_token_id else tokenizer.decode([token])
        if read:
            axis.text(column + 0.5, rows - 0.5 - row, text, ha="center", va="center", family="monospace")
axis.set(
    xlim=(0, width), ylim=(0, rows), xlabel="position", title="the answer and its end are supervised, the rest is read"
)
axis.set_yticks([rows - 0.5 - row for row in range(rows)], ["careful", "lazy", "careful", "cut at 12"])
axis.tick_params(length=0)
show(figure, "02", "1-mask")

# %% [markdown]
# ## 2 What each token costs
#
# The shipped model reads the same rows. The logits at position t are asked for the token at t + 1: below, the loss of
# each supervised token, from `sft_loss` with all other labels hidden. *Where are the tall bars? What happens to the
# mean if labels and logits are not shifted?*

# %%
with torch.no_grad():
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
figure, axes = plt.subplots(1, 2, figsize=(11, 2.6), sharey=True)
for axis, row, name in zip(axes, (0, 1), ("careful", "lazy: it stops too early"), strict=True):
    places = (batch["labels"][row] != -100).nonzero()[:, 0].tolist()
    costs = []
    for place in places:
        alone = torch.full_like(batch["labels"], -100)
        alone[row, place] = batch["labels"][row, place]
        costs.append(functions.sft_loss(logits, alone).item())
    texts = [tokenizer.decode([i]) or "." for i in batch["input_ids"][row, places].tolist()]
    axis.bar(range(len(places)), costs)
    axis.set_xticks(range(len(places)), texts, family="monospace")
    axis.set(title=f"{name}: {asked[row].text}", xlabel="supervised token")
axes[0].set_ylabel("loss (nats)")
show(figure, "02", "2-costs")
late = torch.cat([batch["labels"][:, :1] * 0 - 100, batch["labels"][:, :-1]], dim=1)
print(f"mean loss {functions.sft_loss(logits, batch['labels']):.2f}", end="; ")
print(f"every logit asked for its own input token, without the shift: {functions.sft_loss(logits, late):.2f}")

# %% [markdown]
# The bars stand where demonstrators differ, to go on or to stop; the arithmetic costs next to nothing.
#
# ## 3 A mean of means
#
# A batch of 32 in micro-batches, by rising length, as a length-sorted loader gives them. The mean of the micro-batches'
# losses weighs every micro-batch alike; the loss of the batch weighs every token alike. *Which answers count too much?*

# %%
corpus = sorted(task.demonstrations(32, seed=1), key=lambda pair: len(pair[1]))
rows_of = [example(prompt.text, answer) for prompt, answer in corpus]
figure, axis = plt.subplots(figsize=(7, 3.2))
for size in (32, 8, 4):
    parts = [functions.collate(rows_of[i : i + size], tokenizer.pad_token_id) for i in range(0, 32, size)]
    counts = [int((part["labels"] != -100).sum()) for part in parts]
    weights = [1 / (len(parts) * count) * sum(counts) for count in counts for _ in range(size)]
    with torch.no_grad():
        outputs = [model(input_ids=p["input_ids"], attention_mask=p["attention_mask"]).logits for p in parts]
    losses = [functions.sft_loss(out, part["labels"]).item() for out, part in zip(outputs, parts, strict=True)]
    mean_of_means = sum(losses) / len(losses)
    label = (
        f"micro-batches of {size}: mean of means {mean_of_means:.3f}" if size < 32 else f"token mean {losses[0]:.3f}"
    )
    axis.step(range(32), weights, where="mid", label=label)
axis.set(xlabel="answers, the shortest first", ylabel="weight of one token", ylim=(0, None))
axis.set_title("a mean of means makes tokens of short answers heavier")
axis.legend(frameon=False)
show(figure, "02", "3-mean-of-means")

# %% [markdown]
# ## 4 The schedule, and what it is for
#
# Warm-up, cosine, a floor. Then 200 steps from random weights at the shipped recipe's peak, with warm-up and without.
# *Draw both losses.* (The whole recipe takes 900 steps: `uv run rlhf train 02`.)

# %%
SMALL = ("demonstrations=12800", "eval_every=200", "eval_prompts=64", "final_eval_prompts=64")
curves = {}
for warmup in (50, 0):
    run = launch(find_launcher("02"), Options(impl=IMPL, steps=200, set=(*SMALL, f"warmup_steps={warmup}")))
    curves[f"{warmup} steps of warm-up"] = [row for row in read_metrics(Path(run["path"])) if "loss" in row]

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.2))
for warmup in (50, 0):
    rates = [functions.lr_at(step, 200, 1.2e-2, warmup, 0.05) for step in range(241)]
    left.plot(rates, label=f"{warmup} steps of warm-up")
for name, logged in curves.items():
    right.plot([row["step"] for row in logged], [row["loss"] for row in logged], marker=".", label=name)
left.axvline(200, color="grey", linestyle=":", linewidth=0.8)
left.set(xlabel="step", ylabel="learning rate", title="up, down, and held after the last step")
right.set(xlabel="step", ylabel="training loss (nats a token)", title="warm-up: slower at first, lower in the end")
left.legend(frameon=False)
show(figure, "02", "4-schedule")

# %% [markdown]
# ## Whose mask was it?
#
# Set `IMPL` at the top to a member's folder and run all cells again: all figures are drawn by their functions.
