"""Several processes that train one network, as ``torchrun`` starts them; one process needs none of this.

Each process reads its own part of every batch; PyTorch's DistributedDataParallel adds the gradients up. The
first process alone validates and writes, the others wait for it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from model.captioner import check_device
from training.errors import ProcessError

# The others wait while the first process encodes all photos or validates.
Made = TypeVar("Made")
PATIENCE = timedelta(hours=3)


@contextlib.contextmanager
def processes_of_run(device: str) -> Iterator[str]:
    """Join the other processes of this run, if ``torchrun`` started some; the device of this one.

    Raises:
        ProcessError: another process ended before its time.
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
        distributed.init_process_group("nccl" if on_gpu else "gloo", timeout=PATIENCE)
        yield device
    except RuntimeError as error:
        if not _is_loss_of_process(error):
            raise
        raise ProcessError(
            f"Process {os.environ['RANK']} stops: another process of this run ended or cannot be reached "
            f"({str(error).splitlines()[0]}). What that one said is above or below; the same command with "
            "--resume goes on from the last save."
        ) from None
    distributed.destroy_process_group()  # not after an error: it might wait for those that are gone


def _is_loss_of_process(error: RuntimeError) -> bool:
    text = str(error)
    is_from_torch = isinstance(error, distributed.DistError)
    return is_from_torch or any(sign in text for sign in ("Connection closed by peer", "gloo", "NCCL"))


def rank() -> int:
    """The place of this process among those of the run, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def processes() -> int:
    """How many processes train this network."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def is_first() -> bool:
    """Whether this is the process that validates and writes."""
    return rank() == 0


def from_first(make: Callable[[], Made]) -> Made:
    """What the first process makes, for all of them."""
    if not distributed.is_initialized():
        return make()
    box = [make() if is_first() else None]
    distributed.broadcast_object_list(box)
    made = box[0]
    assert made is not None
    return made


def spread(module: nn.Module) -> nn.Module:
    """The module with its gradients averaged over all processes in every backward pass.

    What has ``requires_grad`` must take part in every step, and must keep it.
    """
    return DistributedDataParallel(module) if distributed.is_initialized() else module


@contextlib.contextmanager
def accumulating(module: nn.Module, is_last: bool) -> Iterator[None]:
    """Forward and backward of one part of a step: processes meet in the last alone."""
    if isinstance(module, DistributedDataParallel) and not is_last:
        with module.no_sync():
            yield
    else:
        yield


def sum_of(numbers: Tensor) -> Tensor:
    """The sum over all processes of numbers on the CPU."""
    if not distributed.is_initialized():
        return numbers
    everywhere = numbers.cuda() if distributed.get_backend() == "nccl" else numbers.clone()
    distributed.all_reduce(everywhere)
    return everywhere.cpu()


def wait() -> None:
    """Go on when all processes have come here."""
    if distributed.is_initialized():
        distributed.barrier()
