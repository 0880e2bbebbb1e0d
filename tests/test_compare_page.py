"""The HTML file of `rlhf compare`: what stands in it, and, where Chromium is installed, what it does when clicked."""

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from course.compare import gather, page, runs
from course.compare.code import versions
from course.compare.forks import Fork
from graders.exercises import CHECKOUT, load_week

sys.path.insert(0, str(Path(__file__).parent))
from chromium import CHROMIUM, Page  # noqa: E402

SOLUTION = (CHECKOUT / "solutions" / "05" / "reinforce.py").read_text()
EVIL = "</script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"
NAMES = ["ours", "red", "blue", "green"]


def graded(number: int) -> dict:
    """What grading gives for one fork: fork 1 has a named mistake, fork 2 code and words that are hostile markup."""
    exercises = []
    for place, exercise in enumerate(load_week("05").exercises):
        wrong = (number, place) in ((1, 1), (2, 2))
        failure = {"test": "t", "claim": "a claim", "status": "failed", "kind": "value", "words": f"wrong {EVIL}"}
        failure |= {"input": EVIL, "expected": "1", "got": EVIL}
        failure |= {"misconception": "includes itself" if number == 1 else None}
        rung = {"passed": int(not wrong), "expected": 1}
        exercises.append(
            {"name": exercise.name, "state": "written", "green": not wrong, "star": not wrong, "points_possible": 4}
            | {"points": 0 if wrong else 4, "checks": rung, "robust": rung, "not_passed": [failure] if wrong else []}
        )
    source = SOLUTION.replace("others", "the_rest") if number == 0 else SOLUTION
    source += f"\n\ndef batch_baseline(rewards):\n    # {EVIL}\n    return rewards * 0\n" if number == 2 else ""
    source += (
        "\n\ndef rloo_advantages(rewards):\n    return rewards - rewards.mean(1, keepdim=True)\n" if number == 1 else ""
    )
    return {
        "exercises": exercises,
        "points": 16,
        "points_possible": 20,
        "stars": 4,
        "green": number in (0, 3),
        "seconds": 1.0,
        "speed": {exercise["name"]: 1e-4 * (number + 1) for exercise in exercises if exercise["green"]},
        "code": versions(source, [exercise["name"] for exercise in exercises]),
        "note": EVIL if number == 2 else "",
    }


