"""The words of a grader file.

    @check("rloo_advantages", "each reward minus the mean of the other G - 1 rewards of its prompt")
    @given(rewards=st.reward_groups())
    def test_rloo_leaves_one_out(rewards):
        compare("rloo_advantages", rewards)

A test is a claim about one function. `compare` does nearly all the work: it computes the reference's answer in
float64, calls the student's function in its own process, and compares type, shape, dtype, values, gradients, inputs
after the call and global state. The claim is what the student reads when the check fails.
"""

import dataclasses
import functools
import inspect
import re

import hypothesis

from graders import oracle, paste, rules, verdict
from graders.session import NO_ANSWER, BrokenCheck, CheckFailed, Exchange, Floor, Stopped, current
from graders.trial import load_profile
from graders.worker import no_dynamo

MOST_EXAMPLES, FEWEST_EXAMPLES, EXAMPLES_A_WEEK = 15, 5, 320
load_profile("rlhf-course", MOST_EXAMPLES)


def set_examples(checks: int) -> None:
    """How many examples a check draws in a week of so many checks: grading should not take longer for more checks.
    Call it before the grader file is imported, since @given takes the number from there."""
    examples = max(FEWEST_EXAMPLES, min(MOST_EXAMPLES, EXAMPLES_A_WEEK // max(checks, 1)))
    profile = hypothesis.settings.get_profile("rlhf-course")
    hypothesis.settings.register_profile("rlhf-week", parent=profile, max_examples=examples)
    hypothesis.settings.load_profile("rlhf-week")


# --- declaring --------------------------------------------------------------------------------------------------------


class Check:
    """What a test function carries: which function it checks, the claim, the rung."""

    def __init__(self, function: str, claim: str, robust: bool, remedy: str = "", floor: bool = True):
        self.function, self.claim, self.robust, self.remedy, self.floor = function, claim, robust, remedy, floor


def check(function: str, claim: str, floor: bool = True):
    """First rung: decides green or red and earns the points. The outermost decorator of a test.

    `floor=False` says that the right answer of every example is zero (or one constant): without it, a check that would
    accept the zero function, or an answer 1% off, is reported as broken.
    """
    return functools.partial(_mark, Check(function, claim, robust=False, floor=floor))


def robust(function: str, claim: str, remedy: str, floor: bool = True):
    """Second rung: earns the star. `remedy` says in one line how to get this right; shown when the star is lost."""
    return functools.partial(_mark, Check(function, claim, robust=True, remedy=remedy, floor=floor))


def _given(test) -> bool:
    return hasattr(test, "hypothesis")


def _mark(mark: Check, test):
    test.graded = mark
    return test


def run_check(mark: Check, test, grading, **fixtures) -> None:
    """Run one test: seeded, and with the floor of non-triviality verified when it passes."""
    grading.floor = Floor(needed=mark.floor)
    grading.exchanges = []
    if _given(test):
        hypothesis.seed(grading.seed)(test)
        test._hypothesis_internal_database_key = None  # no database here; without, the test's source would be hashed
    try:
        test(**fixtures)
    except (CheckFailed, Stopped) as failed:
        from graders import diagnosis  # a green grading does without

        seen = diagnosis.diagnose(grading, failed.failure, mark.robust, lambda: test(**fixtures))
        grading.history += seen
        raise
    except hypothesis.errors.FlakyFailure as flaky:
        raise _unsteady(flaky) from None
    grading.history += grading.exchanges
    grading.floor.verify()


def _unsteady(flaky: hypothesis.errors.FlakyFailure) -> BaseException:
    """The failure of a function that fails on an input once and passes, or fails otherwise, on the same input again."""
    failed = next((error for error in flaky.exceptions if isinstance(error, CheckFailed)), None)
    if failed is None:
        return flaky
    words = "the same input gives different answers (does it draw random numbers, or remember earlier calls?); once "
    return CheckFailed(dataclasses.replace(failed.failure, words=words + failed.failure.words))


# --- checking ---------------------------------------------------------------------------------------------------------


def compare(function: str, *args, grad=(), constants=None, tolerance=None, **kwargs) -> None:
    """The student's `function` on these arguments does what the reference does.

    grad       names of the arguments through which the gradient must flow; it is compared with the reference's. A
               result that is not a scalar is multiplied by random numbers and summed first.
    constants  names of the arguments that must get none. Default: with `grad`, every other floating tensor whose name
               does not end in "mask"; they arrive with requires_grad=True. Without `grad`, none.
    tolerance  relative to the scale of the answer. Default by precision (rules.TOLERANCE). 0 means exactly.
    """
    arguments, positional = oracle.bind(function, args, kwargs)
    grad = (grad,) if isinstance(grad, str) else tuple(grad)
    if constants is None:
        constants = tuple(
            n for n, v in arguments if grad and n not in grad and oracle.floating(v) and not n.endswith("mask")
        )
    expected, expected_gradients, cotangents = oracle.reference_answer(function, arguments, positional, grad)
    bounds = oracle.tolerance_for(arguments, tolerance), oracle.scale_for(arguments)
    oracle.feed_floor(expected, expected_gradients, *bounds)

    again = functools.cache(
        lambda: oracle.reference_answer(function, arguments, positional, grad, change=oracle.copy_of)
    )

    def judge(reply):
        fail = functools.partial(verdict.fail_check, function, arguments, positional, reply=reply)
        if reply.error:
            fail(verdict.error_problem(reply.error))
        verdict.check_result(expected, reply.value, arguments, bounds, fail, lambda: again()[0])
        verdict.check_purity(arguments, reply, fail)
        if grad:
            fail = functools.partial(fail, leaves=(*grad, *constants))
            verdict.check_gradients(expected_gradients, reply.gradients, constants, bounds, fail, lambda: again()[1])

    leaves = (*grad, *constants)
    _exchange(judge, bounds, function, arguments, positional, leaves=leaves, cotangents=cotangents)


def _exchange(judge, bounds: tuple[float, float], function: str, arguments, positional=None, **how) -> None:
    """Call the submission, note the exchange for the diagnosis, and judge the reply."""
    call = {"function": function, "arguments": arguments, "positional": positional, **how}
    reply = current().candidate.call(**call)
    current().exchanges.append(Exchange(call, reply, judge, bounds))
    if not current().collecting or (reply.error and reply.error["kind"] in NO_ANSWER):
        judge(reply)


def returns(function: str, expected, *args, tolerance=None, **kwargs) -> None:
    """A worked number: `expected` is written out in the test. The reference must give it too."""
    arguments, positional = oracle.bind(function, args, kwargs)
    found, _, _ = oracle.reference_answer(function, arguments, positional, ())
    tol, scale = oracle.tolerance_for(arguments, tolerance), oracle.scale_for(arguments)
    if rules.structure(expected, found) or not all(
        oracle.equal(e, f, tol, scale)
        for (_, e), (_, f) in zip(rules.pieces(expected), rules.pieces(found), strict=True)
    ):
        raise BrokenCheck(f"the reference gives {paste.show(found)}, the test says {paste.show(expected)}")
    compare(function, *args, tolerance=tolerance, **kwargs)


def raises(function: str, error: type[Exception], *args, match: str = "", **kwargs) -> None:
    """The function raises `error` (or a subclass); `match` is a regular expression that the message must contain."""
    arguments, positional = oracle.bind(function, args, kwargs)
    try:
        oracle.apply(getattr(current().reference, function), oracle.copies(arguments), positional)
    except error:
        pass
    else:
        raise BrokenCheck(f"the reference does not raise {error.__name__} here")
    wanted = f"{error.__name__}" + (f" whose message contains {match!r}" if match else "")

    def judge(reply):
        fail = functools.partial(verdict.fail_check, function, arguments, positional, reply=reply)
        if not reply.error:
            got = f"returned {paste.show(reply.value)}"
            fail(rules.Problem("error", f"it must raise {error.__name__} here", wanted, got))
        if error.__name__ not in reply.error.get("bases", ()):
            fail(verdict.error_problem(reply.error, expected=wanted))
        if match and not re.search(match, reply.error["message"]):
            got = f"{reply.error['type']}: {reply.error['message']}"
            fail(rules.Problem("error", "the message does not name what is wrong", wanted, got))

    bounds = oracle.tolerance_for(arguments, None), oracle.scale_for(arguments)
    _exchange(judge, bounds, function, arguments, positional)


def scenario(function: str, name: str, *inputs, tolerance=None, **settings) -> None:
    """For functions that take models and optimizers. `graders/scenarios/NN.py` (which imports only torch) defines
    `name(function, *inputs)`: it builds what the function needs, calls it and returns plain results, best a dict of
    tensors and numbers. It runs with the student's function in the worker and with the reference's here, and the
    results are compared."""
    scene = getattr(oracle.scenarios(current().submission.week), name)
    bound = inspect.signature(scene).bind(None, *inputs, **settings)
    given = list(bound.arguments.items())[1:]
    bound.apply_defaults()
    arguments = list(bound.arguments.items())[1:]
    with no_dynamo():
        expected = oracle.plain(
            scene(getattr(current().reference, function), *[v for _, v in oracle.copies(arguments)])
        )
    tol, scale = oracle.tolerance_for(arguments, tolerance), oracle.scale_for(arguments)
    oracle.feed_floor(expected, {}, tol, scale)

    def judge(reply):
        shown = [("function", verdict.Name(function)), *given]
        fail = functools.partial(verdict.fail_check, name, shown, 1, reply=reply)
        if reply.error:
            fail(verdict.error_problem(reply.error))
        verdict.check_result(expected, reply.value, [], (tol, scale), fail)
        if reply.moved:
            fail(rules.Problem("global state", f"it changed {reply.moved[0]}"))

    _exchange(judge, (tol, scale), function, arguments, scenario=name)


def call(function: str, *args, **kwargs):
    """The student's answer itself, for a claim that no reference is needed for. An error fails the check. Prefer
    `compare`: an answer that is only held against itself can be wrong twice in the same way."""
    arguments, positional = oracle.bind(function, args, kwargs)
    reply = current().candidate.call(function, arguments, positional)
    if reply.error:
        verdict.fail_check(function, arguments, positional, verdict.error_problem(reply.error), reply=reply)
    return reply.value
