"""Between a Python file and the code cells of a notebook.

`split` takes a file apart into what stands outside the exercise's functions and one text a function; `module` makes
one file of a notebook's cells, which is what the grader reads.
"""

import ast
from dataclasses import dataclass

KEPT = (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign)  # besides definitions


@dataclass(frozen=True)
class Parts:
    """A file: the texts of the statements outside the functions asked for, and those of the functions by name."""

    prelude: list[str]
    functions: dict[str, str]


def split(source: str, names: list[str]) -> Parts:
    """Take a file apart. Comments directly above a statement go with it; the module's docstring is left out.

    A file with a syntax error is one prelude: a notebook can hold it, and its functions are missing.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return Parts([source], {})
    lines = source.splitlines()
    prelude, functions = [], {}
    for nodes, first, last in chunks(tree, lines):
        text = "\n".join(lines[first:last])
        name = next((node.name for node in nodes if isinstance(node, ast.FunctionDef) and node.name in names), None)
        if name is None:
            prelude.append(text)
        else:  # of two definitions the second wins, as in the file
            functions[name] = f"{functions[name]}\n\n\n{text}" if name in functions else text
    return Parts(prelude, functions)


def chunks(tree: ast.Module, lines: list[str]) -> list[tuple[list[ast.stmt], int, int]]:
    """The statements with their lines (from, to); those that share a line stay together."""
    body = tree.body[1:] if ast.get_docstring(tree, clean=False) is not None else tree.body
    found = []
    for node in body:
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))]) - 1
        if found and first < found[-1][2]:
            nodes, start, last = found.pop()
            found.append(([*nodes, node], start, max(last, node.end_lineno)))
            continue
        while first > (found[-1][2] if found else 0) and lines[first - 1].startswith("#"):
            first -= 1
        found.append(([node], first, node.end_lineno))
    return found


def answer(stub: str, solution: str) -> str:
    """An answer cell: the stub's signature and docstring, the solution's body between nbgrader's markers."""
    solved = solution[len(head(solution)) :].strip("\n")
    return f"{head(stub)}\n    ### BEGIN SOLUTION\n{solved}\n    ### END SOLUTION"


def head(function: str) -> str:
    """A function's text up to the end of its docstring."""
    node = ast.parse(function).body[0]
    if ast.get_docstring(node) is None:
        raise ValueError(f"{node.name} needs a docstring: it is what the notebook's reader works from")
    return "\n".join(function.splitlines()[: node.body[0].end_lineno])


# --- cells to a file --------------------------------------------------------------------------------------------------


def module(cells: list[str], prelude: list[str]) -> str:
    """One Python file of the cells, for the grader. `prelude` is the stub's own: its imports are always there.

    Imports, definitions and assignments count, in the order of the cells; loops and bare calls (plots, runs, prints) do
    not. An import or assignment that fails costs only the functions that need it. A cell with a syntax error is left
    out, with a comment that says so.
    """
    parts = [*prelude]
    for number, cell in enumerate(cells, 1):
        text, tree = parsed(cell)
        if tree is None:
            parts.append(f"# cell {number} is left out: {text}")
            continue
        lines = text.splitlines()
        for nodes, first, last in chunks(tree, lines):
            if all(isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) for node in nodes):
                parts.append("\n".join(lines[first:last]))
            else:
                parts += [guarded(node) for node in nodes if isinstance(node, KEPT) and not _future(node)]
    return "\n\n\n".join(parts) + "\n"


def parsed(cell: str) -> tuple[str, ast.Module | None]:
    """A cell's text and tree, without IPython's own lines; for a syntax error its words and None."""
    plain = "\n".join("" if line.startswith(("%", "!", "?")) else line for line in cell.splitlines())
    for text in (cell, plain):
        try:
            return text, ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            words = f"{type(error).__name__}: {error}".splitlines()[0]
    return words, None


def guarded(node: ast.stmt) -> str:
    """The statement, with its failure passed over."""
    body = "\n".join(f"    {line}" for line in ast.unparse(node).splitlines())
    return f"try:\n{body}\nexcept BaseException:\n    pass"


def _future(node: ast.stmt) -> bool:
    """Such an import would have to stand first in the file; what it changes, no exercise needs."""
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"
