"""Prompts of different splits never meet, demonstrations are what they claim, rewards pay only for right answers."""

from collections import Counter
from itertools import islice

import pytest

from reference_impl.errors import UserError
from reference_impl.tasks import SPLITS, Prompt, get_task, split_of
from reference_impl.tasks.chain_sum import STYLES

TASK = get_task("chain_sum")


def prompt_of(text):
    """A prompt with this text, drawn from reasoning_gym's own entry format."""
    answer = str(eval(text.rstrip("=")))
    return Prompt(text, answer, {"answer": answer, "metadata": {}})


def test_splits_are_disjoint_by_text_whatever_the_seed_and_settings():
    drawn = {}
    for split in SPLITS:
        for task, seed in ((TASK, 0), (TASK, 1), (get_task(min_terms=4), 2), (get_task(max_terms=5), 3)):
            drawn.setdefault(split, set()).update(prompt.text for prompt in task.prompts(split, 300, seed))
    drawn["demonstrations"] = {prompt.text for prompt, _ in TASK.demonstrations(5000)}
    assert drawn["demonstrations"] - drawn["sft"], "the demonstrations reach beyond the first prompts of their split"
    del drawn["sft"]
    for split, texts in drawn.items():
        assert not any(texts & others for name, others in drawn.items() if name != split)


def test_the_split_of_a_text_never_changes():
    assert sum(SPLITS.values()) == pytest.approx(1)
    shares = Counter(split_of(f"{i}") for i in range(20_000))
    assert all(abs(shares[split] / 20_000 - share) < 0.01 for split, share in SPLITS.items())
    # frozen: another hash would move prompts between training and evaluation of earlier runs
    assert [split_of(t) for t in ("4-1-7=", "4-1-7+2=", "0+0+0=", "9-9-9=", "1+2+3+4=")] == [
        "sft",
        "sft",
        "rl",
        "sft",
        "eval",
    ]


def test_neighbouring_seeds_share_few_prompts():
    first, second = ({prompt.text for prompt in get_task(min_terms=4).prompts("rl", 500, seed)} for seed in (1, 2))
    assert len(first) == len(second) == 500
    assert len(first & second) < 50  # of about 13,000; reasoning_gym's own neighbouring seeds share nearly all


def test_the_same_seed_draws_the_same_prompts():
    assert TASK.prompts("eval", 50, seed=3) == TASK.prompts("eval", 50, seed=3)
    assert TASK.demonstrations(50, seed=3) == TASK.demonstrations(50, seed=3)
    assert TASK.prompts("eval", 50, seed=3) != TASK.prompts("eval", 50, seed=4)


def test_a_split_that_is_too_small_says_so():
    with pytest.raises(UserError, match="has only about"):
        get_task(max_terms=3).prompts("eval", 1000)
    with pytest.raises(UserError, match="no split 'test'.*eval"):
        TASK.prompts("test", 1)


@pytest.mark.parametrize(
    ("name", "settings", "word"),
    [("sums", {}, "chain_sum"), ("chain_sum", {"terms": 3}, "terms"), ("chain_sum", {"min_terms": 5}, "min_terms")]
    + [("chain_sum", {"digits": 0}, "digits"), ("chain_sum", {"answer_format": "xml"}, "plain, tags")],
)
def test_a_task_or_setting_that_does_not_exist_is_named(name, settings, word):
    with pytest.raises(UserError, match=word):
        get_task(name, **settings)


def test_answers_are_arithmetic():
    for prompt in TASK.prompts("eval", 100):
        assert int(prompt.answer) == eval(prompt.text.rstrip("="))
        assert prompt.text.count("+") + prompt.text.count("-") in (2, 3)


def test_the_demonstrations_are_the_crowd_that_the_lesson_describes():
    demonstrations = TASK.demonstrations(6000)
    assert len(demonstrations) == 6000
    right = sum(TASK.reward(prompt, text, True) for prompt, text in demonstrations) / 6000
    # careful is always right; lazy by luck; a misreader when it misread nothing, or undid its own mistake
    assert 0.50 < right < 0.62
    short = sum(text.count("=") < len(TASK.step_labels(p, TASK.solve(p))) for p, text in demonstrations) / 6000
    assert abs(short - STYLES["lazy"]) < 0.03
    misread = sum(-1 in TASK.step_labels(prompt, text) for prompt, text in demonstrations) / 6000
    assert 0.05 < misread < STYLES["misreader"]


def test_a_careful_solution_is_right_in_every_step():
    for prompt in islice(TASK.draw("rl"), 200):
        text = TASK.solve(prompt)
        assert TASK.reward(prompt, text, finished=True) == 1.0
        assert set(TASK.step_labels(prompt, text)) == {1}


def test_reward_needs_the_whole_answer_and_the_end_of_sequence():
    prompt = prompt_of("4-1-7+2=")
    assert TASK.reward(prompt, "4-1=3-7=-4+2=-2", finished=True) == 1.0
    assert TASK.reward(prompt, "4-1=3-7=-4+2=-2", finished=False) == 0.0
    for wrong in ("4-1=3-7=-4+2=-22", "4-1=3-7=-4", "-2-2-2=-2-", "=-2 or 3", "", "=", "-2="):
        assert TASK.reward(prompt, wrong, finished=True) == 0.0, wrong
    assert TASK.generator.score_answer("-22", prompt.metadata) > 0, "reasoning_gym would have paid for this one"


@pytest.mark.parametrize(
    ("completion", "labels"),
    [
        ("4-1=3-7=-4+2=-2", [1, 1, 1]),
        ("4-1=3-7=-4", [1, 1]),  # lazy: no step is wrong, stopping is
        ("4+1=5-7=-2+2=0", [-1, 0, 0]),  # misread, then carried on
        ("4-1=2-7=-5+2=-3", [1, -1, 0]),  # the value written at the second step is wrong
        ("4-1=3-7=-4+2=-2+1=-1", [1, 1, 1, -1]),  # one operation too many
        ("4-1=3+7=10-2=8", [1, -1, -1]),  # two misreadings
        ("4-1=3-6=-3+2=-1", [1, -1, 0]),  # another term
        ("abc=-4+2=-2", [-1, -1]),
        ("-2", []),
        ("=", [-1]),
    ],
)
def test_steps_are_rated_by_where_the_mistake_happens(completion, labels):
    assert TASK.step_labels(prompt_of("4-1-7+2="), completion) == labels


def test_tags_are_another_format_of_the_same_answer():
    task = get_task(answer_format="tags")
    prompt = prompt_of("4-1-7+2=")
    text = task.solve(prompt)
    assert text == "4-1=3-7=-4+2=-2<answer>-2</answer>"
    assert task.reward(prompt, text, True) == 1.0
    assert task.reward(prompt, "4-1=3-7=-4+2=-2", True) == 0.0
    assert task.reward(prompt, "<answer>-2", True) == 0.0
    assert set(task.step_labels(prompt, text)) == {1}
