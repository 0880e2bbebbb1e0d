"""Week 08, a property of your own (bonus). A test is worth what it catches: this one is held against wrong code.

Write one hypothesis test that is true of the week's functions whatever the inputs. `week` holds them: call
`week.dpo_loss(...)` and so on. The grader runs the test on the reference, where it must pass, and on known wrong
versions of the functions that it calls, where it should fail. Two catches earn the points; the report names them.

What such a test looks like, for a function that is not of this week. Softmax does not notice a shift:

    @given(n=st.integers(1, 7), seed=st.integers(0, 1000))
    def test_mine(week, n, seed):
        x = torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        assert torch.allclose(week.softmax(x + 3.0), week.softmax(x))

Draw sizes and a seed, as here, and make the tensors from them: that is fast, and a failing input fits in a head.
float64 makes rounding small. A test that computes the answer in the same way as the function proves little; ask what
the loss is where policy and reference agree, what it does not notice, and where it must fall.
"""

import torch
from hypothesis import given
from hypothesis import strategies as st


@given(pairs=st.integers(1, 5), seed=st.integers(0, 1000))
def test_mine(week, pairs, seed):
    generator = torch.Generator().manual_seed(seed)
    four = -20 * torch.rand(4, pairs, generator=generator, dtype=torch.float64)
    raise NotImplementedError(f"Week 08: write a property; drawn so far: four log-probs of {four.shape[1]} pairs")
