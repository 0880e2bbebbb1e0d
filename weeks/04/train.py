"""Week 04: a process reward model beside an outcome model, and the best of N by either, by majority, by the verifier.

uv run python weeks/04/train.py --impl student --seed 0
uv run python weeks/04/train.py --set label_eos=false         # forget that stopping is a step
uv run python weeks/04/train.py --set prm_share=0.1           # a tenth of the traces for the process model
"""

from reference_impl.launch import Launcher, main
from reference_impl.settings import ProcessSettings


def train(functions, algorithm, settings, run):
    from reference_impl.loops.process import train_process
    from reference_impl.loops.public_data import learns_from_data
    from reference_impl.loops.public_rewards import train_on_steps

    objectives = algorithm.build(functions, settings)
    if learns_from_data(settings):
        return train_on_steps(functions, objectives["prm"], settings, run)
    return train_process(functions, objectives, settings, run)


launcher = Launcher("04", ProcessSettings, train)

if __name__ == "__main__":
    main(launcher)
