"""NanoLM: a language model small enough to train on a laptop core, of the same type as Qwen3.

One block is

    h = x + Attention(RMSNorm(x))          RMSNorm(x) = scale * x / sqrt(mean(x^2) + eps)
    x = h + SwiGLU(RMSNorm(h))             SwiGLU(x)  = W_down(silu(W_gate x) * W_up x)

with rotary positions (RoPE) and RMS-normalised queries and keys (qk-norm). The embedding matrix is used twice: it turns
token ids into vectors, and transposed it turns the last vectors into logits ("tied embeddings").

The parameters carry the names of transformers' `Qwen3ForCausalLM`, so a nano checkpoint opens there unchanged, and the
call convention is that of a transformers causal LM, so every loop of this course runs on both.

Sources: Qwen3 technical report (arXiv 2505.09388); RoPE (arXiv 2104.09864); SwiGLU (arXiv 2002.05202);
RMSNorm (arXiv 1910.07467).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference_impl.models.prefixes import Prefixes, right_padded

SHORT = 64  # tokens


@dataclass
class NanoConfig:
    """Sizes of a NanoLM; the names are those of transformers' Qwen3Config."""

    vocab_size: int = 64
    hidden_size: int = 64
    intermediate_size: int = 160
    num_hidden_layers: int = 2
    num_attention_heads: int = 4
    head_dim: int = 16
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10_000.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, (int, float)) or not value > 0:
                raise ValueError(f"NanoConfig.{field.name} must be a positive number, got {value!r}")
        if self.head_dim % 2:
            raise ValueError(f"NanoConfig.head_dim must be even, because RoPE rotates pairs; got {self.head_dim}")


@dataclass
class LMOutput:
    """What a forward pass returns."""

    logits: Tensor | None = None  # (B, T, V)
    last_hidden_state: Tensor | None = None  # (B, T, d)
    hidden_states: tuple[Tensor, ...] | None = None  # the last entry is last_hidden_state
    past_key_values: KVCache | None = None


class KVCache:
    """Keys and values of the tokens seen so far, written into room that is allocated ahead and doubled when full.

    Stored as (T, B, H, D), time first: a new token's keys lie in one piece of memory, and so do those of every step.
    """

    def __init__(self, layers: int) -> None:
        self.layers: list[tuple[Tensor, Tensor] | None] = [None] * layers
        self.lengths = [0] * layers

    def get_seq_length(self) -> int:
        return self.lengths[0]

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append keys and values (T, B, H, D); return those of all tokens so far."""
        start, end = self.lengths[layer], self.lengths[layer] + len(keys)
        if self.layers[layer] is None or len(self.layers[layer][0]) < end:
            self._grow(layer, max(32, 2 * end), keys)
        all_keys, all_values = self.layers[layer]
        all_keys[start:end], all_values[start:end] = keys, values
        self.lengths[layer] = end
        return all_keys[:end], all_values[:end]

    def _grow(self, layer: int, room: int, like: Tensor) -> None:
        larger = tuple(like.new_empty(room, *like.shape[1:]) for _ in range(2))
        if self.layers[layer] is not None:
            for new, old in zip(larger, self.layers[layer], strict=True):
                new[: len(old)] = old
        self.layers[layer] = larger

    # The next two carry the names of transformers' DynamicCache, so that the rollout engine treats both alike.
    def batch_repeat_interleave(self, repeats: int) -> None:
        for layer, (keys, values) in enumerate(self.layers):
            used = self.lengths[layer]
            self.layers[layer], self.lengths[layer] = None, 0
            self.update(layer, *(x[:used].repeat_interleave(repeats, dim=1) for x in (keys, values)))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Row i becomes row indices[i], in the same memory: rows that stay where they are cost nothing."""
        places = torch.arange(len(indices), device=indices.device)
        moved = places[indices != places]
        for layer, pair in enumerate(self.layers):
            for x in pair:
                used = x[: self.lengths[layer]]
                used.index_copy_(1, moved, used.index_select(1, indices[moved]))
            self.layers[layer] = tuple(x[:, : len(indices)] for x in pair)


