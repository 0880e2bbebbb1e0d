"""The models that a run starts with."""

import copy

from torch import nn

from reference_impl.models import load_model


def start_models(settings) -> tuple[nn.Module, nn.Module, object]:
    """(policy, reference, tokenizer): the reference does not train, and by default it is the policy as it starts."""
    policy, tokenizer = load_model(settings.policy)
    reference = policy if settings.reference == settings.policy else load_model(settings.reference)[0]
    return policy, copy.deepcopy(reference).eval().requires_grad_(False), tokenizer
