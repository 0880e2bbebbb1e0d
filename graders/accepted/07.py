r"""Week 07, right: extractors, verifiers and pass@k written in other ways."""

import itertools
import math
import re
from decimal import Decimal, InvalidOperation
from fractions import Fraction

import torch

from graders.accepted import right

# --- extract_answer ---------------------------------------------------------------------------------------------------


def _boxed(text):
    """The last closed box, searched from the right."""
    start = text.rfind(r"\boxed{")
    while start >= 0:
        depth = 0
        for end in range(start + len(r"\boxed"), len(text)):
            depth += (text[end] == "{") - (text[end] == "}")
            if depth == 0:
                return text[start + len(r"\boxed{") : end].strip()
        start = text.rfind(r"\boxed{", 0, start)
    return None


@right("extract_answer", "str.rfind from the right")
def extract_by_rfind(text):
    close = len(text)
    while (close := text.rfind("</answer>", 0, close)) >= 0:
        start = text.rfind("<answer>", 0, close)
        if start >= 0 and "</answer>" not in text[start:close]:
            inner = text[start + len("<answer>") : close]
            box = _boxed(inner)
            return inner.strip() if box is None else box
    return _boxed(text)


@right("extract_answer", "split at the closing tags")
def extract_by_split(text):
    *closed, _ = text.split("</answer>")
    for part in reversed(closed):
        _, tag, inner = part.rpartition("<answer>")
        if tag:
            box = _boxed(inner)
            return box if box is not None else inner.strip()
    return _boxed(text)


@right("extract_answer", "one walk over tokens with a stack")
def extract_by_stack(text):
    def boxes(part):
        open_at, found = [], []
        for token in re.finditer(r"\\boxed\{|\{|\}", part):
            if token.group() == "}":
                if open_at and (begin := open_at.pop()) is not None:
                    found.append((begin, part[begin : token.start()].strip()))
            else:
                open_at.append(token.end() if len(token.group()) > 1 else None)
        return max(found)[1] if found else None

    answers = re.findall(r"<answer>((?:(?!<answer>).)*?)</answer>", text, flags=re.S)
    if not answers:
        return boxes(text)
    inside = boxes(answers[-1])
    return answers[-1].strip() if inside is None else inside


# --- answers_match ----------------------------------------------------------------------------------------------------


def _plain(text):
    for old, new in ((r"\,", ""), (r"\%", "%"), ("$", ""), (r"\dfrac", r"\frac")):
        text = text.replace(old, new)
    words = text.casefold().split()
    grouped = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?%?")
    return " ".join(word.replace(",", "") if grouped.fullmatch(word) else word for word in words)


def _fraction(text):
    text = re.sub(r"\\frac\{([^{}]*)\}\{([^{}]*)\}", r"\1/\2", text)
    over = Fraction(1, 100) if text.endswith("%") and "/" not in text else 1
    try:
        return Fraction(text.removesuffix("%") if over != 1 else text) * over
    except (ValueError, ZeroDivisionError):
        return None


@right("answers_match", "fractions.Fraction reads the whole text")
def match_by_fraction(answer, target):
    if answer is None or target is None:
        return False
    a, b = _plain(answer), _plain(target)
    x, y = _fraction(a), _fraction(b)
    return a == b or (x is not None and x == y)


@right("answers_match", "numerator and denominator as decimals, multiplied crosswise")
def match_by_decimals(answer, target):
    def parts(text):
        sign = -1 if text.startswith("-\\") else 1
        match = re.fullmatch(r"[+-]?\\frac\{(.+)\}\{(.+)\}|([^/]+)/([^/]+)|([^/]+)", text)
        if match is None:
            return None
        over, under = match[1] or match[3] or match[5], match[2] or match[4] or "1"
        if match[5] and over.endswith("%"):
            over, under = over[:-1], "100"
        if not all(re.fullmatch(r"[+-]?\d+\.?\d*|[+-]?\.\d+", part) for part in (over, under)):
            return None
        try:
            # as whole numbers: both sides times ten to the number of digits
            shift = 10 ** max(len(over), len(under))
            over, under = int(Decimal(over) * shift), int(Decimal(under) * shift)
        except (InvalidOperation, ValueError):
            return None
        return (sign * over, under) if under else None

    if None in (answer, target):
        return False
    a, b = _plain(answer), _plain(target)
    x, y = parts(a), parts(b)
    return a == b or (x is not None and y is not None and x[0] * y[1] == y[0] * x[1])


