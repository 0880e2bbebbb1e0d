"""One run on several processes: `torchrun --nproc-per-node 2 weeks/06/train.py`, or `accelerate launch` in its place.

Every rank holds the model, the prompts and all random numbers, and does the whole run; what is expensive is divided by
rows. A rank samples its share of the prompts and reads its share of a batch, and gets the others' results:

    outputs = gather_rows(outputs of my rows)                    the outputs of the whole batch, on every rank
    L       = loss(outputs)                                      so the loss is that of the whole batch
    dL/dtheta = sum over ranks  dL/d(my outputs) d(my outputs)/dtheta                           sum_gradients

That is exact for every loss. torch's DistributedDataParallel takes the mean of the ranks' own losses instead, which is
the loss of the batch only if it is a mean over equally many rows: a mean over tokens, a clip at a group's mean or KTO's
reference point are not. With one process nothing here does anything.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from reference_impl.errors import UserError

PATIENCE = timedelta(hours=2)  # that ranks wait for each other: the first may be converting a model


def start() -> None:
    """Meet the other processes, whom torchrun told where. Without torchrun, or a second time, nothing happens."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1 or dist.is_initialized():
        return
    if torch.cuda.is_available() and local_rank() < torch.cuda.device_count():
        torch.cuda.set_device(local_rank())  # what "cuda" means from now on
    # tensors meet where they are; what is no tensor meets on the CPU
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
    for number, ends in ((signal.SIGINT, KeyboardInterrupt()), (signal.SIGTERM, SystemExit(143))):
        signal.signal(number, lambda number, frame, ends=ends: _leave(number, ends))


def _leave(number: int, ends: BaseException) -> None:
    """Ctrl-C, or torchrun's end of all when one has failed: once, since torchrun says it again."""
    signal.signal(number, signal.SIG_IGN)
    raise ends


def stop() -> None:
    """Part from the other processes."""
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """This process, counted from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes share the run."""
    return dist.get_world_size() if dist.is_initialized() else 1


def local_rank() -> int:
    """This process among those of its machine."""
    return int(os.environ.get("LOCAL_RANK", 0))


def is_main() -> bool:
    """The one that writes, prints and draws."""
    return rank() == 0


def barrier() -> None:
    """Wait until all ranks are here."""
    if world_size() > 1:
        gather_objects(None)


def from_main(value: Callable[[], Any]) -> Any:
    """What rank 0 says, on every rank."""
    if world_size() == 1:
        return value()
    said = [value() if is_main() else None]
    dist.broadcast_object_list(said)
    return said[0]


def first_to_fail() -> bool:
    """Is no other rank failing already? The first one says what went wrong, the others end because of it."""
    if world_size() == 1:
        return True
    try:
        return dist.distributed_c10d._get_default_store().add("failed", 1) == 1
    except RuntimeError:  # whoever kept the count is gone
        return False


def scratch() -> Path:
    """Where ranks other than 0 write what rank 0 writes into the run folder; it goes when they do."""
    global _scratch
    if _scratch is None:
        _scratch = Path(tempfile.mkdtemp(prefix=f"rlhf-rank{rank()}-"))
        atexit.register(shutil.rmtree, _scratch, ignore_errors=True)
    return _scratch


_scratch: Path | None = None


