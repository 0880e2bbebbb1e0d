"""Scenes for week 02: the student's training loop runs a tiny model on batches of known sizes."""

from types import SimpleNamespace

import torch

VOCABULARY = 11


class TinyLM(torch.nn.Module):
    """Logits from the token itself and the mean of the attended tokens of its row; twice as sharp in eval mode."""

    def __init__(self, generator: torch.Generator, sharpness: float, nan_outside: bool):
        super().__init__()
        table = torch.randn(2, VOCABULARY, VOCABULARY, generator=generator, dtype=torch.float64)
        self.table = torch.nn.Parameter(table)
        self.sharpness, self.nan_outside = sharpness, nan_outside

    def forward(self, *, input_ids, attention_mask):
        mask = attention_mask.to(torch.float64).unsqueeze(-1)
        context = (self.table[1][input_ids] * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True)
        logits = (self.table[0][input_ids] + context) * self.sharpness * (1 if self.training else 2)
        if self.nan_outside:  # what some attention kernels leave at padding
            logits = torch.where(mask.bool(), logits, torch.nan)
        return SimpleNamespace(logits=logits)


def micro_batch(rows: list[int], generator: torch.Generator) -> dict[str, torch.Tensor]:
    """A batch whose row i has rows[i] supervised tokens, after a prompt of one to three, padded on the right."""
    prompts = [1 + (i + n) % 3 for i, n in enumerate(rows)]
    width = max(p + n for p, n in zip(prompts, rows, strict=True))
    t = torch.arange(width)
    start, length = torch.tensor(prompts)[:, None], torch.tensor(prompts)[:, None] + torch.tensor(rows)[:, None]
    input_ids = torch.randint(1, VOCABULARY, (len(rows), width), generator=generator) * (t < length)
    labels = torch.where((t >= start) & (t < length), input_ids, -100)
    return {"input_ids": input_ids, "attention_mask": (t < length).long(), "labels": labels}


def train(
    sft_loop,
    supervised: list[list[list[int]]],
    seed: int = 0,
    max_grad_norm: float | None = 1e9,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    stale_gradient: float = 0.0,
    warmup: bool = False,
    from_eval_mode: bool = False,
    from_generator: bool = False,
    nan_at_padding: bool = False,
    sharpness: float = 1.0,
):
    """`supervised[step][micro_batch][row]` is how many tokens that row supervises. max_grad_norm None: left at its
    default. Returns the losses, how the weights moved, and the learning rate afterwards."""
    generator = torch.Generator().manual_seed(seed)
    model = TinyLM(generator, sharpness, nan_at_padding).train(not from_eval_mode)
    start = model.table.detach().clone()
    batches = [[micro_batch(rows, generator) for rows in element] for element in supervised]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=momentum, weight_decay=weight_decay)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (2 + step)) if warmup else None
    if stale_gradient:
        model.table.grad = torch.full_like(model.table, stale_gradient)
    settings = {} if max_grad_norm is None else {"max_grad_norm": max_grad_norm}
    if scheduler is not None:
        settings["scheduler"] = scheduler
    losses = sft_loop(model, iter(batches) if from_generator else batches, optimizer, **settings)
    return {
        "losses": losses,
        "moved": model.table.detach() - start,
        "learning_rate": optimizer.param_groups[0]["lr"],
        "mode": "train" if model.training else "eval",
    }


def lists_unchanged(build_example, prompt_ids: list[int], response_ids: list[int], eos_id: int, max_length: int):
    """The two lists as they are after the call."""
    build_example(prompt_ids, response_ids, eos_id, max_length)
    return {"prompt_ids": prompt_ids, "response_ids": response_ids}


def examples_unchanged(collate, examples: list, pad_id: int):
    """The examples as they are after the call."""
    collate(examples, pad_id)
    return examples
