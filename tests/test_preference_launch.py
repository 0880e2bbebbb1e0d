"""Week 09's launcher: every loss learns from the same pairs, KTO's reference point from mismatched ones."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from reference_impl import dpo, reference_free
from reference_impl.algorithms import ALGORITHMS
from reference_impl.config import resolve, week_config
from reference_impl.data.answers import collate, good_and_bad, mismatched
from reference_impl.data.pairs import Pair, collate_pairs
from reference_impl.errors import UserError
from reference_impl.launch import find_launcher, launch
from reference_impl.loops.preference_updates import anchor, answer_update, pair_update
from reference_impl.models import load_model
from reference_impl.options import Options
from reference_impl.runs.run import read_metrics
from reference_impl.sampling import score
from reference_impl.settings import ReferenceFreeSettings
from tests.test_runs import SMALL_DPO, same_after_interruption

PAIRS = [Pair([5 + i, 6, 7][: 2 + i % 2], [8, 9 + i, 3][: 1 + i % 3] + [2], [10 + i, 2]) for i in range(12)]
FOUR_LOGPS = ("dpo", "dpo-norm", "apo-zero", "apo-down")


@pytest.fixture(autouse=True)
def no_wandb(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")


def settle(algorithm: str, **overrides):
    return resolve(ReferenceFreeSettings, "09", algorithm=algorithm, scale=None, overrides=overrides)


def two_models():
    torch.manual_seed(0)
    return load_model("random")[0], load_model("random")[0].eval().requires_grad_(False), load_model("base")[1]


@pytest.mark.parametrize("algorithm", week_config("09")["algorithms"])
def test_every_algorithm_of_the_week_trains_on_the_same_pairs(tmp_path, algorithm):
    options = Options(algorithm=algorithm, impl="reference", steps=2, set=SMALL_DPO, runs_dir=tmp_path)
    run = Path(launch(find_launcher("09"), options)["path"])
    first, last = read_metrics(run)[0], read_metrics(run)[-1]
    assert first["eval_margin"] == 0 and first["eval_accuracy"] == 0.5  # the policy still is the reference
    assert last["eval_margin"] != 0 and {"eval_length", "eval_average_gap", "chosen_logps"} <= last.keys()
    assert (run / "pairs.jsonl").read_text().count("\n") > 8


def test_an_interrupted_kto_run_without_pairs_resumes_to_the_same_numbers(tmp_path, monkeypatch):
    options = Options(algorithm="kto", impl="reference", steps=4, set=(*SMALL_DPO, "bad_per_good=3"))
    same_after_interruption("09", options, 3, tmp_path, monkeypatch)


def test_an_algorithm_that_is_no_exercise_of_the_week_says_whose_functions_run(tmp_path, capsys):
    for algorithm in FOUR_LOGPS:
        assert settle(algorithm, impl="student").impl == "reference"
    options = Options(algorithm="apo-zero", impl="student", steps=1, set=SMALL_DPO, runs_dir=tmp_path)
    summary = launch(find_launcher("09"), options)
    assert "from reference_impl alone: no function of weeks/09 is plugged in" in capsys.readouterr().out
    assert summary["functions"] == "reference_impl/dpo.py" and "-apo-zero-reference-" in summary["path"]
    assert settle("simpo", impl="student").impl == "student"


def test_beta_follows_the_algorithm():
    """The book's code keeps the beta of DPO when only the loss is changed on the command line."""
    assert [settle(name).beta for name in ("dpo", "simpo", "kto", "dpo-norm")] == [0.3, 2.0, 0.5, 4.0]
    week_08 = find_launcher("08").settings
    assert resolve(week_08, "08", algorithm="dpo-norm", scale=None, overrides={}).beta == 2.0


def test_mismatched_answers_never_answer_their_own_prompt():
    rows = [([1], [10]), ([1], [11]), ([2], [12]), ([1], [13])]
    assert mismatched(rows) == [([1], [12]), ([1], [12]), ([2], [13]), ([1], [12])]
    with pytest.raises(UserError, match="two prompts"):
        mismatched(rows[:2])


def test_the_reference_point_moves_when_the_matched_log_ratios_cannot():
    """The book's code rolls matched log-ratios, which changes no mean: 0 whenever rejected answers have fallen."""
    policy, reference, tokenizer = two_models()
    answers, others = collate(PAIRS, PAIRS, tokenizer.pad_token_id)
    metrics = anchor(answers, others, policy, reference)
    prompts = [pair.prompt for pair in PAIRS] * 2
    texts = [pair.chosen for pair in PAIRS] + [pair.rejected for pair in PAIRS]
    by_hand = []
    for number, prompt in enumerate(prompts):
        ids = torch.tensor([prompt + texts[(number + 1) % len(texts)]])
        gap = score(policy, ids, torch.ones_like(ids)) - score(reference, ids, torch.ones_like(ids))
        by_hand.append(gap[0, len(prompt) :].sum())
    assert metrics["mismatched_gap"] == pytest.approx(torch.stack(by_hand).mean().item(), abs=1e-5)
    matched = (score(policy, answers.input_ids, answers.attention_mask) * answers.mask).sum(1) - answers.ref_logps
    assert abs(matched.mean().item() - metrics["mismatched_gap"]) > 1e-3
    assert not answers.kl_logps.requires_grad and not answers.ref_logps.requires_grad


