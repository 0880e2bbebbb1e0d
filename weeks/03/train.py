"""Week 03: a preference model (Bradley-Terry) and an outcome model, on completions that the verifier judged.

uv run python weeks/03/train.py --impl student --seed 0
uv run python weeks/03/train.py --algorithm orm --set negatives=edited
uv run python weeks/03/train.py --scale full --data ultrafeedback  # or a file of pairs: the preference model alone
uv run python weeks/05/train.py --reward runs/03-...     # the saved model as the reward of a policy
"""

from reference_impl.launch import Launcher, main
from reference_impl.settings import RewardSettings


def train(functions, algorithm, settings, run):
    from reference_impl.loops.outcome import train_outcome
    from reference_impl.loops.public_data import learns_from_data
    from reference_impl.loops.public_rewards import train_on_pairs

    objectives = algorithm.build(functions, settings)
    if learns_from_data(settings):
        return train_on_pairs(objectives, settings, run)
    return train_outcome(functions, objectives, settings, run)


launcher = Launcher("03", RewardSettings, train)

if __name__ == "__main__":
    main(launcher)
