"""The order of training data: a function of seed and epoch alone, so that a resumed run goes on where it stopped."""

from functools import lru_cache

import torch


def batch_indices(step: int, examples: int, batch_size: int, seed: int) -> list[int]:
    """The examples of update `step` (from 0), epoch after epoch; a last batch that is not full is left out."""
    per_epoch = max(1, examples // batch_size)
    epoch, position = divmod(step, per_epoch)
    return epoch_order(examples, seed, epoch)[position * batch_size :][:batch_size]


@lru_cache(maxsize=2)
def epoch_order(examples: int, seed: int, epoch: int) -> list[int]:
    """A shuffle of range(examples)."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.randperm(examples, generator=generator, device=generator.device).tolist()
