"""One sandbox for many submissions: torch is imported in it once, and a worker is forked for each.

bubblewrap (graders/sandbox.py) keeps submissions from the network, the files and the answers. What keeps them from
each other is time: one submission at a time, its worker ended before the next is forked, and its text comes over a
socket: of another there is nothing to see. Two things make that hold. The process they are forked from is number 1 of
the sandbox, which no signal from inside ends, and is closed to tracing (shield.py). And after every submission the
sandbox is looked through: if a process or a file is left behind, it is thrown away and a new one started.
"""

import functools
import sys
from pathlib import Path

from graders import sandbox
from graders.candidate import Candidate, CannotStart, shared_zygote
from graders.exercises import load_week
from graders.submission import Submission

SHIELD = Path(__file__).with_name("shield.py")
LOOK = """
import os

def inside():
    mine = ("1", str(os.getpid()))
    processes = [name for name in os.listdir("/proc") if name.isdigit() and name not in mine]
    folders = [folder for folder in ("/tmp", "/dev", "/dev/shm") if os.path.isdir(folder)]
    return processes + sorted(name for folder in folders for name in os.listdir(folder))
"""


def wrap() -> list[str]:
    """The words before the command of a sandbox for many. Raises sandbox.NoSandbox."""
    words = sandbox.wrap()
    if sys.platform != "linux":
        raise sandbox.NoSandbox("bubblewrap needs Linux")
    at = words.index("--remount-ro")
    fence = ["--as-pid-1", "--ro-bind", str(SHIELD), str(SHIELD)]
    return [*words[:at], *fence, *words[at:], sys.executable, "-I", str(SHIELD)]


@functools.cache
def at_first(words: tuple[str, ...]) -> list[str] | None:
    """What is inside a new sandbox; call it before the first submission."""
    return look(list(words))


def look(words: list[str]) -> list[str] | None:
    """Processes and files inside; None when the sandbox does not answer."""
    looker = Candidate(Submission(load_week("01"), Path("look.py"), LOOK, impl="look", trusted=True), words)
    try:
        found = looker.call("inside", []).value
        looker.stop()
    except (CannotStart, OSError):
        return None
    return found


def as_new(words: list[str]) -> None:
    """After a submission: keep the sandbox if nothing is left behind in it, else throw it away."""
    found = look(words)
    if found is None or found != at_first(tuple(words)):
        shared_zygote(words).close()
