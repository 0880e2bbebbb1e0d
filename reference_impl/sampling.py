"""The rollout engine: sample completions from a policy, and score tokens under it.

Works on NanoLM and on transformers' causal LMs alike. What makes it fast, in the order of what it saves:

1. a completion that has ended leaves the batch, so the last long one does not run with hundreds of dead rows beside it;
2. keys and values of past tokens are cached, so a step computes one token a row;
3. the prompt is read once and its cache copied to the G completions of its group.

Log-probs are those of the distribution that was sampled from, softmax(logits / temperature), in float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference_impl.logprobs import large_vocabulary, row_logprobs, score_large

CHUNK_ELEMENTS = 2**24  # logits that `score` works on at a time, which bounds its temporary copies to 64 MB


@dataclass
class Rollout:
    """Completions of P prompts, G each: B = P * G rows, those of one prompt next to each other."""

    input_ids: Tensor  # (B, T) prompt, completion (with its eos), padding on the right
    attention_mask: Tensor  # (B, T) 1 on prompt and completion
    response_mask: Tensor  # (B, T) 1 on completion tokens, the eos included
    logprobs: Tensor  # (B, T) log-prob of the token at t when it was sampled; 0 outside the completion
    finished: Tensor  # (B,) bool: ended by eos, not by max_new_tokens
    prompt_lengths: Tensor  # (B,)


def generate(
    model: nn.Module,
    prompt_ids: list[list[int]],
    group: int,
    max_new_tokens: int,
    eos_id: int,
    pad_id: int,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
    noise: Tensor | None = None,
) -> Rollout:
    """Sample `group` completions of each prompt, up to `max_new_tokens` each.

    temperature 0 is greedy (its log-probs are those at temperature 1). The same `generator` state gives the same
    rollout; `noise` (max_new_tokens, B), as `sampling_noise` draws it, takes the generator's place. Prompts may differ
    in length. Raises ValueError for an empty prompt or a setting out of range.
    """
    if not prompt_ids or min(len(ids) for ids in prompt_ids) == 0:
        raise ValueError("generate needs at least one prompt, and every prompt at least one token")
    if group < 1 or max_new_tokens < 1 or temperature < 0:
        raise ValueError(
            f"group and max_new_tokens must be at least 1 and temperature at least 0, "
            f"got {group}, {max_new_tokens} and {temperature}"
        )
    if noise is None and temperature > 0:
        noise = sampling_noise(max_new_tokens, len(prompt_ids) * group, generator)
    was_training = model.training
    model.eval()
    try:
        # under autocast a weight's copy in half precision is kept until the outermost autocast ends: one copy a rollout
        with torch.inference_mode(), torch.autocast(next(model.parameters()).device.type, enabled=False):
            steps = list(decode(model, prompt_ids, group, max_new_tokens, eos_id, pad_id, temperature, noise))
    finally:
        model.train(was_training)
    return assemble(steps, prompt_ids, group, eos_id, pad_id)


def sampling_noise(max_new_tokens: int, rows: int, generator: torch.Generator | None) -> Tensor:
    """Uniform numbers (max_new_tokens, rows): step t of completion i uses entry [t, i] and no other.

    So a completion depends on its prompt and its column alone, not on which rows are sampled beside it: a rollout may
    be cut into parts, each with its columns of one draw. Drawn where the generator lives: a GPU gets a CPU's numbers.
    """
    device = None if generator is None else generator.device
    return torch.rand(max_new_tokens, rows, generator=generator, dtype=torch.float64, device=device)


def decode(
    model, prompt_ids, group, max_new_tokens, eos_id, pad_id, temperature, noise
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """One token after another: yields (rows, tokens, logprobs) of the completions that are still going on."""
    device = next(model.parameters()).device
    prompts, mask = pad_left(prompt_ids, pad_id, device)
    noise = None if temperature == 0 else noise.to(device)
    ragged = not bool(mask.all())
    positions = (mask.cumsum(1) - 1).clamp(min=0)

    # read each prompt once, then let every completion of its group continue from a copy of its cache
    output = model(
        input_ids=prompts,
        attention_mask=mask if ragged else None,
        position_ids=positions,
        use_cache=True,
        logits_to_keep=1,
    )
    cache = output.past_key_values
    cache.batch_repeat_interleave(group)
    logits = output.logits[:, -1].repeat_interleave(group, dim=0)
    position = positions[:, -1:].repeat_interleave(group, dim=0)
    mask = F.pad(mask, (0, max_new_tokens), value=1).repeat_interleave(group, dim=0)
    rows = torch.arange(len(logits), device=device)  # which completion each row of the shrinking batch belongs to

    for step in range(max_new_tokens):
        token, logprob = sample(logits, temperature, None if noise is None else noise[step, rows])
        yield rows, token, logprob

        ended = token == eos_id
        if ended.all() or step + 1 == max_new_tokens:
            return
        if ended.any():
            kept = fill_gaps(ended)
            rows, token, mask, position = rows[kept], token[kept], mask[kept], position[kept]
            cache.batch_select_indices(kept)
        position = position + 1
        logits = model(
            input_ids=token[:, None],
            attention_mask=mask[:, : prompts.shape[1] + step + 1] if ragged else None,
            position_ids=position,
            past_key_values=cache,
            use_cache=True,
        ).logits[:, -1]


def fill_gaps(ended: Tensor) -> Tensor:
    """The rows to go on with: each ended row's place is taken by a living row from the end, so that few rows move.

    Worked: [no, yes, no, no] -> [0, 3, 2].
    """
    alive = (~ended).nonzero().squeeze(1)
    kept = torch.arange(len(alive), device=ended.device)
    kept[ended[: len(alive)]] = alive[alive >= len(alive)]
    return kept


def sample(logits: Tensor, temperature: float, uniform: Tensor | None) -> tuple[Tensor, Tensor]:
    """One token a row from softmax(logits / temperature), with its log-prob: (B, V), `uniform` (B,) -> (B,), (B,)."""
    logprobs = (logits.float() / (temperature or 1.0)).log_softmax(-1)
    if temperature == 0:
        token = logprobs.argmax(-1, keepdim=True)
    else:
        # the first token whose cumulative probability exceeds a uniform number: several times faster than
        # torch.multinomial on CPU, and never a token of probability 0
        cumulative = logprobs.exp().cumsum(-1, dtype=torch.float64)
        token = torch.searchsorted(cumulative, uniform[:, None] * cumulative[:, -1:], right=True)
        token = token.clamp(max=logits.shape[-1] - 1)
    return token.squeeze(-1), logprobs.gather(-1, token).squeeze(-1)


def pad_left(prompt_ids: list[list[int]], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Prompts with their ends aligned, so that all of them continue at the same column: ids and mask (P, L)."""
    width = max(len(ids) for ids in prompt_ids)
    ids = [[pad_id] * (width - len(ids)) + list(ids) for ids in prompt_ids]
    mask = [[0] * (width - len(ids)) + [1] * len(ids) for ids in prompt_ids]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def assemble(steps, prompt_ids: list[list[int]], group: int, eos_id: int, pad_id: int) -> Rollout:
    """Prompts and completions joined without a gap, the padding moved to the right."""
    rows, tokens, logprobs = (torch.cat(parts).clone() for parts in zip(*steps, strict=True))
    device, batch = rows.device, len(prompt_ids) * group
    prompt_lengths = torch.tensor([len(ids) for ids in prompt_ids], device=device).repeat_interleave(group)
    lengths = prompt_lengths + torch.bincount(rows, minlength=batch)
    columns = torch.arange(int(lengths.max()), device=device)
    attention_mask = (columns < lengths[:, None]).long()
    response_mask = attention_mask * (columns >= prompt_lengths[:, None])

    input_ids = torch.full(attention_mask.shape, pad_id, device=device)
    flat_prompts = [token for ids in prompt_ids for _ in range(group) for token in ids]
    input_ids[(attention_mask - response_mask).bool()] = torch.tensor(flat_prompts, device=device)
    # the step at which a row's token was drawn is its place in the completion
    places = torch.cat([torch.full_like(row, step) for step, (row, _, _) in enumerate(steps)])
    input_ids[rows, prompt_lengths[rows] + places] = tokens
    aligned = torch.zeros(attention_mask.shape, device=device)
    aligned[rows, prompt_lengths[rows] + places] = logprobs
    finished = input_ids.gather(1, lengths[:, None] - 1).squeeze(1) == eos_id
    return Rollout(input_ids, attention_mask, response_mask, aligned, finished, prompt_lengths)


