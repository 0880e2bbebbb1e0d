"""Week 02: supervised fine-tuning of the nano model, from random weights to a middling solver.

uv run python weeks/02/train.py --impl student --seed 0
uv run python weeks/02/train.py --steps 600 --set lr=6e-3 micro_batches=4
"""

from reference_impl.config import SFTSettings
from reference_impl.launch import Launcher, main


def train(functions, algorithm, settings, run):
    from reference_impl.loops.sft import train_sft
    from reference_impl.models import load_model
    from reference_impl.tasks import get_task

    model, tokenizer = load_model(settings.policy)
    return train_sft(model, tokenizer, get_task(settings.task), functions, settings, run)


launcher = Launcher("02", SFTSettings, train)

if __name__ == "__main__":
    main(launcher)