class RMSNorm(nn.Module):
    """x / root-mean-square(x), times a learned scale."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


def rope_tables(position_ids: Tensor, frequencies: Tensor) -> tuple[Tensor, Tensor]:
    """cos and -+sin of position * frequency, for `rotate`: (...) and (D/2,) -> each (..., 1, 1, D)."""
    angles = position_ids[..., None, None, None] * frequencies
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pair (a, b) = (x_i, x_{i + D/2}) by its position's angle: (a cos - b sin, b cos + a sin).

    x is (..., D). Rolled by D/2, the row (a, b) becomes (b, a).
    """
    return (x * cos + x.roll(x.shape[-1] // 2, dims=-1) * sin).to(x.dtype)


class Attention(nn.Module):
    """Causal self-attention with RMS-normalised queries and keys: (B, T, d), or with `prefixes` (N, d), to the same."""

    def __init__(self, config: NanoConfig) -> None:
        super().__init__()
        inner = config.num_attention_heads * config.head_dim
        self.head_dim = config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, inner, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, inner, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, inner, bias=False)
        self.o_proj = nn.Linear(inner, config.hidden_size, bias=False)
        self.q_norm = RMSNorm(config.head_dim, config.rms_norm_eps)
        self.k_norm = RMSNorm(config.head_dim, config.rms_norm_eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask, cache: KVCache | None, layer: int, prefixes=None):
        # one product for all three projections, one norm and one rotation for queries and keys: the model is so small
        # that the number of operations costs more than their size
        weight = torch.cat((self.q_proj.weight, self.k_proj.weight, self.v_proj.weight))
        heads = F.linear(x, weight).unflatten(-1, (3, -1, self.head_dim))  # (..., 3, H, D)
        scale = torch.stack((self.q_norm.weight, self.k_norm.weight))[:, None]
        normed = F.rms_norm(heads[..., :2, :, :], (self.head_dim,), eps=self.q_norm.eps) * scale
        qk, v = rotate(normed, cos, sin), heads[..., 2, :, :]
        if prefixes is not None:
            qk, v = prefixes.paths(qk), prefixes.paths(v)  # (L, T, ...)
        q, k = qk.permute(2, 1, 0, 3, 4)  # each (T, B, H, D)
        v = v.transpose(0, 1)
        if cache is not None:
            k, v = cache.update(layer, k, v)
        if len(q) == 1:
            x = attend_once(q, k, v, mask)[:, None]
        else:
            q, k, v = (x.permute(1, 2, 0, 3) for x in (q, k, v))  # each (B, H, T, D)
            if mask is None and q.shape[2] <= SHORT:
                x = attend_short(q, k, v).transpose(1, 2)
            else:
                x = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None).transpose(1, 2)
        x = x.flatten(2)  # (B, T, H * D)
        return self.o_proj(x if prefixes is None else prefixes.once(x))


