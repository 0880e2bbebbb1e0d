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
# # Week 11: optimise what you measure, and watch what you meant
#
# Goodhart's law with both rewards on one plot, a teacher's verdict on single tokens, and whether a difference is one.
# Ask the room for a prediction before each figure.
# As a script: `uv run python weeks/11/demo.py` (figures under `runs/demo-11/`); in JupyterLab it opens as a notebook.

# %%
import datetime
import json
import math
from pathlib import Path

import torch

from reference_impl.implementations import ROOT, load_functions
from reference_impl.launch import find_launcher, launch
from reference_impl.loops.distill import by_teacher
from reference_impl.loops.evaluate import held_out_prompts, rollout, verifier_rewards
from reference_impl.loops.habits import teach
from reference_impl.models import load_model
from reference_impl.options import Options
from reference_impl.runs.figures import pyplot, show
from reference_impl.runs.overoptimization_plot import law
from reference_impl.tasks import get_task

IMPL = "solution"  # whose functions are shown: student, solution, reference, or a member's folder ("../kims-fork")
functions = load_functions("11", IMPL)
plt = pyplot()

# %% [markdown]
# ## 1 The proxy: when would you have stopped?
#
# A preference model learned from 64 prompts' right and wrong answers; RL maximises its score. This is all that one
# sees in practice. *Everybody marks a point on the curve.*

# %%
small = ("steps=100", "eval_prompts=256", "final_eval_prompts=256", "bon_prompts=64", "bon_samples=64")
options = Options(impl=IMPL, seed=0, set=small, runs_dir=ROOT / "runs" / "demo-11")
run = Path(launch(find_launcher("11"), options)["path"])
saved = json.loads((run / "overoptimization.json").read_text())
rl, fitted = saved["points"]["rl"], saved["fits"]["rl"]
d = [math.sqrt(point["kl"]) for point in rl]
figure, axis = plt.subplots(figsize=(5.5, 3.2))
axis.plot(d, [point["proxy"] for point in rl], "o-", markersize=3)
axis.set(xlabel="d = sqrt(KL)", title="the score that is maximised")
show(figure, "11", "proxy")

# %% [markdown]
# The verifier knows better. The line is the law $d(\alpha - \beta\log d)$, fitted by the week's function.

# %%
figure, axis = plt.subplots(figsize=(5.5, 3.2))
axis.plot(d, [point["gold"] for point in rl], "o", markersize=3, color="C1")
ticks = [max(d) * i / 100 for i in range(1, 101)]
axis.plot(ticks, [rl[0]["gold"] + law("rl", fitted, tick) for tick in ticks], color="C1", linewidth=1)
axis.axvline(math.exp(fitted["alpha"] / fitted["beta"] - 1), color="grey", linestyle=":", linewidth=0.8)
axis.set(xlabel="d = sqrt(KL)", ylabel="share right", title="what was meant; dotted: where the law says to stop")
show(figure, "11", "gold")
print(f"alpha {fitted['alpha']:.2f}, beta {fitted['beta']:.2f}; the law explains {fitted['r2']:.0%} of the variance")

# %% [markdown]
# ## 2 Two humps and a student that has one
#
# The teacher finds two answers good. The student is a bell over 40 tokens: it can move and widen, no more.
# *Where does it go under forward KL, under reverse KL, between them?*

# %%
tokens = torch.arange(40.0)
teacher = torch.logaddexp(-((tokens - 10) ** 2) / 8 + math.log(0.6), -((tokens - 29) ** 2) / 18 + math.log(0.4))
figure, axis = plt.subplots(figsize=(6.5, 3.2))
axis.fill_between(tokens, teacher.softmax(-1), color="0.85", label="teacher")
for color, jsd_beta in enumerate((0.0, 0.5, 1.0)):
    bell = torch.tensor([17.0, 1.8], requires_grad=True)  # where, and the log of how wide
    optimizer = torch.optim.Adam([bell], lr=0.05)
    for _ in range(800):
        student = -((tokens - bell[0]) ** 2) / (2 * bell[1].exp() ** 2)
        loss = functions.on_policy_distillation_loss(
            student[None, None], teacher[None, None], torch.ones(1, 1), jsd_beta
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    axis.plot(tokens, student.detach().softmax(-1), color=f"C{color}", label=f"jsd_beta = {jsd_beta:g}")
axis.set(xlabel="token", title="0 covers both, 1 commits to one")
axis.legend(fontsize=8, frameon=False)
show(figure, "11", "humps")

# %% [markdown]
# ## 3 The teacher's verdict, token by token
#
# Wrong answers of the base model, read by a better one (the base after 200 updates on careful demonstrations). RL would
# give each of these one number, 0. *At which token does the teacher object?* Watch what comes after it, too.

# %%
task = get_task()
student, tokenizer = load_model("base")
better, _ = load_model("base")
teach(better, tokenizer, task, "careful", seed=0)
prompts = held_out_prompts(task, 40)
sampled, texts = rollout(student.eval(), tokenizer, prompts, 1, 28, 1.0, torch.Generator().manual_seed(0))
rewards = verifier_rewards(task, prompts, texts, sampled.finished)
lesson = by_teacher(better.eval())(student, prompts, texts, sampled, rewards)
with torch.no_grad():
    own = student(input_ids=sampled.input_ids, attention_mask=sampled.attention_mask).logits[:, :-1]
wrong = [row for row in (rewards == 0).nonzero()[:, 0].tolist() if len(texts[row]) > 6][:4]
figure, axes = plt.subplots(2, 2, figsize=(10, 4.6))
for axis, row in zip(axes.flat, wrong, strict=False):
    places = lesson.mask[row].nonzero()[:, 0]
    disagreement = [
        functions.on_policy_distillation_loss(
            own[row, place][None, None], lesson.teacher_logits[row, place][None, None], torch.ones(1, 1)
        ).item()
        for place in places
    ]
    names = [tokenizer.decode([i]) or "end" for i in lesson.tokens[row, places].tolist()]
    axis.bar(range(len(names)), disagreement, color="C3")
    axis.set_xticks(range(len(names)), names, fontsize=8)
    axis.set_title(f"{prompts[row].text}   (answer {prompts[row].answer})", fontsize=9)
figure.supylabel("KL(student || teacher), nats", fontsize=9)
show(figure, "11", "verdict")

# %% [markdown]
# ## 4 Paired and unpaired
#
# Made numbers: five seeds, whose luck both methods share, and a true gain of 0.02. *Does the interval contain 0?*

# %%
generator = torch.Generator().manual_seed(3)
luck = 0.71 + 0.02 * torch.randn(5, generator=generator)
a = luck + 0.02 + 0.005 * torch.randn(5, generator=generator)
b = luck + 0.005 * torch.randn(5, generator=generator)
diff, low, high = functions.paired_bootstrap(a, b, 10_000, torch.Generator().manual_seed(0))
print(f"paired      {diff:+.3f}, 95% interval {low:+.3f} to {high:+.3f}")
half = 1.96 * math.sqrt((a.var() + b.var()).item() / 5)
print(f"as if independent, the same runs  {diff:+.3f}, 95% interval {diff - half:+.3f} to {diff + half:+.3f}")

# %% [markdown]
# ## 5 Your turn
#
# Each member: one question, one prediction, one number that would refute it. `rlhf experiment new "..."` makes the log:

# %%
print(functions.experiment_slug(datetime.date.today(), "Does SDPO help where RLOO does not?"))
