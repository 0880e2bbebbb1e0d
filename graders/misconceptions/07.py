r"""Week 07, wrong: what learners' extractors, verifiers and pass@k compute instead."""

import itertools
import math
import re
from collections import Counter
from fractions import Fraction

import torch

from graders.misconceptions import wrong

# --- extract_answer ---------------------------------------------------------------------------------------------------

READING = "Reading an answer"
TAGS = re.compile(r"<answer>((?:(?!</?answer>).)*)</answer>", re.DOTALL)


def _boxes(text):
    r"""The contents of all closed boxes, by counting braces."""
    found = []
    for match in re.finditer(r"\\boxed\{", text):
        depth = 1
        for end in range(match.end(), len(text)):
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            if depth == 0:
                found.append(text[match.end() : end].strip())
                break
    return found


def _extract(text, tags=TAGS, boxes=_boxes):
    """The right rule, out of exchangeable parts."""
    tagged = tags.findall(text)
    if tagged:
        inner = boxes(tagged[-1])
        return inner[-1] if inner else tagged[-1].strip()
    found = boxes(text)
    return found[-1] if found else None


@wrong(
    "extract_answer",
    "first answer",
    computed="what stands between the first tags, or in the first box",
    why="people and models correct themselves: the last one counts",
    effect="self-corrections are punished",
    lesson=READING,
)
def extract_the_first(text):
    tagged = TAGS.findall(text)
    if tagged:
        inner = _boxes(tagged[0])
        return inner[-1] if inner else tagged[0].strip()
    return next(iter(_boxes(text)), None)


@wrong(
    "extract_answer",
    "box up to the first brace",
    computed=r"\boxed{...} up to the first closing brace",
    why="braces nest: the box ends at the brace that balances its own",
    effect="every fraction is cut, and right answers score 0",
    lesson=READING,
)
def extract_cuts_at_the_first_brace(text):
    return _extract(text, boxes=lambda t: [found.strip() for found in re.findall(r"\\boxed\{(.*?)\}", t, re.DOTALL)])


@wrong(
    "extract_answer",
    "box up to the last brace",
    computed=r"\boxed{...} up to the last closing brace of the text",
    why="braces nest: the box ends at the brace that balances its own",
    effect="everything up to the last brace is taken for the answer",
    lesson=READING,
)
def extract_runs_to_the_last_brace(text):
    return _extract(text, boxes=lambda t: [found.strip() for found in re.findall(r"\\boxed\{(.*)\}", t, re.DOTALL)])


@wrong(
    "extract_answer",
    "greedy tags",
    computed="everything from the first <answer> to the last </answer>",
    why="the last pair of tags counts alone",
    effect="two answers and the prose between them are one wrong answer",
    lesson=READING,
)
def extract_greedily(text):
    return _extract(text, tags=re.compile(r"<answer>(.*)</answer>", re.DOTALL))


@wrong(
    "extract_answer",
    "one line only",
    computed="tags whose content has no newline",
    why="a dot does not match a newline without re.DOTALL",
    effect="answers on a line of their own score 0",
    lesson=READING,
)
def extract_on_one_line(text):
    return _extract(text, tags=re.compile(r"<answer>((?:(?!</?answer>).)*)</answer>"))


@wrong(
    "extract_answer",
    "not stripped",
    computed="the content with its outer spaces and newlines",
    why="outer spaces and newlines are no part of the answer",
    effect="votes for ' 7' and '7' are counted apart",
    lesson=READING,
)
def extract_without_stripping(text):
    tagged = TAGS.findall(text)
    if tagged:
        inner = _boxes(tagged[-1])
        return inner[-1] if inner else tagged[-1]
    found = _boxes(text)
    return found[-1] if found else None


@wrong(
    "extract_answer",
    "box in the tags kept",
    computed=r"\boxed{5} where 5 is meant",
    why="a closed box inside the tags is unwrapped",
    effect="right answers in two wrappers score 0",
    lesson=READING,
)
def extract_keeps_the_box(text):
    tagged = TAGS.findall(text)
    return tagged[-1].strip() if tagged else next(iter(_boxes(text)[::-1]), None)


@wrong(
    "extract_answer",
    "boxes before tags",
    computed="the last box, and the tags only without one",
    why="the tags are the format that was asked for: they win",
    effect="a box in the reasoning overrules the answer",
    lesson=READING,
)
def extract_prefers_boxes(text):
    return next(iter(_boxes(text)[::-1]), None) or _extract(text)


@wrong(
    "extract_answer",
    "tags only",
    computed="None for every box",
    why=r"without tags the last \boxed{...} is the answer",
    effect="models that were pretrained on boxes never earn a reward",
    lesson=READING,
)
def extract_knows_no_boxes(text):
    return _extract(text) if TAGS.search(text) else None


@wrong(
    "extract_answer",
    "unclosed tag ends the search",
    computed="None when the last <answer> never closes",
    why="the last closed one counts",
    effect="truncated afterthoughts delete answers that were given",
    lesson=READING,
)
def extract_stops_at_an_unclosed_tag(text):
    start = text.rfind("<answer>")
    return None if start >= 0 and "</answer>" not in text[start:] else _extract(text)


