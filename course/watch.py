"""`rlhf watch 05`: the verdict on your file, a moment after each save.

A process with everything imported stands by (graders/warm.py). The files are looked at a hundred times a second: that
costs next to nothing, and works where file events do not, on network drives and in containers.
"""

import select
import time
from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from course import hint, solution, status
from course.exercise import find_week, verdict_of
from course.screen import Screen
from graders.exercises import Exercise, Week, load_week, weeks
from graders.memory import next_function
from graders.report import Painter
from graders.warm import Warm, WarmDied
from reference_impl.errors import UserError
from reference_impl.launch import clean_exit

TICK = 0.01
KEYS = "h hint   n next week   l list   s solution   q quit"


@dataclass(frozen=True)
class WatchCommand:
    """Grade your file each time you save it. Keys: h hint, n next week, l list, s solution, q quit."""

    week: Annotated[Positional[str | None], arg(metavar="WEEK")] = None
    """The week, for example 05; default: the first that is not green."""


def main(args: list[str]) -> None:
    """Exits 0 after q, 2 with one message after a mistake, 130 after Ctrl-C."""
    import tyro

    with clean_exit():
        command = tyro.cli(WatchCommand, prog="rlhf watch", args=args)
        week = find_week(command.week) if command.week else first_open_week()
        warm = Warm()
        try:
            with Screen() as screen:
                Watch(week, screen, warm).run()
        except WarmDied as problem:
            raise UserError(f"The process that grades ended: {problem}") from None
        finally:
            warm.close()


def first_open_week(after: str = "") -> Week:
    """The first week after this one that is not known to be green, from the start again at the end."""
    numbers = [n for n in weeks() if load_week(n).grader.is_file()]
    rest = [n for n in numbers if n > after] + [n for n in numbers if n <= after]
    for number in rest:
        verdict = status.remembered(load_week(number))
        if not (verdict and verdict["green"]):
            return load_week(number)
    return load_week(rest[0])


