"""Everything that is known about the forks, as one table: what the page, the JSON and the terminal show.

{"forks": [{"name", "weeks": {"05": {"points", "exercises", ...}}, ...}], "weeks": [{"week", "code", "figures", ...}]}
"""

import json
import random
import re
from datetime import datetime
from pathlib import Path
from typing import Any

from course.compare.code import Version, versions
from course.compare.forks import Fork, shown_place
from course.compare.runs import figures
from graders import misconceptions
from graders.exercises import Week, load_week

SCHEMA, VERSION = "rlhf-course/compare", 1
PER_EXERCISE = ("name", "state", "green", "points", "points_possible", "star", "checks", "robust")
PER_FAILURE = ("claim", "status", "kind", "words", "input", "expected", "got", "misconception")
MOST_TEXT = 2000


class NotAScore(Exception):
    """The file is not the result of a grading; the message says why."""


def gather(
    forks: list[Fork], weeks: list[str], results: dict[tuple[str, str], dict], runs: list[dict]
) -> dict[str, Any]:
    """The table, from the results of grading, (fork, week) to a score or a note, and the runs that were found."""
    declared = [load_week(week) for week in weeks]
    table = {
        "schema": SCHEMA,
        "version": VERSION,
        "made": datetime.now().isoformat(sep=" ", timespec="minutes"),
        "forks": [],
        "weeks": [],
    }
    for fork in forks:
        scores = {week.week: week_of(results.get((fork.name, week.week)), week, fork) for week in declared}
        row = {"name": fork.name, "place": shown_place(fork.place), "version": fork.version, "note": fork.note}
        table["forks"].append(row | {"weeks": scores})
    for week in declared:
        code = {fork.name: results.get((fork.name, week.week), {}).get("code", {}) for fork in forks}
        table["weeks"].append(
            {
                "week": week.week,
                "title": week.title,
                "functions": [{"name": e.name, "points": e.points, "stretch": e.stretch} for e in week.exercises],
                "mistakes": mistakes(week, table["forks"]),
                "code": approaches(week, code, table["forks"]),
                "figures": figures(runs, week.week),
            }
        )
    return table


def week_of(result: dict[str, Any] | None, week: Week, fork: Fork) -> dict[str, Any]:
    """One fork's week: its score with what is shown of it, or a note why there is none."""
    if result is None or "exercises" not in result:
        return {"note": (result or {}).get("note") or fork.note or "not graded", "exercises": []}
    exercises = []
    for e in result["exercises"]:
        remedies = result.get("remedies", {})
        failures = [
            {key: failure.get(key) for key in PER_FAILURE} | {"remedy": remedies.get(failure.get("test"), "")}
            for failure in e["not_passed"]
        ]
        failures = [failure for failure in failures if failure["status"] in ("failed", "broken", "not run")]
        exercises.append({key: e[key] for key in PER_EXERCISE} | {"failures": failures})
    kept = {key: result[key] for key in ("points", "points_possible", "stars", "green", "seconds")}
    speed = {name: round(1e6 * seconds, 1) for name, seconds in result.get("speed", {}).items()}
    return {"note": result.get("note", ""), **kept, "speed": speed, "exercises": exercises}


def mistakes(week: Week, forks: list[dict]) -> list[dict[str, Any]]:
    """The named misconceptions, each with what is wrong about it and who has it."""
    who: dict[tuple[str, str], list[str]] = {}
    for fork in forks:
        for e in (e for e in fork["weeks"][week.week]["exercises"] if not e["green"]):
            for name in dict.fromkeys(f["misconception"] for f in e["failures"] if f["misconception"]):
                who.setdefault((e["name"], name), []).append(fork["name"])
    known = {(m.function, m.name): m for m in misconceptions.load(week.week)} if who else {}
    keys = ("computed", "why", "effect", "lesson")
    return [
        {"function": function, "name": name, "forks": names}
        | {key: getattr(known[function, name], key) for key in keys if (function, name) in known}
        for (function, name), names in sorted(who.items())
    ]


def approaches(week: Week, code: dict[str, dict[str, Version]], forks: list[dict]) -> dict[str, list[dict[str, Any]]]:
    """Every function's distinct versions, each with the forks that wrote it so; the worked solution comes last."""
    names = [e.name for e in week.exercises]
    written = {
        fork["name"]: {e["name"] for e in fork["weeks"][week.week]["exercises"] if e["state"] != "not written"}
        for fork in forks
    }
    right = {(fork["name"], e["name"]): e["green"] for fork in forks for e in fork["weeks"][week.week]["exercises"]}
    solution = week.stub.parents[2] / "solutions" / week.week / f"{week.module}.py"
    everyone = [(fork, found, False) for fork, found in code.items()]
    everyone += [("", versions(solution.read_text(encoding="utf-8"), names), True)] if solution.is_file() else []
    found: dict[str, dict[str, dict]] = {name: {} for name in names}
    for who, versions_of, ours in everyone:
        for name, version in versions_of.items():
            if not ours and name not in written[who]:
                continue
            group = found[name].setdefault(
                version.key,
                {"forks": [], "solution": False, "green": False, "text": version.text, "bare": version.bare},
            )
            group["solution"] |= ours
            group["forks"] += [] if ours else [who]
            group["green"] |= ours or right.get((who, name), False)
    return {name: list(groups.values()) for name, groups in found.items() if any(g["forks"] for g in groups.values())}


