"""Week 08, a property of one's own, worked: what DPO's loss does not notice, and what it starts from.

Only the margin of log-ratios counts: what is added to policy and reference alike cancels, and so does what is added to
both responses of a pair. Where policy and reference agree the loss is log 2, and each pair pulls with beta / 2 times
its share of the batch, up for the chosen and down for the rejected.
"""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st


@given(pairs=st.integers(1, 5), beta=st.sampled_from([0.1, 0.5, 2.0]), seed=st.integers(0, 1000))
def test_mine(week, pairs, beta, seed):
    generator = torch.Generator().manual_seed(seed)
    chosen, rejected, ref_chosen, ref_rejected = -5 * torch.rand(4, pairs, generator=generator, dtype=torch.float64)
    loss = week.dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta=beta)
    assert torch.allclose(week.dpo_loss(chosen - 1, rejected, ref_chosen - 1, ref_rejected, beta=beta), loss)
    assert torch.allclose(week.dpo_loss(chosen - 2, rejected - 2, ref_chosen, ref_rejected, beta=beta), loss)
    assert week.dpo_loss(chosen + 1, rejected, ref_chosen, ref_rejected, beta=beta) < loss

    leaves = [ref_chosen.clone().requires_grad_(), ref_rejected.clone().requires_grad_()]
    start = week.dpo_loss(*leaves, ref_chosen, ref_rejected, beta=beta)
    assert math.isclose(float(start), math.log(2), rel_tol=1e-9)
    up, down = torch.autograd.grad(-start, leaves)
    assert torch.allclose(up, torch.full_like(up, beta / 2 / pairs)) and torch.allclose(down, -up)
