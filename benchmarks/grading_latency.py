"""How long `pytest weeks/NN` takes beside `python -c "import torch, pytest, hypothesis"`: at most 1.6 times as long.

    uv run python benchmarks/grading_latency.py [--weeks 05 08] [--impl solutions] [--repeat 5]

Each round times both, one after the other, so that a busy machine slows both; the ratio of the medians is printed for
every week that has a grader. The imports dominate, so the ratio says what grading adds to them.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

from graders.exercises import CHECKOUT, load_week, weeks

LIMIT = 1.6


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
    options = parser.parse_args()
    imports = [sys.executable, "-c", "import torch, pytest, hypothesis"]
    worst = 0.0
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for week in options.weeks:
        grade = [sys.executable, "-m", "pytest", f"weeks/{week}", "--impl", options.impl]
        seconds(grade)  # warm up: compiled files, disk cache
        pairs = [(seconds(imports), seconds(grade)) for _ in range(options.repeat)]
        base, graded = (statistics.median(column) for column in zip(*pairs, strict=True))
        worst = max(worst, graded / base)
        print(f"week {week}  imports {base:5.2f} s   pytest {graded:5.2f} s   ratio {graded / base:.2f}", flush=True)
    print(f"worst ratio {worst:.2f}, limit {LIMIT}")
    return 0 if worst <= LIMIT else 1


if __name__ == "__main__":
    raise SystemExit(main())
