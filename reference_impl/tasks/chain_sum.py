"""chain_sum: add and subtract a few numbers, one step at a time.

    prompt        4-1-7+2=
    completion    4-1=3-7=-4+2=-2<eos>

Each step writes the running value and the next operation; the text after the last `=` is the answer. A step model
judges at each `=`, where a step ends, and at the end of the sequence.

The demonstrations are a mixed crowd, so that there is something left to learn from rewards and preferences:

    careful     every step right                                             45%
    lazy        right, but stops after a random earlier step                 35%
    misreader   reads each minus as a plus half of the time, and carries on  20%
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cached_property

from reference_impl.errors import UserError
from reference_impl.tasks.splits import SPLITS, Prompt, split_of

STYLES = {"careful": 0.45, "lazy": 0.35, "misreader": 0.20}
ANSWER_FORMATS = ("plain", "tags")
STEP_END = "="  # what ends a step
ASKED = "Add and subtract from left to right, one step at a time."
SEED_SPACING = 2**32  # reasoning_gym's item i of seed s is Random(s + i): neighbouring seeds would share their items


class ChainSum:
    """Sums of `min_terms` to `max_terms` numbers of `digits` digits, with + and -.

    `answer_format="tags"` asks for the answer as `<answer>-2</answer>` after the steps, in demonstrations and in
    `reward`; "plain" takes the text after the last `=`.
    """

    name = "chain_sum"

    def __init__(self, min_terms: int = 3, max_terms: int = 4, digits: int = 1, answer_format: str = "plain") -> None:
        if not 2 <= min_terms <= max_terms:
            raise ValueError(f"min_terms and max_terms must satisfy 2 <= min <= max, got {min_terms} and {max_terms}")
        if digits < 1:
            raise ValueError(f"digits must be at least 1, got {digits}")
        if answer_format not in ANSWER_FORMATS:
            raise ValueError(f"answer_format must be one of {', '.join(ANSWER_FORMATS)}, got {answer_format!r}")
        self.min_terms, self.max_terms, self.digits, self.answer_format = min_terms, max_terms, digits, answer_format

    @cached_property
    def generator(self):
        import reasoning_gym

        return reasoning_gym.create_dataset(
            "chain_sum",
            seed=0,
            size=1,
            min_terms=self.min_terms,
            max_terms=self.max_terms,
            min_digits=self.digits,
            max_digits=self.digits,
        )

    def draw(self, split: str, seed: int = 0) -> Iterator[Prompt]:
        """An endless stream of the split's prompts, in which a prompt may come again."""
        if split not in SPLITS:
            raise UserError(f"there is no split {split!r}; there are: {', '.join(SPLITS)}")
        index = seed * SEED_SPACING
        while True:
            item = self.generator[index]
            index += 1
            text = item["metadata"]["expression"].replace(" ", "") + "="
            if split_of(text) == split:
                yield Prompt(text, item["answer"], item, messages_of(text))

    def prompts(self, split: str, n: int, seed: int = 0) -> list[Prompt]:
        """`n` different prompts of the split; UserError when it has fewer."""
        found: dict[str, Prompt] = {}
        patience = 0
        for prompt in self.draw(split, seed):
            if len(found) >= n:
                break
            patience = patience + 1 if prompt.text in found else 0
            if patience > 1000 + 10 * len(found):
                raise UserError(
                    f"split {split!r} of {self.name} has only about {len(found)} different prompts, not {n}"
                )
            found[prompt.text] = prompt
        return list(found.values())

    def demonstrations(self, n: int, seed: int = 0) -> list[tuple[Prompt, str]]:
        """`n` prompts of the sft split (some more than once), each with a completion by one of the crowd."""
        rng = random.Random(f"{self.name} demonstrations {seed}")
        styles = rng.choices(list(STYLES), weights=list(STYLES.values()), k=n)
        return [
            (prompt, self.solve(prompt, style, rng))
            for style, prompt in zip(styles, self.draw("sft", seed), strict=False)
        ]

    def held_out_demonstrations(self, prompts: list[Prompt], seed: int) -> list[tuple[Prompt, str]]:
        """The same mixed crowd of demonstrators, on prompts that no training example has."""
        rng = random.Random(seed)
        styles = rng.choices(list(STYLES), weights=list(STYLES.values()), k=len(prompts))
        return [(prompt, self.solve(prompt, style, rng)) for prompt, style in zip(prompts, styles, strict=True)]

    def solve(self, prompt: Prompt, style: str = "careful", rng: random.Random | None = None) -> str:
        """A worked completion in one of the styles; lazy and misreader need `rng`."""
        value, operations = parse(prompt.text)
        if style == "misreader":
            operations = [("+" if op == "-" and rng.random() < 0.5 else op, term) for op, term in operations]
        if style == "lazy":
            operations = operations[: rng.randrange(1, len(operations))] if len(operations) > 1 else []
        text = str(value)
        for op, term in operations:
            value = value + term if op == "+" else value - term
            text += f"{op}{term}={value}"
        return text if self.answer_format == "plain" else f"{text}<answer>{value}</answer>"

    def extract(self, completion: str) -> str | None:
        """The answer that the completion states, or None."""
        if self.answer_format == "plain":
            return completion.rpartition("=")[2].strip()
        before, tag, rest = completion.rpartition("<answer>")
        answer, closing, _ = rest.partition("</answer>")
        return answer.strip() if tag and closing else None

    def reward(self, prompt: Prompt, completion: str, finished: bool) -> float:
        """1.0 when reasoning_gym gives the answer its full score and the model ended by itself (EOS), else 0.0.

        reasoning_gym pays partial credit to any text that contains the answer; full credit is the only one that counts.
        """
        answer = self.extract(completion)
        if not finished or answer is None:
            return 0.0
        return 1.0 if self.generator.score_answer(answer, prompt.metadata) == 1.0 else 0.0

    def step_labels(self, prompt: Prompt, completion: str) -> list[int]:
        """A rating for each step, that is for each `=` of the completion, in order.

        1: the running value and the next operation are right; -1: the mistake happens here (a wrong value, a wrong
        operator or term, one operation too many); 0: right in itself, but it carries an earlier mistake on. Whether the
        model stopped at the right place is no step's matter: rate the end of the sequence by `reward`.

        Worked: `4-1-7+2=` with `4-1=2-7=-5+2=-3` rates [1, -1, 0].
        """
        value, operations = parse(prompt.text)
        expected, ratings = str(value), []  # `expected` follows the completion's own mistakes
        for index, step in enumerate(completion.split("=")[:-1]):
            if index >= len(operations):
                ratings.append(-1)
                continue
            op, term = operations[index]
            right = step == f"{expected}{op}{term}"
            ratings.append(-1 if not right else 1 if all(r == 1 for r in ratings) else 0)
            expected = str(evaluate(step))
        return ratings


def messages_of(text: str) -> tuple[dict[str, str], ...]:
    """The problem as a conversation, for models that were trained on conversations."""
    return ({"role": "system", "content": ASKED}, {"role": "user", "content": text})


def parse(text: str) -> tuple[int, list[tuple[str, int]]]:
    """`4-1-7=` -> (4, [("-", 1), ("-", 7)])."""
    body = text.rstrip("=").replace("+", " + ").replace("-", " - ").split()
    return int(body[0]), [(op, int(term)) for op, term in zip(body[1::2], body[2::2], strict=True)]


def evaluate(step: str) -> int | None:
    """The value of `-3-7` or `3+7`; None when the step is not of that form."""
    sign, body = (-1, step[1:]) if step.startswith("-") else (1, step)
    for op in "+-":
        left, found, right = body.partition(op)
        if found and left.isdigit() and right.isdigit():
            return sign * int(left) + (int(right) if op == "+" else -int(right))
    return None
