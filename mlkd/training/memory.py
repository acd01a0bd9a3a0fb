"""The peak memory of a training."""

from __future__ import annotations

import sys

import torch


def reset_peak_memory(device: torch.device) -> None:
    """Begins a new measurement on an accelerator; on the CPU, the peak is that of the process since its start."""
    if reset := getattr(torch.get_device_module(device), "reset_peak_memory_stats", None):
        reset(device)


def peak_memory_gb(device: torch.device) -> float:
    """The peak memory in GB (10^9 bytes): of the tensors on an accelerator, or of the whole process on the CPU.

    Range: > 0; nan on a system that does not report it.
    """
    if peak := getattr(torch.get_device_module(device), "max_memory_allocated", None):
        return peak(device) / 1e9
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
