"""`rlhf watch`, in a terminal (a pty) and in a dumb one, on a copy of the course; and the warm process behind it."""

import ast
import os
import select
import shutil
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from course import screen
from graders.exercises import CHECKOUT
from graders.warm import Warm

FOLDERS = ("course", "graders", "reference_impl", "solutions", "weeks")
PATIENCE = 60.0  # seconds; a busy machine takes long to import torch


@pytest.fixture(scope="module")
def course_copy(tmp_path_factory) -> Path:
    """A copy of the course, to write in."""
    copy = tmp_path_factory.mktemp("course")
    for name in FOLDERS:
        ignored = shutil.ignore_patterns("__pycache__", "*.png", "*.safetensors", "*.csv", "replications")
        shutil.copytree(CHECKOUT / name, copy / name, ignore=ignored)
    shutil.copy(CHECKOUT / "pyproject.toml", copy)
    return copy


@pytest.fixture(scope="module")
def solution() -> str:
    return (CHECKOUT / "solutions" / "10" / "rejection_sampling.py").read_text(encoding="utf-8")


def stub_of(text: str) -> str:
    """A file with its public functions unwritten."""
    tree = ast.parse(text)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            node.body = ast.parse("raise NotImplementedError('task')").body
    return ast.unparse(tree) + "\n"


def wrong(text: str, name: str) -> str:
    """A file in which one function returns None."""
    tree = ast.parse(text)
    next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == name).body = ast.parse("return None").body
    return ast.unparse(tree) + "\n"


def hears_ctrl_c() -> None:
    """As in a terminal, also when the tests themselves were started in the background, where Ctrl-C is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Terminal:
    """`rlhf watch` in a terminal of its own."""

    def __init__(self, copy: Path, *args: str, **environment: str):
        self.ours, theirs = os.openpty()
        termios.tcsetwinsize(theirs, (30, 100))
        self.before = termios.tcgetattr(theirs)
        dropped = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES")
        kept = {name: value for name, value in os.environ.items() if name not in dropped}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "course.cli", "watch", *args],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=copy,
            env={**kept, "TERM": "xterm-256color", **environment},
            start_new_session=True,
            preexec_fn=hears_ctrl_c,
        )
        self.theirs, self.said = theirs, ""

    def until(self, text: str) -> str:
        """What it shows until `text` comes."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.said:
            ready, _, _ = select.select([self.ours], [], [], 1.0)
            if ready:
                self.said += os.read(self.ours, 65536).decode(errors="replace")
            else:
                running = self.process.poll() is None and time.monotonic() < deadline
                assert running, f"{text!r} did not come; it shows {self.said[-2000:]}"
        seen, self.said = self.said, ""
        return seen

    def press(self, keys: str) -> None:
        os.write(self.ours, keys.encode())

    def end(self) -> int:
        code = self.process.wait(PATIENCE)
        self.after = termios.tcgetattr(self.theirs)
        os.close(self.ours)
        os.close(self.theirs)
        return code


def save(copy: Path, text: str) -> None:
    """As an editor does: a new file in the place of the old."""
    path = copy / "weeks" / "10" / "rejection_sampling.py"
    path.with_suffix(".new").write_text(text, encoding="utf-8")
    os.replace(path.with_suffix(".new"), path)


def test_a_save_brings_the_verdict_and_keys_do_what_they_say(course_copy, solution):
    save(course_copy, stub_of(solution))
    terminal = Terminal(course_copy, "10")
    assert "To write, in this order" in terminal.until("verdict of")
    terminal.press("h")
    assert "top_per_prompt" in terminal.until("hint 1 of")
    save(course_copy, wrong(solution, "top_k_overall"))
    seen = terminal.until("after the save")
    assert "6 of 7 functions right" in seen and "✗ top_k_overall" in seen
    terminal.press("h")
    assert "top_k_overall" in terminal.until("hint 1 of")
    terminal.press("s")
    terminal.until("not green yet")
    terminal.press("2")
    assert "recorded" in terminal.until("y yes, n no")
    terminal.press("n")
    terminal.until("✗ top_k_overall")
    save(course_copy, solution)
    assert "✓ green" in terminal.until("is green. Train with it")
    terminal.press("s")
    terminal.until("Any other key goes back")
    terminal.press("2")
    terminal.until("def top_k_overall")
    terminal.press("l")
    assert "> ✓ 10" in terminal.until("Two digits go to a week")
    terminal.press("05")
    terminal.until("weeks/05/reinforce.py: verdict")
    terminal.press("q")
    assert terminal.end() == 0
    assert terminal.after == terminal.before  # echo and line mode are back
    assert not (course_copy / ".rlhf" / "gave-up.toml").exists()


