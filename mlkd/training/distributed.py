"""Where a training runs: the device, its precision, and the processes that share the work. All of it is accelerate's.

Several processes (`torchrun --nproc-per-node 4 -m mlkd train ...`) take a share of each batch each. What the student
and the teachers say is then gathered, so that every process computes the losses of the whole batch, whatever the loss
compares; the gradient of a process's share is what it would be in one process. Batch normalisation sees the share.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from mlkd.models import Output

if TYPE_CHECKING:
    from accelerate import Accelerator


def create_accelerator(precision: str = "float32") -> Accelerator:
    """Device, autocast, gradient scaling and process group; one process may train with several precisions."""
    from accelerate import Accelerator, DistributedDataParallelKwargs
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state()
    # A method may run the student again, outside of the wrapper's forward, and train parts of its own.
    wrapper = DistributedDataParallelKwargs(static_graph=True)
    return Accelerator(
        mixed_precision={"float32": "no"}.get(precision, precision),
        cpu=not torch.accelerator.is_available(),  # several processes on the CPU are not looked for otherwise
        kwargs_handlers=[wrapper],
    )


class Trained(nn.Module):
    """The student and what is trained beside it, as the one module that the engine wraps."""

    def __init__(self, student: nn.Module, parts: nn.Module):
        super().__init__()
        self.student, self.parts = student, parts

    def forward(self, images: Tensor) -> Output:
        """What the student says."""
        return self.student(images)


def rank_slice(accelerator: Accelerator, count: int) -> slice:
    """This process's part of `count` things; all processes' parts follow each other and are as equal as possible."""
    edges = np.linspace(0, count, accelerator.num_processes + 1).astype(int)
    return slice(edges[accelerator.process_index], edges[accelerator.process_index + 1])


def even_rank_slice(accelerator: Accelerator, batch_size: int) -> slice:
    """This process's part of a batch, as large as everyone's.

    Raises:
        ValueError: the batch cannot be shared equally.
    """
    if batch_size % accelerator.num_processes:
        raise ValueError(
            f"`batch_size` is {batch_size}, which {accelerator.num_processes} processes cannot share equally; choose a "
            f"multiple of {accelerator.num_processes}."
        )
    return rank_slice(accelerator, batch_size)


def all_gather(accelerator: Accelerator, mine: Tensor) -> Tensor:
    """The rows of all processes, (b, ...) from (b / processes, ...), with their gradient."""
    return mine if accelerator.num_processes == 1 else _AllGather.apply(mine)


class _AllGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mine: Tensor) -> Tensor:
        everyone = [torch.empty_like(mine) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(everyone, mine.contiguous())
        return torch.cat(everyone)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """The sum over the processes, which the wrapper's mean over them turns into the gradient of one process."""
        gradient = gradient.contiguous()
        torch.distributed.all_reduce(gradient)
        return gradient.chunk(torch.distributed.get_world_size())[torch.distributed.get_rank()]


def all_gather_output(accelerator: Accelerator, output: Output) -> Output:
    """Logits and embeddings of the whole batch, feature maps of the share, in float32."""
    embeddings = None if output.embeddings is None else all_gather(accelerator, output.embeddings.float())
    features = output.features if output.features is None else output.features.float()
    return Output(all_gather(accelerator, output.logits.float()), embeddings, features)


def gather_arrays(accelerator: Accelerator, mine: np.ndarray) -> np.ndarray:
    """The arrays of all processes, one after another along the first axis."""
    from accelerate.utils import gather_object

    return mine if accelerator.num_processes == 1 else np.concatenate(gather_object([mine]))


def broadcast_buffers(accelerator: Accelerator, model: nn.Module) -> None:
    """Gives every process the running statistics of the first."""
    from accelerate.utils import broadcast

    if accelerator.num_processes > 1:
        broadcast(list(model.buffers()))


def set_seed(*numbers: int) -> None:
    """Everything that torch draws until the next call follows from these numbers."""
    torch.manual_seed(derive_seed(*numbers))


def derive_seed(*numbers: int) -> int:
    digest = hashlib.sha256(" ".join(map(str, numbers)).encode()).digest()
    return int.from_bytes(digest[:8], "little")
