"""Is this answer the right one? Comparisons written here, so that nothing a submission patches can decide them.

Every tolerance is relative to the scale of the expected answer: an absolute one accepts the zero function wherever
answers are small. With tol the tolerance of the precision and e the expected tensor, an element passes when

    |got - e| <= tol * max(|e|, min(max |e|, 1))

so that large elements are held to their own size, and small ones to the size of the answer, at most 1. Where the whole
answer is 0, or as small as the rounding of the inputs, the scale is that of the inputs, at most 1.
"""

import math
from dataclasses import dataclass

import torch

from graders.paste import show
from graders.wire import Foreign

# float64: a constant that passes through the default dtype, 1 / mask.sum(), is off by up to 6e-8
# half: one rounding of bfloat16 is 0.004; a tolerance above 0.01 would not notice an answer 1% off
TOLERANCE = {torch.float64: 1e-7, torch.float32: 1e-5, torch.float16: 8e-3, torch.bfloat16: 8e-3}
HALF = (torch.float16, torch.bfloat16)


@dataclass
class Problem:
    """One reason why an answer is wrong, in words, with the two values side by side where there are two."""

    kind: str  # "type", "shape", "dtype", "value", "gradient", "constant", "in place", "global state", ...
    words: str
    expected: str = ""
    got: str = ""
    difference: str = ""


def pieces(value, name: str = "") -> list[tuple[str, object]]:
    """A result's leaves with their place in it: a tuple's items, a dict's entries, whose order does not matter."""
    if type(value) in (tuple, list):
        return [leaf for i, item in enumerate(value) for leaf in pieces(item, f"{name}[{i}]")]
    if type(value) is dict:
        return [leaf for key, item in sorted(value.items()) for leaf in pieces(item, f"{name}[{key!r}]")]
    return [(name, value)]


def structure(expected, got, name: str = "") -> Problem | None:
    """The first difference in kind: types, lengths, keys, shapes."""
    if type(expected) is not type(got):
        return Problem("type", f"{place(name)} is {_kind(got)}, expected {_kind(expected)}", show(expected), show(got))
    if type(expected) in (tuple, list):
        if len(expected) != len(got):
            words = f"{place(name)} has {len(got)} items, expected {len(expected)}"
            return Problem("shape", words, show(expected), show(got))
        pairs = zip(expected, got, strict=True)
        return next((p for i, (e, g) in enumerate(pairs) if (p := structure(e, g, f"{name}[{i}]"))), None)
    if type(expected) is dict:
        if expected.keys() != got.keys():
            return Problem(
                "type", f"{place(name)} has keys {sorted(map(str, got))}, expected {sorted(map(str, expected))}"
            )
        return next((p for key in expected if (p := structure(expected[key], got[key], f"{name}[{key!r}]"))), None)
    if type(expected) is torch.Tensor and expected.shape != got.shape:
        words = f"{place(name)} has shape {tuple(got.shape)}, expected {tuple(expected.shape)}"
        return Problem("shape", words, show(expected), show(got))
    return None


def place(name: str) -> str:
    return f"result{name}" if name else "the result"


def _kind(value) -> str:
    if isinstance(value, Foreign):
        return f"{value.type_name} ({value.text})" if value.type_name == "torch.Tensor" else f"a {value.type_name}"
    if type(value) is torch.Tensor:
        return f"a torch.Tensor of shape {tuple(value.shape)}"
    return "None" if value is None else f"a {type(value).__name__}"


def dtype_problem(expected: torch.Tensor, got: torch.Tensor, inputs: torch.dtype | None, name: str) -> Problem | None:
    """A floating result has the dtype of the floating inputs; half-precision inputs may come back as float32."""
    if not expected.is_floating_point():
        if got.dtype == expected.dtype:
            return None
        return Problem("dtype", f"{place(name)} has dtype {got.dtype}, expected {expected.dtype}")
    if not got.is_floating_point():
        return Problem("dtype", f"{place(name)} has dtype {got.dtype}, expected a floating one")
    legal = {inputs} | ({torch.float32} if inputs in HALF else set())
    if inputs is None or got.dtype in legal:
        return None
    return Problem("dtype", f"{place(name)} has dtype {got.dtype}, the floating inputs have {inputs}")


