"""Checkpoints of a run: weights that anybody can load, and beside them what it takes to go on exactly.

checkpoint/model.safetensors, config.json    the model, as `load_model` and transformers read it
checkpoint/training_state.pt                 step, optimizer, schedule, random number generators
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from reference_impl.errors import UserError
from reference_impl.runs.files import replacing_folder, settled_folder, writing
from reference_impl.sharding import load_state, state_of

STATE = "training_state.pt"


def save_checkpoint(folder: Path, step: int, model: nn.Module, tokenizer: Any, parts: dict[str, Any]) -> None:
    """Write the model and the state of `parts` (optimizers, schedules, torch.Generators), replacing an older one whole.

    A crash at any moment leaves the older or the newer checkpoint; UserError when the disk is full.
    """
    from safetensors import SafetensorError

    from reference_impl.models import save_model

    models = models_among(model, parts)
    state = {name: part.get_state() if is_generator(part) else state_of(part, models) for name, part in parts.items()}
    state |= {"step": step, "torch_rng": torch.get_rng_state()}
    with replacing_folder(folder) as fresh:
        try:
            save_model(model, tokenizer, fresh)
            with writing(fresh / STATE), open(fresh / STATE, "wb") as file:
                torch.save(state, file)
        except (SafetensorError, RuntimeError) as error:  # how safetensors and torch report a full disk
            raise UserError(
                f"The checkpoint {folder} cannot be written: {error}. The one before it is kept."
            ) from error


def load_checkpoint(folder: Path, model: nn.Module, parts: dict[str, Any]) -> int:
    """Put model, `parts` and torch's global generator back to where the checkpoint was made; its step."""
    from reference_impl.models import load_model

    settled_folder(folder)
    try:
        state = torch.load(folder / STATE, weights_only=True)
        saved, _ = load_model(folder)
        models = models_among(model, parts)
        load_state(model, saved.state_dict(), models)
        for name, part in parts.items():
            part.set_state(state[name]) if is_generator(part) else load_state(part, state[name], models)
    except (OSError, RuntimeError, KeyError) as error:
        raise UserError(f"The checkpoint {folder} does not fit this run: {str(error).splitlines()[0]}") from error
    torch.set_rng_state(state["torch_rng"])
    return state["step"]


def is_generator(part: Any) -> bool:
    return isinstance(part, torch.Generator)


def models_among(model: nn.Module, parts: dict[str, Any]) -> list[nn.Module]:
    """The model of a checkpoint and those in its `parts`: an optimizer's state belongs to one of them."""
    return [model, *(part for part in parts.values() if isinstance(part, nn.Module))]