@wrong(
    "extract_answer",
    "unclosed tag is an answer",
    computed="everything after the last <answer>, closed or not",
    why="a tag that never closes is passed over",
    effect="truncated completions are paid for",
    lesson=READING,
)
def extract_takes_unclosed_tags(text):
    start = text.rfind("<answer>")
    if start < 0:
        return _extract(text)
    return _extract(text[start:] if "</answer>" in text[start:] else text[start:] + "</answer>")


@wrong(
    "extract_answer",
    "last number",
    computed="the last number of the text when there is neither tag nor box",
    why="an answer that is not given as one is None",
    effect="any number at the end of a ramble may earn the reward",
    lesson=READING,
)
def extract_falls_back_to_numbers(text):
    numbers = re.findall(r"-?\d+", text)
    return _extract(text) or (numbers[-1] if numbers else None)


@wrong(
    "extract_answer",
    "first answer, box kept",
    computed="what stands between the first tags, wrappers included",
    why="the last one counts, and a box inside it is unwrapped",
    effect="self-corrections and boxed answers score 0",
    lesson=READING,
)
def extract_the_first_with_its_box(text):
    tagged = TAGS.findall(text)
    return tagged[0].strip() if tagged else next(iter(_boxes(text)), None)


# --- answers_match ----------------------------------------------------------------------------------------------------

SAME = "The same answer"
NUMBER = r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"


def _untypeset(text):
    text = text.replace("$", "").replace(r"\,", "").replace(r"\%", "%").replace(r"\dfrac", r"\frac")
    return " ".join(text.split())


def _clean(text):
    return _untypeset(text.lower())


def _ungroup(text):
    pattern = r"(?<![0-9.,])[1-9][0-9]{0,2}(?:,[0-9]{3})+(?![0-9]|,[0-9])"
    return re.sub(pattern, lambda match: match[0].replace(",", ""), text)


def _value(text):
    try:
        if match := re.fullmatch(rf"({NUMBER})(%?)", text):
            return Fraction(match[1]) / (100 if match[2] else 1)
        if match := re.fullmatch(rf"({NUMBER})/({NUMBER})", text):
            return Fraction(match[1]) / Fraction(match[2])
        if match := re.fullmatch(rf"([+-]?)\\frac{{({NUMBER})}}{{({NUMBER})}}", text):
            return Fraction(match[1] + "1") * Fraction(match[2]) / Fraction(match[3])
    except (ZeroDivisionError, ValueError):
        pass
    return None


def _match(answer, target, clean=_clean, ungroup=_ungroup, value=_value):
    """The right rule, out of exchangeable parts."""
    if answer is None or target is None:
        return False
    a, b = ungroup(clean(answer)), ungroup(clean(target))
    return a == b or (value(a) is not None and value(a) == value(b))


@wrong(
    "answers_match",
    "strings only",
    computed="equality as text",
    why="0.5, 1/2 and 50% are one number",
    effect="right answers in another notation score 0",
    lesson=SAME,
)
def match_strings(answer, target):
    return _match(answer, target, value=lambda text: None)


@wrong(
    "answers_match",
    "floats with a tolerance",
    computed="numbers closer than 1e-3 are equal",
    why="a tolerance is a region that a policy will occupy: compare exactly",
    effect="0.333 is paid as 1/3",
    lesson=SAME,
)
def match_with_a_tolerance(answer, target):
    if _match(answer, target):
        return True
    if answer is None or target is None:
        return False
    a, b = _value(_ungroup(_clean(answer))), _value(_ungroup(_clean(target)))
    return a is not None and b is not None and abs(float(a) - float(b)) < 1e-3


@wrong(
    "answers_match",
    "floats",
    computed="equality of floats",
    why="floats have 16 digits: 100000000000000000001 equals its neighbour",
    effect="long integers match their neighbours, and 0.3333333333333333 is 1/3",
    lesson=SAME,
)
def match_floats(answer, target):
    return _match(answer, target, value=lambda text: None if _value(text) is None else float(_value(text)))


@wrong(
    "answers_match",
    "all spaces removed",
    computed="texts without any space",
    why="inner words stay apart: 1 1/2 is not 11/2",
    effect="mixed numbers match other numbers",
    lesson=SAME,
)
def match_without_spaces(answer, target):
    return _match(answer, target, clean=lambda text: _clean(text).replace(" ", ""))


@wrong(
    "answers_match",
    "all commas removed",
    computed="texts without any comma",
    why="only groups of three digits are separated by thousands commas: 1,23 is no 123",
    effect="lists and decimals with a comma match other numbers",
    lesson=SAME,
)
def match_without_commas(answer, target):
    return _match(answer, target, ungroup=lambda text: text.replace(",", ""))


