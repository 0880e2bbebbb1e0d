"""The week and the function that a command is about, or one sentence about what there is."""

from graders.exercises import Exercise, UnknownWeek, Week, load_week
from graders.memory import next_function, recall
from graders.submission import NoSubmission
from reference_impl.errors import UserError


def find_week(text: str) -> Week:
    """Week "05", also written "5" or "weeks/05". UserError for one that does not exist."""
    try:
        return load_week(text.rstrip("/").split("/")[-1])
    except UnknownWeek as problem:
        raise UserError(f"{str(problem).capitalize()}.") from None


def find_exercise(week: Week, name: str) -> Exercise:
    """The function of that name. UserError for one that the week does not have."""
    names = [exercise.name for exercise in week.exercises]
    if name not in names:
        raise UserError(f"Week {week.week} has no function {name!r}. There are: {', '.join(names)}.")
    return week.exercise(name)


def current_exercise(week: Week) -> Exercise | None:
    """What a student is at: the first function that is written and wrong, as far as is known without grading, else the
    first that is not written; None when there is none. UserError when the week's file is gone."""
    verdict = verdict_of(week)
    if verdict is None:
        from reference_impl.implementations import unwritten

        name = next(iter(unwritten(week.stub, [exercise.name for exercise in week.exercises])), None)
    else:
        name = next_function(verdict)
    return week.exercise(name) if name else None


def verdict_of(week: Week) -> dict | None:
    """The verdict on the student's file as it stands (memory.brief), None when it has not been graded since it changed.
    UserError when the file is gone or cannot be read."""
    try:
        return recall(week)
    except NoSubmission as problem:
        raise UserError(f"{problem}. `rlhf reset {week.week}` puts the stub back.") from None
