"""The reference's side of a check: its answer in float64, its gradients, and what counts as near enough to them."""

import functools
import inspect

import torch

from graders import rules
from graders.session import BrokenCheck, current


def bind(function: str, args: tuple, kwargs: dict) -> tuple[list[tuple[str, object]], int]:
    """Arguments with their names, and how many go by position."""
    names = _parameters(getattr(current().reference, function))
    return [*zip(names, args, strict=False), *kwargs.items()], len(args)


@functools.cache
def _parameters(function) -> list[str]:
    return list(inspect.signature(function).parameters)


def floating(value) -> bool:
    return type(value) is torch.Tensor and value.is_floating_point()


def _double(value):
    if floating(value):
        return value.detach().double().clone()
    if type(value) in (list, tuple):
        return type(value)(_double(item) for item in value)
    return copy_of(value)


def copy_of(value):
    if type(value) is torch.Tensor:
        return value.detach().clone()
    if type(value) is torch.Generator:
        return torch.Generator().manual_seed(value.initial_seed())
    if type(value) in (list, tuple):
        return type(value)(copy_of(item) for item in value)
    return dict(value) if type(value) is dict else value


def copies(arguments, change=copy_of):
    return [(name, change(value)) for name, value in arguments]


def apply(function, arguments, positional: int):
    return function(*[v for _, v in arguments[:positional]], **dict(arguments[positional:]))


def plain(value):
    if type(value) is torch.Tensor:
        return value.detach()
    if type(value) in (list, tuple):
        return type(value)(plain(item) for item in value)
    return {key: plain(item) for key, item in value.items()} if type(value) is dict else value


def reference_answer(function: str, arguments, positional: int, grad: tuple[str, ...], change=_double):
    """The reference's answer and gradients on copies in float64, and the cotangents that the gradients belong to.

    With `change=copy_of` it works in the precision of the inputs: how far off a right answer may then be.
    """
    own = copies(arguments, change)
    leaves = {name: value.requires_grad_() for name, value in own if name in grad}
    if missing := set(grad) - set(leaves):
        raise BrokenCheck(f"grad names {sorted(missing)}, which are not arguments of {function} here")
    try:
        value = apply(getattr(current().reference, function), own, positional)
    except Exception as error:
        raise BrokenCheck(f"the reference raises {type(error).__name__}: {error}") from error
    if not grad:
        return plain(value), {}, []
    outputs = [item for _, item in rules.pieces(value) if floating(item)]
    generator = torch.Generator().manual_seed(current().seed)
    weights = [
        torch.ones(()) if item.dim() == 0 else 0.5 + torch.rand(item.shape, generator=generator, dtype=torch.float64)
        for item in outputs
    ]
    live = [(item * w.to(item.dtype)).sum() for item, w in zip(outputs, weights, strict=True) if item.requires_grad]
    found = torch.autograd.grad(sum(live), list(leaves.values()), allow_unused=True)
    pairs = zip(leaves.items(), found, strict=True)
    gradients = {name: torch.zeros_like(leaf) if g is None else g.detach() for (name, leaf), g in pairs}
    return plain(value), gradients, [w.double() for w in weights]


def tolerance_for(arguments, given: float | None) -> float:
    if given is not None:
        return given
    dtypes = [v.dtype for n, v in arguments if floating(v) and not n.endswith("mask")]
    return max((rules.TOLERANCE[dtype] for dtype in dtypes), default=1e-8)


def scale_for(arguments) -> float:
    return rules.scale_of([v for _, v in arguments if floating(v)])


def equal(expected, got, tolerance: float, scale: float) -> bool:
    if type(expected) is torch.Tensor:
        return bool(rules.close(got, expected, tolerance, scale).all())
    if type(expected) is float:
        return bool(rules.close(*(torch.tensor(x, dtype=torch.float64) for x in (got, expected)), tolerance, scale))
    return expected == got


def feed_floor(expected, gradients: dict, tolerance: float, scale: float) -> None:
    floor = current().floor
    floor.compared += 1
    if floor.rejects_zero and floor.rejects_one_percent and (floor.rejects_zero_gradient or not gradients):
        return  # shown by an earlier example
    for _, item in rules.pieces(expected):
        item = torch.tensor(item, dtype=torch.float64) if type(item) is float else item
        if floating(item):
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
def scenarios(week):
    import runpy
    import types

    return types.SimpleNamespace(**runpy.run_path(str(week.scenarios)))