def my_slice(n: int) -> slice:
    """This rank's share of n things, neighbours together; all of them where there are fewer than ranks."""
    if n < world_size():
        return slice(None)
    return slice(n * rank() // world_size(), n * (rank() + 1) // world_size())


def gather_objects(mine: Any) -> list[Any]:
    """Every rank's, in the order of ranks."""
    found = [None] * world_size()
    dist.all_gather_object(found, mine)
    return found


def gather_rollout(mine, join: Callable[[list], Any]):
    """The ranks' rollouts (dataclasses of tensors) as one, by `join`."""
    if world_size() == 1:
        return mine
    device = mine.input_ids.device
    parts = gather_objects({name: tensor.cpu() for name, tensor in vars(mine).items()})
    return join([type(mine)(**{name: tensor.to(device) for name, tensor in part.items()}) for part in parts])


def deal(order: Tensor) -> list[Tensor]:
    """Rows to ranks in turn, so that rows sorted by length give everybody as much work. UserError if one gets none."""
    if len(order) < world_size():
        raise UserError(
            f"A batch of {len(order)} cannot be divided among {world_size()} processes: make it larger (or "
            "micro_batches smaller), or start fewer."
        )
    return [order[first :: world_size()] for first in range(world_size())]


def each_ranks(parts: int) -> int:
    """Into how many parts each rank cuts its share, so that a part is as large as one of `parts` of the whole."""
    return -(-parts // world_size())


def gather_rows(mine: Tensor, shares: list[Tensor]) -> Tensor:
    """The rows of all ranks, (n, ...), of which `shares` says which rank has which; gradients flow into my own."""
    if len(shares) == 1:
        return mine[shares[0].argsort()]
    most = max(map(len, shares))
    padded = F.pad(mine.detach(), (0, 0) * (mine.dim() - 1) + (0, most - len(mine))).contiguous()
    parts = [torch.empty_like(padded) for _ in shares]
    dist.all_gather(parts, padded)
    rows = torch.cat([part[: len(share)] for part, share in zip(parts, shares, strict=True)])
    whole = torch.empty_like(rows).index_copy_(0, torch.cat(shares), rows)
    return whole.index_copy(0, shares[rank()], mine)


def over_rows(forward: Callable[[slice], Tensor], n: int) -> Tensor:
    """forward(rows) of n rows, (n, ...), each rank having done its share; without gradient."""
    mine = forward(my_slice(n))
    if world_size() == 1 or n < world_size():
        return mine
    return gather_rows(mine, list(torch.arange(n, device=mine.device).tensor_split(bounds(n))))


def bounds(n: int) -> list[int]:
    """Where the shares of `my_slice` begin, the first one excepted."""
    return [n * number // world_size() for number in range(1, world_size())]


def sum_gradients(model: nn.Module) -> None:
    """The gradient of the whole batch, out of every rank's part of it; before it is clipped."""
    if world_size() == 1 or sums_itself(model):
        return
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    together = torch.cat([gradient.flatten() for gradient in gradients])  # one message instead of one a parameter
    dist.all_reduce(together)
    for gradient, summed in zip(gradients, together.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(summed.view_as(gradient))


def sums_itself(model: nn.Module) -> bool:
    """Is the model divided among ranks (sharding.py), which sums its gradients in the backward pass?"""
    from reference_impl.sharding import is_sharded

    return is_sharded(model)


def sum_numbers(numbers: list[float]) -> list[float]:
    """Each number summed over ranks."""
    return numbers if world_size() == 1 else [sum(column) for column in zip(*gather_objects(numbers), strict=True)]


@contextmanager
def summed_gradients(model: nn.Module) -> Iterator[None]:
    """Inside, a gradient is summed over ranks as it arises: for training loops that also clip and step themselves."""

    def over_ranks(gradient: Tensor) -> Tensor:
        summed = gradient.clone()
        dist.all_reduce(summed)
        return summed

    alone = world_size() == 1 or sums_itself(model)
    parameters = [] if alone else [p for p in model.parameters() if p.requires_grad]
    handles = [parameter.register_hook(over_ranks) for parameter in parameters]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def divided(*models: nn.Module) -> Iterator[None]:
    """Inside, a call of a model computes this rank's rows and returns the logits of all; gradients are summed.

    So a function that knows nothing of ranks (`sft_loop`, `dpo_step`) trains on all of them: it sees the whole batch.
    """
    shares: list[list[Tensor]] = []

    def cut(model, args, kwargs):
        rows = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
        shares.append(deal(torch.arange(len(rows), device=rows.device)))
        mine = shares[-1][rank()]

        def part(value):
            return value[mine] if isinstance(value, Tensor) and value.shape[:1] == rows.shape[:1] else value

        return tuple(map(part, args)), {name: part(value) for name, value in kwargs.items()}

    def join(model, args, output):
        output.logits = gather_rows(output.logits, shares.pop())
        return output

    handles = []
    for model in models if world_size() > 1 else ():
        handles += [model.register_forward_pre_hook(cut, with_kwargs=True), model.register_forward_hook(join)]
    try:
        with summed_gradients(models[0]):
            yield
    finally:
        for handle in handles:
            handle.remove()
