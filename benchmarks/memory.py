"""Peak memory with a vocabulary of 151,936: `python benchmarks/memory.py`. Scoring, an SFT step and a DPO step.

Each way runs in a fresh process, on the same tiny backbone and the same batch. plain: whole logits, as the week files
compute them. ours: what the loops run for a large vocabulary. What is printed is the peak above the memory that the
process held before, weights and optimizer state included: resident memory on a CPU, allocated memory on a GPU.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import torch

from reference_impl import dpo, logprobs, sft
from reference_impl.data.pairs import Pair
from reference_impl.loops.preference_updates import pair_update
from reference_impl.loops.sft_steps import sft_steps
from reference_impl.models import NanoConfig, NanoLM
from reference_impl.sampling import score

VOCABULARY = 151_936
STEPS = ("scoring", "sft", "dpo")


class PeakMemory:
    """with PeakMemory() as peak: ...; then peak.mebibytes, above what was held at the start."""

    def __enter__(self) -> PeakMemory:
        self.start = self.peak = resident()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
            self.start = torch.cuda.memory_allocated()
        self.over = threading.Event()
        self.watcher = threading.Thread(target=self._watch)
        self.watcher.start()
        return self

    def _watch(self) -> None:
        while not self.over.is_set():
            self.peak = max(self.peak, resident())
            time.sleep(0.002)

    def __exit__(self, *error) -> None:
        self.over.set()
        self.watcher.join()
        if torch.cuda.is_available():
            self.peak = torch.cuda.max_memory_allocated()
        self.mebibytes = (self.peak - self.start) / 2**20


def resident() -> int:
    """Bytes of memory that this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def measure(step: str, way: str, rows: int, length: int) -> dict[str, float]:
    """Peak memory (MiB) and seconds of one step."""
    if way == "plain":
        logprobs.LARGE_VOCABULARY = VOCABULARY + 1
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_default_device(device)
    torch.manual_seed(0)
    model = NanoLM(NanoConfig(vocab_size=VOCABULARY))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    prompt = length // 2
    ids = torch.randint(3, VOCABULARY, (rows, length))
    texts = [(row[:prompt], row[prompt:]) for row in ids.tolist()]
    mask = (torch.arange(length) >= prompt).long().expand(rows, -1)

    def run() -> None:
        if step == "scoring":
            with torch.no_grad():
                score(model, ids, torch.ones_like(ids), mask=mask)
        elif step == "sft":
            batch = sft.collate([sft.build_example(p, a, 2, length) for p, a in texts], 0)
            sft_steps(model, [[batch]], optimizer, 1.0, None, sft)
        else:
            half = rows // 2
            pairs = [Pair(p, a, b) for (p, a), (_, b) in zip(texts[:half], texts[half:], strict=True)]
            settings = SimpleNamespace(batch_size=half, seed=0, max_grad_norm=1.0, micro_batches=1)
            update = pair_update(dpo, lambda batch: dpo.dpo_loss, SimpleNamespace(pad_token_id=0), settings)
            update(0, pairs, model, reference, optimizer)

    reference = NanoLM(model.config).requires_grad_(False)
    began = time.perf_counter()
    with PeakMemory() as peak:
        run()
    return {"mebibytes": peak.mebibytes, "seconds": time.perf_counter() - began}


def in_a_fresh_process(step: str, way: str, rows: int, length: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--one", step, way, "--rows", str(rows), "--length", str(length)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--one", nargs=2, metavar=("STEP", "WAY"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(*arguments.one, arguments.rows, arguments.length)))
        return
    print(f"{arguments.rows} rows of {arguments.length} tokens, half of them the answer; V = {VOCABULARY:,}")
    print(f"{'':10}{'plain':>12}{'ours':>12}{'ratio':>8}{'time ratio':>12}")
    for step in STEPS:
        plain, ours = (in_a_fresh_process(step, way, arguments.rows, arguments.length) for way in ("plain", "ours"))
        memory, seconds = (ours[key] / plain[key] for key in ("mebibytes", "seconds"))
        print(
            f"{step:10}{plain['mebibytes']:8.0f} MiB{ours['mebibytes']:8.0f} MiB{memory:8.0%}{seconds:12.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