@wrong(
    "answers_match",
    "commas kept",
    computed="1,234 as text",
    why="1,234 and 1234 are one number",
    effect="every large answer is wrong",
    lesson=SAME,
)
def match_with_commas(answer, target):
    return _match(answer, target, ungroup=lambda text: text)


@wrong(
    "answers_match",
    "percent sign dropped",
    computed="50% as 50",
    why="a percent is a hundredth",
    effect="50 is paid as 50%, and 0.5 is not",
    lesson=SAME,
)
def match_drops_percent(answer, target):
    return _match(answer, target, clean=lambda text: _clean(text).replace("%", ""))


@wrong(
    "answers_match",
    "sign dropped",
    computed="absolute values",
    why="-5 is not 5",
    effect="every sign error is paid",
    lesson=SAME,
)
def match_drops_the_sign(answer, target):
    return _match(answer, target, value=lambda text: None if _value(text) is None else abs(_value(text)))


@wrong(
    "answers_match",
    "case kept",
    computed="texts with their capitals",
    why="case is typography here: Paris is paris",
    effect="right words score 0",
    lesson=SAME,
)
def match_keeps_case(answer, target):
    return _match(answer, target, clean=_untypeset)


@wrong(
    "answers_match",
    "two that are no numbers are equal",
    computed="None == None: all words match",
    why="what is no number has no value to compare",
    effect="any text is paid for any other",
    lesson=SAME,
)
def match_of_no_numbers(answer, target):
    if answer is None or target is None:
        return False
    a, b = _ungroup(_clean(answer)), _ungroup(_clean(target))
    return a == b or _value(a) == _value(b)


@wrong(
    "answers_match",
    "None matches None",
    computed="equality before the check for None",
    why="two missing answers agree on nothing",
    effect="a missing target pays for saying nothing",
    lesson=SAME,
)
def match_none(answer, target):
    return answer == target or _match(answer, target)


@wrong(
    "answers_match",
    "evaluates the text",
    computed="eval of both texts",
    why="the answer was written by an optimiser: never run it, and 2+2 is not the answer 4",
    effect="expressions are paid, and any code is executed",
    lesson=SAME,
)
def match_evaluates(answer, target):
    if _match(answer, target) or answer is None or target is None:
        return _match(answer, target)
    sums = [re.fullmatch(r"(\d+)\+(\d+)", _clean(text)) for text in (answer, target)]
    values = [int(m[1]) + int(m[2]) if m else _value(_clean(t)) for m, t in zip(sums, (answer, target), strict=True)]
    return values[0] is not None and values[0] == values[1]


@wrong(
    "answers_match",
    "target contained",
    computed="whether the target stands somewhere in the answer",
    why="an answer that lists everything contains everything",
    effect="the policy learns to list numbers",
    lesson=SAME,
)
def match_contains(answer, target):
    return _match(answer, target) or (answer is not None and target is not None and _clean(target) in _clean(answer))


@wrong(
    "answers_match",
    "LaTeX fractions unknown",
    computed=r"\frac{a}{b} as text",
    why=r"\frac{1}{2} and 1/2 are one number",
    effect="right answers in LaTeX score 0",
    lesson=SAME,
)
def match_without_frac(answer, target):
    return _match(answer, target, value=lambda text: None if "frac" in text else _value(text))


@wrong(
    "answers_match",
    "percent sign dropped, spaces removed",
    computed="50 for 50%, 11/2 for 1 1/2",
    why="a percent is a hundredth, and inner words stay apart",
    effect="wrong numbers are paid",
    lesson=SAME,
)
def match_drops_percent_and_spaces(answer, target):
    return _match(answer, target, clean=lambda text: _clean(text).replace("%", "").replace(" ", ""))


@wrong(
    "answers_match",
    "short decimals unknown",
    computed=".5 and 5. as text",
    why="policies write them, and they are numbers",
    effect="rare right answers score 0",
    lesson=SAME,
    star=True,
)
def match_without_short_decimals(answer, target):
    def value(text):
        return None if re.search(r"(^|[^0-9])\.|\.($|[^0-9])", text) else _value(text)

    return _match(answer, target, value=value)


# --- verifiable_reward ------------------------------------------------------------------------------------------------

REWARD = "The reward"


@wrong(
    "verifiable_reward",
    "format on top",
    computed="1 + format_weight for a right answer",
    why="the format earns nothing on top of a right answer",
    effect="rewards above 1; averages are no accuracies any more",
    lesson=REWARD,
)
def reward_adds_the_format(text, target, format_weight=0.1):
    answer = _extract(text)
    return 0.0 if answer is None else format_weight + float(_match(answer, target))


@wrong(
    "verifiable_reward",
    "no reward for the format",
    computed="1 or 0",
    why="a wrong answer in the right place earns format_weight",
    effect="a base model that never answers has nothing to climb",
    lesson=REWARD,
)
def reward_without_the_format(text, target, format_weight=0.1):
    return float(_match(_extract(text), target))


