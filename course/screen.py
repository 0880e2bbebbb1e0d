"""A terminal: a page that is drawn again and again, and keys as they are pressed.

In a dumb terminal (TERM=dumb, a pipe, no terminal at all) a page is printed below the one before, and keys are read by
the line: `h` and Enter. Nothing but cursor-home and erase is used, so it works over ssh and in any multiplexer.
"""

import os
import re
import shutil
import signal
import sys
import textwrap

try:
    import termios
    import tty
except ImportError:  # not on Windows
    termios = tty = None

HOME, ERASE_LINE, ERASE_BELOW, ERASE_ALL = "\033[H", "\033[K", "\033[J", "\033[2J"
COLOUR = re.compile(r"(\033\[[0-9;]*m)")


class Screen:
    """Use it in a `with`: the terminal is put back however that ends."""

    def __init__(self):
        terminal = sys.stdin.isatty() and sys.stdout.isatty()
        self.full = bool(termios) and terminal and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")
        self.keyboard: int | None = sys.stdin.fileno()  # for select; None when no key can come any more
        self.stale = True  # must be drawn again: nothing drawn yet, another size, or continued after Ctrl-Z
        self._drawn_size = None

    def __enter__(self) -> "Screen":
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _exit)
        if self.full:
            self._saved = termios.tcgetattr(self.keyboard)
            signal.signal(signal.SIGCONT, self._resume)
            self._resume()
        return self

    def __exit__(self, *_) -> None:
        if self.full:
            signal.signal(signal.SIGCONT, signal.SIG_DFL)
            termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, self._saved)
            sys.stdout.write("\n")  # the prompt goes below the page

    def _resume(self, *_) -> None:
        """Keys one at a time and without echo; at the start, and when continued after Ctrl-Z."""
        tty.setcbreak(self.keyboard)
        sys.stdout.write(ERASE_ALL)
        self.stale = True

    def size(self) -> tuple[int, int]:
        return tuple(shutil.get_terminal_size((100, 25)))

    def resized(self) -> bool:
        return self.full and self._drawn_size is not None and self.size() != self._drawn_size

    def show(self, page: list[str], foot: list[str]) -> None:
        """Draw a page with its last lines; of a page that does not fit, the beginning."""
        columns, rows = self._drawn_size = self.size()
        self.stale = False
        if not self.full:
            print("\n".join([*page, *foot, ""]), flush=True)
            return
        lines = [piece for line in page for piece in wrap(line, columns)]
        foot = [piece for line in foot for piece in wrap(line, columns)]
        room = max(rows - len(foot) - 1, 1)
        if len(lines) > room:
            lines = [*lines[: room - 1], f"… {len(lines) - room + 1} lines more: a taller window shows them"]
        text = HOME + f"{ERASE_LINE}\n".join([*lines, *foot]) + ERASE_LINE + ERASE_BELOW
        sys.stdout.write(text)
        sys.stdout.flush()

    def keys(self) -> list[str]:
        """The keys pressed, or in a dumb terminal the words typed; call it when `keyboard` is readable."""
        try:
            data = os.read(self.keyboard, 1024)
        except OSError:  # the terminal is gone
            data = b""
        if not data:
            self.keyboard = None
            return ["q"] if self.full else []
        text = data.decode(errors="replace")
        if not self.full:
            return text.split()
        return [] if text.startswith("\033[") or text.startswith("\033O") else list(text)  # arrows and the like


def _exit(number: int, _) -> None:
    sys.exit(128 + number)


def wrap(line: str, columns: int) -> list[str]:
    """Pieces of at most `columns` characters, broken at spaces where that is possible; colours go on."""
    if len(COLOUR.sub("", line)) <= columns:
        return [line]
    if not COLOUR.search(line):
        indent = " " * (len(line) - len(line.lstrip()) + 2)
        return textwrap.wrap(line, columns, subsequent_indent=indent)
    pieces, room = [""], columns
    for part in COLOUR.split(line):
        if COLOUR.fullmatch(part):
            pieces[-1] += part
            continue
        while len(part) > room:
            space = part.rfind(" ", 0, room) + 1
            cut = space or (room if room == columns else 0)  # a word longer than a line is cut
            pieces[-1] += part[:cut]
            pieces.append("")
            part, room = part[cut:], columns
        pieces[-1] += part
        room -= len(part)
    return pieces
