"""The author's gate: what every week must keep, found by reading its stub, solution, reference, declaration and lesson.

Every week that has a grader is graded, too: its stub fails, its solution and its reference earn all points and stars.
`complaints` names everything that is wrong with a week; the first test wants none, the others break a copy of a week in
one way each and want it named.
"""

import ast
import functools
import importlib.util
import inspect
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from graders.exercises import load_week, weeks

ROOT = Path(__file__).resolve().parents[1]
WITH_STUB = [week for week in weeks() if load_week(week).stub.is_file()]
GRADED = [week for week in weeks() if load_week(week).grader.is_file()]
LABELS = {  # what a stub's docstring carries, and what must stand behind the label
    "Formula|Rule": r"\S",
    "Shapes": r"\(|scalar|number|list|string|dict",
    "Edges": r"\S",
    "Example": r"\d|None|True|False",
    "Source": r"arXiv:\d{4}\.\d{4,5}|book ch\. \d|\b(19|20)\d\d\b|github\.com|this course",
}


def functions_of(path):
    """The public functions of a file, in order, by running it."""
    spec = importlib.util.spec_from_file_location(f"gate_{abs(hash(path))}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = [value for name, value in vars(module).items() if inspect.isfunction(value) and not name.startswith("_")]
    return {function.__name__: function for function in found if function.__module__ == module.__name__}


def imports_of(path):
    """Top-level names of the packages that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." if node.level else node.module.split(".")[0]


def signature(function):
    """Parameter names, kinds, defaults and annotations, as text."""
    return str(inspect.signature(function))


def docstring_complaints(name, function):
    docstring = inspect.getdoc(function) or ""
    labels = list(re.finditer(r"^(Formula|Rule|Shapes|Edges|Example|Source):", docstring, re.MULTILINE))
    ends = [label.start() for label in labels[1:]] + [len(docstring)]
    blocks = {label.group(1): docstring[label.end() : end] for label, end in zip(labels, ends, strict=True)}
    for label, content in LABELS.items():
        if label == "Shapes" and "Tensor" not in signature(function):
            continue  # numbers and strings have no shape
        block = next((blocks[word] for word in label.split("|") if word in blocks), "")
        if not re.search(content, block):
            yield f"{name}: the stub's docstring lacks {label}"


def stub_complaints(week, task, exercise, function):
    """The body of a stub is its docstring and one `raise` that names the task; calling it shows that message."""
    body = ast.parse(inspect.getsource(function)).body[0].body
    if len(body) != 2 or not isinstance(body[1], ast.Raise):
        yield f"{exercise.name}: a stub holds a docstring and a raise, nothing else"
    stretch = " (stretch)" if exercise.stretch else ""
    expected = f"Week {week}, task {task}{stretch}: write {exercise.name} (lesson section '{exercise.section}')"
    try:
        function(*[None for p in inspect.signature(function).parameters.values() if p.default is p.empty])
        yield f"{exercise.name}: the stub returns"
    except NotImplementedError as error:
        if str(error) != expected:
            yield f"{exercise.name}: the stub says {str(error)!r}, not {expected!r}"
    except Exception as error:  # the stub does something before it raises
        yield f"{exercise.name}: the stub raises {type(error).__name__}"
    yield from docstring_complaints(exercise.name, function)


def complaints(root, week):
    """Everything that is wrong with week `week` of the course under `root`, as sentences."""
    declared = load_week(week)
    files = {
        "stub": root / "weeks" / week / f"{declared.module}.py",
        "solution": root / "solutions" / week / f"{declared.module}.py",
        "reference": root / "reference_impl" / f"{declared.module}.py",
    }
    missing = [f"there is no {path.relative_to(root)}" for path in files.values() if not path.is_file()]
    if missing:
        return missing
    found = {kind: functions_of(path) for kind, path in files.items()}
    names = [exercise.name for exercise in declared.exercises]
    wrong = []
    if list(found["stub"]) != names:
        wrong.append(f"the stub defines {list(found['stub'])}, declared are {names}")
    for kind in found:
        wrong += [f"{name}: the {kind} does not define it" for name in names if name not in found[kind]]
    for kind in ["stub", "solution"]:
        for package in imports_of(files[kind]):
            if package != "torch" and package not in sys.stdlib_module_names:
                wrong.append(f"the {kind} imports {package}")

    for task, exercise in enumerate(declared.exercises, start=1):
        versions = {kind: found[kind][exercise.name] for kind in found if exercise.name in found[kind]}
        signatures = {kind: signature(function) for kind, function in versions.items()}
        if len(set(signatures.values())) > 1:
            wrong.append(f"{exercise.name}: signatures differ: {signatures}")
        if "stub" in versions:
            wrong += stub_complaints(week, task, exercise, versions["stub"])
        for kind in ["solution", "reference"]:
            if kind in versions and not inspect.getdoc(versions[kind]):
                wrong.append(f"{exercise.name}: the {kind} has no docstring")
        wrong += declaration_complaints(exercise)

    lesson = root / "weeks" / week / "README.md"
    if lesson.is_file():  # written last
        headings = {line.lstrip("#").strip() for line in lesson.read_text().splitlines() if line.startswith("#")}
        for exercise in declared.exercises:
            if exercise.section not in headings:
                wrong.append(f"{exercise.name}: the lesson has no section {exercise.section!r}")
    if sum(exercise.points for exercise in declared.exercises) % 5:
        wrong.append("the points do not sum to a round number")
    return wrong


def declaration_complaints(exercise):
    if len(exercise.hints) < 3 or any(len(hint) < 20 for hint in exercise.hints):
        yield f"{exercise.name}: fewer than three hints"
    if len(set(exercise.hints)) < len(exercise.hints):
        yield f"{exercise.name}: a hint stands twice"
    if not (exercise.points > 0 and exercise.minutes > 0 and exercise.difficulty in (1, 2, 3)):
        yield f"{exercise.name}: points, minutes or difficulty out of range"


def test_the_gate_sees_every_week_that_has_a_solution():
    assert {"01", "02", "05", "08"} <= {path.parent.name for path in ROOT.glob("solutions/*/*.py")} <= set(WITH_STUB)


@pytest.mark.parametrize("week", WITH_STUB)
def test_stub_solution_reference_declaration_and_lesson_agree(week):
    assert complaints(ROOT, week) == []


BREAKS = {  # what is done to week 05's files, and the complaint that must follow
    "a stub that is filled in": (
        "weeks",
        r"raise NotImplementedError\(\"Week 05, task 2.*",
        "return rewards",
        "stub returns",
    ),
    "a stub that computes first": (
        "weeks",
        r"(    raise NotImplementedError\(\"Week 05, task 2)",
        r"    rewards.mean()\n\1",
        "nothing else",
    ),
    "a task misnumbered": ("weeks", "task 2", "task 3", "the stub says"),
    "another function's name": ("weeks", "write rloo_advantages", "write batch_baseline", "the stub says"),
    "another exception": (
        "weeks",
        r"NotImplementedError\(\"Week 05, task 2",
        'ValueError("Week 05, task 2',
        "raises ValueError",
    ),
    "a renamed argument": (
        "solutions",
        r"def batch_baseline\(rewards",
        "def batch_baseline(reward",
        "signatures differ",
    ),
    "another default": (
        "solutions",
        "baseline: float [|] Tensor = 0.0",
        "baseline: float | Tensor = 1.0",
        "signatures differ",
    ),
    "another annotation": ("reference_impl", "gamma: float", "gamma: int", "signatures differ"),
    "a function missing": ("solutions", "def reward_to_go", "def rewards_to_go", "does not define it"),
    "a function too many": (
        "weeks",
        "def rloo_advantages",
        "def extra():\n    pass\n\n\ndef rloo_advantages",
        "declared are",
    ),
    "a heavy import": ("solutions", "import torch\n", "import torch\nimport numpy\n", "imports numpy"),
    "an import of the oracle": (
        "weeks",
        "from torch",
        "import reference_impl.reinforce\nfrom torch",
        "imports reference_impl",
    ),
    "no formula": ("weeks", "Formula: b_i", "It is b_i", "lacks Formula"),
    "no shapes": ("weeks", r"Shapes:  rewards \(B,\) ->", "Takes", "lacks Shapes"),
    "no edge cases": ("weeks", "Edges:   B = 1", "B = 1", "lacks Edges"),
    "no worked number": ("weeks", r"Example: \[1, 0, 2\].*", "Example: see above", "lacks Example"),
    "no source": ("weeks", "Source:  Williams 1992; Sutton", "As in Sutton", "lacks Source"),
    "a section that the lesson lacks": ("lesson", "### Leave one out", "### Leave it out", "has no section"),
}


def copy_of_week_05(folder):
    """The files that the gate reads, copied; returns their paths by part."""
    paths = {part: folder / part / "05/reinforce.py" for part in ["weeks", "solutions"]}
    paths |= {"reference_impl": folder / "reference_impl/reinforce.py", "lesson": folder / "weeks/05/README.md"}
    for path in paths.values():
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path.relative_to(folder), path)
    return paths


def test_the_gate_is_content_with_a_copy(tmp_path):
    copy_of_week_05(tmp_path)
    assert complaints(tmp_path, "05") == []


@pytest.mark.parametrize("name", BREAKS)
def test_the_gate_names_what_is_broken(name, tmp_path):
    part, pattern, replacement, complaint = BREAKS[name]
    target = copy_of_week_05(tmp_path)[part]
    text, count = re.subn(pattern, replacement, target.read_text())
    assert count > 0
    target.write_text(text)
    wrong = complaints(tmp_path, "05")
    assert any(complaint in sentence for sentence in wrong), wrong


@functools.cache
def scores(implementation):
    """The exit code and each week's score: one run of pytest over all weeks, so that torch is imported once."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scores.json"
        command = [sys.executable, "-m", "pytest", "weeks", "--impl", implementation, "--score-json", str(path)]
        command += [] if implementation == "student" else ["--robust"]
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
        assert path.is_file(), run.stdout + run.stderr
        return run.returncode, {week["week"]: week for week in json.loads(path.read_text())["weeks"]}


@pytest.mark.parametrize("week", GRADED)
def test_the_stub_fails(week):
    exit_code, found = scores("student")
    assert exit_code == 1
    assert not found[week]["green"] and found[week]["points"] == 0
    assert {exercise["state"] for exercise in found[week]["exercises"]} == {"not written"}


@pytest.mark.parametrize("implementation", ["solutions", "reference"])
@pytest.mark.parametrize("week", GRADED)
def test_solution_and_reference_earn_every_point_and_star(week, implementation):
    score = scores(implementation)[1][week]
    lost = {exercise["name"]: exercise["not_passed"] for exercise in score["exercises"] if exercise["not_passed"]}
    assert lost == {}
    assert score["green"] and score["points"] == score["points_possible"]
    assert score["stars"] == len(load_week(week).exercises)
    assert all(exercise["checks"]["expected"] > 0 for exercise in score["exercises"])


@pytest.mark.parametrize("implementation", ["solutions", "reference"])
def test_grading_all_weeks_exits_with_zero(implementation):
    assert scores(implementation)[0] == 0
