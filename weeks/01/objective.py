"""Week 01: the objective of RLHF (book chapters 1-3). Fill in the five functions; `pytest weeks/01` grades this file.

    J(pi) = E_{y ~ pi}[ r(y) ] - beta KL(pi || ref)

Shapes: B rows, T tokens, V vocabulary, Y possible answers. `logprobs[i, t]` is the log-probability of the token at t.
A mask is 1 where a token counts and 0 elsewhere, of bool, int or float dtype; what stands under a 0 must not matter.
"""

from torch import Tensor


def token_logprobs(logits: Tensor, labels: Tensor) -> Tensor:
    """The log-probability that each position's logits give to its label.

    Formula: out[i, t] = log softmax(logits[i, t])[labels[i, t]]; no shift: logits and labels are aligned already.
    Shapes:  logits (B, T, V), labels (B, T) of ids in the vocabulary -> (B, T).
    Edges:   B = 1 and T = 1 keep their dimensions. Differentiable.
             Star: logits of +-1e4 and logits of -inf at other labels give finite results (log(softmax(x)) does not);
             half precision is computed in float32.
    Example: logits [[[0, log 3]]], labels [[1]] -> [[log 3/4]] = [[-0.2877]]
    Source:  book ch. 3, definitions and background.
    """
    raise NotImplementedError(
        "Week 01, task 1: write token_logprobs (lesson section 'A model is a table of log-probs')"
    )


def sequence_logprobs(logits: Tensor, input_ids: Tensor, response_mask: Tensor) -> Tensor:
    """The log-probability of each response given its prompt.

    Formula: out[i] = sum over t >= 1 of response_mask[i, t] log softmax(logits[i, t-1])[input_ids[i, t]].
    Shapes:  logits (B, T, V), input_ids (B, T), response_mask (B, T) marking tokens of input_ids -> (B,).
    Edges:   position t predicts token t + 1, so the mask shifts with the tokens; the token at 0 has no prediction and
             adds nothing even if it is marked. A row with an empty mask, or T = 1, gives 0.
             Star: NaN or infinity in logits that predict no response token changes neither value nor gradient (where()
             on the log-probs alone is too late: the softmax passes NaN back); half precision is summed in float32.
    Example: logits [[[0, log 3], [0, 0], [5, 9]]], input_ids [[0, 1, 0]], response_mask [[0, 1, 1]]
             -> [log 3/4 + log 1/2] = [-0.9808]
    Source:  book ch. 3, definitions and background; chain rule of probability.
    """
    raise NotImplementedError("Week 01, task 2: write sequence_logprobs (lesson section 'From tokens to responses')")


def kl_estimates(logprobs: Tensor, ref_logprobs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Three estimators of KL(pi || ref) for each token, on tokens that were sampled from pi.

    Formula: with d = logprobs - ref_logprobs: k1 = d, k2 = d^2 / 2, k3 = exp(-d) - 1 + d.
    Shapes:  logprobs (B, T), ref_logprobs (B, T) -> (k1, k2, k3), each (B, T).
    Edges:   k1 and k3 average to the KL, k2 only near it; k2 and k3 are never negative. Mind the sign in the exponent:
             the ratio is ref/pi. Gradients flow into logprobs only.
             Star: k3 is accurate near d = 0 (torch.expm1); half precision is computed in float32.
    Example: logprobs [[-1]], ref_logprobs [[-2]]: d = 1 -> k1 1, k2 0.5, k3 exp(-1) = 0.3679
    Source:  Schulman 2020, "Approximating KL divergence", joschu.net/blog/kl-approx.html; book ch. 15, regularization.
    """
    raise NotImplementedError("Week 01, task 3: write kl_estimates (lesson section 'Measuring distance from samples')")


def kl_shaped_rewards(rewards: Tensor, logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, beta: float) -> Tensor:
    """The reward that RLHF maximises: the reward model's, minus a penalty for leaving the reference.

    Formula: out[i] = rewards[i] - beta sum_t mask[i, t] (logprobs[i, t] - ref_logprobs[i, t]).
    Shapes:  rewards (B,), logprobs (B, T), ref_logprobs (B, T), mask (B, T), beta a number -> (B,).
    Edges:   a sum over tokens, not a mean. A row with an empty mask keeps its reward. beta = 0 returns the rewards.
             Star: NaN or infinity under the mask changes nothing; half precision is summed in float32.
    Example: rewards [1], logprobs [[-1, -2]], ref_logprobs [[-2, -2.5]], mask [[1, 1]], beta 0.1 -> [1 - 0.15] = [0.85]
    Source:  Ouyang et al. 2022 (InstructGPT), arXiv:2203.02155, eq. 2; book ch. 3, the RLHF objective.
    """
    raise NotImplementedError("Week 01, task 4: write kl_shaped_rewards (lesson section 'The price of moving')")


def optimal_policy(ref_probs: Tensor, rewards: Tensor, beta: float) -> Tensor:
    """The policy that maximises E[r] - beta KL(pi || ref) over all distributions on Y answers: it has a closed form.

    Formula: pi(y) = ref(y) exp(r(y) / beta) / Z, Z = sum_y ref(y) exp(r(y) / beta).
    Shapes:  ref_probs (..., Y), rewards (..., Y), beta > 0 -> (..., Y), each last dimension sums to 1.
    Edges:   exactly 0 where ref_probs is 0, whatever the reward there. Any leading dimensions, also none.
             Star: tiny beta (1e-6) is stable: it puts the mass on the best answer that ref can give, ties shared in
             proportion to ref; NaN or infinity in a reward where ref_probs is 0 changes nothing.
    Example: ref_probs [0.5, 0.5, 0], rewards [0, 1, 9], beta 1 -> [0.2689, 0.7311, 0]
    Source:  Rafailov et al. 2023, arXiv:2305.18290, eq. 4; book ch. 8, derivation; ch. 3, the RLHF objective.
    """
    raise NotImplementedError("Week 01, task 5: write optimal_policy (lesson section 'The best policy in closed form')")
