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
# # Week 09 · Without a reference, without pairs
#
# SimPO and ORPO drop the second model, KTO drops the pairs. Ask the room for a prediction before each figure.
# As a script: `uv run python weeks/09/demo.py` (figures under `runs/demo-09/`); in JupyterLab it opens as a notebook.

# %%
import copy
import math

import torch

from reference_impl import dpo
from reference_impl.algorithms import ALGORITHMS
from reference_impl.config import resolve
from reference_impl.data.pairs import collate_pairs, sample_pairs, split_pairs
from reference_impl.implementations import load_functions
from reference_impl.loops.evaluate import evaluate, held_out_prompts
from reference_impl.loops.preference import pair_logps, pair_metrics
from reference_impl.loops.preference_updates import answer_update, pair_update
from reference_impl.models import load_model
from reference_impl.runs.figures import pyplot, show
from reference_impl.settings import ReferenceFreeSettings
from reference_impl.tasks import get_task

IMPL = "solution"  # whose functions are shown: student, solution, reference, or a member's folder ("../kims-fork")
functions = load_functions("09", IMPL)
plt = pyplot()

# %% [markdown]
# ## 1. How hard does each loss pull on a pair?
#
# One pair with log-ratios +x/2 for the chosen and -x/2 for the rejected answer: x < 0 is a pair that is ranked wrong.
# *Draw the three curves before you see them: which loss works hardest on a hopeless pair, and which gives it up?*

# %%
x = torch.linspace(-20, 20, 161, dtype=torch.float64, requires_grad=True)
zero, BETA = torch.zeros(1, dtype=torch.float64), 0.5


def kto(gap):
    both = torch.stack([gap / 2, -gap / 2])
    return functions.kto_loss(both, torch.zeros(2, dtype=torch.float64), torch.tensor([True, False]), 0.0, beta=BETA)


curves = {
    "DPO": torch.stack([dpo.dpo_loss(gap[None], zero, zero, zero, beta=BETA) for gap in x]),
    "SimPO, 10 tokens each": torch.stack([functions.simpo_loss(gap[None] / 10, zero, 2.0, 0.5) for gap in x]),
    "KTO": torch.stack([kto(gap) for gap in x]),
}
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2))
for name, losses in curves.items():
    (slope,) = torch.autograd.grad(losses.sum(), x)
    left.plot(x.detach(), losses.detach(), label=name)
    right.plot(x.detach(), -slope / (-slope).max(), label=name)
left.set(xlabel="x, gap of log-ratios (nats)", title="loss")
right.set(xlabel="x, gap of log-ratios (nats)", title="pull towards the chosen, the strongest = 1")
right.legend(frameon=False, fontsize=8)
show(figure, "09", "pull")

# %% [markdown]
# ## 2. Odds near one
#
# A confident model's average log-prob is a tiny negative number. *What does the formula give when it is typed in as it
# stands on the board?*

# %%


def as_on_the_board(chosen, rejected):
    odds = [p / (1 - p) for p in (chosen.exp(), rejected.exp())]
    return odds[0].log() - odds[1].log()


print(f"{'average log-prob':>18}{'as on the board':>18}{'plugged in':>14}{'exact':>12}")
for average in (-1e-2, -1e-4, -1e-6, -1e-8):
    chosen, rejected = torch.tensor([average]), torch.tensor([-1.0])
    exact = (average - math.log(-math.expm1(average))) - (-1 - math.log(-math.expm1(-1)))
    numbers = as_on_the_board(chosen, rejected).item(), functions.log_odds_ratio(chosen, rejected).item(), exact
    print(f"{average:>18.0e}{numbers[0]:>18.4f}{numbers[1]:>14.4f}{numbers[2]:>12.4f}")

# %% [markdown]
# ## 3. Four methods, the same pairs
#
# One right and one wrong answer of the base model to each prompt. *Predict: margin, accuracy of what it samples,
# greedy accuracy, length. Which of the four needs a second model in memory?*

# %%
task = get_task()
base, tokenizer = load_model("base")
pairs = sample_pairs(base, tokenizer, task, task.prompts("pref", 500, 0), 8, 2, 28, seed=0)
training, held_out = split_pairs(pairs, 128)
unseen, prompts = collate_pairs(held_out, tokenizer.pad_token_id), held_out_prompts(task, 192)
start = pair_logps(base, unseen, dpo.preference_logps)
STEPS, EVERY = 40, 10


def train(name: str, **changes) -> list[dict]:
    """Held-out numbers every few steps, from the base model and on the same batches for every algorithm."""
    settings = resolve(
        ReferenceFreeSettings, "09", algorithm=name, scale=None, overrides={"impl": IMPL, "steps": STEPS} | changes
    )
    row = ALGORITHMS[name]
    if row.week == "09":
        loss = row.build(functions, settings)
        update = answer_update(loss, tokenizer, settings, anchored=name == "kto")
    else:
        update = pair_update(dpo, row.build(dpo, settings), tokenizer, settings)
    policy = copy.deepcopy(base)
    optimizer = torch.optim.AdamW(policy.parameters(), settings.lr, settings.betas, weight_decay=0.0)
    numbers = []
    for step in range(STEPS + 1):
        if step % EVERY == 0:
            on_pairs = pair_metrics(pair_logps(policy, unseen, dpo.preference_logps), start, unseen)
            numbers.append({"step": step} | on_pairs | evaluate(policy, tokenizer, task, prompts, 28))
        update(step, training, policy, base, optimizer)
    return numbers


PANELS = {
    "eval_margin": "held-out margin",
    "eval_accuracy": "held-out preference accuracy",
    "sampled_accuracy": "accuracy of samples",
    "greedy_accuracy": "greedy accuracy",
    "chosen_logps": "log-prob of chosen",
    "eval_length": "length of samples",
}


def draw(runs: dict[str, list[dict]], name: str) -> None:
    figure, axes = plt.subplots(2, 3, figsize=(11, 5.2))
    for axis, (metric, title) in zip(axes.flat, PANELS.items(), strict=True):
        for label, numbers in runs.items():
            axis.plot([row["step"] for row in numbers], [row[metric] for row in numbers], marker=".", label=label)
        axis.set_title(title, fontsize=9)
    axes.flat[0].legend(frameon=False, fontsize=8)
    figure.tight_layout()
    show(figure, "09", name)


runs = {name: train(name) for name in ("dpo", "simpo", "orpo", "kto")}
draw(runs, "four")

# %% [markdown]
# ## 4. Nothing holds it
#
# SimPO has no reference. Ten times the learning rate and twice the margin, nothing else changed: *does the preference
# accuracy tell you? Does the margin? What would have stopped it?*

# %%
draw({"simpo": runs["simpo"], "simpo, let go": train("simpo", lr=1e-3, gamma_beta_ratio=1.0)}, "let_go")

# %% [markdown]
# ## 5. Pairs, taken apart
#
# KTO on the same answers in pairs, and with nine bad answers to each good one. *What do the weights have to be? Read
# the loss: what is cheapest for a policy that sees nine bad answers in ten?*

# %%
draw(
    {
        "pairs": runs["kto"],
        "9 bad to 1 good": train("kto", bad_per_good=9),
        "the same, good weighs 9": train("kto", bad_per_good=9, desirable_weight=9.0),
    },
    "unpaired",
)
