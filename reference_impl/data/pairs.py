"""Preference pairs from a model's own samples, labelled by the verifier: one right and one wrong answer to a prompt."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from reference_impl.errors import UserError
from reference_impl.loops.evaluate import rollout, verifier_rewards
from reference_impl.runs.files import write_text

SAMPLING_BATCH = 256  # prompts sampled at once


@dataclass(frozen=True)
class Pair:
    """Token ids; the end of sequence is part of a response that ended."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]


def sample_pairs(
    model: nn.Module, tokenizer, task, prompts, samples: int, per_prompt: int, max_new_tokens: int, seed: int
) -> list[Pair]:
    """At most `per_prompt` pairs of each prompt, out of `samples` completions of it; no sample is used twice.

    Samples may repeat a text, and so may pairs: what the model often gets wrong is often among the rejected.
    A prompt that the model always or never solves gives no pair. Pairs of a prompt stand next to each other.
    """
    generator = torch.Generator().manual_seed(seed)
    pairs = []
    for first in range(0, len(prompts), SAMPLING_BATCH):
        some = prompts[first : first + SAMPLING_BATCH]
        sampled, texts = rollout(model, tokenizer, some, samples, max_new_tokens, 1.0, generator)
        rewards = verifier_rewards(task, some, texts, sampled.finished).tolist()
        responses = [
            ids[mask.bool()].tolist() for ids, mask in zip(sampled.input_ids, sampled.response_mask, strict=True)
        ]
        for number, prompt in enumerate(some):
            rows = range(number * samples, (number + 1) * samples)
            right = [responses[row] for row in rows if rewards[row] == 1.0]
            wrong = [responses[row] for row in rows if rewards[row] != 1.0]
            encoded = tokenizer.encode_prompt(prompt)
            pairs += [Pair(encoded, *two) for two in list(zip(right, wrong, strict=False))[:per_prompt]]
    return pairs


def split_pairs(pairs: list[Pair], held_out: int) -> tuple[list[Pair], list[Pair]]:
    """(training, held out): the last `held_out` pairs, and no prompt on both sides. UserError when too few are left."""
    if len(pairs) <= held_out:
        raise UserError(
            f"Only {len(pairs)} pairs came out of the samples, and {held_out} are to be held out: raise pair_prompts "
            "or samples_per_prompt, lower held_out_pairs, or start from a policy that is right now and then."
        )
    last = {tuple(pair.prompt) for pair in pairs[len(pairs) - held_out :]}
    training = [pair for pair in pairs if tuple(pair.prompt) not in last]
    return training, [pair for pair in pairs if tuple(pair.prompt) in last]


def collate_pairs(pairs: list[Pair], pad_id: int) -> dict[str, Tensor]:
    """{chosen,rejected}_{input_ids,attention_mask,response_mask}, each (B, T) right-padded to its side's own length."""
    batch = {}
    for side in ("chosen", "rejected"):
        tensors = collate_answers([(pair.prompt, getattr(pair, side)) for pair in pairs], pad_id)
        for name, tensor in zip(("input_ids", "attention_mask", "response_mask"), tensors, strict=True):
            batch[f"{side}_{name}"] = tensor
    return batch


def collate_answers(answers: list[tuple[list[int], list[int]]], pad_id: int) -> tuple[Tensor, Tensor, Tensor]:
    """(prompt, answer) rows as input_ids, attention_mask and response_mask, each (R, T), padded on the right."""
    lengths = torch.tensor([len(prompt) + len(answer) for prompt, answer in answers])[:, None]
    prompts = torch.tensor([len(prompt) for prompt, _ in answers])[:, None]
    rows = [torch.tensor(prompt + answer) for prompt, answer in answers]
    input_ids = pad_sequence(rows, batch_first=True, padding_value=pad_id)
    columns = torch.arange(input_ids.shape[1])[None]
    attention_mask = (columns < lengths).long()
    return input_ids, attention_mask, attention_mask * (columns >= prompts)


def write_pairs(path: Path, pairs: list[Pair]) -> None:
    """One JSON object a line."""
    write_text(path, "".join(json.dumps(asdict(pair)) + "\n" for pair in pairs))


def read_pairs(path: Path) -> list[Pair]:
    """What `write_pairs` wrote."""
    return [Pair(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
