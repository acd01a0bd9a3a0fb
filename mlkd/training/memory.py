"""The peak memory of a training."""

from __future__ import annotations

import sys

import torch


def reset_peak_memory(device: torch.device) -> None:
    """Begins a new measurement on a GPU; on the CPU, the peak is that of the process since its start."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_gb(device: torch.device) -> float:
    """The most memory used so far, in GB (10^9 bytes): by tensors on the GPU, or by the whole process on the CPU.

    Range: > 0; nan on a system that does not report it.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
