"""Week 02, a property of one's own, worked: what stands beside a token must not matter to the loss.

A batch of two rows of different lengths is one long sum: its loss times its supervised tokens is the sum of the rows'
own losses times theirs, whatever padding stands behind the shorter row, and whatever the labels say at position 0,
which nothing predicts.
"""

import torch
from hypothesis import given
from hypothesis import strategies as st


@given(short=st.integers(2, 4), longer=st.integers(1, 4), seed=st.integers(0, 1000))
def test_mine(week, short, longer, seed):
    generator = torch.Generator().manual_seed(seed)
    lengths = (short, short + longer)
    logits = torch.randn(2, max(lengths), 7, generator=generator, dtype=torch.float64)
    labels = torch.randint(7, (2, max(lengths)), generator=generator)
    labels[0, short:] = -100  # padding

    rows = [(logits[i : i + 1, :n], labels[i : i + 1, :n]) for i, n in enumerate(lengths)]
    total = sum(week.sft_loss(*row) * (n - 1) for row, n in zip(rows, lengths, strict=True))
    assert torch.allclose(week.sft_loss(logits, labels) * (sum(lengths) - 2), total)

    elsewhere = labels.clone()
    elsewhere[:, 0] = -100
    assert torch.allclose(week.sft_loss(logits, elsewhere), week.sft_loss(logits, labels))

    other = logits.clone()
    other[0, short - 1 :] += 1.0 + torch.arange(7)  # the last logits of a row predict nothing
    other[1, -1] += 1.0 + torch.arange(7)
    assert torch.allclose(week.sft_loss(other, labels), week.sft_loss(logits, labels))
