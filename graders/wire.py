"""What passes between the grader and the candidate: a JSON header and raw bytes, never a pickle.

Reading a pickle runs code that its writer chose. A JSON header can only be data: numbers, strings, lists, and for each
tensor its dtype, shape and where its bytes lie in the payload. Everything that a student's function takes or returns
travels this way, so `encode` and `decode` are also the list of what a function may take: None, bool, int, float, str,
list, tuple, dict, date, torch.Generator and torch.Tensor.

    frame = 8 bytes header length, 8 bytes payload length, header (JSON), payload (bytes)
"""

import ctypes
import datetime
import json
import socket
import struct
import time

import torch

DTYPES = {
    str(d).removeprefix("torch."): d
    for d in (
        torch.bool,
        torch.uint8,
        torch.int8,
        torch.int16,
        torch.int32,
        torch.int64,
        torch.float16,
        torch.bfloat16,
        torch.float32,
        torch.float64,
    )
}
MAX_FRAME = 64 * 2**20  # bytes; no exercise's answer comes near
MAX_DEPTH = 20


class Garbled(Exception):
    """The other side sent something that is not a frame."""


class Foreign:
    """Stands for a value that cannot travel: an object of a class that no exercise returns."""

    def __init__(self, type_name: str, text: str):
        self.type_name, self.text = type_name, text

    def __repr__(self) -> str:
        return f"<{self.type_name}: {self.text}>"


def encode(value, payload: bytearray, depth: int = 0):
    """The JSON form of `value`; tensors append their bytes to `payload`. Types are compared exactly, not by isinstance:
    a subclass may lie about its own contents, so it travels as a `Foreign`."""
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    if kind is torch.Tensor:
        return _encode_tensor(value, payload)
    if kind in (list, tuple) and depth < MAX_DEPTH:
        return {"t": kind.__name__, "v": [encode(item, payload, depth + 1) for item in value]}
    if kind is dict and depth < MAX_DEPTH:
        pairs = [[encode(k, payload, depth + 1), encode(v, payload, depth + 1)] for k, v in value.items()]
        return {"t": "dict", "v": pairs}
    if kind is datetime.date:
        return {"t": "date", "v": value.isoformat()}
    if kind is torch.Generator:
        return {"t": "generator", "v": value.initial_seed()}
    return _foreign(value)


def _foreign(value):
    kind = type(value)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    try:
        text = repr(value)[:200]
    except Exception:
        text = "without a repr"
    return {"t": "foreign", "type": str(name), "text": text}


def _encode_tensor(tensor: torch.Tensor, payload: bytearray):
    name = str(tensor.dtype).removeprefix("torch.")
    if tensor.layout is not torch.strided or tensor.device.type != "cpu" or name not in DTYPES:
        text = f"{tensor.layout}, {tensor.device}, {tensor.dtype}"
        return {"t": "foreign", "type": "torch.Tensor", "text": text}
    packed = tensor.detach().contiguous()
    size = packed.numel() * packed.element_size()
    if size > MAX_FRAME:
        return {"t": "foreign", "type": "torch.Tensor", "text": f"of shape {tuple(tensor.shape)}: too large to grade"}
    spec = {"t": "tensor", "dtype": name, "shape": list(tensor.shape), "at": len(payload), "n": size}
    if not tensor.is_contiguous() and 0 not in tensor.stride():
        spec["stride"] = list(tensor.stride())
    payload += ctypes.string_at(packed.data_ptr(), size) if size else b""
    return spec


def decode(spec, payload: bytes):
    """The value that `encode` wrote. Raises Garbled for anything that `encode` does not write."""
    if spec is None or type(spec) in (bool, int, float, str):
        return spec
    try:
        kind = spec["t"]
        if kind == "tensor":
            return _decode_tensor(spec, payload)
        if kind in ("list", "tuple"):
            items = [decode(item, payload) for item in spec["v"]]
            return items if kind == "list" else tuple(items)
        if kind == "dict":
            return {decode(k, payload): decode(v, payload) for k, v in spec["v"]}
        if kind == "date":
            return datetime.date.fromisoformat(spec["v"])
        if kind == "generator":
            return torch.Generator().manual_seed(spec["v"])
        if kind == "foreign":
            return Foreign(str(spec["type"]), str(spec["text"]))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise Garbled(str(error)) from None
    raise Garbled(f"unknown kind {kind!r}")


def _decode_tensor(spec, payload: bytes) -> torch.Tensor:
    dtype, shape = DTYPES[spec["dtype"]], tuple(spec["shape"])
    raw = bytearray(payload[spec["at"] : spec["at"] + spec["n"]])  # a copy: tensors must not share memory
    if len(raw) != spec["n"]:
        raise Garbled("a tensor is longer than the payload")
    if not raw and 0 not in shape:
        raise Garbled("a tensor without the bytes that its shape needs")
    tensor = torch.frombuffer(raw, dtype=dtype).reshape(shape) if raw else torch.empty(shape, dtype=dtype)
    if "stride" not in spec:
        return tensor
    stride = tuple(spec["stride"])
    reach = 1 + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
    if reach * dtype.itemsize > MAX_FRAME:
        raise Garbled("a tensor whose strides reach further than a frame")
    return torch.empty_strided(shape, stride, dtype=dtype).copy_(tensor)


def pack(header) -> bytes:
    """One frame: every value under `header` is encoded."""
    payload = bytearray()
    head = json.dumps({key: encode(value, payload) for key, value in header.items()}).encode()
    if len(head) + len(payload) > MAX_FRAME:
        raise Garbled(f"an answer of {(len(head) + len(payload)) // 2**20} MB is too large to grade")
    return struct.pack(">QQ", len(head), len(payload)) + head + bytes(payload)


def unpack(head: bytes, payload: bytes) -> dict:
    """The header of a frame, decoded."""
    try:
        specs = json.loads(head)
        return {key: decode(spec, payload) for key, spec in specs.items()}
    except (ValueError, AttributeError, RecursionError) as error:
        raise Garbled(str(error)) from None


def send(channel: socket.socket, header: dict) -> None:
    channel.sendall(pack(header))


def receive(channel: socket.socket, timeout: float | None = None) -> dict:
    """The next frame. Raises EOFError when the other side is gone, TimeoutError after `timeout` seconds in all."""
    deadline = None if timeout is None else time.monotonic() + timeout
    head_size, payload_size = struct.unpack(">QQ", _read(channel, 16, deadline))
    if head_size + payload_size > MAX_FRAME:
        raise Garbled("a frame is too large")
    return unpack(_read(channel, head_size, deadline), _read(channel, payload_size, deadline))


def _read(channel: socket.socket, size: int, deadline: float | None) -> bytes:
    data = bytearray()
    while len(data) < size:
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            channel.settimeout(left)
        else:
            channel.settimeout(None)
        try:
            piece = channel.recv(min(size - len(data), 2**20))
        except (ConnectionError, OSError) as error:
            if isinstance(error, TimeoutError):
                raise
            raise EOFError from None
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)
