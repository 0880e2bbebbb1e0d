"""Week 02: supervised fine-tuning of the nano model, from random weights to a middling solver.

uv run python weeks/02/train.py --impl student --seed 0
uv run python weeks/02/train.py --steps 600 --set lr=6e-3 micro_batches=4
uv run python weeks/02/train.py --scale full --data no_robots      # or a file with `messages`
"""

from reference_impl.launch import Launcher, main
from reference_impl.settings import SFTSettings


def train(functions, algorithm, settings, run):
    from reference_impl.loops.public_data import learns_from_data, public_instructions, task_of
    from reference_impl.loops.sft import train_sft
    from reference_impl.models import load_model

    model, tokenizer = load_model(settings.policy)
    examples = also = None  # the task's demonstrations
    if learns_from_data(settings):
        examples, also = public_instructions(settings, tokenizer, functions, run)
    return train_sft(model, tokenizer, task_of(settings), functions, settings, run, examples, also)


launcher = Launcher("02", SFTSettings, train)

if __name__ == "__main__":
    main(launcher)
