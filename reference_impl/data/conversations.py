"""Rows of public data as conversations: what came before, and one answer, or two to choose between.

A last turn of the user is the prompt's end; everything before belongs to it. HH-RLHF writes whole dialogues as text
(`\\n\\nHuman: ... \\n\\nAssistant: ...`), which are cut back into turns.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from reference_impl.data.pairs import Pair
from reference_impl.data.public import kind_of
from reference_impl.errors import UserError
from reference_impl.tasks.splits import point_of

Messages = tuple[dict[str, str], ...]
TURN = re.compile(r"\n\n(Human|Assistant):")
HELD_OUT_SHARE = 0.1  # of the prompts; their text decides


@dataclass
class Dropped:
    """How many rows were read, how many were kept, and why the others were not."""

    read: int = 0
    kept: int = 0
    why: dict[str, int] = field(default_factory=dict)

    def drop(self, reason: str) -> None:
        self.why[reason] = self.why.get(reason, 0) + 1

    def __str__(self) -> str:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(self.why.items()))
        return f"{self.read} rows read, {self.kept} kept" + (f"; dropped: {reasons}" if reasons else "")


def preference(row: dict) -> tuple[Messages, str, str]:
    """(conversation before the answer, chosen answer, rejected answer) of a row of pairs. ValueError otherwise."""
    chosen, rejected = row.get("chosen"), row.get("rejected")
    if isinstance(chosen, str) and isinstance(rejected, str):
        if isinstance(row.get("prompt"), str):
            return ({"role": "user", "content": row["prompt"]},), chosen, rejected
        chosen, rejected = dialogue(chosen), dialogue(rejected)
    before, answer = last_answer(chosen)
    other_before, other = last_answer(rejected)
    if before != other_before:
        raise ValueError("whose answers follow different conversations")
    return before, answer, other


def instruction(row: dict) -> tuple[Messages, str]:
    """(conversation before the last answer, that answer) of a row of instructions."""
    return last_answer(row["messages"])


def dialogue(text: str) -> list[dict[str, str]]:
    """`\\n\\nHuman: a\\n\\nAssistant: b` as messages."""
    parts = TURN.split(text)
    roles = {"Human": "user", "Assistant": "assistant"}
    return [{"role": roles[who], "content": said.strip()} for who, said in zip(parts[1::2], parts[2::2], strict=True)]


def last_answer(messages) -> tuple[Messages, str]:
    """The conversation up to its last turn, which must be the assistant's. ValueError that says what is wrong."""
    turns = tuple({"role": turn["role"], "content": turn["content"]} for turn in messages)
    if len(turns) < 2 or turns[-1]["role"] != "assistant":
        raise ValueError("without a conversation that ends in an answer")
    return turns[:-1], turns[-1]["content"]


def readable(rows: Iterable[dict], parse: Callable, kind: str, count: int, dropped: Dropped) -> Iterator[tuple]:
    """What `parse` makes of each row until `count` are kept; rows that it cannot read are counted as dropped."""
    for row in rows:
        if dropped.kept >= count:
            break
        dropped.read += 1
        try:
            found = parse(row)
        except (ValueError, KeyError, TypeError) as error:
            check_kind(row, kind)
            dropped.drop(str(error) if isinstance(error, ValueError) else "without messages")
            continue
        yield found


def read_pairs(rows: Iterable[dict], tokenizer, max_length: int, count: int) -> tuple[list[Pair], list[Pair], Dropped]:
    """Up to `count` pairs for training and those held out, each with at most `max_length` tokens, and what was dropped.

    Answers are cut on the right; a pair that is equal after the cut teaches nothing and is dropped. A prompt that
    leaves less than a quarter of the room to its answers is dropped, too. A prompt's text decides which side it is on.
    """
    training, held_out, dropped = [], [], Dropped()
    for messages, *answers in readable(rows, preference, "pairs", count, dropped):
        prompt = tokenizer.encode_prompt(Conversation(messages))
        room = max_length - len(prompt)
        chosen, rejected = (answer_ids(answer, tokenizer, room) for answer in answers)
        if room < max_length / 4:
            dropped.drop(f"with a prompt of more than {max_length * 3 // 4} tokens")
        elif answers[0] == answers[1]:
            dropped.drop("with two equal answers")
        elif chosen == rejected:
            dropped.drop(f"equal in the first {max_length} tokens")
        elif not (answers[0].strip() and answers[1].strip()):
            dropped.drop("with an empty answer")
        else:
            dropped.kept += 1
            side = held_out if is_held_out(messages) else training
            side.append(Pair(prompt, chosen, rejected))
    return training, held_out, dropped


def read_instructions(
    rows: Iterable[dict], tokenizer, build_example: Callable, max_length: int, count: int
) -> tuple[list[dict], list[dict], Dropped]:
    """Up to `count` training examples by the week's `build_example`, those held out, and what was dropped."""
    training, held_out, dropped = [], [], Dropped()
    for messages, answer in readable(rows, instruction, "instructions", count, dropped):
        prompt = tokenizer.encode_prompt(Conversation(messages))
        if len(prompt) >= max_length:
            dropped.drop(f"with a prompt of {max_length} tokens or more")
        elif not answer.strip():
            dropped.drop("with an empty answer")
        else:
            dropped.kept += 1
            example = build_example(prompt, tokenizer.encode(answer), tokenizer.eos_token_id, max_length)
            (held_out if is_held_out(messages) else training).append(example)
    return training, held_out, dropped


@dataclass(frozen=True)
class Conversation:
    """What `encode_prompt` reads."""

    messages: Messages


def check_kind(row: dict, wanted: str) -> None:
    """UserError when the rows are of another kind altogether, rather than one of them broken."""
    if kind_of(row) != wanted:
        raise UserError(f"These rows are {kind_of(row)}, and here {wanted} are learned from.")


def is_held_out(messages: Messages) -> bool:
    """By a hash of the conversation: the same prompt is always on the same side."""
    return point_of("\n".join(turn["content"] for turn in messages)) < HELD_OUT_SHARE


def answer_ids(answer: str, tokenizer, room: int) -> list[int]:
    """The answer and the end of sequence, cut to `room` tokens."""
    return [*tokenizer.encode(answer), tokenizer.eos_token_id][: max(room, 0)]
