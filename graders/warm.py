"""Grading without the wait: a process that has imported torch, pytest and hypothesis, and forks a child to grade.

    warm = Warm()
    number = warm.ask("05")     # grade weeks/05; a grading that still runs is given up
    warm.answers()              # those that have come: what `pytest weeks/05` prints, and memory.brief of the score

The child runs `pytest weeks/05`, so the verdict is pytest's own (standby.py); it only need not import anything. After
each answer the next child gets ready. The warm process itself never loads the reference or a submission, so every
grading starts from the same clean memory. Requests and answers are one JSON line each, on its standard input and
output; when its input closes, it ends.
"""

import json
import os
import select
import signal
import subprocess
import sys
import tempfile

from graders.exercises import CHECKOUT


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
    child = standby = None
    while True:
        ready, _, _ = select.select([requests, *([child] if child else [])], [], [])
        if requests in ready:
            lines = os.read(requests, 65536).splitlines()
            if child:
                child.kill()
            if not lines:
                break
            request = json.loads(lines[-1])
            child, standby = started(request, standby), None
            child.go(request["number"])
        elif child in ready and child.finished():
            line = json.dumps(child.answer()).encode() + b"\n"
            while line:
                line = line[os.write(answers, line) :]
            standby, child = Child(child.how | {"own": False}), None  # the next save is probably of the same week
    if standby:
        standby.kill()


def started(request: dict, standby: "Child | None") -> "Child":
    """The child that stands by, if it is the right one; else a new one."""
    how = {name: value for name, value in request.items() if name != "number"}
    if standby and standby.how == how:
        return standby
    if standby:
        standby.kill()
    return Child(how)


class Child:
    """One grading in a fork of this process. It gets ready, waits for `go`, and answers through a pipe."""

    def __init__(self, how: dict):
        self.how, self.said, self.number = how, b"", 0
        self.pipe, theirs = os.pipe()
        signal_, self.signal = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(self.pipe)
                os.close(self.signal)
                from graders.standby import grade

                grade(how, theirs, signal_)
            finally:
                os._exit(0)
        os.close(theirs)
        os.close(signal_)

    def go(self, number: int) -> None:
        self.number = number
        try:
            os.write(self.signal, b"go")
        except BrokenPipeError:  # it has ended; `answer` will say so
            pass
        os.close(self.signal)

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
        return {"number": self.number, **answer}

    def kill(self) -> None:
        """End it and everything that it started."""
        os.kill(self.pid, signal.SIGKILL)
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:  # it had not come to have a group of its own
            pass
        os.close(self.pipe)
        if not self.number:
            os.close(self.signal)
        os.waitpid(self.pid, 0)


if __name__ == "__main__":
    from graders.standby import warm_up

    warm_up()
    serve()
