"""The words of a grader file.

    @check("rloo_advantages", "each reward minus the mean of the other G - 1 rewards of its prompt")
    @given(rewards=st.reward_groups())
    def test_rloo_leaves_one_out(rewards):
        compare("rloo_advantages", rewards)

A test is a claim about one function. `compare` does nearly all the work: it computes the reference's answer in
float64, calls the student's function in its own process, and compares type, shape, dtype, values, gradients, inputs
after the call and global state. The claim is what the student reads when the check fails.
"""

import functools
import inspect
import re

import hypothesis
import torch

from graders import paste, rules
from graders.session import BrokenCheck, CheckFailed, Failure, Floor, Stopped, current
from graders.worker import no_dynamo

MOST_EXAMPLES, FEWEST_EXAMPLES, EXAMPLES_A_WEEK = 15, 8, 400
hypothesis.settings.register_profile(
    "rlhf-course",
    max_examples=MOST_EXAMPLES,
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate, hypothesis.Phase.shrink],
    deadline=None,
    database=None,
    print_blob=False,
    report_multiple_bugs=False,
    suppress_health_check=list(hypothesis.HealthCheck),
)
hypothesis.settings.load_profile("rlhf-course")


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
    if _given(test):
        hypothesis.seed(grading.seed)(test)
    test(**fixtures)
    grading.floor.verify()


# --- checking ---------------------------------------------------------------------------------------------------------


def compare(function: str, *args, grad=(), constants=None, tolerance=None, **kwargs) -> None:
    """The student's `function` on these arguments does what the reference does.

    grad       names of the arguments through which the gradient must flow; it is compared with the reference's. A
               result that is not a scalar is multiplied by random numbers and summed first.
    constants  names of the arguments that must get none. Default: with `grad`, every other floating tensor whose name
               does not end in "mask"; they arrive with requires_grad=True. Without `grad`, none.
    tolerance  relative to the scale of the answer. Default by precision (rules.TOLERANCE). 0 means exactly.
    """
    arguments, positional = _bind(function, args, kwargs)
    grad = (grad,) if isinstance(grad, str) else tuple(grad)
    if constants is None:
        constants = tuple(n for n, v in arguments if grad and n not in grad and _floating(v) and not n.endswith("mask"))
    expected, expected_gradients, cotangents = _reference(function, arguments, positional, grad)
    bounds = _tolerance(arguments, tolerance), _scale(arguments)
    _feed_floor(expected, expected_gradients, *bounds)

    reply = current().candidate.call(function, arguments, positional, (*grad, *constants), cotangents)
    fail = functools.partial(_fail, function, arguments, positional, reply=reply)
    if reply.error:
        fail(_error_problem(reply.error))
    again = functools.cache(lambda: _reference(function, arguments, positional, grad, change=_copy))
    _check_result(expected, reply.value, arguments, bounds, fail, lambda: again()[0])
    _check_purity(arguments, reply, fail)
    if grad:
        fail = functools.partial(fail, leaves=(*grad, *constants))
        _check_gradients(expected_gradients, reply.gradients, constants, bounds, fail, lambda: again()[1])


def returns(function: str, expected, *args, tolerance=None, **kwargs) -> None:
    """A worked number: `expected` is written out in the test. The reference must give it too."""
    arguments, positional = _bind(function, args, kwargs)
    found, _, _ = _reference(function, arguments, positional, ())
    tol, scale = _tolerance(arguments, tolerance), _scale(arguments)
    if rules.structure(expected, found) or not all(
        _equal(e, f, tol, scale) for (_, e), (_, f) in zip(rules.pieces(expected), rules.pieces(found), strict=True)
    ):
        raise BrokenCheck(f"the reference gives {paste.show(found)}, the test says {paste.show(expected)}")
    compare(function, *args, tolerance=tolerance, **kwargs)