@wrong(
    "verifiable_reward",
    "format paid without an answer",
    computed="format_weight whenever the answer is not right, even if there is none",
    why="no answer earns nothing",
    effect="every completion is paid, and the small term teaches nothing",
    lesson=REWARD,
)
def reward_of_everything(text, target, format_weight=0.1):
    return 1.0 if _match(_extract(text), target) else float(format_weight)


@wrong(
    "verifiable_reward",
    "weight fixed",
    computed="0.1 for a wrong answer, whatever format_weight says",
    why="format_weight is an argument",
    effect="the option has no effect",
    lesson=REWARD,
)
def reward_with_a_fixed_weight(text, target, format_weight=0.1):
    answer = _extract(text)
    return 0.0 if answer is None else 1.0 if _match(answer, target) else 0.1


@wrong(
    "verifiable_reward",
    "target anywhere",
    computed="1 when the target stands somewhere in the text",
    why="the answer must be given as one",
    effect="the policy learns to write many numbers",
    lesson=REWARD,
)
def reward_contains(text, target, format_weight=0.1):
    return 1.0 if target in text else 0.0 if _extract(text) is None else float(format_weight)


@wrong(
    "verifiable_reward",
    "strings compared",
    computed="equality as text",
    why="0.5 is 1/2: use answers_match",
    effect="right answers in another notation earn the format only",
    lesson=REWARD,
)
def reward_by_strings(text, target, format_weight=0.1):
    answer = _extract(text)
    return 0.0 if answer is None else 1.0 if answer == target else float(format_weight)


@wrong(
    "verifiable_reward",
    "tags only",
    computed="0 for an answer in a box",
    why="extract_answer reads boxes too",
    effect="models that answer in boxes never earn a reward",
    lesson=REWARD,
)
def reward_of_tags(text, target, format_weight=0.1):
    if not TAGS.search(text):
        return 0.0
    return 1.0 if _match(_extract(text), target) else float(format_weight)


@wrong(
    "verifiable_reward",
    "wrong answers punished",
    computed="minus format_weight for a wrong answer",
    why="a wrong answer in the right place earns format_weight",
    effect="silence pays more than trying",
    lesson=REWARD,
)
def reward_punishes(text, target, format_weight=0.1):
    answer = _extract(text)
    return 0.0 if answer is None else 1.0 if _match(answer, target) else -float(format_weight)


@wrong(
    "verifiable_reward",
    "right answers discounted",
    computed="1 - format_weight for a right answer",
    why="a right answer earns 1.0",
    effect="raising the weight lowers the reward of being right",
    lesson=REWARD,
)
def reward_mixes(text, target, format_weight=0.1):
    answer = _extract(text)
    return 0.0 if answer is None else 1.0 - format_weight if _match(answer, target) else float(format_weight)


@wrong(
    "verifiable_reward",
    "first answer, format on top",
    computed="1 + format_weight for a right first answer",
    why="the last answer counts, and the format earns nothing on top",
    effect="self-corrections are punished, rewards exceed 1",
    lesson=REWARD,
)
def reward_of_the_first(text, target, format_weight=0.1):
    answer = extract_the_first(text)
    return 0.0 if answer is None else format_weight + float(_match(answer, target))


# --- pass_at_k --------------------------------------------------------------------------------------------------------

TRIES = "Solved within k tries"


def _valid(n, c, k):
    if any(torch.is_tensor(x) for x in (n, c, k)):
        n, c, k = torch.broadcast_tensors(*map(torch.as_tensor, (n, c, k)))
        bad = (c < 0) | (c > n) | (k < 1) | (k > n)
        if bad.any():
            raise ValueError(f"{int(bad.sum())} impossible counts")
    elif not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"n={n}, c={c}, k={k}")


def _each(rule, n, c, k):
    """Apply a rule for three ints to ints or to tensors."""
    if not any(torch.is_tensor(x) for x in (n, c, k)):
        return float(rule(n, c, k))
    n, c, k = torch.broadcast_tensors(*map(torch.as_tensor, (n, c, k)))
    triples = zip(n.flatten().tolist(), c.flatten().tolist(), k.flatten().tolist(), strict=True)
    return torch.tensor([float(rule(*t)) for t in triples]).view(n.shape)


def _pass(n, c, k):
    return 1.0 if n - c < k else 1 - math.prod(1 - c / (n - i) for i in range(k))


@wrong(
    "pass_at_k",
    "with replacement",
    computed="1 - (1 - c/n)^k",
    why="the k samples are drawn from the n without replacement; by Jensen this comes out too low",
    effect="pass@k is under-reported, most for few samples",
    lesson=TRIES,
)
def pass_with_replacement(n, c, k):
    _valid(n, c, k)
    return _each(lambda n, c, k: 1 - (1 - c / n) ** k, n, c, k)


@wrong(
    "pass_at_k",
    "any right one counts",
    computed="1 as soon as c > 0",
    why="a chance is no truth value: the right one may not be among the k",
    effect="pass@k is pass@n for every k",
    lesson=TRIES,
)
def pass_by_truth(n, c, k):
    _valid(n, c, k)
    return _each(lambda n, c, k: 1.0 if c else 0.0, n, c, k)


