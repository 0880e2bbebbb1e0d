"""The `rlhf` command: quick help, one message for a mistake, a demo that ends in a table."""

import subprocess
import sys
import time

import pytest

from course import cli, demo
from reference_impl.implementations import ROOT


def rlhf(*args: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "course.cli", *args], cwd=ROOT, capture_output=True, text=True)


def test_help_lists_the_commands_in_well_under_a_second():
    began = time.perf_counter()
    done = rlhf("--help")
    assert time.perf_counter() - began < 1
    assert done.returncode == 0 and "train" in done.stdout and "demo" in done.stdout


def test_help_of_a_command_imports_neither_torch_nor_transformers():
    code = "import sys; from course import train, demo; print({'torch', 'transformers', 'wandb'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


@pytest.mark.parametrize(
    "args, message",
    [
        (["trian"], "no command 'trian'; did you mean 'train'"),
        (["train", "12"], "no week '12'"),
        (["train", "05", "--algorithm", "rlo"], "did you mean 'rloo'"),
        (["train", "05", "--set", "lr=-1"], "lr=-1"),
        (["demo", "13"], "no week '13'"),
        (["demo", "05", "--impl", "nobody"], "--impl nobody"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(args, message):
    done = rlhf(*args)
    assert done.returncode == 2
    assert message in done.stderr and "Traceback" not in done.stderr


def test_the_table_shows_before_and_after_speed_and_time(capsys):
    results = {"sampled_accuracy_before": 0.4, "sampled_accuracy": 0.7, "tokens_per_second": 12345.6}
    demo.console.print(demo.table({"rloo": {"results": results, "seconds": 21.4}}))
    printed = capsys.readouterr().out
    assert "0.400 -> 0.700" in printed and "12,346" in printed and "21" in printed
    assert max(map(len, printed.splitlines())) <= 80


def test_a_week_without_accuracies_shows_all_its_results(capsys):
    demo.console.print(demo.table({"tabular": {"results": {"gap beta=0.1": 0.0012}, "seconds": 3.0}}))
    assert "gap beta=0.1" in capsys.readouterr().out


def test_every_command_can_be_imported():
    from importlib import import_module

    for module, about in cli.COMMANDS.values():
        assert callable(import_module(module).main) and about
