"""Week 03: reward models (book chapter 5). Fill in the five functions; `pytest weeks/03` grades this file.

Shapes: B sequences (or pairs of them) of up to T tokens. A mask is 1 where a token counts and 0 elsewhere, of bool, int
or float dtype, one contiguous span a row; what stands under a 0 must not matter. Results have the dtype of the floating
inputs; no input is changed in place.

Star, for every function: NaN or infinity under the mask changes nothing; empty rows give 0 and never NaN; logits and
rewards of 1e4 are no problem; half precision is computed in float32.
"""

from torch import Tensor


def last_token_rewards(values: Tensor, attention_mask: Tensor) -> Tensor:
    """The reward of a sequence: the value head's output at the last attended token of each row.

    Formula: rewards[i] = values[i, t_i], t_i the largest t with attention_mask[i, t] = 1.
    Shapes:  values (B, T), attention_mask (B, T) -> (B,).
    Edges:   rows may be padded on the right or on the left, each row in its own way. Gradient into that token's value
             alone. Star: a row that attends to nothing gives 0.
    Example: values [[1, 2, 3], [4, 5, 6]], attention_mask [[1, 1, 0], [0, 1, 1]] -> [2, 6]
    Source:  book ch. 5, reward models; Stiennon et al. 2020, arXiv:2009.01325, section 3.4.
    """
    raise NotImplementedError("Week 03, task 1: write last_token_rewards (lesson section 'One number for a text')")


def bradley_terry_loss(chosen: Tensor, rejected: Tensor, margin: float | Tensor = 0.0) -> Tensor:
    """The negative log-likelihood of the preferences: P(chosen beats rejected) = sigmoid of the difference of rewards.

    Formula: mean over i of -log sigmoid(chosen_i - rejected_i - margin_i).
    Shapes:  chosen (B,), rejected (B,), margin a number or (B,) -> scalar.
    Edges:   the margin is a constant: no gradient flows into it. Star: finite, with the right gradient, at
             differences of -200 and -1e4 (it is -1/B for `chosen` and 1/B for `rejected` of a hopeless pair).
    Example: chosen [2, 0], rejected [1, 1] -> 0.8133; with margin 1 -> 1.4100
    Source:  Bradley and Terry 1952; InstructGPT, arXiv:2203.02155, eq. 1; margin: Llama 2, arXiv:2307.09288, eq. 2;
             book ch. 5, the Bradley-Terry model of preference.
    """
    raise NotImplementedError("Week 03, task 2: write bradley_terry_loss (lesson section 'A loss for preferences')")


def pairwise_accuracy(chosen: Tensor, rejected: Tensor) -> Tensor:
    """How often the model ranks a pair as the annotator did.

    Formula: mean over i of 1 if chosen_i > rejected_i, 1/2 if they are equal, else 0.
    Shapes:  chosen (B,), rejected (B,) -> scalar, of the dtype of the inputs.
    Edges:   a tie counts one half, so that a constant model has accuracy 0.5.
    Example: chosen [2, 0, 1, 5], rejected [1, 1, 1, 4] -> 0.625
    Source:  book ch. 5, evaluating reward models; RewardBench, arXiv:2403.13787.
    """
    raise NotImplementedError("Week 03, task 3: write pairwise_accuracy (lesson section 'Is it any good?')")


def orm_loss(logits: Tensor, correct: Tensor, completion_mask: Tensor) -> Tensor:
    """The outcome reward model's loss: every completion token predicts whether its completion is correct.

    Formula: token loss -[y log sigmoid(z) + (1 - y) log(1 - sigmoid(z))], z = logits[i, t], y = correct[i];
             mean over all completion tokens of the batch (not over rows first).
    Shapes:  logits (B, T), correct (B,) of 0 and 1 in any dtype, completion_mask (B, T) -> scalar.
    Edges:   prompt and padding tokens have no part in it. `correct` is a constant. Star: no completion token at all
             gives loss 0 and gradient 0.
    Example: logits [[2, -1], [0.5, 9]], correct [1, 0], completion_mask [[1, 1], [1, 0]] -> 0.8048
    Source:  Cobbe et al. 2021, arXiv:2110.14168; Lightman et al. 2023, arXiv:2305.20050; book ch. 5, ORMs.
    """
    raise NotImplementedError("Week 03, task 4: write orm_loss (lesson section 'Right or wrong, at every token')")


def orm_score(logits: Tensor, completion_mask: Tensor, how: str) -> Tensor:
    """One probability of correctness for each completion, out of its tokens' probabilities p = sigmoid(logits).

    Formula: "last": p at the last completion token; "mean": its mean over the completion's tokens; "min": the least.
    Shapes:  logits (B, T), completion_mask (B, T) -> (B,).
    Edges:   any other `how` is a ValueError that names it. Star: a completion without tokens scores 0.
    Example: logits [[2, -1], [0.5, 9]], completion_mask [[1, 1], [1, 0]]
             -> last [0.2689, 0.6225], mean [0.5749, 0.6225], min [0.2689, 0.6225]
    Source:  Cobbe et al. 2021, arXiv:2110.14168 (verifiers); book ch. 5, ORMs.
    """
    raise NotImplementedError("Week 03, task 5: write orm_score (lesson section 'From tokens to a score')")
