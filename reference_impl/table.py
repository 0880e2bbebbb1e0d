"""reference_impl/README.md: the algorithms as a table. `python -m reference_impl.table` writes it anew."""

from pathlib import Path

from reference_impl.algorithms import ALGORITHMS, Algorithm

README = Path(__file__).parent / "README.md"
INTRODUCTION = """\
# The reference

The same functions as in the weeks, careful and fast, and everything around them: models, tasks, the sampler, the loops,
the run folder (its numbers are defined in [runs/METRICS.md](runs/METRICS.md)). Graders and launchers trust this code;
tests prove it against exact sums, against TRL and against known wrong variants. Every algorithm is a row of
[algorithms.py](algorithms.py), and this page is made from it by `python -m reference_impl.table`: edit the rows.

`--algorithm NAME` trains one. Those marked with \\* are no exercises: they run from this folder alone.

Notation: pi is the policy and ref the reference, r a reward, A an advantage, rho = pi/pi_old of a token, clip(rho) its
value cut to 1 - clip_low ... 1 + clip_high, sg a constant, sigma the logistic function, (P, G) prompts by completions,
B = P G. Losses are minimised. The two last columns say where the book's code and TRL 1.16 do otherwise ("none": they
do not have it); how each week's lesson reads such differences is under "In the wild" in its README.
"""


def page() -> str:
    """The whole of README.md."""
    parts = [INTRODUCTION]
    for week in sorted({row.week for row in ALGORITHMS.values()}):
        rows = [row for row in ALGORITHMS.values() if row.week == week]
        parts += [f"## Week {week}\n", *head(), *map(line, rows), ""]
    return "\n".join(parts)


def head() -> list[str]:
    titles = ("name", "paper", "formula", "defaults", "the book's code", "TRL")
    return ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]


def line(row: Algorithm) -> str:
    """One algorithm; `|` would end a cell."""
    name = f"`{row.name}`" + ("" if row.needs else " \\*")
    defaults = ", ".join(f"`{key}={value}`" for key, value in row.defaults.items()) or "the week's"
    cells = [row.paper, f"`{row.formula}`", defaults, row.book, row.trl]
    return "| " + " | ".join([name, *(cell.replace("|", "\\|") for cell in cells)]) + " |"


if __name__ == "__main__":
    README.write_text(page(), encoding="utf-8")