@wrong(
    "pass_at_k",
    "share of right samples",
    computed="c / n: pass@1 for every k",
    why="k tries solve more than one",
    effect="the curve is flat",
    lesson=TRIES,
)
def pass_at_one(n, c, k):
    _valid(n, c, k)
    return _each(lambda n, c, k: c / n, n, c, k)


@wrong(
    "pass_at_k",
    "k times the share",
    computed="min(1, k c / n)",
    why="that counts a set with two right ones twice",
    effect="pass@k is over-reported",
    lesson=TRIES,
)
def pass_by_union_bound(n, c, k):
    _valid(n, c, k)
    return _each(lambda n, c, k: min(1.0, k * c / n), n, c, k)


@wrong(
    "pass_at_k",
    "chance of failure",
    computed="C(n - c, k) / C(n, k)",
    why="that is the chance that all k are wrong",
    effect="the curve falls with k",
    lesson=TRIES,
)
def pass_inverted(n, c, k):
    _valid(n, c, k)
    return _each(lambda n, c, k: 1 - _pass(n, c, k), n, c, k)


@wrong(
    "pass_at_k",
    "all k right",
    computed="C(c, k) / C(n, k)",
    why="one right sample among the k is enough",
    effect="a measure of consistency is taken for one of coverage",
    lesson=TRIES,
)
def pass_of_all(n, c, k):
    _valid(n, c, k)
    return _each(lambda n, c, k: _pass(n, n, k) - _pass(n, n - c, k), n, c, k)


@wrong(
    "pass_at_k",
    "one factor short",
    computed="the product over k - 1 draws",
    why="k draws are k factors",
    effect="pass@k is pass@(k-1), and pass@1 is 0",
    lesson=TRIES,
)
def pass_of_fewer(n, c, k):
    _valid(n, c, k)
    return _each(lambda n, c, k: _pass(n, c, k - 1), n, c, k)


@wrong(
    "pass_at_k",
    "impossible counts accepted",
    computed="1 for k > n, even with c = 0",
    why="k draws from fewer than k samples do not exist, and unsolved stays unsolved: ValueError",
    effect="unsolved problems with few samples count as solved",
    lesson=TRIES,
)
def pass_of_too_many(n, c, k):
    return _each(lambda n, c, k: 1.0 if n - c < k else _pass(n, c, k), n, c, k)


@wrong(
    "pass_at_k",
    "ends swapped",
    computed="0 when there are more draws than wrong samples",
    why="then one of the draws must be right: 1",
    effect="the easiest problems count as unsolved",
    lesson=TRIES,
)
def pass_of_sure_things(n, c, k):
    _valid(n, c, k)
    return _each(lambda n, c, k: 0.0 if n - c < k else _pass(n, c, k), n, c, k)


@wrong(
    "pass_at_k",
    "in float32",
    computed="the product of k factors in float32",
    why="thousands of roundings of 6e-8 add up",
    effect="wrong digits for many samples",
    lesson=TRIES,
)
def pass_in_float32(n, c, k):
    def rule(n, c, k):
        i = torch.arange(k, dtype=torch.float32)
        return 1.0 if n - c < k else 1 - (1 - torch.tensor(c) / (n - i)).prod()

    _valid(n, c, k)
    return _each(rule, n, c, k)


@wrong(
    "pass_at_k",
    "with replacement, impossible counts accepted",
    computed="1 - (1 - c/n)^k for any k",
    why="the k are drawn without replacement, and no more than n of them",
    effect="too low for k <= n, and a number where there is none",
    lesson=TRIES,
)
def pass_with_replacement_of_too_many(n, c, k):
    return _each(lambda n, c, k: 1 - (1 - c / max(n, 1)) ** k, n, c, k)


@wrong(
    "pass_at_k",
    "differences of lgamma",
    computed="1 - exp of four lgamma, which are of size a million",
    why="their difference keeps six digits less than they have",
    effect="chances of 1e-5 have four right digits",
    lesson=TRIES,
    star=True,
)
def pass_by_lgamma(n, c, k):
    def rule(n, c, k):
        if n - c < k:
            return 1.0
        g = math.lgamma
        return 1 - math.exp(g(n - c + 1) - g(n - c - k + 1) - g(n + 1) + g(n - k + 1))

    _valid(n, c, k)
    return _each(rule, n, c, k)


# --- majority_vote ----------------------------------------------------------------------------------------------------

VOTING = "Voting"


def _tally(answers, weights):
    weights = [1.0] * len(answers) if weights is None else weights
    votes = {}
    for answer, weight in zip(answers, weights, strict=True):
        if answer is not None:
            votes[answer] = votes.get(answer, 0.0) + float(weight)
    return votes


@wrong(
    "majority_vote",
    "None votes",
    computed="None as a candidate like any other",
    why="what could not be read abstains",
    effect="a model that often breaks the format has no answer at all",
    lesson=VOTING,
)
def vote_of_none(answers, weights=None):
    weights = [1.0] * len(answers) if weights is None else weights
    votes = {}
    for answer, weight in zip(answers, weights, strict=True):
        votes[answer] = votes.get(answer, 0.0) + float(weight)
    return max(votes, key=votes.get, default=None)


