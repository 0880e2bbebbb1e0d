"""What the student sees: one screen, first what matters. Colour helps where there is a terminal and never carries
meaning alone; NO_COLOR turns it off."""

import os
import shutil
import sys
import textwrap

from graders.scores import ExerciseScore, Outcome, WeekScore
from graders.submission import signatures

MAX_LINES = 25
CODES = {"red": "31", "green": "32", "yellow": "33", "bold": "1", "dim": "2"}
STAR, NO_STAR = "★", "☆"
KINDS = {
    "value": "wrong value",
    "gradient": "wrong gradient",
    "constant": "gradient into a constant",
    "type": "wrong type",
    "shape": "wrong shape",
    "dtype": "wrong dtype",
    "hang": "does not return",
    "crash": "crashes",
    "broken": "the grader itself is broken",
}


class Painter:
    """Paints words when the stream is a terminal, or FORCE_COLOR says that it ends in one."""

    def __init__(self, stream=None):
        stream = stream or sys.stdout
        terminal = (stream.isatty() and os.environ.get("TERM") != "dumb") or os.environ.get("FORCE_COLOR")
        self.on = bool(terminal) and "NO_COLOR" not in os.environ
        self.width = max(60, min(shutil.get_terminal_size((100, 25)).columns, 120))

    def __call__(self, text: str, *styles: str) -> str:
        if not self.on or not styles:
            return text
        return f"\033[{';'.join(CODES[style] for style in styles)}m{text}\033[0m"


def render(score: WeekScore, paint: Painter) -> list[str]:
    """The report of one week."""
    head, foot = _headline(score, paint), _footer(score, paint)
    failing = [o for e in score.exercises for o in _deciding(score, e) if o.status in ("failed", "broken")]
    if score.submission.syntax_error is not None:
        return [*head, "", *_syntax_error(score, paint), *foot]
    if unloadable := next((o for o in failing if o.failure and o.failure.kind == "import"), None):
        return [
            *head,
            "",
            *_failure(unloadable, score, paint),
            "",
            "No function can be graded until the file loads.",
            *foot,
        ]
    body = ["", *_failure(failing[0], score, paint)] if failing else []
    stars = _stars(score, paint) + _own_property(score, paint)
    room = MAX_LINES - len(head) - len(body) - len(stars) - len(foot) - 1
    rest = _others(failing[1:], paint) + _unwritten(score, paint, short=bool(failing))
    if len(rest) > room:
        rest = _others_by_function(failing[1:], paint) + _unwritten(score, paint, short=True)
    if len(rest) > room:
        rest = [
            *rest[: max(room - 1, 0)],
            f"… and {len(rest) - max(room - 1, 0)} lines more; --score-json FILE has it all",
        ]
    return [*head, *body, *([""] if rest else []), *rest, *stars, *foot]


def _deciding(score: WeekScore, e: ExerciseScore) -> list[Outcome]:
    return [*e.correct, *(e.robust if score.robust_decides else [])]


def _headline(score: WeekScore, paint: Painter) -> list[str]:
    who = f"{paint('Week ' + score.week.week, 'bold')}  {score.submission.label}  "
    if not score.complete:
        ran = sum(o.status in ("passed", "failed", "broken") for o in score.outcomes)
        passed = sum(o.passed for o in score.outcomes)
        text = f"a part only, not a grade: {ran} of {len(score.outcomes)} checks ran, {passed} passed"
        return [who + paint(text, "yellow", "bold")]
    total = len(score.exercises)
    points = f"{sum(e.points for e in score.exercises)} of {sum(e.exercise.points for e in score.exercises)} points"
    points += f" and {score.own.points} of bonus" if score.own and score.own.points else ""
    counts = f"{sum(e.green for e in score.exercises)} of {total} functions right, {points}"
    verdict = paint("✓ green", "green", "bold") if score.green else paint("✗ not green yet", "red", "bold")
    return [f"{who}{verdict}: {counts}, {STAR} {sum(e.star for e in score.exercises)} of {total}"]


def _syntax_error(score: WeekScore, paint: Painter) -> list[str]:
    error = score.submission.syntax_error
    lines = [paint(f"✗ Python cannot read {score.submission.label}, line {error.lineno}: {error.msg}", "red")]
    lines += [f"    {error.text.strip()}"] if error.text else []
    return [*lines, "No function can be graded until the file can be read."]


def _failure(outcome: Outcome, score: WeekScore, paint: Painter) -> list[str]:
    """One failing check in full: claim, what is wrong, the input, both answers."""
    failure, check = outcome.failure, outcome.check
    title = f"{check.function}: {check.claim}"
    if failure.kind == "import":
        title = "the file does not load"
    elif failure.kind == "broken":
        title = f"{check.function}: the grader itself is broken in {check.test}; please report it"
    lines = [paint(_clip(f"✗ {title}", paint.width), "red", "bold")]
    lines += [f"  {line}" for line in textwrap.wrap(failure.words, paint.width - 2)[:4]]
    wrong = failure.misconception
    if failure.line is not None:
        lines += [_clip(f"    line {failure.line}: {failure.source}", paint.width)]
    if failure.code and failure.kind != "import":
        most = 4 if wrong else 8
        code = [_clip(line, 3 * paint.width) for line in failure.code.splitlines()]
        lines += [paint(f"  {'smallest input found' if failure.shrunk else 'input'}:", "dim")]
        lines += [f"    {line}" for line in (code if len(code) <= most else [*code[: most - 1], "…"])]
    for name in ("expected", "got", "difference"):
        if text := getattr(failure, name):
            lines += [_clip(f"    {name:<10} {text}", 2 * paint.width)]
    if wrong:
        lines += _diagnosis(wrong, paint)
    elif failure.printed:
        lines += [paint("  it printed:", "dim")]
        lines += [_clip(f"    {line}", paint.width) for line in failure.printed.splitlines()[-3:]]
    return lines


