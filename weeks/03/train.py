"""Week 03: a preference model (Bradley-Terry) and an outcome model, on completions that the verifier judged.

uv run python weeks/03/train.py --impl student --seed 0
uv run python weeks/03/train.py --algorithm orm --set negatives=edited
uv run python weeks/05/train.py --reward runs/03-...     # the saved model as the reward of a policy
"""

from reference_impl.config import RewardSettings
from reference_impl.launch import Launcher, main


def train(functions, algorithm, settings, run):
    from reference_impl.loops.outcome import train_outcome

    return train_outcome(functions, algorithm.build(functions, settings), settings, run)


launcher = Launcher("03", RewardSettings, train)

if __name__ == "__main__":
    main(launcher)
