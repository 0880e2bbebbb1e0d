"""Weeks 03 and 04 train reward models, measure them on unseen prompts, and save them as the reward of other weeks."""

import json
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from reference_impl import process_reward, reward_model
from reference_impl.config import resolve
from reference_impl.data.judged import Judged, all_pairs, join, same_format, sample_judged, some_pairs, with_twins
from reference_impl.data.steps import step_labels
from reference_impl.errors import UserError
from reference_impl.implementations import load_functions
from reference_impl.launch import find_launcher, launch
from reference_impl.loops.batch import learning_rewards
from reference_impl.loops.best_of_n import choose, choose_by_each, votes
from reference_impl.loops.evaluate import held_out_prompts
from reference_impl.loops.ranking import auc, calibration_error, reliability
from reference_impl.loops.reward import prepare
from reference_impl.models import CharTokenizer, load_model
from reference_impl.options import Options
from reference_impl.rewards import asked, load_reward, reward_function, save_reward
from reference_impl.runs.run import Run, read_metrics
from reference_impl.settings import RLSettings
from reference_impl.tasks import Prompt, get_task, split_of

SMALL = (
    "reward_prompts=60",
    "eval_prompts=4",
    "final_eval_prompts=16",
    "held_out_samples=8",
    "batch_size=32",
    "eval_every=5",
)
TRAINED = (*SMALL[1:], "reward_prompts=150", "batch_size=48")
SMALL_RL = ("prompts_per_step=2", "group=2", "max_new_tokens=8", "eval_prompts=2", "final_eval_prompts=2")


