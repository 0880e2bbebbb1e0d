"""The grader's side of a submission's process: start it, call it, survive it.

    candidate = Candidate(submission)
    reply = candidate.call("rloo_advantages", [("rewards", rewards)])
    reply.value, reply.gradients, reply.after, reply.moved, reply.seconds      # or reply.error

Works without pytest; `rlhf watch` keeps one zygote warm for many gradings.

A zygote (worker.py) is forked from this process while nothing of the answers is in its memory: torch is then imported
once for both. When the reference is loaded already, or a sandbox is wanted, it is a fresh `python -I` instead.
"""

import atexit
import gc
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from graders.exercises import CHECKOUT

HIDDEN = [str(CHECKOUT / name) for name in ("reference_impl", "solutions", "graders", "weeks", "tests", ".git")]
FIRST_START_SECONDS = 120.0  # importing torch on a cold disk
CALL_SECONDS = 5.0
CALL_SECONDS_AFTER_A_HANG = 1.0


class CannotStart(Exception):
    """The candidate's process does not start; the message says why."""


@dataclass
class Reply:
    """What one call came to. `error` is None, or has kind "error", "hang", "crash", "import" or "garbled", words and,
    where known, type, message, line and source of the student's file."""

    value: object = None
    gradients: dict | None = None
    after: dict = field(default_factory=dict)
    moved: list = field(default_factory=list)
    seconds: float = 0.0
    printed: str = ""
    error: dict | None = None


class Zygote:
    """The process that has imported torch and forks workers."""

    def __init__(self, wrap: list[str] | None = None):
        self.control, theirs = socket.socketpair()
        self._ready, self._prepared = False, None
        if wrap is None and not _answers_in_memory():
            self.process, self.pid = None, _forked(theirs)
        else:
            self.process = _started(
                [*(wrap or []), sys.executable, "-I", str(Path(__file__).with_name("worker.py"))], theirs
            )
            self.pid = self.process.pid
        theirs.close()

    def _line(self, timeout: float) -> str:
        self.control.settimeout(timeout)
        data = b""
        try:
            while not data.endswith(b"\n"):
                piece = self.control.recv(64)
                if not piece:
                    raise OSError
                data += piece
        except OSError:  # TimeoutError is one
            self.close()
            said = self.process.stderr.read().decode(errors="replace").strip().splitlines() if self.process else []
            raise CannotStart(said[-1] if said else "the candidate's process ended before it was ready") from None
        return data.decode().strip()

    def wait_until_ready(self) -> None:
        if not self._ready:
            self._line(FIRST_START_SECONDS)
            self._ready = True

    def prepare(self) -> "Zygote":
        """Fork the first worker now, so that nobody waits for it later."""
        self._prepared = self.spawn()
        return self

    def spawn(self) -> tuple[socket.socket, int]:
        """A fresh worker: its socket and its process number (in the zygote's own numbering)."""
        if self._prepared:
            worker, self._prepared = self._prepared, None
            return worker
        self.wait_until_ready()
        ours, theirs = socket.socketpair()
        try:
            socket.send_fds(self.control, [b"spawn"], [theirs.fileno()])
        except OSError:
            raise CannotStart("the candidate's process has gone away") from None
        theirs.close()
        return ours, int(self._line(10.0))

    def reap(self, pid: int, patience: float) -> int:
        """End a worker; its exit code, negative for a signal. One that is dying gets `patience` seconds for it."""
        self.control.sendall(b"%d %g" % (pid, patience))
        return int(self._line(10.0))

    def alive(self) -> bool:
        if self.process:
            return self.process.poll() is None
        try:
            return os.waitpid(self.pid, os.WNOHANG)[0] == 0
        except ChildProcessError:  # gone, or started by the process that this one was forked from
            return _exists(self.pid)

    def close(self) -> None:
        """Close the line; the zygote ends its workers and itself."""
        self.control.close()
        deadline = time.monotonic() + 2
        while self.alive():
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
            time.sleep(0.002)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _answers_in_memory() -> bool:
    answers = ("reference_impl.", "solutions.", "trl.", "graders.misconceptions.", "graders.accepted.")
    return any(f"{name}.".startswith(answers) for name in sys.modules)


def _forked(control: socket.socket) -> int:
    """A zygote that is a copy of this process."""
    gc.disable()  # a sixth of torch's import is collections that find nothing
    from graders import worker  # imports torch

    gc.freeze()  # its objects live until the end: no later collection need look at them
    gc.enable()
    pid = os.fork()
    if pid == 0:
        try:
            worker.main(control.fileno())
        finally:
            os._exit(1)
    return pid


def _started(command: list[str], control: socket.socket) -> subprocess.Popen:
    """A zygote that is a program of its own, without this process's environment."""
    keep = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH")
    environment = {name: os.environ[name] for name in keep if name in os.environ}
    environment |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        command, stdin=control, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment, cwd="/"
    )


_zygotes: dict[tuple, Zygote] = {}


def shared_zygote(wrap: list[str] | None = None) -> Zygote:
    """The running zygote, started when there is none. Call it early, before anything imports the reference."""
    key = tuple(wrap or ())
    if key not in _zygotes or not _zygotes[key].alive():
        _zygotes[key] = Zygote(wrap)
    return _zygotes[key]


def use_zygote(zygote: Zygote) -> None:
    """Take this one from now on: for a fork, which must not talk on the line of the process that it came from."""
    _zygotes.clear()
    _zygotes[()] = zygote


@atexit.register
def _close_zygotes() -> None:
    for zygote in _zygotes.values():
        zygote.close()


