"""Grade a function that stands in no submission: a misconception, a right variant.

    for test, failure in failures("05", "rloo_advantages", my_function): ...

It runs the week's checks of that function in this process, one after another, and yields those that fail.
"""

import functools
import importlib.util
import types
from collections.abc import Callable, Iterator

from graders import declare, session
from graders.candidate import InProcess
from graders.exercises import load_week
from graders.session import CheckFailed, Failure, Grading, Stopped
from graders.submission import Submission, expected_checks


class Substitute(InProcess):
    """A candidate that consists of one function."""

    def __init__(self, submission: Submission, function: str, implementation: Callable):
        super().__init__(submission)
        self.function, self.implementation = function, implementation

    def start(self) -> None:
        super().start()
        self.module = types.ModuleType("substitute")
        self.module.__file__ = self.implementation.__code__.co_filename
        setattr(self.module, self.function, self.implementation)


@functools.cache
def checks(week: str) -> list:
    """The tests of a week's grader, in order."""
    path = load_week(week).grader
    declare.set_examples(len(expected_checks(load_week(week))))
    spec = importlib.util.spec_from_file_location(f"grader_{week}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return [test for test in vars(module).values() if hasattr(test, "graded")]


def failures(week: str, function: str, implementation: Callable, robust: bool = False) -> Iterator[tuple[str, Failure]]:
    """The checks of one rung of `function` that this implementation fails: the test's name and the failure. Which of
    several misconceptions it is may be known only at the end."""
    from graders.diagnosis import settle  # which is made of Substitutes

    declared = load_week(week)
    submission = Submission(declared, declared.stub, "", impl="substitute")
    grading = Grading(submission, Substitute(submission, function, implementation), shrink=False)
    found = []
    for test in checks(week):
        if test.graded.function != function or test.graded.robust != robust:
            continue
        session.set_current(grading)
        try:
            declare.run_check(test.graded, test, session.current())
        except (CheckFailed, Stopped) as failed:
            found.append(failed.failure)
            yield test.__name__, failed.failure
        except AssertionError as error:  # in the check itself; any other error is the grader's
            yield test.__name__, Failure("claim", f"{type(error).__name__}: {error}")
        finally:
            session.set_current(None)
    settle(grading, found)