def raises(function: str, error: type[Exception], *args, match: str = "", **kwargs) -> None:
    """The function raises `error` (or a subclass); `match` is a regular expression that the message must contain."""
    arguments, positional = _bind(function, args, kwargs)
    try:
        _apply(getattr(current().reference, function), _copies(arguments), positional)
    except error:
        pass
    else:
        raise BrokenCheck(f"the reference does not raise {error.__name__} here")
    reply = current().candidate.call(function, arguments, positional)
    fail = functools.partial(_fail, function, arguments, positional, reply=reply)
    wanted = f"{error.__name__}" + (f" whose message contains {match!r}" if match else "")
    if not reply.error:
        fail(
            rules.Problem(
                "error", f"it must raise {error.__name__} here", wanted, f"returned {paste.show(reply.value)}"
            )
        )
    if error.__name__ not in reply.error.get("bases", ()):
        fail(_error_problem(reply.error, expected=wanted))
    if match and not re.search(match, reply.error["message"]):
        got = f"{reply.error['type']}: {reply.error['message']}"
        fail(rules.Problem("error", "the message does not name what is wrong", wanted, got))


def scenario(function: str, name: str, *inputs, tolerance=None, **settings) -> None:
    """For functions that take models and optimizers. `graders/scenarios/NN.py` (which imports only torch) defines
    `name(function, *inputs)`: it builds what the function needs, calls it and returns plain results, best a dict of
    tensors and numbers. It runs with the student's function in the worker and with the reference's here, and the
    results are compared."""
    scene = getattr(_scenarios(current().submission.week), name)
    bound = inspect.signature(scene).bind(None, *inputs, **settings)
    given = list(bound.arguments.items())[1:]
    bound.apply_defaults()
    arguments = list(bound.arguments.items())[1:]
    with no_dynamo():
        expected = _plain(scene(getattr(current().reference, function), *[v for _, v in _copies(arguments)]))
    tol, scale = _tolerance(arguments, tolerance), _scale(arguments)
    _feed_floor(expected, {}, tol, scale)
    reply = current().candidate.call(function, arguments, scenario=name)
    fail = functools.partial(_fail, name, [("function", _Name(function)), *given], 1, reply=reply)
    if reply.error:
        fail(_error_problem(reply.error))
    _check_result(expected, reply.value, [], (tol, scale), fail)
    if reply.moved:
        fail(rules.Problem("global state", f"it changed {reply.moved[0]}"))


def call(function: str, *args, **kwargs):
    """The student's answer itself, for a claim that no reference is needed for. An error fails the check. Prefer
    `compare`: an answer that is only held against itself can be wrong twice in the same way."""
    arguments, positional = _bind(function, args, kwargs)
    reply = current().candidate.call(function, arguments, positional)
    if reply.error:
        _fail(function, arguments, positional, _error_problem(reply.error), reply=reply)
    return reply.value


# --- the reference's side ---------------------------------------------------------------------------------------------


def _bind(function: str, args: tuple, kwargs: dict) -> tuple[list[tuple[str, object]], int]:
    """Arguments with their names, and how many go by position."""
    names = _parameters(getattr(current().reference, function))
    return [*zip(names, args, strict=False), *kwargs.items()], len(args)


@functools.cache
def _parameters(function) -> list[str]:
    return list(inspect.signature(function).parameters)


def _floating(value) -> bool:
    return type(value) is torch.Tensor and value.is_floating_point()


def _double(value):
    if _floating(value):
        return value.detach().double().clone()
    if type(value) in (list, tuple):
        return type(value)(_double(item) for item in value)
    return _copy(value)


def _copy(value):
    if type(value) is torch.Tensor:
        return value.detach().clone()
    if type(value) is torch.Generator:
        return torch.Generator().manual_seed(value.initial_seed())
    if type(value) in (list, tuple):
        return type(value)(_copy(item) for item in value)
    return dict(value) if type(value) is dict else value


def _copies(arguments, change=_copy):
    return [(name, change(value)) for name, value in arguments]


def _apply(function, arguments, positional: int):
    return function(*[v for _, v in arguments[:positional]], **dict(arguments[positional:]))


def _plain(value):
    if type(value) is torch.Tensor:
        return value.detach()
    if type(value) in (list, tuple):
        return type(value)(_plain(item) for item in value)
    return {key: _plain(item) for key, item in value.items()} if type(value) is dict else value


