"""`rlhf doctor`: every finding says what to do; only what the course needs can fail it."""

import time

import pytest

from course import doctor as command
from graders import sandbox
from reference_impl.runs import doctor
from reference_impl.runs.doctor import BROKEN, FALLS_BACK, OK, Finding


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    monkeypatch.setattr(doctor.wandb_mirror, "reachable", lambda host: False)
    monkeypatch.setattr(doctor, "matmul_speed", lambda: 1.0)


def run(capsys) -> tuple[int, str]:
    with pytest.raises(SystemExit) as exit_:
        command.main([])
    return exit_.value.code, capsys.readouterr().out


def test_a_machine_without_network_and_gpu_is_a_working_machine(capsys, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    code, said = run(capsys)
    assert code == 0 and "Everything that the course needs works" in said
    for what in ("python", "torch", "accelerator", "attention", "memory", "disk", "sandbox", "wandb", "model hub"):
        assert what in said
    assert "\033" not in said


def test_what_falls_back_or_is_broken_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda package: None)
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    monkeypatch.setattr(doctor, "available_memory", lambda: 0.5)
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: False)
    monkeypatch.setattr(sandbox.shutil, "which", lambda name: None)
    found = [
        doctor.packages(),
        doctor.base_model(),
        doctor.disk(tmp_path),
        doctor.memory(),
        doctor.wandb(),
        doctor.hub(),
    ]
    found.append(command.sandbox())
    assert [finding.state for finding in found] == [BROKEN] * 3 + [FALLS_BACK] * 4
    assert all(finding.remedy for finding in found)


def test_something_broken_fails_it(capsys, monkeypatch):
    monkeypatch.setattr(command, "looks", lambda: [lambda: Finding("packages", BROKEN, "missing: torch", "`uv sync`")])
    code, said = run(capsys)
    assert code == 1 and "✗ packages" in said and "uv sync" in said and "Broken: packages" in said


def test_a_network_that_hangs_does_not_hang_the_doctor():
    began = time.perf_counter()
    assert doctor.in_time(lambda: time.sleep(5), 0.1, "otherwise") == "otherwise"
    assert time.perf_counter() - began < 2


def test_week_01_prints_the_same_findings(capsys, monkeypatch, tmp_path):
    class Run:
        path = tmp_path

    doctor.check_machine(Run())
    said = capsys.readouterr().out
    assert "python: " in said and "torch: " in said and "disk: " in said
    assert doctor.disk(tmp_path).state == OK