@right("answers_match", "one pattern for all numbers, named groups")
def match_by_pattern(answer, target):
    digits = r"(?:\d+\.?\d*|\.\d+)"
    pattern = re.compile(
        rf"(?P<sign>[+-]?)(?:(?P<number>{digits})(?P<percent>%)?|(?P<a>{digits})/(?P<b>{digits})"
        rf"|\\frac\{{(?P<c>[+-]?{digits})\}}\{{(?P<d>{digits})\}})"
    )

    def number(text):
        found = pattern.fullmatch(text)
        if found is None or len(text) > 4000:
            return None
        over, under = found["number"] or found["a"] or found["c"], found["b"] or found["d"] or "1"
        if Fraction(under) == 0:
            return None
        value = Fraction(over) / Fraction(under) / (100 if found["percent"] else 1)
        return -value if found["sign"] == "-" else value

    if not isinstance(answer, str) or not isinstance(target, str):
        return False
    texts = _plain(answer), _plain(target)
    if texts[0] == texts[1]:
        return True
    values = [number(text) for text in texts]
    return None not in values and values[0] == values[1]


# --- verifiable_reward ------------------------------------------------------------------------------------------------


@right("verifiable_reward", "two ifs")
def reward_by_ifs(text, target, format_weight=0.1):
    answer = extract_by_split(text)
    if answer is None:
        return 0.0
    if match_by_fraction(answer, target):
        return 1.0
    return format_weight


@right("verifiable_reward", "the larger of two rewards")
def reward_by_max(text, target, format_weight=0.1):
    answer = extract_by_stack(text)
    return max(float(match_by_pattern(answer, target)), format_weight * (answer is not None))


@right("verifiable_reward", "a table of cases")
def reward_by_table(text, target, format_weight=0.1):
    answer = extract_by_rfind(text)
    return {(False, False): 0.0, (True, False): format_weight, (True, True): 1.0}[
        answer is not None, match_by_fraction(answer, target)
    ]


# --- pass_at_k --------------------------------------------------------------------------------------------------------


def _lists(rule):
    """A rule for ints, for tensors too."""

    def either(n, c, k):
        if not any(isinstance(x, torch.Tensor) for x in (n, c, k)):
            return rule(n, c, k)
        n, c, k = torch.broadcast_tensors(*[torch.as_tensor(x) for x in (n, c, k)])
        values = [rule(int(a), int(b), int(d)) for a, b, d in zip(n.ravel(), c.ravel(), k.ravel(), strict=True)]
        return torch.tensor(values, dtype=torch.float64).reshape(n.shape)

    return either


@right("pass_at_k", "whole binomials of Python, divided at the end")
def pass_by_comb(n, c, k):
    def rule(n, c, k):
        if c < 0 or c > n or k < 1 or k > n:
            raise ValueError(f"no such counts: {n}, {c}, {k}")
        if min(k, n - k) * n < 10**7:
            return 1 - math.comb(n - c, k) / math.comb(n, k)
        return 1 - math.exp(sum(math.log1p(-k / (n - i)) for i in range(c))) if n - c >= k else 1.0

    return _lists(rule)(n, c, k)


@right("pass_at_k", "the product of the paper, over n - c + 1 to n")
def pass_by_product(n, c, k):
    def rule(n, c, k):
        if not 0 <= c <= n or not 1 <= k <= n:
            raise ValueError(f"n={n}, c={c}, k={k}")
        if n - c < k:
            return 1.0
        return 1.0 - float(torch.prod(1 - k / torch.arange(n - c + 1, n + 1, dtype=torch.float64)))

    return _lists(rule)(n, c, k)


@right("pass_at_k", "lgamma on tensors, without a loop")
def pass_by_lgamma(n, c, k):
    numbers = not any(isinstance(x, torch.Tensor) for x in (n, c, k))
    n, c, k = torch.broadcast_tensors(*[torch.as_tensor(x).double() for x in (n, c, k)])
    if ((c < 0) | (c > n) | (k < 1) | (k > n)).any():
        raise ValueError("needs 0 <= c <= n and 1 <= k <= n")
    wrong = (n - c).clamp(min=0)
    logs = torch.lgamma(wrong + 1) - torch.lgamma((wrong - k).clamp(min=0) + 1) - torch.lgamma(n + 1)
    out = torch.where(wrong < k, 1.0, -torch.expm1(logs + torch.lgamma(n - k + 1)))
    return out.item() if numbers else out


