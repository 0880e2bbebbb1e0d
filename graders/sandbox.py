"""A bubblewrap sandbox for other people's submissions: the command that the candidate's process is started with.

Inside there is Python with its packages, read-only, the four files that the candidate's side consists of, and an
empty scratch folder. There is no network, no home, no view of this checkout's answers, graders or other submissions.
The submission itself travels as text over the socket. Process numbers are its own: it cannot signal or trace others.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

FILES = ("worker.py", "limits.py", "trial.py", "wire.py")
SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/sbin", "/etc/ld.so.cache", "/etc/alternatives", "/nix/store")


class NoSandbox(Exception):
    """There is no way to run a foreign file safely here; the message says what to do."""


def wrap() -> list[str]:
    """The words that go before the command. Raises NoSandbox when bubblewrap is missing or does not work."""
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise NoSandbox(
            "this file comes from outside the checkout, and bubblewrap (bwrap), which would fence it in, is not "
            "installed: install bubblewrap, or add --trust if you trust this file's author"
        )
    command = [bwrap, "--unshare-all", "--die-with-parent", "--new-session", "--clearenv", "--cap-drop", "ALL"]
    command += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]
    for path in SYSTEM:
        command += ["--ro-bind-try", path, path]
    for path in _python_folders():
        command += ["--ro-bind", path, path]
    here = Path(__file__).resolve().parent
    for name in FILES:
        command += ["--ro-bind", str(here / name), str(here / name)]
    for name, value in {
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "HOME": "/tmp",
        "PATH": "/usr/bin:/bin",
    }.items():
        command += ["--setenv", name, value]
    command += ["--remount-ro", "/", "--chdir", "/tmp", "--"]
    tried = subprocess.run(
        [*command, sys.executable, "-I", "-S", "-c", ""], capture_output=True, text=True, check=False
    )
    if tried.returncode != 0:
        why = (tried.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise NoSandbox(
            f"bubblewrap does not work here ({why}): repair it, or add --trust if you trust this file's author"
        )
    return command


def _python_folders() -> list[str]:
    """Where this interpreter and its packages live: the virtual environment, and the Python that it was made from."""
    folders = {sys.prefix, sys.base_prefix, os.path.dirname(os.path.realpath(sys.executable))}
    return sorted(folder for folder in folders if not folder.startswith(("/usr/", "/lib", "/bin")) and folder != "/usr")
