"""Launchers train with whichever functions are plugged in, refuse by name what is missing, and say what went wrong."""

import re
import textwrap
from types import SimpleNamespace

import pytest
import torch

from reference_impl import precheck
from reference_impl.algorithms import ALGORITHMS
from reference_impl.errors import UserError
from reference_impl.implementations import (
    ROOT,
    impl_name,
    load_functions,
    require_written,
    unwritten,
    week_file,
    week_name,
)
from reference_impl.launch import clean_exit, find_launcher, launch, main
from reference_impl.options import Options

SMALL = (
    "prompts_per_step=2",
    "group=2",
    "max_new_tokens=4",
    "eval_prompts=2",
    "final_eval_prompts=2",
)
GOOD = """
import torch

def rloo_advantages(rewards):
    return rewards - rewards.mean(1, keepdim=True)

def policy_gradient_loss(logprobs, advantages, mask, aggregate, max_length=None):
    return -(advantages[:, None] * mask * logprobs).sum() / len(logprobs)
"""


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setattr(precheck, "red_functions", lambda week, impl: [])


def submission(tmp_path, text: str):
    folder = tmp_path / "lab" / "05"
    folder.mkdir(parents=True)
    (folder / "reinforce.py").write_text(textwrap.dedent(text))
    return str(tmp_path / "lab")


def train(tmp_path, impl: str, **changes):
    options = {"impl": impl, "policy": "random", "steps": 2, "set": SMALL, "runs_dir": tmp_path / "runs"} | changes
    return launch(find_launcher("05"), Options(**options))


def refused(tmp_path, text: str) -> str:
    """The message that ends a run with this submission."""
    with pytest.raises(UserError) as error:
        train(tmp_path, submission(tmp_path, text))
    return str(error.value)


def test_weeks_are_named_in_any_way():
    assert [week_name(name) for name in ("5", "05", "weeks/05", "weeks/05/")] == ["05"] * 4
    with pytest.raises(UserError, match="no week 'five'"):
        week_name("five")


def test_an_implementation_is_found_by_name_in_a_folder_of_weeks_and_in_a_fork(tmp_path):
    assert week_file("05", "student") == ROOT / "weeks/05/reinforce.py"
    assert week_file("05", "solution") == week_file("05", "solutions") == ROOT / "solutions/05/reinforce.py"
    assert week_file("05", "reference") == ROOT / "reference_impl/reinforce.py"
    lab = submission(tmp_path, GOOD)
    assert week_file("05", lab) == tmp_path / "lab/05/reinforce.py"
    (tmp_path / "fork").mkdir()
    (tmp_path / "lab").rename(tmp_path / "fork" / "weeks")
    assert week_file("05", str(tmp_path / "fork")) == tmp_path / "fork/weeks/05/reinforce.py"
    assert impl_name(str(tmp_path / "fork")) == "fork" and impl_name("student") == "student"
    with pytest.raises(UserError, match="no such folder. Did you mean 'solution'"):
        week_file("05", "soluton")
    with pytest.raises(UserError, match="no dpo.py for week 08"):
        week_file("08", str(tmp_path / "fork"))


def test_someone_elses_functions_are_the_ones_that_train(tmp_path):
    marked = GOOD + "\nCALLS = []\n"
    marked = marked.replace(
        "    return rewards - ", "    CALLS.append(1)\n    open(__file__ + '.ran', 'w').close()\n    return rewards - "
    )
    summary = train(tmp_path, submission(tmp_path, marked))
    assert (tmp_path / "lab/05/reinforce.py.ran").exists()
    assert summary["functions"] == str(tmp_path / "lab/05/reinforce.py") and "-lab-" in summary["path"]


def test_what_is_not_written_is_refused_by_name_before_training(tmp_path):
    half = GOOD.replace("    return rewards - rewards.mean(1, keepdim=True)", '    raise NotImplementedError("task 2")')
    message = refused(tmp_path, half)
    assert message.startswith(str(tmp_path / "lab/05/reinforce.py") + ": rloo_advantages is not written yet")
    assert not (tmp_path / "runs").exists()


def test_a_function_that_is_missing_is_not_written_either(tmp_path):
    assert "policy_gradient_loss is not written yet" in refused(tmp_path, GOOD[: GOOD.index("def policy")])


def test_stubs_are_unwritten_and_solutions_are_written():
    for row in ALGORITHMS.values():
        stub = ROOT / "weeks" / row.week / week_file(row.week, "reference").name
        if "NotImplementedError" in stub.read_text():
            assert unwritten(stub, row.needs) == list(row.needs)
        require_written(row.week, "reference", row.needs)


@pytest.mark.parametrize("week", sorted({row.week for row in ALGORITHMS.values()}))
def test_every_function_that_an_algorithm_needs_exists(week):
    functions = load_functions(week, "reference")
    for row in ALGORITHMS.values():
        if row.week == week:
            assert all(hasattr(functions, name) for name in row.needs)


def test_a_function_that_calls_an_unwritten_helper_says_so(tmp_path):
    text = GOOD.replace("    return rewards - rewards.mean(1, keepdim=True)", "    return helper(rewards)")
    text += '\ndef helper(rewards):\n    if True:\n        raise NotImplementedError("later")\n'
    message = refused(tmp_path, text)
    assert "rloo_advantages is not written yet" in message and "line" in message


