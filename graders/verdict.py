"""The candidate's side of a check: what it answered, held against the reference. The first thing wrong ends it."""

import functools

import torch

from graders import oracle, paste, rules
from graders.session import NO_ANSWER, CheckFailed, Failure, Stopped, current


class Name(str):
    """A function's name inside code to paste."""

    def __repr__(self) -> str:
        return str(self)


def fail_check(function, arguments, positional, problem, reply=None, leaves=()) -> None:
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
    if current().shrink and problem.kind not in NO_ANSWER:
        raise CheckFailed(failure)
    raise Stopped(failure)


def error_problem(error: dict, expected: str = "") -> rules.Problem:
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


def check_result(expected, got, arguments, bounds: tuple[float, float], fail, same_precision=None) -> None:
    """Structure, then dtypes, then numbers. `bounds` are the tolerance and the scale of the inputs."""
    if problem := rules.structure(expected, got):
        fail(problem)
    dtypes = [v.dtype for n, v in arguments if oracle.floating(v) and not n.endswith("mask")]
    dtype = functools.reduce(torch.promote_types, dtypes) if dtypes else None
    tol, scale = bounds
    for index, ((name, e), (_, g)) in enumerate(zip(rules.pieces(expected), rules.pieces(got), strict=True)):
        what = rules.place(name)
        if type(e) is torch.Tensor and (problem := rules.dtype_problem(e, g, dtype, name)):
            fail(problem)
        if not (type(e) is float or type(e) is torch.Tensor):
            if e != g:
                fail(rules.Problem("value", f"{what} is wrong", paste.show(e), paste.show(g)))
            continue
        e = torch.tensor(e, dtype=torch.float64) if type(e) is float else e
        g = torch.tensor(g, dtype=torch.float64) if type(g) is float else g
        right = rules.close(g, e, tol, scale)
        if not right.all() and same_precision and tol > 0 and e.is_floating_point():
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


def check_purity(arguments, reply, fail) -> None:
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


def check_gradients(expected: dict, got: dict | None, constants, bounds, fail, same_precision) -> None:
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
