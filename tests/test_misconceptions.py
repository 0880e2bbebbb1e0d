"""The zoos: every known wrong implementation is rejected by its week's checks and named, every right variant is
accepted, and what is wrong in a way of its own gets no name."""

from collections import Counter

import pytest

from graders import accepted, misconceptions
from graders.exercises import load_week, weeks
from graders.misconceptions.same import SAME, one_function
from graders.substitute import failures
from graders.table import README, page

GRADED = [week for week in weeks() if load_week(week).grader.is_file()]
WRONG = [(week, wrong) for week in GRADED for wrong in misconceptions.load(week)]
RIGHT = [(week, right) for week in GRADED for right in accepted.load(week)]


def crashed(failure):
    """The implementation raised where it should have answered: a slip in the zoo, not a misconception."""
    return failure.words.startswith("it raised")


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")  # one of the misconceptions
@pytest.mark.parametrize("week, wrong", WRONG, ids=[f"{week}-{m.function}-{m.name}" for week, m in WRONG])
def test_the_checks_reject_it_and_name_it(week, wrong):
    ordinary = named(failures(week, wrong.function, wrong.implementation))
    if not wrong.star:
        assert ordinary, "no check of the first rung rejects it"
    else:
        assert not ordinary, f"star=True says that only the robust rung rejects it: {ordinary[0]}"
    found = ordinary or named(failures(week, wrong.function, wrong.implementation, robust=True))
    assert found, "no robust check rejects it"
    names = [failure.misconception for failure in found if failure.misconception]
    assert names, f"it is not named; suspects: {[[m.name for m in failure.suspects] for failure in found]}"
    assert one_function(names[0], wrong), f"it is called {names[0].name!r}"


def named(found):
    """The failures that are no crash, up to the first that is named; all, when that is only known at the end."""
    kept = []
    for _, failure in found:
        if not crashed(failure):
            kept.append(failure)
            if failure.misconception:
                break
    return kept


def test_misconceptions_that_are_one_function_are_listed_by_their_names():
    names = {(m.function, m.name) for _, m in WRONG}
    assert {(function, name) for function, *pair in SAME for name in pair} <= names


def doubled(rewards):
    return 2 * rewards


def mostly_includes_itself(rewards):  # the misconception on most inputs, not on all
    return rewards - rewards.mean(-1, keepdim=True) + (rewards.shape[-1] == 3) * rewards


def nearly_includes_itself(rewards):
    return 1.001 * (rewards - rewards.mean(-1, keepdim=True))


@pytest.mark.parametrize("function", [doubled, mostly_includes_itself, nearly_includes_itself])
def test_another_mistake_gets_no_name(function):
    found = [failure for _, failure in failures("05", "rloo_advantages", function)]
    assert found and not any(failure.misconception for failure in found[:1])


def test_a_right_value_with_a_wrong_gradient_is_told_from_a_wrong_value():
    def detached(logprobs, rewards, mask, baseline=0.0):
        return -((rewards - baseline) * (logprobs.detach() * mask).sum(1)).mean() + 0 * logprobs.sum()

    assert not any(failure.misconception for _, failure in failures("05", "reinforce_loss", detached))


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


def test_the_zoos_are_as_large_as_promised():
    assert len(WRONG) >= 300
    assert len(RIGHT) >= 3 * sum(len(load_week(week).exercises) for week in GRADED)


def test_the_table_of_both_zoos_is_the_one_that_the_declarations_give():
    assert README.read_text(encoding="utf-8") == page(), "run `python -m graders.table`"