@pytest.mark.parametrize("name", ["simpo", "orpo", "kto"])
def test_the_losses_get_what_their_papers_say(name):
    """The builder's loss against the week's function on log-probs that two separate passes of the model give."""
    policy, reference, tokenizer = two_models()
    values = {"beta": 0.7, "lam": 0.3, "gamma_beta_ratio": 0.2, "desirable_weight": 1.3, "undesirable_weight": 0.6}
    settings = settle(name, **{key: value for key, value in values.items() if key in ALGORITHMS[name].reads})
    answers, others = collate(PAIRS, PAIRS, tokenizer.pad_token_id)
    anchor(answers, others, policy, reference)
    loss = ALGORITHMS[name].build(reference_free, settings)(
        score(policy, answers.input_ids, answers.attention_mask), answers
    )

    batch = collate_pairs(PAIRS, tokenizer.pad_token_id)
    chosen, rejected = dpo.preference_logps(policy, batch)
    ref_chosen, ref_rejected = dpo.preference_logps(reference, batch)
    chosen_avg, rejected_avg = (
        chosen / batch["chosen_response_mask"].sum(1),
        rejected / batch["rejected_response_mask"].sum(1),
    )
    z = max((answers.kl_logps - answers.ref_kl_logps).mean().item(), 0.0)
    odds = [avg - torch.log(1 - avg.exp()) for avg in (chosen_avg, rejected_avg)]
    expected = {
        "simpo": -torch.sigmoid(0.7 * (chosen_avg - rejected_avg - 0.2)).log().mean(),
        "orpo": (-chosen_avg - 0.3 * torch.sigmoid(odds[0] - odds[1]).log()).mean(),
        "kto": torch.cat(
            [
                1.3 * torch.sigmoid(-0.7 * (chosen - ref_chosen - z)),
                0.6 * torch.sigmoid(0.7 * (rejected - ref_rejected - z)),
            ]
        ).mean(),
    }[name]
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)


def test_dpo_norm_averages_policy_and_reference_and_apo_sums():
    policy, reference, tokenizer = two_models()
    batch = collate_pairs(PAIRS, tokenizer.pad_token_id)
    logps = *dpo.preference_logps(policy, batch), *dpo.preference_logps(reference, batch)
    lengths = [batch[f"{side}_response_mask"].sum(1) for side in ("chosen", "rejected")]
    built = {name: ALGORITHMS[name].build(None, SimpleNamespace(beta=0.4))(batch)(*logps) for name in FOUR_LOGPS[1:]}
    h_w, h_l = logps[0] - logps[2], logps[1] - logps[3]
    norm = -torch.sigmoid(0.4 * (h_w / lengths[0] - h_l / lengths[1])).log().mean()
    torch.testing.assert_close(built["dpo-norm"], norm)
    zero = torch.sigmoid(0.4 * h_l).mean() - torch.sigmoid(0.4 * h_w).mean()
    torch.testing.assert_close(built["apo-zero"], zero)
    down = torch.sigmoid(0.4 * h_w).mean() - torch.sigmoid(0.4 * (h_w - h_l)).mean()
    torch.testing.assert_close(built["apo-down"], down)


def test_without_a_reference_in_the_loss_the_reference_is_never_asked():
    policy, _, tokenizer = two_models()
    settings = settle("simpo", batch_size=4)
    update = answer_update(ALGORITHMS["simpo"].build(reference_free, settings), tokenizer, settings, anchored=False)
    before = policy.state_dict()["model.embed_tokens.weight"].clone()
    metrics, tokens = update(0, PAIRS, policy, None, torch.optim.SGD(policy.parameters(), 0.1))
    assert tokens > 0 and metrics["grad_norm"] > 0
    assert not torch.equal(before, policy.state_dict()["model.embed_tokens.weight"])


def test_all_algorithms_see_the_same_answers_in_the_same_step():
    seen = []
    for name in ("simpo", "orpo", "kto"):
        good, bad = good_and_bad(PAIRS, 2, settle(name, batch_size=4))
        assert good == bad and len(good) == 4
        seen.append(good)
    assert seen[0] == seen[1] == seen[2]

    def recording(policy, reference, batch, optimizer, loss_fn, max_grad_norm):
        seen.append(batch["chosen_input_ids"])
        return dict.fromkeys(("loss", "accuracy", "margin", "grad_norm"), 0.0)

    update = pair_update(
        SimpleNamespace(dpo_step=recording), lambda batch: None, two_models()[2], settle("dpo", batch_size=4)
    )
    update(2, PAIRS, None, None, None)
    assert torch.equal(seen[-1], collate_pairs(seen[0], 0)["chosen_input_ids"])


def test_broken_pairs_keep_the_answers_and_their_number_but_not_who_stands_beside_whom():
    good, bad = good_and_bad(PAIRS, 0, settle("kto", batch_size=6, bad_per_good=1))
    assert len(good) == len(bad) == 6 and good != bad
    good, bad = good_and_bad(PAIRS, 0, settle("kto", batch_size=5, bad_per_good=4))
    assert (len(good), len(bad)) == (2, 8) and all(pair in PAIRS[::4] for pair in good)
    with pytest.raises(UserError, match="only kto can"):
        settle("simpo", bad_per_good=2)
