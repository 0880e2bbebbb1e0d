"""Week 06, a property of your own (bonus). A test is worth what it catches: this one is held against wrong code.

Write one hypothesis test that is true of the week's functions whatever the inputs. `week` holds them: call
`week.ppo_clip_loss(...)`, `week.gae(...)` and so on. The grader runs the test on the reference, where it must pass, and
on known wrong versions of the functions that it calls, where it should fail. Two catches earn the points; the report
names them.

What such a test looks like, for a function that is not of this week. Softmax does not notice a shift:

    @given(n=st.integers(1, 7), seed=st.integers(0, 1000))
    def test_mine(week, n, seed):
        x = torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        assert torch.allclose(week.softmax(x + 3.0), week.softmax(x))

Draw sizes and a seed, as here, and make the tensors from them: that is fast, and a failing input fits in a head.
float64 makes rounding small. A test that computes the answer in the same way as the function proves little; gradients
say more than values here: `torch.autograd.grad(loss, logprobs)` of a clipped token, of a token under the mask?
"""

import torch
from hypothesis import given
from hypothesis import strategies as st


@given(rows=st.integers(1, 3), tokens=st.integers(1, 5), seed=st.integers(0, 1000))
def test_mine(week, rows, tokens, seed):
    generator = torch.Generator().manual_seed(seed)
    logprobs, old_logprobs = -3 * torch.rand(2, rows, tokens, generator=generator, dtype=torch.float64)
    raise NotImplementedError(f"Week 06: write a property; drawn so far: {tuple((logprobs - old_logprobs).shape)}")