def test_an_error_in_a_function_names_its_file_line_and_reason(tmp_path):
    message = refused(tmp_path, GOOD.replace("rewards.mean(1, keepdim=True)", "rewards.meen(1)"))
    assert re.search(r"lab/05/reinforce.py, line 5 \(`return rewards - rewards.meen\(1\)`\)", message)
    assert "rloo_advantages failed, AttributeError" in message


def test_a_syntax_error_is_one_message_with_its_line(tmp_path):
    message = refused(tmp_path, GOOD.replace("def policy_gradient_loss(", "def policy_gradient_loss(("))
    assert "syntax error" in message and re.search(r"line \d+", message)


def test_an_import_that_fails_is_one_message(tmp_path):
    assert "line 2 (`import nothing_like_this`)" in refused(
        tmp_path, "import torch\nimport nothing_like_this\n" + GOOD[1:]
    )


@pytest.mark.parametrize(
    "written, wrong, message",
    [
        ("rewards - rewards.mean(1, keepdim=True)", "rewards.mean(1)", r"shape \(2, 2\), not \(2,\)"),
        ("rewards - rewards.mean(1, keepdim=True)", "None", r"shape \(2, 2\), not NoneType"),
        ("-(advantages[:, None] * mask * logprobs).sum() / len(logprobs)", "3.0", "a scalar tensor, but it is a float"),
        ("-(advantages[:, None] * mask * logprobs).sum() / len(logprobs)", "logprobs.sum(1)", "but it has shape"),
        ("-(advantages[:, None] * mask * logprobs).sum() / len(logprobs)", "logprobs.detach().sum()", "no gradient"),
        ("-(advantages[:, None] * mask * logprobs).sum() / len(logprobs)", "logprobs.sum() / 0", "The loss is -inf"),
    ],
)
def test_a_wrong_return_type_or_shape_is_one_message(tmp_path, written, wrong, message):
    assert re.search(message, refused(tmp_path, GOOD.replace(written, wrong)))


def test_functions_that_are_not_green_get_a_warning_and_train(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(precheck, "red_functions", lambda week, impl: ["rloo_advantages", "reward_to_go"])
    train(tmp_path, submission(tmp_path, GOOD))
    printed = capsys.readouterr().out
    assert "not green yet: rloo_advantages." in printed  # reward_to_go is red as well, but rloo does not use it


def test_the_grader_is_asked_once_for_the_same_file(tmp_path, monkeypatch):
    monkeypatch.undo()
    asked = []
    monkeypatch.setattr(precheck, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(precheck, "grade", lambda week, impl: asked.append(week) or ["rloo_advantages"])
    lab = submission(tmp_path, GOOD)
    assert precheck.red_functions("05", lab) == precheck.red_functions("05", lab) == ["rloo_advantages"]
    assert asked == ["05"]
    (tmp_path / "lab/05/reinforce.py").write_text(GOOD + "\n# changed\n")
    precheck.red_functions("05", lab)
    assert asked == ["05", "05"]


def test_an_unknown_experiment_is_named(tmp_path):
    with pytest.raises(UserError, match="no experiment 'snrr'; did you mean 'snr'"):
        train(tmp_path, "reference", experiment="snrr")


def test_a_policy_that_does_not_exist_is_named_and_leaves_no_run_folder(tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        train(tmp_path, "reference", policy="nowhere")
    assert not list((tmp_path / "runs").iterdir())


def test_a_mistake_is_one_line_on_stderr_and_exit_code_2(capsys):
    with pytest.raises(SystemExit) as exit_, clean_exit():
        raise UserError("what is wrong")
    assert exit_.value.code == 2 and capsys.readouterr().err == "error: what is wrong\n"
    with pytest.raises(SystemExit) as exit_:
        main(find_launcher("05"), ["--algorithm", "rlo"])
    assert exit_.value.code == 2


def test_a_baseline_takes_the_shift_out_of_the_gradient(tmp_path):
    """The experiment's claim in exact arithmetic: what REINFORCE loses to a shift, both baselines keep."""
    functions = load_functions("05", "reference")
    generator = torch.Generator().manual_seed(0)
    rewards = torch.randint(0, 2, (3, 5), generator=generator).double()
    mask = torch.ones(15, 4)

    class Settings:
        aggregate, max_new_tokens = "sequence_sum", 4

    def gradient(name: str, shift: float) -> torch.Tensor:
        logprobs = torch.randn(
            15, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True
        )
        advantages, loss = ALGORITHMS[name].build(functions, Settings)
        shifted = rewards + shift
        batch = SimpleNamespace(rewards=shifted.flatten(), advantages=advantages(shifted).flatten(), mask=mask)
        return torch.autograd.grad(loss(logprobs, batch), logprobs)[0]

    for name in ("reinforce-baseline", "rloo"):
        torch.testing.assert_close(gradient(name, 3.0), gradient(name, 0.0))
    assert (gradient("reinforce", 3.0) - gradient("reinforce", 0.0)).abs().max() > 0.1


def test_signal_to_noise_is_unbiased_for_a_known_distribution():
    from reference_impl.loops.gradient_signal import signal_to_noise

    generator = torch.Generator().manual_seed(0)
    mean = torch.tensor([3.0, 0.0, 4.0])
    draws = mean + 2 * torch.randn(20_000, 3, generator=generator)
    assert abs(signal_to_noise(draws) - 25 / 12) < 0.05
    noise = torch.randn(400, 50, 3, generator=generator)
    assert abs(sum(map(signal_to_noise, noise)) / 400) < 0.005
