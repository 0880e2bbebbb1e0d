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
# # Week 10 · Rejection sampling, and what preferences are
#
# Choose the best of what you have and train on it; and ask whether "best" is a number at all. A prediction before each
# figure. As a script: `uv run python weeks/10/demo.py` (figures under `runs/demo-10/`); it opens as a notebook.

# %%
import copy
from types import SimpleNamespace

import torch

from reference_impl import sft
from reference_impl.algorithms import ALGORITHMS
from reference_impl.config import resolve
from reference_impl.data.annotators import make_pool
from reference_impl.data.judged import sample_judged
from reference_impl.implementations import load_functions
from reference_impl.loops.annotators import SHARES, measure
from reference_impl.loops.bon_kl import frontier, measured_kl
from reference_impl.loops.evaluate import EVAL_SEED, evaluate, held_out_prompts, verifier_rewards
from reference_impl.loops.rejection import about_chosen, example, sample_table
from reference_impl.models import load_model
from reference_impl.runs.figures import pyplot, show
from reference_impl.settings import RejectionSettings
from reference_impl.tasks import get_task

IMPL = "solution"  # whose functions are shown: student, solution, reference, or a member's folder ("../kims-fork")
functions = load_functions("10", IMPL)
controls = load_functions("10", "reference")  # random selections are no exercises
plt = pyplot()

# %% [markdown]
# ## 1. The room ranks three pizzas
#
# Type in how often each beat each. *Is there a cycle? What do the fitted strengths say about it?* Then let one pizza
# never lose, and see what the fit says to that.

# %%
PIZZAS = ["margherita", "funghi", "hawaii"]
WINS = torch.tensor([[0, 9, 4], [3, 0, 8], [8, 4, 0]])  # WINS[i, j]: the room preferred i to j
for pizza, strength in zip(PIZZAS, functions.fit_bradley_terry(WINS).tolist(), strict=True):
    print(f"{pizza:<12}{strength:+.2f}")
print("cycles:", [" > ".join(PIZZAS[i] for i in (*cycle, cycle[0])) for cycle in functions.preference_cycles(WINS)])
undefeated = WINS.clone()
undefeated[:, 0] = 0
try:
    functions.fit_bradley_terry(undefeated)
except Exception as error:
    print("an undefeated margherita:", error)

# %% [markdown]
# ## 2. Nobody contradicts themselves, and the majority does
#
# Answers on a circle of trade-offs; three camps, each with its favourite point. Camps 2 and 3 grow from none of the
# annotators to two thirds. *Predict the number of cycles among 220 triples at both ends (coin flips make 55), and the
# strengths that are fitted when all camps are equally large.*

# %%
generator = torch.Generator().manual_seed(0)
cycles, spreads = [], []
for share in SHARES:
    measured = [measure(make_pool(share, 60, 12, generator), functions) for _ in range(8)]
    cycles.append(sum(m["cycles"] for m in measured) / len(measured))
    spreads.append(sum(m["spread"] for m in measured) / len(measured))
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2))
left.plot(SHARES, cycles, marker="o")
left.axhline(55, color="black", linestyle=":", linewidth=1, label="coin flips")
left.set(xlabel="share of camps 2 and 3", title="cycles, of 220 triples")
left.legend(frameon=False)
right.plot(SHARES, spreads, marker="o", color="C1")
right.set(xlabel="share of camps 2 and 3", title="standard deviation of the fitted strengths", ylim=(0, None))
show(figure, "10", "pool")
pool = make_pool(2 / 3, 60, 12, generator)
print(f"equal camps: kappa within {measure(pool, functions)['kappa_within']:.2f}, ", end="")
print(f"between {measure(pool, functions)['kappa_between']:.2f}")

# %% [markdown]
# ## 3. The price list of best-of-n
#
# Cost by the formula and as measured, with the verifier as the reward; gain against cost, below week 01's frontier.
# *For right-or-wrong rewards, is the formula too high or too low? What can the KL never exceed?*

