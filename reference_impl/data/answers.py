"""Single answers marked good or bad, out of pairs: what SimPO, ORPO and KTO read in one forward pass."""

from dataclasses import dataclass

import torch
from torch import Tensor

from reference_impl.data.order import batch_indices
from reference_impl.data.pairs import Pair, collate_answers
from reference_impl.errors import UserError
from reference_impl.settings import ReferenceFreeSettings

BAD_ORDER = 10_007  # added to the seed where good and bad answers are shuffled apart


@dataclass
class Answers:
    """R answers of up to T tokens, padded on the right: first the good ones, then the bad ones.

    Out of pairs there are as many of each, and good i and bad i answer the same prompt.
    """

    input_ids: Tensor  # (R, T) prompt and answer
    attention_mask: Tensor  # (R, T)
    mask: Tensor  # (R, T) 1 on the answer
    desirable: Tensor  # (R,) bool
    ref_logps: Tensor | None = None  # (R,) summed log-probs of the reference
    kl_logps: Tensor | None = None  # (R,) of mismatched pairs under the policy, a constant
    ref_kl_logps: Tensor | None = None  # (R,) and under the reference


def good_and_bad(training: list[Pair], step: int, settings: ReferenceFreeSettings) -> tuple[list[Pair], list[Pair]]:
    """Pairs whose chosen answers, and pairs whose rejected answers, make up update `step` (from 0).

    By default the same pairs. With `bad_per_good` = k the pairing is gone: one good answer in k is kept, and good and
    bad are drawn apart, k bad for each good, as many answers as before.
    """
    k = settings.bad_per_good
    if k is None:
        rows = batch_indices(step, len(training), settings.batch_size, settings.seed)
        return [training[row] for row in rows], [training[row] for row in rows]
    kept = training[::k]
    n_good = max(1, round(2 * settings.batch_size / (k + 1)))
    n_bad = 2 * settings.batch_size - n_good
    good = batch_indices(step, len(kept), n_good, settings.seed)
    bad = batch_indices(step, len(training), n_bad, settings.seed + BAD_ORDER)
    return [kept[row] for row in good], [training[row] for row in bad]


def collate(good: list[Pair], bad: list[Pair], pad_id: int) -> tuple[Answers, Answers]:
    """The answers, and the same prompts with answers to other prompts."""
    rows = [(pair.prompt, pair.chosen) for pair in good] + [(pair.prompt, pair.rejected) for pair in bad]
    desirable = torch.tensor([True] * len(good) + [False] * len(bad))
    answers = Answers(*collate_answers(rows, pad_id), desirable)
    return answers, Answers(*collate_answers(mismatched(rows), pad_id), desirable)


def mismatched(rows: list[tuple[list[int], list[int]]]) -> list[tuple[list[int], list[int]]]:
    """Each prompt with the answer of the next row that has another prompt."""
    following = rows[1:] + rows
    pairs = []
    for number, (prompt, _) in enumerate(rows):
        answer = next((answer for other, answer in following[number : number + len(rows)] if other != prompt), None)
        if answer is None:
            raise UserError("A batch of KTO needs answers to two prompts at least: raise batch_size.")
        pairs.append((prompt, answer))
    return pairs
