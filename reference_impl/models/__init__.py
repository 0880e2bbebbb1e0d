"""Models by name or folder: the committed nano checkpoint ("base"), a fresh nano ("random"), a run, a checkpoint,
SmolLM2 ("smol", and fine-tuned on sums "smol-sft"), or a model of the Hugging Face hub by its name.

A nano checkpoint is a folder with `model.safetensors` and `config.json` in the form of transformers' Qwen3, so that
`Qwen3ForCausalLM.from_pretrained(folder)` opens it too.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path

import torch
from torch import nn

from reference_impl.distributed import from_main
from reference_impl.errors import UserError
from reference_impl.models import hardware
from reference_impl.models.heads import HeadedLM
from reference_impl.models.hub import is_hub_name, load_transformers, write_transformers
from reference_impl.models.nano import NanoConfig, NanoLM
from reference_impl.models.smol import smol_folder
from reference_impl.models.tokenizer import CharTokenizer

BASE = Path(__file__).parent / "base"

__all__ = ["BASE", "CharTokenizer", "HeadedLM", "NanoConfig", "NanoLM", "load_model", "save_model"]


def load_model(name_or_path: str | Path = "base", device: str | torch.device | None = None) -> tuple[nn.Module, object]:
    """The model and its tokenizer, in float32: "base", "random", "smol", a run or checkpoint folder, or a hub name.

    It lies on `device`, by default the one of this process (models/hardware.py).

    "random" draws its weights from torch's global generator. A folder of a transformers model gives that model. A
    checkpoint saved from a `HeadedLM` gives a `HeadedLM`. Raises UserError when the folder does not exist or does not
    hold a checkpoint that fits.
    """
    device = device or hardware.current().device
    if str(name_or_path) == "random":
        return nano_only(NanoLM().to(device)), CharTokenizer()
    if str(name_or_path) == "smol":
        return load_transformers(from_main(smol_folder), device)
    if str(name_or_path) == "smol-sft":
        from reference_impl.loops.smol_sft import smol_sft_folder

        return load_transformers(smol_sft_folder(), device)
    if is_hub_name(str(name_or_path)) and not Path(name_or_path).is_dir():
        return load_transformers(str(name_or_path), device)
    folder = checkpoint_folder(name_or_path)
    config = read_config(folder)
    if config.get("tokenizer_class") == "CharTokenizer":
        return nano_only(load_nano(folder, config).to(device)), CharTokenizer()
    return load_transformers(folder, device)


def checkpoint_folder(name_or_path: str | Path) -> Path:
    """Where the checkpoint lies: the folder itself, or `checkpoint/` inside a run folder."""
    if str(name_or_path) == "base":
        return BASE
    folder = Path(name_or_path)
    if (folder / "checkpoint" / "config.json").exists():
        return folder / "checkpoint"
    if not folder.is_dir():
        raise UserError(
            f"model {str(name_or_path)!r}: there is no such folder. Give 'base', 'random', a run folder (runs/...) "
            "or a checkpoint folder with config.json and model.safetensors."
        )
    return folder


def read_config(folder: Path) -> dict:
    try:
        config = json.loads((folder / "config.json").read_text())
    except FileNotFoundError:
        raise UserError(f"model {str(folder)!r}: the folder has no config.json, so it is no checkpoint.") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"model {str(folder)!r}: config.json cannot be read ({error}).") from None
    if not isinstance(config, dict):
        raise UserError(f"model {str(folder)!r}: config.json does not hold a table of settings.")
    return config


def nano_only(model: nn.Module) -> nn.Module:
    """The nano model has no use for what makes large models fit: UserError, rather than an option without effect."""
    chosen = hardware.current()
    if chosen.precision != "float32" or chosen.gradient_checkpointing:
        raise UserError("precision and gradient_checkpointing are for larger models: nano is faster in float32.")
    return model


def load_nano(folder: Path, config: dict) -> nn.Module:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        sizes = {field.name: config[field.name] for field in dataclasses.fields(NanoConfig)}
        model: nn.Module = NanoLM(NanoConfig(**sizes))
        if "head_outputs" in config:
            model = HeadedLM(model, config["head_outputs"])
    except KeyError as missing:
        raise UserError(f"model {str(folder)!r}: config.json lacks the setting {missing}.") from None
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"model {str(folder)!r}: config.json has a value that does not work ({error}).") from None
    if model.config.vocab_size != CharTokenizer().vocab_size:
        raise UserError(
            f"model {str(folder)!r}: its vocabulary has {model.config.vocab_size} tokens, "
            f"this course's tokenizer has {CharTokenizer().vocab_size}."
        )
    try:
        tensors = load_file(folder / "model.safetensors")
        model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    except FileNotFoundError:
        raise UserError(f"model {str(folder)!r}: the folder has no model.safetensors.") from None
    except (OSError, SafetensorError) as error:
        raise UserError(f"model {str(folder)!r}: model.safetensors cannot be read ({error}).") from None
    except RuntimeError as error:
        # torch lists every tensor on a line of its own: the first is enough to see what does not fit
        lines = str(error).splitlines()
        first = lines[1].strip() if len(lines) > 1 else lines[0]
        raise UserError(f"model {str(folder)!r}: the weights do not fit config.json. {first}") from None
    return model


def save_model(model: nn.Module, tokenizer: object, folder: str | Path, dtype: torch.dtype | None = None) -> None:
    """Write a checkpoint that `load_model` opens; the folder appears complete or not at all.

    `dtype` stores the weights in another precision (torch.float16 halves the file).
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = folder.with_name(f".{folder.name}-{os.getpid()}")
    fresh.mkdir()
    try:
        if isinstance(tokenizer, CharTokenizer):
            write_nano(model, fresh, dtype)
        else:
            write_transformers(model, tokenizer, fresh)
        replace_folder(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def write_nano(model: nn.Module, folder: Path, dtype: torch.dtype | None) -> None:
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    sizes = dataclasses.asdict(model.config)
    config = {
        "model_type": "qwen3",
        "architectures": ["Qwen3ForCausalLM"],
        "tokenizer_class": "CharTokenizer",
        **sizes,
        "num_key_value_heads": model.config.num_attention_heads,
        "hidden_act": "silu",
        "attention_bias": False,
        "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": model.config.rope_theta},
        "pad_token_id": CharTokenizer.pad_token_id,
        "bos_token_id": CharTokenizer.bos_token_id,
        "eos_token_id": CharTokenizer.eos_token_id,
    }
    if isinstance(model, HeadedLM):
        config["head_outputs"] = model.outputs
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def replace_folder(fresh: Path, folder: Path) -> None:
    """Move `fresh` to `folder`; an older folder of that name steps aside first and is removed last."""
    old = fresh.with_name(fresh.name + "-old")
    if folder.exists():
        os.replace(folder, old)
    os.replace(fresh, folder)
    shutil.rmtree(old, ignore_errors=True)
