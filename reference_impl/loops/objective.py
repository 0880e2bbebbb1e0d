"""Week 01: climb J(pi) with a policy that is a table, and train a first outcome reward model, side by side.

         J(pi) = sum_y pi(y) r(y) - beta KL(pi || ref)
    grad J(pi) = sum_y pi(y) (r(y) - beta log pi(y)/ref(y)) grad log pi(y)

The table holds every completion, so the sum is exact and the distance to the closed form can be measured. One table
climbs for each beta; all start at the reference.
"""

import time

import torch
from torch import Tensor, nn

from reference_impl.loops.first_reward_model import FirstRewardModel
from reference_impl.runs.frontier import plot_frontier
from reference_impl.runs.progress import console
from reference_impl.runs.run import Run, read_metrics
from reference_impl.settings import ObjectiveSettings

FRONTIER_BETAS = torch.logspace(-2, 1.5, 60, dtype=torch.float64).tolist()


class Tables(nn.Module):
    """One policy for each beta, as logits over the same outcomes (K, Y)."""

    def __init__(self, ref_logits: Tensor, count: int):
        super().__init__()
        self.logits = nn.Parameter(ref_logits.repeat(count, 1))


def train_objective(functions, settings: ObjectiveSettings, run: Run, reward_model: FirstRewardModel) -> dict:
    """Climb for every beta, one update of the reward model beside each step; returns how close both came."""
    ref_logits, rewards = make_world(settings)
    tables = Tables(ref_logits, len(settings.kl_weights))
    climber = torch.optim.Adam(tables.parameters(), settings.lr)
    ref_logprobs = table_logprobs(ref_logits, functions)
    best = {beta: closed_form(ref_logits, rewards, beta, functions) for beta in settings.kl_weights}
    parts = {"tables": tables, "climber": climber, "reward_optimizer": reward_model.optimizer}
    start = run.restore(reward_model.model, **parts)
    began = time.perf_counter()

    for tick in run.steps(start, settings.steps, settings.algorithm):
        metrics, losses = {}, []
        for beta, logits in zip(settings.kl_weights, tables.logits, strict=True):
            loss, at = climb(logits, ref_logprobs, rewards, beta, functions)
            losses.append(loss)
            metrics |= {f"{name}_beta_{beta:g}": number for name, number in at.items()}
            metrics[f"gap_beta_{beta:g}"] = best[beta]["objective"] - at["objective"]
        climber.zero_grad()
        torch.stack(losses).sum().backward()
        climber.step()
        metrics["objective_gap"] = max(value for name, value in metrics.items() if name.startswith("gap"))
        metrics |= reward_model.update(tick.step - 1)
        if tick.step % settings.eval_every == 0 or tick.step == settings.steps:
            metrics |= reward_model.measure()
        run.log(tick.step, **metrics)
        tick.note(f"J* - J {metrics['objective_gap']:.4f}  reward model loss {metrics['loss']:.2f}")
        run.save(tick.step, reward_model.model, reward_model.tokenizer, **parts)

    seconds = time.perf_counter() - began
    frontier = [closed_form(ref_logits, rewards, beta, functions) for beta in FRONTIER_BETAS]
    rows = [row for row in read_metrics(run.path) if "objective_gap" in row]
    paths = {beta: [(row[f"kl_beta_{beta:g}"], row[f"reward_beta_{beta:g}"]) for row in rows] for beta in best}
    plot_frontier(run.path / "frontier.png", frontier, paths, best)
    results = {f"gap beta={beta:g}": metrics[f"gap_beta_{beta:g}"] for beta in settings.kl_weights}
    page = climb_page(metrics, best) + estimates_page(tables, ref_logprobs, functions, settings)
    run.write("objective.md", page)
    console.print(page, markup=False)
    return results | reward_model.report(functions) | {"steps_per_second": (settings.steps - start) / seconds}


