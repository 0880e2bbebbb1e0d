"""The pytest plugin: `pytest weeks/05` grades weeks/05/reinforce.py. Under other paths it stays out of the way.

It imports torch only when a week is graded: `pytest tests/test_x.py` should not wait for it.
"""

import io
import os
import random
import sys
import time
from pathlib import Path

import pytest

from graders import memory, report
from graders.candidate import Candidate, CannotStart, InProcess, shared_zygote
from graders.exercises import CHECKOUT, UnknownWeek, load_week, weeks
from graders.scores import Outcome, WeekScore, blank, write_json
from graders.session import BrokenCheck, CheckFailed, Failure, Grading, Stopped
from graders.submission import NoSubmission, expected_checks, read

WEEKS = CHECKOUT / "weeks"


class BadInput(Exception):
    """A mistake on the command line; the message says what to do. Exit code 2."""


UNUSED_PLUGINS = ("anyio", "typeguard", "platformdirs")  # brought by other packages; importing them takes 0.15 s


def pytest_addoption(parser, pluginmanager):
    for name in UNUSED_PLUGINS:
        pluginmanager.set_blocked(name)
    group = parser.getgroup("rlhf course", "grading a week: pytest weeks/05")
    group.addoption(
        "--impl", default="student", metavar="WHO", help="student (default), solutions, reference, or a folder"
    )
    group.addoption("--robust", action="store_true", help="the robust rung (★) decides too")
    group.addoption("--score-json", metavar="FILE", help="write the result as JSON")
    group.addoption(
        "--seed", default="0", metavar="N", help='seed of the inputs, or "random" (default 0: same file, same verdict)'
    )
    group.addoption("--trust", action="store_true", help="run a foreign submission without a sandbox")
    group.addoption(
        "--in-process", action="store_true", help="run the submission in pytest's process, for a debugger; not a grade"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config, args):
    """Start the candidate's process before anything else is loaded; it is forked from this one.

    Without arguments it is the course's own suite, which two cores share, a file at a time.
    """
    options = early_config.known_args_namespace
    if not options.file_or_dir and early_config.pluginmanager.hasplugin("xdist"):
        args[:0] = ["-n", "2", "--dist", "loadfile"]  # first, so that what is typed wins
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # two workers of two threads each would fight for the cores
    if not _weeks_named(options.file_or_dir):
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny tensors: threads cost more than they bring
    if options.in_process:
        return
    own = options.impl in ("student", "weeks", "solution", "solutions", "reference")
    if own or options.trust:
        shared_zygote()


def _weeks_named(args: list[str]) -> list[str]:
    """The weeks that the arguments name; empty when any argument lies elsewhere."""
    named = []
    for arg in args:
        path = Path(arg.split("::")[0]).resolve()
        if path == WEEKS:
            named += [number for number in weeks() if load_week(number).grader.is_file()]
        elif WEEKS in path.parents:
            named.append(path.relative_to(WEEKS).parts[0])
        else:
            return []
    return list(dict.fromkeys(named))


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """Refuse a bad command line in one sentence; otherwise prepare the grading and let pytest run."""
    named = _weeks_named(config.args)
    if not named or config.option.collectonly:
        return None
    try:
        grader = Grader(config, named)
    except BadInput as problem:
        print(f"rlhf: {problem}", file=sys.stderr)
        return 2
    config.pluginmanager.register(grader, "rlhf-grader")
    config.option.importmode = "importlib"  # a file called random.py in weeks/05 must not shadow Python's
    return None