class Watch:
    """One screen: the verdict, or what a key asked for until the next save."""

    def __init__(self, week: Week, screen: Screen, warm: Warm):
        self.screen, self.warm, self.paint = screen, warm, Painter()
        self.done = False
        self.turn_to(week)

    def turn_to(self, week: Week) -> None:
        self.week = week
        self.before = self.asked_for = None  # the files a moment ago, and those of the last request
        self.number, self.asked_at, self.saved = 0, 0.0, False  # of the last request; did a save bring it about?
        self.report: list[str] = [f"Week {week.week}, {week.title}: starting ..."]
        self.verdict: dict | None = None
        self.state = "starting ..."
        self.page: list[str] | None = None  # in place of the report
        self.answers: dict[str, object] = {}  # what a key means on this page
        self.typed = ""
        self.screen.stale = True

    def run(self) -> None:
        while not self.done:
            self.ask_if_saved()
            self.draw_if_stale()
            waiting = [self.warm, *([] if self.screen.keyboard is None else [self.screen.keyboard])]
            ready, _, _ = select.select(waiting, [], [], TICK)
            if self.warm in ready:
                for answer in self.warm.answers():
                    self.hear(answer)
            if self.screen.keyboard in ready:
                for key in self.screen.keys():
                    self.press(key.lower())
                    self.draw_if_stale()

    # --- grading ------------------------------------------------------------------------------------------------------

    def ask_if_saved(self) -> None:
        """Ask for a grading when a file has changed and no longer does: an editor may write in two steps."""
        now = files(self.week)
        if now == self.before and now != self.asked_for:
            mine = self.week.stub.with_name("test_mine.py").name
            own = self.asked_for is None or self.asked_for.get(mine) != now.get(mine)
            self.saved = self.asked_for is not None
            self.asked_for, self.asked_at, self.state = now, time.perf_counter(), "grading ..."
            self.number = self.warm.ask(self.week.week, self.screen.size()[0], self.paint.on, own=own)
            self.screen.stale = self.screen.full
        self.before = now

    def hear(self, answer: dict) -> None:
        """A verdict. One about an earlier week, or an earlier save, comes too late."""
        if answer["number"] != self.number:
            return
        took = f"{time.perf_counter() - self.asked_at:.2f} s after the save"
        self.state = f"verdict of {time.strftime('%H:%M:%S')}{', ' + took if self.saved else ''}"
        self.report, self.verdict = answer["report"].strip("\n").splitlines(), answer["verdict"]
        if self.verdict and self.verdict["green"]:
            self.report += [
                "",
                f"Week {self.week.week} is green. Train with it: rlhf train {self.week.week} --impl student",
            ]
        self.back()

    # --- keys ---------------------------------------------------------------------------------------------------------

    def press(self, key: str) -> None:
        if self.answers and key.isdigit():
            self.type(key)
            return
        self.typed = ""
        if key in self.answers:
            self.answers[key]()
        elif key == "q":
            self.done = True
        elif key == "h":
            self.hint()
        elif key == "n":
            self.turn_to(first_open_week(self.week.week))
        elif key == "l":
            self.list_weeks()
        elif key == "s":
            self.list_solutions()
        else:
            self.back()

    def type(self, digits: str) -> None:
        """Weeks have two digits; 1 alone may be the first of 10."""
        self.typed += digits
        if self.typed in self.answers:
            self.answers[self.typed]()
        elif not any(answer.startswith(self.typed) for answer in self.answers):
            self.back()

    def back(self) -> None:
        """To the verdict."""
        self.turn_page(None, {})

    def turn_page(self, page: list[str] | None, answers: dict) -> None:
        self.page, self.answers, self.typed, self.screen.stale = page, answers, "", True

    def hint(self) -> None:
        verdict = self.verdict or verdict_of(self.week)
        name = next_function(verdict) if verdict else None
        if name is None:
            self.turn_page([f"Every function of week {self.week.week} is right; n goes on."], {})
        else:
            self.turn_page(hint.ladder(self.week, self.week.exercise(name), again=False), {})

    def list_weeks(self) -> None:
        found = status.standings(grade=False)
        page = [
            *status.table(found, self.paint, self.week.week),
            "",
            "Two digits go to a week, any other key goes back.",
        ]
        self.turn_page(page, {n: lambda n=n: self.turn_to(load_week(n)) for n in weeks()})

    def list_solutions(self) -> None:
        page, answers = [f"Worked answers of week {self.week.week}. Which one?", ""], {}
        opened = solution.given_up()
        for number, exercise in enumerate(self.week.exercises, 1):
            green = bool(self.verdict and self.verdict["functions"][exercise.name]["green"])
            if green or f"{self.week.week}.{exercise.name}" in opened:
                mark, answers[str(number)] = "open", lambda e=exercise: self.open_solution(e)
            else:
                mark, answers[str(number)] = "not green yet", lambda e=exercise: self.offer_solution(e)
            page.append(f"  {number}  {exercise.name:<32} {mark}")
        self.turn_page([*page, "", "Any other key goes back."], answers)

    def offer_solution(self, exercise: Exercise) -> None:
        page = [
            f"{exercise.name} is not green yet. Another hint (h) may be all it takes.",
            "Give up and open the worked answer? It is recorded.  y yes, n no",
        ]
        self.turn_page(page, {"y": lambda: self.open_solution(exercise), "n": self.back})

    def open_solution(self, exercise: Exercise) -> None:
        solution.give_up(self.week, exercise)
        self.turn_page(solution.worked_answer(self.week, exercise).splitlines(), {})

    # --- drawing ------------------------------------------------------------------------------------------------------

    def draw_if_stale(self) -> None:
        if not (self.screen.stale or self.screen.resized()):
            return
        file = f"weeks/{self.week.week}/{self.week.stub.name}"
        keys = KEYS if self.screen.full else f"{KEYS}   (and Enter)"
        foot = ["", self.paint(f"{file}: {self.state}", "dim"), self.paint(keys, "bold")]
        self.screen.show(self.page or self.report, foot)


def files(week: Week) -> dict[str, tuple[int, int]]:
    """The Python files beside the student's, with time and size."""
    found = {}
    for path in week.stub.parent.glob("*.py"):
        try:
            at = path.stat()
        except OSError:  # replaced just now
            continue
        found[path.name] = (at.st_mtime_ns, at.st_size)
    return found
