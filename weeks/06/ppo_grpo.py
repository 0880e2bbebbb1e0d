"""Week 06: PPO, GRPO and their clipping (book chapter 6). Fill in the functions; `pytest weeks/06` grades this file.

Shapes: B completions of up to T tokens; P prompts with G completions each. `logprobs[i, t]` is the log-probability of
the token at t under the policy that is being trained, `old_logprobs` under the policy that sampled it, `ref_logprobs`
under the frozen reference; rho = exp(logprobs - old_logprobs). `mask[i, t]` is 1 on completion tokens and 0 elsewhere,
of bool, int or float dtype, one contiguous span a row; what stands under a 0 must not matter. Gradients flow into
`logprobs` (or `values`) and into nothing else, even if something else requires one. Results have the dtype of the
floating inputs; no input is changed in place. Helper functions of your own are welcome.

`aggregate`, as in week 05, turns token losses x into a scalar (n_i tokens in row i; an empty row has sum 0):
  "sequence_sum" (1/B) sum_i sum_t x     "sequence_mean" (1/B) sum_i (1/n_i) sum_t x
  "token_mean" (1/sum_i n_i) sum_i sum_t x     "constant" 1/(B max_length) sum_i sum_t x, ValueError without max_length
Any other word is a ValueError that names it.

Star, for every function: NaN or infinity under the mask changes nothing; batches of empty rows have loss 0 and gradient
0; half precision is computed in float32; no NaN at log-ratios of 200, in the value nor in the gradient.
"""

