"""Inputs for functions that read a model's logits: the logits at t - 1 predict the token at t."""

from types import SimpleNamespace

import torch

from graders.strategies import SPANS, _strided, booleans, composite, integers, lists, sampled_from, tensors

IGNORE = -100


@composite
def next_token(draw, *, empty_rows="never", under_mask=("finite",), span=SPANS, vocabulary=(11, 13), **settings):
    """A namespace: logits (B, T, V), input_ids (B, T), response_mask (B, T) over input_ids, labels (B, T): input_ids
    with -100 outside the mask. T >= 2; every row predicts at least one token unless it is empty.

    `under_mask` stands in the logits that predict no response token, the last ones among them. Rows whose response
    starts at 1 now and then have the token at 0 marked too: it has no prediction.
    """
    garbage = draw(sampled_from(under_mask))
    fields = dict(logits="B S V normal", targets="B S ids", mask="B S mask", last="B V normal", first="B ids")
    sizes = {"V": vocabulary} | settings.pop("sizes", {})
    x = draw(tensors(**fields, sizes=sizes, span=span, empty_rows=empty_rows, under_mask=(garbage,), **settings))
    last = torch.full_like(x.last, float(garbage)) if garbage not in ("finite", "clean") else 10 * x.last
    logits = torch.cat([x.logits, last.unsqueeze(1)], dim=1)
    input_ids = torch.cat([x.first.unsqueeze(1), x.targets], dim=1)
    first_marked = x.mask[:, :1] * draw(sampled_from((0, 1)))
    mask = torch.cat([first_marked.to(x.mask.dtype), x.mask], dim=1)
    if draw(booleans()):
        logits, input_ids = _strided(logits), _strided(input_ids)
    labels = torch.where(mask.bool(), input_ids, IGNORE)
    return SimpleNamespace(logits=logits, input_ids=input_ids, response_mask=mask, labels=labels)


def token_ids(least: int = 0, most: int = 6, vocabulary: int = 9):
    """A list of token ids; few different ones, so that they coincide with special ids and with each other."""
    return lists(integers(0, vocabulary - 1), min_size=least, max_size=most)


def without(logits: torch.Tensor, labels: torch.Tensor, value: float = -torch.inf) -> torch.Tensor:
    """The logits with `value` at one label a position that is not the one asked for; labels (B, T) of ids."""
    other = (labels.clamp(min=0) + 1) % logits.shape[-1]
    return logits.scatter(-1, other.unsqueeze(-1), value)
