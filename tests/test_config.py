"""Settings resolve in one order, and what is wrong is named."""

import pytest
import yaml

from reference_impl.algorithms import ALGORITHMS
from reference_impl.config import checked, nearest, parse_override, read_yaml, resolve, week_config
from reference_impl.errors import UserError
from reference_impl.implementations import ROOT
from reference_impl.launch import find_launcher
from reference_impl.settings import PreferenceSettings, RLSettings, SFTSettings

LAUNCHED = sorted(path.parent.name for path in (ROOT / "weeks").glob("*/config.yaml"))


def settle(schema, week, algorithm=None, scale=None, **overrides):
    return resolve(schema, week, algorithm=algorithm, scale=scale, overrides=overrides)


@pytest.mark.parametrize("week", LAUNCHED)
def test_every_algorithm_of_every_scale_resolves_and_has_a_row_of_its_week(week):
    file, launcher = week_config(week), find_launcher(week)
    assert set(file["demo"]) <= set(file["algorithms"]) <= set(ALGORITHMS)
    for algorithm in file["algorithms"]:
        for scale in file["scales"]:
            settings = settle(launcher.settings, week, algorithm, scale)
            assert (settings.week, settings.algorithm, settings.scale) == (week, algorithm, scale)


def test_step_sizes_found_at_nano_scale_stay_there():
    def no_clip(scale):
        schema = find_launcher("06").settings
        return resolve(schema, "06", algorithm="grpo", scale=scale, overrides={}, experiment="no-clip")

    sized, experiment = week_config("06")["scales"], week_config("06")["experiment_overrides"]["no-clip"]
    assert (no_clip("nano").lr, no_clip("smol").lr) == (experiment["lr"], sized["smol"]["lr"])
    assert no_clip("smol").epochs == no_clip("nano").epochs == experiment["epochs"]


def test_the_command_line_wins_over_the_file_and_the_file_over_the_defaults():
    assert (
        settle(RLSettings, "05").lr
        == yaml.safe_load((ROOT / "weeks/05/config.yaml").read_text())["scales"]["nano"]["lr"]
    )
    assert settle(RLSettings, "05", lr=0.5).lr == 0.5
    assert settle(PreferenceSettings, "08", "cdpo").label_smoothing == ALGORITHMS["cdpo"].defaults["label_smoothing"]
    assert settle(PreferenceSettings, "08", "cdpo", label_smoothing=0.2).label_smoothing == 0.2
    assert settle(PreferenceSettings, "08", "dpo").label_smoothing == 0.0


def test_derived_settings_follow_an_override():
    settings = settle(RLSettings, "05", policy="runs/mine", steps=1000)
    assert settings.reference == "runs/mine" and settings.eval_every == settings.checkpoint_every == 100
    assert settle(RLSettings, "05", policy="runs/mine", reference="base").reference == "base"
    assert settle(PreferenceSettings, "08", policy="random").reference == "random"
    assert settle(SFTSettings, "02", steps=600, warmup_steps=None).warmup_steps == 12
    assert settle(SFTSettings, "02", eval_every=7).checkpoint_every == 7


def test_a_resolved_config_reads_back_as_itself():
    settings = settle(PreferenceSettings, "08", "ipo", seed=3)
    again = yaml.safe_load(yaml.safe_dump(settings.model_dump(mode="json")))
    assert checked(PreferenceSettings, again) == settings


@pytest.mark.parametrize(
    "overrides, message",
    [
        ({"lrr": 1}, "no setting 'lrr' here; did you mean 'lr'"),
        ({"lr": -1}, "lr=-1: input should be greater than 0"),
        ({"lr": "fast"}, "lr='fast'"),
        ({"lr": float("nan")}, "lr=nan"),
        ({"group": 0}, "group=0"),
        ({"aggregate": "median"}, "aggregate='median'"),
        ({"steps": 0}, "steps=0"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_a_setting_that_is_unknown_or_out_of_range_is_named(overrides, message):
    with pytest.raises(UserError) as error:
        settle(RLSettings, "05", **overrides)
    assert message in str(error.value)


def test_unknown_weeks_algorithms_and_scales_are_named_with_what_there_is():
    with pytest.raises(UserError, match="no week '12'"):
        settle(RLSettings, "12")
    with pytest.raises(UserError, match="no algorithm 'rlo'; did you mean 'rloo'"):
        settle(RLSettings, "05", "rlo")
    with pytest.raises(UserError, match="no algorithm 'dpo'. Valid: reinforce, reinforce-baseline, rloo"):
        settle(RLSettings, "05", "dpo")
    with pytest.raises(UserError, match="no scale 'nanoo'; did you mean 'nano'"):
        settle(RLSettings, "05", scale="nanoo")


def test_overrides_are_read_as_yaml():
    assert settle(RLSettings, "05", **dict([parse_override("lr=3e-4")])).lr == 3e-4
    assert parse_override("betas=[0.9, 0.99]") == ("betas", [0.9, 0.99])
    assert parse_override("policy=runs/x") == ("policy", "runs/x")
    for text in ("lr", "=3", "lr=[1,", "algorithm=dpo", "week=08", "scale=smol"):
        with pytest.raises(UserError, match="--set"):
            parse_override(text)


def test_a_file_that_is_no_yaml_mapping_is_named(tmp_path):
    (tmp_path / "config.yaml").write_text("- 1\n- 2\n")
    with pytest.raises(UserError, match="not a mapping"):
        read_yaml(tmp_path / "config.yaml")
    with pytest.raises(UserError, match="cannot be read"):
        read_yaml(tmp_path / "missing.yaml")


def test_the_nearest_name_is_offered_only_when_it_is_near():
    assert nearest("rlo", ["rloo", "ppo"]) == "; did you mean 'rloo'? Valid: ppo, rloo."
    assert nearest("xyz", ["rloo", "ppo"]) == ". Valid: ppo, rloo."


def test_every_row_has_a_source_and_a_formula():
    for name, row in ALGORITHMS.items():
        assert row.name == name and row.paper and row.formula


def test_a_row_without_a_function_of_the_student_says_so():
    for row in ALGORITHMS.values():
        assert row.needs or "no exercise" in row.build.__doc__.lower()
        assert row.plugs_in(row.week) == bool(row.needs) and not row.plugs_in("00")
