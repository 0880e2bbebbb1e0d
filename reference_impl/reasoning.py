r"""Week 07: verifiable rewards and inference-time scaling: is the answer right, and what do n samples buy?

    text -> extract_answer -> answers_match(answer, target) -> reward 1, format_weight or 0

A policy in training searches for whatever the verifier lets through, so the functions here decide by exact arithmetic
on fractions, never evaluate what they read, and take time linear in its length. Of n samples with c right ones, pass@k
asks whether a set of k holds a right one; majority and best-of-n, whether a rule that cannot see the target picks one.

Where others differ: TRL's accuracy reward parses LaTeX expressions with math_verify, which knows far more notation. The
book's code rewards each of the two think and two answer tags with 0.125; here one weight is paid for an answer given.
Its dynamic sampling drops a group only if all rewards are exactly 0 or all exactly 1; here equal is equal.
"""

import math
import re
from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor

from reference_impl.masking import upcast

ANSWER = re.compile(r"<answer>((?:(?!</?answer>).)*)</answer>", re.DOTALL)  # no tag between the two
BRACE = re.compile(r"\\boxed\{|\\.|[{}]", re.DOTALL)  # \\. steps over escaped braces
THOUSANDS = re.compile(r"(?<![0-9.,])[1-9][0-9]{0,2}(?:,[0-9]{3})+(?![0-9]|,[0-9])")
NUMBER = r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
DECIMAL = re.compile(rf"({NUMBER}) ?(%?)")
RATIO = re.compile(rf"({NUMBER}) ?/ ?({NUMBER})")
FRAC = re.compile(rf"([+-]?) ?\\frac ?\{{ ?({NUMBER}) ?\}} ?\{{ ?({NUMBER}) ?\}}")


def extract_answer(text: str) -> str | None:
    r"""What stands in the last closed <answer>...</answer>, else in the last closed \boxed{...}; None without either.

    Stripped; a box inside the tags is unwrapped. Braces are balanced, escaped ones do not count.
    """
    tagged = ANSWER.findall(text)
    if not tagged:
        return _last_box(text)
    box = _last_box(tagged[-1])
    return tagged[-1].strip() if box is None else box


def answers_match(answer: str | None, target: str | None) -> bool:
    r"""Whether two answers are the same text after normalisation, or exactly the same number. None never matches.

    Normalised: case, outer and repeated spaces, $, \,, \%, \dfrac, thousands separators. Numbers: ints, decimals,
    percents, a/b, \frac{a}{b}.
    """
    if answer is None or target is None:
        return False
    answer, target = _normalise(answer), _normalise(target)
    if answer == target:
        return True
    number = _number(answer)
    return number is not None and number == _number(target)


def verifiable_reward(text: str, target: str, format_weight: float = 0.1) -> float:
    """1.0 for a right answer, `format_weight` for a wrong one, 0.0 for none."""
    answer = extract_answer(text)
    if answer is None:
        return 0.0
    return 1.0 if answers_match(answer, target) else float(format_weight)


def pass_at_k(n: int | Tensor, c: int | Tensor, k: int | Tensor) -> float | Tensor:
    """Chance that k of n samples, drawn without replacement, hold one of the c right ones: 1 - C(n-c, k) / C(n, k).

    Ints give a float; tensors broadcast and give a tensor. ValueError unless 0 <= c <= n and 1 <= k <= n.
    Unbiased for 1 - (1 - p)^k. Chen et al., arXiv:2107.03374, eq. 1.
    """
    if not any(isinstance(count, Tensor) for count in (n, c, k)):
        return _pass_at_k(n, c, k)
    counts = torch.broadcast_tensors(*(torch.as_tensor(count) for count in (n, c, k)))
    chances = [_pass_at_k(*triple) for triple in zip(*(count.flatten().tolist() for count in counts), strict=True)]
    dtype = torch.result_type(sum(counts), 0.5)  # that of floating counts, the default one for ints
    return torch.tensor(chances, dtype=dtype, device=counts[0].device).view(counts[0].shape)


