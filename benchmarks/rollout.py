"""Rollout engine against transformers' `generate`: `python benchmarks/rollout.py`. Prints ratios, measured in one run.

Same weights (nano weights in Qwen3ForCausalLM, and one random 30M-parameter Llama run by both), same prompts, rows that
end at different lengths as in training. Tokens are those of completions, up to and including their eos; both engines
alternate, and each ratio is the median over the repetitions. Greedy rows: both engines must write the same tokens.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from rich.console import Console
from rich.table import Table

from reference_impl.models import BASE, load_model
from reference_impl.sampling import generate
from reference_impl.tasks import get_task

EOS, PAD = 2, 0
EOS_BIAS = {1.0: 8.0, 0.0: 7.2}  # by temperature: about one token in 17 ends a completion of the random Llama


class EndingHead(torch.nn.Linear):
    """An output layer that favours eos, since random weights alone would hardly ever end a completion."""

    eos_bias = 0.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = super().forward(x)
        logits[..., EOS] = self.eos_bias
        return logits


def random_llama() -> torch.nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64 * 64,
        hidden_size=512,
        intermediate_size=1408,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=8,
        tie_word_embeddings=False,
        pad_token_id=PAD,
        eos_token_id=EOS,
    )
    model = LlamaForCausalLM(config).eval()
    model.lm_head.__class__ = EndingHead
    torch.nn.init.normal_(model.lm_head.weight, std=0.1)  # logits of spread 2.3, so that greedy rows differ too
    return model


def ours(model, prompt_ids, group, max_new_tokens, temperature, seed):
    generator = torch.Generator().manual_seed(seed)
    rollout = generate(model, prompt_ids, group, max_new_tokens, EOS, PAD, temperature, generator)
    return [ids[mask.bool()].tolist() for ids, mask in zip(rollout.input_ids, rollout.response_mask, strict=True)]


@torch.no_grad()
def theirs(model, prompt_ids, group, max_new_tokens, temperature, seed):
    torch.manual_seed(seed)
    width = max(map(len, prompt_ids))
    input_ids = torch.tensor([[PAD] * (width - len(ids)) + ids for ids in prompt_ids]).repeat_interleave(group, 0)
    sampling = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {"do_sample": False}
    output = model.generate(
        input_ids=input_ids,
        attention_mask=(input_ids != PAD).long(),
        max_new_tokens=max_new_tokens,
        eos_token_id=EOS,
        pad_token_id=PAD,
        **sampling,
    )
    completions = []
    for row in output[:, width:].tolist():
        completions.append(row[: row.index(EOS) + 1] if EOS in row else row)
    return completions


def measure(our_model, their_model, prompt_ids, group, max_new_tokens, temperature, repetitions, clock) -> dict:
    """Median tokens per second of both engines, their median ratio, and the lengths that came out."""
    speeds = {ours: [], theirs: []}
    lengths = {ours: [], theirs: []}
    texts = {}
    for repetition in range(repetitions + 1):
        for engine, model in ((ours, our_model), (theirs, their_model)):
            began = clock()
            rows = engine(model, prompt_ids, group, max_new_tokens, temperature, seed=repetition)
            seconds = clock() - began
            texts[engine] = rows
            if repetition:  # the first round warms up
                speeds[engine].append(sum(map(len, rows)) / seconds)
                lengths[engine].append(statistics.mean(map(len, rows)))
    if temperature == 0:
        same = sum(a == b for a, b in zip(texts[ours], texts[theirs], strict=True))
        assert same >= 0.99 * len(texts[ours]), f"greedy completions differ: only {same} of {len(texts[ours])} agree"
    return {
        "ours": statistics.median(speeds[ours]),
        "theirs": statistics.median(speeds[theirs]),
        "ratio": statistics.median(a / b for a, b in zip(speeds[ours], speeds[theirs], strict=True)),
        "lengths": f"{statistics.mean(lengths[ours]):.1f} / {statistics.mean(lengths[theirs]):.1f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", choices=["nano", "llama"])
    parser.add_argument(
        "--cpu-time", action="store_true", help="CPU seconds instead of wall time, for a busy machine; with --threads 1"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    clock = time.process_time if arguments.cpu_time else time.perf_counter

    from transformers import Qwen3ForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    nano, tokenizer = load_model("base")
    qwen = Qwen3ForCausalLM.from_pretrained(BASE, dtype=torch.float32).eval()
    sums = [tokenizer.encode(prompt.text) for prompt in get_task().prompts("rl", 64)]
    llama = random_llama() if arguments.only != "nano" else None
    draw = torch.Generator().manual_seed(0)
    noise = [torch.randint(3, 4000, (int(n),), generator=draw).tolist() for n in torch.arange(24, 40)]
    cases = [
        ("nano, 8 x 8, sampled", nano, qwen, sums[:8], 8, 28, 1.0),
        ("nano, 64 x 8, sampled", nano, qwen, sums, 8, 28, 1.0),
        ("nano, 64 x 8, greedy", nano, qwen, sums, 8, 28, 0.0),
        ("Llama 30M, 4 x 8, sampled", llama, llama, noise[:4], 8, 48, 1.0),
        ("Llama 30M, 16 x 1, sampled", llama, llama, noise, 1, 48, 1.0),
        ("Llama 30M, 16 x 4, greedy", llama, llama, noise, 4, 48, 0.0),
    ]
    table = Table(title=f"completion tokens per {'CPU ' * arguments.cpu_time}second, {torch.get_num_threads()} threads")
    for column in ("model, prompts x group", "ours", "generate", "ratio", "mean lengths"):
        table.add_column(column, justify="left" if column.startswith("model") else "right")
    for name, our_model, their_model, prompts, group, limit, temperature in cases:
        if arguments.only and not name.lower().startswith(arguments.only):
            continue
        if our_model is llama:
            llama.lm_head.eos_bias = EOS_BIAS[temperature]
        row = measure(our_model, their_model, prompts, group, limit, temperature, arguments.repetitions, clock)
        table.add_row(name, f"{row['ours']:,.0f}", f"{row['theirs']:,.0f}", f"{row['ratio']:.2f}", row["lengths"])
    Console().print(table)


if __name__ == "__main__":
    main()
