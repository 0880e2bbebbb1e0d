"""Two processes share one grading, for `rlhf watch`, where it should take no longer than it must (warm.py). The verdict
is that of one process.

A pytest plugin. When the checks are collected, the process forks. Both take functions from one queue, a pipe with a
byte for each function, and run all checks of a function that they took. The second one sends how they went and ends;
the first one adds that to its own, and reports.
"""

import dataclasses
import os
import pickle
import sys
from types import SimpleNamespace

import pytest

from graders import candidate


class Halves:
    """`spare` is a zygote for the second process, started like the first one's before any answer was in memory."""

    def __init__(self, spare: candidate.Zygote):
        self.spare = spare
        self.second, self.pipe = False, None  # the pipe from the second process to the first

    def pytest_runtestloop(self, session) -> bool | None:
        """In place of pytest's loop over the checks."""
        grader = session.config.pluginmanager.get_plugin("rlhf-grader")
        if grader is None or session.testsfailed:  # a file that cannot be collected
            return None
        functions, rest = by_function(grader, session.items)
        queue, end = os.pipe()
        os.write(end, bytes(range(len(functions))))
        os.close(end)
        if len(functions) > 1:
            self.share()
        while taken := os.read(queue, 1):
            run(functions[taken[0]])
        run([] if self.second else rest)
        return True

    def share(self) -> None:
        self.pipe, answer = os.pipe()
        self.second = os.fork() == 0
        if self.second:
            self.pipe = answer
            candidate.use_zygote(self.spare)
        else:
            os.close(answer)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session) -> None:
        if self.pipe is None:
            return
        grader = session.config.pluginmanager.get_plugin("rlhf-grader")
        if self.second:
            with os.fdopen(self.pipe, "wb") as file:
                pickle.dump(ran(grader), file)
            sys.stderr.flush()
            os._exit(0)
        with os.fdopen(self.pipe, "rb") as file:
            data = file.read()
        for key, changes in (pickle.loads(data) if data else {}).items():  # none: its checks count as not run
            for name, value in changes.items():
                setattr(grader.outcomes[key], name, value)


def by_function(grader, items: list) -> tuple[list[list], list]:
    """The checks of each function that is written, in the week's order, and all other items.

    In that order, so that the failure which is shown in full, of the first function that is wrong, is the first one of
    its process: that is the one whose input is made small.
    """
    written = [e.exercise.name for s in grader.scores.values() for e in s.exercises if e.state == "written"]
    groups: dict[str, list] = {name: [] for name in written}
    rest = []
    for item in items:
        mark = getattr(getattr(item, "obj", None), "graded", None)
        groups.get(mark.function if mark else "", rest).append(item)
    return [group for group in groups.values() if group], rest


def run(items: list) -> None:
    for item, following in zip(items, [*items[1:], None], strict=False):
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)


def ran(grader) -> dict:
    """How the checks of this process went, in a form that travels."""
    from graders.diagnosis import settle

    for number, score in grader.scores.items():
        failures = [outcome.failure for outcome in score.outcomes if outcome.failure]
        if any(failure.suspects for failure in failures):
            settle(grader.gradings[number], failures)
    return {
        key: {"status": o.status, "remedy": o.remedy, "seconds": o.seconds, "failure": portable(o.failure)}
        for key, o in grader.outcomes.items()
        if o.status != "not run"
    }


def portable(failure):
    """Without the misconception's implementation, which is a function that pickle cannot name."""
    if failure is None:
        return None
    named = failure.misconception
    words = named and {f.name: getattr(named, f.name) for f in dataclasses.fields(named) if f.name != "implementation"}
    return dataclasses.replace(failure, suspects=[], misconception=words and SimpleNamespace(**words))