# --- majority_vote ----------------------------------------------------------------------------------------------------


@right("majority_vote", "two lists, the first index of the maximum")
def vote_by_index(answers, weights=None):
    weights = [1] * len(answers) if weights is None else [float(w) for w in weights]
    seen = list(dict.fromkeys(a for a in answers if a is not None))
    totals = [sum(w for a, w in zip(answers, weights, strict=True) if a == name) for name in seen]
    return seen[totals.index(max(totals))] if seen else None


@right("majority_vote", "sorted by total, stable")
def vote_by_sorting(answers, weights=None):
    totals = {}
    for i, answer in enumerate(answers):
        totals.setdefault(answer, []).append(1.0 if weights is None else float(weights[i]))
    totals.pop(None, None)
    ranked = sorted(totals, key=lambda answer: -sum(totals[answer]))
    return ranked[0] if ranked else None


@right("majority_vote", "a loop that keeps the leader, strictly greater only")
def vote_by_leader(answers, weights=None):
    if weights is None:
        weights = torch.ones(len(answers))
    totals = {}
    for answer, weight in zip(answers, torch.as_tensor(weights).tolist(), strict=True):
        if answer is None:
            continue
        totals[answer] = totals.get(answer, 0) + weight
    leader = None
    for answer in totals:
        if leader is None or totals[answer] > totals[leader]:
            leader = answer
    return leader


# --- best_of_n_accuracy -----------------------------------------------------------------------------------------------


def _refuse(scores, n):
    if n < 1 or n > scores.size(1):
        raise ValueError(f"n = {n} must lie in 1 ... {scores.size(1)}")


@right("best_of_n_accuracy", "every draw enumerated")
def best_by_enumeration(scores, correct, n):
    _refuse(scores, n)
    draws = torch.tensor(list(itertools.combinations(range(scores.size(1)), n)))
    s, c = scores[:, draws], correct[:, draws].to(scores.dtype)
    best = (s == s.amax(-1, keepdim=True)).to(scores.dtype)
    return ((best * c).sum(-1) / best.sum(-1)).mean()


@right("best_of_n_accuracy", "blocks of equal scores, from the lowest up")
def best_by_blocks(scores, correct, n):
    _refuse(scores, n)
    size = scores.size(1)
    total = Fraction(0)
    for row, verdicts in zip(scores.tolist(), correct.tolist(), strict=True):
        for value in sorted(set(row)):
            tied = [int(c) for s, c in zip(row, verdicts, strict=True) if s == value]
            below = sum(s < value for s in row)
            draws = math.comb(below + len(tied), n) - math.comb(below, n)
            total += Fraction(draws, math.comb(size, n)) * Fraction(sum(tied), len(tied))
    return torch.tensor(float(total / len(scores)), dtype=scores.dtype)


@right("best_of_n_accuracy", "sorted with the mean accuracy of each block of ties, weights of the ranks")
def best_by_ranks(scores, correct, n):
    _refuse(scores, n)
    size = scores.size(1)
    tied = (scores[:, :, None] == scores[:, None, :]).double()
    shared = (tied * correct.double()[:, None, :]).sum(-1) / tied.sum(-1)
    ranked = shared.gather(1, scores.argsort(1, descending=True))
    weights = [math.comb(size - 1 - j, n - 1) / math.comb(size, n) for j in range(size)]
    return (ranked @ torch.tensor(weights, dtype=torch.float64)).mean().to(scores.dtype)


# --- informative_groups -----------------------------------------------------------------------------------------------


@right("informative_groups", "largest above smallest")
def groups_by_range(rewards):
    return rewards.amax(dim=1) > rewards.amin(dim=1)


@right("informative_groups", "sets of Python numbers")
def groups_by_sets(rewards):
    return torch.tensor([len(set(group)) > 1 for group in rewards.tolist()])


@right("informative_groups", "neighbours compared")
def groups_by_neighbours(rewards):
    return (rewards[:, 1:] != rewards[:, :-1]).sum(-1).bool()
