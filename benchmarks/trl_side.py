"""TRL's side of benchmarks/training.py: its trainers on our data, with our settings, timed as our loops are.

They get their fastest settings that change no number. Gradient checkpointing, bfloat16 and the filter of NaN are on by
default in TRL and transformers, and off here. Padding-free batches need flash attention, Liger kernels a GPU.
"""

from __future__ import annotations

import os
import time
import warnings
from dataclasses import dataclass, field

import torch
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from reference_impl.models.tokenizer import CHARACTERS, SPECIAL

TRL_FLAGS = {
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "optim": "adamw_torch_fused",
    "report_to": "none",
    "logging_strategy": "no",
    "save_strategy": "no",
    "disable_tqdm": True,
    "dataloader_pin_memory": False,
    "logging_nan_inf_filter": False,
    "train_sampling_strategy": "sequential",
}


@dataclass
class Laps:
    """What a loop did: wall and CPU seconds of the timed steps, their tokens, and the losses of all steps."""

    tokens: int = 0
    wall: float = 0.0
    cpu: float = 0.0
    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)  # of the gradients, where they are logged

    def start(self) -> None:
        self.wall, self.cpu = -time.perf_counter(), -time.process_time()

    def stop(self) -> None:
        self.wall, self.cpu = self.wall + time.perf_counter(), self.cpu + time.process_time()


def adamw(model: torch.nn.Module, settings) -> AdamW:
    """The optimizer of our loops."""
    return AdamW(model.parameters(), settings.lr, settings.betas, weight_decay=settings.weight_decay, fused=True)


def fast_tokenizer():
    """CharTokenizer for transformers: the same ids."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    ids = {token: index for index, token in enumerate([*SPECIAL, *CHARACTERS])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>")


def run_trl(kind: str, bench, settings, model, rows, tokens=0, schedule=None, updates=1, parts=None, **options):
    """Laps of TRL's SFT, DPO, Reward or GRPO trainer; one of our steps is `updates` of its steps.

    `parts` are arguments of the trainer, `options` of its config; schedule(step) is the factor of the learning rate.
    """
    import trl
    from datasets import Dataset
    from transformers import PrinterCallback, TrainerCallback

    laps = Laps(tokens)

    class Clock(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == bench.warmup * updates:
                laps.start()
            elif state.global_step == settings.steps * updates:
                laps.stop()

    class Trainer(getattr(trl, f"{kind}Trainer")):
        def compute_loss(self, *args, **kwargs):
            loss = super().compute_loss(*args, **kwargs)
            laps.losses.append(loss.detach())
            return loss

    optimizer = adamw(model, settings)
    schedule = schedule or (lambda step: 1 - step / settings.steps)
    config = getattr(trl, f"{kind}Config")(
        output_dir=str(bench.folder),
        max_steps=settings.steps * updates,
        max_grad_norm=settings.max_grad_norm,
        **{**TRL_FLAGS, **options},
    )
    trainer = Trainer(
        model=model,
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=bench.their_tokenizer,
        callbacks=[Clock()],
        optimizers=(optimizer, LambdaLR(optimizer, lambda step: schedule(step // updates))),
        **(parts or {}),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    laps.losses = [float(loss) for loss in laps.losses]
    laps.norms = [float(row["grad_norm"]) for row in trainer.state.log_history if "grad_norm" in row]
    return laps


def grpo_options(settings, **options) -> dict:
    """GRPOConfig of our settings."""
    return {
        "per_device_train_batch_size": settings.prompts_per_step * settings.group // settings.minibatches,
        "steps_per_generation": settings.minibatches,
        "num_iterations": settings.epochs,
        "num_generations": settings.group,
        "max_completion_length": settings.max_new_tokens,
        "temperature": settings.temperature,
        "top_k": 0,
        "beta": settings.beta,
        "epsilon": settings.clip_low,
        "loss_type": "grpo",
        "shuffle_dataset": False,
        **options,
    }


class Verifier:
    """The task's reward for TRL; counts the tokens of each rollout."""

    __name__ = "verifier"

    def __init__(self, bench, prompts) -> None:
        self.task, self.eos = bench.task, bench.tokenizer.eos_token_id
        self.prompts = {prompt.text: prompt for prompt in prompts}
        self.tokens: list[int] = []  # of the rollouts so far

    def __call__(self, prompts: list[str], completions: list[str], completion_ids, **columns) -> list[float]:
        self.tokens.append(sum(map(len, completion_ids)))
        rows = zip(prompts, completions, completion_ids, strict=True)
        return [self.task.reward(self.prompts[prompt], text, ids[-1] == self.eos) for prompt, text, ids in rows]


def quiet() -> None:
    """No progress bars and no advice of the libraries."""
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    warnings.filterwarnings("ignore", category=FutureWarning)
    from datasets import disable_progress_bars
    from transformers.utils import logging

    disable_progress_bars()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
