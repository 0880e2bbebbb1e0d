"""A short look at the machine: what the course will run on, and how fast it is."""

import shutil
import time

import torch

from reference_impl.runs.progress import console
from reference_impl.runs.run import Run, machine


def check_machine(run: Run) -> None:
    """Print what matters for training: Python and torch, processor and speed, accelerator, free disk."""
    facts = machine()
    free = shutil.disk_usage(run.path).free / 1e9
    console.print(f"python {facts['python']}, torch {torch.__version__}, {facts['processor']}", soft_wrap=True)
    console.print(
        f"{facts['cores']} cores, {matmul_speed():.0f} GFLOP/s in float32 on {torch.get_num_threads()} of them"
    )
    console.print(f"accelerator: {accelerator()}; free disk: {free:.0f} GB")
    if free < 1:
        console.print("[bold]Warning:[/] less than 1 GB of disk is free; checkpoints may not fit.")


def matmul_speed(size: int = 1024) -> float:
    """Billions of float32 operations a second in a matrix product, the best of five."""
    a = torch.rand(size, size)
    times = []
    for _ in range(5):
        began = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - began)
    return 2 * size**3 / min(times) / 1e9


def accelerator() -> str:
    """The GPU's name, if torch sees one."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    return "Apple GPU (not used at nano scale)" if torch.backends.mps.is_available() else "none (nano needs none)"