class Grader:
    """Grades the weeks named on the command line: runs each check, counts, prints the report, decides the exit code."""

    def __init__(self, config, named: list[str]):
        option = config.option
        self.started = time.perf_counter()
        self.scores: dict[str, WeekScore] = {}
        self.gradings: dict[str, Grading] = {}
        self.wraps: dict[str, list[str] | None] = {}  # the sandbox's command, week by week
        self.outcomes: dict[tuple[str, str], Outcome] = {}
        self.pytest_reports = bool(option.tbstyle != "auto")  # --tb was given: pytest's own report beside ours
        self.json = Path(option.score_json) if option.score_json else None
        if self.json and not self.json.resolve().parent.is_dir():
            raise BadInput(f"--score-json {self.json}: there is no folder {self.json.resolve().parent}")
        seed = _seed(option.seed)
        for number in named:
            self._prepare(number, option, seed)

    def _prepare(self, number: str, option, seed: int) -> None:
        try:
            week = load_week(number)
        except UnknownWeek:
            have = ", ".join(f"weeks/{n}" for n in weeks())
            raise BadInput(f"there is no week weeks/{number}; there are {have}") from None
        except ValueError as error:
            raise BadInput(str(error)) from None
        if number != week.week or not week.grader.is_file():
            raise BadInput(
                f"weeks/{number} has no grader" + (f"; is it weeks/{week.week}?" if number != week.week else " yet")
            )
        from graders import mine

        try:
            submission = read(week, option.impl)
            expected = expected_checks(week)
        except (NoSubmission, ValueError, SyntaxError) as error:
            raise BadInput(str(error)) from None
        wrap = _sandbox(submission, option)
        kind = InProcess if option.in_process else Candidate
        score = blank(week, submission, expected, seed=seed, robust_decides=option.robust, in_process=option.in_process)
        score.own = mine.read(week, submission)
        self.scores[number], self.wraps[number] = score, wrap
        self.gradings[number] = Grading(submission, kind(submission, wrap), seed)
        for outcome in score.outcomes:
            self.outcomes[number, outcome.check.test] = outcome

    # --- running ------------------------------------------------------------------------------------------------------

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self, config):
        """Let pytest's own terminal report go nowhere, unless --tb asked for it."""
        if self.pytest_reports:
            return
        self.quiet = io.StringIO()
        manager = config.pluginmanager
        manager.unregister(manager.get_plugin("terminalreporter"))
        manager.register(pytest.TerminalReporter(config, self.quiet), "terminalreporter")

    @pytest.hookimpl(tryfirst=True)
    def pytest_pycollect_makemodule(self, module_path, parent):
        """A grader file is about to be imported; a student's own property never is, in this process."""
        from graders import declare

        if WEEKS not in module_path.parents:
            return None
        number = module_path.relative_to(WEEKS).parts[0]
        if module_path.name == "test_mine.py":
            return OwnPropertyFile.from_parent(parent, path=module_path, run=lambda: self._run_own(number))
        declare.set_examples(len(self.scores[number].outcomes))
        return None

    @pytest.hookimpl(tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem):
        """Run one check in place of pytest's plain call, and note how it went."""
        path = pyfuncitem.path
        if WEEKS not in path.parents:
            return None
        outcome = self.outcomes.get((path.relative_to(WEEKS).parts[0], pyfuncitem.originalname))
        if outcome is None:
            return None  # not in the grader that was counted; runs as an ordinary test
        self._run(path.relative_to(WEEKS).parts[0], outcome, pyfuncitem)
        return True

    def _run(self, number: str, outcome: Outcome, item) -> None:
        from graders import declare, session

        grading, exercise = self.gradings[number], self.scores[number][outcome.check.function]
        if exercise.state != "written":
            raise _quick(f"{exercise.exercise.name}: {exercise.state}")
        if outcome.check.robust and not exercise.green:
            outcome.status = "skipped"
            raise _quick("the star is decided once the function is right")
        deciding = not outcome.check.robust or self.scores[number].robust_decides
        grading.shrink = deciding and not any(o.failure for o in self.scores[number].outcomes)
        session.set_current(grading)
        start = time.perf_counter()
        test, mark = item.obj, item.obj.graded
        outcome.remedy = mark.remedy
        already = outcome.status  # of the same test under other parameters
        outcome.status = "failed"
        try:
            fixtures = {name: item.funcargs[name] for name in item._fixtureinfo.argnames}
            declare.run_check(mark, test, grading, **fixtures)
            outcome.status = already if already in ("failed", "broken") else "passed"
        except (CheckFailed, Stopped) as failed:
            outcome.failure = failed.failure
            failed.failure.shrunk = isinstance(failed, CheckFailed) and hasattr(test, "hypothesis")
            if self.pytest_reports:
                raise
            raise _quick(failed.failure.words) from None
        except BrokenCheck as broken:
            outcome.status, outcome.failure = "broken", Failure("broken", str(broken))
            raise
        except CannotStart as problem:
            outcome.failure = Failure("crash", f"the process that runs the submission did not start: {problem}")
            raise
        except AssertionError as error:
            outcome.failure = Failure("claim", f"{type(error).__name__}: {error}".strip())
            raise
        except Exception as error:  # a submission's own errors arrive as CheckFailed
            outcome.status, outcome.failure = "broken", Failure("broken", f"{type(error).__name__}: {error}".strip())
            raise
        finally:
            outcome.seconds = time.perf_counter() - start
            session.set_current(None)

    def _run_own(self, number: str) -> None:
        """Grade the student's own property of a week."""
        from graders import mine

        own = self.scores[number].own
        if own is None or own.status == "not written":
            pytest.skip("not written")
        if own.status == "not run":
            try:
                mine.grade(own, mine.Trials(own.submission, self.wraps[number]), self.gradings[number].seed)
            except CannotStart as problem:
                own.status, own.words = "failed", f"the process that runs it did not start: {problem}"
        if own.status != "passed":
            raise _quick(own.words)

    # --- the verdict --------------------------------------------------------------------------------------------------

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session, exitstatus):
        """Count against what was expected, print, write the JSON, and decide the exit code."""
        for grading in self.gradings.values():
            grading.candidate.stop()
        paint = report.Painter()
        if exitstatus in (pytest.ExitCode.INTERNAL_ERROR, pytest.ExitCode.USAGE_ERROR) or _broken_collection(session):
            text = "" if self.pytest_reports else self.quiet.getvalue()
            print(f"{text}\nThe grader's own file could not be run; nothing was graded.", file=sys.stderr)
            session.exitstatus = 2
            return
        for number, score in self.scores.items():
            failures = [outcome.failure for outcome in score.outcomes if outcome.failure]
            if any(failure.suspects for failure in failures):
                from graders.diagnosis import settle

                settle(self.gradings[number], failures)
            score.seconds = time.perf_counter() - self.started
        green = all(score.green for score in self.scores.values())
        if exitstatus != pytest.ExitCode.INTERRUPTED:
            session.exitstatus = 0 if green else 1
        for score in self.scores.values():
            print("\n".join(report.render(score, paint)))
            memory.remember(score)
        if self.json:
            try:
                write_json(self.json, list(self.scores.values()), int(session.exitstatus))
            except OSError as error:
                print(f"rlhf: --score-json {self.json}: {error.strerror}", file=sys.stderr)
                session.exitstatus = 2


