"""Device and process group of a training, by accelerate, and the collective operations it needs.

With several processes (`torchrun --nproc-per-node 4 -m mlkd train ...`) each processes its slice of every batch. The
outputs of student and teachers are gathered, so every process computes the losses of the whole batch, also those that
compare images with each other, and the gradient equals that of one process. Batch normalization uses the statistics of
the slice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from mlkd.errors import TrainingError
from mlkd.models import Output
from mlkd.training.accumulation import forward_in_slices

if TYPE_CHECKING:
    from accelerate import Accelerator


def create_accelerator() -> Accelerator:
    """Device and process group. Its mixed precision is off: `ComputeFormat` has the autocast."""
    from accelerate import Accelerator, DistributedDataParallelKwargs

    # static_graph: a method may evaluate the student again, outside of the wrapper's forward, and train an auxiliary.
    return Accelerator(
        mixed_precision="no",
        cpu=not torch.accelerator.is_available(),  # otherwise several processes on the CPU are not detected
        kwargs_handlers=[DistributedDataParallelKwargs(static_graph=True)],
    )


class StudentWithAuxiliary(nn.Module):
    """The student and the method's auxiliary module as one, for DistributedDataParallel and the checkpoint.

    `num_slices` is that of `forward_in_slices`.
    """

    def __init__(self, student: nn.Module, auxiliary: nn.Module, num_slices: int = 1):
        super().__init__()
        self.student, self.auxiliary, self.num_slices = student, auxiliary, num_slices

    def forward(self, images: Tensor) -> Output:
        """The student's output."""
        return forward_in_slices(self.student, images, self.num_slices)


def rank_slice(accelerator: Accelerator, count: int) -> slice:
    """This process's slice of `count` items; the slices of all processes are consecutive and of nearly equal length."""
    edges = np.linspace(0, count, accelerator.num_processes + 1).astype(int)
    return slice(edges[accelerator.process_index], edges[accelerator.process_index + 1])


def even_rank_slice(accelerator: Accelerator, batch_size: int) -> slice:
    """This process's slice of a batch, of the same length for all processes.

    Raises:
        ValueError: the batch size is no multiple of the number of processes.
    """
    if batch_size % accelerator.num_processes:
        raise ValueError(
            f"`batch_size` is {batch_size}, expected a multiple of the number of processes, "
            f"{accelerator.num_processes}."
        )
    return rank_slice(accelerator, batch_size)


def all_gather(accelerator: Accelerator, rows: Tensor) -> Tensor:
    """The rows of all processes, (b, ...) from (b / processes, ...), with their gradient."""
    return rows if accelerator.num_processes == 1 else _AllGather.apply(rows)


class _AllGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        gathered = [torch.empty_like(rows) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(gathered, rows.contiguous())
        return torch.cat(gathered)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """The sum over the processes; DistributedDataParallel's mean turns it into the gradient of one process."""
        gradient = gradient.contiguous()
        torch.distributed.all_reduce(gradient)
        return gradient.chunk(torch.distributed.get_world_size())[torch.distributed.get_rank()]


def all_gather_output(accelerator: Accelerator, output: Output) -> Output:
    """Logits and embeddings of the whole batch and feature maps of this process's slice, in float32."""
    embeddings = None if output.embeddings is None else all_gather(accelerator, output.embeddings.float())
    features = output.features if output.features is None else output.features.float()
    return Output(all_gather(accelerator, output.logits.float()), embeddings, features)


def gather_arrays(accelerator: Accelerator, array: np.ndarray) -> np.ndarray:
    """The arrays of all processes, concatenated along the first axis."""
    from accelerate.utils import gather_object

    return array if accelerator.num_processes == 1 else np.concatenate(gather_object([array]))


def broadcast_buffers(accelerator: Accelerator, model: nn.Module) -> None:
    """Gives every process the buffers (running statistics) of the first one."""
    from accelerate.utils import broadcast

    if accelerator.num_processes > 1:
        broadcast(list(model.buffers()))


def set_seed(*numbers: int) -> None:
    """Seeds torch with a number that is derived from these."""
    torch.manual_seed(derive_seed(*numbers))


def derive_seed(*numbers: int) -> int:
    """A 64-bit seed from several numbers; other numbers give an independent seed."""
    digest = hashlib.sha256(" ".join(map(str, numbers)).encode()).digest()
    return int.from_bytes(digest[:8], "little")


@contextmanager
def translate_errors(accelerator: Accelerator) -> Iterator[None]:
    """Turns the error that follows when another process of the training was killed into a TrainingError."""
    try:
        yield
    except RuntimeError as error:
        message = str(error)
        if "DataLoader worker" in message:
            raise TrainingError(
                f"A process that prepares the batches ended unexpectedly, usually because the memory was full: use "
                f"fewer `num_workers` (0 for none) or a smaller `batch_size`. The last finished epoch is kept. "
                f"({message})"
            ) from error
        if accelerator.num_processes > 1 and not isinstance(error, TrainingError):
            raise TrainingError(
                f"Process {accelerator.process_index} of {accelerator.num_processes} cannot continue, usually because "
                f"another process ended; see its message above or below. The last finished epoch is kept; the same "
                f"command, or torchrun's --max-restarts, resumes after it. ({message.splitlines()[0]})"
            ) from error
        raise