def _diagnosis(wrong, paint: Painter) -> list[str]:
    """Whose numbers these are, why that is wrong, what it does, where to read."""
    lines = [
        f"Your numbers equal “{wrong.name}”: {wrong.computed}.",
        f"Why that is wrong: {wrong.why}. In training: {wrong.effect}.",
        f"Read again: lesson section “{wrong.lesson}”",
    ]
    paragraphs = (textwrap.wrap(line, paint.width - 4, subsequent_indent="  ")[:3] for line in lines)
    return [paint(f"  {line}", "yellow") for paragraph in paragraphs for line in paragraph]


def _others(failing: list[Outcome], paint: Painter) -> list[str]:
    return [_clip(f"✗ {o.check.function}: {o.check.claim} ({_kind(o)})", paint.width) for o in failing]


def _others_by_function(failing: list[Outcome], paint: Painter) -> list[str]:
    """One line a function, when one a check is too many."""
    lines = []
    for function in dict.fromkeys(o.check.function for o in failing):
        mine = [o for o in failing if o.check.function == function]
        more = f"; {len(mine) - 1} more of its checks fail" if len(mine) > 1 else ""
        lines += [_clip(f"✗ {function} ({_kind(mine[0])}{more}): {mine[0].check.claim}", paint.width)]
    return lines


def _kind(outcome: Outcome) -> str:
    kind = outcome.failure.kind if outcome.failure else outcome.status
    named = f", “{outcome.failure.misconception.name}”" if outcome.failure and outcome.failure.misconception else ""
    return KINDS.get(kind, kind) + named


def _unwritten(score: WeekScore, paint: Painter, short: bool) -> list[str]:
    """What there is to write, in order, with its signature line, points and section of the lesson."""
    known = signatures(score.week.reference)
    lines = []
    for number, e in enumerate(score.exercises, 1):
        if e.state not in ("not written", "missing"):
            continue
        line = f"  {number}. {known.get(e.exercise.name, e.exercise.name)}"
        line += "  (gone from the file)" if e.state == "missing" else ""
        points = f"{e.exercise.points} point{'' if e.exercise.points == 1 else 's'}"
        about = f"{points}{', stretch' if e.exercise.stretch else ''}; lesson section “{e.exercise.section}”"
        lines += [_clip(f"{line}  {about}", paint.width)] if short else [line, paint(f"     {about}", "dim")]
    return [paint("To write, in this order:", "bold"), *lines] if lines else []


def _stars(score: WeekScore, paint: Painter) -> list[str]:
    """Each lost star in one line with its remedy, where the function is right otherwise."""
    if score.robust_decides or not score.complete:
        return []
    lines = []
    for e in score.exercises:
        lost = next((o for o in e.robust if o.status in ("failed", "broken")), None) if e.green else None
        if lost is None:
            continue
        text = f"{lost.check.claim}. Remedy: {lost.remedy}"
        if lost.status == "broken":
            text = f"the grader itself is broken in {lost.check.test}: {lost.failure.words}"
        lines += textwrap.wrap(f"{NO_STAR} {e.exercise.name}: {text}", paint.width, subsequent_indent="  ")[:3]
    if len(lines) > 8:
        lines = [*lines[:7], "  … and more"]
    return ["", *(paint(line, "yellow") for line in lines)] if lines else []


def _own_property(score: WeekScore, paint: Painter) -> list[str]:
    """The bonus of the weeks that ask for a property of the student's own."""
    own = score.own
    if own is None or own.status == "not run":
        return []
    if own.status == "not written":
        text = f"a property of your own, weeks/{score.week.week}/test_mine.py: {own.exercise.points} points of bonus"
        return ["", *_wrapped(f"Not written yet: {text}; lesson section “{own.exercise.section}”", paint, 2)]
    if own.status == "passed":
        caught = "; ".join(f"{function}: {', '.join(names)}" for function, names in own.caught.items() if names)
        text = f"✓ your own property catches {own.catches} of {own.tried} wrong versions. {caught}"
        return ["", *(paint(line, "green") for line in _wrapped(text, paint, 3))]
    lines = _wrapped(f"✗ your own property (bonus): {own.words}", paint, 4)
    if own.input:
        lines += _wrapped(f"  smallest input found: {own.input}", paint, 3)
    if own.line is not None:
        lines += [_clip(f"    line {own.line}: {own.source}", paint.width)]
    return ["", *(paint(line, "yellow") for line in lines)]


def _wrapped(text: str, paint: Painter, most: int) -> list[str]:
    lines = textwrap.wrap(text, paint.width, subsequent_indent="  ")
    return lines if len(lines) <= most else [*lines[: most - 1], f"{lines[most - 1][: paint.width - 2]} …"]


def _footer(score: WeekScore, paint: Painter) -> list[str]:
    week, notes = score.week.week, []
    if any(e.green and not e.star for e in score.exercises) and score.complete and not score.robust_decides:
        notes += [f"pytest weeks/{week} --robust shows what costs a star"]
    if any(e.state == "written" and any(o.status == "failed" for o in e.correct) for e in score.exercises):
        notes += [f"stuck? rlhf hint {week}"]
    if score.broken:
        notes += ["a check of the grader itself is broken: this is not a grade, please report it"]
    if score.in_process:
        notes += ["graded without a process of its own: not a grade"]
    notes += [f"{score.seconds:.1f} s, seed {score.seed}"]
    return ["", paint("; ".join(notes), "dim")]


def _clip(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