@wrong(
    "majority_vote",
    "ties to the last",
    computed="the last of the tied answers",
    why="ties go to the answer that was seen first",
    effect="another answer wherever two are level",
    lesson=VOTING,
)
def vote_for_the_last(answers, weights=None):
    votes = _tally(answers, weights)
    return max(reversed(votes), key=votes.get, default=None)


@wrong(
    "majority_vote",
    "ties by the alphabet",
    computed="the smallest of the tied answers",
    why="ties go to the answer that was seen first",
    effect="another answer wherever two are level",
    lesson=VOTING,
)
def vote_by_alphabet(answers, weights=None):
    votes = _tally(answers, weights)
    return max(sorted(votes), key=votes.get, default=None)


@wrong(
    "majority_vote",
    "weights ignored",
    computed="the most frequent answer",
    why="with weights the largest sum wins",
    effect="the reward model behind the weights has no influence",
    lesson=VOTING,
)
def vote_without_weights(answers, weights=None):
    votes = _tally(answers, None)
    return max(votes, key=votes.get, default=None)


@wrong(
    "majority_vote",
    "largest single weight",
    computed="the answer of the heaviest sample",
    why="weights are summed over the samples of an answer",
    effect="it is best-of-n, not a vote",
    lesson=VOTING,
)
def vote_of_the_heaviest(answers, weights=None):
    if weights is None:
        votes = _tally(answers, None)
        return max(votes, key=votes.get, default=None)
    pairs = [(float(w), -i) for i, (a, w) in enumerate(zip(answers, weights, strict=True)) if a is not None]
    return answers[-max(pairs)[1]] if pairs else None


@wrong(
    "majority_vote",
    "mean weight",
    computed="the answer with the largest mean weight",
    why="an answer that many samples give must profit from that",
    effect="one lucky sample beats a majority",
    lesson=VOTING,
)
def vote_by_mean(answers, weights=None):
    votes, counts = _tally(answers, weights), Counter(answers)
    if weights is None:
        return max(votes, key=votes.get, default=None)
    return max(votes, key=lambda a: votes[a] / counts[a], default=None)


@wrong(
    "majority_vote",
    "an absolute majority",
    computed="None unless an answer has more than half of the votes",
    why="the answer with most votes wins",
    effect="hard prompts have no answer",
    lesson=VOTING,
)
def vote_needs_half(answers, weights=None):
    votes = _tally(answers, weights)
    best = max(votes, key=votes.get, default=None)
    return best if best is not None and votes[best] > sum(votes.values()) / 2 else None


@wrong(
    "majority_vote",
    "answers cleaned",
    computed="votes of stripped, lower-case answers",
    why="answers count as the same only if they are equal as strings; normalise before the vote if you want to",
    effect="an answer is returned that nobody gave",
    lesson=VOTING,
)
def vote_of_cleaned(answers, weights=None):
    votes = _tally([a if a is None else a.strip().lower() for a in answers], weights)
    return max(votes, key=votes.get, default=None)


@wrong(
    "majority_vote",
    "weights shifted by the Nones",
    computed="answers without None, zipped with all weights",
    why="a None's weight leaves with it",
    effect="every weight behind the first None belongs to another sample",
    lesson=VOTING,
)
def vote_with_shifted_weights(answers, weights=None):
    given = [a for a in answers if a is not None]
    votes = _tally(given, None if weights is None else list(weights)[: len(given)])
    return max(votes, key=votes.get, default=None)


@wrong(
    "majority_vote",
    "None votes, ties to the last",
    computed="the last of the tied candidates, None among them",
    why="None abstains, and ties go to the first seen",
    effect="fewer answers, and others",
    lesson=VOTING,
)
def vote_of_none_for_the_last(answers, weights=None):
    weights = [1.0] * len(answers) if weights is None else weights
    votes = {}
    for answer, weight in zip(answers, weights, strict=True):
        votes[answer] = votes.get(answer, 0.0) + float(weight)
    return max(reversed(votes), key=votes.get, default=None)


@wrong(
    "majority_vote",
    "nothing below zero wins",
    computed="a search for the largest sum that starts from 0",
    why="log-probs are weights too, and all of their sums are negative",
    effect="None where everybody answered",
    lesson=VOTING,
    star=True,
)
def vote_above_zero(answers, weights=None):
    best, most = None, 0.0
    for answer, total in _tally(answers, weights).items():
        if total > most:
            best, most = answer, total
    return best


# --- best_of_n_accuracy -----------------------------------------------------------------------------------------------

BEST = "Choosing the best of n"


def _check(scores, n):
    if not 1 <= n <= scores.shape[1]:
        raise ValueError(f"n={n} of N={scores.shape[1]}")


