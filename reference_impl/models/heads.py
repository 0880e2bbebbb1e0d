"""A language model with its vocabulary replaced by a few numbers per token: value, reward and step models."""

from __future__ import annotations

import copy
from types import SimpleNamespace

from torch import Tensor, nn


class HeadedLM(nn.Module):
    """Hidden states -> Linear: `model(input_ids=(B, T), attention_mask=(B, T)).logits` is (B, T, outputs).

    `outputs` is 1 for a value model or a reward model (read the last token, or every token for an ORM) and 3 for a
    process reward model. The body is shared with `backbone_lm`; `HeadedLM.from_lm` takes a copy of it instead. The
    head starts near zero, with weights of standard deviation 1/(d + 1) (Stiennon et al. 2020, arXiv 2009.01325).
    """

    def __init__(self, backbone_lm: nn.Module, outputs: int) -> None:
        super().__init__()
        self.config = backbone_lm.config
        self.backbone = backbone_lm.model  # both NanoLM and transformers' causal LMs keep their body here
        hidden_size = self.config.hidden_size
        like = next(self.backbone.parameters())
        self.head = nn.Linear(hidden_size, outputs, device=like.device, dtype=like.dtype)
        nn.init.normal_(self.head.weight, std=1 / (hidden_size + 1))
        nn.init.zeros_(self.head.bias)

    @classmethod
    def from_lm(cls, model: nn.Module, outputs: int) -> HeadedLM:
        """A headed model that starts from a copy of `model`'s weights; training it leaves `model` alone."""
        return cls(copy.deepcopy(model), outputs)

    @property
    def outputs(self) -> int:
        return self.head.out_features

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, position_ids: Tensor | None = None):
        hidden = self.backbone(input_ids, attention_mask=attention_mask, position_ids=position_ids).last_hidden_state
        return SimpleNamespace(logits=self.head(hidden.to(self.head.weight.dtype)))