def make_world(settings: ObjectiveSettings) -> tuple[Tensor, Tensor]:
    """Reference logits and rewards of Y outcomes, drawn independently: what is likely need not be good."""
    generator = torch.Generator().manual_seed(settings.seed)
    like = {"generator": generator, "dtype": torch.float64, "device": generator.device}
    ref_logits = torch.randn(settings.outcomes, **like)
    rewards = torch.randn(settings.outcomes, **like)
    return ref_logits.to(torch.get_default_device()), rewards.to(torch.get_default_device())


def table_logprobs(logits: Tensor, functions) -> Tensor:
    """log pi(y) of every outcome (Y,), by the week's `token_logprobs`: outcome y is a completion of the one token y."""
    outcomes = torch.arange(len(logits))
    return functions.token_logprobs(logits.expand(len(logits), 1, -1), outcomes[:, None])[:, 0]


def climb(logits: Tensor, ref_logprobs: Tensor, rewards: Tensor, beta: float, functions) -> tuple[Tensor, dict]:
    """A scalar whose gradient is exactly -grad J, and where the policy stands: J, E[r] and KL."""
    logprobs = table_logprobs(logits, functions)
    probs = logprobs.detach().exp()
    ones = torch.ones(len(rewards), 1, dtype=rewards.dtype)
    shaped = functions.kl_shaped_rewards(rewards, logprobs[:, None], ref_logprobs[:, None], ones, beta).detach()
    loss = -(probs * shaped * logprobs).sum()
    return loss, {
        "objective": (probs * shaped).sum().item(),
        "reward": (probs * rewards).sum().item(),
        "kl": (probs * (logprobs.detach() - ref_logprobs)).sum().item(),
    }


def closed_form(ref_logits: Tensor, rewards: Tensor, beta: float, functions) -> dict[str, float]:
    """J, E[r] and KL of the week's `optimal_policy`."""
    ref_probs = ref_logits.softmax(-1)
    probs = functions.optimal_policy(ref_probs, rewards, beta)
    reward = (probs * rewards).sum().item()
    kl = torch.where(probs > 0, probs * (probs / ref_probs).log(), 0.0).sum().item()
    return {"objective": reward - beta * kl, "reward": reward, "kl": kl}


def climb_page(metrics: dict[str, float], best: dict[float, dict[str, float]]) -> str:
    """Where each table ended, and where the closed form is."""
    lines = ["Climbing J, against the closed form", "", "| beta | E[r] | KL | J | J* - J |", "|---|---|---|---|---|"]
    for beta in best:
        cells = [metrics[f"{name}_beta_{beta:g}"] for name in ("reward", "kl", "objective", "gap")]
        lines.append(f"| {beta:g} | " + " | ".join(f"{number:.4f}" for number in cells) + " |")
    return "\n".join(lines) + "\n\n"


@torch.no_grad()
def estimates_page(tables: Tables, ref_logprobs: Tensor, functions, settings: ObjectiveSettings) -> str:
    """The week's `kl_estimates` on samples, against the exact KL: mean and standard error."""
    generator = torch.Generator().manual_seed(settings.seed)
    lines = [f"KL from {settings.samples} samples", "", "| beta | exact | k1 | k2 | k3 |", "|---|---|---|---|---|"]
    for beta, logits in zip(settings.kl_weights, tables.logits, strict=True):
        logprobs = table_logprobs(logits, functions)
        drawn = torch.multinomial(logprobs.exp().cpu(), settings.samples, replacement=True, generator=generator)
        estimates = functions.kl_estimates(logprobs[drawn][:, None], ref_logprobs[drawn][:, None])
        exact = (logprobs.exp() * (logprobs - ref_logprobs)).sum().item()
        cells = [f"{k.mean().item():.3f} ± {k.std().item() / settings.samples**0.5:.3f}" for k in estimates]
        lines.append(f"| {beta:g} | {exact:.3f} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
