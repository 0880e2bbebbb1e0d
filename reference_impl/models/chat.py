"""A tokenizer of transformers, with the few names that the loops use; prompts go through the model's chat template.

The template is rendered to text first and encoded without further special tokens: it writes them itself, and a second
begin-of-sequence token in front would be one that the model never saw in training.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any


class ChatTokenizer:
    """`encode`, `decode`, `encode_prompt`, `pad_token_id`, `eos_token_id`, as CharTokenizer has them."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        if tokenizer.pad_token_id is None:  # padding is known by its place, never by its id
            tokenizer.pad_token = tokenizer.eos_token
        self.eos_token_id: int = tokenizer.eos_token_id
        self.pad_token_id: int = tokenizer.pad_token_id
        self.vocab_size = len(tokenizer)

    def encode(self, text: str) -> list[int]:
        """Token ids, without special tokens around them; those written in the text are recognised."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def decode(self, ids) -> str:
        """The text, without special tokens."""
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    def encode_prompt(self, prompt) -> list[int]:
        """The conversation so far, and the beginning of the assistant's turn."""
        return self.encode(self.render(prompt.messages))

    def render(self, messages) -> str:
        """Messages ({"role", "content"} each) as the model reads them, up to where its answer begins.

        A model without a template, such as many base models, gets the plain texts, one after another.
        """
        if self.tokenizer.chat_template is None:
            return "".join(message["content"] + "\n" for message in messages)
        return self.tokenizer.apply_chat_template(
            list(messages),
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=False,  # for templates that know the switch, as Qwen3's
        )

    def ids_with(self, character: str) -> list[int]:
        """All tokens whose text holds `character`: "=" may be a token of its own, or part of "=-"."""
        return [index for token, index in self._vocabulary.items() if character in token]

    @cached_property
    def _vocabulary(self) -> dict[str, int]:
        return self.tokenizer.get_vocab()

    def save_pretrained(self, folder) -> None:
        self.tokenizer.save_pretrained(folder)
