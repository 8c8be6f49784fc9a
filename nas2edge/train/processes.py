"""Several processes that train one supernet: started by torchrun, each with its own share of every batch.

All processes draw the same sub-networks, and gradients are reduced once a step, after the backward passes of all of
them. Random numbers are drawn for the whole batch, so that its images are the same for any number of processes. One
process alone reduces nothing.

>>> process = join()  # reads what torchrun sets; one process otherwise
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

T = TypeVar("T")
_NOTHING = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One of the processes of a run.

    Args:
        rank: Its number, from 0.
        world: How many there are.
        device: What it computes on.
    """

    rank: int = 0
    world: int = 1
    device: torch.device = torch.device("cpu")

    @property
    def first(self) -> bool:
        """Whether it is the one that writes files and shows progress."""
        return self.rank == 0


ALONE = Process()


def join() -> Process:
    """Joins the run that torchrun started, over NCCL on GPUs and gloo on CPUs; a lone process joins none."""
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    if world > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if cuda else "gloo")
    return Process(rank=rank, world=world, device=device)


def leave() -> None:
    """Leaves the run; nothing to do for a lone process."""
    if dist.is_initialized():
        dist.destroy_process_group()


def wait(process: Process) -> None:
    """Waits until all processes have come here."""
    if process.world > 1:
        dist.barrier()


def total(value: Tensor, process: Process) -> Tensor:
    """Returns the sum of a tensor over the processes."""
    if process.world > 1:
        value = value.clone()
        dist.all_reduce(value)
    return value


def gather(values: Sequence[T], process: Process) -> list[T]:
    """Returns the values of all processes in turn: the first of each, then the second of each, and so on."""
    if process.world == 1:
        return list(values)
    parts: list[Any] = [None] * process.world
    dist.all_gather_object(parts, list(values))
    return [value for row in zip_longest(*parts, fillvalue=_NOTHING) for value in row if value is not _NOTHING]


def average(value: Tensor, process: Process) -> float:
    """Returns the mean of a number over the processes."""
    return float(total(value, process)) / process.world


def average_gradients(model: nn.Module, process: Process) -> None:
    """Replaces every gradient by its mean over the processes, in one reduction."""
    if process.world > 1:
        # A parameter that no sub-network of this step used has no gradient, on every process alike.
        _average([p.grad for p in model.parameters() if p.grad is not None], process)


def _average(tensors: Iterable[Tensor], process: Process) -> None:
    tensors = list(tensors)
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(flat)
    flat /= process.world
    for tensor, part in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))
