"""PRM800K (Lightman et al. 2023, arXiv:2305.20050): rated steps of solutions, as traces a process model can read.

At each step of a solution, people rated several candidates and one was carried on with. So the labels form a tree:

    a+ - b+ - d-          traces: a b d, with the ratings of all three,
       \\ c-                       a c, with the rating of c alone (a was counted above)

A candidate is read after the steps that it followed. Laid end to end, alternatives would read as one long solution
that says everything twice, and c would stand before d.
"""

from __future__ import annotations

from dataclasses import dataclass

from reference_impl.errors import UserError


@dataclass(frozen=True)
class Trace:
    """The steps of one solution and their ratings: -1, 0, 1, or None for a step that is not to be learned from."""

    problem: str
    steps: tuple[str, ...]
    ratings: tuple[int | None, ...]


def traces(row: dict) -> list[Trace]:
    """The traces of one labelled solution: the steps carried on with, then each rated alternative after its prefix.

    row: `question.problem` and `label.steps[i]` with `completions` (`text`, `rating`), `chosen_completion` (an index or
    None) and `human_completion` (or None), as published. UserError for a row without them.
    """
    try:
        problem, steps = row["question"]["problem"], row["label"]["steps"]
        prefix, ratings, alternatives = [], [], []
        for step in steps:
            chosen, path = step["chosen_completion"], tuple(prefix)
            for index, candidate in enumerate(step["completions"] or []):
                if index != chosen and candidate["rating"] is not None:
                    unrated = (None,) * len(path)
                    alternative = Trace(problem, (*path, candidate["text"]), (*unrated, candidate["rating"]))
                    alternatives.append(alternative)
            followed = step["completions"][chosen] if chosen is not None else step.get("human_completion")
            if followed is None:  # nobody carried on from here
                break
            prefix.append(followed["text"])
            ratings.append(followed.get("rating"))
    except (KeyError, TypeError, IndexError) as error:
        raise UserError(f"This is not a row of PRM800K: {error!r} where `label.steps` was expected.") from error
    whole = [Trace(problem, tuple(prefix), tuple(ratings))] if any(r is not None for r in ratings) else []
    return whole + alternatives
