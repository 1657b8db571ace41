"""Several processes that train one detector, each on its share of every batch.

Started by `torchrun` or by Accelerate's `notebook_launcher`; without them every function here is that of a single
process. Losses that compare the images of a batch (CVaR, triplets) see the whole batch: `all_gather` brings the small
outputs of all processes together and sends gradients back, so that N processes compute what one would compute.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from accelerate import PartialState
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch.distributed.nn import functional
from torch.nn.parallel import DistributedDataParallel


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def init_process_group(device: torch.device) -> torch.device:
    """Meet the other processes, if this one was started as one of several; the device that it should use.

    GPUs talk through nccl, CPUs through gloo; process i takes GPU i.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return device
    return PartialState(cpu=device.type == "cpu").device


@contextmanager
def rank_zero_first() -> Iterator[None]:
    """Process 0 runs the block before the others do: what it writes, they find."""
    if rank() > 0:
        dist.barrier()
    try:
        yield
    finally:
        if rank() == 0 and world_size() > 1:
            dist.barrier()


def parallel(model: nn.Module) -> nn.Module:
    """The model with gradients averaged over the processes; batch norms see the whole batch on GPUs.

    On CPUs torch has no such batch norm: each process normalises by its own share of the batch.
    """
    if world_size() == 1:
        return model
    if next(model.parameters()).is_cuda:
        model = convert_sync_batchnorm(model)  # timm's: torch's own would lose the activations of its batch norms
    return DistributedDataParallel(model, find_unused_parameters=True)  # a head may have no part in the loss


def all_gather(local: Tensor) -> Tensor:
    """The rows of all processes, in the order of the whole batch.

    From this process's b fakes and b reals, (2b, ...), all fakes and then all reals, (2B, ...), B = b * world_size().
    Every process computes the same loss from the result, so the backward pass sums its gradients over the processes;
    averaging them (`parallel`) then leaves the gradient of one process with the whole batch.
    """
    if world_size() == 1:
        return local
    parts = torch.stack(functional.all_gather(local))  # (processes, 2b, ...)
    return parts.unflatten(1, (2, -1)).transpose(0, 1).flatten(0, 2)


def all_reduce_mean(local: Tensor) -> Tensor:
    """Mean of a tensor over the processes, without gradient."""
    if world_size() > 1:
        dist.all_reduce(local)
        local /= world_size()
    return local


def all_gather_object(local: Any) -> list:
    """What each process holds, as a list in the order of the processes."""
    if world_size() == 1:
        return [local]
    parts = [None] * world_size()
    dist.all_gather_object(parts, local)
    return parts
