"""Log-probs straight from hidden states, for vocabularies whose logits are too many to keep.

    z_t = W h_t        log pi(y_t) = z_t[y_t] / T - logsumexp(z_t / T)

A vocabulary of V = 150,000 makes the logits of 4096 tokens 2.5 GB in float32, and a loss keeps several tensors of that
size. Two remedies, both exact: only the tokens that `mask` asks for get logits at all, and these are computed a chunk
at a time, thrown away, and computed again in the backward pass (torch.utils.checkpoint). What is left grows with
tokens x hidden size. For the 64 characters of the nano model the plain way is faster, and `score` keeps to it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from reference_impl.sharding import is_sharded, whole

LARGE_VOCABULARY = 4096  # from here on logits are computed in chunks
CHUNK_LOGITS = 2**25  # logits of a chunk: 128 MB in float32
SCORED_TOKENS = 2**14  # tokens read at once where no gradient is wanted


def large_vocabulary(model: nn.Module) -> bool:
    """Are this model's logits too many to keep?"""
    return getattr(getattr(model, "config", None), "vocab_size", 0) >= LARGE_VOCABULARY


def hidden_logprobs(model: nn.Module, hidden: Tensor, labels: Tensor, mask: Tensor, temperature: float = 1.0) -> Tensor:
    """log softmax(W h / T) at `labels`, where `mask` is 1; 0 elsewhere. No shift; differentiable.

    Shapes: hidden (B, T, d), labels and mask (B, T) -> (B, T) float32. W is `model.lm_head`.
    """
    wanted = mask.bool()
    logprobs = torch.zeros(labels.shape, device=hidden.device)
    if not wanted.any():
        return logprobs
    parts = in_chunks(
        lambda rows, targets: row_logprobs(model.lm_head(rows), targets, temperature),
        model,
        hidden[wanted],
        labels[wanted],
    )
    return logprobs.masked_scatter(wanted, torch.cat(parts))


def row_logprobs(logits: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """z[label] / T - logsumexp(z / T): (..., V), (...) -> (...), without a second (..., V) tensor of log-probs."""
    logits = logits.float()
    if temperature != 1.0:
        logits = logits / temperature
    return logits.gather(-1, labels[..., None]).squeeze(-1) - logits.logsumexp(-1)


def chunked_mean(fn: Callable[..., Tensor], model: nn.Module, *rows: Tensor) -> Tensor:
    """fn(*rows) of a `fn` that is a mean over its rows: the chunks' means, weighted by their share of the rows."""
    total = len(rows[0])
    return sum(in_chunks(lambda *part: fn(*part) * (len(part[0]) / total), model, *rows))


def in_chunks(fn: Callable[..., Tensor], model: nn.Module, *rows: Tensor) -> list[Tensor]:
    """fn on a few rows at a time; of each chunk the backward pass keeps its rows and computes the rest again."""
    size = max(1, CHUNK_LOGITS // model.config.vocab_size)
    parts = zip(*(tensor.split(size) for tensor in rows), strict=True)
    return [checkpoint(fn, *part, use_reentrant=False, early_stop=False) for part in parts]


def hidden_states(model: nn.Module, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """What the last layer says at each token, (B, T, d): the logits are `model.lm_head` of it."""
    if is_sharded(model):
        return model.hidden_states(input_ids, attention_mask)
    return model.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).last_hidden_state


def score_large(model, input_ids: Tensor, attention_mask: Tensor, temperature: float, mask: Tensor) -> Tensor:
    """`score` (reference_impl/sampling.py) for a large vocabulary, at the tokens of `mask` alone.

    Where no gradient is wanted, rows of like length are read together, in parts of SCORED_TOKENS tokens.
    """
    if torch.is_grad_enabled():
        hidden = hidden_states(model, input_ids, attention_mask)[:, :-1]
        return F.pad(hidden_logprobs(model, hidden, input_ids[:, 1:], mask[:, 1:], temperature), (1, 0))
    result = torch.zeros(input_ids.shape, device=input_ids.device)
    with whole(model):
        for rows, width in parts_by_length(attention_mask, SCORED_TOKENS):
            ids, attended, wanted = (part[rows, :width] for part in (input_ids, attention_mask, mask))
            hidden = hidden_states(model, ids, attended)[:, :-1]
            result[rows, 1:width] = hidden_logprobs(model, hidden, ids[:, 1:], wanted[:, 1:], temperature)
    return result


def parts_by_length(attention_mask: Tensor, tokens: int) -> list[tuple[Tensor, int]]:
    """(rows, width) of parts of right-padded rows, longest first, of at most `tokens` tokens each, padding included."""
    lengths = attention_mask.sum(1)
    order = lengths.argsort(descending=True, stable=True)
    parts, first = [], 0
    while first < len(order):
        width = int(lengths[order[first]])
        size = max(1, tokens // max(width, 1))
        parts.append((order[first : first + size], width))
        first += size
    return parts
