"""Distributed data parallel training with ``torchrun``; a single process needs no setup.

Every process reads its own part of each batch, and DistributedDataParallel averages the gradients. Only
the main process (rank 0) validates and writes files while the others wait.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from model.captioner import check_device
from training.errors import ProcessError

Value = TypeVar("Value")
TIMEOUT = timedelta(hours=3)  # the others wait while the main process encodes all photos or validates
LOST_SIGNS = ("Connection closed by peer", "gloo", "NCCL")  # in messages of torch about other processes


@contextlib.contextmanager
def process_group(device: str) -> Iterator[str]:
    """Join the process group if ``torchrun`` started this process; yields this process's device.

    Raises:
        ProcessError: another process of the group exited early.
    """
    if not distributed.is_torchelastic_launched():
        yield device
        return
    on_gpu = device.startswith("cuda")
    if on_gpu:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        check_device(device)
        torch.cuda.set_device(device)
    try:
        distributed.init_process_group("nccl" if on_gpu else "gloo", timeout=TIMEOUT)
        yield device
    except RuntimeError as error:
        is_lost = isinstance(error, distributed.DistError)
        if not is_lost and not any(sign in str(error) for sign in LOST_SIGNS):
            raise
        raise ProcessError(
            f"Process {os.environ['RANK']} stopped because another process exited or is unreachable "
            f"({str(error).splitlines()[0]}). See the output of that process; re-run with --resume to "
            "continue from the last save."
        ) from None
    distributed.destroy_process_group()  # not after an error: it may wait for processes that are gone


def rank() -> int:
    """Rank of this process in the group, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world_size() -> int:
    """Number of processes in the group."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def is_main_process() -> bool:
    """Whether this process validates and writes files."""
    return rank() == 0


def broadcast_from_main(make: Callable[[], Value]) -> Value:
    """Return what ``make`` returns in the main process, in every process."""
    if not distributed.is_initialized():
        return make()
    box = [make() if is_main_process() else None]
    distributed.broadcast_object_list(box)
    value = box[0]
    assert value is not None
    return value


def wrap_ddp(module: nn.Module) -> nn.Module:
    """Wrap the module in DistributedDataParallel if there is a process group.

    Parameters with ``requires_grad`` must take part in every step and must keep that flag.
    """
    return DistributedDataParallel(module) if distributed.is_initialized() else module


def accumulate_gradients(module: nn.Module, *, synchronize: bool) -> AbstractContextManager[None]:
    """Context of one forward and backward pass; processes exchange gradients only if ``synchronize``."""
    if isinstance(module, DistributedDataParallel) and not synchronize:
        return module.no_sync()
    return contextlib.nullcontext()


def all_reduce(values: Tensor) -> Tensor:
    """Sum of ``values``, which are on the CPU, over all processes."""
    if not distributed.is_initialized():
        return values
    total = values.cuda() if distributed.get_backend() == "nccl" else values.clone()
    distributed.all_reduce(total)
    return total.cpu()


def barrier() -> None:
    """Wait until every process gets here."""
    if distributed.is_initialized():
        distributed.barrier()
