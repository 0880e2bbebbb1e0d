"""How long grading takes: as a command, and from save to verdict in `rlhf watch`.

    uv run python benchmarks/grading_latency.py [--weeks 05 08] [--impl solutions] [--repeat 5]
    uv run python benchmarks/grading_latency.py --watch

Without `--watch`: `pytest weeks/NN` beside `python -c "import torch, pytest, hypothesis"`, at most 1.6 times as long.
Each round times both, one after the other, so that a busy machine slows both; the ratio of the medians is printed for
every week that has a grader. The imports dominate, so the ratio says what grading adds to them.

With `--watch`: at most 0.7 s from save to verdict. Three files of each week are graded by the warm process: the stub,
the solution, and the solution with every function made wrong, whose failures are shrunk and diagnosed. To the median
comes what passes at most until the save is noticed. Only a machine that has nothing else to do tells something.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from course.watch import TICK
from graders.exercises import CHECKOUT, load_week, weeks
from graders.warm import Warm

LIMIT, WATCH_LIMIT = 1.6, 0.7
PAUSE = 0.5  # nobody saves twice in half a second
SCRATCH = CHECKOUT / ".rlhf" / "latency"  # inside the checkout, where a file is graded as the student's own is
SPOILED = """

def _spoiled(function):
    def call(*args, **kwargs):
        value = function(*args, **kwargs)
        return value * 1.5 if hasattr(value, "sum") or type(value) is float else None

    return call


"""


def seconds(command: list[str]) -> float:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}  # compile once, as users do
    start = time.perf_counter()
    subprocess.run(
        command, cwd=CHECKOUT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
    )
    return time.perf_counter() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weeks", nargs="*", default=[n for n in weeks() if load_week(n).grader.is_file()])
    parser.add_argument("--impl", default="solutions")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--watch", action="store_true", help="from save to verdict, with everything imported")
    options = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    return watch(options) if options.watch else command(options)


def command(options) -> int:
    """The ratio to the imports."""
    imports = [sys.executable, "-c", "import torch, pytest, hypothesis"]
    worst = 0.0
    for week in options.weeks:
        grade = [sys.executable, "-m", "pytest", f"weeks/{week}", "--impl", options.impl]
        seconds(grade)  # warm up: compiled files, disk cache
        pairs = [(seconds(imports), seconds(grade)) for _ in range(options.repeat)]
        base, graded = (statistics.median(column) for column in zip(*pairs, strict=True))
        worst = max(worst, graded / base)
        print(f"week {week}  imports {base:5.2f} s   pytest {graded:5.2f} s   ratio {graded / base:.2f}", flush=True)
    print(f"worst ratio {worst:.2f}, limit {LIMIT}")
    return 0 if worst <= LIMIT else 1


def watch(options) -> int:
    """Seconds from save to verdict."""
    worst, warm = 0.0, Warm()
    try:
        verdict_seconds(warm, "01", "solutions")  # the warm process starts
        for week in options.weeks:
            row = []
            for name, impl in (("stub", "student"), ("solution", "solutions"), ("all wrong", spoiled(week))):
                verdict_seconds(warm, week, impl)  # turns to this file
                times = [verdict_seconds(warm, week, impl) for _ in range(options.repeat)]
                row.append(f"{name} {statistics.median(times) + 2 * TICK:.2f} s")
                worst = max(worst, statistics.median(times) + 2 * TICK)
            print(f"week {week}  {'   '.join(row)}", flush=True)
    finally:
        warm.close()
        shutil.rmtree(SCRATCH, ignore_errors=True)
    print(f"worst {worst:.2f} s, limit {WATCH_LIMIT}")
    return 0 if worst <= WATCH_LIMIT else 1


def verdict_seconds(warm: Warm, week: str, impl: str) -> float:
    time.sleep(PAUSE)
    start = time.perf_counter()
    warm.ask(week, impl=impl, own=False)
    while not (answers := warm.answers()):
        pass
    if answers[0]["status"] not in (0, 1):
        raise SystemExit(answers[0]["report"])
    return time.perf_counter() - start


def spoiled(week: str) -> str:
    """A folder with the week's solution in which every function returns something else."""
    declared = load_week(week)
    target = SCRATCH / week / f"{declared.module}.py"
    target.parent.mkdir(parents=True, exist_ok=True)
    text = Path(CHECKOUT / "solutions" / week / target.name).read_text(encoding="utf-8")
    names = [exercise.name for exercise in declared.exercises]
    target.write_text(text + SPOILED + "".join(f"{name} = _spoiled({name})\n" for name in names), encoding="utf-8")
    return str(SCRATCH)


if __name__ == "__main__":
    raise SystemExit(main())