def made_runs(folder: Path) -> list[dict]:
    """A run of three forks, with numbers that differ."""
    found = []
    for number, name in enumerate(NAMES[:3]):
        path = folder / name / "runs" / "run"
        path.mkdir(parents=True)
        config = "week: '05'\nalgorithm: rloo\nimpl: student\nscale: nano\nseed: 0\n"
        (path / "config.yaml").write_text(config + f'"{EVIL[:9]}": 1\n')
        rows = [
            {"step": s, "reward_mean": 0.5 + s / 500 - 0.1 * number, "loss": number + 1 / (s + 1)} for s in range(50)
        ]
        (path / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
        (path / "summary.json").write_text(json.dumps({"status": EVIL, "experiment": None, "results": {}}))
        found += runs.find_runs(name, folder / name, ["05"])
    return found


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    forks = [Fork(name, EVIL if name == "green" else ".", note="" if name != "green" else EVIL) for name in NAMES]
    results = {(name, "05"): graded(number) for number, name in enumerate(NAMES) if name != "green"}
    table = gather.gather(forks, ["05", "06"], results, made_runs(folder))
    (folder / "page.html").write_text(page.render(table), encoding="utf-8")
    return folder / "page.html"


class Tags(HTMLParser):
    """Every tag with its attributes."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def test_nothing_is_loaded_and_nothing_of_a_fork_is_markup(file):
    tags = Tags(file.read_text(encoding="utf-8")).tags
    assert [attributes for tag, attributes in tags if tag in ("img", "link", "iframe", "object", "base")] == []
    assert [a.get("type") for tag, a in tags if tag == "script"] == ["application/json", None, None]
    assert not [a for _, a in tags if {"src", "onerror", "onclick"} & a.keys()]
    assert all(a["href"].startswith("#") for tag, a in tags if tag == "a")
    policy = next(a["content"] for tag, a in tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; script-src 'sha256-") and "script-src 'unsafe" not in policy


def test_every_figure_has_words_and_numbers(file):
    text = file.read_text(encoding="utf-8")
    figures = re.findall(r"<figure>.*?</figure>", text, flags=re.S)
    assert figures and all('role="img" aria-label="Training curves of' in each for each in figures)
    assert all("<caption>Last values of" in each and "reference" in each for each in figures)


def test_links_lead_somewhere_and_tables_have_heads(file):
    tags = Tags(file.read_text(encoding="utf-8")).tags
    ids = {attributes["id"] for _, attributes in tags if "id" in attributes}
    assert {attributes["href"][1:] for tag, attributes in tags if tag == "a"} <= ids
    assert all("scope" in attributes for tag, attributes in tags if tag == "th")


# --- in a browser -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser(file):
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    opened = Page(file)
    opened.until("document.querySelectorAll('.plot .legendtoggle').length > 3")
    yield opened
    opened.close()


def lines(browser, name: str) -> list:
    """Which of a fork's lines plotly shows."""
    script = f"[...document.querySelector('.plot')._fullData].filter(t => t.name === {name!r}).map(t => t.visible)"
    return browser.run(script)


def test_the_page_runs_without_an_error_and_loads_nothing(browser, file):
    assert browser.errors == [] and browser.loaded == [file.as_uri()]
    assert browser.run("document.title") == "Weeks 05, 06: 4 forks"


def test_a_click_in_the_legend_hides_a_fork_in_all_panels_and_shows_it_again(browser):
    assert lines(browser, "red") == [True, True]
    item = "[...document.querySelectorAll('.plot .traces')].find(e => e.textContent === 'red')"
    browser.run(f"{item}.querySelector('.legendtoggle').setAttribute('id', 'legend-red')")
    browser.click("#legend-red")
    browser.until(
        "document.querySelector('.plot')._fullData.filter(t => t.name === 'red').every(t => t.visible !== true)"
    )
    assert lines(browser, "ours") == [True, True]
    browser.run(f"{item}.querySelector('.legendtoggle').setAttribute('id', 'legend-red')")
    browser.click("#legend-red")
    browser.until(
        "document.querySelector('.plot')._fullData.filter(t => t.name === 'red').every(t => t.visible === true)"
    )


def test_the_filter_hides_a_fork_in_tables_and_figures_by_keyboard_too(browser):
    shown = "[...document.querySelectorAll('main th.f1')].filter(e => e.offsetParent).length"
    assert browser.run(shown) > 0
    browser.click("input[data-fork='1']")
    browser.until(f"{shown} === 0")
    assert lines(browser, "red") == [False, False] and lines(browser, "blue") == [True, True]
    browser.run("document.querySelector('input[data-fork=\"1\"]').focus()")
    browser.key(" ", 32)
    browser.until(f"{shown} > 0")
    assert lines(browser, "red") == [True, True]


def test_one_week_can_be_shown_alone(browser):
    browser.run("(e => { e.value = '06'; e.dispatchEvent(new Event('change')); })(document.getElementById('week'))")
    assert browser.run(
        "document.getElementById('w05').offsetParent === null && !!document.getElementById('w06').offsetParent"
    )
    browser.run("(e => { e.value = ''; e.dispatchEvent(new Event('change')); })(document.getElementById('week'))")
    assert browser.run("!!document.getElementById('w05').offsetParent")


def test_code_is_opened_by_keyboard_with_its_differences_marked(browser):
    details = "[...document.querySelectorAll('details.code')].find(d => d.textContent.startsWith('rloo_advantages'))"
    browser.run(f"{details}.querySelector('summary').focus()")
    browser.key("Enter", 13)
    browser.until(f"{details}.querySelector('.diff')")
    assert browser.run(f"{details}.querySelectorAll('select').length") == 2
    signs = browser.run(f"[...{details}.querySelectorAll('.sign')].map(e => e.textContent).join('')")
    assert {"−", "~"} & set(signs)
    choose = "(s => {{ s.selectedIndex = 0; s.dispatchEvent(new Event('change')); }})({}.querySelectorAll('select')[1])"
    browser.run(choose.format(details))
    assert browser.run(f"[...{details}.querySelectorAll('.sign')].map(e => e.textContent).join('')") == ""


def test_a_red_cell_leads_to_its_failure(browser):
    browser.click("td.wrong a")
    browser.until("document.querySelector('details.failure:target')?.open")
    assert "wrong </script>" in browser.run("document.querySelector('details.failure:target').textContent")


def test_hostile_text_is_shown_as_text(browser):
    assert browser.run("document.title") == "Weeks 05, 06: 4 forks"
    assert browser.run("document.querySelector('.notes').textContent.includes('onerror')")


def contrast(a: list[float], b: list[float]) -> float:
    """WCAG's contrast ratio of two colours."""

    def light(colour):
        parts = [c / 255 for c in colour]
        parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    high, low = sorted((light(a), light(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_and_lines_can_be_told_from_the_page_in_both_themes(browser, theme, tmp_path):
    if browser.run("document.documentElement.dataset.theme") != theme:
        browser.click("#theme")
    assert browser.run("document.documentElement.dataset.theme") == theme
    names = [
        "page",
        "card",
        "text",
        "soft",
        "link",
        "right",
        "right-text",
        "wrong",
        "wrong-text",
        *(f"c{i}" for i in range(10)),
    ]
    read = "getComputedStyle(document.documentElement).getPropertyValue('--{}').trim()"
    found = {name: browser.run(read.format(name)) for name in names}
    colours = {name: [int(text[at : at + 2], 16) for at in (1, 3, 5)] for name, text in found.items()}
    for text, behind in (("text", "page"), ("text", "card"), ("soft", "page"), ("soft", "card"), ("link", "page")):
        assert contrast(colours[text], colours[behind]) >= 4.5, (text, behind)
    for kind in ("right", "wrong"):
        assert contrast(colours[f"{kind}-text"], colours[kind]) >= 4.5, kind
    for i in range(10):
        assert contrast(colours[f"c{i}"], colours["page"]) >= 3.0, i
    assert len(browser.picture(tmp_path / "page.png")) > 20_000


def test_the_page_is_not_wider_than_a_window_of_1280_pixels(browser):
    assert browser.run("document.documentElement.scrollWidth <= 1280")


def test_the_theme_is_that_of_the_system_at_first(file):
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    opened = Page(file, dark=True)
    try:
        assert opened.run("document.documentElement.dataset.theme") == "dark"
    finally:
        opened.close()
