"""nbgrader's steps, three of them replaced (nbgrader_config.py puts them in place).

nbgrader as it comes runs a student's cells in a kernel of the teacher's account, together with the cells that grade
them: whoever controls the kernel controls the score. Here no cell of a student ever runs in that kernel. The locked
cells do, restored from the gradebook; the student's code goes to the graders' sandbox as text.
"""

import tempfile
from pathlib import Path

from nbformat.v4 import new_code_cell, new_notebook
from nbgrader.api import Gradebook
from nbgrader.preprocessors import ClearSolutions, Execute, NbGraderPreprocessor
from nbgrader.utils import setenv
from traitlets import Bool

from course.notebook_build import stub_parts, student_sources
from course.notebook_cells import module
from course.notebook_grade import ANSWERS, TRUST
from graders.exercises import load_week

NO_SANDBOX = (
    "(where bubblewrap cannot be had and all authors are trusted: nbgrader autograde --FencedExecute.trust=True)"
)


class ClearToStub(ClearSolutions):
    """generate_assignment: an answer cell becomes the stub, with its own NotImplementedError, and helpers vanish."""

    def preprocess(self, nb, resources):
        week = week_of(resources)
        self.stubs = student_sources(load_week(week)) if week else {}
        return super().preprocess(nb, resources)

    def preprocess_cell(self, cell, resources, index):
        name = cell.metadata.get("nbgrader", {}).get("grade_id")
        if name not in self.stubs:
            return super().preprocess_cell(cell, resources, index)
        cell.source = self.stubs[name]
        return cell, resources


class RestoreCells(NbGraderPreprocessor):
    """autograde: what the gradebook knows about a cell holds, whatever the submission says; graded cells that were
    deleted come back. (In the place of DeduplicateIds and OverwriteCells, which fail on some edited metadata.)"""

    def preprocess(self, nb, resources):
        known = known_cells(resources)
        seen = set()
        for cell in reversed(nb.cells):  # of two cells with one id the last keeps it
            claimed = cell.metadata.pop("nbgrader", None)
            name = claimed.get("grade_id") if isinstance(claimed, dict) else None
            if isinstance(name, str) and name in known and name not in seen and cell.cell_type == "code":
                seen.add(name)
                restore(cell, known[name])
        for name, original in known.items():
            if name not in seen and original["nbgrader"]["grade"]:
                self.log.warning("The cell %s was deleted; it is put back at the end.", name)
                nb.cells.append(restore(new_code_cell(id=f"restored-{len(nb.cells)}"), original))
        return nb, resources


def restore(cell, original: dict):
    """Metadata as in the gradebook; the text too, where the cell is locked."""
    cell.metadata["nbgrader"] = dict(original["nbgrader"])
    if original["nbgrader"]["locked"]:
        cell.source = original["source"]
    return cell


class FencedExecute(Execute):
    """autograde: run the locked cells alone, in an empty folder; the student's cells are handed to the grader."""

    trust = Bool(False, help="Grade without a sandbox, where bubblewrap is not installed").tag(config=True)

    def preprocess(self, nb, resources, **rest):
        week = week_of(resources)
        if week is None:
            return super().preprocess(nb, resources, **rest)
        sources = {name: original["source"] for name, original in known_cells(resources).items()}
        tests = [cell for cell in nb.cells if is_test(cell)]
        answers = [cell.source for cell in nb.cells if cell.cell_type == "code" and not is_test(cell)]
        clean = new_notebook(metadata=nb.metadata)
        clean.cells = [new_code_cell(sources[cell.metadata["nbgrader"]["grade_id"]]) for cell in tests]
        with tempfile.TemporaryDirectory(prefix="rlhf-autograde-") as scratch:
            file = Path(scratch, "answers.py")
            text = module(answers, stub_parts(load_week(week)).prelude)
            file.write_text(text, encoding="utf-8", errors="replace")
            folder = Path(scratch, "empty")  # a submission may bring files; none of them is to be imported
            folder.mkdir()
            place = {**resources, "metadata": {**resources["metadata"], "path": str(folder)}}
            with setenv(**{ANSWERS: str(file), TRUST: "1" if self.trust else "0"}):
                super().preprocess(clean, place, **rest)
        for cell, ran in zip(tests, clean.cells, strict=True):
            for output in ran.outputs:
                if output.output_type == "error":  # not the student's: their code cannot raise here
                    raise RuntimeError(f"nothing was graded: {output.evalue} {NO_SANDBOX}")
            cell.outputs, cell.execution_count = ran.outputs, ran.execution_count
        return nb, resources


def is_test(cell) -> bool:
    """A graded cell; RestoreCells has seen to it that no other says so."""
    return bool(cell.metadata.get("nbgrader", {}).get("grade"))


def week_of(resources) -> str | None:
    """ "05" for the assignment week05; None for an assignment that is not a week of the course."""
    name = resources["nbgrader"]["assignment"]
    return name[4:] if name.startswith("week") and name[4:].isdigit() else None


def known_cells(resources) -> dict[str, dict]:
    """The source notebook's cells in the gradebook, by grade_id: text and metadata."""
    names = resources["nbgrader"]
    with Gradebook(names["db_url"]) as gradebook:
        book = gradebook.find_notebook(names["notebook"], names["assignment"])
        points = {cell.name: cell.max_score for cell in book.grade_cells}
        solutions = {cell.name for cell in book.solution_cells}
        found = {}
        for cell in book.source_cells:
            metadata = {"schema_version": 3, "grade_id": cell.name, "task": False, "locked": cell.locked}
            metadata |= {"grade": cell.name in points, "solution": cell.name in solutions}
            metadata |= {"checksum": cell.checksum, "cell_type": cell.cell_type}
            metadata |= {"points": points[cell.name]} if cell.name in points else {}
            found[cell.name] = {"source": cell.source, "nbgrader": metadata}
        return found
