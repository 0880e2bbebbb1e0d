"""`rlhf status`: the eleven weeks on one screen, and the next thing to do.

Verdicts are those of the last grading of each file (graders/memory.py); a file that has changed since is graded first.
"""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from course.solution import given_up
from graders.exercises import CHECKOUT, Week, load_week, weeks
from graders.memory import next_function, recall
from graders.report import STAR, Painter
from graders.submission import NoSubmission
from reference_impl.launch import clean_exit

RUNS = CHECKOUT / "runs"


@dataclass(frozen=True)
class StatusCommand:
    """The eleven weeks on one screen: functions right, points, stars, what was trained, and what to do next."""


@dataclass(frozen=True)
class Standing:
    """How far one week is."""

    week: Week
    verdict: dict | None  # memory.brief; None: not known
    runs: int  # finished with the student's functions
    opened: int  # solutions opened by giving up

    @property
    def green(self) -> bool:
        return bool(self.verdict and self.verdict["green"])

    @property
    def begun(self) -> bool:
        states = [f["state"] for f in self.verdict["functions"].values()] if self.verdict else ["written"]
        return "written" in states or "wrong signature" in states


def main(args: list[str]) -> None:
    """Prints the table; exits 2 with one message after a mistake."""
    import tyro

    with clean_exit():
        tyro.cli(StatusCommand, prog="rlhf status", args=args)
        found = standings(grade=True)
        print("\n".join([*table(found, Painter()), "", *next_step(found)]))


def standings(grade: bool) -> list[Standing]:
    """Every week. With `grade`, what has changed since its last grading is graded; else its verdict is None."""
    declared = [load_week(number) for number in weeks()]
    verdicts = {week.week: remembered(week) for week in declared}
    stale = [week for week in declared if verdicts[week.week] is None and week.stub.is_file()]
    if grade and stale:
        names = ", ".join(week.week for week in stale)
        print(f"Grading week{'' if len(stale) == 1 else 's'} {names} ...", file=sys.stderr)
        verdicts |= graded(stale)
    runs = finished_runs()
    opened = Counter(name.partition(".")[0] for name in given_up())
    return [Standing(w, verdicts[w.week], runs[str(w.stub.relative_to(CHECKOUT))], opened[w.week]) for w in declared]


def remembered(week: Week) -> dict | None:
    """The verdict on the file as it is; None when there is no file or it has to be graded first."""
    try:
        return recall(week)
    except NoSubmission:
        return None


def graded(stale: Iterable[Week]) -> dict[str, dict | None]:
    """Their verdicts after `pytest weeks/NN ...`, which remembers them."""
    stale = list(stale)
    command = [sys.executable, "-m", "pytest", *(f"weeks/{week.week}" for week in stale)]
    subprocess.run(command, cwd=CHECKOUT, capture_output=True, check=False)
    return {week.week: remembered(week) for week in stale}


def finished_runs() -> Counter[str]:
    """How many finished runs there are under runs/ by the file whose functions ran, those of demos included."""
    counts: Counter[str] = Counter()
    for pattern in ("*/summary.json", "*/*/summary.json"):
        for path in RUNS.glob(pattern):
            try:
                summary = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            if isinstance(summary, dict) and summary.get("status") == "finished":
                counts[str(summary.get("functions"))] += 1
    return counts


def table(found: list[Standing], paint: Painter, current: str = "") -> list[str]:
    """One line a week."""
    width = max(len(s.week.title) for s in found)
    head = f"  Week  {'':<{width}}  functions  points  {STAR}  trained"
    lines = [paint(head, "bold")]
    for s in found:
        start = (
            f"{'>' if s.week.week == current else ' '} {'✓' if s.green else ' '} {s.week.week}  {s.week.title:<{width}}"
        )
        lines.append(paint(f"{start}  {_counts(s)}".rstrip(), *(["green"] if s.green else [])))
    known = [s.verdict["functions"].values() for s in found if s.verdict]
    functions = [f for verdict in known for f in verdict]
    right, stars = sum(f["green"] for f in functions), sum(f["star"] for f in functions)
    points = sum(f["points"] for f in functions)
    possible = sum(e.points for s in found for e in s.week.exercises)
    total = sum(len(s.week.exercises) for s in found)
    lines.append(f"        {'all':<{width}}  {right:>3} of {total}  {points:>3}/{possible}  {stars}")
    if opened := sum(s.opened for s in found):
        lines.append(f"{opened} solution{'' if opened == 1 else 's'} opened before green (.rlhf/gave-up.toml)")
    return lines


def _counts(s: Standing) -> str:
    trained = f"{s.runs} run{'' if s.runs == 1 else 's'}" if s.runs else "-"
    if s.verdict is None:
        return f"{'not graded yet' if s.week.stub.is_file() else 'file gone':>14}         {trained}"
    functions = list(s.verdict["functions"].values())
    right, stars = sum(f["green"] for f in functions), sum(f["star"] for f in functions)
    points, possible = sum(f["points"] for f in functions), sum(e.points for e in s.week.exercises)
    return f"{right:>4} of {len(functions)}   {points:>3}/{possible:<3} {stars:>2}  {trained}"


def next_step(found: list[Standing]) -> list[str]:
    """The one thing to do next: finish what is begun, then train what is green, then begin the next week."""
    gone = next((s for s in found if not s.week.stub.is_file()), None)
    if gone:
        return [f"Next: `rlhf reset {gone.week.week}` puts {gone.week.stub.relative_to(CHECKOUT)} back."]
    unfinished = next((s for s in found if s.begun and not s.green), None)
    untrained = next((s for s in found if s.green and not s.runs), None)
    fresh = next((s for s in found if not s.begun), None)
    if unfinished:
        return [f"Next: {_finish(unfinished)}"]
    if untrained:
        number = untrained.week.week
        return [f"Next: train with your own functions: `rlhf train {number} --impl student` (week {number} is green)."]
    if fresh:
        number = fresh.week.week
        return [f"Next: read weeks/{number}/README.md, then `rlhf watch {number}` while you write."]
    return ["All weeks are green and trained. Next: an experiment of your own, `rlhf experiment new TITLE`."]


def _finish(s: Standing) -> str:
    number = s.week.week
    if s.verdict is None:
        return f"`uv run pytest weeks/{number}`: week {number} could not be graded."
    name = next_function(s.verdict)
    verb = "mend" if s.verdict["functions"][name]["state"] in ("written", "wrong signature") else "write"
    return f"{verb} {name} in {s.week.stub.relative_to(CHECKOUT)}; `rlhf watch {number}` grades it as you save."
