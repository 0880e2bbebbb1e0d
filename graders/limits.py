"""What a submission may not do, set in its worker process before its first line runs.

Two kinds of fence. Resource limits of the operating system hold against anything: memory, CPU time, file size,
processes. The audit hook holds against accidents and shortcuts (importing the answers, starting programs, opening the
graders' files) and says in one sentence what it refused; Python cannot make it unbreakable. What the verdict rests on
is neither: the worker never holds an expected answer. Other people's files get `sandbox.py` on top.
"""

import os
import resource
import sys

REFUSED_IMPORTS = ("reference_impl", "solutions", "graders", "trl")
REFUSED_EVENTS = {
    "subprocess.Popen": "start programs",
    "os.system": "start programs",
    "os.exec": "start programs",
    "os.posix_spawn": "start programs",
    "os.spawn": "start programs",
    "os.fork": "start processes",
    "os.forkpty": "start processes",
    "pty.spawn": "start processes",
    "socket.connect": "use the network",
    "socket.bind": "use the network",
    "socket.getaddrinfo": "use the network",
    "shutil.rmtree": "delete files",
    "os.remove": "delete files",
    "os.rmdir": "delete files",
    "os.rename": "move files",
    "os.killpg": "signal other processes",
}
OUTPUT_BYTES = 2**20
MEMORY_BYTES = 2 * 2**30


class Refused(ImportError):
    """Raised in the submission; an ImportError, so that it reads naturally at a refused import."""


def set_limits(memory: int = MEMORY_BYTES) -> None:
    """Limit memory (beyond what torch has mapped already), file size and, on Linux, processes and threads."""
    if sys.platform == "linux":
        with open("/proc/self/statm") as file:
            mapped = int(file.read().split()[0]) * resource.getpagesize()
        _limit(resource.RLIMIT_AS, mapped + memory)
        _limit(resource.RLIMIT_NPROC, 0)
    _limit(resource.RLIMIT_FSIZE, OUTPUT_BYTES)
    _limit(resource.RLIMIT_CORE, 0)


def limit_cpu(seconds: float) -> None:
    """CPU seconds from now on: the fence behind the parent's clock, should the parent be gone."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime + seconds) + 2, hard))


def _limit(which: int, value: int) -> None:
    hard = resource.getrlimit(which)[1]
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(which, (value, value))


def install_audit_hook(hidden_folders: list[str]) -> None:
    """Refuse imports of the answers, opening files of `hidden_folders`, and the events above; for good."""
    hidden = tuple(os.path.realpath(folder) + os.sep for folder in hidden_folders)

    def refuse(event: str, args: tuple) -> None:
        if event == "open":
            path = args[0]
            if isinstance(path, (str, bytes, os.PathLike)):
                full = os.path.realpath(os.fsdecode(path))
                if full.startswith(hidden) or (full.startswith("/proc/") and full.endswith("/mem")):
                    # an OSError, as for any file that cannot be opened: Python's tracebacks then do without its lines
                    raise PermissionError(f"{full} may not be opened here: it belongs to the graders or to the answers")
        elif event in REFUSED_EVENTS:
            raise Refused(f"a submission may not {REFUSED_EVENTS[event]} ({event})")
        elif event == "os.kill" and args[0] != os.getpid():
            raise Refused("a submission may not signal other processes (os.kill)")

    sys.meta_path.insert(0, RefusingFinder())
    sys.addaudithook(refuse)


class RefusingFinder:
    """Stands first in the line of those asked where a module is. (importlib.import_module raises no audit event.)"""

    def find_spec(self, name: str, path=None, target=None):
        if name.partition(".")[0] in REFUSED_IMPORTS:
            raise Refused(f"{name} may not be imported here: the exercise is to write the function yourself")