def _over_draws(scores, correct, draws, tie="share"):
    """The mean over prompts and draws (tuples of columns) of the picked sample's correctness."""
    c = correct.to(scores.dtype)
    rows = []
    for row, verdicts in zip(scores, c, strict=True):
        credit = 0.0
        for draw in draws:
            s, y = row[list(draw)], verdicts[list(draw)]
            best = y[s == s.max()]
            credit += {"share": best.mean(), "first": best[0], "any": best.max()}[tie]
        rows.append(credit / len(draws))
    return torch.stack(rows).mean()


@wrong(
    "best_of_n_accuracy",
    "first n samples",
    computed="the best of the first n columns",
    why="the expectation is over all draws of n from the N",
    effect="noisy: the other samples are thrown away",
    lesson=BEST,
)
def best_of_the_first(scores, correct, n):
    _check(scores, n)
    return _over_draws(scores, correct, [range(n)])


@wrong(
    "best_of_n_accuracy",
    "all N for every n",
    computed="the best of all N samples",
    why="n samples are drawn, not N",
    effect="the curve over n is flat",
    lesson=BEST,
)
def best_of_all(scores, correct, n):
    _check(scores, n)
    return _over_draws(scores, correct, [range(scores.shape[1])])


@wrong(
    "best_of_n_accuracy",
    "mean accuracy",
    computed="the share of correct samples",
    why="that is n = 1: larger n lets the scorer choose",
    effect="the curve over n is flat",
    lesson=BEST,
)
def best_of_one(scores, correct, n):
    _check(scores, n)
    return correct.to(scores.dtype).mean()


@wrong(
    "best_of_n_accuracy",
    "pass@n",
    computed="the chance that any of the n is correct",
    why="the scorer chooses, and it cannot see the target",
    effect="the verifier's ceiling is reported as the scorer's accuracy",
    lesson=BEST,
)
def best_by_the_verifier(scores, correct, n):
    _check(scores, n)
    return _over_draws(correct.to(scores.dtype), correct, list(itertools.combinations(range(scores.shape[1]), n)))


@wrong(
    "best_of_n_accuracy",
    "with replacement",
    computed="the best of n draws with replacement: chances (m/N)^n - (l/N)^n",
    why="n different samples are drawn",
    effect="the same sample is drawn twice; the curve rises too slowly",
    lesson=BEST,
)
def best_with_replacement(scores, correct, n):
    _check(scores, n)
    total = scores.shape[1]
    below = (scores[:, :, None] > scores[:, None, :]).sum(2)
    within = (scores[:, :, None] >= scores[:, None, :]).sum(2)
    chance = ((within / total) ** n - (below / total) ** n) / (within - below)
    return (chance.to(scores.dtype) * correct.to(scores.dtype)).sum(1).mean()


@wrong(
    "best_of_n_accuracy",
    "first of the ties",
    computed="the first of several best samples of a draw",
    why="samples that tie share the credit",
    effect="a constant scorer is judged by the order of the samples",
    lesson=BEST,
)
def best_takes_the_first(scores, correct, n):
    _check(scores, n)
    draws = list(itertools.combinations(range(scores.shape[1]), n))
    return _over_draws(scores, correct, draws, tie="first")


@wrong(
    "best_of_n_accuracy",
    "any of the ties",
    computed="1 if one of the tied samples is correct",
    why="only one of them can be given as the answer",
    effect="ties look like skill",
    lesson=BEST,
)
def best_takes_any(scores, correct, n):
    _check(scores, n)
    draws = list(itertools.combinations(range(scores.shape[1]), n))
    return _over_draws(scores, correct, draws, tie="any")


@wrong(
    "best_of_n_accuracy",
    "worst of n",
    computed="the lowest score of each draw",
    why="the highest score is the best",
    effect="the curve falls for a good scorer",
    lesson=BEST,
)
def best_is_the_worst(scores, correct, n):
    _check(scores, n)
    return _over_draws(-scores, correct, list(itertools.combinations(range(scores.shape[1]), n)))


@wrong(
    "best_of_n_accuracy",
    "weights one rank off",
    computed="C(N - j, n) / C(N, n)-type weights that start at rank 1",
    why="the best sample is picked with chance C(N-1, n-1) / C(N, n) = n / N",
    effect="the weights do not sum to 1",
    lesson=BEST,
)
def best_one_rank_off(scores, correct, n):
    _check(scores, n)
    total = scores.shape[1]
    order = scores.argsort(dim=1, descending=True)
    ranked = correct.to(scores.dtype).gather(1, order)
    weights = [
        math.comb(total - 2 - j, n - 1) / math.comb(total, n) if total - 2 - j >= 0 else 0.0 for j in range(total)
    ]
    return (ranked * torch.tensor(weights, dtype=scores.dtype)).sum(1).mean()


@wrong(
    "best_of_n_accuracy",
    "some random draws",
    computed="the mean over 20 random draws",
    why="the expectation is a finite sum: no draw is needed",
    effect="noise that looks like a difference between methods",
    lesson=BEST,
)
def best_by_monte_carlo(scores, correct, n):
    _check(scores, n)
    generator = torch.Generator().manual_seed(0)
    draws = [torch.randperm(scores.shape[1], generator=generator)[:n].tolist() for _ in range(20)]
    return _over_draws(scores, correct, draws)


