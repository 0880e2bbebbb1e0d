"""The comparison as one HTML file that needs no network: styles, scripts, plotly and data stand in it.

What forks wrote is text here, never markup: everything goes through `esc`, data for the scripts is JSON with every `<`
written as an escape, and a content security policy lets no other script run and nothing be loaded.
"""

import base64
import hashlib
import json
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from course.compare.markup import dot, esc, grid
from course.compare.week_page import sections
from reference_impl.errors import UserError

HERE = Path(__file__).parent
SHELL = Template(
    """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="$policy">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>$css</style>
</head>
<body>
<a class="skip" href="#overview">Skip to the results</a>
<header class="bar">
<h1>$title</h1>
$filters
<button type="button" id="theme" aria-pressed="false">Dark</button>
</header>
<main>
$body
</main>
<script type="application/json" id="data">$data</script>
<script>$plotly</script>
<script>$script</script>
</body>
</html>
"""
)


def render(table: dict[str, Any]) -> str:
    """The whole file."""
    forks = [fork["name"] for fork in table["forks"]]
    weeks = [week["week"] for week in table["weeks"]]
    title = f"Week{'s' if len(weeks) > 1 else ''} {spans(weeks)}: {len(forks)} fork{'s' if len(forks) > 1 else ''}"
    css, script = ((HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    needed = any(week["figures"] for week in table["weeks"])
    plotly = plotly_script() if needed else ""
    data = {
        "forks": forks,
        "figures": [figure for week in table["weeks"] for figure in week["figures"]],
        "code": [versions for week in table["weeks"] for versions in week["code"].values()],
    }
    return SHELL.substitute(
        policy=policy(plotly, script),
        title=esc(title),
        css=css + colours(len(forks)),
        filters=filters(forks, weeks),
        body="\n".join([overview(table), *sections(table)]),
        data=json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"),
        plotly=plotly,
        script=script,
    )


def plotly_script() -> str:
    """plotly.js, which comes with the Python package."""
    try:
        return (resources.files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8")
    except (ModuleNotFoundError, OSError):
        raise UserError("the curves need plotly, which is not installed: `uv sync` installs it") from None


def policy(*scripts: str) -> str:
    """Only these scripts run; nothing is loaded from anywhere."""
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'"


def spans(weeks: list[str]) -> str:
    """05, 06, 07 as 05-07."""
    numbers = [int(week) for week in weeks]
    if len(numbers) > 2 and numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"{weeks[0]}–{weeks[-1]}"
    return ", ".join(weeks)


def colours(count: int) -> str:
    """Each fork's colour, from the ten of page.css."""
    return "\n".join(f".f{i} .dot, .dot.f{i} {{ background: var(--c{i % 10}); }}" for i in range(count))


def filters(forks: list[str], weeks: list[str]) -> str:
    """Which weeks, which forks."""
    options = "".join(f'<option value="{week}">week {week}</option>' for week in weeks)
    boxes = "".join(
        f'<label class="pick"><input type="checkbox" data-fork="{i}" checked>{dot(i)}{esc(name)}</label>'
        for i, name in enumerate(forks)
    )
    choice = f'<label>Show <select id="week"><option value="">all weeks</option>{options}</select></label>'
    return f"<fieldset><legend>Forks</legend>{boxes}</fieldset>{choice if len(weeks) > 1 else ''}"


# --- the sections -----------------------------------------------------------------------------------------------------


def overview(table: dict[str, Any]) -> str:
    """One row a week, one column a fork; then what is to be said about the forks."""
    from course.compare.table import notes

    rows = []
    for week in table["weeks"]:
        cells = "".join(week_cell(i, fork["weeks"][week["week"]]) for i, fork in enumerate(table["forks"]))
        possible = sum(function["points"] for function in week["functions"])
        name = f'{esc(week["title"])} <span class="small">{possible} p</span>'
        link = f'<a href="#w{week["week"]}">{week["week"]}</a> {name}'
        rows.append(f'<tr data-week="{week["week"]}"><th scope="row">{link}</th>{cells}</tr>')
    versions = [
        f"{fork['name']} {' at '.join(filter(None, (fork['place'], fork['version'])))}"
        for fork in table["forks"]
        if fork["place"]
    ]
    said = "".join(f"<li>{esc(line)}</li>" for line in notes(table))
    return (
        f'<section id="overview"><h2>Who passed what</h2>{grid("Points and stars by week", table, rows)}'
        f'<p class="small">✓ all required functions right, ✗ not yet; points; ★ functions that also survive the edge '
        f"cases. Graded {esc(table['made'])}{'; ' if versions else ''}{esc('; '.join(versions))}.</p>"
        + (f'<ul class="notes">{said}</ul>' if said else "")
        + "</section>"
    )


def week_cell(number: int, week: dict[str, Any]) -> str:
    if not week["exercises"]:
        return f'<td class="f{number} none"><span title="{esc(week["note"])}">—</span></td>'
    kind, mark = ("right", "✓") if week["green"] else ("wrong", "✗")
    return f'<td class="f{number} {kind}">{mark} {week["points"]} ★{week["stars"]}</td>'
