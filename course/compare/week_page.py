"""One week's section of the page: functions, mistakes, curves, code, speed, failures."""

from typing import Any

from course.compare.markup import dot, esc, grid


def sections(table: dict[str, Any]) -> list[str]:
    """Each week's section."""
    found, figure, code = [], 0, 0
    for week in table["weeks"]:
        parts = [passed(table, week), mistakes(table, week), curves(table, week, figure)]
        parts += [side_by_side(week, code), speed(table, week), failures(table, week)]
        figure, code = figure + len(week["figures"]), code + len(week["code"])
        number, title = week["week"], f"<h2>Week {week['week']} · {esc(week['title'])}</h2>"
        found.append(f'<section id="w{number}" class="week" data-week="{number}">{title}{"".join(parts)}</section>')
    return found


def passed(table: dict[str, Any], week: dict[str, Any]) -> str:
    """One row a function, one column a fork."""
    rows = []
    for function in week["functions"]:
        cells = []
        for i, fork in enumerate(table["forks"]):
            found = [e for e in fork["weeks"][week["week"]]["exercises"] if e["name"] == function["name"]]
            cells.append(function_cell(i, found[0] if found else None, anchor(week["week"], i, function["name"])))
        points = f"{function['points']} p{', stretch' if function['stretch'] else ''}"
        name = f'<code>{esc(function["name"])}</code> <span class="small">{points}</span>'
        rows.append(f'<tr><th scope="row">{name}</th>{"".join(cells)}</tr>')
    return "<h3>Functions</h3>" + grid(f"Functions of week {week['week']} by fork", table, rows)


def anchor(week: str, number: int, function: str) -> str:
    return f"x{week}-{number}-{esc(function)}"


def function_cell(number: int, e: dict[str, Any] | None, target: str) -> str:
    if e is None:
        return f'<td class="f{number} none">—</td>'
    if e["green"]:
        star = "★" if e["star"] else f'<a href="#{target}" title="the star is lost; why">☆</a>'
        return f'<td class="f{number} right">✓ {star}</td>'
    if e["state"] in ("not written", "missing") and not e["failures"]:
        return f'<td class="f{number} none">{esc(e["state"])}</td>'
    named = next((f["misconception"] for f in e["failures"] if f["misconception"]), None)
    kinds = {"hang": "does not return", "crash": "crashes", "import": "does not load", "signature": "wrong signature"}
    words = named or next((kinds[f["kind"]] for f in e["failures"] if f["kind"] in kinds), "wrong")
    return f'<td class="f{number} wrong">✗ <a href="#{target}">{esc(words)}</a></td>'


def mistakes(table: dict[str, Any], week: dict[str, Any]) -> str:
    """The named misconceptions."""
    if not week["mistakes"]:
        return ""
    numbers = {fork["name"]: i for i, fork in enumerate(table["forks"])}
    cards = []
    for m in week["mistakes"]:
        who = "".join(f'<li class="f{numbers[name]}">{dot(numbers[name])}{esc(name)}</li>' for name in m["forks"])
        told = [
            ("It computes", "computed"),
            ("Why that is wrong", "why"),
            ("In training", "effect"),
            ("Read", "lesson"),
        ]
        lines = "".join(f"<dt>{label}</dt><dd>{esc(m[key])}</dd>" for label, key in told if key in m)
        head = f"<code>{esc(m['function'])}</code>: {esc(m['name'])}"
        cards.append(f'<li class="card"><h4>{head}</h4><ul class="who">{who}</ul><dl>{lines}</dl></li>')
    return f'<h3>Named mistakes</h3><ul class="cards">{"".join(cards)}</ul>'


def curves(table: dict[str, Any], week: dict[str, Any], first: int) -> str:
    """Each algorithm's figure with the same in numbers beneath it."""
    figures = [figure(table, each, first + i) for i, each in enumerate(week["figures"])]
    return f"<h3>Training curves</h3>{''.join(figures)}" if figures else ""


HOW = (
    "Click a name in the legend, or a fork at the top of the page, to hide and show it; drag to zoom, double-click to "
    "zoom out."
)


def figure(table: dict[str, Any], each: dict[str, Any], number: int) -> str:
    numbers = {fork["name"]: i for i, fork in enumerate(table["forks"])}
    name = each["experiment"] or each["algorithm"]
    band = f"The band is the range over {each['seeds']} reference seeds" if each["seeds"] else "No reference runs exist"
    band += f", whose settings differ in {', '.join(each['differs'])}." if each["differs"] else "."
    heads = "".join(f'<th scope="col">{esc(panel["label"])}</th>' for panel in each["panels"])
    rows = []
    for run in each["runs"]:
        i = numbers[run["fork"]]
        cells = "".join(f"<td>{last_value(panel, run)}</td>" for panel in each["panels"])
        rate = f"{run['tokens_per_second']:,.0f}" if run["tokens_per_second"] else "—"
        who = f"{dot(i)}{esc(run['fork'])}, seed {run['seed']}"
        rows.append(
            f'<tr class="f{i}"><th scope="row">{who}</th>{cells}<td>{rate}</td><td>{esc(run["status"])}</td></tr>'
        )
    cells = "".join(f"<td>{band_value(panel)}</td>" for panel in each["panels"])
    rows.append(f'<tr><th scope="row">reference</th>{cells}<td>—</td><td></td></tr>' if each["seeds"] else "")
    label = f"Training curves of {name}: {', '.join(panel['label'] for panel in each['panels'])}"
    return (
        f'<figure><figcaption><h4>{esc(name)} <span class="small">{esc(each["scale"])}</span></h4></figcaption>'
        f'<div class="plot" role="img" aria-label="{esc(label)}; the table below has the last values" '
        f'data-figure="{number}"></div><p class="small">{esc(band)} {HOW}</p>'
        f'<div class="wide"><table class="numbers"><caption>Last values of {esc(name)}</caption><thead><tr>'
        f'<th scope="col">run</th>{heads}<th scope="col">tokens/s</th><th scope="col">status</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div></figure>"
    )


