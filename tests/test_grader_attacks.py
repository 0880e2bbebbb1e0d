"""Submissions that try to pass without being right, or to take the grader down: each costs its checks, and no more.

Each attack is put in place of one function of the right solution and graded in a candidate process by the checks of
week 05; those that act on pytest itself go through the command line.
"""

import shutil
import subprocess
import sys
import textwrap

import pytest

from graders import declare, sandbox, session
from graders.candidate import Candidate
from graders.exercises import CHECKOUT, load_week
from graders.session import CheckFailed, Grading, Stopped
from graders.submission import Submission, expected_checks
from graders.substitute import checks

WEEK = load_week("05")
SOLUTION = (CHECKOUT / "solutions" / "05" / "reinforce.py").read_text()


def with_function(body: str, prelude: str = "", name: str = "batch_baseline(rewards)") -> str:
    """The solution with one more definition of a function after the right one, so that the last wins."""
    return f"{prelude}\n{SOLUTION}\n\ndef {name}:\n{textwrap.indent(textwrap.dedent(body).strip(), '    ')}\n"


def grade(source: str, functions=("batch_baseline",), wrap=None, trusted=False) -> dict[str, object]:
    """The first-rung checks of these functions: test to failure, None where it passed. `trusted`: no audit hook."""
    candidate = Candidate(Submission(WEEK, WEEK.stub, source, impl="attack", trusted=trusted), wrap)
    results = {}
    for test in checks("05"):
        if test.graded.function not in functions or test.graded.robust:
            continue
        session.set_current(Grading(candidate.submission, candidate, shrink=False))
        try:
            declare.run_check(test.graded, test, session.current())
            results[test.__name__] = None
        except (CheckFailed, Stopped) as failed:
            results[test.__name__] = failed.failure
        finally:
            session.set_current(None)
    candidate.stop()
    return results


def failures(source: str, **settings) -> list:
    """All failures; every check must fail."""
    results = grade(source, **settings)
    assert results
    passed = [name for name, failure in results.items() if failure is None]
    assert not passed
    return list(results.values())


def test_the_solution_passes_so_that_the_attacks_prove_something():
    assert set(grade(SOLUTION, functions=[e.name for e in WEEK.exercises]).values()) == {None}


@pytest.mark.parametrize("line", ["import os; os._exit(0)", "import sys; sys.exit(0)", "raise SystemExit(0)"])
def test_leaving_at_import_fails_every_check(line):
    for failure in failures(f"{line}\n{SOLUTION}", functions=[e.name for e in WEEK.exercises]):
        assert failure.kind == "import"


