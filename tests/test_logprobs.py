"""Log-probs from hidden states: the same numbers and gradients as from whole logits, without keeping the logits."""

import copy

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from reference_impl import logprobs, sft
from reference_impl.logprobs import chunked_mean, hidden_logprobs, parts_by_length
from reference_impl.models import NanoConfig, NanoLM
from reference_impl.sampling import score

V = 5003


@pytest.fixture(params=["nano", "Qwen3", "Olmo2", "Llama"])
def model(request):
    torch.manual_seed(0)
    sizes = {"vocab_size": V, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    if request.param == "nano":
        return NanoLM(NanoConfig(**sizes, num_attention_heads=2, head_dim=8)).double()
    import transformers

    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "initializer_range": 0.3}
    config = getattr(transformers, f"{request.param}Config")(**sizes, **heads)
    return getattr(transformers, f"{request.param}ForCausalLM")(config).double()


def batch(rows=7, width=11):
    """Rows of different lengths, with completions of different lengths."""
    torch.manual_seed(1)
    ids = torch.randint(3, V, (rows, width))
    lengths = torch.tensor([11, 4, 9, 2, 11, 7, 6])[:rows]
    attention = (torch.arange(width) < lengths[:, None]).long()
    return ids, attention, attention * (torch.arange(width) >= torch.tensor([5, 2, 3, 1, 10, 6, 2])[:rows, None])


def plainly(model, ids, attention, temperature):
    logits = model(input_ids=ids, attention_mask=attention).logits[:, :-1].double() / temperature
    chosen = logits.log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)
    return torch.nn.functional.pad(chosen, (1, 0))


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_scores_and_their_gradients_are_those_of_the_whole_logits(model, temperature, monkeypatch):
    monkeypatch.setattr(logprobs, "CHUNK_LOGITS", 4 * V)  # several chunks, the last one not full
    ids, attention, mask = batch()
    weight = torch.randn(ids.shape, dtype=torch.float64) * mask
    got = score(model, ids, attention, temperature, mask)
    want = plainly(model, ids, attention, temperature)
    torch.testing.assert_close(got, (want * mask).float(), rtol=0, atol=2e-6)
    assert got.dtype == torch.float32 and (got[mask == 0] == 0).all()
    parameters = list(model.parameters())
    for one, other in zip(
        torch.autograd.grad((got * weight).sum(), parameters),
        torch.autograd.grad((want * weight).sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_without_gradient_rows_are_read_by_length_and_come_back_in_order(model, monkeypatch):
    ids, attention, mask = batch()
    with torch.no_grad():
        want = plainly(model, ids, attention, 1.0)
        for tokens in (1, 20, 1000):
            monkeypatch.setattr(logprobs, "SCORED_TOKENS", tokens)
            torch.testing.assert_close(score(model, ids, attention), (want * attention).float(), rtol=0, atol=2e-6)


def test_what_stands_outside_the_mask_never_enters(model):
    ids, attention, mask = batch()
    hidden = torch.randn(*ids.shape, 16, dtype=torch.float64)
    hidden[mask == 0] = torch.nan
    hidden.requires_grad_()
    got = hidden_logprobs(model, hidden, ids, mask)
    got.sum().backward()
    assert got.isfinite().all() and hidden.grad[mask == 0].eq(0).all()
    assert model.model.embed_tokens.weight.grad is None or model.model.embed_tokens.weight.grad.isfinite().all()
    assert hidden_logprobs(model, hidden, ids, torch.zeros_like(mask)).eq(0).all()


def test_parts_are_sorted_by_length_and_bounded():
    attention = (torch.arange(9) < torch.tensor([2, 9, 5, 9, 1, 4])[:, None]).long()
    parts = parts_by_length(attention, 18)
    assert sorted(torch.cat([rows for rows, _ in parts]).tolist()) == list(range(6))
    assert [width for _, width in parts] == [9, 5, 1]
    assert all(len(rows) * width <= 18 or len(rows) == 1 for rows, width in parts)
    assert all(int(attention[rows].sum(1).max()) == width for rows, width in parts)


def test_a_mean_over_tokens_is_the_weighted_mean_of_its_chunks(monkeypatch):
    monkeypatch.setattr(logprobs, "CHUNK_LOGITS", 3 * V)
    torch.manual_seed(0)
    model = NanoLM(NanoConfig(vocab_size=V, hidden_size=16, intermediate_size=24)).double()
    plain, (ids, attention, mask) = copy.deepcopy(model), batch()
    labels = torch.where(mask.bool(), ids, sft.IGNORE)
    loss = sft.sft_loss(plain(input_ids=ids, attention_mask=attention).logits, labels)
    loss.backward()
    hidden = logprobs.hidden_states(model, ids, attention)[:, :-1]
    wanted = labels[:, 1:] != sft.IGNORE

    def cross_entropy(rows, targets):
        return torch.nn.functional.cross_entropy(model.lm_head(rows), targets)

    chunked = chunked_mean(cross_entropy, model, hidden[wanted], labels[:, 1:][wanted])
    chunked.backward()
    torch.testing.assert_close(chunked, loss)
    for one, other in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_the_nano_vocabulary_keeps_to_whole_logits():
    model, ids = NanoLM(), torch.randint(3, 60, (3, 6))
    every = torch.ones_like(ids)
    assert not logprobs.large_vocabulary(model)
    half = every * (torch.arange(6) > 2)
    assert torch.equal(score(model, ids, every), score(model, ids, every, mask=half))


class Largest(TorchDispatchMode):
    """The number of elements of the largest tensor that any operation makes, in forward and backward pass."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for one in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(one, torch.Tensor):
                self.elements = max(self.elements, one.numel())
        return made


@pytest.mark.parametrize("gradient", [True, False])
def test_no_tensor_is_as_large_as_tokens_times_vocabulary(gradient, monkeypatch):
    torch.manual_seed(0)
    model = NanoLM(NanoConfig(vocab_size=V, hidden_size=16, intermediate_size=24, num_attention_heads=2, head_dim=8))
    ids = torch.randint(3, V, (6, 40))
    monkeypatch.setattr(logprobs, "CHUNK_LOGITS", 8 * V)
    with Largest() as largest, torch.set_grad_enabled(gradient):
        logps = score(model, ids, torch.ones_like(ids))
        if gradient:
            logps.sum().backward()
    assert largest.elements == 16 * V, "a chunk is 8 tokens, the embedding matrix 16: no more than that at any time"
