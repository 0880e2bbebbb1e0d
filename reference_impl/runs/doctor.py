"""A look at the machine: what the course will run on, what falls back, and what to do about what is missing.

Each function looks at one thing and returns a Finding. Week 01's launcher prints the first few before it trains, `rlhf
doctor` all of them.
"""

import os
import platform
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

from reference_impl.implementations import ROOT
from reference_impl.runs import wandb_mirror
from reference_impl.runs.progress import console
from reference_impl.runs.run import Run, processor

OK, FALLS_BACK, BROKEN = "ok", "falls back", "broken"
PACKAGES = (
    "torch",
    "transformers",
    "datasets",
    "reasoning-gym",
    "safetensors",
    "numpy",
    "pydantic",
    "pytest",
    "hypothesis",
)


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `state` is OK, FALLS_BACK (the course runs all the same) or BROKEN."""

    what: str
    state: str
    words: str
    remedy: str = ""


def check_machine(run: Run) -> None:
    """What matters for training, before a run: Python and torch, processor and speed, accelerator, free disk."""
    for found in (python(), torch_and_speed(), accelerator(), disk(run.path)):
        console.print(f"{found.what}: {found.words}", soft_wrap=True)
        if found.state != OK and found.remedy:
            console.print(f"[bold]Note:[/] {found.remedy}", soft_wrap=True)


def python() -> Finding:
    return Finding("python", OK, f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def packages() -> Finding:
    """Are the packages that every week needs installed?"""
    missing = [name for name in PACKAGES if _version(name) is None]
    if missing:
        return Finding("packages", BROKEN, f"missing: {', '.join(missing)}", "`uv sync` installs them.")
    return Finding("packages", OK, f"all {len(PACKAGES)} that every week needs are installed")


def torch_and_speed() -> Finding:
    """torch, if it can be imported, and how fast it multiplies."""
    try:
        import torch
    except Exception as error:  # a broken installation raises anything
        return Finding(
            "torch", BROKEN, f"it does not import ({type(error).__name__}: {error})", "`uv sync --reinstall`."
        )
    speed = f"{matmul_speed():.0f} GFLOP/s in float32 on {torch.get_num_threads()} of {os.cpu_count()} cores"
    return Finding("torch", OK, f"{torch.__version__}, {processor()}, {speed}")


def matmul_speed(size: int = 1024) -> float:
    """Billions of float32 operations a second in a matrix product, the best of five."""
    import torch

    a = torch.rand(size, size)
    times = []
    for _ in range(5):
        began = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - began)
    return 2 * size**3 / min(times) / 1e9


def accelerator() -> Finding:
    """The GPU, if torch sees one."""
    import torch

    if torch.cuda.is_available():
        total = torch.cuda.get_device_properties(0).total_memory / 1e9
        return Finding("accelerator", OK, f"{torch.cuda.get_device_name(0)}, {total:.0f} GB")
    if torch.backends.mps.is_available():
        return Finding("accelerator", OK, "Apple GPU (nano runs on the CPU all the same)")
    return Finding("accelerator", FALLS_BACK, "none; runs are on the CPU", "The nano scale needs none.")


def attention() -> Finding:
    """Which attention kernels there are."""
    import torch

    if util.find_spec("flash_attn") and torch.cuda.is_available():
        return Finding("attention", OK, "flash-attn is installed")
    if torch.cuda.is_available():
        remedy = "`uv sync --extra flash` adds flash-attn for long sequences (needs a CUDA toolkit)."
        return Finding("attention", OK, "PyTorch's own kernels (scaled_dot_product_attention)", remedy)
    return Finding("attention", FALLS_BACK, "PyTorch's scaled_dot_product_attention on the CPU", "Right for nano.")


def memory() -> Finding:
    """Main memory: all of it, and what is free where the system says so."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (AttributeError, OSError, ValueError):
        return Finding("memory", OK, "unknown")
    free = available_memory()
    words = f"{total:.0f} GB" + (f", {free:.1f} GB available" if free is not None else "")
    if (total if free is None else free) < 2:
        return Finding(
            "memory", FALLS_BACK, words, "A nano run takes 1 to 2 GB: close other programs if one is killed."
        )
    return Finding("memory", OK, words)


def available_memory() -> float | None:
    """Gigabytes that a new program could take; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) / 1e6 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return None


def disk(folder: Path) -> Finding:
    """Room for runs, and whether they can be written."""
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 1e9
    if not os.access(folder, os.W_OK):
        return Finding("disk", BROKEN, f"{folder} cannot be written", "Give --runs-dir another folder.")
    if free < 1:
        return Finding(
            "disk", FALLS_BACK, f"{free:.1f} GB free", "Checkpoints may not fit: make room, or use --runs-dir."
        )
    return Finding("disk", OK, f"{free:.0f} GB free")


def base_model() -> Finding:
    """Is the shipped checkpoint there?"""
    weights = ROOT / "reference_impl" / "models" / "base" / "model.safetensors"
    if not weights.is_file():
        remedy = "`git checkout -- reference_impl/models/base` brings it back."
        return Finding("nano model", BROKEN, "the shipped checkpoint is missing", remedy)
    return Finding("nano model", OK, f"shipped checkpoint, {weights.stat().st_size / 1e3:.0f} kB")


def wandb() -> Finding:
    """Where the mirror of a run goes."""
    mode = in_time(wandb_mirror.choose_mode, 3.0, "offline")
    if _version("wandb") is None:
        return Finding("wandb", FALLS_BACK, "not installed", "Run folders hold everything; `uv sync` installs it.")
    if mode == "offline":
        remedy = "`wandb login` (or WANDB_API_KEY) and a network make it online; nothing is missing without."
        return Finding("wandb", FALLS_BACK, "offline; its files stay in the run folder", remedy)
    return Finding("wandb", OK, mode)


def hub() -> Finding:
    """Can models and datasets be fetched?"""
    host = os.environ.get("HF_ENDPOINT", "https://huggingface.co").removeprefix("https://").partition("/")[0]
    if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        return Finding("model hub", FALLS_BACK, "HF_HUB_OFFLINE is set", "The nano scale needs no hub.")
    if in_time(lambda: wandb_mirror.reachable(host), 3.0, False):
        return Finding("model hub", OK, f"{host} is reachable")
    return Finding("model hub", FALLS_BACK, f"{host} is not reachable", "The nano scale needs no hub.")


def in_time(look: Callable, seconds: float, otherwise):
    """What `look()` returns, or `otherwise` when it takes longer: asking for a name can outlast every timeout."""
    answer = []
    thread = threading.Thread(target=lambda: answer.append(look()), daemon=True)
    thread.start()
    thread.join(seconds)
    return answer[0] if answer else otherwise


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
