"""Week 01: look at the machine, climb the objective with a policy that is a table, train a first reward model.

uv run python weeks/01/train.py --impl student
uv run python weeks/01/train.py --set "kl_weights=[0.02, 2.0]" steps=1000
"""

from reference_impl.launch import Launcher, main
from reference_impl.settings import ObjectiveSettings


def train(functions, algorithm, settings, run):
    from reference_impl.loops.first_reward_model import FirstRewardModel
    from reference_impl.loops.objective import train_objective
    from reference_impl.runs.doctor import check_machine

    check_machine(run)
    return train_objective(functions, settings, run, FirstRewardModel(settings))


launcher = Launcher("01", ObjectiveSettings, train)

if __name__ == "__main__":
    main(launcher)
