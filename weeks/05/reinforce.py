"""Week 05: REINFORCE and RLOO (book chapter 6). Fill in the five functions; `pytest weeks/05` grades this file.

Shapes: B completions of up to T tokens; P prompts with G completions each. `logprobs[i, t]` is the log-probability of
the token at t. `mask[i, t]` is 1 on completion tokens and 0 elsewhere, of bool, int or float dtype; what stands under a
0 must not matter. Results have the dtype of the floating inputs; no input is changed in place.
"""

from torch import Tensor


def reinforce_loss(logprobs: Tensor, rewards: Tensor, mask: Tensor, baseline: float | Tensor = 0.0) -> Tensor:
    """The score-function loss: minus the mean of (reward - baseline) times the completion's log-prob.

    Formula: -(1/B) sum_i (r_i - b_i) sum_t mask[i, t] logprobs[i, t]; over samples its gradient averages to -grad E[r].
    Shapes:  logprobs (B, T), rewards (B,), mask (B, T), baseline a number or (B,) -> scalar.
    Edges:   rewards and baseline are constants: no gradient flows into them, even if they require one. The tokens of a
             completion are summed, not averaged. A row with an empty mask contributes 0 and still counts in B.
             Star: NaN or infinity under the mask changes nothing; half precision is summed in float32.
    Example: logprobs [[-1, -2], [-3, -4]], mask [[1, 1], [1, 0]], rewards [1, 3], baseline 0.5 -> 4.5
    Source:  Williams 1992, "Simple statistical gradient-following algorithms"; book ch. 6, REINFORCE.
    """
    raise NotImplementedError("Week 05, task 1: write reinforce_loss (lesson section 'The score-function estimator')")


def rloo_advantages(rewards: Tensor) -> Tensor:
    """REINFORCE leave-one-out: each reward minus the mean reward of the other G - 1 completions of the same prompt.

    Formula: A[p, g] = r[p, g] - (1/(G-1)) sum_{h != g} r[p, h].
    Shapes:  rewards (P, G) -> (P, G); row p holds the group of prompt p.
    Edges:   G < 2 raises ValueError: there is no other completion to compare with. Groups never mix.
             Star: a group of equal rewards gives exactly 0, not rounding noise.
    Example: [[1, 0, 0.5]] -> [[0.75, -0.75, 0]]
    Source:  Ahmadian et al. 2024, arXiv:2402.14740; Kool et al. 2019, "Buy 4 REINFORCE samples"; book ch. 6, RLOO.
    """
    raise NotImplementedError("Week 05, task 2: write rloo_advantages (lesson section 'Leave one out')")


def batch_baseline(rewards: Tensor) -> Tensor:
    """A baseline from the batch: for each completion the mean reward of all the other completions.

    Formula: b_i = (1/(B-1)) sum_{j != i} r_j. The own reward stays out, or the baseline would depend on the sample it
             is subtracted from, and the gradient would shrink by (B-1)/B.
    Shapes:  rewards (B,) -> (B,).
    Edges:   B = 1 gives [0]: alone, a completion has no baseline.
    Example: [1, 0, 2] -> [1, 1.5, 0.5]
    Source:  Williams 1992; Sutton and Barto, section 13.4; book ch. 6, REINFORCE with a baseline.
    """
    raise NotImplementedError("Week 05, task 3: write batch_baseline (lesson section 'Baselines')")


def reward_to_go(rewards: Tensor, mask: Tensor, gamma: float) -> Tensor:
    """The return of each token: the discounted sum of its own and all later rewards of the same completion.

    Formula: G_t = r_t + gamma r_{t+1} + gamma^2 r_{t+2} + ... = r_t + gamma G_{t+1}, over the masked span of the row.
    Shapes:  rewards (B, T), mask (B, T), gamma a number in [0, 1] -> (B, T).
    Edges:   rewards at masked positions do not count, and the result is 0 there. Each row's mask is one contiguous
             span, which may start after a prompt. An empty row is all 0.
             Star: NaN or infinity under the mask changes nothing.
    Example: rewards [[1, 2, 4]], mask [[1, 1, 1]], gamma 0.5 -> [[3, 4, 4]]
    Source:  Sutton and Barto, "Reinforcement Learning", eq. 3.8 and 3.9; book ch. 6, policy gradient algorithms.
    """
    raise NotImplementedError("Week 05, task 4: write reward_to_go (lesson section 'Credit for each token')")


def policy_gradient_loss(
    logprobs: Tensor, advantages: Tensor, mask: Tensor, aggregate: str, max_length: int | None = None
) -> Tensor:
    """The policy-gradient loss with any advantage: -advantage * logprob at each token, aggregated to a scalar.

    Formula: with x = -A logprob, m the mask, n_i the tokens of row i, `aggregate` names the reduction:
             "sequence_sum"   (1/B) sum_i sum_t m x              the unbiased one: task 1 is this
             "sequence_mean"  (1/B) sum_i (1/n_i) sum_t m x      GRPO
             "token_mean"     (1/sum_i n_i) sum_i sum_t m x      DAPO
             "constant"       1/(B max_length) sum_i sum_t m x   Dr. GRPO
    Shapes:  logprobs (B, T), advantages (B,) for whole completions or (B, T) for tokens, mask (B, T) -> scalar.
    Edges:   advantages are constants. A row with an empty mask is a row with sum 0, also when all rows are empty.
             ValueError naming the value for an unknown `aggregate`, and for "constant" without `max_length`.
             Star: NaN or infinity under the mask changes nothing; half precision is summed in float32.
    Example: logprobs [[-1, -2], [-3, -4]], advantages [1, 2], mask [[1, 1], [1, 0]] -> sequence_sum 4.5,
             sequence_mean 3.75, token_mean 3.0, constant with max_length=4 1.125
    Source:  book ch. 6, loss aggregation; GRPO arXiv:2402.03300 eq. 3; DAPO arXiv:2503.14476 section 3.3; Dr. GRPO
             arXiv:2503.20783 section 3.
    """
    raise NotImplementedError("Week 05, task 5: write policy_gradient_loss (lesson section 'Tokens to one number')")