def last_value(panel: dict[str, Any], run: dict[str, Any]) -> str:
    found = [
        line["points"][-1][1] for line in panel["lines"] if (line["fork"], line["seed"]) == (run["fork"], run["seed"])
    ]
    return f"{found[-1]:.3g}" if found else "—"


def band_value(panel: dict[str, Any]) -> str:
    band = panel["band"]
    return f"{band['low'][-1]:.3g} to {band['high'][-1]:.3g}" if band else "—"


def side_by_side(week: dict[str, Any], first: int) -> str:
    """Each function's approaches; the scripts lay two of them side by side when it is opened."""
    parts = []
    for number, (function, groups) in enumerate(week["code"].items(), first):
        forks = sum(len(group["forks"]) for group in groups)
        ways = sum(bool(group["forks"]) for group in groups)
        told = f"{ways} approach{'es' if ways > 1 else ''} in {forks} fork{'s' if forks > 1 else ''}"
        parts.append(
            f'<details class="code" data-code="{number}"><summary><code>{esc(function)}</code> '
            f'<span class="small">{told}</span></summary><ol class="ways">{"".join(map(way, groups))}</ol></details>'
        )
    note = "One approach: equal but for comments, annotations, names of local variables and helpers."
    return f'<h3>The same function, side by side</h3><p class="small">{note}</p>{"".join(parts)}' if parts else ""


def way(group: dict[str, Any]) -> str:
    names = [*group["forks"], *(["the worked solution"] if group["solution"] else [])]
    return f"<li>{esc(', '.join(names))} {'✓' if group['green'] else '✗'}</li>"


def speed(table: dict[str, Any], week: dict[str, Any]) -> str:
    """Microseconds a call of every right function; the fastest is marked."""
    rows = []
    for function in week["functions"]:
        times = [fork["weeks"][week["week"]].get("speed", {}).get(function["name"]) for fork in table["forks"]]
        if any(times):
            best = min(filter(None, times))
            cells = "".join(speed_cell(i, time, best) for i, time in enumerate(times))
            rows.append(f'<tr><th scope="row"><code>{esc(function["name"])}</code></th>{cells}</tr>')
    if not rows:
        return ""
    note = (
        "Median time of a call on the inputs of the checks, of functions that are right, as each fork's "
        "process reports it. The inputs are small, so this tells how many operations Python is asked for; "
        "tokens/s of a run says more."
    )
    return f'<h3>Speed</h3>{grid("Microseconds a call", table, rows)}<p class="small">{note}</p>'


def speed_cell(number: int, time: float | None, best: float) -> str:
    if not time:
        return f'<td class="f{number} none">—</td>'
    ratio = "" if time == best else f' <span class="small">× {time / best:.1f}</span>'
    return f'<td class="f{number}{" best" if time == best else ""}">{time:,.0f} µs{ratio}</td>'


def failures(table: dict[str, Any], week: dict[str, Any]) -> str:
    """Why each red function is red, and each star lost."""
    parts, lost = [], []  # the lost stars come last
    for i, fork in enumerate(table["forks"]):
        for e in fork["weeks"][week["week"]]["exercises"]:
            if not e["failures"]:
                continue
            shown = "".join(map(failure, e["failures"][:3]))
            more = len(e["failures"]) - 3
            shown += f"<p>… and {more} more of its checks</p>" if more > 0 else ""
            what = "star lost" if e["green"] else f"{e['checks']['passed']} of {e['checks']['expected']} checks pass"
            head = f"{dot(i)}{esc(fork['name'])}: <code>{esc(e['name'])}</code> <span class='small'>{what}</span>"
            target = anchor(week["week"], i, e["name"])
            part = f'<details class="f{i} failure" id="{target}"><summary>{head}</summary>{shown}</details>'
            (lost if e["green"] else parts).append(part)
    return f"<h3>Failures, one by one</h3>{''.join([*parts, *lost])}" if parts or lost else ""


def failure(f: dict[str, Any]) -> str:
    pairs = [(label, f[key]) for label, key in (("input", "input"), ("expected", "expected"), ("got", "got")) if f[key]]
    lines = "".join(
        f"<dt>{label}</dt><dd><pre>{esc(text if len(text) <= 700 else text[:700] + ' …')}</pre></dd>"
        for label, text in pairs
    )
    named = f' <span class="named">“{esc(f["misconception"])}”</span>' if f["misconception"] else ""
    lines += f"<dt>remedy</dt><dd>{esc(f['remedy'])}</dd>" if f.get("remedy") else ""
    return f"<p><strong>{esc(f['claim'])}</strong>{named}<br>{esc(f['words'])}</p><dl class='values'>{lines}</dl>"
