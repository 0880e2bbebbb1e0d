"""Whose code runs: a week's functions from a student's file, the solutions, the reference or somebody's fork.

`load_functions("05", "student")` gives the functions of weeks/05/reinforce.py. Each one comes wrapped, so that a
mistake inside it ends a run with one message that names the file and the line instead of a page of frames.
"""

import ast
import functools
import importlib.util
import inspect
import traceback
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType, SimpleNamespace

from reference_impl.errors import UserError

ROOT = Path(__file__).resolve().parent.parent

WEEKS = {
    "01": "objective",
    "02": "sft",
    "03": "reward_model",
    "04": "process_reward",
    "05": "reinforce",
    "06": "ppo_grpo",
    "07": "reasoning",
    "08": "dpo",
    "09": "reference_free",
    "10": "rejection_sampling",
    "11": "research",
}


def week_name(week: str) -> str:
    """Two digits for any way of writing a week: "5", "05" and "weeks/05" are all "05". UserError for an unknown one."""
    name = str(week).rstrip("/").split("/")[-1].removeprefix("week").zfill(2)
    if name not in WEEKS:
        raise UserError(f"There is no week {week!r}. The weeks are {', '.join(WEEKS)}.")
    return name


def week_folder(week: str) -> Path:
    """weeks/NN of this checkout."""
    return ROOT / "weeks" / week_name(week)


def week_file(week: str, impl: str = "student") -> Path:
    """The file that holds the week's functions under `impl` (student, solution, reference or a path).

    A path is a folder laid out like weeks/ or solutions/ (it holds 05/reinforce.py), or the root of a fork.
    Raises UserError when there is no such file.
    """
    week = week_name(week)
    name = f"{WEEKS[week]}.py"
    known = {
        "student": ROOT / "weeks" / week / name,
        "solution": ROOT / "solutions" / week / name,
        "solutions": ROOT / "solutions" / week / name,
        "reference": ROOT / "reference_impl" / name,
    }
    if impl in known:
        candidates = [known[impl]]
    else:
        folder = Path(impl).expanduser()
        if not folder.exists():
            near = get_close_matches(impl, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise UserError(
                f"--impl {impl}: there is no such folder.{hint} It takes student, solution, reference or a folder."
            )
        candidates = [folder / week / name, folder / "weeks" / week / name]
    for path in candidates:
        if path.is_file():
            return path
    raise UserError(f"--impl {impl}: no {name} for week {week}; looked for {', '.join(map(shown, candidates))}.")


def impl_name(impl: str) -> str:
    """`impl` as part of a folder's name: for a path, its last part."""
    return impl if impl.isidentifier() else Path(impl).expanduser().resolve().name


def load_functions(week: str, impl: str = "student") -> SimpleNamespace:
    """The public functions of the week's file under `impl`, by name, each wrapped by `guarded`.

    Raises UserError, naming file and line, when the file cannot be imported.
    """
    path = week_file(week, impl)
    module = import_file(path, f"week{week_name(week)}_{path.stem}")
    public = {
        name: guarded(value, path)
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
    }
    return SimpleNamespace(**public)


def import_file(path: Path, name: str) -> ModuleType:
    """Import one Python file under a name of its own. UserError, with the line, when it does not import."""
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise UserError(f"{shown(path)}, line {error.lineno}: syntax error, {error.msg}.") from error
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{where(error, path)}: importing the file failed, {describe(error)}.") from error
    return module


def unwritten(path: Path, names: Iterable[str]) -> list[str]:
    """Those of `names` that `path` does not define, or whose body still is the stub's `raise NotImplementedError`."""
    return unwritten_in(path.read_text(encoding="utf-8"), names)


def unwritten_in(source: str, names: Iterable[str]) -> list[str]:
    """The same for a file's text."""
    written = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and not any(map(_raises_not_implemented, node.body)):
            written.add(node.name)
    return [name for name in names if name not in written]


def require_written(week: str, impl: str, names: Iterable[str]) -> None:
    """UserError that names every function of `names` which the week's file under `impl` does not have yet."""
    path = week_file(week, impl)
    missing = unwritten(path, names)
    if missing:
        verb, them = ("is", "it") if len(missing) == 1 else ("are", "them")
        raise UserError(
            f"{shown(path)}: {', '.join(missing)} {verb} not written yet.\n"
            f"Write {them} first (`uv run pytest weeks/{week_name(week)}` shows the way), or run with --impl solution."
        )


def guarded(function: Callable, path: Path) -> Callable:
    """`function`, with its errors turned into a UserError that says where in `path` it happened."""

    @functools.wraps(function)
    def call(*args, **kwargs):
        try:
            return function(*args, **kwargs)
        except UserError:
            raise
        except NotImplementedError as error:
            raise UserError(f"{where(error, path)}: {function.__name__} is not written yet. {error}".strip()) from error
        except Exception as error:
            raise UserError(f"{where(error, path)}: {function.__name__} failed, {describe(error)}.") from error

    return call


def where(error: BaseException, path: Path) -> str:
    """`file, line n (the source line)` of the innermost frame of `error` that lies in `path`."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path]
    if not frames:
        return shown(path)
    return f"{shown(path)}, line {frames[-1].lineno} (`{frames[-1].line}`)"


def describe(error: BaseException) -> str:
    """Type and first line of an error's text."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].rstrip('.')}" if lines else type(error).__name__


def shown(path: Path) -> str:
    """A path as a person would write it: relative to this checkout when it lies inside."""
    path = Path(path)
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def _raises_not_implemented(node: ast.stmt) -> bool:
    if not isinstance(node, ast.Raise) or node.exc is None:
        return False
    raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
    return isinstance(raised, ast.Name) and raised.id == "NotImplementedError"
