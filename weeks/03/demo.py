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
# # Week 03 · Reward models
#
# A number for an answer, out of comparisons and out of verdicts. Ask the room for a prediction before each figure.
# As a script: `uv run python weeks/03/demo.py` (figures under `runs/demo-03/`); in JupyterLab it opens as a notebook.

# %%
import torch

from reference_impl.algorithms import reward_models
from reference_impl.config import resolve
from reference_impl.data.judged import all_pairs, some_pairs, with_twins
from reference_impl.implementations import load_functions
from reference_impl.loops.outcome import wrong_completions
from reference_impl.loops.ranking import auc, reliability
from reference_impl.loops.reward import LABELS, Learner, prepare
from reference_impl.runs.figures import pyplot, show
from reference_impl.settings import RewardSettings

IMPL = "solution"  # whose functions are shown: student, solution, reference, or a member's folder ("../kims-fork")
functions = load_functions("03", IMPL)
plt = pyplot()

# %% [markdown]
# ## 1. The room votes
#
# Five answers, a few duels. Type your own votes: `(winner, loser)`. The strengths that make the votes likeliest are
# found by gradient descent on the week's loss, and nothing else.

# %%
ANSWERS = ["A", "B", "C", "D", "E"]
VOTES = [("A", "B"), ("A", "C"), ("B", "C"), ("C", "B"), ("A", "D"), ("D", "C"), ("B", "E"), ("E", "D"), ("C", "A")]
winners, losers = (torch.tensor([ANSWERS.index(vote[side]) for vote in VOTES]) for side in (0, 1))
rewards = torch.zeros(len(ANSWERS), requires_grad=True)
optimizer = torch.optim.SGD([rewards], lr=1.0)
for _ in range(300):
    optimizer.zero_grad()
    functions.bradley_terry_loss(rewards[winners], rewards[losers]).backward()
    optimizer.step()
for name, reward in sorted(zip(ANSWERS, rewards.tolist(), strict=True), key=lambda pair: -pair[1]):
    print(f"{name}  {reward:+.2f}")

# %% [markdown]
# ## 2. The loss and its pull
#
# The pull on a pair is the probability that the model gives to the wrong outcome. And only differences count: add 100
# to both rewards of a pair, and nothing happens. A preference model's scores compare answers, not prompts.

# %%
difference = torch.linspace(-6, 6, 121, requires_grad=True)
losses = torch.stack([functions.bradley_terry_loss(d[None], torch.zeros(1)) for d in difference])
(pull,) = torch.autograd.grad(losses.sum(), difference)
figure, axis = plt.subplots(figsize=(5, 3))
axis.plot(difference.detach(), losses.detach(), label="loss")
axis.plot(difference.detach(), -pull, label="pull towards the chosen")
axis.set(xlabel="chosen - rejected")
axis.legend(frameon=False)
show(figure, "03", "loss")
chosen, rejected = torch.tensor([2.0, 0.0]), torch.tensor([1.0, 1.0])
shift = torch.tensor([100.0, 0.0])
print("loss", functions.bradley_terry_loss(chosen, rejected).item())
print("one prompt's rewards + 100:", functions.bradley_terry_loss(chosen + shift, rejected + shift).item())

# %% [markdown]
# ## 3. Two models on the same completions
#
# The base model answers, the verifier judges. The preference model sees right beside wrong; the outcome model is asked
# at every token whether this will turn out right. *Which learns faster? Which can be compared across prompts?*

# %%
SMALL = {"reward_prompts": 300, "final_eval_prompts": 64, "held_out_samples": 8, "steps": 80}
settings = resolve(RewardSettings, "03", algorithm=None, scale=None, overrides=SMALL | {"impl": IMPL})
torch.manual_seed(0)
policy, tokenizer, task, sampled, held_out = prepare(settings)
pairs, unseen = some_pairs(sampled, 4, seed=0), all_pairs(held_out)


def train(data, pairs):
    """Both models on `data`; their held-out pair accuracy while they learn."""
    learners = [Learner(objective, policy, settings) for objective in reward_models(functions, settings).values()]
    generator, curves = torch.Generator().manual_seed(0), {learner.name: [] for learner in learners}
    for step in range(settings.steps + 1):
        for learner in learners:
            if step % 10 == 0:
                scores = learner.scores(held_out)
                curves[learner.name].append((step, float(functions.pairwise_accuracy(*scores[unseen.T]))))
            index = pairs if learner.objective.paired else torch.arange(len(data))
            learner.update(data, index[torch.randint(len(index), (64,), generator=generator)])
    return {learner.name: learner for learner in learners}, curves


learners, curves = train(sampled, pairs)
scores = {name: learner.scores(held_out) for name, learner in learners.items()}
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4))
for name, curve in curves.items():
    left.plot(*zip(*curve, strict=True), marker=".", label=LABELS[name])
    print(f"{LABELS[name]}: pair accuracy {curve[-1][1]:.3f}, AUC {auc(scores[name], held_out.correct):.3f}")
left.set(xlabel="step", title="held-out pair accuracy")
left.legend(frameon=False)
said, was, count = zip(*reliability(scores["orm"], held_out.correct), strict=True)
right.plot([0, 1], [0, 1], color="grey", linestyle=":")
right.scatter(said, was, s=count, color="C1", alpha=0.6)
right.set(xlabel="probability that the outcome model gives", ylabel="share that was right", title="is 0.8 really 0.8?")
show(figure, "03", "two_models")

# %% [markdown]
# ## 4. Along a wrong answer
#
# The outcome model's probability after every token. *The room guesses the step where it drops before the figure is
# shown.* The model never heard of steps.

# %%
titles, tokens, along = wrong_completions(learners["orm"], held_out, tokenizer)
figure, axes = plt.subplots(1, 3, figsize=(12, 2.6))
for axis, title, text, values in zip(axes, titles, tokens, along, strict=False):
    axis.step(range(len(values)), values, where="mid", color="C1")
    axis.set(ylim=(0, 1), title=title)
    axis.set_xticks(range(len(text)), text, fontsize=8)
show(figure, "03", "along")

# %% [markdown]
# ## 5. The leak
#
# Cheaper negatives: take right answers and change a digit. The model trained on these knows its own kind of wrong, and
# little of what a solver gets wrong; and the other way round. *Fill in the table before you run the cell.*

# %%
twins, twin_pairs = with_twins(held_out, tokenizer, task, seed=1)
edited, edited_pairs = with_twins(sampled, tokenizer, task, seed=0)
by_template, _ = train(edited, edited_pairs)
print(f"{'trained on':<24}{'real pairs':>12}{'one digit changed':>20}")
for label, trained in (("the solver's mistakes", learners["bt"]), ("one digit changed", by_template["bt"])):
    real = float(functions.pairwise_accuracy(*trained.scores(held_out)[unseen.T]))
    changed = float(functions.pairwise_accuracy(*trained.scores(twins)[twin_pairs.T]))
    print(f"{label:<24}{real:>12.3f}{changed:>20.3f}")
lengths = held_out.completion_mask.sum(1).float()
print(f"{'the length alone':<24}{float(functions.pairwise_accuracy(*lengths[unseen.T])):>12.3f}{0.5:>20.3f}")
