"""What the student sees: one screen, first what matters. Colour helps where there is a terminal and never carries meaning
alone; NO_COLOR turns it off."""

import os
import shutil
import sys
import textwrap

from graders.scores import Outcome, WeekScore
from graders.submission import signatures

MAX_LINES = 25
CODES = {"red": "31", "green": "32", "yellow": "33", "bold": "1", "dim": "2"}
STAR, NO_STAR = "★", "☆"


class Painter:
    """Paints words when the stream is a terminal."""

    def __init__(self, stream=None):
        stream = stream or sys.stdout
        self.on = stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
        self.width = max(60, min(shutil.get_terminal_size((100, 25)).columns, 120))

    def __call__(self, text: str, *styles: str) -> str:
        if not self.on or not styles:
            return text
        return f"\033[{';'.join(CODES[style] for style in styles)}m{text}\033[0m"


def render(score: WeekScore, paint: Painter) -> list[str]:
    """The report of one week."""
    lines = [_headline(score, paint)]
    if score.submission.syntax_error is not None:
        return lines + _syntax_error(score, paint) + _footer(score, paint)
    failing = [o for e in score.exercises for o in _deciding(score, e) if o.status in ("failed", "broken")]
    shown = next((o for o in failing if o.failure), None)
    if shown:
        lines += ["", *_failure(shown, score, paint)]
    rest = _others(score, failing, shown, paint) + _unwritten(score, paint)
    stars = _stars(score, paint)
    footer = _footer(score, paint)
    room = MAX_LINES - len(lines) - len(footer) - len(stars) - 1
    if len(rest) > room:
        rest = [
            *rest[: max(room - 1, 0)],
            f"  … and {len(rest) - max(room - 1, 0)} lines more; --score-json FILE has all of them",
        ]
    return lines + (["", *rest] if rest else []) + stars + footer


def _deciding(score: WeekScore, e) -> list[Outcome]:
    return [*e.correct, *(e.robust if score.robust_decides else [])]


def _headline(score: WeekScore, paint: Painter) -> str:
    week = score.week
    points = sum(e.points for e in score.exercises)
    total = sum(e.exercise.points for e in score.exercises)
    right = sum(e.green for e in score.exercises)
    if not score.complete:
        ran = sum(o.status not in ("not run", "not written") for o in score.outcomes)
        passed = sum(o.passed for o in score.outcomes)
        verdict = paint(
            f"partial run, not a grade: {ran} of {len(score.outcomes)} checks ran, {passed} passed", "yellow", "bold"
        )
        return f"{paint('Week ' + week.week, 'bold')}  {score.submission.label}  {verdict}"
    word = paint("✓ green", "green", "bold") if score.green else paint("✗ not green yet", "red", "bold")
    stars = sum(e.star for e in score.exercises)
    counts = f"{right} of {len(score.exercises)} functions right, {points} of {total} points"
    return f"{paint('Week ' + week.week, 'bold')}  {score.submission.label}  {word}: {counts}, {STAR} {stars} of {len(score.exercises)}"


def _syntax_error(score: WeekScore, paint: Painter) -> list[str]:
    error = score.submission.syntax_error
    lines = ["", paint(f"✗ Python cannot read {score.submission.label}, line {error.lineno}: {error.msg}", "red")]
    if error.text:
        lines += [f"    {error.text.strip()}"]
    return [*lines, "  No function can be graded until it can be read."]