class Candidate:
    """One submission, loaded in a worker. A worker that dies or hangs is replaced before the next call."""

    zoo = None  # the versions that a student's own property is tried on (mine.py)

    def __init__(self, submission, wrap: list[str] | None = None):
        self.submission, self.wrap = submission, wrap
        self.channel, self.pid, self.load_error = None, None, None
        self.hung: set[str] = set()

    def start(self) -> None:
        """Load the submission. An error at import, or an import that ends the process, is kept in `load_error`."""
        from graders import wire

        scenarios = self.submission.week.scenarios
        self.channel, self.pid = shared_zygote(self.wrap).spawn()
        start = {
            "source": self.submission.source,
            "path": str(self.submission.path),
            "scenarios": scenarios.read_text(encoding="utf-8") if scenarios.is_file() else "",
            "scenarios_path": str(scenarios),
            "hidden": None if self.submission.trusted else HIDDEN,
            "zoo": self.zoo,
            "timeout": CALL_SECONDS,
        }
        reply = self._exchange(start, CALL_SECONDS * 2, wire)
        if reply.get("error"):
            self.load_error = reply["error"] | {"kind": "import"}
            self.stop()

    def call(
        self,
        function: str,
        arguments: list[tuple[str, object]],
        positional: int | None = None,
        leaves: tuple[str, ...] = (),
        cotangents: list = (),
        scenario: str = "",
    ) -> Reply:
        """Call `function` with named values; the first `positional` of them go by position (default: all).

        `leaves` are the arguments that arrive with requires_grad=True and whose gradients come back, of
        sum(result * cotangent). With `scenario`, the function is handed to that scenario instead.
        """
        from graders import wire

        if self.channel is None and self.load_error is None:
            self.start()
        if self.load_error is not None:
            return Reply(error=self.load_error)
        timeout = CALL_SECONDS_AFTER_A_HANG if function in self.hung else CALL_SECONDS
        request = {
            "function": function,
            "arguments": [list(pair) for pair in arguments],
            "positional": len(arguments) if positional is None else positional,
            "leaves": list(leaves),
            "cotangents": list(cotangents),
            "scenario": scenario,
            "timeout": timeout,
        }
        answer = self._exchange(request, timeout, wire)
        if answer.get("error"):
            if answer["error"].get("kind") == "hang":
                self.hung.add(function)
            return Reply(error={"kind": "error"} | answer["error"], printed=answer.get("printed", ""))
        try:
            return Reply(
                value=answer["value"],
                gradients=answer.get("gradients"),
                after=dict(answer["after"]),
                moved=[str(name) for name in answer["moved"]],
                seconds=float(answer["seconds"]),
                printed=str(answer["printed"]),
            )
        except (KeyError, TypeError, ValueError):
            return Reply(error={"kind": "garbled", "words": "it broke the line to the grader"})

    def _exchange(self, request: dict, timeout: float, wire) -> dict:
        """Send a request, wait for the answer; a worker that fails to answer is ended and described."""
        try:
            self.channel.settimeout(timeout)
            wire.send(self.channel, request)
            return wire.receive(self.channel, timeout)
        except TimeoutError:
            self.stop()
            return {"error": {"kind": "hang", "words": f"it did not return within {timeout:g} seconds"}}
        except (EOFError, OSError):
            code = self.stop(patience=3.0)
            return {"error": {"kind": "crash", "words": _ending(code)}}
        except wire.Garbled:
            self.stop()
            return {"error": {"kind": "garbled", "words": "it broke the line to the grader"}}

    def stop(self, patience: float = 0.0) -> int:
        """End the worker; how it ended."""
        if self.channel is None:
            return 0
        self.channel.close()
        self.channel = None
        try:
            return shared_zygote(self.wrap).reap(self.pid, patience)
        except (OSError, CannotStart):
            _zygotes.pop(tuple(self.wrap or ()), None)  # it took the zygote with it; the next call starts another
            return -signal.SIGKILL


def _ending(code: int) -> str:
    if code >= 0:
        return f"it ended its process (exit code {code}); a function returns, it never calls exit"
    name = signal.Signals(-code).name
    reasons = {
        "SIGSEGV": "endless recursion, or a bad memory access",
        "SIGBUS": "a bad memory access",
        "SIGKILL": "out of memory, or killed",
        "SIGXCPU": "too much CPU time",
        "SIGABRT": "aborted by a library, often out of memory",
    }
    return f"it crashed its process ({name}: {reasons.get(name, 'a signal')})"


class InProcess(Candidate):
    """The same calls without a process of its own, for debuggers. Its verdict is not a grade: nothing is fenced in."""

    def start(self) -> None:
        from graders import worker

        source, path = self.submission.source, str(self.submission.path)
        self.module, error = worker.load(source, path)
        self.scenarios = None
        if self.submission.week.scenarios.is_file():
            text = self.submission.week.scenarios.read_text(encoding="utf-8")
            self.scenarios, _ = worker.load(text, str(self.submission.week.scenarios))
        self.channel = True
        if error:
            self.load_error = error | {"kind": "import"}

    def _exchange(self, request: dict, timeout: float, wire) -> dict:
        from graders import worker

        frame = wire.pack(request)  # the same copies as over the wire: the function gets tensors of its own
        head = int.from_bytes(frame[:8], "big")
        with worker.no_dynamo():
            reply = worker.perform(self.module, self.scenarios, wire.unpack(frame[16 : 16 + head], frame[16 + head :]))
        return {"printed": "", **reply}

    def stop(self, patience: float = 0.0) -> int:
        self.channel = None
        return 0
