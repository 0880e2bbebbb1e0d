"""Public data sets, from the hub by name or from a file in the same form, a row at a time.

rows("ultrafeedback")            streamed from the hub
rows("pairs.jsonl")              .jsonl, .json, either also as .gz, or .parquet
kind_of(row)                     what its rows are: problems, instructions, pairs or steps

kind           a row has                                                           sets
problems       question, answer (which ends in `#### number`)                      gsm8k
instructions   messages: [{role, content}, ...]                                    no_robots, tulu3
pairs          chosen, rejected: messages, or texts beside prompt, or dialogues    ultrafeedback, hh, ...
steps          question, label: the rated steps of a solution                      prm800k
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

from reference_impl.config import nearest
from reference_impl.errors import UserError

SETS = {  # name: (hub name, config, split to train on)
    "gsm8k": ("openai/gsm8k", "main", "train"),
    "no_robots": ("HuggingFaceH4/no_robots", None, "train"),
    "tulu3": ("allenai/tulu-3-sft-mixture", None, "train"),
    "ultrafeedback": ("argilla/ultrafeedback-binarized-preferences-cleaned", None, "train"),
    "ultrafeedback-h4": ("HuggingFaceH4/ultrafeedback_binarized", None, "train_prefs"),
    "hh": ("Anthropic/hh-rlhf", None, "train"),
    "prm800k": ("tasksource/PRM800K", None, "train"),
}
OFFLINE = "Give --data FILE with rows of that form, or take scale nano or smol, whose problems are generated."


def rows(source: str, split: str | None = None) -> Iterator[dict]:
    """The rows of a data set's training split (or of `split`), or of a file. UserError when it cannot be read."""
    path = Path(source).expanduser()
    if path.is_file():
        yield from file_rows(path)
    elif source in SETS:
        yield from hub_rows(source, split)
    else:
        raise UserError(f"data {source!r} is no file and no known data set{nearest(source, SETS)}")


def file_rows(path: Path) -> Iterator[dict]:
    """The rows of .jsonl, .json or .parquet; UserError that names the line which is no row."""
    good = 0
    suffixes = [suffix for suffix in path.suffixes if suffix != ".gz"]
    if suffixes[-1:] == [".parquet"]:
        import datasets

        yield from datasets.load_dataset("parquet", data_files=str(path), split="train", streaming=True)
        return
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
            lines = (json.loads(line) for line in file if line.strip())
            for row in json.load(file) if suffixes[-1:] == [".json"] else lines:
                if not isinstance(row, dict):
                    raise ValueError(f"{str(row)[:40]!r} is no table of names and values")
                good += 1
                yield row
    except (OSError, UnicodeDecodeError, ValueError, TypeError) as error:
        raise UserError(f"data {str(path)!r} cannot be read after row {good}: {error}.") from error


def hub_rows(name: str, split: str | None) -> Iterator[dict]:
    """Streamed from the hub; UserError in one sentence when there is no network."""
    import datasets

    path, config, train = SETS[name]
    try:
        yield from datasets.load_dataset(path, config, split=split or train, streaming=True)
    except (OSError, ValueError, RuntimeError) as error:  # what datasets and its clients raise, network errors included
        first = (str(error).strip() or repr(error)).splitlines()[0]
        raise UserError(f"data {name!r}: the hub did not give {path} ({first}). {OFFLINE}") from None


def kind_of(row: dict) -> str:
    """problems, instructions, pairs or steps; UserError when it is none of these."""
    if "chosen" in row and "rejected" in row:
        return "pairs"
    if "label" in row and "question" in row:
        return "steps"
    if "question" in row and "answer" in row:
        return "problems"
    if "messages" in row:
        return "instructions"
    raise UserError(
        f"Rows with the names {', '.join(sorted(row))} are of no known form: question and answer (problems), messages "
        "(instructions), chosen and rejected (pairs), or question and label (rated steps)."
    )


def source_kind(source: str) -> str:
    """`kind_of` the first row; known without looking for the named sets."""
    named = {"gsm8k": "problems", "no_robots": "instructions", "tulu3": "instructions", "prm800k": "steps"}
    if source in SETS and not Path(source).is_file():
        return named.get(source, "pairs")
    first = next(rows(source), None)
    if first is None:
        raise UserError(f"data {source!r} has no rows.")
    return kind_of(first)
