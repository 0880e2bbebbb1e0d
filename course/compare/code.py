"""The code of one function in many files: what it consists of, and which files took the same way.

Two versions are one approach when their syntax trees are equal after everything that does not matter is taken out:
comments, docstrings, annotations, the names of local variables and of helpers, and how a module was imported. What a
function uses of its file (helpers, constants) belongs to it.
"""

import ast
import builtins
import copy
from dataclasses import dataclass

MOST_LINES = 400  # of one function with its helpers, as shown


@dataclass(frozen=True)
class Version:
    """One function of one file: its text, its text without comments, and what it comes to."""

    text: str
    bare: str
    key: str


def versions(source: str, functions: list[str]) -> dict[str, Version]:
    """The version of each of `functions` that the file defines; none of a file that Python cannot read."""
    try:
        tree, stripped = ast.parse(source), ast.fix_missing_locations(Strip().visit(ast.parse(source)))
        parts, bare = top_level(tree), top_level(stripped)
        known, lines = imports(tree), source.splitlines()
        return {name: version(name, parts, bare, known, lines) for name in functions if name in parts}
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}


def top_level(tree: ast.Module) -> dict[str, ast.stmt]:
    """What the file defines, by name: functions, classes and constants; the last definition counts."""
    parts = {}
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            parts[node.name] = node
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [leaf.id for target in targets for leaf in ast.walk(target) if isinstance(leaf, ast.Name)]
            parts |= dict.fromkeys(names, node)
    return parts


def imports(tree: ast.Module) -> dict[str, str]:
    """Every imported name, and what it stands for: F is torch.nn.functional."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                found |= {alias.asname: alias.name} if alias.asname else {top: top}
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return found


def version(name: str, parts: dict, bare: dict, imported: dict[str, str], lines: list[str]) -> Version:
    """One function with the helpers and constants that it uses. `bare` are the parts without comments."""
    names = with_helpers(name, bare)
    nodes, stripped = (list(dict.fromkeys(each[part] for part in names)) for each in (parts, bare))
    helpers = {helper: f"helper{number}" for number, helper in enumerate(names)}
    key = "\n".join(ast.dump(Rename(imported, helpers).whole(copy.deepcopy(node))) for node in stripped)
    shown = "\n\n\n".join(text(node, lines) for node in nodes)
    return Version(cut(shown), cut("\n\n\n".join(map(ast.unparse, stripped))), key)


def with_helpers(name: str, parts: dict[str, ast.stmt]) -> list[str]:
    """A part of a file and the parts that it uses, in the order in which it comes to them."""
    names = [name]
    for each in names:  # grows while it is read
        used = [leaf.id for leaf in ast.walk(parts[each]) if isinstance(leaf, ast.Name)]
        names += [other for other in dict.fromkeys(used) if other in parts and other not in names]
    return names


def text(node: ast.stmt, lines: list[str]) -> str:
    """The lines of a definition as they were written, without the docstring."""
    first = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])
    keep = range(first, node.end_lineno + 1)
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and is_docstring(node.body[0]):
        doc = node.body[0]
        keep = [n for n in keep if not doc.lineno <= n <= doc.end_lineno or doc.lineno == node.lineno]
    return "\n".join(lines[n - 1].rstrip() for n in keep)


def cut(lines: str) -> str:
    """Not more than can be shown."""
    every = lines.splitlines()
    return lines if len(every) <= MOST_LINES else "\n".join([*every[:MOST_LINES], "# … cut off here"])


def is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


class Strip(ast.NodeTransformer):
    """Takes out docstrings and annotations."""

    def visit_FunctionDef(self, node):
        node.body = [each for each in node.body if not is_docstring(each)] or [ast.Pass()]
        node.returns = None
        return self.generic_visit(node)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_arg(self, node):
        node.annotation = None
        return node

    def visit_AnnAssign(self, node):
        self.generic_visit(node)
        if node.value is None:
            return ast.Pass()
        return ast.Assign(targets=[node.target], value=node.value, lineno=node.lineno)


class Rename(ast.NodeTransformer):
    """Gives every name the one that it would have in anybody's file."""

    def __init__(self, imported: dict[str, str], helpers: dict[str, str]):
        self.imported, self.helpers = imported, helpers
        self.local: dict[str, str] = {}

    def whole(self, node: ast.stmt) -> ast.stmt:
        """One definition: its local names are numbered as they come."""
        for leaf in ast.walk(node):
            bound = leaf.arg if isinstance(leaf, ast.arg) else None
            if isinstance(leaf, ast.Name) and isinstance(leaf.ctx, ast.Store):
                bound = leaf.id
            if bound is not None and bound not in self.helpers:
                self.local.setdefault(bound, f"local{len(self.local)}")
        return self.visit(node)

    def visit_FunctionDef(self, node):
        node.name = self.helpers.get(node.name, node.name)
        return self.generic_visit(node)

    def visit_arg(self, node):
        node.arg = self.local[node.arg]
        return node

    def visit_Name(self, node):
        known = self.local.get(node.id) or self.helpers.get(node.id) or self.imported.get(node.id)
        if known is None and not hasattr(builtins, node.id):
            known = f"unknown {node.id}"
        node.id = known or node.id
        node.ctx = ast.Load()  # who is bound and who is read shows in the tree's shape
        return node

    def visit_Attribute(self, node):
        self.generic_visit(node)
        path = node.value.id if isinstance(node.value, ast.Name) else ""
        if path.partition(".")[0] in {name.partition(".")[0] for name in self.imported.values()}:
            return ast.Name(f"{path}.{node.attr}", ast.Load())
        node.ctx = ast.Load()
        return node

    def visit_Call(self, node):
        self.generic_visit(node)
        node.keywords.sort(key=lambda keyword: keyword.arg or "")
        return node
