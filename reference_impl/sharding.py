"""Models that do not fit beside their optimizer: FSDP2, a rank keeps 1 / world_size of weights, gradients and moments.

    forward, backward    a layer's weights come together just before they are needed and go again; its gradient is
                         summed over ranks, and each keeps its share
    optimizer step       each on its share
    sampling, scoring    `whole`: all weights come together first, since the ranks then do different numbers of passes

With AdamW in float32 a model of N parameters takes 16 N / world_size bytes, and within `whole` 4 N more. The reference
model stays whole on every rank. `--set shard=false` keeps everything whole, `shard=true` divides at any scale.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from reference_impl.distributed import world_size
from reference_impl.errors import UserError


def shard(model: nn.Module, settings) -> nn.Module:
    """Divide `model` among the ranks, in place, if the settings say so; before its optimizer is made."""
    if world_size() == 1 or not (settings.scale == "full" if settings.shard == "auto" else settings.shard):
        return model
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    from reference_impl.logprobs import large_vocabulary

    if not large_vocabulary(model):
        raise UserError("shard=true is for models that do not fit on one GPU: nano is smaller than what it would save.")
    body = model.backbone if hasattr(model, "backbone") else model.model
    with torch.device("cpu"):  # where ranks are counted, whatever device new tensors go to otherwise
        mesh = init_device_mesh(next(model.parameters()).device.type, (world_size(),))
        for layer in body.layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)  # embedding, norm and head
    for module in parts_of(model):
        module.set_force_sum_reduction_for_comms(True)  # the sum over ranks, not the mean: see distributed.py
        module.set_gradient_divide_factor(1.0)
    # log-probs are made of hidden states, which leave by another door than forward
    model.hidden_states = MethodType(_hidden_states, model)
    register_fsdp_forward_method(model, "hidden_states")
    return model


def _hidden_states(model, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    return model.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).last_hidden_state


def is_sharded(model: Any) -> bool:
    """Is this a model that `shard` has divided?"""
    return bool(parts_of(model)) if isinstance(model, nn.Module) and world_size() > 1 else False


def parts_of(model: nn.Module) -> list:
    """The modules that come together and go by themselves, the model last."""
    from torch.distributed.fsdp import FSDPModule

    return [module for module in model.modules() if isinstance(module, FSDPModule)][::-1]


@contextmanager
def whole(model: nn.Module) -> Iterator[None]:
    """Inside, all weights are on every rank, which may run the model as often as it likes; without gradient.

    All ranks enter and leave together. Where the model is not divided, or is whole already, nothing happens.
    """
    if not is_sharded(model) or getattr(model, "_is_whole", False):
        yield
        return
    model._is_whole = True
    for module in parts_of(model):
        module.set_reshard_after_forward(False, recurse=False)
        module.unshard()
    try:
        yield
    finally:
        for module in parts_of(model):
            module.set_reshard_after_forward(module is not model, recurse=False)
            module.reshard()
        model._is_whole = False


def state_of(part: Any, models: list[nn.Module]) -> dict[str, Any]:
    """The state of a model or of an optimizer of one of `models`, whole on rank 0 and empty on others if divided."""
    from torch.distributed.checkpoint.state_dict import get_model_state_dict, get_optimizer_state_dict

    owner = owner_of(part, models)
    if owner is None:
        return part.state_dict()
    if isinstance(part, nn.Module):
        return get_model_state_dict(part, options=_options())
    if not part.state:  # before its first step torch would make up a state, by a step that counts
        return {}
    return get_optimizer_state_dict(owner, part, options=_options())


def load_state(part: Any, state: dict[str, Any], models: list[nn.Module]) -> None:
    """Put back what `state_of` gave on rank 0; every rank has read it."""
    from torch.distributed.checkpoint.state_dict import set_model_state_dict, set_optimizer_state_dict

    owner = owner_of(part, models)
    if owner is None:
        part.load_state_dict(state)
    elif isinstance(part, nn.Module):
        set_model_state_dict(part, state, options=_options())
    elif state:
        set_optimizer_state_dict(owner, part, state, options=_options())


def owner_of(part: Any, models: list[nn.Module]) -> nn.Module | None:
    """The divided model that `part` is, or whose optimizer it is; None for whatever is whole."""
    if isinstance(part, nn.Module):
        return part if is_sharded(part) else None
    if not isinstance(part, torch.optim.Optimizer):
        return None
    first = part.param_groups[0]["params"][0]
    return next((m for m in models if is_sharded(m) and any(first is p for p in m.parameters())), None)


def _options():
    from torch.distributed.checkpoint.state_dict import StateDictOptions

    return StateDictOptions(full_state_dict=True, cpu_offload=True)