# %%
task = get_task()
base, tokenizer = load_model("base")
samples = sample_judged(base.eval(), tokenizer, task, held_out_prompts(task, 64), 128, 28, EVAL_SEED)
right_or_wrong = samples.correct.view(64, 128)
ns = [1, 2, 4, 8, 16, 32, 64]
formula = [functions.best_of_n_kl(n) for n in ns]
measured = [measured_kl(right_or_wrong, n) for n in ns]
gain = [sum(float(functions.expected_max_reward(row, n)) for row in right_or_wrong) / 64 for n in ns]
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2))
left.plot(ns, formula, color="black", label="log n - (n-1)/n")
left.plot(ns, measured, "s-", label="measured, right or wrong")
left.set_xscale("log", base=2)
left.set(xlabel="n", title="KL(best of n || policy)")
left.legend(frameon=False)
right.plot(*zip(*sorted(frontier(right_or_wrong)), strict=True), color="black", linewidth=1, label="optimal policies")
right.plot(measured, gain, "s-", label="best of n")
right.set(xlabel="KL, nats", title="accuracy")
right.legend(frameon=False)
show(figure, "10", "best_of_n")

# %% [markdown]
# ## 4. Four selections, equally large
#
# Eight samples of each of 400 prompts, 400 of them kept, then three epochs of fine-tuning. *Order the four. How many
# different prompts are in each?* The bars carry two standard errors; a difference within them is no difference.

# %%
overrides = {"impl": IMPL, "sample_prompts": 400, "steps": 24, "batch_size": 50}
settings = resolve(RejectionSettings, "10", algorithm="top-per-prompt", scale=None, overrides=overrides)


def verdicts(prompts, texts, sampled):
    return verifier_rewards(task, prompts, texts, sampled.finished)


table, rewards = sample_table(base, tokenizer, task, verdicts, settings)
prompts = held_out_prompts(task, 512)


def fine_tune(chosen) -> dict[str, float]:
    """Three epochs on the chosen samples, from the base model."""
    examples = [example(sample, tokenizer.eos_token_id, settings.max_length) for sample in chosen]
    policy, size = copy.deepcopy(base), settings.batch_size
    order = [torch.randperm(len(examples), generator=torch.Generator().manual_seed(epoch)) for epoch in range(3)]
    rows = [epoch[first : first + size] for epoch in order for first in range(0, len(examples), size)]
    batches = ([sft.collate([examples[i] for i in batch], tokenizer.pad_token_id)] for batch in rows)
    sft.sft_loop(policy, batches, torch.optim.AdamW(policy.parameters(), settings.lr, weight_decay=0.0))
    return evaluate(policy, tokenizer, task, prompts, settings.max_new_tokens)


results = {"start": evaluate(base, tokenizer, task, prompts, settings.max_new_tokens)}
print(f"{'':<20}{'kept reward':>12}{'prompts':>9}{'distinct':>10}{'sampled':>9}{'greedy':>8}")
for name in ("top-per-prompt", "random-per-prompt", "top-k-overall", "random-k-overall"):
    row = ALGORITHMS[name]
    select = row.build(functions if row.needs else controls, SimpleNamespace(keep=1, seed=0))
    chosen = [table[p][i] for p, i in select(rewards).tolist()]
    results[name], about = fine_tune(chosen), about_chosen(chosen)
    print(f"{name:<20}{about['chosen_reward']:>12.2f}{about['chosen_prompts']:>9.0f}", end="")
    print(f"{about['chosen_distinct']:>10.0f}{results[name]['sampled_accuracy']:>9.3f}", end="")
    print(f"{results[name]['greedy_accuracy']:>8.3f}")
figure, axis = plt.subplots(figsize=(8, 3.4))
for offset, metric in ((-0.17, "sampled_accuracy"), (0.17, "greedy_accuracy")):
    heights = [result[metric] for result in results.values()]
    errors = [2 * (height * (1 - height) / len(prompts)) ** 0.5 for height in heights]
    axis.bar([i + offset for i in range(len(heights))], heights, 0.32, yerr=errors, capsize=3, label=metric)
axis.set_xticks(range(len(results)), results)
axis.set(ylim=(0, 1.02), title="held-out accuracy, ± 2 standard errors")
axis.legend(frameon=False, loc="lower right", fontsize=8)
show(figure, "10", "selections")
