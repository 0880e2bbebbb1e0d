"""`rlhf eval`: the numbers are what they are called, their errors those of means over prompts."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from course import evaluate as command
from course import fetch
from reference_impl import precheck
from reference_impl.errors import UserError
from reference_impl.launch import find_launcher, launch
from reference_impl.loops import measure
from reference_impl.loops.evaluate import held_out_prompts
from reference_impl.loops.measure import measure_policy, measure_reward
from reference_impl.models import hardware, load_model
from reference_impl.options import Options
from reference_impl.rewards import load_reward
from reference_impl.runs.run import read_metrics
from reference_impl.tasks import get_task


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setattr(precheck, "red_functions", lambda week, impl: [])
    yield
    hardware.use()


@pytest.fixture(scope="module")
def base():
    return load_model("base")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run of week 05 and one of week 03."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "disabled")
        patch.setattr(precheck, "red_functions", lambda week, impl: [])
        small = ("eval_prompts=4", "final_eval_prompts=8")
        rl = launch(
            find_launcher("05"), Options(impl="reference", steps=2, set=(*small, "prompts_per_step=4"), runs_dir=folder)
        )
        sizes = ("reward_prompts=32", "samples_per_prompt=4", "held_out_samples=4")
        reward = launch(find_launcher("03"), Options(impl="reference", steps=4, set=(*small, *sizes), runs_dir=folder))
    return {"rl": str(folder / rl["path"]), "reward": str(folder / reward["path"])}


def test_the_numbers_are_those_of_the_completions_themselves(base, monkeypatch):
    model, tokenizer = base
    seen, real = [], measure.rollout

    def recording(*args):
        seen.append(real(*args))
        return seen[-1]

    monkeypatch.setattr(measure, "rollout", recording)
    task = get_task()
    found = measure_policy(model, tokenizer, task, 24, 8, 28, reference=model)
    prompts = held_out_prompts(task, 24)
    (greedy, greedy_texts), (sampled, texts) = seen
    rewards = [task.reward(prompts[i // 8], text, bool(sampled.finished[i])) for i, text in enumerate(texts)]
    right = [rewards[i : i + 8] for i in range(0, len(rewards), 8)]
    share = [sum(row) / 8 for row in right]
    mean = sum(share) / 24
    error = math.sqrt(sum((x - mean) ** 2 for x in share) / 23 / 24)
    assert found["sampled accuracy"].value == pytest.approx(mean)
    assert found["sampled accuracy"].error == pytest.approx(error)
    assert found["pass@8"].value == pytest.approx(sum(max(row) for row in right) / 24)
    assert mean <= found["pass@2"].value <= found["pass@4"].value <= found["pass@8"].value
    assert found["greedy accuracy"].value == pytest.approx(
        sum(task.reward(p, t, bool(f)) for p, t, f in zip(prompts, greedy_texts, greedy.finished, strict=True)) / 24
    )
    assert found["never finished"].value == pytest.approx(1 - sampled.finished.float().mean().item())
    assert found["length"].value == pytest.approx(sampled.response_mask.sum().item() / (24 * 8))
    assert abs(found["KL to reference"].value) < 1e-4, "a model is no nat from itself"


def test_the_kl_from_another_model_is_positive_and_needs_temperature_one(base):
    model, tokenizer = base
    torch.manual_seed(0)
    other, _ = load_model("random")
    found = measure_policy(model, tokenizer, get_task(), 8, 4, 28, reference=other)
    assert found["KL to reference"].value > 5 * found["KL to reference"].error > 0
    with pytest.raises(UserError, match="leave temperature at 1"):
        measure_policy(model, tokenizer, get_task(), 8, 4, 28, temperature=0.5, reference=other)


def test_a_perfect_and_a_useless_reward_model_get_the_numbers_they_should(base):
    model, tokenizer = base
    task = get_task()
    verdicts = []

    def judge(data_scores):
        def scores(input_ids, attention_mask, completion_mask):
            return data_scores(input_ids)

        return SimpleNamespace(scores=scores, objective=SimpleNamespace(name="bt"))

    def perfect(ids):
        texts = [tokenizer.decode(row.tolist()) for row in ids]
        ends = (ids == tokenizer.eos_token_id).any(1).tolist()
        by_text = {prompt.text: prompt for prompt in held_out_prompts(task, 16)}
        for text, end in zip(texts, ends, strict=True):
            asked = text[: text.index("=") + 1]
            verdicts.append(task.reward(by_text[asked], text[len(asked) :], end))
        return 20 * torch.tensor(verdicts)

    found = measure_reward(judge(perfect), model, tokenizer, task, 16, 8, 28)
    assert found["pair accuracy"].value == 1.0 and found["AUC across prompts"].value == 1.0
    assert found["best of 8"].value == found["any of 8 right"].value
    assert found["pair calibration error"].value < 1e-6
    useless = measure_reward(judge(lambda ids: torch.zeros(len(ids))), model, tokenizer, task, 16, 8, 28)
    assert useless["pair accuracy"].value == 0.5 == useless["AUC across prompts"].value


def test_a_run_brings_its_settings_and_its_reference_along(run, capsys, tmp_path):
    out = tmp_path / "numbers.json"
    command.main([run["rl"], "base", "--prompts", "8", "--samples", "2", "--out", str(out)])
    printed = capsys.readouterr().out
    numbers = json.loads(out.read_text())
    assert set(numbers) == {run["rl"], "base"} and "pass@2" in printed and "KL to reference" in printed
    assert "KL to reference" in numbers[run["rl"]] and "KL to reference" not in numbers["base"]
    after = read_metrics(Path(run["rl"]))[-1]
    assert numbers[run["rl"]]["greedy accuracy"]["value"] == pytest.approx(after["greedy_accuracy"])


def test_a_run_of_week_03_is_measured_as_a_reward_model(run, capsys):
    command.main([run["reward"], "--prompts", "8", "--samples", "4"])
    assert "pair accuracy" in capsys.readouterr().out
    assert load_reward(run["reward"]).objective.name == "bt"


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([], "Which model"),
        (["runs/nowhere"], "no such folder"),
        (["base", "--prompts", "0"], "--prompts"),
        (["base", "--task", "sudoku"], "no task"),
        (["base", "--device", "cuda"], "no GPU"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_code_2(arguments, word, capsys):
    if "cuda" in arguments and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(SystemExit) as caught:
        command.main(arguments)
    message = capsys.readouterr().err
    assert caught.value.code == 2 and word in message and "Traceback" not in message


def test_fetching_without_network_is_one_sentence(monkeypatch, tmp_path, capsys):
    from reference_impl.models import smol

    monkeypatch.setenv("RLHF_CACHE", str(tmp_path))
    monkeypatch.setattr(smol.importlib.util, "find_spec", lambda name: None)
    failed = SimpleNamespace(returncode=1, stderr="trying\nerror: no network")
    monkeypatch.setattr(smol.subprocess, "run", lambda *args, **kwargs: failed)
    with pytest.raises(SystemExit):
        fetch.main(["smol"])
    assert "could not be downloaded (error: no network). Scale nano works" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