def scale_of(inputs: list[torch.Tensor]) -> float:
    """The size of the finite inputs, at most 1: the scale of an answer that is 0 throughout."""
    largest = None
    for tensor in inputs:
        sizes = tensor.detach().abs().nan_to_num(nan=-1.0, posinf=-1.0)
        size = float(sizes.max()) if sizes.numel() else -1.0
        if size >= 0.0:
            largest = max(largest or 0.0, size)
            if largest >= 1.0:
                break
    return 1.0 if largest is None else min(largest, 1.0)


def allowed(expected: torch.Tensor, tolerance: float, zero_scale: float) -> torch.Tensor:
    """How far each element may be off."""
    finite = expected.abs().nan_to_num(nan=0.0, posinf=0.0)
    largest = float(finite.max()) if finite.numel() else 0.0
    if largest < max(tolerance, 1e-12) * zero_scale:  # such an answer is rounding: 0.3 - 0.3 where one 0.3 is a float32
        largest = zero_scale
    return tolerance * finite.clamp(min=min(largest, 1.0))


def close(got: torch.Tensor, expected: torch.Tensor, tolerance: float, zero_scale: float, noise: float = 0.0):
    """Elementwise: equal or near enough; infinities and NaN agree only with their like. `noise` widens the bound."""
    got, expected = got.double(), expected.double()
    near = (got - expected).abs() <= allowed(expected, tolerance, zero_scale) + noise
    if near.all():  # the usual case; no infinity and no NaN is near anything
        return near
    return torch.where(expected.isfinite() & got.isfinite(), near, (got == expected) | (got.isnan() & expected.isnan()))


def numbers_problem(kind: str, what: str, expected: torch.Tensor, got: torch.Tensor, right: torch.Tensor) -> Problem:
    """The words for an answer of which some elements are not right."""
    shown = [show(x.detach().double() if x.is_floating_point() else x) for x in (expected, got)]
    expected, got = expected.detach().double(), got.detach().double()
    wrong = ~right
    if (got.isnan() & ~expected.isnan()).any():
        words = f"{what} is NaN" if got.dim() == 0 else f"{what} has NaN at {_place(got.isnan() & ~expected.isnan())}"
        return Problem(kind, words, *shown)
    difference = torch.where(right, 0.0, (got - expected).abs()).nan_to_num(math.inf)
    where = int(difference.argmax())
    place = "" if got.dim() == 0 else f" at {_place(difference == difference.max())}"
    size = float(difference.flatten()[where])
    text = f"{size:.3g}{place}"
    if got.numel() > 1 and not wrong.all():
        text += f"; {int(wrong.sum())} of {got.numel()} elements are off"
    return Problem(kind, f"{what} is wrong{_ratio(expected, got)}", *shown, text)


def _place(mask: torch.Tensor) -> str:
    return str(torch.nonzero(mask)[0].tolist()) if mask.dim() else ""


def _ratio(expected: torch.Tensor, got: torch.Tensor) -> str:
    """Says so when the whole answer is off by one factor: a sign, a half, a count."""
    both = (expected != 0) & expected.isfinite() & got.isfinite()
    if not both.any() or not torch.equal(expected == 0, got == 0) or not expected.isfinite().all():
        return ""
    ratios = got[both] / expected[both]
    first = float(ratios[0])
    if (ratios - first).abs().max() > 1e-4 * abs(first) or abs(first - 1) < 1e-3:
        return ""
    return ": the sign is flipped" if abs(first + 1) < 1e-4 else f": it is {first:.4g} times the expected one"