@pytest.mark.parametrize(
    "body, words",
    [
        ("import os; os._exit(0)", "exit code 0"),
        ("import sys; sys.exit(0)", "SystemExit"),
        ("import pytest; pytest.skip()", "Skipped"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
        ("import os; os.kill(os.getppid(), 9)", "signal other processes"),
        ("import os; os.fork()", "start processes"),
        ("import subprocess; subprocess.run(['true'])", "start programs"),
        ("import os; os.system('true')", "start programs"),
        ("import socket; socket.create_connection(('127.0.0.1', 80))", "use the network"),
        ("def f(x): return sorted([x], key=f)\nimport sys; sys.setrecursionlimit(10**9); f(0)", "SIGSEGV"),
        ("def f(): return f()\nf()", "RecursionError"),
        ("import torch; torch.ones(2**33)", "memory"),
        ("import torch; return [torch.empty(2**26) for _ in range(64)]", "memory"),
        ("while True: print('x' * 100000)", "printed more than 1 MB"),
        ("return bytearray(3)", "bytearray"),
        ("x = []; x.append(x); return x", "a list"),
    ],
)
def test_a_function_that_leaves_crashes_or_floods_is_reported_in_words(body, words):
    for failure in failures(with_function(body)):
        assert words in failure.words, failure.words


def test_a_hang_costs_its_check_and_the_others_go_on(monkeypatch):
    monkeypatch.setattr("graders.candidate.CALL_SECONDS", 0.7)
    monkeypatch.setattr("graders.candidate.CALL_SECONDS_AFTER_A_HANG", 0.3)
    results = grade(with_function("while True: pass"), functions=("batch_baseline", "rloo_advantages"))
    assert [f.kind for f in results.values() if f] == ["hang"] * 3
    assert sum(f is None for f in results.values()) == 4


@pytest.mark.parametrize("what", ["reference_impl.reinforce", "solutions", "graders.declare", "trl"])
def test_importing_the_answers_is_refused_in_one_sentence(what):
    for failure in failures(with_function(f"import importlib; importlib.import_module({what!r})")):
        assert f"{what.split('.')[0]}" in failure.words and "may not be imported" in failure.words


@pytest.mark.parametrize(
    "file", ["reference_impl/reinforce.py", "solutions/05/reinforce.py", "weeks/05/test_reinforce.py"]
)
def test_opening_the_answers_is_refused(file):
    path = str(CHECKOUT / file)
    for body in (f"exec(open({path!r}).read())", f"import os; os.open({path!r}, 0)"):
        for failure in failures(with_function(body)):
            assert "may not be opened" in failure.words


SEARCH = """
import gc, sys
frame, names = sys._getframe(), []
while frame:
    names += [str(frame.f_globals.get("__name__")), *map(str, frame.f_locals)]
    frame = frame.f_back
found = [n for n in [*sys.modules, *names] if "reference_impl" in n or "expected" == n or "test_reinforce" in n]
functions = [o for o in gc.get_objects() if type(o) is type(batch_baseline)]
found += [f.__module__ for f in functions if f.__name__ == "reinforce_loss" and f.__module__ != "reinforce"]
raise RuntimeError(f"found {found}")
"""


def test_the_process_holds_no_answers_to_be_found():
    for failure in failures(with_function(SEARCH)):
        assert "found []" in failure.words


PATCHES = """
import torch, builtins
torch.testing.assert_close = torch.allclose = torch.equal = torch.isclose = lambda *a, **k: True
torch.Tensor.equal = torch.Tensor.__eq__ = torch.Tensor.__le__ = lambda *a: True
"""


def test_patched_comparisons_decide_nothing():
    for failure in failures(with_function("return rewards + 1", prelude=PATCHES)):
        assert failure.kind in ("value", "crash", "garbled", "error")


def test_a_tensor_subclass_is_refused():
    prelude = """
import torch
class Liar(torch.Tensor):
    def __eq__(self, other): return True
    def __le__(self, other): return True
"""
    for failure in failures(with_function("return torch.zeros_like(rewards).as_subclass(Liar)", prelude=prelude)):
        assert failure.kind == "type" and "Liar" in failure.words


def test_zeroing_the_input_in_place_is_seen():
    for body in ("rewards.zero_(); return rewards", "answer = right(rewards); rewards.zero_(); return answer"):
        source = with_function(body).replace("def batch_baseline(rewards: Tensor)", "def right(rewards: Tensor)")
        assert {failure.kind for failure in failures(source)} <= {"value", "in place"}
    assert {failure.kind for failure in failures(source)} == {"in place"}


@pytest.mark.parametrize("value", ["(logprobs * 0).sum()", "torch.zeros(())"])
def test_loss_zero_with_zero_gradient_fails(value):
    name = "reinforce_loss(logprobs, rewards, mask, baseline=0.0)"
    for failure in failures(with_function(f"return {value}", name=name), functions=("reinforce_loss",)):
        assert failure.kind in ("value", "dtype")


def test_a_right_value_with_a_wrong_gradient_fails():
    body = """
    right = -((rewards - baseline).detach() * (logprobs * mask.to(logprobs.dtype)).sum(1)).mean()
    return right.detach() + 0.98 * (right - right.detach())
    """
    results = grade(
        with_function(body, name="reinforce_loss(logprobs, rewards, mask, baseline=0.0)"), ("reinforce_loss",)
    )
    kinds = {name: failure.kind for name, failure in results.items() if failure}
    assert set(kinds.values()) == {"gradient"} and len(kinds) == len(results) - 1  # the worked number has no gradient


@pytest.mark.parametrize(
    "statement, what",
    [
        ("torch.manual_seed(0)", "random state"),
        ("torch.set_default_dtype(torch.float64)", "default dtype"),
        ("torch.set_grad_enabled(False)", "gradient mode"),
        ("torch.set_num_threads(2)", "threads"),
    ],
)
def test_moving_global_state_is_seen(statement, what):
    body = f"import torch\nanswer = rewards * 0 + (rewards.sum() - rewards) / max(len(rewards) - 1, 1)\n{statement}"
    failing = [f for f in grade(with_function(f"{body}\nreturn answer")).values() if f]
    assert failing and all(f.kind == "global state" and what in f.words for f in failing)


def test_forged_answers_on_the_line_earn_nothing():
    body = """
    import json, os, struct
    reply = {"value": None, "seconds": 0, "moved": [], "after": {"t": "dict", "v": []}, "printed": ""}
    head = json.dumps(reply).encode()
    for fd in range(3, 64):
        try: os.write(fd, struct.pack(">QQ", len(head), 0) + head)
        except OSError: pass
    """
    failures(with_function(body))


def test_a_worker_that_dies_leaves_a_zygote_that_serves_the_next():
    results = grade(with_function("import os; os._exit(3)"), functions=("batch_baseline", "rloo_advantages"))
    assert sum(f is None for f in results.values()) == 4


def test_a_frame_that_is_no_frame_is_garbled_and_nothing_is_unpickled():
    from graders import wire

    for head in (
        b"\x80\x04.",
        b"[1, 2]",
        b'{"value": {"t": "tensor", "dtype": "float32", "shape": [9], "at": 0, "n": 36}}',
        b'{"value": {"t": "tensor", "dtype": "float32", "shape": [9999999999], "at": 0, "n": 0}}',
    ):
        with pytest.raises(wire.Garbled):
            wire.unpack(head, b"")
    far = b'{"value": {"t": "tensor", "dtype": "float32", "shape": [2], "stride": [9999999999], "at": 0, "n": 8}}'
    with pytest.raises(wire.Garbled):
        wire.unpack(far, bytes(8))


# --- through the command line -----------------------------------------------------------------------------------------


def pytest_on(folder, *options: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pytest", "weeks/05", "--impl", str(folder), *options]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=120, check=False)


def test_a_conftest_beside_the_submission_is_not_loaded(tmp_path):
    (tmp_path / "05").mkdir()
    (tmp_path / "05" / "conftest.py").write_text("def pytest_collection_modifyitems(items): items.clear()\n")
    (tmp_path / "05" / "reinforce.py").write_text(f"import sys; sys.exit(0)\n{SOLUTION}")
    done = pytest_on(tmp_path, "--trust")
    assert done.returncode == 1 and "does not load" in done.stdout


def test_the_process_forked_from_pytest_holds_no_answers_either(tmp_path):
    (tmp_path / "05").mkdir()
    (tmp_path / "05" / "reinforce.py").write_text(with_function(SEARCH))
    done = pytest_on(tmp_path, "--trust")
    assert done.returncode == 1 and "found []" in done.stdout


def test_foreign_files_want_a_sandbox_or_trust(tmp_path, monkeypatch):
    (tmp_path / "05").mkdir()
    (tmp_path / "05" / "reinforce.py").write_text(SOLUTION)
    monkeypatch.setenv("PATH", "/nowhere")
    done = pytest_on(tmp_path)
    assert done.returncode == 2 and "--trust" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
def test_the_sandbox_shows_no_files_and_no_network():
    body = f"""
    import os, socket
    hidden = ("reference_impl", "solutions", "weeks", "tests", "graders/rules.py")
    seen = [p for p in hidden if os.path.exists({str(CHECKOUT)!r} + "/" + p)]
    for path in ("/usr/x", "/x"):
        try: open(path, "w"); seen.append(path)
        except OSError: pass
    try: open({str(CHECKOUT / "written-by-a-submission")!r}, "w")  # in a checkout under /tmp this is scratch space
    except OSError: pass
    try: socket.socket().connect(("1.1.1.1", 53)); seen.append("network")
    except OSError: pass
    raise RuntimeError(f"seen {{seen}}, {{len([p for p in os.listdir('/proc') if p.isdigit()])}} processes")
    """
    for failure in failures(with_function(body), wrap=sandbox.wrap(), trusted=True):
        assert "seen [], 2 processes" in failure.words or "seen [], 3 processes" in failure.words
    assert not (CHECKOUT / "written-by-a-submission").exists()


def test_every_check_of_a_grader_is_expected():
    assert [check.test for check in expected_checks(WEEK)] == [test.__name__ for test in checks("05")]
