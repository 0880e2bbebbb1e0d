"""Completions with verdicts, sampled from a model and judged by the verifier: what reward models learn from."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from reference_impl.data.pairs import SAMPLING_BATCH
from reference_impl.errors import UserError
from reference_impl.loops.evaluate import rollout, verifier_rewards
from reference_impl.tasks import Prompt
from reference_impl.tasks.chain_sum import STEP_END


@dataclass
class Judged:
    """B completions; of sampled ones `group` for each prompt, next to each other. T tokens, padded on the right."""

    prompts: list[Prompt]  # B of them, one a row
    texts: list[str]
    input_ids: Tensor  # (B, T)
    attention_mask: Tensor  # (B, T)
    completion_mask: Tensor  # (B, T)
    finished: Tensor  # (B,) bool: ended by itself
    correct: Tensor  # (B,) 1.0 or 0.0
    group: int
    labels: Tensor | None = None  # (B, T) of the steps, -100 where nothing is asked (week 04)

    def __len__(self) -> int:
        return len(self.texts)

    def part(self, start: int, stop: int) -> Judged:
        """The completions start ... stop - 1."""
        cut = slice(start, stop)
        tensors = (self.input_ids, self.attention_mask, self.completion_mask, self.finished, self.correct)
        labels = None if self.labels is None else self.labels[cut]
        return Judged(self.prompts[cut], self.texts[cut], *(part[cut] for part in tensors), self.group, labels)


def sample_judged(
    policy: nn.Module, tokenizer, task, prompts: list[Prompt], samples: int, max_new_tokens: int, seed: int
) -> Judged:
    """`samples` completions of each prompt at temperature 1, judged by the verifier. The same seed gives the same."""
    generator, parts = torch.Generator().manual_seed(seed), []
    for first in range(0, len(prompts), SAMPLING_BATCH):
        some = prompts[first : first + SAMPLING_BATCH]
        sampled, texts = rollout(policy, tokenizer, some, samples, max_new_tokens, 1.0, generator)
        correct = verifier_rewards(task, some, texts, sampled.finished)
        each = [prompt for prompt in some for _ in range(samples)]
        tensors = (sampled.input_ids, sampled.attention_mask, sampled.response_mask, sampled.finished, correct)
        parts.append(Judged(each, texts, *tensors, samples))
    return join(parts)


def join(parts: list[Judged]) -> Judged:
    """All completions in one; the shorter ones padded on the right with 0."""
    width = max(part.input_ids.shape[1] for part in parts)

    def together(name: str) -> Tensor:
        tensors = [getattr(part, name) for part in parts]
        return torch.cat([pad(t, (0, width - t.shape[1])) if t.dim() == 2 else t for t in tensors])

    names = ("input_ids", "attention_mask", "completion_mask", "finished", "correct")
    prompts = [prompt for part in parts for prompt in part.prompts]
    texts = [text for part in parts for text in part.texts]
    return Judged(prompts, texts, *map(together, names), parts[0].group)


def ends_step(input_ids: Tensor, tokenizer) -> Tensor:
    """Which tokens end a step: those that hold `=`, which large vocabularies have in several ("=", "=-"). bool."""
    return torch.isin(input_ids, torch.tensor(tokenizer.ids_with(STEP_END), device=input_ids.device))


def all_pairs(data: Judged) -> Tensor:
    """Every right completion beside every wrong one of the same prompt: rows (N, 2), right first."""
    pairs = []
    for first in range(0, len(data), data.group):
        verdicts = data.correct[first : first + data.group]
        right, wrong = (verdicts == 1).nonzero()[:, 0], (verdicts != 1).nonzero()[:, 0]
        pairs.append(torch.cartesian_prod(right, wrong).view(-1, 2) + first)
    return torch.cat(pairs)


def some_pairs(data: Judged, per_prompt: int, seed: int) -> Tensor:
    """At most `per_prompt` of each prompt's pairs, drawn at random: rows (N, 2). UserError when there is none."""
    pairs = all_pairs(data)
    if len(pairs) == 0:
        raise UserError(
            "No prompt has both a right and a wrong completion, so there are no pairs to learn from: start from a "
            "policy that is right now and then, or raise reward_prompts or samples_per_prompt."
        )
    generator = torch.Generator().manual_seed(seed)
    pairs = pairs[torch.randperm(len(pairs), generator=generator, device=generator.device)]
    pairs = pairs[(pairs[:, 0] // data.group).argsort(stable=True)]
    prompt = pairs[:, 0] // data.group
    new = torch.cat([torch.ones(1, dtype=torch.bool), prompt[1:] != prompt[:-1]])
    position = torch.arange(len(pairs))
    start = torch.where(new, position, 0).cummax(0).values  # where each pair's prompt begins
    return pairs[position - start < per_prompt]


def same_format(data: Judged, pairs: Tensor) -> Tensor:
    """Those of the pairs whose two completions look alike: both ended by themselves, in equally many tokens."""
    lengths = data.completion_mask.sum(1)
    alike = (lengths[pairs[:, 0]] == lengths[pairs[:, 1]]) & data.finished[pairs].all(1)
    return pairs[alike]


def with_twins(data: Judged, tokenizer, task, seed: int) -> tuple[Judged, Tensor]:
    """The right completions, and of each a wrong twin that differs in one digit of the answer; and the pairs (N, 2).

    Twins are negatives made by template: always as long and as complete as the right answer, so that nothing about the
    mistakes of a real solver can be learned from them.
    """
    rng = random.Random(seed)
    right = [row for row in range(len(data)) if data.correct[row] == 1 and data.finished[row]]
    digits = [tokenizer.encode(digit)[0] for digit in "123456789"]
    is_digit = torch.isin(data.input_ids, torch.tensor([*tokenizer.encode("0")[:1], *digits]))
    step_end = ends_step(data.input_ids, tokenizer) & data.completion_mask.bool()
    answer_digits = is_digit & data.completion_mask.bool() & (step_end.flip(1).cumsum(1).flip(1) == 0)
    originals, twins = [], []
    for row in right:
        places = answer_digits[row].nonzero()[:, 0].tolist()
        if not places:
            continue
        twin = data.input_ids[row].clone()
        place = rng.choice(places)
        twin[place] = rng.choice([digit for digit in digits if digit != twin[place]])
        text = tokenizer.decode(twin[data.completion_mask[row].bool()])
        if task.reward(data.prompts[row], text, True) == 0.0:
            originals.append(row)
            twins.append((twin, text))
    kept = torch.tensor(originals, dtype=torch.long)
    half = [data.attention_mask[kept], data.completion_mask[kept], data.finished[kept]]
    prompts = [data.prompts[row] for row in originals]
    good = Judged(prompts, [data.texts[r] for r in originals], data.input_ids[kept], *half, torch.ones(len(kept)), 1)
    ids = torch.stack([twin for twin, _ in twins]) if twins else data.input_ids[kept]
    bad = Judged(prompts, [text for _, text in twins], ids, *half, torch.zeros(len(kept)), 1)
    return join([good, bad]), torch.arange(2 * len(kept)).view(2, -1).T
