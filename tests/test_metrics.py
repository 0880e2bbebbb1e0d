"""METRICS.md defines every number that a loop logs, once; the table of algorithms is current."""

import re
from collections import defaultdict

import pytest

from reference_impl.algorithms import ALGORITHMS
from reference_impl.implementations import ROOT
from reference_impl.launch import find_launcher, launch
from reference_impl.options import Options
from reference_impl.runs.run import read_metrics
from reference_impl.table import README, page

POLICY = ("max_new_tokens=12", "eval_prompts=4", "final_eval_prompts=4", "eval_every=1")
RL = (*POLICY, "prompts_per_step=2", "group=4")
REWARD = (*POLICY, "reward_prompts=16", "samples_per_prompt=4", "held_out_samples=4", "max_new_tokens=28")
PAIRS = (*POLICY, "pair_prompts=40", "samples_per_prompt=4", "held_out_pairs=4", "batch_size=4", "max_new_tokens=28")
PROXY = ("proxy_prompts=12", "proxy_steps=2", "bon_prompts=4", "bon_samples=8", "max_new_tokens=28")
RUNS = (  # loop, week, algorithm, settings: together they log all there is to log
    ("objective", "01", "tabular", ("reward_prompts=8", "eval_prompts=8", "eval_every=1", "kl_weights=[0.2, 1.0]")),
    ("sft", "02", "sft", (*POLICY, "demonstrations=64", "batch_size=8")),
    ("outcome", "03", "reward-models", REWARD),
    ("process", "04", "prm", REWARD),
    ("rl", "05", "rloo", RL),
    ("rl", "06", "ppo", (*RL, "epochs=2", "minibatches=2")),
    ("preference", "08", "dpo", PAIRS),
    ("preference", "09", "kto", PAIRS),
    ("rejection", "10", "top-per-prompt", (*POLICY, "sample_prompts=4", "samples_per_prompt=4", "batch_size=4")),
    ("rl", "11", "overoptimization", (*RL, *PROXY)),
    ("distill", "11", "sdpo", (*RL, "max_new_tokens=28", "habit=null")),
)


def dictionary() -> list[tuple[str, set[str]]]:
    """(name, the loops that log it) of each row of METRICS.md."""
    page = (ROOT / "reference_impl" / "runs" / "METRICS.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]
    assert all(len(row) == 5 and all(row) for row in cells), "name, definition, unit, loops, how to read it"
    every = {loop for loop, *_ in RUNS}
    return [(row[0].strip("`"), every if row[3] == "all" else set(row[3].split(", "))) for row in cells]


def defined_as(logged: str) -> list[str]:
    """The names of METRICS.md that `logged` goes under, `loss_orm` under `loss_<model>`."""
    models, number = "(bt|orm|prm)", r"[\d.e+-]+"
    return [
        name
        for name, _ in dictionary()
        if re.fullmatch(name.replace("<model>", models).replace("<beta>", number), logged)
    ]


@pytest.fixture(scope="module")
def logged(tmp_path_factory) -> dict[str, set[str]]:
    """name -> the loops that logged it, in a few steps of each."""
    found = defaultdict(set)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "disabled")
        for loop, week, algorithm, settings in RUNS:
            runs_dir = tmp_path_factory.mktemp(f"{week}-{algorithm}")
            options = Options(algorithm=algorithm, impl="reference", steps=3, set=settings, runs_dir=runs_dir)
            summary = launch(find_launcher(week), options)
            for row in read_metrics(runs_dir / summary["path"]):
                for name in row:
                    found[name].add(loop)
    return found


def test_no_name_is_defined_twice():
    names = [name for name, _ in dictionary()]
    assert len(set(names)) == len(names)


def test_every_logged_number_is_defined_exactly_once(logged):
    assert {name: defined_as(name) for name in logged if len(defined_as(name)) != 1} == {}


def test_every_definition_names_the_loops_that_log_it(logged):
    said = dict(dictionary())
    seen = defaultdict(set)
    for name, loops in logged.items():
        for row in defined_as(name):
            seen[row] |= loops
    assert dict(seen) == said


def test_the_table_of_algorithms_is_the_one_that_the_rows_give():
    assert README.read_text(encoding="utf-8") == page(), "run `python -m reference_impl.table`"


def test_every_algorithm_says_where_it_comes_from_and_how_others_do_it():
    empty = [row.name for row in ALGORITHMS.values() if not (row.paper and row.formula and row.book and row.trl)]
    assert empty == []
