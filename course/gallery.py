"""`rlhf gallery 05`: what each bug looks like on the curves.

Known wrong versions of a week's functions (graders/misconceptions) are plugged into the week's launcher one at a time
and trained beside the right version: one seed, one start, the same settings. Which bugs, and which curve tells each of
them, stands in graders/gallery/NN.toml; every number in the figure is measured by these runs.
"""

import json
import os
import textwrap
import tomllib
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated

from tyro.conf import Positional, arg

from graders import misconceptions
from graders.misconceptions import Misconception
from reference_impl.config import nearest
from reference_impl.errors import UserError
from reference_impl.implementations import ROOT, shown, week_folder, week_name
from reference_impl.launch import Launcher, clean_exit, find_launcher, launch
from reference_impl.options import Options, value
from reference_impl.runs.files import write_text
from reference_impl.runs.plots import PANELS, SHARES, save_figure, smooth
from reference_impl.runs.progress import console
from reference_impl.runs.run import machine, read_metrics

BUGS = ROOT / "graders" / "gallery"
RIGHT = "right"
LABELS = dict(PANELS) | {f"kl_beta_{beta}": f"KL at beta {beta} (nats)" for beta in (0.1, 2)}
DIGITS, POINTS = 4, 10  # of the kept numbers; of a smoothed curve


@dataclass(frozen=True)
class Bug:
    """One panel: a misconception, the metric that tells it from the right version, and what is to be seen. A bug may
    have two panels; it is trained once."""

    function: str
    name: str
    metric: str
    look: str

    @property
    def key(self) -> str:
        return f"{self.function}: {self.name}"


@dataclass(frozen=True)
class Gallery:
    """One week's panels and the settings of its runs."""

    week: str
    algorithm: str
    set: tuple[str, ...]
    bugs: tuple[Bug, ...]


@dataclass(frozen=True)
class GalleryCommand:
    """Train a week's known bugs beside the right version, and draw what each looks like on the curves."""

    week: Annotated[Positional[str], arg(metavar="WEEK")]
    """The week, for example 05."""
    seed: Annotated[int, value("N")] = 0
    """Seed of all runs."""
    only: Annotated[tuple[str, ...], value("NAME ...")] = ()
    """Only the bugs of these names."""
    set: Annotated[tuple[str, ...], value("KEY=VALUE ...")] = ()
    """Settings changed in all runs, for example --set steps=20."""
    publish: bool = False
    """Write the figure and its numbers into weeks/NN as well."""
    redraw: bool = False
    """Draw weeks/NN/gallery.png from its numbers again, with the words of the list; nothing is trained."""
    runs_dir: Annotated[Path, value("FOLDER")] = ROOT / "runs"
    """Where the folder of the runs is made (default: runs/ in this checkout)."""


def main(args: list[str]) -> None:
    """Exits 2 with one message after a mistake, 130 after Ctrl-C."""
    import tyro

    with clean_exit():
        command = tyro.cli(GalleryCommand, prog="rlhf gallery", args=args)
        week = week_name(command.week)
        if command.redraw:
            write_page(reworded(read_published(week), read_gallery(week)), week_folder(week))
        else:
            produce(command, read_gallery(week))


def read_gallery(week: str) -> Gallery:
    """graders/gallery/NN.toml. UserError for a week without one."""
    path = BUGS / f"{week}.toml"
    if not path.is_file():
        have = ", ".join(sorted(path.stem for path in BUGS.glob("*.toml")))
        raise UserError(f"Week {week} has no gallery; there is one for {have}.")
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    return Gallery(week, table["algorithm"], tuple(table["set"]), tuple(Bug(**row) for row in table["bug"]))


def produce(command: GalleryCommand, gallery: Gallery) -> Path:
    """Train everything, write gallery.json and gallery.png; returns their folder."""
    bugs = chosen(gallery, command.only)
    folder = command.runs_dir / f"gallery-{gallery.week}-{datetime.now():%Y%m%d-%H%M%S}"
    os.environ["WANDB_MODE"] = "disabled"  # a dozen small runs are no diary
    launcher = find_launcher(gallery.week)
    options = Options(
        algorithm=gallery.algorithm, impl="reference", seed=command.seed, set=(*gallery.set, *command.set)
    )
    began = os.times()
    curves, ends = {}, {}
    for key, wrong in {RIGHT: None, **{bug.key: find(gallery.week, bug) for bug in bugs}}.items():
        console.rule(key, align="left")
        place = folder / ("right" if wrong is None else f"{wrong.function}-{wrong.name}".replace(" ", "-"))
        curves[key], ends[key] = trained(launcher, wrong, replace(options, runs_dir=place))
    curves = kept(curves, bugs)
    spent = os.times()
    page = {
        "week": gallery.week,
        "algorithm": gallery.algorithm,
        "seed": command.seed,
        "set": list(options.set),
        "command": f"rlhf gallery {gallery.week} --seed {command.seed}",
        "cpu_seconds": round(spent.user + spent.system - began.user - began.system),
        **machine(),
        "bugs": [described(bug, curves, ends[bug.key]) for bug in bugs],
        "curves": curves,
    }
    write_page(page, folder)
    if command.publish:
        write_page(page, week_folder(gallery.week))
    for bug in page["bugs"]:
        console.print(f"[bold]{bug['name']}[/] ({bug['function']}): {bug['look']}; {bug['measured']}", soft_wrap=True)
    console.print(f"{page['cpu_seconds']} s of CPU; {shown(folder)}/ has gallery.png, gallery.json and the runs")
    return folder


