"""Two processes share one grading: each runs the checks of half of the functions. For `rlhf watch`, where it should
take no longer than it must (warm.py); the verdict is the same as that of one process.

A pytest plugin. When the checks are collected, the process forks: the second one runs its half, sends how the checks
went and ends; the first one runs its own half, adds what the second one sent, and reports.
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
        self.pipe, self.second = None, False

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self, session) -> None:
        grader = session.config.pluginmanager.get_plugin("rlhf-grader")
        theirs = [] if grader is None else second_half(grader, session.items)
        if not theirs:
            return
        self.pipe, answer = os.pipe()
        if os.fork() == 0:
            self.second, self.pipe = True, answer
            candidate.use_zygote(self.spare)
            session.items[:] = theirs
        else:
            os.close(answer)
            session.items[:] = [item for item in session.items if item not in theirs]

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


def second_half(grader, items: list) -> list:
    """The checks of the second process: whole functions, so that about half of the work is there."""
    checks: dict[str, list] = {}
    for item in items:
        mark = getattr(getattr(item, "obj", None), "graded", None)
        if mark is not None and any(score[mark.function].state == "written" for score in grader.scores.values()):
            checks.setdefault(mark.function, []).append(item)
    first: list = []
    second: list = []
    for group in sorted(checks.values(), key=len, reverse=True):
        lighter = first if len(first) <= len(second) else second
        lighter += group
    return second


def ran(grader) -> dict:
    """How the checks of this process went, in a form that travels."""
    from graders.diagnosis import settle

    sent = {}
    for number, score in grader.scores.items():
        failures = [outcome.failure for outcome in score.outcomes if outcome.failure]
        if any(failure.suspects for failure in failures):
            settle(grader.gradings[number], failures)
    for key, outcome in grader.outcomes.items():
        if outcome.seconds:
            sent[key] = {name: getattr(outcome, name) for name in ("status", "remedy", "seconds")}
            sent[key]["failure"] = portable(outcome.failure)
    return sent


def portable(failure):
    """Without the misconception's implementation, which is a function that pickle cannot name."""
    if failure is None:
        return None
    named = failure.misconception
    words = named and {f.name: getattr(named, f.name) for f in dataclasses.fields(named) if f.name != "implementation"}
    return dataclasses.replace(failure, suspects=[], misconception=words and SimpleNamespace(**words))
