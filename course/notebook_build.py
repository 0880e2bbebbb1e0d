"""A week as an nbgrader source notebook, made from its stub, its solution, its lesson and its declared points.

The same files give the same bytes: cell ids are hashes of their names. A cell's `nbgrader` metadata follows nbgrader's
schema 3: answer cells are solutions, test cells are locked and carry the points.
"""

import ast
import hashlib
import json
import re

from course.notebook_cells import Parts, answer, head, split
from graders.exercises import CHECKOUT, Exercise, Week

HIDDEN_SEED = 1
TEST = """from course.notebook_grade import credit

seed = 0  # of the inputs that the checks draw
### BEGIN HIDDEN TESTS
seed = {seed}  # the grade is decided on inputs that the students' copy does not draw
### END HIDDEN TESTS
credit("{week}", "{function}", seed)"""
HOW = """Write each function in its own cell and run the cell below it: it grades what you have written so far and
returns the points, the share of the function's checks that pass. Helper functions and imports may stand in any cell.

The same exercise as a file is [`{name}`]({file}): the notebook and `uv run pytest weeks/{week}` ask the same checks.

{conventions}"""
AFTER = """## Now train with it

Copy your functions into [`{name}`]({file}) and train: `uv run rlhf train {week} --impl student`. The experiments, the
discussion questions and the further reading stand in the [lesson]({lesson})."""


def source_notebook(week: Week, hidden_seed: int = HIDDEN_SEED) -> dict:
    """The instructor's version: solutions between markers, hidden tests in the test cells."""
    names = function_names(week)
    stub, solution = stub_parts(week), split(_solution(week), names)
    cells = [*opening(week), prelude_cell(stub.prelude, solution.prelude)]
    told: set[str] = set()
    for number, name in _numbered(week):
        exercise = week.exercise(name)
        if exercise.section not in told:
            told.add(exercise.section)
            cells.append(markdown(f"section-{number}", sections(week).get(exercise.section, "")))
        cells.append(markdown(f"task-{number}", _task(number, exercise)))
        answered = answer(stub.functions[name], solution.functions[name])
        cells += [answer_cell(f"answer-{name}", answered), test_cell(week, exercise, hidden_seed)]
    cells.append(markdown("after", AFTER.format(**_places(week))))
    return notebook([cell for cell in cells if cell["source"]])


def submission_notebook(week: Week, source: str) -> dict:
    """The notebook that a student would have handed in who wrote this file: its functions in the answer cells."""
    parts = split(source, function_names(week))
    cells = [answer_cell("helpers", "\n\n\n".join(parts.prelude))]
    for name in function_names(week):
        cells += [answer_cell(f"answer-{name}", parts.functions.get(name, "")), test_cell(week, week.exercise(name))]
    return notebook(cells)


def student_sources(week: Week) -> dict[str, str]:
    """What the answer cells hold in the students' copy, by grade_id: the stub."""
    stub = stub_parts(week)
    answers = {name: unanswered(week, number, stub.functions[name]) for number, name in _numbered(week)}
    return {"helpers": "\n".join(stub.prelude)} | {f"answer-{name}": text for name, text in answers.items()}


def stub_parts(week: Week) -> Parts:
    """The stub: its imports and its functions. Helpers that a member has written into weeks/ are left out."""
    parts = split(week.stub.read_text(encoding="utf-8"), function_names(week))
    return Parts([text for text in parts.prelude if text.startswith(("import ", "from "))], parts.functions)


def unanswered(week: Week, number: int, function: str) -> str:
    """The stub of a function, also when weeks/ holds a member's own body by now."""
    if isinstance(ast.parse(function).body[0].body[-1], ast.Raise):
        return function
    name = ast.parse(function).body[0].name
    words = f"Week {week.week}, task {number}: write {name} (lesson section '{week.exercise(name).section}')"
    return f"{head(function)}\n    raise NotImplementedError({json.dumps(words, ensure_ascii=False)})"


def _numbered(week: Week) -> list[tuple[int, str]]:
    return list(enumerate(function_names(week), 1))


