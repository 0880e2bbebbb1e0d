"""Week 06, a property of one's own, worked: which tokens the clip of PPO leaves a gradient.

A token beyond the bound in the direction that its advantage asks for is left alone; one on the wrong side of the bound
is still corrected, towards where its advantage points. At the old policy the gradient is that of REINFORCE.
"""

import torch
from hypothesis import given
from hypothesis import strategies as st


@given(tokens=st.integers(1, 5), low=st.sampled_from([0.1, 0.3]), high=st.sampled_from([0.2, 0.5]))
def test_mine(week, tokens, low, high):
    old = -torch.linspace(0.5, 2.0, tokens, dtype=torch.float64).repeat(2, 1)
    advantages = torch.tensor([1.5, -0.5], dtype=torch.float64)
    mask = torch.ones(2, tokens)

    def gradient(log_ratio: float) -> torch.Tensor:
        """What gradient descent adds to each log-prob, when all ratios are exp(log_ratio)."""
        logprobs = (old + log_ratio).requires_grad_()
        loss = week.ppo_clip_loss(logprobs, old, advantages, mask, clip_low=low, clip_high=high)
        return -torch.autograd.grad(loss, logprobs)[0]

    above, below, start = gradient(0.7), gradient(-0.7), gradient(0.0)
    assert (above[0] == 0).all() and (below[1] == 0).all()  # far enough where the advantage wants them
    assert (above[1] < 0).all() and (below[0] > 0).all()  # wrong so far: corrected, however far
    assert torch.allclose(start, advantages[:, None] / (2 * tokens) * mask)
