"""What rows have in common is computed once, and padding not at all.

What a causal model says at a token depends on the tokens up to it alone. So rows that begin alike have equal hidden
states there: the prompt of a group or of a pair, and as far as its completions agree. Only attention looks along whole
rows; all else goes token by token, over the N tokens that differ instead of the B x T cells of the batch.

    row 1:  4 - 1 = 3 <eos>           4 - 1 = 3 <eos>
    row 2:  4 - 1 = 2 <eos>   ->              2 <eos>
    row 3:  4 - 1 <pad> <pad> <pad>                         15 tokens and 3 cells of padding become N = 8
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def right_padded(attention_mask: Tensor) -> bool:
    """Does every row of the mask (B, T) begin with a token, and have all its padding at the end?"""
    return bool(attention_mask[:, 0].all() and (attention_mask[:, 1:] <= attention_mask[:, :-1]).all())


class Prefixes:
    """The N different tokens of a right-padded batch (B, T), that is, those with different rows up to them.

    `tokens` and `positions` (N,) are their ids and columns. `rows` lays (N, ...) out as (B, T, ...); in the padding,
    which no token attends to, stands anything. `once` takes (B, T, ...) to (N, ...). Gradients add up.
    """

    def __init__(self, input_ids: Tensor, attention_mask: Tensor) -> None:
        self.shape = input_ids.shape
        ids = input_ids.masked_fill(attention_mask == 0, -1)
        order = sorted(range(len(ids)), key=ids.tolist().__getitem__)  # rows that begin alike stand together
        order = torch.tensor(order, device=ids.device)
        ids = ids[order]
        as_above = F.pad((ids[1:] == ids[:-1]).cumprod(1), (0, 0, 1, 0)).bool()  # equal to the row above up to here
        new = (ids >= 0) & ~as_above
        number = new.flatten().cumsum(0).view_as(ids) - 1
        cells = torch.where(new, number, 0).cummax(0).values  # one that is not new takes the number above it
        self.cells = torch.empty_like(cells).index_copy(0, order, cells).flatten()  # (B * T,) which of the N
        row, self.positions = new.nonzero().unbind(1)
        self.tokens = ids[row, self.positions]
        self.places = order[row] * self.shape[1] + self.positions  # (N,) which of the B * T

    def rows(self, x: Tensor) -> Tensor:
        return x.index_select(0, self.cells).unflatten(0, self.shape)

    def once(self, x: Tensor) -> Tensor:
        return x.flatten(0, 1).index_select(0, self.places)
