"""Week 05, a property of one's own, worked: leave-one-out is measured in the group's own terms.

Three claims that follow from A = r - mean of the others, without computing A again: a constant added to all rewards of
a prompt cancels; two completions of one prompt differ in advantage by their difference in reward plus what each loses
as the other's baseline, so by G / (G - 1) times it; and changing one prompt leaves the others alone.
"""

import torch
from hypothesis import given
from hypothesis import strategies as st


@given(prompts=st.integers(1, 5), group=st.integers(2, 5), seed=st.integers(0, 1000))
def test_mine(week, prompts, group, seed):
    generator = torch.Generator().manual_seed(seed)
    rewards = torch.randn(prompts, group, generator=generator, dtype=torch.float64)
    advantages = week.rloo_advantages(rewards)

    assert torch.allclose(week.rloo_advantages(rewards + 3.0), advantages)

    differences = advantages - advantages[:, :1]
    assert torch.allclose(differences, group / (group - 1) * (rewards - rewards[:, :1]))

    other = rewards.clone()
    other[0] += torch.arange(group, dtype=torch.float64)
    assert torch.allclose(week.rloo_advantages(other)[1:], advantages[1:])
