"""How much of a policy gradient is signal: the same rollouts, the gradient of each estimator, its mean and its noise.

    SNR = |E g|^2 / tr Var(g)        g = the gradient of one rollout's loss at the start policy

All estimators here have the same expectation (the gradient of expected reward); they differ in variance. A shift of
every reward by a constant changes no optimum and no expectation either, but without a baseline it is pure noise.
"""

from itertools import islice

import torch
from torch import Tensor, nn

from reference_impl.algorithms import ALGORITHMS
from reference_impl.errors import UserError
from reference_impl.implementations import load_functions, require_written
from reference_impl.logprobs import large_vocabulary
from reference_impl.loops.accumulate import checked_loss
from reference_impl.loops.batch import group_advantages, make_batch
from reference_impl.loops.evaluate import rollout
from reference_impl.loops.rl import RewardFn
from reference_impl.runs.progress import console
from reference_impl.runs.run import Run
from reference_impl.sampling import score
from reference_impl.settings import RLSettings

ESTIMATORS = ("reinforce", "reinforce-baseline", "rloo")
SHIFTS = (0.0, 3.0)


def gradient_signal(policy: nn.Module, tokenizer, task, reward_fn: RewardFn, settings: RLSettings, run: Run) -> dict:
    """SNR of each estimator at `policy`, under rewards {0, 1} and shifted by +3; also written to signal.md."""
    if large_vocabulary(policy):
        raise UserError(
            "The gradient signal keeps hundreds of gradients, which only the nano model is small enough for."
        )
    for name in ESTIMATORS:
        require_written(settings.week, settings.impl, ALGORITHMS[name].needs)
    functions = load_functions(settings.week, settings.impl)
    losses = {name: ALGORITHMS[name].build(functions, settings) for name in ESTIMATORS}
    gradients: dict[tuple[str, float], list[Tensor]] = {(name, shift): [] for name in ESTIMATORS for shift in SHIFTS}
    generator = torch.Generator().manual_seed(settings.seed)
    prompts = task.draw("rl", settings.seed)
    policy.eval()

    for _ in run.steps(0, settings.signal_batches, "rollouts"):
        some = list(islice(prompts, settings.prompts_per_step))
        sampled, texts = rollout(
            policy, tokenizer, some, settings.group, settings.max_new_tokens, settings.temperature, generator
        )
        rewards = reward_fn(some, texts, sampled)
        batch = make_batch(sampled, rewards, policy, settings)
        logprobs = score(policy, sampled.input_ids, sampled.attention_mask, settings.temperature)
        for (name, shift), collected in gradients.items():
            advantages_fn, loss_fn = losses[name]
            batch.rewards = rewards + shift
            batch.advantages = group_advantages(batch.rewards, advantages_fn, settings)
            collected.append(flat_gradient(checked_loss(loss_fn(logprobs, batch)), policy))

    results = {f"snr {name} r+{shift:g}": signal_to_noise(torch.stack(g)) for (name, shift), g in gradients.items()}
    run.write("signal.md", signal_page(results, settings))
    console.print(signal_page(results, settings))
    return results


def flat_gradient(loss: Tensor, model: nn.Module) -> Tensor:
    """The gradient of `loss`, all parameters in one vector. The graph is kept for the next estimator."""
    parts = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
    return torch.cat([part.flatten() for part in parts])


def signal_to_noise(gradients: Tensor) -> float:
    """|E g|^2 / tr Var(g) from M draws (M, D): both unbiased, so a gradient of pure noise gives about 0, even below.

    The squared length of the mean of M draws is too long by tr Var / M, which is taken off.
    """
    count = len(gradients)
    mean = gradients.mean(0)
    variance = (gradients - mean).square().sum() / (count - 1)
    return ((mean.square().sum() - variance / count) / variance).item()


def signal_page(results: dict[str, float], settings: RLSettings) -> str:
    """The table in Markdown."""
    lines = ["Gradient signal-to-noise ratio at the start policy, |E g|^2 / tr Var(g)", ""]
    lines.append(f"{settings.signal_batches} rollouts of {settings.prompts_per_step} x {settings.group} completions")
    lines += ["", "| estimator | " + " | ".join(f"rewards {{0, 1}} + {shift:g}" for shift in SHIFTS) + " |"]
    lines.append("|---|" + "---|" * len(SHIFTS))
    for name in ESTIMATORS:
        lines.append(
            f"| {name} | " + " | ".join(f"{results[f'snr {name} r+{shift:g}']:.3f}" for shift in SHIFTS) + " |"
        )
    return "\n".join(lines) + "\n"
