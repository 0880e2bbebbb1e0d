"""Week 05: REINFORCE, REINFORCE with a baseline and RLOO, from the SFT checkpoint on problems that a verifier checks.

uv run python weeks/05/train.py --algorithm rloo --seed 1
uv run python weeks/05/train.py --algorithm reinforce --set reward_shift=3
uv run python weeks/05/train.py --experiment snr
uv run python weeks/05/train.py --reward runs/03-...
"""

from reference_impl.launch import Launcher, main
from reference_impl.settings import RLSettings


def prepare(settings):
    """What every experiment of the week starts from; the verifier gives 1 for a right answer that ends, else 0."""
    from reference_impl.loops.public_data import task_of
    from reference_impl.loops.start import start_models
    from reference_impl.rewards import reward_function

    task = task_of(settings)
    policy, reference, tokenizer = start_models(settings)
    return policy, reference, tokenizer, task, reward_function(settings.reward, task, tokenizer)


def train(functions, algorithm, settings, run):
    from reference_impl.loops.rl import train_rl

    advantages, loss = algorithm.build(functions, settings)
    return train_rl(*prepare(settings), advantages, loss, settings, run)


def snr(functions, algorithm, settings, run):
    from reference_impl.loops.gradient_signal import gradient_signal

    policy, _, tokenizer, task, reward = prepare(settings)
    return gradient_signal(policy, tokenizer, task, reward, settings, run)


launcher = Launcher("05", RLSettings, train, experiments={"snr": snr})

if __name__ == "__main__":
    main(launcher)