def _failure(outcome: Outcome, score: WeekScore, paint: Painter) -> list[str]:
    """One failing check in full: claim, what is wrong, the smallest input, both answers."""
    failure, check = outcome.failure, outcome.check
    lines = [paint(f"✗ {check.function}: {check.claim}", "red", "bold")]
    if outcome.status == "broken":
        lines[0] = paint(f"✗ {check.function}: the grader itself is broken in {check.test}", "red", "bold")
    lines += _wrapped(failure.words, paint.width)
    if failure.line is not None:
        lines += [f"    line {failure.line}: {failure.source}"[: paint.width]]
    if failure.code:
        code = failure.code.splitlines()
        lines += [paint("  smallest input found:", "dim")] + [f"    {line}" for line in _cut(code, 8, paint.width)]
    for name in ("expected", "got", "difference"):
        text = getattr(failure, name)
        if text:
            lines += [_clip(f"    {name:<10} {text}", 3 * paint.width)]
    if failure.printed:
        lines += [paint("  it printed:", "dim")] + [
            f"    {line}"[: paint.width] for line in failure.printed.splitlines()[-3:]
        ]
    return lines


def _others(score: WeekScore, failing: list[Outcome], shown: Outcome | None, paint: Painter) -> list[str]:
    lines = []
    for outcome in failing:
        if outcome is not shown:
            words = outcome.failure.words.splitlines()[0] if outcome.failure else ""
            lines += [
                _clip(
                    f"{paint('✗', 'red')} {outcome.check.function}: {outcome.check.claim} ({words})", paint.width + 20
                )
            ]
    return lines


def _unwritten(score: WeekScore, paint: Painter) -> list[str]:
    """What there is to write, in order, with its signature line and section of the lesson."""
    missing = [e for e in score.exercises if e.state in ("not written", "missing")]
    if not missing:
        return []
    known = signatures(score.week.reference)
    lines = [paint("To write, in this order:", "bold")]
    for number, e in enumerate(score.exercises, 1):
        if e not in missing:
            continue
        line = known.get(e.exercise.name, e.exercise.name)
        gone = "  (the function is gone from the file)" if e.state == "missing" else ""
        points = f"{e.exercise.points} point{'s' if e.exercise.points != 1 else ''}{', stretch' if e.exercise.stretch else ''}"
        lines += [f"  {number}. {line}{gone}"]
        lines += [paint(f"     {points}; lesson section “{e.exercise.section}”", "dim")]
    return lines


def _stars(score: WeekScore, paint: Painter) -> list[str]:
    """Each lost star in one line with its remedy, where the function is right otherwise."""
    if score.robust_decides:
        return []
    lines = []
    for e in score.exercises:
        lost = next((o for o in e.robust if not o.passed), None) if e.green else None
        if lost is not None and lost.status == "broken":
            lines += [
                paint(
                    f"{NO_STAR} {e.exercise.name}: the grader itself is broken in {lost.check.test}: {lost.failure.words}",
                    "red",
                )
            ]
        elif lost is not None and lost.status == "failed":
            text = f"{NO_STAR} {e.exercise.name}: not {STAR} yet: {lost.check.claim}. Remedy: {lost.remedy}"
            lines += [paint(_clip(text, 2 * paint.width), "yellow")]
    if len(lines) > 4:
        lines = [*lines[:3], f"{NO_STAR} … and {len(lines) - 3} more stars to earn"]
    return lines


def _footer(score: WeekScore, paint: Painter) -> list[str]:
    week = score.week.week
    notes = []
    if any(e.green and not e.star for e in score.exercises) and not score.robust_decides:
        notes += [f"pytest weeks/{week} --robust shows what costs a star"]
    if any(e.state == "written" and not e.green for e in score.exercises):
        notes += [f"stuck? rlhf hint {week}"]
    if score.in_process:
        notes += ["graded in this process: not a grade"]
    notes += [f"{score.seconds:.1f} s, seed {score.seed}"]
    return ["", paint("; ".join(notes), "dim")]


def _wrapped(text: str, width: int) -> list[str]:
    lines = [line for part in text.splitlines() for line in textwrap.wrap(part, width - 2) or [""]]
    return [f"  {line}" for line in lines[:4]]


def _cut(lines: list[str], most: int, width: int) -> list[str]:
    lines = [_clip(line, 4 * width) for line in lines]
    return lines if len(lines) <= most else [*lines[: most - 1], "…"]


def _clip(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