def test_without_colour_every_word_is_still_there(course_copy, solution):
    save(course_copy, wrong(solution, "top_k_overall"))
    terminal = Terminal(course_copy, "10", NO_COLOR="1")
    seen = terminal.until("q quit\x1b[K\x1b[J") + terminal.until("verdict of")
    assert "✗ not green yet" in seen and "✗ top_k_overall" in seen
    assert not screen.COLOUR.search(seen)
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.end() == 130
    assert terminal.after == terminal.before


def test_a_dumb_terminal_gets_lines_and_gives_words(course_copy, solution):
    save(course_copy, wrong(solution, "top_k_overall"))
    process = subprocess.Popen(
        [sys.executable, "-m", "course.cli", "watch", "weeks/10"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=course_copy,
        env={**os.environ, "TERM": "dumb"},
        text=True,
    )
    lines = []
    while not any("verdict of" in line for line in lines):
        lines.append(process.stdout.readline())
        assert lines[-1], f"it ended: {lines}"
    out, _ = process.communicate("h\nq\n", timeout=PATIENCE)
    assert process.returncode == 0
    assert any("✗ top_k_overall" in line for line in lines) and "hint" in out
    assert "\033" not in "".join(lines) + out


def test_a_week_that_does_not_exist_is_one_message(course_copy):
    command = [sys.executable, "-m", "course.cli", "watch", "12"]
    done = subprocess.run(command, cwd=course_copy, capture_output=True, text=True)
    assert done.returncode == 2
    assert "no week 12" in done.stderr and "Traceback" not in done.stderr


# --- the warm process -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def warm():
    process = Warm()
    yield process
    process.close()


def the_answer(warm: Warm, number: int) -> dict:
    while True:
        for answer in warm.answers():
            if answer["number"] == number:
                return answer


def test_the_warm_verdict_is_that_of_pytest(warm, tmp_path, solution):
    folder = CHECKOUT / ".rlhf" / f"test-{os.getpid()}"  # inside the checkout: graded as the student's own file is
    target = folder / "10" / "rejection_sampling.py"
    target.parent.mkdir(parents=True)
    try:
        spoiled = wrong(wrong(solution, "top_k_overall"), "cohen_kappa").replace("(n - 1) / n", "(n + 1) / n")
        assert spoiled != wrong(wrong(solution, "top_k_overall"), "cohen_kappa")
        target.write_text(spoiled, encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "weeks/10", "--impl", str(folder)]
        environment = {**os.environ, "COLUMNS": "100"}
        plain = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, env=environment)
        first = the_answer(warm, warm.ask("10", impl=str(folder)))
        second = the_answer(warm, warm.ask("10", impl=str(folder)))
    finally:
        shutil.rmtree(folder)
    for answer in (first, second):
        assert answer["status"] == plain.returncode == 1
        assert without_seconds(answer["report"]) == without_seconds(plain.stdout)
    assert [name for name, f in first["verdict"]["functions"].items() if not f["green"]] == [
        "top_k_overall",
        "best_of_n_kl",
        "cohen_kappa",
    ]


def without_seconds(report: str) -> list[str]:
    return report.strip().splitlines()[:-1]


def test_the_newest_request_wins(warm):
    the_answer(warm, warm.ask("10", impl="solutions"))
    numbers = [warm.ask(week, impl="solutions") for week in ("06", "07", "10")]
    answers = []
    while not answers or answers[-1]["number"] != numbers[-1]:
        answers += warm.answers()
    assert answers[-1]["verdict"]["week"] == "10" and answers[-1]["verdict"]["green"]


def test_the_warm_process_ends_with_the_one_who_asks():
    warm = Warm()
    the_answer(warm, warm.ask("10", impl="solutions"))
    warm.close()
    assert warm.process.poll() == 0


# --- the page ---------------------------------------------------------------------------------------------------------


def test_long_lines_are_broken_where_they_fit():
    prose = "  hint 1 of 3: " + "word " * 30
    assert all(len(piece) <= 40 for piece in screen.wrap(prose, 40))
    assert " ".join(" ".join(screen.wrap(prose, 40)).split()) == " ".join(prose.split())
    headline = "\033[1mWeek 05\033[0m  file  \033[31mnot green\033[0m: 4 of 5 functions right, 15 of 20 points"
    assert [screen.COLOUR.sub("", piece) for piece in screen.wrap(headline, 40)] == [
        "Week 05  file  not green: 4 of 5 ",
        "functions right, 15 of 20 points",
    ]
    painted = "\033[31m" + "x" * 90 + "\033[0m"
    pieces = screen.wrap(painted, 40)
    assert [len(screen.COLOUR.sub("", piece)) for piece in pieces] == [40, 40, 10]
    assert "".join(pieces) == painted


def test_of_a_page_too_long_for_the_window_the_beginning_is_shown(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", open(os.devnull))
    page = screen.Screen()
    page.full = True
    monkeypatch.setattr(page, "size", lambda: (40, 10))
    page.show([f"line {n}" for n in range(30)], ["", "keys"])
    out = capsys.readouterr().out
    assert "line 0" in out and "lines more" in out and out.count("\n") == 9 - 1
