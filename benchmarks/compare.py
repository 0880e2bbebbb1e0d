"""How long `rlhf compare` takes to grade ten forks x eleven weeks: at most 10 times as long as one `pytest weeks/05`.

    uv run python benchmarks/compare.py [--forks 10] [--repeat 3] [--cores 2]

The forks are made from the worked solutions: each has other right versions of two functions a week (graders/accepted),
and half of them have one known mistake a week (graders/misconceptions), so that hardly a file is graded twice and
mistakes are named. A round times both, one after the other, so that a busy machine slows both; the median ratio is
printed.
"""

import argparse
import ast
import inspect
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from course.compare.code import top_level, with_helpers
from graders import accepted, misconceptions
from graders.exercises import CHECKOUT, load_week, weeks

LIMIT = 10.0
SLOW = ("extract_answer", "answers_match", "best_of_n_accuracy")  # other versions are quadratic: one waits 5 s for them


def made_fork(folder: Path, number: int, names: list[str], mistake: bool) -> Path:
    """A fork: the worked solutions with other right versions of two functions a week, and perhaps with one mistake."""
    for name in names:
        week = load_week(name)
        text = (CHECKOUT / "solutions" / name / f"{week.module}.py").read_text(encoding="utf-8")
        functions = [exercise.name for exercise in week.exercises]
        for place in range(2 + mistake):
            function = functions[(number + place) % len(functions)]
            pool = [a.implementation for a in accepted.load(name) if a.function == function and function not in SLOW]
            if place == 2:
                known = [m for m in misconceptions.load(name) if m.function == function and not m.star]
                pool = [m.implementation for m in known]
            text = with_function(text, function, pool[number % len(pool)]) if pool else text
        (folder / "weeks" / name).mkdir(parents=True)
        (folder / "weeks" / name / f"{week.module}.py").write_text(text, encoding="utf-8")
    return folder


def with_function(text: str, name: str, implementation: Callable) -> str:
    """`text` with this implementation of `name` behind it, and what that uses of its own file: the last one counts.

    Left as it is when a helper's name is taken, or the function is made by another one.
    """
    tree = ast.parse(Path(inspect.getsourcefile(implementation)).read_text(encoding="utf-8"))
    parts = top_level(tree)
    if implementation.__name__ not in parts:
        return text
    names = with_helpers(implementation.__name__, parts)
    if top_level(ast.parse(text)).keys() & set(names[1:]):
        return text
    parts[names[0]].name = name
    for part in filter(lambda part: isinstance(part, ast.FunctionDef), parts.values()):
        part.decorator_list = [d for d in part.decorator_list if not ast.unparse(d).startswith(("right(", "wrong("))]
    imports = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    imports = [node for node in imports if "graders" not in ast.unparse(node)]
    nodes = [*imports, *(parts[each] for each in reversed(names))]
    return text + "\n\n" + "\n\n\n".join(map(ast.unparse, nodes)) + "\n"


def seconds(command: list[str]) -> float:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}  # compile once, as users do
    start = time.perf_counter()
    done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return time.perf_counter() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--forks", type=int, default=10)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--cores", type=int, default=min(2, os.cpu_count() or 1))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        names = weeks()
        made = [made_fork(Path(scratch) / f"fork{i}", i, names, mistake=i % 2 == 1) for i in range(options.forks)]
        one = [sys.executable, "-m", "pytest", "weeks/05", "--impl", "solutions"]
        many = [sys.executable, "-m", "course.cli", "compare", *(f"{path.name}={path}" for path in made)]
        many += ["--cores", str(options.cores), "--out", str(Path(scratch) / "compare.html")]
        print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; {options.forks} forks, {len(names)} weeks")
        seconds(one)  # warm up: compiled files, disk cache
        pairs = []
        for _ in range(options.repeat):
            pairs.append((seconds(one), seconds(many)))
            print(f"pytest weeks/05 {pairs[-1][0]:5.2f} s   rlhf compare {pairs[-1][1]:6.2f} s", flush=True)
    ratio = statistics.median(many / one for one, many in pairs)
    print(f"ratio {ratio:.2f}, limit {LIMIT}")
    return 0 if ratio <= LIMIT else 1


if __name__ == "__main__":
    raise SystemExit(main())