def attend_short(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k / sqrt(D)) v where each token sees those up to it: three times (B, H, T, D) -> (B, H, T, D).

    The same as F.scaled_dot_product_attention, which saves memory; for short rows two products are faster on a CPU.
    """
    length = q.shape[2]
    later = torch.full((1, length, length), -torch.inf, device=q.device, dtype=q.dtype).triu(1)
    scores = torch.baddbmm(later, q.flatten(0, 1), k.flatten(0, 1).transpose(1, 2), alpha=q.shape[-1] ** -0.5)
    return torch.bmm(scores.softmax(-1), v.flatten(0, 1)).view_as(q)


def attend_once(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """softmax(q k / sqrt(D)) v of one query: q is (1, B, H, D), k and v are (T, B, H, D) -> (B, H, D).

    The same as F.scaled_dot_product_attention, whose thousands of tiny matrix products take twice as long on a CPU.
    """
    scores = (q * k).sum(-1) * q.shape[-1] ** -0.5  # (T, B, H)
    if mask is not None:
        scores = scores.masked_fill(~mask[:, 0, 0].T[:, :, None], -torch.inf)
    return (scores.softmax(0)[..., None] * v).sum(0)


class SwiGLU(nn.Module):
    """W_down(silu(W_gate x) * W_up x)."""

    def __init__(self, config: NanoConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    def __init__(self, config: NanoConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = SwiGLU(config)

    def forward(self, x: Tensor, *where):
        x = x + self.self_attn(self.input_layernorm(x), *where)
        return x + self.mlp(self.post_attention_layernorm(x))


def attention_mask_of(padding: Tensor | None, queries: int, keys: int) -> Tensor | None:
    """Which key each query may see, (B, 1, queries, keys) bool; None when causality alone decides.

    Every position may see itself, padding too: a softmax over nothing would be NaN and spread through later layers.
    """
    if queries == 1:  # the newest token sees everything but padding, itself included
        return None if padding is None else padding[:, None, None, :].bool()
    if padding is None and queries == keys:
        return None
    device = None if padding is None else padding.device
    past = keys - queries
    causal = torch.ones(queries, keys, dtype=torch.bool, device=device).tril(past)
    if padding is None:
        return causal
    itself = torch.eye(keys, dtype=torch.bool, device=device)[past:]
    return (causal & padding[:, None, None, :].bool()) | itself


class NanoBackbone(nn.Module):
    """Embedding, blocks and the last norm: token ids (B, T) -> hidden states (B, T, d)."""

    def __init__(self, config: NanoConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        exponents = torch.arange(0, config.head_dim, 2) / config.head_dim
        self.register_buffer("frequencies", config.rope_theta**-exponents, persistent=False)  # theta^(-2i/D)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: KVCache | None = None,
        use_cache: bool = False,
    ) -> LMOutput:
        cache = past_key_values if past_key_values is not None else KVCache(len(self.layers)) if use_cache else None
        past, length = cache.get_seq_length() if cache is not None else 0, input_ids.shape[1]
        prefixes = None
        if cache is None and position_ids is None and attention_mask is not None and right_padded(attention_mask):
            prefixes = Prefixes(input_ids, attention_mask)
            # no token of a right-padded batch comes after padding, so causality alone decides what it sees
            input_ids, position_ids, attention_mask = prefixes.tokens, prefixes.positions, None
        elif position_ids is None:
            position_ids = torch.arange(past, past + length, device=input_ids.device)[None]
        cos, sin = rope_tables(position_ids, self.frequencies)
        mask = attention_mask_of(attention_mask, length, past + length)
        x = self.embed_tokens(input_ids)
        for index, block in enumerate(self.layers):
            x = block(x, cos, sin, mask, cache, index, prefixes)
        x = self.norm(x)
        return LMOutput(last_hidden_state=x if prefixes is None else prefixes.rows(x), past_key_values=cache)


class NanoLM(nn.Module):
    """The language model: logits[:, t] are the scores of the token at t + 1.

    `model(input_ids=(B, T), attention_mask=(B, past + T) or None)` returns an object with `.logits (B, T, V)`,
    `.hidden_states` (on request; its last entry is the normalised hidden state (B, T, d)) and `.past_key_values`
    (with `use_cache`). `logits_to_keep=n` computes only the last n positions' logits (0: all of them).
    """

    def __init__(self, config: NanoConfig | None = None) -> None:
        super().__init__()
        self.config = config or NanoConfig()
        self.model = NanoBackbone(self.config)
        for parameter in self.parameters():
            if parameter.dim() == 2:
                # the 0.02 of large models is about 1/sqrt(d) at their width; kept at d = 64 it stalls learning
                nn.init.normal_(parameter, std=self.config.hidden_size**-0.5)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: KVCache | None = None,
        use_cache: bool = False,
        output_hidden_states: bool = False,
        logits_to_keep: int = 0,
    ) -> LMOutput:
        output = self.model(input_ids, attention_mask, position_ids, past_key_values, use_cache)
        output.logits = self.lm_head(output.last_hidden_state[:, -logits_to_keep:])
        if output_hidden_states:
            output.hidden_states = (output.last_hidden_state,)
        return output

    def lm_head(self, hidden: Tensor) -> Tensor:
        """Hidden states (..., d) -> logits (..., V), by the embedding matrix transposed."""
        return hidden @ self.model.embed_tokens.weight.T
