"""What rows have in common is computed once, and padding not at all.

What a causal model says at a token depends on the tokens up to it alone. So rows that begin alike have equal hidden
states there: the prompt of a group or of a pair, and as far as its completions agree. Almost everything goes token by
token, over the N tokens that differ instead of the B x T cells of the batch. Attention alone looks along rows, and a
row that is equal to another one, or its beginning, needs none of its own: L rows are left.

    row 1:  4 - 1 = 3 <eos>           4 - 1 = 3 <eos>
    row 2:  4 - 1 = 2 <eos>   ->              2 <eos>      15 tokens and 3 cells of padding become N = 8,
    row 3:  4 - 1                                          and 3 rows become L = 2
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

    `tokens` and `positions` (N,) are their ids and columns. `rows` lays (N, ...) out as (B, T, ...), and `paths` as the
    (L, T, ...) that attention needs; in the padding, which no token attends to, stands anything. `once` takes
    (L, T, ...) back to (N, ...). Gradients of a shared token add up.
    """

    def __init__(self, input_ids: Tensor, attention_mask: Tensor) -> None:
        ids = input_ids.masked_fill(attention_mask == 0, -1)
        # rows that begin alike stand together, the longest first
        order = sorted(range(len(ids)), key=ids.tolist().__getitem__, reverse=True)
        order = torch.tensor(order, device=ids.device)
        ids = ids[order]
        as_above = F.pad((ids[1:] == ids[:-1]).cumprod(1), (0, 0, 1, 0)).bool()  # equal to the row above up to here
        new = (ids >= 0) & ~as_above
        number = new.flatten().cumsum(0).view_as(ids) - 1
        cells = torch.where(new, number, 0).cummax(0).values  # one that is not new takes the number above it
        self.row_cells = torch.empty_like(cells).index_copy(0, order, cells)  # (B, T) which of the N
        different = new.any(1)
        self.path_cells = cells[different]  # (L, T)
        self.places = new[different].flatten().nonzero()[:, 0]  # (N,) which of the L * T
        self.tokens = ids[new]
        self.positions = self.places % ids.shape[1]

    def rows(self, x: Tensor) -> Tensor:
        return x.index_select(0, self.row_cells.flatten()).unflatten(0, self.row_cells.shape)

    def paths(self, x: Tensor) -> Tensor:
        return x.index_select(0, self.path_cells.flatten()).unflatten(0, self.path_cells.shape)

    def once(self, x: Tensor) -> Tensor:
        return x.flatten(0, 1).index_select(0, self.places)