# --- results of a grading elsewhere -----------------------------------------------------------------------------------


def read_scores(path: Path, weeks: list[str]) -> dict[str, dict[str, Any]]:
    """week -> result, of a file that `pytest --score-json` wrote. Somebody else wrote it: only what is expected is
    taken, and of the expected kind."""
    try:
        if path.stat().st_size > 10_000_000:
            raise NotAScore("it is larger than 10 MB")
        table = json.loads(path.read_text(encoding="utf-8"))
        if table["schema"] != "rlhf-course/score" or table["version"] != 1:
            raise NotAScore(f"it is not a score of this version: {str(table['schema'])[:40]}")
        rows = {str(row["week"]): row for row in table["weeks"]}
        return {week: checked_week(rows[week], load_week(week)) for week in weeks if week in rows}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise NotAScore(f"{type(error).__name__}: {str(error)[:100]}") from None


def checked_week(row: dict[str, Any], week: Week) -> dict[str, Any]:
    """One week of a score file. Points are counted again from the functions that are right."""
    by_name = {str(e["name"]): e for e in row["exercises"]}
    exercises = []
    for exercise in week.exercises:
        e = by_name[exercise.name]
        green, star = e["green"] is True, e["green"] is True and e["star"] is True
        rungs = {rung: {key: int(e[rung][key]) for key in ("passed", "expected")} for rung in ("checks", "robust")}
        failures = [{key: text_or_none(f.get(key)) for key in PER_FAILURE} for f in e["not_passed"]]
        exercises.append(
            {"name": exercise.name, "state": str(e["state"])[:20], "green": green, "star": star, **rungs}
            | {"points": exercise.points * green, "points_possible": exercise.points, "not_passed": failures}
        )
    points = sum(e["points"] for e in exercises)
    total = {"points": points, "points_possible": sum(e.points for e in week.exercises)}
    stars, green = sum(e["star"] for e in exercises), row["green"] is True
    return total | {"stars": stars, "green": green, "seconds": float(row["seconds"]), "exercises": exercises}


def text_or_none(value: Any) -> str | None:
    return None if value is None else str(value)[:MOST_TEXT]


# --- masking ----------------------------------------------------------------------------------------------------------


def masked(table: dict[str, Any], forks: list[Fork]) -> dict[str, Any]:
    """The same with the names taken out, in place: forks become A, B, C … in an order drawn at random, code loses its
    comments, and names and places are replaced where they stand in a text."""
    order = random.SystemRandom().sample(forks, len(forks))
    alias = {fork.name: letters(number) for number, fork in enumerate(order)}
    hidden = {text: alias[fork.name] for fork in forks for text in (str(fork.folder or fork.place), fork.place)}
    hidden |= alias
    known = re.compile("|".join(rf"(?<!\w){re.escape(text)}(?!\w)" for text in sorted(hidden, key=len, reverse=True)))

    def mask(text: str | None) -> str | None:
        return known.sub(lambda found: hidden[found.group()], text) if text else text

    for fork in table["forks"]:
        fork |= {"name": alias[fork["name"]], "place": "", "version": "", "note": mask(fork["note"])}
        for week in fork["weeks"].values():
            week["note"] = mask(week["note"])
            for failure in (failure for e in week["exercises"] for failure in e["failures"]):
                failure |= {key: mask(failure[key]) for key in ("words", "input", "expected", "got")}
    for week in table["weeks"]:
        groups = [group for ways in week["code"].values() for group in ways]
        for part in (*week["mistakes"], *groups):
            part["forks"] = sorted(alias[name] for name in part["forks"])
        for group in groups:
            bare = re.sub(r"'[^'\n]*'|\"[^\"\n]*\"", lambda found: mask(found.group()), group["bare"])
            group |= {"text": bare, "bare": bare}
        for ways in week["code"].values():
            ways.sort(key=lambda group: (not group["forks"], group["forks"]))
        for figure in week["figures"]:
            figure["experiment"] = mask(figure["experiment"])
            for part in (*figure["runs"], *(line for panel in figure["panels"] for line in panel["lines"])):
                part["fork"] = alias[part["fork"]]
            for parts in (figure["runs"], *(panel["lines"] for panel in figure["panels"])):
                parts.sort(key=lambda part: (part["fork"], part["seed"]))
    table["forks"].sort(key=lambda fork: (len(fork["name"]), fork["name"]))
    return table


def letters(number: int) -> str:
    """A … Z, AA, AB …"""
    return (letters(number // 26 - 1) if number >= 26 else "") + chr(ord("A") + number % 26)
