"""Progress of long work: a live bar in a terminal, a plain line now and then in a log."""

import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

console = Console(highlight=False)
PLAIN_LINES = 10


def track(label: str, start: int, total: int) -> Iterator["Ticker"]:
    """Yields a Ticker for each of the steps start + 1 ... total, with rate and time left on the screen."""
    if console.is_terminal:
        yield from _live(label, start, total)
    else:
        yield from _plain(label, start, total)


class Ticker:
    """One step of tracked work: its number (counted from 1), and `note` to put a few numbers beside the bar."""

    def __init__(self, step: int):
        self.step = step
        self.text = ""

    def note(self, text: str) -> None:
        self.text = text


def _live(label: str, start: int, total: int) -> Iterator[Ticker]:
    columns = [
        TextColumn("{task.description:<18}"),
        BarColumn(bar_width=14),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(compact=True),
        TextColumn("[dim]{task.fields[note]}"),
    ]
    with Progress(*columns, console=console, transient=False) as bar:
        task = bar.add_task(label, total=total, completed=start, rate="", note="")
        began = time.perf_counter()
        for step in range(start + 1, total + 1):
            ticker = Ticker(step)
            yield ticker
            rate = _rate(step - start, began)
            bar.update(task, completed=step, rate=rate, note=ticker.text or bar.tasks[task].fields["note"])


def _plain(label: str, start: int, total: int) -> Iterator[Ticker]:
    every = max(1, total // PLAIN_LINES)
    began, text = time.perf_counter(), ""
    for step in range(start + 1, total + 1):
        ticker = Ticker(step)
        yield ticker
        text = ticker.text or text
        if step % every == 0 or step == total:
            left = (time.perf_counter() - began) / (step - start) * (total - step)
            console.print(f"{label}  {step}/{total}  {_rate(step - start, began)}  {left:.0f} s left  {text}".rstrip())


def _rate(steps: int, began: float) -> str:
    rate = steps / max(time.perf_counter() - began, 1e-9)
    return f"{rate:.1f}/s" if rate >= 1 else f"{1 / rate:.1f} s each"
