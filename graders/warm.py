"""Grading without the wait: a process that has imported torch, pytest and hypothesis, and forks a child to grade.

    warm = Warm()
    number = warm.ask("05")     # grade weeks/05; a grading that still runs is given up
    warm.answers()              # those that have come: what `pytest weeks/05` prints, and memory.brief of the score

The child runs `pytest weeks/05`, so the verdict is pytest's own; it only need not import anything. The warm process
itself never loads the reference or a submission, so every grading starts from the same clean memory. Requests and
answers are one JSON line each, on its standard input and output; when its input closes, it ends.
"""

import json
import os
import select
import signal
import subprocess
import sys
import tempfile

from graders.exercises import CHECKOUT

NOT_NEEDED = ("xdist", "cacheprovider", "logging", "junitxml", "pastebin", "doctest", "faulthandler")  # of pytest


class WarmDied(Exception):
    """The warm process ended; the message is what it said last."""


class Warm:
    """The side that asks. Imports neither torch nor pytest."""

    def __init__(self):
        command = [sys.executable, "-m", "graders.warm"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(CHECKOUT)}
        self.asked, self.said, self.errors = 0, b"", tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            cwd=CHECKOUT,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the one who asks
        )

    def fileno(self) -> int:
        """For select: readable when there is an answer."""
        return self.process.stdout.fileno()

    def ask(self, week: str, width: int = 100, colour: bool = False, own: bool = True, impl: str = "student") -> int:
        """The number of the request. Without `own`, the student's own property (test_mine.py) is left out: it takes
        longer than all the rest."""
        self.asked += 1
        request = {"number": self.asked, "week": week, "width": width, "colour": colour, "own": own, "impl": impl}
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
        except OSError:
            raise WarmDied(self._last_words()) from None
        return self.asked

    def answers(self) -> list[dict]:
        """Wait for something to come, then the answers that are whole: "number" of the request, "status" (pytest's exit
        code), "report" (text), "verdict" (or None)."""
        piece = os.read(self.fileno(), 65536)
        if not piece:
            raise WarmDied(self._last_words())
        *lines, self.said = (self.said + piece).split(b"\n")
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            try:
                pipe.close()
            except OSError:
                pass
        try:
            self.process.wait(2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _last_words(self) -> str:
        code = self.process.wait()
        self.errors.seek(0)
        said = self.errors.read().decode(errors="replace").strip().splitlines()
        return said[-1] if said else f"exit code {code}"


# --- the warm process -------------------------------------------------------------------------------------------------


def serve(requests: int = 0, answers: int = 1) -> None:
    """Answer requests until the pipe closes. The newest request wins: whoever saves twice wants the second verdict."""
    child = None
    while True:
        ready, _, _ = select.select([requests, *([child] if child else [])], [], [])
        if requests in ready:
            lines = os.read(requests, 65536).splitlines()
            if child:
                child.kill()
            if not lines:
                return
            child = Child(json.loads(lines[-1]))
        elif child in ready and child.finished():
            line = json.dumps(child.answer()).encode() + b"\n"
            child = None
            while line:
                line = line[os.write(answers, line) :]


class Child:
    """One grading in a fork of this process; its answer comes through a pipe."""

    def __init__(self, request: dict):
        self.request, self.said = request, b""
        self.pipe, theirs = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(self.pipe)
                grade(request, theirs)
            finally:
                os._exit(0)
        os.close(theirs)

    def fileno(self) -> int:
        return self.pipe

    def finished(self) -> bool:
        """Read what there is; True at the end."""
        piece = os.read(self.pipe, 65536)
        self.said += piece
        return not piece

    def answer(self) -> dict:
        os.close(self.pipe)
        _, status = os.waitpid(self.pid, 0)
        try:
            answer = json.loads(self.said)
        except ValueError:
            code = os.waitstatus_to_exitcode(status)
            answer = {"status": 3, "report": f"The grader itself ended (exit code {code}).", "verdict": None}
        return {"number": self.request["number"], **answer}

    def kill(self) -> None:
        os.killpg(self.pid, signal.SIGKILL) if os.getpgid(self.pid) == self.pid else os.kill(self.pid, signal.SIGKILL)
        os.close(self.pipe)
        os.waitpid(self.pid, 0)


def grade(request: dict, pipe: int) -> None:
    """In the child: run pytest with its output in a file, and send what came of it."""
    import pytest

    from graders import candidate, halves

    os.setsid()  # so that `kill` reaches everything that starts from here
    printed = tempfile.TemporaryFile()
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (printed.fileno(), 1), (printed.fileno(), 2)):
        os.dup2(source, target)
    os.environ.pop("FORCE_COLOR", None)
    os.environ |= {"COLUMNS": str(request["width"])} | ({"FORCE_COLOR": "1"} if request["colour"] else {})
    keeper, shared = VerdictKeeper(), halves.Halves(candidate.Zygote())
    without = [word for name in NOT_NEEDED for word in ("-p", f"no:{name}")]
    folder = f"weeks/{request['week']}"
    without += [] if request["own"] else [f"--ignore={folder}/test_mine.py"]
    status = pytest.main([folder, "--impl", request["impl"], *without], plugins=[keeper, shared])
    sys.stdout.flush()
    sys.stderr.flush()
    printed.seek(0)
    report = printed.read().decode(errors="replace")
    with os.fdopen(pipe, "w", encoding="utf-8") as line:
        json.dump({"status": int(status), "report": report, "verdict": keeper.verdict}, line)


class VerdictKeeper:
    """A pytest plugin that keeps the verdict."""

    verdict = None

    def pytest_unconfigure(self, config) -> None:
        from graders import memory

        grader = config.pluginmanager.get_plugin("rlhf-grader")
        for score in grader.scores.values() if grader else ():
            self.verdict = memory.brief(score)


def warm_up() -> None:
    """Import what a grading imports, and let pytest and hypothesis fill their caches on a test of nothing."""
    import gc

    gc.disable()  # a sixth of torch's import is collections that find nothing
    import torch

    from graders import declare, halves, oracle, plugin, scores, strategies, verdict, wire, worker  # noqa: F401

    with worker.no_dynamo():
        x = torch.zeros(2, 3, requires_grad=True)
        torch.autograd.grad(torch.log_softmax(x, dim=1).sum(), [x])
    _pytest_of_nothing()
    gc.collect()
    gc.freeze()  # children need not copy these objects to count their references
    gc.enable()


def _pytest_of_nothing() -> None:
    import pytest

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


if __name__ == "__main__":
    warm_up()
    serve()
