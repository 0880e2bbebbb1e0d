"""Week 09: SimPO, ORPO and KTO beside DPO, on the same pairs, batches and seeds.

uv run python weeks/09/train.py --algorithm simpo --seed 1
uv run python weeks/09/train.py --algorithm kto --set bad_per_good=9 desirable_weight=9
uv run python weeks/09/train.py --algorithm dpo          # week 08's, and its variants: from reference_impl alone
"""

from reference_impl.launch import Launcher, main
from reference_impl.settings import ReferenceFreeSettings


def train(functions, algorithm, settings, run):
    from reference_impl.dpo import preference_logps
    from reference_impl.loops.preference import train_preferences
    from reference_impl.loops.preference_updates import answer_update, pair_update
    from reference_impl.loops.public_data import task_of
    from reference_impl.loops.start import start_models

    policy, reference, tokenizer = start_models(settings)
    loss = algorithm.build(functions, settings)
    if algorithm.week == "09":
        update = answer_update(loss, tokenizer, settings, anchored=algorithm.name == "kto")
    else:
        update = pair_update(functions, loss, tokenizer, settings)
    task = task_of(settings)
    return train_preferences(policy, reference, tokenizer, task, update, preference_logps, settings, run)


launcher = Launcher("09", ReferenceFreeSettings, train)

if __name__ == "__main__":
    main(launcher)
