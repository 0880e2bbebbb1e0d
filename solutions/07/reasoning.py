r"""Week 07, solved: verifiable rewards and inference-time scaling.

Read it after your own attempt. Each comment says why a line is there; most of them guard against something that real
training code got wrong.
"""

import math
import re
from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor

# The content holds no tag of its own: from "<answer>1 <answer>2</answer>" it is the inner 2 that was closed.
ANSWER = re.compile(r"<answer>((?:(?!</?answer>).)*)</answer>", re.DOTALL)
# \\. steps over any escaped character, so that \{ and \} (printed braces) are not counted.
BRACE = re.compile(r"\\boxed\{|\\.|[{}]", re.DOTALL)
# 1,234,567 but neither 1,23 nor 0,123 nor a part of a longer number.
THOUSANDS = re.compile(r"(?<![0-9.,])[1-9][0-9]{0,2}(?:,[0-9]{3})+(?![0-9]|,[0-9])")
# Each digit can be matched in one way only. [0-9]+\.?[0-9]* reads the same numbers, but takes quadratic time on a long
# run of digits that fails in the end, and a policy does write those.
NUMBER = r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"


def extract_answer(text: str) -> str | None:
    r"""The last closed <answer>...</answer>, else the last closed \boxed{...}, stripped; None without either."""
    tagged = ANSWER.findall(text)
    if not tagged:
        return _last_box(text)
    box = _last_box(tagged[-1])  # <answer>\boxed{5}</answer> means 5
    return tagged[-1].strip() if box is None else box


def _last_box(text: str) -> str | None:
    r"""The content of the last \boxed{...} that closes. A regular expression cannot count braces; a stack can."""
    waiting = []  # open braces: the position after \boxed{, or None for a plain {
    last_start, last_box = -1, None
    for token in BRACE.finditer(text):
        if token[0] == "{":
            waiting.append(None)
        elif token[0] == r"\boxed{":
            waiting.append(token.end())
        elif token[0] == "}" and waiting:
            start = waiting.pop()
            if start is not None and start > last_start:
                last_start, last_box = start, text[start : token.start()].strip()
    return last_box


def answers_match(answer: str | None, target: str | None) -> bool:
    """Whether two answers are the same text after normalisation, or exactly the same number."""
    if answer is None or target is None:  # two missing answers agree on nothing
        return False
    answer, target = _normalise(answer), _normalise(target)
    if answer == target:
        return True
    number = _number(answer)
    return number is not None and number == _number(target)  # without the first test, None == None: all words match


def _normalise(answer: str) -> str:
    answer = str(answer).lower().replace(r"\$", "").replace("$", "").replace(r"\,", "").replace(r"\%", "%")
    answer = answer.replace(r"\dfrac", r"\frac")
    answer = " ".join(answer.split())  # single spaces stay: "1 1/2" is not "11/2"
    return THOUSANDS.sub(lambda match: match[0].replace(",", ""), answer)


def _number(answer: str) -> Fraction | None:
    """The exact value of a number, None for anything else. Never eval: the text comes from the policy."""
    try:
        if match := re.fullmatch(rf"({NUMBER}) ?(%?)", answer):
            return Fraction(match[1]) / (100 if match[2] else 1)  # Fraction("0.1") is 1/10; float("0.1") is not
        if match := re.fullmatch(rf"({NUMBER}) ?/ ?({NUMBER})", answer):
            return Fraction(match[1]) / Fraction(match[2])
        if match := re.fullmatch(rf"([+-]?) ?\\frac ?{{ ?({NUMBER}) ?}} ?{{ ?({NUMBER}) ?}}", answer):
            return Fraction(match[1] + "1") * Fraction(match[2]) / Fraction(match[3])
    except (ZeroDivisionError, ValueError):
        pass  # 1/0, or more digits than Python agrees to convert: not a number, but no reason to end a training run
    return None


