"""The zoos: every known wrong implementation is rejected by its week's checks, every right variant is accepted."""

from collections import Counter

import pytest

from graders import accepted, misconceptions
from graders.exercises import load_week, weeks
from graders.substitute import failures

GRADED = [week for week in weeks() if load_week(week).grader.is_file()]
WRONG = [(week, wrong) for week in GRADED for wrong in misconceptions.load(week)]
RIGHT = [(week, right) for week in GRADED for right in accepted.load(week)]


def crashed(failure):
    """The implementation raised where it should have answered: a slip in the zoo, not a misconception."""
    return failure.words.startswith("it raised")


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")  # one of the misconceptions
@pytest.mark.parametrize("week, wrong", WRONG, ids=[f"{week}-{m.function}-{m.name}" for week, m in WRONG])
def test_the_checks_reject(week, wrong):
    ordinary = [failure for _, failure in first(failures(week, wrong.function, wrong.implementation))]
    if not wrong.star:
        assert ordinary, "no check of the first rung rejects it"
        return
    assert not ordinary, f"star=True says that only the robust rung rejects it: {ordinary[0]}"
    assert first(failures(week, wrong.function, wrong.implementation, robust=True)), "no robust check rejects it"


def first(found):
    """The first failure that is no crash, as a list; empty when there is none."""
    return next(([(test, failure)] for test, failure in found if not crashed(failure)), [])


@pytest.mark.parametrize("week, right", RIGHT, ids=[f"{week}-{r.function}-{r.note}" for week, r in RIGHT])
def test_the_checks_accept(week, right):
    assert list(failures(week, right.function, right.implementation)) == []


@pytest.mark.parametrize("week", sorted({week for week, _ in WRONG}))
def test_the_misconceptions_are_told_well(week):
    declared = load_week(week)
    functions = {exercise.name for exercise in declared.exercises}
    lesson = declared.stub.with_name("README.md").read_text(encoding="utf-8").splitlines()
    headings = {line.lstrip("#").strip() for line in lesson if line.startswith("#")}
    for wrong in misconceptions.load(week):
        assert wrong.function in functions
        assert wrong.lesson in headings, f"{wrong.name}: the lesson has no section {wrong.lesson!r}"
        assert all(len(text) > 5 for text in (wrong.computed, wrong.why, wrong.effect)), wrong.name
    names = Counter((wrong.function, wrong.name) for wrong in misconceptions.load(week))
    assert max(names.values()) == 1, names.most_common(1)


@pytest.mark.parametrize("week", sorted({week for week, _ in WRONG}))
def test_every_function_has_eight_misconceptions_and_three_right_variants(week):
    wrong = Counter(wrong.function for wrong in misconceptions.load(week))
    right = Counter(right.function for right in accepted.load(week))
    names = [exercise.name for exercise in load_week(week).exercises]
    assert {name: wrong[name] for name in names if wrong[name] < 8} == {}
    assert {name: right[name] for name in names if right[name] < 3} == {}
