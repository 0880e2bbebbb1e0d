"""Week 10: rejection sampling in four selections, beside RL on as many samples; and what preferences are.

uv run python weeks/10/train.py --algorithm top-per-prompt --seed 1
uv run python weeks/10/train.py --algorithm top-k-overall --set reward=runs/03-... keep=2
uv run python weeks/10/train.py --experiment compare       # all four and RLOO, with error bars and pass@k
uv run python weeks/10/train.py --experiment best-of-n     # its KL by the formula and as measured
uv run python weeks/10/train.py --experiment pool          # annotators who disagree: strengths, cycles, kappa
"""

from reference_impl.launch import Launcher, main
from reference_impl.settings import RejectionSettings


def train(functions, algorithm, settings, run):
    from reference_impl.loops.public_data import task_of
    from reference_impl.loops.rejection import rl_settings, train_on_chosen
    from reference_impl.loops.rl import train_rl
    from reference_impl.loops.start import start_models
    from reference_impl.rewards import reward_function

    task = task_of(settings)
    policy, reference, tokenizer = start_models(settings)
    reward = reward_function(settings.reward, task, tokenizer)
    if algorithm.week == "10":
        select = algorithm.build(functions, settings)
        return train_on_chosen(policy, reference, tokenizer, task, reward, select, settings, run)
    equal = rl_settings(settings)
    return train_rl(policy, reference, tokenizer, task, reward, *algorithm.build(functions, equal), equal, run)


def compare(functions, algorithm, settings, run):
    from reference_impl.loops.selections import compare_selections

    return compare_selections(train, functions, settings, run)


def best_of_n(functions, algorithm, settings, run):
    from reference_impl.loops.bon_kl import measure_best_of_n

    return measure_best_of_n(functions, settings, run)


def pool(functions, algorithm, settings, run):
    from reference_impl.loops.annotators import measure_pools

    return measure_pools(functions, settings, run)


launcher = Launcher("10", RejectionSettings, train, {"compare": compare, "best-of-n": best_of_n, "pool": pool})

if __name__ == "__main__":
    main(launcher)
