"""Week 08: DPO, conservative DPO and IPO on pairs that the start policy sampled and a verifier labelled.

DPO-norm, APO-zero and APO-down run as well; they are no exercises, so no function of yours is plugged in.

uv run python weeks/08/train.py --algorithm dpo --seed 1
uv run python weeks/08/train.py --algorithm dpo --set beta=0.03 lr=1e-3
"""

from reference_impl.launch import Launcher, main
from reference_impl.settings import PreferenceSettings


def train(functions, algorithm, settings, run):
    from reference_impl.loops.preference import train_preferences
    from reference_impl.loops.preference_updates import pair_update
    from reference_impl.loops.public_data import task_of
    from reference_impl.loops.start import start_models

    policy, reference, tokenizer = start_models(settings)
    update = pair_update(functions, algorithm.build(functions, settings), tokenizer, settings)
    task, logps, rewards = task_of(settings), functions.preference_logps, functions.implicit_rewards
    return train_preferences(policy, reference, tokenizer, task, update, logps, settings, run, rewards)


launcher = Launcher("08", PreferenceSettings, train)

if __name__ == "__main__":
    main(launcher)
