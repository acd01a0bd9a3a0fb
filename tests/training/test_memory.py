"""The peak memory of a training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mlkd.training.memory import peak_memory_gb, reset_peak_memory

STATUS = Path("/proc/self/status")


@pytest.mark.skipif(not STATUS.is_file(), reason="Linux only")
def test_the_peak_of_the_process_in_gb() -> None:
    device = torch.device("cpu")
    reset_peak_memory(device)
    (line,) = (line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
    assert peak_memory_gb(device) == pytest.approx(int(line.split()[1]) * 1024 / 1e9, rel=0.02)
