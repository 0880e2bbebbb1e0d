"""The update: one optimizer step on a rollout, or several.

    for each epoch: for each minibatch: score -> loss -> gradient -> step of AdamW -> (step of the critic)

With one epoch and one minibatch the step is on-policy and every ratio pi / pi_old is 1. From the second step on the
samples are those of an older policy, which is what week 06's ratios and clips are about.
"""

import torch
from torch import Tensor, nn

from reference_impl.distributed import sum_gradients
from reference_impl.logprobs import large_vocabulary
from reference_impl.loops.accumulate import backward, scorer
from reference_impl.loops.batch import Batch
from reference_impl.settings import RLSettings


def update(policy: nn.Module, optimizer, batch: Batch, loss_fn, settings: RLSettings, generator, critic=None):
    """Train on a batch; returns the metrics of the update, averaged over its optimizer steps.

    clip_fraction      share of the tokens with an advantage whose log-prob gets no gradient from the loss
    ratio_low, _high   1% and 99% quantile of pi / pi_old over the tokens of the last epoch; ratio_median between them
    gradient_variance  |g - g'|^2 / 2 for minibatches g, g' that follow each other in the first epoch: tr Var of one's
                       gradient, as long as the policy moves little between them
    gradient_noise     gradient_variance over the mean |g|^2: 1 when there is only noise
    """
    policy.train()
    losses, norms, flat, ratios, gradients, value_losses = [], [], [], [], [], []
    for epoch in range(settings.epochs):
        for rows in minibatches(len(batch.rewards), settings, generator):
            part = batch.rows(rows)
            optimizer.zero_grad()
            forward = scorer(policy, part.input_ids, part.attention_mask, part.mask, settings.temperature)
            lengths = part.attention_mask.sum(1)
            logprobs, loss = backward(
                forward, lengths, lambda outputs, part=part: loss_fn(outputs, part), settings.micro_batches
            )
            sum_gradients(policy)
            if epoch == 0 and not large_vocabulary(policy):  # copies of a large model's gradient are too large
                gradients.append(flat_gradient(policy))
            norms.append(nn.utils.clip_grad_norm_(policy.parameters(), settings.max_grad_norm).item())
            optimizer.step()
            if critic is not None:
                value_losses.append(critic.update(part))
            losses.append(loss.item())
            flat.append(without_gradient(logprobs, part))
            if epoch == settings.epochs - 1:
                ratios.append((logprobs.detach() - part.old_logprobs)[part.mask.bool()].exp())

    metrics = {"loss": mean(losses), "grad_norm": mean(norms)}
    if value_losses:
        metrics["value_loss"] = mean(value_losses)
    if len(losses) > 1:
        low, median, high = torch.cat(ratios).quantile(torch.tensor([0.01, 0.5, 0.99])).tolist()
        metrics |= {"clip_fraction": mean(flat), "ratio_low": low, "ratio_median": median, "ratio_high": high}
    if len(gradients) > 1:
        metrics |= gradient_metrics(torch.stack(gradients))
    return metrics


def minibatches(rows: int, settings: RLSettings, generator: torch.Generator) -> list[Tensor]:
    """The rows of each minibatch: whole groups, dealt out at random, so that minibatches are independent samples."""
    groups = torch.arange(rows).view(-1, settings.group)
    if settings.minibatches > 1:
        groups = groups[torch.randperm(len(groups), generator=generator, device=generator.device)]
    return [part.flatten() for part in groups.chunk(settings.minibatches)]


def without_gradient(logprobs: Tensor, part: Batch) -> float:
    """Share of the tokens with an advantage that the loss leaves alone: those in the flat part of the clip."""
    advantages = part.advantages if part.advantages.dim() == 2 else part.advantages[:, None]
    counted = part.mask.bool() & (advantages != 0)
    return ((logprobs.grad == 0) & counted).sum().item() / max(1, counted.sum().item())


def flat_gradient(model: nn.Module) -> Tensor:
    """The gradient of all parameters in one vector."""
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])


def gradient_metrics(gradients: Tensor) -> dict[str, float]:
    """gradient_variance and gradient_noise of successive minibatch gradients (M, D)."""
    variance = (gradients[1:] - gradients[:-1]).square().sum(1).mean().item() / 2
    size = gradients.square().sum(1).mean().item()
    return {"gradient_variance": variance} | ({"gradient_noise": variance / size} if size > 0 else {})


def mean(numbers: list[float]) -> float:
    return sum(numbers) / len(numbers)
