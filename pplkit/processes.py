"""One game in several processes, one per GPU: each takes its share of every batch, and the losses see all of it.

Every process computes the pairwise losses on the codes of the whole batch, walks back with the rows of their gradient that
belong to its own images, and the weights' gradients are summed. Batch normalisation takes its statistics over the whole batch.
So the gradient is the one of a single process with the same batch, up to the order of additions.

Started by `accelerate launch SCRIPT` in a terminal or by `accelerate.notebook_launcher(function, num_processes=2)`. The latter
forks: nothing may have used a GPU in the notebook before, not even a backward pass on the CPU where there is a GPU.
"""

import multiprocessing
import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, distributed, nn


@dataclass(frozen=True)
class Processes:
    """Who takes part.

    Attributes:
        rank: this process, 0 to count − 1.
        count: number of processes; 1: everything below hands back what it was given.
    """

    rank: int = 0
    count: int = 1

    @property
    def main(self) -> bool:
        """True in the one process that writes files and shows progress."""
        return self.rank == 0

    def check_batch(self, size: int) -> None:
        """Raise ValueError unless a batch can be dealt out evenly."""
        if size % self.count:
            raise ValueError(f"a batch of {size} images cannot be shared evenly by {self.count} processes: give a batch_size "
                             f"that is a multiple of {self.count}")

    def share(self, batch: Tensor) -> Tensor:
        """This process's rows: (B, ...) -> (B / count, ...)."""
        return batch if self.count == 1 else batch.chunk(self.count)[self.rank]

    def gather(self, own: Tensor) -> Tensor:
        """Everybody's rows in the order of the batch: (B / count, c) -> (B, c); the gradient of the own rows flows back."""
        return own if self.count == 1 else _Gather.apply(own, self)

    def add(self, tensors: Iterable[Tensor | None]) -> None:
        """Replace each tensor by its sum over the processes, in place."""
        present = [tensor for tensor in tensors if tensor is not None]
        if self.count > 1 and present:
            together = torch.cat([tensor.reshape(-1) for tensor in present])  # one message instead of one for each
            distributed.all_reduce(together)
            for tensor, total in zip(present, together.split([tensor.numel() for tensor in present]), strict=True):
                tensor.copy_(total.view_as(tensor))

    def any(self, flag: bool, device: torch.device) -> bool:
        """True if `flag` is True in some process."""
        if self.count == 1:
            return flag
        votes = torch.tensor(float(flag), device=device)
        distributed.all_reduce(votes)
        return bool(votes > 0)

    def agree(self, number: int, device: torch.device) -> bool:
        """True if `number` is the same in all processes."""
        if self.count == 1:
            return True
        ends = torch.tensor([number, -number], device=device)
        distributed.all_reduce(ends, distributed.ReduceOp.MAX)
        return bool(ends[0] == -ends[1])

    def synchronise(self, network: nn.Module) -> nn.Module:
        """Let the batch normalisation of `network` see the whole batch; weights, buffers and names stay as they are."""
        if self.count > 1:
            for module in network.modules():
                if type(module) is nn.BatchNorm2d:
                    module.__class__ = GlobalBatchNorm2d
        return network


def current(device: torch.device | None = None) -> Processes:
    """The processes that this one was started with; joins them through `accelerate` if that has not happened yet.

    Args:
        device: where they play; it decides how they talk (CPUs through gloo, GPUs through NCCL). None: a GPU if there is one.

    Raises:
        ImportError: started as one of several, but `accelerate` is not installed.
        ValueError: one of several, and `device` is a GPU with a number.
    """
    if not distributed.is_available():
        return Processes()
    if not distributed.is_initialized():
        if int(os.environ.get("WORLD_SIZE", "1")) < 2:
            return Processes()
        from accelerate import PartialState

        # the others wait in `any` while the first one fetches and decodes a data set: NCCL's own limit is ten minutes
        PartialState(cpu=device is not None and device.type == "cpu", timeout=timedelta(hours=6))
    if multiprocessing.parent_process() is not None:
        # a fork has none of its parent's OpenMP threads, and would wait for them for ever; one thread for every such child
        torch.set_num_threads(1)
    together = Processes(distributed.get_rank(), distributed.get_world_size())
    if together.count > 1 and device is not None and device.type == "cuda" and device.index is not None:
        raise ValueError(f"device {str(device)!r} is one GPU, but {together.count} processes play: give 'cuda', and each takes "
                         "one of its own")
    return together


def free_port() -> str:
    """A TCP port of this machine that nobody listens on, for `notebook_launcher(..., use_port=free_port())`.

    Its default is 29500 for everybody: of two notebooks that launch at the same time, one would fail.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


class _Gather(torch.autograd.Function):
    """All rows; backward, the own rows of the gradient: each process sums up the same loss, so no row counts twice."""

    @staticmethod
    def forward(ctx, own: Tensor, processes: Processes) -> Tensor:
        ctx.processes = processes
        parts = [torch.empty_like(own) for _ in range(processes.count)]
        distributed.all_gather(parts, own.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.processes.share(gradient), None


class _Sum(torch.autograd.Function):
    """Sum over the processes; what comes back is summed as well, since every process's output depends on it."""

    @staticmethod
    def forward(ctx, own: Tensor) -> Tensor:
        total = own.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation with mean and variance over the batches of all processes, on CPU and GPU."""

    def forward(self, images: Tensor) -> Tensor:
        if not self.training:
            return super().forward(images)
        x = images.float()  # (B, C, H, W)
        count = x.numel() // x.shape[1] * distributed.get_world_size()
        mean = _Sum.apply(x.sum((0, 2, 3))) / count  # (C,)
        centred = x - mean[:, None, None]
        variance = _Sum.apply(centred.square().sum((0, 2, 3))) / count  # (C,)
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / max(count - 1, 1), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)  # (C,)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(images.dtype)
