"""The rollout engine: sample completions from a policy, and score tokens under it.

Works on NanoLM and on transformers' causal LMs alike. What makes it fast, in the order of what it saves:

1. a completion that has ended leaves the batch, so the last long one does not run with hundreds of dead rows beside it;
2. keys and values of past tokens are cached, so a step computes one token a row;
3. the prompt is read once and its cache copied to the G completions of its group.

Log-probs are those of the distribution that was sampled from, softmax(logits / temperature), in float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass
class Rollout:
    """Completions of P prompts, G each: B = P * G rows, those of one prompt next to each other."""

    input_ids: Tensor  # (B, T) prompt, completion (with its eos), padding on the right
    attention_mask: Tensor  # (B, T) 1 on prompt and completion
    response_mask: Tensor  # (B, T) 1 on completion tokens, the eos included
    logprobs: Tensor  # (B, T) log-prob of the token at t when it was sampled; 0 outside the completion
    finished: Tensor  # (B,) bool: ended by eos, not by max_new_tokens
    prompt_lengths: Tensor  # (B,)


@torch.no_grad()
def generate(
    model: nn.Module,
    prompt_ids: list[list[int]],
    group: int,
    max_new_tokens: int,
    eos_id: int,
    pad_id: int,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
) -> Rollout:
    """Sample `group` completions of each prompt, up to `max_new_tokens` each.

    temperature 0 is greedy (its log-probs are those at temperature 1). The same `generator` state gives the same
    rollout. Prompts may differ in length. Raises ValueError for an empty prompt or a setting out of range.
    """
    if not prompt_ids or min(len(ids) for ids in prompt_ids) == 0:
        raise ValueError("generate needs at least one prompt, and every prompt at least one token")
    if group < 1 or max_new_tokens < 1 or temperature < 0:
        raise ValueError(
            f"group and max_new_tokens must be at least 1 and temperature at least 0, "
            f"got {group}, {max_new_tokens} and {temperature}"
        )
    was_training = model.training
    model.eval()
    try:
        return _generate(model, prompt_ids, group, max_new_tokens, eos_id, pad_id, temperature, generator)
    finally:
        model.train(was_training)


def _generate(model, prompt_ids, group, max_new_tokens, eos_id, pad_id, temperature, generator) -> Rollout:
    device = next(model.parameters()).device
    prompts, mask = pad_left(prompt_ids, pad_id, device)
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
    mask = mask.repeat_interleave(group, dim=0)
    position = positions[:, -1:].repeat_interleave(group, dim=0)

    batch = len(prompt_ids) * group
    tokens = torch.full((batch, max_new_tokens), pad_id, device=device)
    logprobs = torch.zeros(batch, max_new_tokens, device=device)
    lengths = torch.full((batch,), max_new_tokens, device=device)
    finished = torch.zeros(batch, dtype=torch.bool, device=device)
    rows = torch.arange(batch, device=device)  # which rollout each row of the shrinking batch belongs to

    for step in range(max_new_tokens):
        token, logprob = sample(logits, temperature, generator)
        tokens[rows, step] = token
        logprobs[rows, step] = logprob

        ended = token == eos_id
        if ended.any():
            finished[rows[ended]] = True
            lengths[rows[ended]] = step + 1
            alive = (~ended).nonzero().squeeze(1)
            rows, token, mask, position = rows[alive], token[alive], mask[alive], position[alive]
            if len(rows) == 0:
                break
            cache.batch_select_indices(alive)
        if step + 1 == max_new_tokens:
            break
        mask = torch.cat((mask, mask.new_ones(len(mask), 1)), dim=1)
        position = position + 1
        logits = model(
            input_ids=token[:, None],
            attention_mask=mask if ragged else None,
            position_ids=position,
            past_key_values=cache,
            use_cache=True,
        ).logits[:, -1]
    return assemble(prompt_ids, group, tokens, logprobs, lengths, finished, pad_id)


def sample(logits: Tensor, temperature: float, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """One token a row from softmax(logits / temperature), with its log-prob: (B, V) -> (B,), (B,)."""
    logits = logits.float()
    if temperature == 0:
        token = logits.argmax(-1, keepdim=True)
    else:
        logits = logits / temperature
        token = torch.multinomial(logits.softmax(-1), 1, generator=generator)
    logprob = logits.gather(-1, token) - logits.logsumexp(-1, keepdim=True)
    return token.squeeze(-1), logprob.squeeze(-1)


def pad_left(prompt_ids: list[list[int]], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Prompts with their ends aligned, so that all of them continue at the same column: ids and mask (P, L)."""
    width = max(len(ids) for ids in prompt_ids)
    ids = [[pad_id] * (width - len(ids)) + list(ids) for ids in prompt_ids]
    mask = [[0] * (width - len(ids)) + [1] * len(ids) for ids in prompt_ids]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def assemble(prompt_ids, group, tokens, logprobs, lengths, finished, pad_id) -> Rollout:
    """Prompts and completions joined without a gap, the padding moved to the right."""
    device = tokens.device
    prompt_lengths = torch.tensor([len(ids) for ids in prompt_ids], device=device).repeat_interleave(group)
    width = int((prompt_lengths + lengths).max())
    columns = torch.arange(width, device=device)
    attention_mask = (columns < (prompt_lengths + lengths)[:, None]).long()
    response_mask = attention_mask * (columns >= prompt_lengths[:, None])
    input_ids = torch.full((len(tokens), width), pad_id, device=device)
    prompt_mask = attention_mask.bool() & ~response_mask.bool()
    input_ids[prompt_mask] = torch.tensor([i for ids in prompt_ids for _ in range(group) for i in ids], device=device)
    sampled = torch.arange(tokens.shape[1], device=device) < lengths[:, None]
    input_ids[response_mask.bool()] = tokens[sampled]
    aligned = torch.zeros(input_ids.shape, device=device)
    aligned[response_mask.bool()] = logprobs[sampled]
    return Rollout(input_ids, attention_mask, response_mask, aligned, finished, prompt_lengths)


def score(model: nn.Module, input_ids: Tensor, attention_mask: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-prob of every token given those before it: (B, T) float32, entry 0 is 0; differentiable.

    log softmax(z / T)[token] = z[token] / T - logsumexp(z / T), without a second (B, T, V) tensor of log-probs.
    `temperature` 0 (greedy) scores at 1, as `generate` does.
    """
    logits = model(input_ids=input_ids, attention_mask=attention_mask).logits[:, :-1]
    labels = input_ids[:, 1:]
    rows = max(1, 2**24 // (logits.shape[1] * logits.shape[2] or 1))  # bounds the temporary copies to 64 MB
    chunks = [
        chunk_logprobs(part, label, temperature or 1.0)
        for part, label in zip(logits.split(rows), labels.split(rows), strict=True)
    ]
    return torch.nn.functional.pad(torch.cat(chunks), (1, 0))


def chunk_logprobs(logits: Tensor, labels: Tensor, temperature: float) -> Tensor:
    logits = logits.float()
    if temperature != 1.0:
        logits = logits / temperature
    return logits.gather(-1, labels[..., None]).squeeze(-1) - logits.logsumexp(-1)


def completions(rollout: Rollout, tokenizer) -> list[str]:
    """The text of each completion, without its end-of-sequence token."""
    rows = zip(rollout.input_ids.tolist(), rollout.response_mask.tolist(), strict=True)
    special = {tokenizer.eos_token_id, tokenizer.pad_token_id}
    return [
        tokenizer.decode([i for i, keep in zip(ids, mask, strict=True) if keep and i not in special])
        for ids, mask in rows
    ]
