"""The declaration of a week, read from `graders/exercises/NN.toml`: what there is to write, in order, and for how much.

Everything that speaks about exercises (the terminal report, scores, hints, the status table) reads it from here.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
DECLARATIONS = CHECKOUT / "graders" / "exercises"


class UnknownWeek(ValueError):
    """There is no such week; the message lists those there are."""


@dataclass(frozen=True)
class Exercise:
    """One function that the student writes."""

    name: str
    points: int
    section: str  # heading of the lesson
    hints: tuple[str, ...]
    minutes: int = 20
    difficulty: int = 1
    stretch: bool = False  # listed and graded, but never decides green


@dataclass(frozen=True)
class Week:
    """One week: its module name is the file name in weeks/NN, solutions/NN and reference_impl.

    `own` is the bonus of the weeks that ask for a property of the student's own, weeks/NN/test_mine.py.
    """

    week: str
    module: str
    chapter: str
    title: str
    exercises: tuple[Exercise, ...]
    own: Exercise | None = None

    @property
    def stub(self) -> Path:
        return CHECKOUT / "weeks" / self.week / f"{self.module}.py"

    @property
    def grader(self) -> Path:
        return CHECKOUT / "weeks" / self.week / f"test_{self.module}.py"

    @property
    def reference(self) -> Path:
        return CHECKOUT / "reference_impl" / f"{self.module}.py"

    @property
    def scenarios(self) -> Path:
        return CHECKOUT / "graders" / "scenarios" / f"{self.week}.py"

    def exercise(self, name: str) -> Exercise:
        return next(exercise for exercise in self.exercises if exercise.name == name)


def weeks() -> list[str]:
    """The numbers of the weeks that are declared, in order."""
    return sorted(path.stem for path in DECLARATIONS.glob("[0-9][0-9].toml"))


def load_week(week: str) -> Week:
    """The declaration of one week, "05" or "5". Raises UnknownWeek, or ValueError for an incomplete declaration."""
    number = str(week).zfill(2)
    path = DECLARATIONS / f"{number}.toml"
    if not path.is_file():
        raise UnknownWeek(f"there is no week {week}; the weeks are {', '.join(weeks())}")
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    try:
        exercises = tuple(Exercise(**{**row, "hints": tuple(row["hints"])}) for row in table["exercise"])
        own = table.get("property")
        own = own and Exercise(**{**own, "name": "test_mine", "hints": tuple(own["hints"])})
        return Week(number, table["module"], str(table["chapter"]), table["title"], exercises, own)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: the declaration is not complete: {error}") from None
