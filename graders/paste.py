"""Python values as code to paste, and as text that fits on a screen."""

import struct

import torch

INDENT = "    "


def code(value) -> str:
    """An expression that builds `value` after `import torch`."""
    if type(value) is torch.Tensor:
        return _tensor_code(value)
    if type(value) is torch.Generator:
        return f"torch.Generator().manual_seed({value.initial_seed()})"
    if type(value) is list:
        return f"[{', '.join(map(code, value))}]"
    if type(value) is tuple:
        return f"({', '.join(map(code, value))}{',' if len(value) == 1 else ''})"
    if type(value) is dict:
        return "{" + ", ".join(f"{code(k)}: {code(v)}" for k, v in value.items()) + "}"
    if type(value) is float and not -1e300 < value < 1e300:
        return f'float("{value}")'
    return repr(value)


def _number(value, dtype: torch.dtype) -> str:
    if isinstance(value, (bool, int)):
        return repr(value)
    if value != value:
        return "torch.nan"
    if value in (float("inf"), float("-inf")):
        return "-torch.inf" if value < 0 else "torch.inf"
    # the shortest decimal that gives this number back in this dtype: 0.1 rather than 0.10000000149011612
    for digits in range(1, 17):
        text = f"{value:.{digits}g}"
        if _rounded(float(text), dtype) == value:
            return repr(float(text)) if "e" not in text else text
    return repr(value)


def _rounded(number: float, dtype: torch.dtype) -> float:
    """`number` as a tensor of this dtype holds it; making tensors takes long where there are thousands."""
    if dtype == torch.float64:
        return number
    if dtype == torch.float32 and abs(number) < 3e38:
        return struct.unpack("f", struct.pack("f", number))[0]
    return torch.tensor(number, dtype=dtype).item()


def _nested(values, dtype: torch.dtype) -> str:
    if isinstance(values, list):
        return f"[{', '.join(_nested(item, dtype) for item in values)}]"
    return _number(values, dtype)


def _tensor_code(tensor: torch.Tensor) -> str:
    tensor = tensor.detach()
    text = _nested(tensor.tolist(), tensor.dtype)
    natural = {torch.float32, torch.int64, torch.bool}
    dtype = "" if tensor.dtype in natural and tensor.numel() else f", dtype={tensor.dtype}"
    built = f"torch.tensor({text}{dtype})"
    if 0 in tensor.shape:
        built = f"torch.zeros({tuple(tensor.shape)}{dtype})"
    if not tensor.is_contiguous() and tensor.dim() >= 2:
        built += ".mT.contiguous().mT"  # a transposed view: not contiguous
    return built


def call(function: str, arguments: list[tuple[str, object]], positional: int, leaves: tuple[str, ...] = ()) -> str:
    """The call as code: on one line where it fits, else one argument a line."""
    parts = []
    for index, (name, value) in enumerate(arguments):
        text = code(value)
        if name in leaves and type(value) is torch.Tensor:
            text += ".requires_grad_()"
        parts.append(text if index < positional else f"{name}={text}")
    line = f"{function}({', '.join(parts)})"
    if len(line) <= 100:
        return line
    named = [text if index >= positional else f"{name}={text}" for index, (name, text) in enumerate(
        (pair[0], part) for pair, part in zip(arguments, parts, strict=True))]  # fmt: skip
    return f"{function}(\n" + "".join(f"{INDENT}{part},\n" for part in named) + ")"


def show(value, digits: int = 6) -> str:
    """A result for people: short numbers, a long tensor cut in the middle."""
    if type(value) is torch.Tensor:
        with torch.no_grad():
            text = _shown(value.detach().tolist(), digits)
        shape = "" if value.dim() == 0 else f"  shape {tuple(value.shape)}"
        return (text if len(text) <= 300 else f"{text[:200]} … {text[-80:]}") + (shape if value.dim() != 1 else "")
    if type(value) is float:
        return _shown(value, digits)
    text = repr(value) if not isinstance(value, (list, tuple)) else str(type(value)([show(item) for item in value]))
    return text if len(text) <= 300 else text[:300] + " …"


def _shown(values, digits: int) -> str:
    if isinstance(values, list):
        return f"[{', '.join(_shown(item, digits) for item in values)}]"
    return f"{values:.{digits}g}" if isinstance(values, float) else repr(values)