def _reference(function: str, arguments, positional: int, grad: tuple[str, ...], change=_double):
    """The reference's answer and gradients on copies in float64, and the cotangents that the gradients belong to.

    With `change=_copy` it works in the precision of the inputs: how far off a right answer may then be.
    """
    copies = _copies(arguments, change)
    leaves = {name: value.requires_grad_() for name, value in copies if name in grad}
    if missing := set(grad) - set(leaves):
        raise BrokenCheck(f"grad names {sorted(missing)}, which are not arguments of {function} here")
    try:
        value = _apply(getattr(current().reference, function), copies, positional)
    except Exception as error:
        raise BrokenCheck(f"the reference raises {type(error).__name__}: {error}") from error
    if not grad:
        return _plain(value), {}, []
    outputs = [item for _, item in rules.pieces(value) if _floating(item)]
    generator = torch.Generator().manual_seed(current().seed)
    weights = [
        torch.ones(()) if item.dim() == 0 else 0.5 + torch.rand(item.shape, generator=generator, dtype=torch.float64)
        for item in outputs
    ]
    live = [(item * w.to(item.dtype)).sum() for item, w in zip(outputs, weights, strict=True) if item.requires_grad]
    found = torch.autograd.grad(sum(live), list(leaves.values()), allow_unused=True)
    pairs = zip(leaves.items(), found, strict=True)
    gradients = {name: torch.zeros_like(leaf) if g is None else g.detach() for (name, leaf), g in pairs}
    return _plain(value), gradients, [w.double() for w in weights]


def _tolerance(arguments, given: float | None) -> float:
    if given is not None:
        return given
    dtypes = [v.dtype for n, v in arguments if _floating(v) and not n.endswith("mask")]
    return max((rules.TOLERANCE[dtype] for dtype in dtypes), default=1e-8)


def _scale(arguments) -> float:
    return rules.scale_of([v for _, v in arguments if _floating(v)])


def _equal(expected, got, tolerance: float, scale: float) -> bool:
    if type(expected) is torch.Tensor:
        return bool(rules.close(got, expected, tolerance, scale).all())
    if type(expected) is float:
        return bool(rules.close(*(torch.tensor(x, dtype=torch.float64) for x in (got, expected)), tolerance, scale))
    return expected == got


def _feed_floor(expected, gradients: dict, tolerance: float, scale: float) -> None:
    floor = current().floor
    floor.compared += 1
    if floor.rejects_zero and floor.rejects_one_percent and (floor.rejects_zero_gradient or not gradients):
        return  # shown by an earlier example
    for _, item in rules.pieces(expected):
        item = torch.tensor(item, dtype=torch.float64) if type(item) is float else item
        if _floating(item):
            floor.numeric = True
            floor.rejects_zero |= _rejects(item, 1.0, tolerance, scale)
            floor.rejects_one_percent |= _rejects(item, 0.01, tolerance, scale)
        else:
            floor.answers.add(str(item))
    floor.gradients |= bool(gradients)
    floor.rejects_zero_gradient |= any(_rejects(g, 1.0, tolerance, scale) for g in gradients.values())


def _rejects(expected: torch.Tensor, change: float, tolerance: float, scale: float) -> bool:
    finite = torch.where(expected.isfinite(), expected, 0.0).double()
    return bool((change * finite.abs() > rules.allowed(finite, tolerance, scale)).any())


@functools.cache
def _scenarios(week):
    import runpy
    import types

    return types.SimpleNamespace(**runpy.run_path(str(week.scenarios)))


# --- the candidate's side ---------------------------------------------------------------------------------------------


class _Name(str):
    """A function's name inside code to paste."""

    def __repr__(self) -> str:
        return str(self)


def _fail(function, arguments, positional, problem, reply=None, leaves=()) -> None:
    error = reply.error or {} if reply else {}
    failure = Failure(
        problem.kind,
        problem.words,
        paste.call(function, arguments, positional, leaves),
        problem.expected,
        problem.got,
        problem.difference,
        reply.printed if reply else "",
        error.get("line"),
        error.get("source", ""),
    )
    if current().shrink and problem.kind not in ("hang", "crash", "import", "garbled"):
        raise CheckFailed(failure)
    raise Stopped(failure)