def majority_vote(answers: Sequence[str | None], weights: Sequence[float] | Tensor | None = None) -> str | None:
    """The answer with the largest number (or weight) of votes; ties go to the first seen. arXiv:2203.11171.

    None abstains; None is returned when all do. ValueError when weights and answers differ in number.
    """
    weights = [1.0] * len(answers) if weights is None else weights
    if len(weights) != len(answers):
        raise ValueError(f"{len(weights)} weights for {len(answers)} answers: give one each")
    votes: dict[str, float] = {}
    for answer, weight in zip(answers, weights, strict=True):
        if answer is not None:
            votes[answer] = votes.get(answer, 0.0) + float(weight)
    return max(votes, key=votes.__getitem__, default=None)  # a dict keeps the order of arrival, max its first maximum


def best_of_n_accuracy(scores: Tensor, correct: Tensor, n: int) -> Tensor:
    """Expected accuracy of the best-scored of n samples drawn without replacement from the N, exact, mean over prompts.

    The best score of the draw is s with chance [C(m_s, n) - C(l_s, n)] / C(N, n), of N samples l_s scoring below s and
    m_s not above it. By symmetry each sample that ties at s is picked equally often, so the credit is shared evenly.
    Shapes: scores, correct (P, N) -> scalar. ValueError unless 1 <= n <= N.
    """
    samples = scores.shape[1]
    if not 1 <= n <= samples:
        raise ValueError(f"n={n}: draw between 1 and all N={samples} samples")
    scores = upcast(scores.detach()).contiguous()
    total = math.comb(samples, n)
    within = [math.comb(m, n) / total for m in range(samples + 1)]  # chance that the whole draw lies in m given samples
    within = torch.tensor(within, dtype=torch.float64, device=scores.device)
    ordered = scores.sort(dim=1).values
    below, not_above = (torch.searchsorted(ordered, scores, right=right) for right in (False, True))
    picked = (within[not_above] - within[below]) / (not_above - below)
    accuracy = (picked * correct.to(picked.dtype)).sum(dim=1).mean()
    return accuracy.to(torch.result_type(scores, 0.5))


def informative_groups(rewards: Tensor) -> Tensor:
    """Groups whose rewards are not all equal: the others have advantage 0 and teach nothing. DAPO, arXiv:2503.14476.

    Shapes: (P, G) -> bool (P,). Compared, not std > 0: the std of equal float32 rewards may be rounding noise.
    """
    return (rewards != rewards[:, :1]).any(dim=1)


def _last_box(text: str) -> str | None:
    r"""The stripped content of the last \boxed{...} that closes, in one pass: open braces wait on a stack."""
    waiting: list[int | None] = []  # where the content starts, for a box; None for any other brace
    last = None
    for token in BRACE.finditer(text):
        if token[0] == "{":
            waiting.append(None)
        elif token[0] == r"\boxed{":
            waiting.append(token.end())
        elif token[0] == "}" and waiting:
            start = waiting.pop()
            if start is not None and (last is None or start > last[0]):
                last = start, token.start()
    return None if last is None else text[last[0] : last[1]].strip()


def _normalise(answer: str) -> str:
    answer = str(answer).lower().replace(r"\$", "").replace("$", "").replace(r"\,", "").replace(r"\%", "%")
    answer = answer.replace(r"\dfrac", r"\frac").replace(r"\tfrac", r"\frac")
    answer = " ".join(answer.split())
    return THOUSANDS.sub(lambda match: match[0].replace(",", ""), answer)


def _number(answer: str) -> Fraction | None:
    """The exact value of a normalised answer, None if it is not a number."""
    try:
        if match := DECIMAL.fullmatch(answer):
            return Fraction(match[1]) / (100 if match[2] else 1)
        if match := RATIO.fullmatch(answer):
            return Fraction(match[1]) / Fraction(match[2])
        if match := FRAC.fullmatch(answer):
            return Fraction(f"{match[1]}1") * Fraction(match[2]) / Fraction(match[3])
    except (ZeroDivisionError, ValueError):  # 1/0; more digits than Python turns into an int (4300)
        pass
    return None


def _pass_at_k(n: int, c: int, k: int) -> float:
    """1 - prod_{i < min(c, k)} (1 - max(c, k) / (n - i)), in logs, so that a small chance keeps its digits."""
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"n={n}, c={c}, k={k}: needs 0 <= c <= n and 1 <= k <= n")
    if k > n - c:
        return 1.0  # more draws than wrong samples
    i = torch.arange(min(c, k), dtype=torch.float64)
    return -math.expm1(torch.log1p(-max(c, k) / (n - i)).sum().item())
