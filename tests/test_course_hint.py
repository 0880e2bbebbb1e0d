"""`rlhf hint`: one rung at a time, remembered, and never a rung that does not exist."""

import pytest

from course import hint
from graders.exercises import load_week, weeks


@pytest.fixture(autouse=True)
def fresh_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(hint, "SEEN", tmp_path / ".rlhf" / "hints.toml")


def test_each_call_goes_one_rung_further_and_stops_at_the_top(capsys):
    hints = load_week("05").exercise("rloo_advantages").hints
    for rung in range(1, len(hints) + 1):
        hint.main(["05", "rloo_advantages"])
        said = capsys.readouterr().out
        assert [text in said for text in hints] == [i < rung for i in range(len(hints))]
    hint.main(["5", "rloo_advantages"])
    assert "the last one" in capsys.readouterr().out


def test_functions_have_ladders_of_their_own(capsys):
    hint.main(["05", "rloo_advantages"])
    hint.main(["05", "reward_to_go"])
    capsys.readouterr()
    hint.main(["05", "reward_to_go", "--again"])
    said = capsys.readouterr().out
    first, second, *_ = load_week("05").exercise("reward_to_go").hints
    assert first in said and second not in said


@pytest.mark.parametrize("number", [number for number in weeks() if load_week(number).own])
def test_the_property_of_ones_own_has_a_ladder_too(number, capsys):
    rungs = load_week(number).own.hints
    for text in rungs:
        hint.main([number, "test_mine"])
        assert text in capsys.readouterr().out
    hint.main([number, "test_mine"])
    said = capsys.readouterr().out
    assert "the last one" in said and "rlhf solution" not in said


def test_a_week_without_a_property_has_no_hints_for_one(capsys):
    with pytest.raises(SystemExit) as exit_:
        hint.main(["03", "test_mine"])
    assert exit_.value.code == 2 and "no function 'test_mine'" in capsys.readouterr().err


def test_a_damaged_memory_starts_over(capsys):
    hint.SEEN.parent.mkdir()
    hint.SEEN.write_text("not toml at all")
    hint.main(["05", "reward_to_go"])
    assert "hint 1 of" in capsys.readouterr().out


@pytest.mark.parametrize("args, words", [(["42"], "no week 42"), (["05", "rlo"], "no function 'rlo'")])
def test_bad_input_is_one_message_and_exit_2(args, words, capsys):
    with pytest.raises(SystemExit) as exit_:
        hint.main(args)
    assert exit_.value.code == 2
    assert words in capsys.readouterr().err


def test_every_function_of_the_course_has_three_rungs():
    for number in weeks():
        for exercise in load_week(number).exercises:
            assert len(exercise.hints) >= 3 and all(len(text) > 20 for text in exercise.hints), exercise.name
