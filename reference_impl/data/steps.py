"""Step labels of sampled completions: what a process reward model learns from."""

import torch
from torch import Tensor

from reference_impl.data.judged import Judged, ends_step
from reference_impl.errors import UserError
from reference_impl.tasks.chain_sum import STEP_END


def step_labels(data: Judged, task, tokenizer, functions, label_eos: bool) -> Tensor:
    """Labels (B, T) by the week's `prm_labels`: the task's own arithmetic rates each step, the verifier the end.

    Each single step of a solution that stops too early is right; the mistake is to stop. So the end of sequence gets a
    label too (unless `label_eos` is False): good when the answer is right, else bad.
    """
    ratings = [task.step_labels(prompt, text) for prompt, text in zip(data.prompts, data.texts, strict=True)]
    separator = tokenizer.encode(STEP_END)[0]
    with_one_separator = torch.where(ends_step(data.input_ids, tokenizer), separator, data.input_ids)
    labels = checked(functions.prm_labels(with_one_separator, separator, ratings, data.completion_mask), data)
    if label_eos:
        verdicts = [[1 if correct == 1 else -1] for correct in data.correct.tolist()]
        at_end = functions.prm_labels(data.input_ids, tokenizer.eos_token_id, verdicts, data.completion_mask)
        labels = torch.where(labels == -100, checked(at_end, data), labels)
    return labels


def checked(labels, data: Judged) -> Tensor:
    """UserError unless prm_labels returned labels that can be learned from."""
    if not isinstance(labels, Tensor) or labels.shape != data.input_ids.shape:
        got = tuple(labels.shape) if isinstance(labels, Tensor) else type(labels).__name__
        raise UserError(f"prm_labels should return a tensor of shape {tuple(data.input_ids.shape)}, not {got}.")
    found = set(labels.unique().tolist())
    if not found <= {-100, 0, 1, 2}:
        raise UserError(f"prm_labels should give -100, 0, 1 or 2, not {sorted(found - {-100, 0, 1, 2})[:3]}.")
    return labels
