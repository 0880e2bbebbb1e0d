"""Settings of a run: typed, checked, and resolved in one order.

    settings.py < the algorithm's row < weeks/NN/config.yaml: defaults, scale, algorithm, experiment < command line

(smol and full: algorithm and experiment before scale, since their step sizes and lengths were found at nano scale.)
Whatever is derived from another setting (the reference model from the policy, the warm-up from the steps) is filled in
after all of these, so that it follows an override. A key that does not exist is refused by name.
"""

from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from reference_impl.algorithms import ALGORITHMS, Algorithm
from reference_impl.errors import UserError
from reference_impl.implementations import shown, week_folder, week_name
from reference_impl.settings import Settings

CHOSEN = ("week", "algorithm", "scale")  # decide which settings are read, so they cannot be among those set


def resolve(
    schema: type[Settings],
    week: str,
    *,
    algorithm: str | None,
    scale: str | None,
    overrides: dict[str, Any],
    experiment: str | None = None,
) -> Settings:
    """The settings of one run. Raises UserError for whatever is unknown or out of range, naming what is valid."""
    week = week_name(week)
    file = week_config(week)
    chosen = algorithm or file["defaults"].get("algorithm") or file["algorithms"][0]
    scale = scale or file["defaults"].get("scale", "nano")
    row = find_algorithm(week, chosen, file["algorithms"])
    if scale not in file["scales"]:
        raise UserError(f"Week {week} has no scale {scale!r}{nearest(scale, file['scales'])}")
    if experiment is None:
        refuse_unread(row, overrides, file["algorithms"])
    known = {key: value for key, value in row.defaults.items() if key in schema.model_fields}  # another week's row
    sized = file["scales"][scale]
    tuned = [file["algorithm_overrides"].get(chosen), file["experiment_overrides"].get(experiment)]
    # their step sizes were found at nano scale; at another, that scale's own holds for all of them
    layers = [known, file["defaults"], *([sized, *tuned] if scale == "nano" else [*tuned, sized]), overrides]
    values: dict[str, Any] = {}
    for layer in layers:
        values.update(layer or {})
    values.update(week=week, algorithm=chosen, scale=scale)
    if not row.plugs_in(week):
        values["impl"] = "reference"
    return checked(schema, values)


def refuse_unread(row: Algorithm, overrides: dict[str, Any], names: list[str]) -> None:
    """A setting of another algorithm's loss would change nothing, in silence: UserError."""
    for key in overrides:
        readers = [name for name in names if key in ALGORITHMS[name].reads]
        if readers and row.name not in readers:
            raise UserError(f"{key} has no effect on {row.name}; it is read by: {', '.join(readers)}.")


def week_config(week: str) -> dict[str, Any]:
    """weeks/NN/config.yaml: `algorithms`, `defaults`, `scales`, `algorithm_` and `experiment_overrides`, `demo`."""
    path = week_folder(week) / "config.yaml"
    if not path.is_file():
        raise UserError(f"Week {week} has no launcher yet: {shown(path)} does not exist.")
    file = {"defaults": {}, "algorithm_overrides": {}, "experiment_overrides": {}, **read_yaml(path)}
    file.setdefault("demo", file["algorithms"][:1])
    return file


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping; UserError when it cannot be read as one."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"{shown(path)} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise UserError(f"{shown(path)} is not a mapping of keys to values.")
    return values


def find_algorithm(week: str, name: str, allowed: list[str]) -> Algorithm:
    """The row of `algorithms.py` by name; UserError when the week does not train it."""
    if name not in allowed:
        raise UserError(f"Week {week} has no algorithm {name!r}{nearest(name, allowed)}")
    return ALGORITHMS[name]


def checked(schema: type[Settings], values: dict[str, Any]) -> Settings:
    """`values` as `schema`; UserError that lists every key that is unknown or out of range."""
    try:
        return schema(**values)
    except ValidationError as error:
        raise UserError("\n".join(_complaint(schema, item) for item in error.errors())) from error


def parse_override(text: str) -> tuple[str, Any]:
    """`key=value` of the command line; the value is read as YAML, so 3e-4, true and [1, 2] mean what they say."""
    key, equals, value = map(str.strip, text.partition("="))
    if not (key and equals):
        raise UserError(f"--set {text}: write it as key=value, for example --set lr=3e-4.")
    if key in CHOSEN:
        raise UserError(f"--set {text}: {key} has an option of its own.")
    try:
        return key, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise UserError(f"--set {text}: the value is not readable YAML.") from error


def nearest(name: str, valid: Any) -> str:
    """`; did you mean ...? Valid are ...` for a name that is not in `valid`."""
    names = sorted(valid)
    near = get_close_matches(name, names, n=1)
    guess = f"; did you mean {near[0]!r}?" if near else "."
    return f"{guess} Valid: {', '.join(names)}."


def _complaint(schema: type[Settings], error: dict[str, Any]) -> str:
    if not error["loc"]:  # of the settings together, not of one of them
        return f"{error['msg'].removeprefix('Value error, ')}."
    key = str(error["loc"][0])
    if error["type"] == "extra_forbidden":
        return f"There is no setting {key!r} here{nearest(key, schema.model_fields.keys() - set(CHOSEN))}"
    about = schema.model_fields[key].description if key in schema.model_fields else None
    return f"{key}={error['input']!r}: {error['msg'][0].lower()}{error['msg'][1:]}" + (f" ({about})." if about else ".")
