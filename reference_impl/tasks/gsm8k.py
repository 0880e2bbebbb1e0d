"""GSM8K (Cobbe et al. 2021, arXiv:2110.14168): word problems of primary school; the answer is a number.

Rows are those of the hub's `openai/gsm8k` or of a file in its form (`question`, `answer` ending in `#### 18`). A
completion is right when the number that it states equals the answer's, and the model ended by itself.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from reference_impl.errors import UserError
from reference_impl.reasoning import answers_match, extract_answer
from reference_impl.tasks.splits import SPLITS, Prompt, split_of

ASKED = "Solve the problem step by step. End with a line that holds #### and the answer as a number.\n\n"
CALCULATION = re.compile(r"<<.*?>>")  # the rows' notes to a calculator
NUMBER = re.compile(r"-?\$?\d[\d,]*(?:\.\d+)?")


class GSM8K:
    """The problems of `data`, a file or the hub's set. A problem's text decides its split, as everywhere here.

    Evaluations of the hub's set use its own test split, whose problems nothing else here reads.
    """

    name = "gsm8k"

    def __init__(self, data: str = "gsm8k") -> None:
        self.data = data

    @cached_property
    def by_split(self) -> dict[str, list[Prompt]]:
        from reference_impl.data.public import rows

        found: dict[str, list[Prompt]] = {split: [] for split in SPLITS}
        for row in rows(self.data):
            prompt = problem(row)
            found[split_of(prompt.text)].append(prompt)
        if self.data == "gsm8k" and not Path(self.data).is_file():
            found["eval"] = [problem(row) for row in rows(self.data, "test")]
        return found

    def draw(self, split: str, seed: int = 0) -> Iterator[Prompt]:
        """An endless stream of the split's problems: shuffled anew each time round."""
        if split not in SPLITS:
            raise UserError(f"there is no split {split!r}; there are: {', '.join(SPLITS)}")
        some = list(self.by_split[split])
        if not some:
            raise UserError(f"split {split!r} of {self.data} has no problem: give it more rows")
        rng = random.Random(f"{split} {seed}")
        while True:
            rng.shuffle(some)
            yield from some

    def prompts(self, split: str, n: int, seed: int = 0) -> list[Prompt]:
        """`n` different problems of the split; UserError when it has fewer."""
        stream, have = self.draw(split, seed), len(self.by_split.get(split, ()))
        if have < n:
            raise UserError(f"split {split!r} of {self.data} has {have} problems, not {n}: ask for fewer")
        return [next(stream) for _ in range(n)]

    def demonstrations(self, n: int, seed: int = 0) -> list[tuple[Prompt, str]]:
        """`n` problems of the sft split (some more than once) with their worked solutions."""
        stream = self.draw("sft", seed)
        return [(prompt, self.solve(prompt)) for prompt in (next(stream) for _ in range(n))]

    def held_out_demonstrations(self, prompts: list[Prompt], seed: int) -> list[tuple[Prompt, str]]:
        return [(prompt, self.solve(prompt)) for prompt in prompts]

    def solve(self, prompt: Prompt, *style) -> str:
        """The solution that the data set gives, without its calculator notes."""
        return prompt.metadata["solution"]

    def extract(self, completion: str) -> str | None:
        """The number behind the last ####, else in the last box or tags, else the last one of the text; or None."""
        stated = completion.rpartition("####")[2] if "####" in completion else extract_answer(completion) or completion
        numbers = NUMBER.findall(stated)
        return numbers[-1].replace("$", "").replace(",", "") if numbers else None

    def reward(self, prompt: Prompt, completion: str, finished: bool) -> float:
        """1.0 when the stated number is the answer and the model ended by itself, else 0.0."""
        return 1.0 if finished and answers_match(self.extract(completion), prompt.answer) else 0.0

    def step_labels(self, prompt: Prompt, completion: str) -> list[int]:
        raise UserError("Nothing rates the steps of a GSM8K solution: learn from rated ones, with --data prm800k.")


def problem(row: dict) -> Prompt:
    """One row as a prompt. UserError when it is no problem."""
    try:
        text, (solution, marker, answer) = row["question"], row["answer"].rpartition("####")
    except (KeyError, AttributeError) as error:
        raise UserError(f"This is no row of GSM8K, with question and answer: it has {', '.join(row)}.") from error
    if not marker:
        raise UserError(f"This answer does not end in #### and a number: {row['answer'][-60:]!r}.")
    answer = answer.strip().replace(",", "")
    worked = CALCULATION.sub("", solution).rstrip() + f"\n#### {answer}"
    messages = ({"role": "user", "content": ASKED + text},)
    return Prompt(text, answer, {"solution": worked}, messages)
