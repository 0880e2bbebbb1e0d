"""Week 04: process reward models (book chapter 5). Fill in the five functions; `pytest weeks/04` grades this file.

Shapes: B solutions of up to T tokens or up to S steps; P prompts with N sampled solutions each. A process reward model
gives three logits at every token, for the classes 0 bad, 1 neutral, 2 good; they are read at the separator token that
ends a step. A mask is 1 where something counts and 0 elsewhere, of bool, int or float dtype, one contiguous span a row.
Results have the dtype of the floating inputs; no input is changed in place.

Star, for every function: NaN or infinity at unlabelled positions or under the mask changes nothing; where nothing is
labelled the loss and its gradient are 0; half precision is computed in float32.
"""

from torch import Tensor


def prm_labels(input_ids: Tensor, separator_id: int, step_ratings: list[list[int]], completion_mask: Tensor) -> Tensor:
    """Put each step's rating where the step ends: at its separator in the completion.

    Formula: the k-th separator of row i inside the completion gets step_ratings[i][k] + 1, so that the ratings -1, 0, 1
             become the classes 0, 1, 2; every other position gets -100, "nothing is asked here".
    Shapes:  input_ids (B, T), step_ratings B lists of any lengths, completion_mask (B, T) -> LongTensor (B, T).
    Edges:   separators in the prompt or under padding end no step. More ratings than separators (a truncated trace):
             the surplus ratings are dropped. More separators than ratings: the surplus separators stay -100.
    Example: input_ids [[7, 5, 7, 3, 7, 7]], separator_id 7, step_ratings [[1, -1]],
             completion_mask [[0, 1, 1, 1, 1, 1]] -> [[-100, -100, 2, -100, 0, -100]]
    Source:  Lightman et al. 2023, arXiv:2305.20050, section 2.6; book ch. 5, process reward models.
    """
    raise NotImplementedError("Week 04, task 1: write prm_labels (lesson section 'Where a step ends')")


def prm_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """The process reward model's loss: three-class cross-entropy at the labelled positions.

    Formula: mean over all positions of the batch with labels != -100 of -log softmax(logits[i, t])[labels[i, t]].
    Shapes:  logits (B, T, 3), labels (B, T) -> scalar.
    Edges:   no shift: the logits at a position are judged by the label at the same position. Star: nothing labelled in
             the whole batch gives loss 0 and gradient 0.
    Example: logits [[[0, 0, 0], [1, 0, 2]]], labels [[-100, 2]] -> 0.4076; with labels [[0, 2]] -> 0.7531
    Source:  Lightman et al. 2023, arXiv:2305.20050, section 2.6; book ch. 5, process reward models.
    """
    raise NotImplementedError("Week 04, task 2: write prm_loss (lesson section 'A loss for every step')")


def step_scores(logits: Tensor, labels: Tensor) -> list[Tensor]:
    """The model's verdict on each step: the probability that it is good.

    Formula: softmax(logits[i, t])[2] at each position t of row i with labels[i, t] != -100, from left to right.
    Shapes:  logits (B, T, 3), labels (B, T) -> list of B tensors, the i-th of shape (number of steps of row i,).
    Edges:   a row without steps gives an empty tensor. The values of the labels do not matter, only where they are.
    Example: logits [[[0, 0, 0], [1, 0, 2]]], labels [[-100, 1]] -> [[0.6652]]; labels [[0, 1]] -> [[0.3333, 0.6652]]
    Source:  Lightman et al. 2023, arXiv:2305.20050, appendix F; book ch. 5, process reward models.
    """
    raise NotImplementedError("Week 04, task 3: write step_scores (lesson section 'Reading the scores')")


def aggregate_steps(scores: Tensor, step_mask: Tensor, how: str) -> Tensor:
    """One score for a whole solution out of the scores of its steps.

    Formula: over the real steps of each row: "min" the smallest score, "prod" the product, "mean" the average, "last"
             the score of the last real step.
    Shapes:  scores (B, S), step_mask (B, S) -> (B,).
    Edges:   a row without steps scores 0, whatever `how` is. "prod" is accurate for chains of a thousand steps, and
             exactly 0 if a score is 0 (no epsilon). Any other `how` is a ValueError that names it.
    Example: scores [[0.9, 0.5, 0.8], [0.6, 0, 0]], step_mask [[1, 1, 1], [1, 0, 0]]
             -> min [0.5, 0.6], prod [0.36, 0.6], mean [0.7333, 0.6], last [0.8, 0.6]
    Source:  Lightman et al. 2023, arXiv:2305.20050, appendix F; book ch. 5, process reward models.
    """
    raise NotImplementedError("Week 04, task 4: write aggregate_steps (lesson section 'From steps to a solution')")


def rerank_accuracy(scores: Tensor, correct: Tensor) -> Tensor:
    """Best-of-N accuracy: how often the best-scored of a prompt's N samples is correct.

    Formula: mean over prompts of the share of correct samples among those with the prompt's highest score.
    Shapes:  scores (P, N), correct (P, N) of 0 and 1 in any dtype -> scalar, of the dtype of the scores.
    Edges:   samples that tie for the highest score share the credit; a constant scorer gets the mean accuracy.
    Example: scores [[1, 3, 2], [2, 2, 0]], correct [[0, 1, 0], [1, 0, 1]] -> 0.75
    Source:  Cobbe et al. 2021, arXiv:2110.14168; Lightman et al. 2023, arXiv:2305.20050, section 3; book ch. 5.
    """
    raise NotImplementedError("Week 04, task 5: write rerank_accuracy (lesson section 'Best of N')")
