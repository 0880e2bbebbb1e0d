"""Grading many submissions of many weeks: a job is one week and some forks, and jobs are spread over the cores.

Each process that grades imports the graders once and has a sandbox of its own. A result is what `pytest --score-json`
writes for a week (graders/scores.py), with the seconds of the functions added.
"""

import gc
import multiprocessing
import signal
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from course.compare.code import versions
from graders.exercises import Week, load_week
from graders.submission import NoSubmission, Submission, read

MOST_BYTES = 300_000  # of one file; solutions have about 8,000
SECONDS_A_WEEK = 60.0  # for one fork, most of it waiting for what hangs; a right one needs less than one
NO_TIME = f"not graded: this file had used up its {SECONDS_A_WEEK:.0f} seconds"


@dataclass(frozen=True)
class Job:
    """One week of some forks, each (its name, its folder)."""

    week: str
    forks: tuple[tuple[str, Path], ...]


def grade_all(jobs: list[Job], wrap: list[str] | None, cores: int) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(fork, week, result) of everything, as it comes. A result is a week's score, or {"note": why there is none}."""
    remaining = {(job.week, fork): job for job in jobs for fork in job.forks}
    single = [Job(week, (fork,)) for week, fork in remaining]
    for attempt in (split(jobs, cores), single):  # if a grading process itself ends: once more, each fork by itself
        todo = [job for job in attempt if all((job.week, fork) in remaining for fork in job.forks)]
        for job, results in run_jobs(todo, wrap, cores, alone=attempt is single):
            for fork, result in zip(job.forks, results, strict=True):
                del remaining[job.week, fork]
                yield fork[0], job.week, result
    for week, (name, _) in remaining:
        yield name, week, {"note": "not graded: it ended the process that grades"}


