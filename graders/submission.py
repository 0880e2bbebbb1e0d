"""Whose file is graded, and what can be said about it without running it.

The text is read once, here; the worker runs this text. So the report, the line numbers and the run agree, and a
sandboxed worker needs no view of the folder that the file came from.
"""

import ast
import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from graders.exercises import CHECKOUT, Week


class NoSubmission(Exception):
    """There is no such file; the message says where it was looked for."""


@dataclass
class Submission:
    """One file of one week. `state[function]` is "written", "not written", "missing" or "wrong signature"."""

    week: Week
    path: Path
    source: str
    impl: str  # as the person named it
    trusted: bool = False  # the reference: it may import reference_impl
    foreign: bool = False  # from outside this checkout: runs in the sandbox
    syntax_error: SyntaxError | None = None
    state: dict[str, str] = field(default_factory=dict)
    complaint: dict[str, str] = field(default_factory=dict)  # why a signature is wrong

    @property
    def label(self) -> str:
        try:
            return str(self.path.relative_to(CHECKOUT))
        except ValueError:
            return str(self.path)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.source.encode()).hexdigest()


def find(week: Week, impl: str = "student") -> Path:
    """The file that `--impl` means: student, solutions, reference, or a folder laid out as weeks/ or solutions/, or a
    fork's root. Raises NoSubmission."""
    file = f"{week.module}.py"
    if impl in ("student", "weeks"):
        places = [week.stub]
    elif impl in ("solution", "solutions"):
        places = [CHECKOUT / "solutions" / week.week / file]
    elif impl == "reference":
        places = [week.reference]
    else:
        root = Path(impl).expanduser().resolve()
        if not root.is_dir():
            raise NoSubmission(f"--impl {impl}: there is no such folder (student, solutions, reference, or a folder)")
        places = [root / "weeks" / week.week / file, root / week.week / file]
    for place in places:
        if place.is_file():
            return place
    raise NoSubmission(f"--impl {impl}: there is no {' and no '.join(map(str, places))}")


def read(week: Week, impl: str = "student") -> Submission:
    """Find and parse a submission. A syntax error is part of the answer, not an exception."""
    path = find(week, impl)
    try:
        source = path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise NoSubmission(f"{path} cannot be read: {error}") from None
    foreign = impl not in ("student", "weeks", "solution", "solutions", "reference") and CHECKOUT not in path.parents
    submission = Submission(week, path, source, impl, trusted=impl == "reference", foreign=foreign)
    try:
        tree = ast.parse(source, str(path))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        submission.syntax_error = error if isinstance(error, SyntaxError) else SyntaxError(str(error))
        submission.state = {exercise.name: "missing" for exercise in week.exercises}
        return submission
    expected = signatures(week.reference)
    bound = _bound_names(tree)
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    for exercise in week.exercises:
        submission.state[exercise.name] = _state(exercise.name, functions, bound, expected, submission.complaint)
    return submission


def _state(name: str, functions: dict, bound: set[str], expected: dict[str, str], complaint: dict[str, str]) -> str:
    if name not in functions:
        return "written" if name in bound else "missing"  # bound by an import or an assignment: the calls will tell
    if _is_stub(functions[name]):
        return "not written"
    found = signature(functions[name])
    if name in expected and found != expected[name]:
        complaint[name] = f"it is {found}, the exercise says {expected[name]}"
        return "wrong signature"
    return "written"


def _is_stub(function: ast.FunctionDef) -> bool:
    """Nothing but a docstring and `raise NotImplementedError`."""
    body = [node for node in function.body if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))]
    if not body or not isinstance(body[0], ast.Raise):
        return not body or (len(body) == 1 and isinstance(body[0], ast.Pass))
    raised = body[0].exc.func if isinstance(body[0].exc, ast.Call) else body[0].exc
    return isinstance(raised, ast.Name) and raised.id == "NotImplementedError"


def _bound_names(tree: ast.Module) -> set[str]:
    names = set()
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names.update(alias.asname or alias.name for alias in node.names)
        else:  # assignments, also under `if` or `try`
            for child in ast.walk(node):
                if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store):
                    names.add(child.id)
                elif isinstance(child, ast.FunctionDef):
                    names.add(child.name)
    return names


def signature(function: ast.FunctionDef) -> str:
    """A function's line as it is called: names and defaults, without annotations."""
    arguments = ast.parse(ast.unparse(function.args).join(["def f(", "): pass"])).body[0].args
    for argument in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]:
        if argument is not None:
            argument.annotation = None
    return f"{function.name}({ast.unparse(arguments).replace('=', '=')})"


def signatures(path: Path) -> dict[str, str]:
    """The signature lines of a file's top-level functions, by name."""
    if not path.is_file():
        return {}
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name: signature(node) for node in tree.body if isinstance(node, ast.FunctionDef)}


@dataclass(frozen=True)
class ExpectedCheck:
    """One check that a grader file declares, read from its text."""

    test: str
    function: str
    claim: str
    robust: bool


def expected_checks(week: Week) -> list[ExpectedCheck]:
    """Every check that must run, read from the grader's text: whatever does not run counts as failed.

    Raises ValueError when a test in the file is not declared as a check, since nothing would count it.
    """
    checks = []
    names = {exercise.name for exercise in week.exercises}
    for node in ast.parse(week.grader.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.FunctionDef) or not node.name.startswith("test"):
            continue
        marks = [m for m in node.decorator_list if isinstance(m, ast.Call) and isinstance(m.func, ast.Name)]
        marks = [m for m in marks if m.func.id in ("check", "robust")]
        if len(marks) != 1 or len(marks[0].args) < 2:
            raise ValueError(
                f"{week.grader.name}: {node.name} needs one @check(function, claim) or @robust(...) above it"
            )
        function, claim = (ast.literal_eval(argument) for argument in marks[0].args[:2])
        if function not in names:
            raise ValueError(
                f"{week.grader.name}: {node.name} checks {function}, which {week.week}.toml does not declare"
            )
        if node.name in {check.test for check in checks}:
            raise ValueError(f"{week.grader.name}: two tests are called {node.name}")
        checks.append(ExpectedCheck(node.name, function, claim, marks[0].func.id == "robust"))
    return checks