def verifiable_reward(text: str, target: str, format_weight: float = 0.1) -> float:
    """1.0 for a right answer, `format_weight` for a wrong one, 0.0 for none."""
    answer = extract_answer(text)
    if answer is None:
        return 0.0
    return 1.0 if answers_match(answer, target) else float(format_weight)


def pass_at_k(n: int | Tensor, c: int | Tensor, k: int | Tensor) -> float | Tensor:
    """1 - C(n-c, k) / C(n, k).  Ints -> float; tensors broadcast -> tensor."""
    if not any(isinstance(count, Tensor) for count in (n, c, k)):
        return _pass_at_k(n, c, k)
    counts = torch.broadcast_tensors(*(torch.as_tensor(count) for count in (n, c, k)))
    chances = [_pass_at_k(*triple) for triple in zip(*(count.flatten().tolist() for count in counts), strict=True)]
    dtype = torch.result_type(sum(counts), 0.5)  # counts are mostly ints; a chance is not
    return torch.tensor(chances, dtype=dtype, device=counts[0].device).view(counts[0].shape)


def _pass_at_k(n: int, c: int, k: int) -> float:
    if not (0 <= c <= n and 1 <= k <= n):
        # k > n must not pass as "all drawn, so 1": with n = 2 and c = 0 that would call an unsolved problem solved.
        raise ValueError(f"n={n}, c={c}, k={k}: needs 0 <= c <= n and 1 <= k <= n")
    if k > n - c:
        return 1.0  # more draws than wrong samples: one of them is right
    # The chance of k wrong draws in a row, prod_{i<k} (n-c-i)/(n-i) = prod_{i<k} (1 - c/(n-i)), in which c and k may be
    # swapped. No factorials to overflow; log1p and expm1 keep the digits of a chance of 1e-5, which 1 - x would lose.
    i = torch.arange(min(c, k), dtype=torch.float64)
    return -math.expm1(torch.log1p(-max(c, k) / (n - i)).sum().item())


def majority_vote(answers: Sequence[str | None], weights: Sequence[float] | Tensor | None = None) -> str | None:
    """The answer with most (weighted) votes; None abstains; ties go to the first seen."""
    if weights is None:
        weights = [1.0] * len(answers)
    votes = {}  # a dict remembers the order in which answers came
    for answer, weight in zip(answers, weights, strict=True):
        if answer is not None:  # what could not be parsed is no candidate, however often it occurs
            votes[answer] = votes.get(answer, 0.0) + float(weight)
    return max(votes, key=votes.get, default=None)  # max returns the first of several maxima


def best_of_n_accuracy(scores: Tensor, correct: Tensor, n: int) -> Tensor:
    """Expected accuracy of the best-scored of n of the N samples.  Shapes: (P, N), (P, N) -> scalar."""
    total = scores.shape[1]
    if not 1 <= n <= total:
        raise ValueError(f"n={n}: draw between 1 and all N={total} samples")
    scores = scores.detach()
    below = (scores[:, :, None] > scores[:, None, :]).sum(dim=2)  # (P, N): how many score less than this one
    not_above = (scores[:, :, None] >= scores[:, None, :]).sum(dim=2)  # those, and the ones that tie with it
    # within[m]: the chance that all n draws fall on m given samples. Exact in integers until the division.
    within = [math.comb(m, n) / math.comb(total, n) for m in range(total + 1)]
    within = torch.tensor(within, dtype=torch.float64, device=scores.device)
    # The draw's best score is this one's if all draws lie not above it, but not all below it; those that tie share it.
    picked = (within[not_above] - within[below]) / (not_above - below)
    accuracy = (picked * correct.to(picked.dtype)).sum(dim=1).mean()
    return accuracy.to(torch.result_type(scores, 0.5))


def informative_groups(rewards: Tensor) -> Tensor:
    """Groups whose rewards are not all equal.  Shapes: (P, G) -> bool (P,)."""
    # Compared, not std > 0: in float32 the std of eight times 0.7 is 6e-8, and not 0.
    return (rewards != rewards[:, :1]).any(dim=1)
