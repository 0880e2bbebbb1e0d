"""Where and how the models of a run compute: device, precision, attention, gradient checkpointing.

The launcher says it once, from the run's settings; whatever `load_model` opens afterwards follows it, and so does the
sampler. Nano runs on a
CPU in float32 and needs none of this. Weights and optimizer states are float32 always: steps of 1e-6 are lost in
bfloat16, whose neighbours of 0.02 lie 1e-4 apart. "bfloat16" is autocast: matrix products in bfloat16, with norms,
residual stream, softmax and log-probs in float32.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

import torch
from torch import nn

from reference_impl.distributed import local_rank
from reference_impl.errors import UserError


@dataclass(frozen=True)
class Hardware:
    """precision: float32 or bfloat16; attention: sdpa or flash_attention_2; rows_at_once: completions in sampling;
    engine: what samples, own (sampling.py) or vllm.
    """

    device: str = "cpu"
    precision: str = "float32"
    attention: str = "sdpa"
    gradient_checkpointing: bool = False
    rows_at_once: int = 256
    engine: str = "own"

    def __str__(self) -> str:
        matrices = "bfloat16 matrix products (autocast)" if self.precision == "bfloat16" else "float32 throughout"
        name = torch.cuda.get_device_name() if self.device == "cuda" else "CPU"
        again = "gradient checkpointing" if self.gradient_checkpointing else "no gradient checkpointing"
        sampler = "; rollouts by vLLM" if self.engine == "vllm" else ""
        return f"{name}; float32 weights, {matrices}; attention by {self.attention}; {again}{sampler}"


_current = Hardware()


def current() -> Hardware:
    """The hardware of this process."""
    return _current


def use(
    device: str = "cpu",
    precision: str = "float32",
    gradient_checkpointing: bool = False,
    rows_at_once: int = 256,
    engine: str = "own",
) -> Hardware:
    """Choose it for this process; new tensors live on that device, too. "auto" takes what the machine has.

    UserError for a GPU that is not there, or vLLM.
    """
    global _current
    if engine == "vllm":
        from reference_impl.vllm_engine import check

        check()
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device=cuda, but torch sees no GPU here: leave it at auto, or take --set device=cpu.")
    if device == "cuda" and local_rank() >= torch.cuda.device_count():
        raise UserError(
            f"More processes than GPUs: this machine has {torch.cuda.device_count()}. Start that many "
            "(--nproc-per-node), or take --set device=cpu."
        )
    if precision == "auto":
        precision = "bfloat16" if fast_bfloat16(device) else "float32"
    attention = choose_attention(device, precision)
    _current = Hardware(device, precision, attention, gradient_checkpointing, rows_at_once, engine)
    # also for tensors that a student's function makes without saying where
    torch.set_default_device(None if device == "cpu" else device)
    return _current


def fast_bfloat16(device: str) -> bool:
    """Does the device multiply matrices of bfloat16 in hardware?"""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    try:
        flags = next(line for line in open("/proc/cpuinfo", encoding="utf-8") if line.startswith("flags")).split()
    except (OSError, StopIteration):
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags


def choose_attention(device: str, precision: str) -> str:
    """flash_attention_2 where it is installed and works (bfloat16 on an NVIDIA GPU since Ampere), else torch's SDPA."""
    usable = device == "cuda" and precision == "bfloat16" and torch.cuda.get_device_capability() >= (8, 0)
    return "flash_attention_2" if usable and importlib.util.find_spec("flash_attn") else "sdpa"


def compute_in_bfloat16(module: nn.Module) -> None:
    """From now on `module` runs under autocast to bfloat16, alone and as a part of another.

    A hook before its forward pass and one after: what surrounds it, losses above all, keeps its own precision, and a
    deep copy of it keeps the hooks.
    """
    module.register_forward_pre_hook(_enter_autocast)
    module.register_forward_hook(_leave_autocast, always_call=True)


_entered: list[torch.autocast] = []  # a stack: modules contain each other


def _enter_autocast(module: nn.Module, args) -> None:
    context = torch.autocast(next(module.parameters()).device.type, torch.bfloat16)
    context.__enter__()
    _entered.append(context)


def _leave_autocast(module: nn.Module, args, output) -> None:
    if _entered:
        _entered.pop().__exit__(None, None, None)
