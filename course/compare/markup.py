"""The small pieces of the page's HTML. Whatever a fork wrote goes through `esc`."""

import html
from typing import Any


def esc(text: Any) -> str:
    """Text as text."""
    return html.escape(str(text), quote=True)


def dot(number: int) -> str:
    return f'<span class="dot f{number}" aria-hidden="true"></span>'


def grid(caption: str, table: dict[str, Any], rows: list[str], first: str = "") -> str:
    """A table with a column for each fork."""
    heads = "".join(
        f'<th scope="col" class="f{i}">{dot(i)}{esc(fork["name"])}</th>' for i, fork in enumerate(table["forks"])
    )
    size = "grid many" if len(table["forks"]) > 6 else "grid"
    return (
        f'<div class="wide"><table class="{size}"><caption>{esc(caption)}</caption><thead><tr><th scope="col">'
        f"{esc(first)}</th>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )
