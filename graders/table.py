"""graders/README.md: what the graders know about each function. `python -m graders.table` writes it anew.

Every number is counted from the declarations, and tests/test_misconceptions.py runs each row of both zoos: a wrong
version is rejected on the rung that it declares and named, a right one is accepted.
"""

from pathlib import Path

from graders import accepted, misconceptions
from graders.exercises import Exercise, Week, load_week, weeks
from graders.misconceptions.same import SAME
from graders.submission import expected_checks

README = Path(__file__).parent / "README.md"
INTRODUCTION = """\
# The graders

`pytest weeks/05` grades `weeks/05/reinforce.py`; nothing here needs opening for that. This page says what a verdict
rests on. It is made from the declarations by `python -m graders.table`: edit those.

**How a check works.** A test in `weeks/NN/test_*.py` is one claim about one function. It draws inputs
([strategies.py](strategies.py)), computes the reference's answer in float64, calls your function in a process of its
own ([worker.py](worker.py)) and compares values, gradients, shapes, dtypes, the inputs after the call and the global
state ([verdict.py](verdict.py)). Your process never holds an expected answer. A check that does not run counts as
failed; one that would accept zero, or an answer 1% off, reports itself as broken.

**Two rungs.** The checks of the first rung decide green or red and earn the points. Those of the second earn the star
(★): NaN under the mask, empty rows, half precision, extreme inputs. `--robust` makes them decide.

**Two zoos.** [misconceptions/](misconceptions) holds known wrong versions of each function, [accepted/](accepted)
right ones that are written differently. When a check fails, your numbers are held against the wrong versions, and the
report says which one gives the same ([diagnosis.py](diagnosis.py)); it says nothing when none does, or when two do
that are not provably one function. `tests/test_misconceptions.py` runs both zoos: every wrong version is rejected and
named, every right one accepted.

**A property of your own.** In weeks 02, 05, 06 and 08 `weeks/NN/test_mine.py` is a test that you write. It runs in a
process of its own ([mine.py](mine.py), [trial.py](trial.py)), on the reference, where it must pass, and on the wrong
versions of the functions that it calls, of which it must catch two. It is a bonus and never decides green.

**Files.** [exercises/](exercises) declares points, sections and hints; [declare.py](declare.py) holds the words of a
grader file, [scenarios/](scenarios) what functions that take models are run on; [plugin.py](plugin.py) and
[report.py](report.py) are pytest's side, [scores.py](scores.py) the JSON, [limits.py](limits.py) and
[sandbox.py](sandbox.py) the fences.

The columns: checks of the first rung, and checks for the star; wrong versions, of which so many are rejected on the
first rung, so many only by the star's checks, and so many named (¹: some of them by the name of a version that is
provably the same function, [misconceptions/same.py](misconceptions/same.py)); right versions accepted. Functions
marked with \\* are stretch.
"""
TITLES = ("function", "checks", "★ checks", "wrong", "rejected", "by ★", "named", "right, accepted")


def page() -> str:
    """The whole of README.md."""
    graded = [week for week in map(load_week, weeks()) if week.grader.is_file()]
    parts, totals = [INTRODUCTION], []
    for week in graded:
        rows = {exercise: counts(week, exercise) for exercise in week.exercises}
        totals += rows.values()
        parts += [f"## Week {week.week}: {week.title}\n", *head()]
        parts += [line(label(week, exercise), row) for exercise, row in rows.items()] + [""]
    sums = [sum(column) for column in zip(*totals, strict=True)]
    parts += [f"## All {len(graded)} weeks\n", *head(), line(f"{len(totals)} functions", sums), ""]
    return "\n".join(parts)


def counts(week: Week, exercise: Exercise) -> list[int]:
    """The numbers of one row, in the order of the titles."""
    checks = [check for check in expected_checks(week) if check.function == exercise.name]
    wrong = [m for m in misconceptions.load(week.week) if m.function == exercise.name]
    right = [r for r in accepted.load(week.week) if r.function == exercise.name]
    robust, star = sum(check.robust for check in checks), sum(m.star for m in wrong)
    return [len(checks) - robust, robust, len(wrong), len(wrong) - star, star, len(wrong), len(right)]


def label(week: Week, exercise: Exercise) -> str:
    twins = any(function == exercise.name for function, *_ in SAME)
    return f"`{exercise.name}`" + (" \\*" if exercise.stretch else "") + (" ¹" if twins else "")


def head() -> list[str]:
    return ["| " + " | ".join(TITLES) + " |", "|---" + "|--:" * (len(TITLES) - 1) + "|"]


def line(name: str, numbers: list[int]) -> str:
    return "| " + " | ".join([name, *map(str, numbers)]) + " |"


if __name__ == "__main__":
    README.write_text(page(), encoding="utf-8")
