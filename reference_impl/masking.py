"""Masks and token aggregation, shared by the week files of `reference_impl`.

A mask is 1 where a token counts and 0 elsewhere, of any dtype. What stands under a 0 may be anything, NaN and
infinity included: `values * mask` lets it through (0 * NaN is NaN), `torch.where` stops it, in value and in gradient.
"""

import torch
from torch import Tensor


def upcast(values: Tensor) -> Tensor:
    """Half precision to float32, everything else unchanged: a bfloat16 sum of log-probs is off by whole nats."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def keep(values: Tensor, mask: Tensor) -> Tensor:
    """`values` (upcast) where `mask` counts, exactly 0 elsewhere, whatever stood there."""
    return torch.where(mask.bool(), upcast(values), 0)


def aggregate_tokens(per_token: Tensor, mask: Tensor, aggregate: str, max_length: int | None = None) -> Tensor:
    """Reduce per-token losses `(B, T)` to a scalar by the rule named `aggregate`.

    "sequence_sum"   (1/B) sum_i sum_t m x             unbiased policy gradient
    "sequence_mean"  (1/B) sum_i (1/n_i) sum_t m x     GRPO, arXiv:2402.03300
    "token_mean"     (1/sum_i n_i) sum_i sum_t m x     DAPO, arXiv:2503.14476
    "constant"       1/(B max_length) sum_i sum_t m x  Dr. GRPO, arXiv:2503.20783
    A row with an empty mask is a row with sum 0. ValueError for another rule or for "constant" without `max_length`.
    """
    per_token = keep(per_token, mask)
    lengths = mask.bool().sum(dim=1)
    if aggregate == "sequence_sum":
        return per_token.sum(dim=1).mean()
    if aggregate == "sequence_mean":
        return (per_token.sum(dim=1) / lengths.clamp(min=1)).mean()
    if aggregate == "token_mean":
        return per_token.sum() / lengths.sum().clamp(min=1)
    if aggregate == "constant":
        if max_length is None:
            raise ValueError('aggregate="constant" divides by max_length, which is None: pass the longest length')
        return per_token.sum() / (len(per_token) * max_length)
    raise ValueError(f'aggregate={aggregate!r}: choose "sequence_sum", "sequence_mean", "token_mean" or "constant"')
