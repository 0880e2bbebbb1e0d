"""Gradient accumulation that is exact for any loss.

A token mean, a clip, KTO's reference point: the loss of a batch is not a sum over its rows, so the mean of the losses
of its parts is another loss. But the loss sees the model only through its outputs (log-probs, a reward model's logits):

    dL/dtheta = sum_i (dL/d out_i) (d out_i/dtheta)

So all outputs are computed without gradient, part by part; then the loss of the whole batch and its gradient at the
outputs; then each part again, with gradient. One more forward pass buys the memory of a single part. It is exact as
long as the model gives the same outputs twice (no dropout). Gao et al. 2021, arXiv:2101.06983.

The same sum divides a batch among processes: each computes its rows, gets the outputs of all, and backpropagates into
its own; `distributed.sum_gradients` adds the parts up.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from reference_impl.distributed import deal, each_ranks, gather_rows, rank, world_size
from reference_impl.errors import UserError
from reference_impl.sampling import score

Rows = Tensor | slice


def backward(
    forward: Callable[[Rows], Tensor], lengths: Tensor, loss_fn: Callable[[Tensor], Tensor], parts: int = 1
) -> tuple[Tensor, Tensor]:
    """Backpropagate loss_fn(outputs of all rows); returns the outputs, with their `.grad`, and the loss.

    forward(rows) gives the outputs of those rows, (R, ...) of one width; `lengths` (B,) sorts the rows into `parts` of
    like length. With one part this is what it always was: forward, loss, backward. Of several processes each computes
    and backpropagates its share of the rows, in parts of the same size as one process would.
    """
    if parts == 1 and world_size() == 1:
        outputs = forward(slice(None))
        return outputs, backward_from(outputs, loss_fn)
    shares = deal(lengths.argsort(descending=True, stable=True))
    parts = min(each_ranks(parts), len(lengths) // world_size())
    mine = shares[rank()].tensor_split(parts)
    if parts == 1:
        outputs = gather_rows(forward(mine[0]), shares)
        return outputs, backward_from(outputs, loss_fn)
    with torch.no_grad():
        outputs = gather_rows(torch.cat([forward(rows) for rows in mine]), shares)
    loss = backward_from(outputs.requires_grad_(), loss_fn)
    for rows in mine:
        forward(rows).backward(outputs.grad[rows])
    return outputs, loss


def backward_from(outputs: Tensor, loss_fn: Callable[[Tensor], Tensor]) -> Tensor:
    """Backpropagate loss_fn(outputs), which leaves its gradient in `outputs.grad`; returns the loss."""
    outputs.retain_grad()
    loss = checked_loss(loss_fn(outputs))
    loss.backward()
    return loss


def scorer(
    model: nn.Module, input_ids: Tensor, attention_mask: Tensor, mask: Tensor, temperature: float = 1.0
) -> Callable[[Rows], Tensor]:
    """forward(rows) for `backward`: the log-probs of those rows (R, T), each part read at its own width."""

    def forward(rows: Rows) -> Tensor:
        if isinstance(rows, slice):
            return score(model, input_ids, attention_mask, temperature, mask)
        width = int(attention_mask[rows].sum(1).max())
        ids, attended, wanted = (part[rows, :width] for part in (input_ids, attention_mask, mask))
        return pad(score(model, ids, attended, temperature, wanted), (0, input_ids.shape[1] - width))

    return forward


def reader(model: nn.Module, input_ids: Tensor, attention_mask: Tensor) -> Callable[[Rows], Tensor]:
    """forward(rows) for `backward`: the logits of a value or reward model, (R, T, outputs)."""

    def forward(rows: Rows) -> Tensor:
        return model(input_ids=input_ids[rows], attention_mask=attention_mask[rows]).logits

    return forward


def checked_loss(loss) -> Tensor:
    """`loss`, if it is something to train on: a finite scalar tensor with a gradient. UserError otherwise."""
    if not isinstance(loss, Tensor):
        raise UserError(f"The loss should be a scalar tensor, but it is a {type(loss).__name__}.")
    if loss.dim() != 0:
        raise UserError(f"The loss should be a scalar, but it has shape {tuple(loss.shape)}.")
    if not loss.requires_grad:
        raise UserError("The loss has no gradient: what it is computed from was detached on the way.")
    if not loss.isfinite():
        raise UserError(f"The loss is {loss.item()}: training stops here.")
    return loss