def split(jobs: list[Job], cores: int) -> list[Job]:
    """The same jobs in smaller pieces where there are fewer weeks than cores."""
    pieces = max(1, -(-cores // max(len(jobs), 1)))
    parts = [(job, part) for job in jobs for part in range(pieces)]
    return [Job(job.week, job.forks[part::pieces]) for job, part in parts if job.forks[part::pieces]]


def run_jobs(jobs: list[Job], wrap, cores: int, alone: bool) -> Iterator[tuple[Job, list[dict[str, Any]]]]:
    """Each job with its results. Jobs whose process ended are left out; `alone` gives every job a process."""
    context = multiprocessing.get_context("fork")  # torch and the graders are in memory already
    groups = [[job] for job in jobs] if alone else [jobs] if jobs else []
    for group in groups:
        with ProcessPoolExecutor(min(cores, len(group)), context, prepare, (wrap,)) as pool:
            try:
                futures = {pool.submit(grade_job, job, wrap): job for job in group}
                for future in as_completed(futures):
                    try:
                        yield futures[future], future.result()
                    except BrokenProcessPool:
                        continue
            except BaseException:  # Ctrl-C, above all
                for process in multiprocessing.active_children():
                    process.kill()
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def prepare(wrap: list[str] | None) -> None:
    """In each grading process: start its sandbox, which imports torch while the first checks are drawn."""
    from graders.candidate import shared_zygote

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the command, which ends these processes
    gc.disable()  # a collection looks through all of torch, and these processes end soon
    warnings.simplefilter("ignore")  # of wrong versions that the diagnosis tries
    shared_zygote(wrap)


def grade_job(job: Job, wrap: list[str] | None) -> list[dict[str, Any]]:
    """The forks of one job, in its order. A file that is a copy of an earlier one is not graded again."""
    from course.compare.tape import record
    from graders.scores import as_json
    from graders.submission import expected_checks

    week = load_week(job.week)
    submissions = [open_submission(week, folder) for _, folder in job.forks]
    tapes, expected = None, expected_checks(week)
    graded: dict[str, tuple] = {}
    for submission in submissions:
        if isinstance(submission, Submission) and submission.sha256 not in graded:
            if tapes is None and "written" in submission.state.values():
                tapes = record(week)
            graded[submission.sha256] = grade(submission, tapes or [], expected, wrap)
    tables = dict(zip(graded, as_json([score for score, _ in graded.values()], 0)["weeks"], strict=True))
    return [
        {"note": submission}
        if isinstance(submission, str)
        else tables[submission.sha256] | extras(submission, *graded[submission.sha256])
        for submission in submissions
    ]


def extras(submission: Submission, score, speed: dict) -> dict[str, Any]:
    """What a score's table does not hold: speed, remedies, the code, why Python cannot read it."""
    error = submission.syntax_error
    note = f"Python cannot read the file, line {error.lineno}: {error.msg}" if error else ""
    remedies = {outcome.check.test: outcome.remedy for outcome in score.outcomes if outcome.failure}
    code = versions(submission.source, [e.name for e in submission.week.exercises])
    return {"speed": speed, "remedies": remedies, "code": code, "note": note}


def open_submission(week: Week, folder: Path) -> Submission | str:
    """The fork's file of this week, or why there is none. It must lie in the fork itself and be of a file's size."""
    try:
        submission_path = next(
            path
            for path in (folder / "weeks" / week.week / f"{week.module}.py", folder / week.week / f"{week.module}.py")
            if path.is_file()
        )
        if not submission_path.resolve().is_relative_to(folder):
            return f"{week.module}.py is a link to a file outside the fork"
        if submission_path.stat().st_size > MOST_BYTES:
            return f"{week.module}.py is larger than {MOST_BYTES // 1000} kB"
        return read(week, str(folder))
    except StopIteration:
        return f"there is no weeks/{week.week}/{week.module}.py"
    except (NoSubmission, OSError, RecursionError, MemoryError) as problem:
        return f"{week.module}.py cannot be read: {problem}"


def grade(submission: Submission, tapes: list, expected: list, wrap: list[str] | None) -> tuple:
    """One submission: its score, and for each right function the median seconds of a call of its checks."""
    from course.compare.fence import as_new, at_first
    from course.compare.tape import Player
    from graders.diagnosis import settle
    from graders.scores import blank
    from graders.session import Failure, Grading

    if wrap is not None:
        at_first(tuple(wrap))
    start, speed, named = time.monotonic(), {}, set()
    score = blank(submission.week, submission, expected)
    grading = Grading(submission, Player(submission, wrap), shrink=False)
    outcomes = {outcome.check.test: outcome for outcome in score.outcomes}
    for taped in tapes:
        outcome, exercise = outcomes[taped.name], score[taped.mark.function]
        if exercise.state != "written":
            continue
        if outcome.check.robust and not exercise.green:
            outcome.status = "skipped"
            continue
        if time.monotonic() - start > SECONDS_A_WEEK:
            outcome.status, outcome.failure = "failed", Failure("hang", NO_TIME)
            continue
        # a lost star has a remedy; and of a function whose mistake has its name, no other is looked for
        run_check(taped, grading, outcome, not outcome.check.robust and taped.mark.function not in named)
        if outcome.failure and outcome.failure.misconception:
            named.add(taped.mark.function)
        if outcome.passed and not outcome.check.robust:
            took = [e.reply.seconds for e in grading.exchanges if not e.reply.error]
            speed.setdefault(exercise.exercise.name, []).extend(took)
    failures = [outcome.failure for outcome in score.outcomes if outcome.failure]
    if any(failure.suspects for failure in failures):
        settle(grading, failures)
    grading.candidate.stop()
    if wrap is not None and grading.candidate.pid is not None:  # it ran
        as_new(wrap)
    score.seconds = time.monotonic() - start
    return score, {name: median(took) for name, took in speed.items() if took and score[name].green}


def run_check(taped, grading, outcome, diagnose: bool) -> None:
    """One check of one submission; how it went is noted in `outcome`."""
    from graders.candidate import CannotStart
    from graders.session import BrokenCheck, CheckFailed, Failure, Stopped

    start, outcome.status, outcome.remedy = time.perf_counter(), "failed", taped.mark.remedy
    try:
        taped.run(grading, diagnose)
        outcome.status = "passed"
    except (CheckFailed, Stopped) as failed:
        outcome.failure = failed.failure
    except BrokenCheck as broken:
        outcome.status, outcome.failure = "broken", Failure("broken", str(broken))
    except CannotStart as problem:
        outcome.failure = Failure("crash", f"the process that runs the submission did not start: {problem}")
    except AssertionError as error:
        outcome.failure = Failure("claim", f"{type(error).__name__}: {error}".strip())
    except Exception as error:  # a submission's own errors arrive as CheckFailed
        outcome.status, outcome.failure = "broken", Failure("broken", f"{type(error).__name__}: {error}".strip())
    outcome.seconds = time.perf_counter() - start
