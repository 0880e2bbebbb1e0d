"""Rows that begin alike share tokens: fewer are computed, and nothing else changes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference_impl.models import HeadedLM, NanoConfig, NanoLM
from reference_impl.models.prefixes import Prefixes, right_padded


def padded(rows):
    """Right-padded ids and mask of lists of ids; the padding is noise."""
    width = max(map(len, rows))
    ids = torch.tensor([row + [7 + width % 3] * (width - len(row)) for row in rows])
    return ids, torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])


def different_prefixes(rows):
    return {tuple(row[:end]) for row in rows for end in range(1, len(row) + 1)}


batches = st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=6), min_size=1, max_size=7)


@settings(deadline=None, derandomize=True)
@given(rows=batches)
def test_every_different_prefix_is_one_token(rows):
    ids, mask = padded(rows)
    prefixes = Prefixes(ids, mask)
    assert len(prefixes.tokens) == len(different_prefixes(rows))
    assert torch.equal(prefixes.rows(prefixes.tokens)[mask.bool()], ids[mask.bool()])
    columns = torch.arange(ids.shape[1]).expand_as(ids)
    assert torch.equal(prefixes.rows(prefixes.positions)[mask.bool()], columns[mask.bool()])
    assert torch.equal(prefixes.once(prefixes.paths(prefixes.tokens)), prefixes.tokens)
    # attention goes along the rows that are not the beginning of another
    begun = {tuple(row[:end]) for row in rows for end in range(1, len(row))}
    assert len(prefixes.path_cells) == len({tuple(row) for row in rows} - begun)
    # two cells share a token exactly when their rows agree up to there
    number = prefixes.rows(torch.arange(len(prefixes.tokens))).tolist()
    seen = {}
    for row, numbers in zip(rows, number, strict=True):
        for end in range(1, len(row) + 1):
            assert seen.setdefault(tuple(row[:end]), numbers[end - 1]) == numbers[end - 1]
    assert len(set(seen.values())) == len(seen)


@pytest.mark.parametrize("headed", [False, True])
@settings(deadline=None, derandomize=True, max_examples=30)
@given(rows=batches, seed=st.integers(0, 100))
def test_outputs_and_gradients_are_those_of_each_row_alone(headed, rows, seed):
    torch.manual_seed(seed)
    model = NanoLM(NanoConfig(vocab_size=16, hidden_size=8, intermediate_size=12, num_attention_heads=2, head_dim=4))
    model = (HeadedLM(model, 2) if headed else model).double()
    ids, mask = padded(rows)

    def gradient(loss):
        model.zero_grad()
        loss.backward()
        return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])

    alone = [model(input_ids=torch.tensor([row])).logits[0] for row in rows]
    weights = torch.randn(*ids.shape, alone[0].shape[-1], dtype=torch.float64)
    expected = gradient(sum((w[: len(a)] * a).sum() for w, a in zip(weights, alone, strict=True)))
    together = model(input_ids=ids, attention_mask=mask).logits
    torch.testing.assert_close(together[mask.bool()], torch.cat(alone), rtol=1e-9, atol=1e-9)
    got = gradient((weights * together)[mask.bool()].sum())
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


def test_only_padding_at_the_end_is_right_padding():
    assert right_padded(torch.tensor([[1, 1, 0], [1, 0, 0], [1, 1, 1]]))
    assert not right_padded(torch.tensor([[0, 1, 1], [1, 1, 1]]))
    assert not right_padded(torch.tensor([[1, 0, 1]]))
    assert not right_padded(torch.tensor([[0, 0, 0], [1, 1, 1]]))


def test_a_group_with_one_prompt_is_read_once(monkeypatch):
    """Eight answers to a prompt of 40 tokens: 40 + 8 * 2 tokens reach the layers, not 8 * 42."""
    model = NanoLM()
    rows = [[3 + i % 50 for i in range(40)] + [4 + answer, 2] for answer in range(8)]
    ids, mask = padded(rows)
    widths = []
    model.model.layers[0].mlp.register_forward_pre_hook(lambda module, args: widths.append(args[0].shape[:-1].numel()))
    model(input_ids=ids, attention_mask=mask)
    assert widths == [56]