def chosen(gallery: Gallery, names: tuple[str, ...]) -> tuple[Bug, ...]:
    known = {bug.name for bug in gallery.bugs}
    for name in names:
        if name not in known:
            raise UserError(f"The gallery of week {gallery.week} has no bug {name!r}{nearest(name, known)}")
    return tuple(bug for bug in gallery.bugs if not names or bug.name in names)


def find(week: str, bug: Bug) -> Misconception:
    """The misconception of that name. UserError when there is none."""
    for wrong in misconceptions.load(week):
        if (wrong.function, wrong.name) == (bug.function, bug.name):
            return wrong
    raise UserError(f"graders/gallery/{week}.toml: there is no misconception {bug.name!r} of {bug.function}.")


def trained(launcher: Launcher, wrong: Misconception | None, options: Options) -> tuple[dict, str]:
    """One run: metric -> [(step, value), ...], and the error that ended it, if one did."""

    def train(functions: SimpleNamespace, *others):
        plugged = {wrong.function: wrong.implementation} if wrong else {}
        return launcher.train(SimpleNamespace(**vars(functions) | plugged), *others)

    end = ""
    try:
        launch(replace(launcher, train=train), options, graded=True)
    except Exception as error:  # what a bug can do to a run, too
        if wrong is None:
            raise
        end = f"the run ends with {type(error).__name__}: {str(error).splitlines()[0][:80] if str(error) else ''}"
        console.print(end)
    rows = [row for path in options.runs_dir.glob("*/metrics.jsonl") for row in read_metrics(path.parent)]
    return {name: [(row["step"], row[name]) for row in rows if name in row] for name in LABELS}, end


def described(bug: Bug, curves: dict[str, dict], end: str) -> dict:
    """What the figure says about a bug: `measured` holds the numbers of its metric, at the ends of the curves."""
    mine, right = (curves[key][bug.metric] for key in (bug.key, RIGHT))
    words = f"{LABELS[bug.metric]} {number(right[0])} at first"
    words += f", {number(mine[-1])} at the end" if mine else ", never logged"
    words += f" (right: {number(right[-1])})"
    words += f"; {end}" if end else ""
    return {"function": bug.function, "name": bug.name, "metric": bug.metric, "look": bug.look, "measured": words}


def number(point: list[float]) -> str:
    return f"{point[1]:.3g}"


def kept(curves: dict[str, dict], bugs: tuple[Bug, ...]) -> dict:
    """The smoothed curves of the panels, rounded: key -> metric -> points."""
    shown_of = {RIGHT: {bug.metric for bug in bugs}}
    for bug in bugs:
        shown_of.setdefault(bug.key, set()).add(bug.metric)
    return {
        key: {name: rounded(curves[key].get(name, [])) for name in sorted(names)} for key, names in shown_of.items()
    }


def rounded(points: list[tuple[float, float]]) -> list[list[float]]:
    return [[round(x, 2), float(f"{y:.{DIGITS}g}")] for x, y in smooth(points, POINTS)]


def write_page(page: dict, folder: Path) -> None:
    text = json.dumps(page, indent=1)
    write_text(folder / "gallery.json", text + "\n")
    draw(page, folder / "gallery.png")


def read_published(week: str) -> dict:
    path = week_folder(week) / "gallery.json"
    if not path.is_file():
        raise UserError(f"There is no {shown(path)} yet: `rlhf gallery {week} --publish` makes it.")
    return json.loads(path.read_text(encoding="utf-8"))


def reworded(page: dict, gallery: Gallery) -> dict:
    """The page with what the list says is to be seen now."""
    looks = {(bug.key, bug.metric): bug.look for bug in gallery.bugs}
    bugs = [bug | {"look": looks.get((key_of(bug), bug["metric"]), bug["look"])} for bug in page["bugs"]]
    return page | {"bugs": bugs}


def draw(page: dict, target: Path) -> None:
    """One panel a bug: its curve over that of the right version."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    bugs = page["bugs"]
    columns = 4 if len(bugs) > 6 else 3
    rows = -(-len(bugs) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(3.1 * columns, 3.1 * rows), squeeze=False)
    for axis in axes.flat[len(bugs) :]:
        axis.remove()
    for axis, bug in zip(axes.flat, bugs, strict=False):
        panel(axis, bug, page["curves"][RIGHT][bug["metric"]], page["curves"][key_of(bug)][bug["metric"]])
    axes.flat[0].legend(fontsize=10, frameon=False)
    figure.tight_layout()
    save_figure(figure, target)
    shrink(target)


def panel(axis, bug: dict, right: list, wrong: list) -> None:
    """The right curve, broad and pale; the bug's over it."""
    axis.plot(*zip(*right, strict=True), color="0.65", linewidth=5, label="right")
    axis.plot(*(zip(*wrong, strict=True) if wrong else ((), ())), color="C3", linewidth=2, label="with the bug")
    axis.set_title(textwrap.fill(bug["name"], 24), fontsize=12, fontweight="bold")
    axis.set_ylabel(textwrap.fill(LABELS[bug["metric"]], 28, break_on_hyphens=False), fontsize=9)
    axis.set_xlabel(textwrap.fill(bug["look"], 34), fontsize=10)
    axis.tick_params(labelsize=9)
    if bug["metric"] in SHARES:
        axis.set_ylim(0, 1.02)


def key_of(bug: dict) -> str:
    return f"{bug['function']}: {bug['name']}"


def shrink(picture: Path) -> None:
    """To 64 colours: a third of the size, for a file that is committed."""
    from PIL import Image

    with Image.open(picture) as image:
        small = image.convert("RGB").quantize(64)
    small.save(picture, optimize=True)
