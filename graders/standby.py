"""What a child of the warm process does (warm.py): set pytest up, wait until it is wanted, grade, answer.

And what is done beforehand, once, so that children have nothing left to import.
"""

import gc
import json
import os
import sys
import tempfile

import pytest

from graders import candidate, halves, memory
from graders.exercises import CHECKOUT

# of pytest; unraisableexception collects garbage at the end, for as long as ten checks take
NOT_NEEDED = ("xdist", "cacheprovider", "logging", "junitxml", "pastebin", "doctest", "faulthandler")
NOT_NEEDED += ("unraisableexception", "threadexception")


def grade(how: dict, pipe: int, signal: int) -> None:
    """In the child: run pytest with its output in a file, and send what came of it."""
    gc.disable()  # in half a second there is nothing to collect
    os.setsid()  # so that `kill` reaches everything that starts from here
    printed = tempfile.TemporaryFile()
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (printed.fileno(), 1), (printed.fileno(), 2)):
        os.dup2(source, target)
    os.environ.pop("FORCE_COLOR", None)
    os.environ |= {"COLUMNS": str(how["width"])} | ({"FORCE_COLOR": "1"} if how["colour"] else {})
    candidate.shared_zygote().prepare()
    keeper, shared = VerdictKeeper(), halves.Halves(candidate.Zygote().prepare())
    folder = f"weeks/{how['week']}"
    options = ["--impl", how["impl"], *([] if how["own"] else [f"--ignore={folder}/test_mine.py"])]
    without = [word for name in NOT_NEEDED for word in ("-p", f"no:{name}")]
    status = pytest.main([folder, *options, *without], plugins=[Gate(signal), keeper, shared])
    sys.stdout.flush()
    sys.stderr.flush()
    printed.seek(0)
    report = printed.read().decode(errors="replace")
    with os.fdopen(pipe, "w", encoding="utf-8") as line:
        json.dump({"status": int(status), "report": report, "verdict": keeper.verdict}, line)


class Gate:
    """A pytest plugin that waits, when pytest is set up, for the moment at which the file is to be read."""

    def __init__(self, signal: int):
        self.signal = signal

    @pytest.hookimpl(wrapper=True)
    def pytest_cmdline_main(self):
        if not os.read(self.signal, 2):
            os._exit(0)  # not wanted any more
        return (yield)


class VerdictKeeper:
    """A pytest plugin that keeps the verdict."""

    verdict = None

    def pytest_unconfigure(self, config) -> None:
        grader = config.pluginmanager.get_plugin("rlhf-grader")
        for score in grader.scores.values() if grader else ():
            self.verdict = memory.brief(score)


def warm_up() -> None:
    """Import what a grading imports, and let pytest and hypothesis fill their caches on a test of nothing."""
    gc.disable()  # a sixth of torch's import is collections that find nothing
    import torch

    from graders import declare, oracle, plugin, scores, strategies, verdict, wire, worker  # noqa: F401

    with worker.no_dynamo():
        x = torch.zeros(2, 3, requires_grad=True)
        torch.autograd.grad(torch.log_softmax(x, dim=1).sum(), [x])
    _pytest_of_nothing()
    gc.collect()
    gc.freeze()  # children need not copy these objects to count their references
    gc.enable()


def _pytest_of_nothing() -> None:
    test = "from hypothesis import given, strategies\n@given(strategies.integers())\ndef test_nothing(x):\n    pass\n"
    stdout, null = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "test_nothing.py")
            with open(path, "w", encoding="utf-8") as file:
                file.write(test)
            config = ["-c", str(CHECKOUT / "pyproject.toml"), "-p", "no:cacheprovider"]
            pytest.main([path, *config])
    finally:
        sys.stdout.flush()
        os.dup2(stdout, 1)
        os.close(stdout)
        os.close(null)
