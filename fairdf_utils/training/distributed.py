"""Several processes that train one detector, each on its share of every batch.

Started by `torchrun` or by Accelerate's `notebook_launcher`; without them every function here is that of a single
process. Losses that compare the images of a batch (CVaR, triplets) see the whole batch: `gather` brings the small
outputs of all processes together and sends gradients back, so that N processes compute what one would compute.
"""

from __future__ import annotations

import os
from contextlib import contextmanager

import torch
import torch.distributed as dist
from accelerate import PartialState
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


def count() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def join(device: torch.device) -> torch.device:
    """Meet the other processes, if this one was started as one of several; the device that it should use.

    GPUs talk through nccl, CPUs through gloo; process i takes GPU i.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return device
    return PartialState(cpu=device.type == "cpu").device


@contextmanager
def first_alone():
    """Process 0 runs the block before the others do: what it writes, they find."""
    if rank() > 0:
        dist.barrier()
    yield
    if rank() == 0 and count() > 1:
        dist.barrier()


def spread(model: nn.Module) -> nn.Module:
    """The model with gradients averaged over the processes; batch norms see the whole batch on GPUs.

    On CPUs torch has no such batch norm: each process normalises by its own share of the batch.
    """
    if count() == 1:
        return model
    on_gpu = next(model.parameters()).is_cuda
    if on_gpu:
        model = convert_sync_batchnorm(model)  # timm's: torch's own would lose the activations of its batch norms
    return DistributedDataParallel(model, find_unused_parameters=True)  # a head may have no part in the loss


def bare(model: nn.Module) -> nn.Module:
    """The model inside `spread`'s result."""
    return model.module if isinstance(model, DistributedDataParallel) else model


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(context, local: Tensor) -> Tensor:
        parts = [torch.empty_like(local) for _ in range(count())]
        dist.all_gather(parts, local.contiguous())
        return torch.stack(parts)

    @staticmethod
    def backward(context, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        return gradient[rank()]


def gather(local: Tensor) -> Tensor:
    """The rows of all processes, in the order of the whole batch.

    Every process computes the same loss from the result, so the backward pass sums its gradients over the processes;
    averaging them (`spread`) then leaves the gradient of one process with the whole batch.

    Parameters
    ----------
    local : Tensor (2b, ...), this process's b fakes and b reals

    Returns
    -------
    Tensor (2B, ...), B = b * count(): all fakes, then all reals
    """
    if count() == 1:
        return local
    parts = _Gather.apply(local)  # (processes, 2b, ...)
    parts = parts.unflatten(1, (2, -1)).transpose(0, 1)  # (2, processes, b, ...)
    return parts.flatten(0, 2)


def mean(local: Tensor) -> Tensor:
    """Mean of a tensor over the processes, without gradient."""
    if count() > 1:
        dist.all_reduce(local)
        local /= count()
    return local


def gather_rows(local) -> list:
    """What each process holds, as a list in the order of the processes."""
    if count() == 1:
        return [local]
    parts = [None] * count()
    dist.all_gather_object(parts, local)
    return parts
