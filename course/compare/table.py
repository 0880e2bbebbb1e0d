"""The comparison in the terminal: who has how many points, who has which mistake, and what could not be graded."""

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table


def show(table: dict[str, Any], console: Console) -> None:
    """One row a week, one column a fork."""
    grid = Table("week", box=None, pad_edge=False)
    for fork in table["forks"]:
        grid.add_column(escape(fork["name"]), overflow="fold", min_width=6)
    for week in table["weeks"]:
        grid.add_row(week["week"], *(cell(fork["weeks"][week["week"]]) for fork in table["forks"]))
    console.print(grid)
    console.print("✓ all required functions right; points; ★ functions that survive the edge cases too\n", style="dim")
    for week in table["weeks"]:
        for mistake in week["mistakes"]:
            who = ", ".join(mistake["forks"])
            console.print(
                f"week {week['week']}, {mistake['function']}, “{mistake['name']}”: {escape(who)}", soft_wrap=True
            )
    for line in notes(table):
        console.print(escape(line), soft_wrap=True)


def cell(week: dict[str, Any]) -> str:
    """Points and stars, or a dash."""
    if not week["exercises"]:
        return "—"
    mark = "[green]✓[/]" if week["green"] else "[red]✗[/]"
    return f"{mark}{week['points']}★{week['stars']}"


def notes(table: dict[str, Any]) -> list[str]:
    """What is to be said about forks and their weeks; a note that holds for the whole fork is said once."""
    lines = []
    for fork in table["forks"]:
        lines += [f"{fork['name']}: {fork['note']}"] if fork["note"] else []
        by_note: dict[str, list[str]] = {}
        for week, score in fork["weeks"].items():
            if score["note"] and score["note"] != fork["note"]:
                by_note.setdefault(score["note"], []).append(week)
        lines += [f"{fork['name']}, week {', '.join(weeks)}: {note}" for note, weeks in by_note.items()]
    return lines
