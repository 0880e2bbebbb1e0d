"""Week 08: DPO, conservative DPO and IPO on pairs that the start policy sampled and a verifier labelled.

uv run python weeks/08/train.py --algorithm dpo --seed 1
uv run python weeks/08/train.py --algorithm dpo --set beta=0.03 lr=1e-3
"""

from reference_impl.config import PreferenceSettings
from reference_impl.launch import Launcher, main


def train(functions, algorithm, settings, run):
    from reference_impl.loops.preference import train_preferences
    from reference_impl.loops.start import start_models
    from reference_impl.tasks import get_task

    policy, reference, tokenizer = start_models(settings)
    loss_for = algorithm.build(functions, settings)
    return train_preferences(policy, reference, tokenizer, get_task(settings.task), functions, loss_for, settings, run)


launcher = Launcher("08", PreferenceSettings, train)

if __name__ == "__main__":
    main(launcher)