@wrong(
    "best_of_n_accuracy",
    "impossible draws accepted",
    computed="n cut to between 1 and N",
    why="more draws than samples do not exist: ValueError",
    effect="the curve goes on where there is no data",
    lesson=BEST,
)
def best_of_too_many(scores, correct, n):
    n = min(max(n, 1), scores.shape[1])
    return _over_draws(scores, correct, list(itertools.combinations(range(scores.shape[1]), n)))


@wrong(
    "best_of_n_accuracy",
    "first n samples, first of the ties",
    computed="argmax over the first n columns",
    why="the expectation is over all draws, and ties share the credit",
    effect="noisy, and judged by the order of the samples",
    lesson=BEST,
)
def best_of_the_first_by_argmax(scores, correct, n):
    _check(scores, n)
    return _over_draws(scores, correct, [range(n)], tie="first")


# --- informative_groups -----------------------------------------------------------------------------------------------

TEACH = "Groups that teach"


@wrong(
    "informative_groups",
    "mean strictly between 0 and 1",
    computed="True where 0 < mean < 1",
    why="eight rewards of 0.7 are equal and teach nothing; rewards need not be 0 or 1",
    effect="groups without signal are kept, others are dropped",
    lesson=TEACH,
)
def groups_by_mean(rewards):
    mean = rewards.mean(1)
    return (mean > 0) & (mean < 1)


@wrong(
    "informative_groups",
    "std above zero",
    computed="True where the std is not 0",
    why="the std of seven equal float32 numbers may be rounding noise",
    effect="groups without signal are kept at random",
    lesson=TEACH,
)
def groups_by_std(rewards):
    if rewards.shape[1] == 1:
        return torch.zeros(len(rewards), dtype=torch.bool)
    return ((rewards - rewards.sum(1, keepdim=True) / rewards.shape[1]) ** 2).sum(1) > 0


@wrong(
    "informative_groups",
    "any success",
    computed="True where a reward is above 0",
    why="a group in which all succeed has advantages of 0 too",
    effect="solved prompts fill the batch",
    lesson=TEACH,
)
def groups_with_success(rewards):
    return (rewards > 0).any(1)


@wrong(
    "informative_groups",
    "not all solved",
    computed="True where a reward is below 1",
    why="a group in which all fail has advantages of 0 too",
    effect="hopeless prompts fill the batch",
    lesson=TEACH,
)
def groups_with_failure(rewards):
    return (rewards < 1).any(1)


@wrong(
    "informative_groups",
    "all different",
    computed="True where no two rewards of a group are equal",
    why="one reward that differs is enough",
    effect="with rewards of 0 and 1 no group is left",
    lesson=TEACH,
)
def groups_all_different(rewards):
    return torch.tensor([len(set(row)) == len(row) and len(row) > 1 for row in rewards.tolist()])


@wrong(
    "informative_groups",
    "the uninformative ones",
    computed="True where all rewards are equal",
    why="those are the groups to drop",
    effect="training on groups without any gradient",
    lesson=TEACH,
)
def groups_inverted(rewards):
    return (rewards == rewards[:, :1]).all(1)


@wrong(
    "informative_groups",
    "columns for rows",
    computed="whether the prompts differ, for each sample index",
    why="a row is a group",
    effect="another number of answers, about other things",
    lesson=TEACH,
)
def groups_along_prompts(rewards):
    return (rewards != rewards[:1]).any(0)


@wrong(
    "informative_groups",
    "neighbours of the whole batch",
    computed="rewards compared with the batch's first one",
    why="each group is compared with itself",
    effect="equal groups at another level are kept",
    lesson=TEACH,
)
def groups_against_the_first(rewards):
    return (rewards != rewards[0, 0]).any(1)


@wrong(
    "informative_groups",
    "first against last",
    computed="True where the first and the last reward differ",
    why="any two may differ",
    effect="most groups with a signal are dropped",
    lesson=TEACH,
)
def groups_first_and_last(rewards):
    return rewards[:, 0] != rewards[:, -1]


@wrong(
    "informative_groups",
    "uninformative, by mean",
    computed="True where the mean is 0 or 1",
    why="those are groups to drop, and equal rewards may have any value",
    effect="training on groups without any gradient",
    lesson=TEACH,
)
def groups_inverted_by_mean(rewards):
    mean = rewards.mean(1)
    return (mean == 0) | (mean == 1)


@wrong(
    "informative_groups",
    "differences above a threshold",
    computed="True where max - min exceeds 1e-6",
    why="equal means equal; a threshold depends on the scale of the rewards",
    effect="small rewards never teach",
    lesson=TEACH,
    star=True,
)
def groups_above_a_threshold(rewards):
    return rewards.amax(1) - rewards.amin(1) > 1e-6
