"""One token a character: the tokenizer of the nano model."""

from __future__ import annotations

SPECIAL = ("<pad>", "<bos>", "<eos>")
CHARACTERS = "0123456789+-*=,;:?#() abcdefghijklmnopqrstuvwxyz<>/\\{}.!$%'_\n"


class CharTokenizer:
    """Text to token ids and back; ids 0, 1, 2 are padding, begin and end of sequence."""

    pad_token_id, bos_token_id, eos_token_id = 0, 1, 2

    def __init__(self) -> None:
        self.id_of = {character: len(SPECIAL) + index for index, character in enumerate(CHARACTERS)}
        self.vocab_size = len(SPECIAL) + len(CHARACTERS)

    def encode(self, text: str) -> list[int]:
        """The ids of the characters, without special tokens; ValueError names a character that has none."""
        try:
            return [self.id_of[character] for character in text]
        except KeyError as missing:
            raise ValueError(f"the nano tokenizer has no character {missing} (in {text!r})") from None

    def encode_prompt(self, prompt) -> list[int]:
        """The ids of the problem itself: the nano model knows no conversation."""
        return self.encode(prompt.text)

    def ids_with(self, character: str) -> list[int]:
        """All tokens whose text holds `character`."""
        return self.encode(character)

    def decode(self, ids) -> str:
        """The text of `ids` up to the first end of sequence; padding and begin tokens are left out."""
        text = []
        for token in (int(i) for i in ids):
            if token == self.eos_token_id:
                break
            if token >= len(SPECIAL):
                text.append(CHARACTERS[token - len(SPECIAL)])
        return "".join(text)
