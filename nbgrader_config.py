"""nbgrader for this course: `uv run --extra notebooks nbgrader generate_assignment week05` in the checkout's root.

`rlhf notebook build` writes notebooks/source/, `rlhf notebook collect` fills notebooks/submitted/.
"""

from pathlib import Path

from nbgrader.converters import Autograde, GenerateAssignment
from nbgrader.preprocessors import ClearSolutions, DeduplicateIds, Execute, OverwriteCells

from course.notebook_nbgrader import ClearToStub, FencedExecute, RestoreCells

OURS = {ClearSolutions: ClearToStub, OverwriteCells: RestoreCells, Execute: FencedExecute}


def steps(app, trait):
    """nbgrader's own steps with ours in their places."""
    return [OURS.get(step, step) for step in getattr(app, trait).default_args[0] if step is not DeduplicateIds]


c = get_config()  # noqa: F821  (traitlets defines it)
c.CourseDirectory.course_id = "rlhf"
c.CourseDirectory.root = str(Path(__file__).resolve().parent / "notebooks")
c.GenerateAssignment.preprocessors = steps(GenerateAssignment, "preprocessors")
c.Autograde.sanitize_preprocessors = steps(Autograde, "sanitize_preprocessors")
c.Autograde.autograde_preprocessors = steps(Autograde, "autograde_preprocessors")
c.ExecutePreprocessor.timeout = 660  # a function that hangs costs its checks some seconds each