class OwnPropertyFile(pytest.File):
    """weeks/NN/test_mine.py, collected without importing it: one item, which `run` grades."""

    def __init__(self, run, **others):
        super().__init__(**others)
        self.run = run

    def collect(self):
        yield OwnPropertyItem.from_parent(self, name="test_mine")


class OwnPropertyItem(pytest.Item):
    def runtest(self) -> None:
        self.parent.run()


def _quick(words: str) -> BaseException:
    """A failure without traceback, which pytest would spend a tenth of a second to render."""
    return pytest.fail.Exception(words, pytrace=False)


def _broken_collection(session) -> bool:
    return session.testsfailed and not session.items


def _seed(text: str) -> int:
    if text == "random":
        return random.SystemRandom().randrange(2**31)
    if not text.isdigit():
        raise BadInput(f'--seed {text}: a whole number, or "random"')
    return int(text)


def _sandbox(submission, option) -> list[str] | None:
    """The sandbox's command for a foreign file; None for this checkout's own files and for trusted ones."""
    from graders.sandbox import NoSandbox, wrap

    if option.in_process and submission.foreign and not option.trust:
        raise BadInput("--in-process runs a foreign file without any fence: add --trust if you trust its author")
    if not submission.foreign or option.trust:
        return None
    try:
        return wrap()
    except NoSandbox as problem:
        raise BadInput(str(problem)) from None