def join_rollouts(parts: list[Rollout], pad_id: int) -> Rollout:
    """The rows of all parts, the narrower ones padded on the right."""
    if len(parts) == 1:
        return parts[0]
    width = max(part.input_ids.shape[1] for part in parts)

    def together(name: str) -> Tensor:
        fill = pad_id if name == "input_ids" else 0
        tensors = [getattr(part, name) for part in parts]
        return torch.cat([F.pad(t, (0, width - t.shape[1]), value=fill) if t.dim() == 2 else t for t in tensors])

    return Rollout(**{field.name: together(field.name) for field in fields(Rollout)})


def score(
    model: nn.Module, input_ids: Tensor, attention_mask: Tensor, temperature: float = 1.0, mask: Tensor | None = None
) -> Tensor:
    """Log-prob of every token given those before it: (B, T) float32, entry 0 is 0; differentiable.

    log softmax(z / T)[token] = z[token] / T - logsumexp(z / T), without a second (B, T, V) tensor of log-probs.
    `temperature` 0 (greedy) scores at 1, as `generate` does. `mask` (B, T) says which tokens will be used: a model with
    a large vocabulary computes no others, and gives 0 there.
    """
    if large_vocabulary(model):
        return score_large(
            model, input_ids, attention_mask, temperature or 1.0, attention_mask if mask is None else mask
        )
    logits = model(input_ids=input_ids, attention_mask=attention_mask).logits[:, :-1]
    labels = input_ids[:, 1:]
    rows = max(1, CHUNK_ELEMENTS // (logits[0].numel() or 1))
    chunks = [
        row_logprobs(part, label, temperature or 1.0)
        for part, label in zip(logits.split(rows), labels.split(rows), strict=True)
    ]
    return F.pad(torch.cat(chunks), (1, 0))


def completions(rollout: Rollout, tokenizer) -> list[str]:
    """The text of each completion, without its end-of-sequence token."""
    rows = zip(rollout.input_ids.tolist(), rollout.response_mask.tolist(), strict=True)
    special = {tokenizer.eos_token_id, tokenizer.pad_token_id}
    return [
        tokenizer.decode([i for i, keep in zip(ids, mask, strict=True) if keep and i not in special])
        for ids, mask in rows
    ]
