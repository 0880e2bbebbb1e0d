"""benchmarks/training.py: our loops and TRL's trainers compute the same steps."""

import re
import subprocess
import sys

import pytest

from reference_impl.implementations import ROOT


@pytest.mark.slow
def test_both_sides_compute_the_same_steps_of_sft_dpo_reward_model_and_grpo():
    command = [sys.executable, "benchmarks/training.py", "--repeat", "1", "--steps", "1", "--warmup", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr  # a first loss that differs by 1e-4 ends it
    rows = re.findall(r"│ (SFT|DPO|RM|GRPO) .*?((?:[a-z ]+ -?\d\.\d{5} -?\d\.\d{5};? ?)+)", done.stdout)
    assert [name for name, _ in rows] == ["SFT", "DPO", "RM", "GRPO"]
    for name, numbers in rows:
        values = [float(value) for value in re.findall(r"-?\d\.\d{5}", numbers)]
        assert len(values) == 4 and all(value != 0 for value in values), name
        # the second pair is the loss after an update, or the norm of the gradient: both know the gradient
        assert abs(values[2] - values[3]) < 1e-4, name
