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
# # Week 01: how far, and what for
#
# Distance from the reference, three ways to measure it from samples, and what it buys. Ask the room for a prediction
# before each figure. As a script: `uv run python weeks/01/demo.py` (figures under `runs/demo-01/`); in JupyterLab it
# opens as a notebook.

# %%
import torch

from reference_impl.config import resolve
from reference_impl.implementations import load_functions
from reference_impl.loops.objective import Tables, climb, closed_form, make_world, table_logprobs
from reference_impl.runs.figures import pyplot, show
from reference_impl.settings import ObjectiveSettings

IMPL = "solution"  # whose functions are shown: student, solution, reference, or a member's folder ("../kims-fork")
functions = load_functions("01", IMPL)
plt = pyplot()

# %% [markdown]
# ## 1 Three rulers
#
# A policy over 50 tokens walks away from its reference. Mean and standard deviation of each estimator, summed exactly
# over the tokens. Dashed: `kl_estimates` with its two arguments swapped. *Which is right at 0.01 nats? At 2? At which
# distance would you notice the swap?*

# %%
generator = torch.Generator().manual_seed(0)
ref_logits, elsewhere = torch.randn(2, 50, generator=generator, dtype=torch.float64)
direction = elsewhere - ref_logits
ref = table_logprobs(ref_logits, functions)


def exact(policy):
    """KL(policy || ref), and (mean, standard deviation) under the policy of k1, k2, k3 and of the swapped k3."""
    rulers = [*functions.kl_estimates(policy[:, None], ref[:, None])]
    rulers.append(functions.kl_estimates(ref[:, None], policy[:, None])[2])
    probs = policy.exp()
    means = [(probs @ ruler).item() for ruler in rulers]
    spreads = [(probs @ (ruler - mean).square()).sqrt().item() for ruler, mean in zip(rulers, means, strict=True)]
    return (probs @ (policy - ref)).item(), list(zip(means, spreads, strict=True))


walk = [exact(table_logprobs(ref_logits + far * direction, functions)) for far in torch.logspace(-1.5, 0.4, 40)]
distance = [kl for kl, _ in walk]
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), sharex=True)
for number, name in enumerate(("k1", "k2", "k3", "k3, swapped")):
    style = f"C{number}" + ("--" if number > 2 else "-")
    left.plot(distance, [rulers[number][0] / kl for kl, rulers in walk], style, label=name)
    right.plot(distance, [rulers[number][1] / kl for kl, rulers in walk], style, label=name)
left.set(xscale="log", xlabel="KL (nats)", ylabel="mean / KL", ylim=(0, 4), title="k1 and k3 are right everywhere")
right.set(xscale="log", yscale="log", xlabel="KL (nats)", ylabel="standard deviation / KL")
right.set_title("near the reference k3 is the quiet one")
left.legend(frameon=False)
show(figure, "01", "1-rulers")

# %% [markdown]
# ## 2 A hundred samples
#
# The same as a room would see it: 100 tokens are one estimate, 2000 times. Near the reference and far from it. *Which
# histogram has a part below zero, though no distance is? Which has its bulk beside the truth?*

# %%
figure, axes = plt.subplots(1, 2, figsize=(10, 3.2))
titles = ("near: k1 is below 0 at times", "far: k2 is beside it, k3 waits for rare tokens")
for axis, far, title in zip(axes, (0.1, 2.0), titles, strict=True):
    policy = table_logprobs(ref_logits + far * direction, functions)
    kl = exact(policy)[0]
    tokens = torch.multinomial(policy.exp(), 2000 * 100, replacement=True, generator=generator).view(2000, 100)
    for name, ruler in zip(("k1", "k2", "k3"), functions.kl_estimates(policy[tokens], ref[tokens]), strict=True):
        rooms = ruler.mean(1)
        label = f"{name}: {rooms.mean():.3f} ± {rooms.std():.3f}"
        axis.hist(rooms, bins=torch.linspace(-2 * kl, 4 * kl, 120), histtype="step", label=label)
    axis.axvline(kl, color="black", linestyle=":", label=f"KL: {kl:.3f}")
    axis.set(xlabel="mean of 100 tokens", ylabel="estimates", title=title)
    axis.legend(frameon=False, fontsize=8)
show(figure, "01", "2-samples")