def function_names(week: Week) -> list[str]:
    """The exercises that are functions of the week's file, in order."""
    from graders.submission import signatures

    known = signatures(week.reference)
    return [exercise.name for exercise in week.exercises if exercise.name in known]


def _solution(week: Week) -> str:
    return (CHECKOUT / "solutions" / week.week / f"{week.module}.py").read_text(encoding="utf-8")


# --- the lesson -------------------------------------------------------------------------------------------------------


def sections(week: Week) -> dict[str, str]:
    """The lesson's sections by heading, each with its heading; links lead to the files beside the lesson."""
    text = week.stub.with_name("README.md").read_text(encoding="utf-8")
    text = re.sub(r"\]\((?!\w+:|#)([^)]+)\)", lambda link: f"]({_up(week, link[1])})", text)
    pieces = re.split(r"(?m)^(?=#{1,3} )", text)
    return {piece.splitlines()[0].lstrip("#").strip(): piece.strip() for piece in pieces if piece.strip()}


def opening(week: Week) -> list[dict]:
    """The lesson up to its first task's section: title, question, notation; then how the notebook works."""
    names = {exercise.section for exercise in week.exercises}
    cells = []
    for heading, text in sections(week).items():
        if heading in names:
            break
        cells.append(markdown(f"lesson-{len(cells)}", text))
    conventions = ast.get_docstring(ast.parse(week.stub.read_text(encoding="utf-8"))) or ""
    conventions = conventions.partition("\n\n")[2]  # after the line that says which file to fill in
    how = HOW.format(conventions=conventions, **_places(week))
    return [*cells, markdown("how", f"## How this notebook works\n\n{how}".strip())]


def _places(week: Week) -> dict[str, str]:
    name = f"{week.module}.py"
    return {"week": week.week, "name": name, "file": _up(week, name), "lesson": _up(week, "README.md")}


def _up(week: Week, path: str) -> str:
    """A file of the week, seen from notebooks/source/week05/ or notebooks/release/week05/."""
    return f"../../../weeks/{week.week}/{path}"


def _task(number: int, exercise: Exercise) -> str:
    points = f"{exercise.points} point{'' if exercise.points == 1 else 's'}"
    stretch = ", stretch" if exercise.stretch else ""
    return f"### Task {number}: `{exercise.name}`\n\n{points}{stretch}, about {exercise.minutes} minutes."


# --- cells ------------------------------------------------------------------------------------------------------------


def prelude_cell(stub: list[str], solution: list[str]) -> dict:
    """Imports and helper functions; those of the solution are not in the students' copy."""
    extra = "\n\n\n".join(text for text in solution if text not in stub)
    given = "\n".join(stub)
    if not extra:
        return code("helpers", given)
    return answer_cell("helpers", f"{given}\n\n### BEGIN SOLUTION\n{extra}\n### END SOLUTION")


def answer_cell(name: str, source: str) -> dict:
    return code(name, source, grade=False, locked=False, solution=True)


def test_cell(week: Week, exercise: Exercise, seed: int = HIDDEN_SEED) -> dict:
    source = TEST.format(week=week.week, function=exercise.name, seed=seed)
    return code(f"test-{exercise.name}", source, grade=True, locked=True, solution=False, points=exercise.points)


def code(name: str, source: str, **flags) -> dict:
    metadata = {"nbgrader": {"schema_version": 3, "grade_id": name, "task": False, **flags}} if flags else {}
    return _cell("code", name, source, metadata) | {"execution_count": None, "outputs": []}


def markdown(name: str, source: str) -> dict:
    return _cell("markdown", name, source, {})


def _cell(kind: str, name: str, source: str, metadata: dict) -> dict:
    number = hashlib.sha256(name.encode()).hexdigest()[:12]
    return {"cell_type": kind, "id": number, "metadata": metadata, "source": source}


def notebook(cells: list[dict]) -> dict:
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def as_text(built: dict) -> str:
    """The file's text, as Jupyter writes it: sorted keys, sources as lists of lines."""
    cells = [cell | {"source": cell["source"].splitlines(keepends=True)} for cell in built["cells"]]
    return json.dumps(built | {"cells": cells}, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