def _error_problem(error: dict, expected: str = "") -> rules.Problem:
    """An error in words."""
    kind = error["kind"]
    if "words" in error:
        return rules.Problem(kind, error["words"], expected)
    name, message = error["type"], error["message"]
    if "leaf Variable that requires grad" in message and "in-place" in message:
        return rules.Problem("in place", "it changes one of its inputs in place; work on a new tensor instead")
    if name == "OSError" and "File too large" in message:
        return rules.Problem("error", "it printed more than 1 MB")
    where = (
        "loading the file" if kind == "import" else "backward() through the result" if error.get("backward") else "it"
    )
    verb = "raised" if where == "it" else "raises"
    return rules.Problem(kind, f"{where} {verb} {name}: {message[:300]}", expected)


def _check_result(expected, got, arguments, bounds: tuple[float, float], fail, same_precision=None) -> None:
    """Structure, then dtypes, then numbers. `bounds` are the tolerance and the scale of the inputs."""
    if problem := rules.structure(expected, got):
        fail(problem)
    dtypes = [v.dtype for n, v in arguments if _floating(v) and not n.endswith("mask")]
    dtype = functools.reduce(torch.promote_types, dtypes) if dtypes else None
    tol, scale = bounds
    for index, ((name, e), (_, g)) in enumerate(zip(rules.pieces(expected), rules.pieces(got), strict=True)):
        what = rules._result(name)
        if type(e) is torch.Tensor and (problem := rules.dtype_problem(e, g, dtype, name)):
            fail(problem)
        if not (type(e) is float or type(e) is torch.Tensor):
            if e != g:
                fail(rules.Problem("value", f"{what} is wrong", paste.show(e), paste.show(g)))
            continue
        e = torch.tensor(e, dtype=torch.float64) if type(e) is float else e
        g = torch.tensor(g, dtype=torch.float64) if type(g) is float else g
        right = rules.close(g, e, tol, scale)
        if not right.all() and same_precision and tol > 0:
            again = rules.pieces(same_precision())[index][1]
            right = rules.close(g, e, tol, scale, _allowance(again, e, tol))
        if not right.all():
            fail(rules.numbers_problem("value", what, e, g, right))


def _allowance(same_precision, expected: torch.Tensor, tolerance: float) -> float:
    """Four times the reference's own rounding error in the inputs' precision, at most 100 tolerances."""
    if type(same_precision) is float:
        same_precision = torch.tensor(same_precision, dtype=torch.float64)
    error = (same_precision.double() - expected.double()).abs()
    error = error[error.isfinite()]
    if not error.numel():
        return 0.0
    size = expected[expected.isfinite()].abs().max() if expected.isfinite().any() else 1.0
    return min(4 * float(error.max()), 100 * tolerance * float(size))


def _check_purity(arguments, reply, fail) -> None:
    """Inputs as they were, global state where it was."""
    for name, value in arguments:
        if type(value) is torch.Tensor and not _same_bytes(value, reply.after.get(name)):
            fail(
                rules.Problem(
                    "in place",
                    f"it changes its input {name} in place",
                    paste.show(value),
                    paste.show(reply.after.get(name)),
                )
            )
    if reply.moved:
        fail(rules.Problem("global state", f"it changed {reply.moved[0]}"))


def _same_bytes(a: torch.Tensor, b) -> bool:
    if type(b) is not torch.Tensor or a.dtype != b.dtype or a.shape != b.shape:
        return False
    a, b = (t.detach().contiguous().reshape(-1).view(torch.uint8) for t in (a, b))
    return torch.equal(a, b)


def _check_gradients(expected: dict, got: dict | None, constants, bounds, fail, same_precision) -> None:
    """The gradient of every trained argument is the reference's; constants get none."""
    tol, scale = bounds
    got = got or {}
    for name, e in expected.items():
        g = got.get(name)
        what = f"the gradient with respect to {name}"
        if g is None and e.any():
            words = f"no gradient reaches {name}: is it detached, under torch.no_grad, or turned into a number?"
            fail(rules.Problem("gradient", words, paste.show(e), "no gradient"))
        g = torch.zeros_like(e) if g is None else g
        right = rules.close(g, e, tol, scale)
        if not right.all() and tol > 0:
            right = rules.close(g, e, tol, scale, _allowance(same_precision()[name], e, tol))
        if not right.all():
            fail(rules.numbers_problem("gradient", what, e, g, right))
    for name in constants:
        g = got.get(name)
        if g is not None and bool((g != 0).any()):
            words = f"a gradient flows into {name}, which is a constant here: detach it"
            fail(rules.Problem("constant", words, "no gradient", paste.show(g)))