# %% [markdown]
# ## 3 A right value is not a right gradient
#
# Each estimator as a loss: 512 tokens of the current policy, the mean, one step downhill, 300 times. All three start at
# the same distance. *Which arrives? Which does not move, although its mean is exactly the KL?*

# %%
start = ref_logits + 1.0 * direction


def expected_gradient(which):
    """The gradient of ruler `which` (0, 1, 2) as a loss, averaged exactly over tokens of the policy."""
    logits = start.clone().requires_grad_(True)
    policy = table_logprobs(logits, functions)
    ruler = functions.kl_estimates(policy[:, None], ref[:, None])[which][:, 0]
    return torch.autograd.grad(policy.detach().exp() @ ruler, logits)[0]


logits = start.clone().requires_grad_(True)
policy = table_logprobs(logits, functions)
(wanted,) = torch.autograd.grad(policy.exp() @ (policy - ref), logits)
figure, axis = plt.subplots(figsize=(6, 3.4))
for which, name in enumerate(("k1", "k2", "k3")):
    pull = expected_gradient(which)
    if pull.norm() > 1e-9:
        cosine = torch.cosine_similarity(pull, wanted, dim=0).item()
        print(f"{name} as a loss: cosine with the gradient of the KL {cosine:.3f}, length / its length ", end="")
        print(f"{(pull.norm() / wanted.norm()).item():.2f}")
    else:
        print(f"{name} as a loss: expected gradient 0")
    logits, path = start.clone().requires_grad_(True), []
    optimizer = torch.optim.SGD([logits], lr=1.0)
    for _ in range(300):
        policy = table_logprobs(logits, functions)
        path.append((policy.detach().exp() @ (policy.detach() - ref)).item())
        tokens = torch.multinomial(policy.detach().exp(), 512, replacement=True, generator=generator)
        optimizer.zero_grad()
        functions.kl_estimates(policy[tokens][:, None], ref[tokens][:, None])[which].mean().backward()
        optimizer.step()
    axis.plot(path, label=f"{name} as the loss")
axis.set(xlabel="step", ylabel="true KL (nats)", yscale="log", title="k1 measures the KL, and cannot reduce it")
axis.legend(frameon=False)
show(figure, "01", "3-as-a-loss")

# %% [markdown]
# In expectation k1 pulls nowhere, and what its curve does is noise. k2 pulls along the gradient of KL(π ‖ ref); k3
# along that of KL(ref ‖ π), another direction, although both end at the reference.
#
# ## 4 What a nat buys
#
# A table over 32 answers climbs $J = E[r] - \beta KL$ by gradient ascent, for three β. The black line is
# `optimal_policy` for all β at once. *Where does each climb end? Can a climb cross the line?*

# %%
BETAS = (0.1, 0.5, 2.0)
settings = resolve(ObjectiveSettings, "01", algorithm=None, scale=None, overrides={"kl_weights": BETAS})
world, rewards = make_world(settings)
tables, reference = Tables(world, len(BETAS)), table_logprobs(world, functions)
optimizer, paths = torch.optim.Adam(tables.parameters(), lr=0.1), {beta: [] for beta in BETAS}
for _ in range(150):
    loss = 0.0
    for beta, logits in zip(BETAS, tables.logits, strict=True):
        term, at = climb(logits, reference, rewards, beta, functions)
        loss = loss + term
        paths[beta].append((at["kl"], at["reward"]))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
line = [closed_form(world, rewards, beta, functions) for beta in torch.logspace(-2, 1.5, 60).tolist()]
figure, axis = plt.subplots(figsize=(6, 4))
axis.plot([p["kl"] for p in line], [p["reward"] for p in line], color="black", label="closed form, all β")
for number, (beta, path) in enumerate(paths.items()):
    best = closed_form(world, rewards, beta, functions)
    axis.plot(*zip(*path, strict=True), color=f"C{number}", label=f"climb, β = {beta:g}")
    axis.plot(best["kl"], best["reward"], "o", color=f"C{number}")
    print(f"β = {beta:g}: J* - J = {best['objective'] - (path[-1][1] - beta * path[-1][0]):.5f}")
axis.set(xlabel="KL to the reference (nats)", ylabel="expected reward")
axis.set_title("each climb ends at its dot; the slope there is β", fontsize=10)
axis.legend(frameon=False)
show(figure, "01", "4-frontier")

# %% [markdown]
# ## Whose ruler was it?
#
# Set `IMPL` at the top to a member's folder and run all cells again: all figures are drawn by their functions.
