"""The steps of supervised fine-tuning: the week's `sft_loop`, or, for a large vocabulary, the same in less memory.

`sft_loop` and `sft_loss` speak of whole logits (B, T, V), which is right for reading and for a vocabulary of 64. With
150,000 tokens the logits are more than the rest of the step together. The mean over supervised tokens is a sum over
chunks of them, each weighted by its share, which is also why gradient accumulation works. So the week's own `sft_loss`
is called on the logits of a chunk of completion tokens at a time, (1, n + 1, V), and `sft_loop`, which would ask for
all of them at once, is replaced by the loop under reference_impl's, `token_mean_steps`.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference_impl.distributed import deal, divided, rank, sum_numbers, summed_gradients
from reference_impl.logprobs import chunked_mean, hidden_states, large_vocabulary
from reference_impl.sft import IGNORE, supervised_tokens, token_mean_steps

Loss = Callable[[Tensor, Tensor], Tensor]


def sft_steps(model: nn.Module, batches, optimizer, max_grad_norm: float, schedule, functions) -> list[float]:
    """One optimizer step per element of `batches`, each a list of micro-batches; the loss of every step."""
    if large_vocabulary(model):

        def loss_of(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
            mine = my_part(batch)
            share = supervised_tokens(mine) / max(1, supervised_tokens(batch))
            return large_sft_loss(model, mine, functions.sft_loss) * share

        with summed_gradients(model):
            return sum_numbers(token_mean_steps(model, batches, optimizer, loss_of, max_grad_norm, schedule))
    with divided(model):
        return functions.sft_loop(model, batches, optimizer, max_grad_norm, schedule)


def my_part(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The rows of a batch that this process reads: all of them, if there is no other."""
    mine = deal(torch.arange(len(batch["labels"])))[rank()]
    return {name: rows[mine] for name, rows in batch.items()}


def batch_loss(model: nn.Module, batch: dict[str, Tensor], sft_loss: Loss) -> Tensor:
    """The week's `sft_loss` of one batch."""
    if large_vocabulary(model):
        return large_sft_loss(model, batch, sft_loss)
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return sft_loss(logits, batch["labels"])


def large_sft_loss(model: nn.Module, batch: dict[str, Tensor], sft_loss: Loss) -> Tensor:
    """The same number from the hidden states of supervised positions, whose logits exist a chunk at a time."""
    hidden = hidden_states(model, batch["input_ids"], batch["attention_mask"])[:, :-1]
    targets = batch["labels"][:, 1:]
    supervised = targets != IGNORE
    if not supervised.any():
        return hidden.sum() * 0.0

    def of_chunk(rows: Tensor, labels: Tensor) -> Tensor:
        # sft_loss lets position t predict the label at t + 1: a row more at the end, a label more at the beginning
        logits = model.lm_head(F.pad(rows, (0, 0, 0, 1)))
        return sft_loss(logits[None], F.pad(labels, (1, 0), value=IGNORE)[None])

    return chunked_mean(of_chunk, model, hidden[supervised], targets[supervised])