@pytest.fixture(autouse=True)
def no_wandb(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """One short run of each week: {"03": folder, "04": folder}."""
    patch = pytest.MonkeyPatch()
    patch.setenv("WANDB_MODE", "disabled")
    folder = tmp_path_factory.mktemp("runs")
    with patch.context():
        runs = {week: train(folder / week, week, steps=60, set=TRAINED) for week in ("03", "04")}
    patch.undo()
    return runs


@pytest.fixture(scope="module")
def judged():
    policy, tokenizer = load_model("base")
    task = get_task("chain_sum")
    return sample_judged(policy, tokenizer, task, task.prompts("reward", 40), 6, 28, seed=1)


def train(runs_dir, week, **changes) -> Path:
    options = {"impl": "reference", "steps": 10, "set": SMALL, "runs_dir": runs_dir} | changes
    return Path(launch(find_launcher(week), Options(**options))["path"])


def results(run: Path) -> dict:
    return json.loads((run / "summary.json").read_text())["results"]


def written(prompt: str, completion: str, finished: bool = True, answer: str = "") -> Judged:
    """One completion as if it had been sampled."""
    tokenizer = CharTokenizer()
    ids, tail = tokenizer.encode(prompt), tokenizer.encode(completion) + [tokenizer.eos_token_id] * finished
    mask = torch.tensor([[0] * len(ids) + [1] * len(tail)])
    task = get_task("chain_sum")
    item = next(p for p in task.draw("eval", 0))
    known = Prompt(prompt, answer, {**item.metadata, "answer": answer})
    correct = torch.tensor([task.reward(known, completion, finished)])
    ids = torch.tensor([ids + tail])
    return Judged([known], [completion], ids, torch.ones_like(ids), mask, torch.tensor([finished]), correct, 1)


# Data


def test_training_and_held_out_prompts_never_meet():
    settings = resolve(find_launcher("03").settings, "03", algorithm=None, scale=None, overrides={"reward_prompts": 50})
    task = get_task(settings.task)
    training = {prompt.text for prompt in task.prompts("reward", 400, seed=3)}
    unseen = {prompt.text for prompt in held_out_prompts(task, 400)}
    assert not training & unseen
    assert {split_of(text) for text in training} == {"reward"} and {split_of(text) for text in unseen} == {"eval"}
    _, _, _, sampled, held_out = prepare(
        settings.model_copy(update={"final_eval_prompts": 20, "samples_per_prompt": 2, "held_out_samples": 2})
    )
    assert {split_of(p.text) for p in sampled.prompts} == {"reward"}
    assert {split_of(p.text) for p in held_out.prompts} == {"eval"}


def test_pairs_are_a_right_and_a_wrong_completion_of_one_prompt(judged):
    pairs = all_pairs(judged)
    right = judged.correct.view(-1, judged.group).sum(1)
    assert len(pairs) == int((right * (judged.group - right)).sum()) > 0
    assert (judged.correct[pairs] == torch.tensor([1.0, 0.0])).all()
    assert (pairs[:, 0] // judged.group == pairs[:, 1] // judged.group).all()
    some = some_pairs(judged, 2, seed=0)
    assert {tuple(pair) for pair in some.tolist()} <= {tuple(pair) for pair in pairs.tolist()}
    counts = torch.bincount(some[:, 0] // judged.group, minlength=40)
    assert torch.equal(counts, torch.bincount(pairs[:, 0] // judged.group, minlength=40).clamp(max=2))
    assert torch.equal(some, some_pairs(judged, 2, seed=0)) and not torch.equal(some, some_pairs(judged, 2, seed=1))


def test_pairs_of_the_same_format_are_equally_long_and_both_ended(judged):
    alike = same_format(judged, all_pairs(judged))
    lengths = [len(judged.texts[row]) for row in range(len(judged))]
    assert all(lengths[a] == lengths[b] for a, b in alike.tolist())
    expected = [
        pair
        for pair in all_pairs(judged).tolist()
        if lengths[pair[0]] == lengths[pair[1]] and judged.finished[pair].all()
    ]
    assert alike.tolist() == expected and 0 < len(alike) < len(all_pairs(judged))


def test_a_twin_differs_from_a_right_completion_in_one_digit_of_the_answer_and_is_wrong(judged):
    task = get_task("chain_sum")
    twins, pairs = with_twins(judged, CharTokenizer(), task, seed=0)
    assert len(pairs) == int(judged.correct.sum()) and len(twins) == 2 * len(pairs)
    for good, bad in pairs.tolist():
        a, b = twins.texts[good], twins.texts[bad]
        differ = [i for i in range(len(a)) if a[i] != b[i]]
        assert len(a) == len(b) and len(differ) == 1 and differ[0] > a.rindex("=") and b[differ[0]] in "123456789"
        assert task.reward(twins.prompts[good], a, True) == 1.0 and task.reward(twins.prompts[bad], b, True) == 0.0
        assert torch.equal(twins.completion_mask[good], twins.completion_mask[bad])
        inside = twins.completion_mask[bad].bool()
        assert CharTokenizer().decode(twins.input_ids[bad][inside]) == b


def test_a_lazy_solution_has_only_good_steps_and_a_bad_end():
    tokenizer, task = CharTokenizer(), get_task("chain_sum")
    lazy = written("4-1-7+2=", "4-1=3-7=-4", answer="-2")
    misread = written("4-1-7+2=", "4+1=5-7=-2+2=0", answer="-2")
    careful = written("4-1-7+2=", "4-1=3-7=-4+2=-2", answer="-2")
    cut = written("4-1-7+2=", "4-1=3-7=", finished=False, answer="-2")
    found = []
    for data, label_eos in product((lazy, misread, careful, cut), (True, False)):
        labels = step_labels(data, task, tokenizer, process_reward, label_eos)
        found.append(labels[labels != -100].tolist())
        assert torch.equal(labels != -100, asked(data, tokenizer, label_eos) != -100)
    assert found == [[2, 2, 0], [2, 2], [0, 1, 1, 0], [0, 1, 1], [2, 2, 2, 2], [2, 2, 2], [2, 2], [2, 2]]


@pytest.mark.parametrize("wrong, message", [(None, "not NoneType"), (torch.zeros(1, 2), r"shape"), (7, "not int")])
def test_step_labels_that_cannot_be_learned_from_are_refused(wrong, message):
    functions = SimpleNamespace(prm_labels=lambda *args: wrong)
    with pytest.raises(UserError, match="prm_labels should return a tensor .*" + message):
        step_labels(written("4-1=", "4-1=3"), get_task("chain_sum"), CharTokenizer(), functions, True)
    functions = SimpleNamespace(prm_labels=lambda ids, *args: torch.full_like(ids, 3))
    with pytest.raises(UserError, match=r"-100, 0, 1 or 2, not \[3\]"):
        step_labels(written("4-1=", "4-1=3"), get_task("chain_sum"), CharTokenizer(), functions, True)


# Measures


def test_auc_counts_the_pairs_that_are_ranked_right_and_ties_half():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 5, (60,), generator=generator).float()
    correct = torch.randint(0, 2, (60,), generator=generator).float()
    right, wrong = scores[correct == 1].tolist(), scores[correct == 0].tolist()
    pairs = [(a > b) + 0.5 * (a == b) for a in right for b in wrong]
    assert auc(scores, correct) == pytest.approx(sum(pairs) / len(pairs), abs=1e-12)
    assert auc(correct, correct) == 1.0 and auc(-correct, correct) == 0.0
    assert auc(torch.zeros(60), correct) == 0.5 and auc(scores, torch.ones(60)) != auc(scores, torch.ones(60))


def test_probabilities_that_come_true_have_no_calibration_error():
    generator = torch.Generator().manual_seed(0)
    said = torch.rand(40_000, generator=generator)
    came = (torch.rand(40_000, generator=generator) < said).float()
    assert calibration_error(said, came) < 0.01
    assert calibration_error(said * 0.5, came) == pytest.approx(0.25, abs=0.01)
    assert sum(count for *_, count in reliability(said, came)) == 40_000
    assert reliability(torch.tensor([0.0, 1.0, 1.0]), torch.tensor([1.0, 1.0, 0.0])) == [(0.0, 1.0, 1), (1.0, 0.5, 2)]


def test_choosers_that_need_no_model_choose_as_their_names_say(judged):
    data = join([judged])
    data.texts = ["=1", "=1", "=2", "=3", "=3", "=3"] * 40
    data.finished = torch.tensor([True, True, True, False, False, False] * 40)
    data.correct = torch.tensor([1.0, 1, 0, 0, 0, 0] * 40)
    data.group = 2
    curves = choose_by_each({}, data, get_task("chain_sum"), process_reward)
    groups = data.correct.view(-1, 2)
    assert curves["random"][2].accuracy == pytest.approx(groups.mean().item())
    assert curves["verifier"][2].accuracy == pytest.approx(groups.amax(1).mean().item())
    assert curves["verifier"][1].accuracy == curves["random"][1].accuracy
    answers = torch.tensor([[0, 0, 1, -1], [0, 1, 1, 1], [-1, -1, 2, -1]])
    assert votes(answers, 4).tolist() == [[2, 2, 1, 0], [1, 3, 3, 3], [0, 0, 1, 0]]
    assert votes(answers, 2).tolist() == [[2, 2, 1, 0], [1, 1, 2, 2], [0, 0, 1, 0]]


def test_the_best_of_n_is_taken_within_each_group_of_n():
    scores = torch.tensor([[0.1, 0.9, 0.8, 0.2]])
    correct = torch.tensor([[1.0, 0.0, 1.0, 0.0]])
    lengths = torch.tensor([[3.0, 5.0, 7.0, 9.0]])
    of = {n: choose(scores, correct, lengths, n, process_reward) for n in (1, 2, 4)}
    assert [of[n].accuracy for n in (1, 2, 4)] == [0.5, 0.5, 0.0]
    assert [of[n].length for n in (1, 2, 4)] == [6.0, 6.0, 5.0] and of[2].score == pytest.approx(0.85)


# Runs


def test_both_models_learn_to_rank_and_the_run_shows_it(saved):
    run, found = saved["03"], results(saved["03"])
    names = {path.name for path in run.iterdir()}
    assert {"reward_models.png", "along.png", "curves.png", "samples.md", "results.md", "rewards"} <= names
    for name in ("preference model", "outcome model"):
        assert found[f"{name}: pair accuracy"] > 0.75 and found[f"{name}: AUC across prompts"] > 0.7
        assert 0 <= found[f"{name}: pair accuracy, one digit changed"] <= 1
        assert found[f"{name}: best of 1"] == pytest.approx(found["share of right completions"])
    assert found["outcome model: Brier score"] < 0.25
    first, last = read_metrics(run)[0], read_metrics(run)[-1]
    assert last["pair_accuracy_bt"] > first["pair_accuracy_bt"] and last["brier_orm"] < first["brier_orm"]


def test_the_process_model_learns_steps_and_every_chooser_is_measured(saved):
    found = results(saved["04"])
    assert {"best_of_n.png", "best_of_n.md"} <= {path.name for path in saved["04"].iterdir()}
    for chooser in ("random", "orm", "prm min", "prm prod", "prm mean", "prm last", "majority", "verifier"):
        curve = [found[f"best of {n} by {chooser}"] for n in (1, 2, 4, 8)]
        assert curve[0] == pytest.approx(found["best of 1 by random"])
        assert max(curve) <= found["best of 8 by verifier"] + 1e-6
    assert found["labels of the process model"] > 2 * found["labels of the outcome model"] > 0
    assert found["step AUC: process model"] > 0.5


@pytest.mark.parametrize("week, names", [("03", ("bt", "orm")), ("04", ("prm", "orm"))])
def test_a_saved_model_gives_other_weeks_the_scores_that_its_own_run_saw(saved, week, names, judged):
    for name in names:
        model = load_reward(saved[week] / "rewards" / name)
        scores = model.scores(judged.input_ids, judged.attention_mask, judged.completion_mask)
        assert scores.shape == (len(judged),) and auc(scores, judged.correct) > 0.6
        logits = model.model(input_ids=judged.input_ids, attention_mask=judged.attention_mask).logits
        if name == "bt":
            expected = reward_model.last_token_rewards(logits[..., 0], judged.attention_mask)
        elif name == "orm":
            expected = reward_model.orm_score(logits[..., 0], judged.completion_mask, "last")
        else:
            steps = process_reward.step_scores(logits, asked(judged, CharTokenizer(), True))
            expected = torch.stack([row.min() if len(row) else torch.tensor(0.0) for row in steps])
        torch.testing.assert_close(scores, expected, atol=1e-5, rtol=1e-5)
    assert load_reward(saved[week]).path.name == names[0]


def test_padding_beside_a_completion_does_not_change_its_score(saved, judged):
    for folder in (saved["03"] / "rewards" / "bt", saved["03"] / "rewards" / "orm", saved["04"]):
        model = load_reward(folder)
        rows = torch.arange(0, 60, 7)
        together = model.scores(judged.input_ids, judged.attention_mask, judged.completion_mask)[rows]
        for row, score in zip(rows.tolist(), together, strict=True):
            width = int(judged.attention_mask[row].sum())
            cut = [part[row : row + 1, :width] for part in (judged.input_ids, judged.attention_mask)]
            alone = model.scores(*cut, judged.completion_mask[row : row + 1, :width])
            torch.testing.assert_close(alone[0], score, atol=1e-5, rtol=1e-4)


def test_a_saved_reward_model_is_the_reward_of_a_policy_and_comes_with_a_kl_penalty(saved, tmp_path):
    for reward in (saved["03"], saved["04"] / "rewards" / "prm"):
        options = Options(impl="reference", steps=2, reward=str(reward), set=SMALL_RL, runs_dir=tmp_path)
        path = Path(launch(find_launcher("05"), options)["path"])
        rewards = [row["reward_mean"] for row in read_metrics(path) if "reward_mean" in row]
        assert len(rewards) == 2 and all(value not in (0.0, 0.25, 0.5, 0.75, 1.0) for value in rewards)
    settings = RLSettings(week="05", algorithm="rloo", reward="runs/x")
    assert settings.kl_penalty == 0.5 and RLSettings(week="05", algorithm="rloo").kl_penalty == 0
    assert RLSettings(week="05", algorithm="rloo", reward="runs/x", kl_penalty=0.0).kl_penalty == 0


def test_the_kl_penalty_is_taken_off_the_reward_once_a_completion():
    batch = SimpleNamespace(
        rewards=torch.tensor([1.0, 0.0]),
        mask=torch.tensor([[0, 1, 1], [1, 1, 0]]),
        old_logprobs=torch.tensor([[9.0, -1.0, -2.0], [-1.0, -1.0, 9.0]]),
        ref_logprobs=torch.tensor([[5.0, -2.0, -4.0], [-1.5, -1.0, 3.0]]),
    )
    settings = RLSettings(week="05", algorithm="rloo", kl_penalty=0.1, reward_shift=2.0)
    torch.testing.assert_close(learning_rewards(batch, settings), torch.tensor([3.0 - 0.3, 2.0 - 0.05]))


def test_a_reward_that_is_none_is_named(saved, tmp_path):
    task = get_task("chain_sum")
    for name, message in ((tmp_path / "nowhere", "there is no such folder"), (tmp_path, "holds no reward model")):
        with pytest.raises(UserError, match=message):
            reward_function(str(name), task, CharTokenizer())
    with pytest.raises(UserError, match="do not have the same tokenizer"):
        reward_function(str(saved["03"]), task, object())
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "reward.json").write_text('{"algorithm": "dpo"}')
    with pytest.raises(UserError, match="does not describe a reward model"):
        load_reward(broken)


def test_a_failed_save_leaves_the_older_reward_model(saved, tmp_path, monkeypatch):
    model = load_reward(saved["03"])
    save_reward(tmp_path / "kept", model.model, model.tokenizer, model.objective)
    monkeypatch.setattr("reference_impl.rewards.write_text", lambda *args: (_ for _ in ()).throw(UserError("full")))
    with pytest.raises(UserError, match="full"):
        save_reward(tmp_path / "kept", model.model, model.tokenizer, model.objective)
    assert load_reward(tmp_path / "kept").objective.name == "bt"


@pytest.mark.parametrize("week", ["03", "04"])
def test_an_interrupted_run_resumes_to_the_same_numbers_in_both_models(week, tmp_path, monkeypatch):
    whole = train(tmp_path / "whole", week, steps=6)
    log = Run.log

    def interrupted(self, at, **metrics):
        if at == 6:
            raise KeyboardInterrupt
        log(self, at, **metrics)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "log", interrupted)
        with pytest.raises(SystemExit):
            train(tmp_path / "parts", week, steps=6)
    (run,) = (tmp_path / "parts").iterdir()
    torch.manual_seed(987)
    launch(find_launcher(week), Options(resume=str(run)))
    same = {key: value for key, value in results(whole).items() if key != "tokens_per_second"}
    assert {key: value for key, value in results(run).items() if key != "tokens_per_second"} == same
    for name in ("orm", "bt" if week == "03" else "prm"):
        one, other = (load_reward(path / "rewards" / name).model.state_dict() for path in (whole, run))
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_edited_negatives_and_a_share_of_the_traces_change_what_is_learned_from(tmp_path):
    edited = results(train(tmp_path, "03", steps=2, set=(*SMALL, "negatives=edited", "eval_every=2")))
    both = results(train(tmp_path, "03", steps=2, set=(*SMALL, "negatives=both", "eval_every=2")))
    assert edited["training completions"] == 2 * edited["training pairs"]
    assert both["training completions"] == 60 * 8 + edited["training completions"]
    assert both["training pairs"] > edited["training pairs"]
    share = results(train(tmp_path, "04", steps=2, set=(*SMALL, "prm_share=0.1", "label_eos=false", "eval_every=2")))
    assert share["labels of the outcome model"] == 480
    assert 48 < share["labels of the process model"] < 3 * 48
    assert "end AUC: process model" not in share


def test_a_single_model_can_be_trained_alone_and_is_then_what_the_run_stands_for(tmp_path):
    run = train(tmp_path, "03", steps=2, algorithm="orm", set=(*SMALL, "eval_every=2"))
    assert load_reward(run).path == run / "rewards" / "orm" and not (run / "rewards" / "bt").exists()


def test_the_saved_reading_of_a_process_model_is_kept(saved):
    about = json.loads((saved["04"] / "rewards" / "prm" / "reward.json").read_text())
    assert about == {"name": "prm", "algorithm": "prm", "reading": {"prm_how": "min", "label_eos": True}}
    assert hasattr(load_functions("04", "reference"), "step_scores")
