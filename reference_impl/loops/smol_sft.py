"""smol-sft: SmolLM2 after week 02's fine-tuning, the start of the other weeks at scale smol.

As it comes, SmolLM2-135M-Instruct hardly ever solves a sum step by step in its chat template, and a policy that is
never right learns nothing from rewards. smol-sft is the model that `weeks/02/train.py --scale smol --impl reference`
ends with (seed 0); it is made once, when it is first asked for, and kept beside the converted weights. `--policy smol`
starts without it, `--policy runs/02-...` with a run of week 02, made by your own functions.
"""

from __future__ import annotations

from pathlib import Path

import torch

from reference_impl import sft
from reference_impl.data.order import batch_indices
from reference_impl.distributed import barrier, from_main, is_main
from reference_impl.loops.sft_steps import sft_steps
from reference_impl.models import load_model, save_model
from reference_impl.models.smol import cache
from reference_impl.runs.progress import track
from reference_impl.tasks import get_task

STEPS, BATCH, LR, WARMUP = 100, 32, 2e-4, 10  # as in weeks/02/config.yaml


def smol_sft_folder() -> Path:
    """Where it lies; trains it first if need be."""
    folder = cache() / f"smol-sft-{STEPS}x{BATCH}"
    if not from_main((folder / "config.json").is_file):
        model, tokenizer = load_model("smol")
        fine_tune(model, tokenizer)
        if is_main():
            save_model(model, tokenizer, folder)
        barrier()
    return folder


def fine_tune(model, tokenizer, steps: int = STEPS) -> None:
    """Week 02's recipe for a pretrained model: AdamW, warm-up, half a cosine."""
    demonstrations = get_task("chain_sum").demonstrations(steps * BATCH)
    examples = [
        sft.build_example(tokenizer.encode_prompt(prompt), tokenizer.encode(text), tokenizer.eos_token_id, 128)
        for prompt, text in demonstrations
    ]
    optimizer = torch.optim.AdamW(model.parameters(), LR, (0.9, 0.98), weight_decay=0.0, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: sft.lr_at(step + 1, steps, LR, WARMUP, 0.05) / LR
    )
    for tick in track("smol-sft", 0, steps):
        rows = [examples[i] for i in batch_indices(tick.step - 1, len(examples), BATCH, seed=0)]
        batch = sft.collate(rows, tokenizer.pad_token_id)
        (loss,) = sft_steps(model, [[batch]], optimizer, 1.0, schedule, sft)
        tick.note(f"loss {loss:.3f}")