from torch import Tensor


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation: how much better each token turned out than the critic expected.

    Formula: delta_t = r_t + gamma V_{t+1} - V_t, with V = 0 after the last token of the span (no bootstrap);
             A_t = delta_t + gamma lam A_{t+1}; returns R_t = A_t + V_t, the critic's targets.
    Shapes:  rewards, values, mask (B, T) -> (advantages (B, T), returns (B, T)).
    Edges:   both are constants and 0 where the mask is 0. The span may start after a prompt and end before padding;
             rewards and values outside it do not count. An empty row is all 0.
    Example: rewards [[0, 0, 1]], values [[0.5, 0.5, 0.5]], mask all 1, gamma 1, lam 0.5
             -> advantages [[0.125, 0.25, 0.5]], returns [[0.625, 0.75, 1.0]]
    Source:  Schulman et al. 2015, arXiv:1506.02438, eq. 16; book ch. 6, generalised advantage estimation.
    """
    raise NotImplementedError("Week 06, task 1: write gae (lesson section 'Credit with a critic')")


def ppo_clip_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    aggregate: str = "token_mean",
    max_length: int | None = None,
) -> Tensor:
    """PPO's clipped surrogate: the policy gradient on a stale rollout, without reward for leaving the clip range.

    Formula: token loss -min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A), then `aggregate`.
    Shapes:  logprobs, old_logprobs (B, T), advantages (B, T) or (B,), mask (B, T) -> scalar.
    Edges:   the minimum is taken after multiplying by A. With A < 0 it keeps rho A above 1 + clip_high.
    Example: logprobs [[-1, -1]], old_logprobs [[-1.5, -0.5]], mask [[1, 1]]
             -> -0.9033 for advantages [[1, 1]], 1.2244 for advantages [[-1, -1]]
    Source:  Schulman et al. 2017, arXiv:1707.06347, eq. 7; two bounds: DAPO, arXiv:2503.14476; book ch. 6, PPO.
    """
    raise NotImplementedError("Week 06, task 2: write ppo_clip_loss (lesson section 'The clip')")


def value_clip_loss(values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, clip: float = 0.2) -> Tensor:
    """The critic's loss with PPO's trust region: half the larger of the clipped and the unclipped squared error.

    Formula: token loss 1/2 max((v - R)^2, (clip(v, old - clip, old + clip) - R)^2), averaged over all tokens.
    Shapes:  values, old_values, returns, mask (B, T) -> scalar.
    Edges:   gradient into `values` alone; none for a value that moved more than `clip` towards its return.
    Example: values [[1, 2]], old_values [[0.5, 2]], returns [[1, 3]], mask [[1, 1]] -> 0.2725
    Source:  "The 37 implementation details of PPO" (Huang et al. 2022), no. 9; book ch. 6, PPO.
    """
    raise NotImplementedError("Week 06, task 3: write value_clip_loss (lesson section 'The critic')")


def grpo_advantages(rewards: Tensor, normalize_std: bool = True, eps: float = 1e-4) -> Tensor:
    """GRPO's critic-free advantages: rewards standardised within each prompt's group.

    Formula: (r - mean) / (std + eps), mean and unbiased std (divisor G - 1) of the group; r - mean without
             `normalize_std`, which is Dr. GRPO.
    Shapes:  rewards (P, G) -> (P, G); row p holds the group of prompt p, and groups never mix.
    Edges:   a group of one is 0. Star: a group of equal rewards is exactly 0, not rounding noise.
    Example: [[1, 0, 0, 0]] -> [[1.4997, -0.4999, -0.4999, -0.4999]]; normalize_std=False: [[0.75, -0.25, -0.25, -0.25]]
    Source:  DeepSeekMath, arXiv:2402.03300, section 4.1.2; Dr. GRPO, arXiv:2503.20783, section 3; book ch. 6, GRPO.
    """
    raise NotImplementedError("Week 06, task 4: write grpo_advantages (lesson section 'A group instead of a critic')")


def grpo_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    ref_logprobs: Tensor | None,
    advantages: Tensor,
    mask: Tensor,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    beta: float = 0.0,
    aggregate: str = "sequence_mean",
    max_length: int | None = None,
) -> Tensor:
    """The GRPO loss: the clipped surrogate plus a penalty for leaving the reference, at each token.

    Formula: token loss -min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A) + beta k3, then `aggregate`;
             k3 = exp(-d) - 1 + d with d = logprobs - ref_logprobs, the estimate of KL(pi || ref) of week 01.
    Shapes:  logprobs, old_logprobs, ref_logprobs (B, T), advantages (B,), mask (B, T) -> scalar.
    Edges:   `ref_logprobs` may be None when beta is 0.
    Example: logprobs [[-1, -1], [-2, -9]], old_logprobs [[-1.5, -0.5], [-2.5, -9]], ref_logprobs [[-1, -2], [-2, -9]],
             advantages [1, -1], mask [[1, 1], [1, 0]] -> 0.3727 with beta 0, 0.3819 with beta 0.1
    Source:  DeepSeekMath, arXiv:2402.03300, eq. 3 and 4; Dr. GRPO ("constant"), arXiv:2503.20783; book ch. 6, GRPO.
    """
    raise NotImplementedError("Week 06, task 5: write grpo_loss (lesson section 'The GRPO loss')")


def gspo_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    clip_low: float = 3e-4,
    clip_high: float = 4e-4,
) -> Tensor:
    """Stretch. GSPO: one ratio for a whole completion, so that it is kept or clipped as a whole.

    Formula: s_i = exp((1/n_i) sum_t mask (logprob - old)), length-normalised, with gradient;
             -(1/B) sum_i min(s_i A_i, clip(s_i, 1 - clip_low, 1 + clip_high) A_i).
    Shapes:  logprobs, old_logprobs (B, T), advantages (B,), mask (B, T) -> scalar.
    Edges:   an empty row contributes 0 and counts in B. The bounds are small because s is an average over tokens.
    Example: logprobs [[-1, -1], [-2, -9]], old_logprobs [[-1.5, -0.7], [-2.5, -9]], advantages [1, -1],
             mask [[1, 1], [1, 0]] -> 0.3242, and 0.2718 with both bounds 0.2
    Source:  Zheng et al. 2025, arXiv:2507.18071, eq. 5 and 7; book ch. 6, GSPO.
    """
    raise NotImplementedError("Week 06, task 6 (stretch): write gspo_loss (lesson section 'Whole sequences: GSPO')")


def cispo_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    clip_low: float = 1.0,
    clip_high: float = 4.0,
) -> Tensor:
    """Stretch. CISPO: clip the importance weight, not the gradient, so that no token is silenced.

    Formula: token loss -w A logprob, w = clip(rho, 1 - clip_low, 1 + clip_high) a constant; averaged over all tokens.
    Shapes:  logprobs, old_logprobs (B, T), advantages (B,), mask (B, T) -> scalar.
    Edges:   the gradient is that of A logprob times w: none flows through w.
    Example: logprobs [[-1, -1], [-2, -9]], old_logprobs [[-1.5, -4], [-2.5, -9]], advantages [1, -1],
             mask [[1, 1], [1, 0]] -> 1.1171
    Source:  MiniMax-M1, arXiv:2506.13585, section 3.1; book ch. 6, CISPO.
    """
    raise NotImplementedError("Week 06, task 7 (stretch): write cispo_loss (lesson section 'No token left out: CISPO')")
