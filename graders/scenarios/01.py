"""Scenes for week 01: claims about an answer that hold exactly."""

import torch


def impossible_answers(optimal_policy, ref_probs: torch.Tensor, rewards: torch.Tensor, beta: float):
    """The policy, and whether every answer that the reference never gives has a probability of exactly 0."""
    policy = optimal_policy(ref_probs, rewards, beta)
    return {"policy": policy, "exactly 0 where ref_probs is 0": not policy[ref_probs == 0].any().item()}
