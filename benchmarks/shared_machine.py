"""A training beside other busy processes, against the same training alone.

Threads that wait by spinning (`OMP_WAIT_POLICY=ACTIVE`) take the time of the process that they wait for; mlkd sets
PASSIVE. Each measurement is a process of its own, with as many threads as the machine has cores.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import ExitStack

from benchmarks.timing import Row, summarize

BATCH_SIZE, SIZE = 64, 96
BUSY = "while True: pass"


def run(smoke: bool = False) -> list[Row]:
    duration, repeats = (0.5, 1) if smoke else (10.0, 3)
    situations = [("PASSIVE", 0), ("ACTIVE", 0), ("PASSIVE", 1), ("ACTIVE", 1), ("PASSIVE", 2)]
    if smoke:
        situations = [("PASSIVE", 0), ("PASSIVE", 1)]
    measured = [{each: _seconds_per_image(*each, duration) for each in situations} for _ in range(repeats)]
    rows = []
    for policy, busy in situations[1:]:
        pairs = [(times[policy, busy], times["PASSIVE", 0]) for times in measured]
        rows.append(summarize(f"an image of a training beside {busy} busy processes, {policy}, against alone", pairs))
    return rows


def _seconds_per_image(policy: str, busy: int, duration: float) -> float:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment["OMP_WAIT_POLICY"] = policy
    command = [sys.executable, "-m", "benchmarks.shared_machine", str(duration)]
    with ExitStack() as stack:
        for _ in range(busy):
            process = stack.enter_context(subprocess.Popen([sys.executable, "-S", "-c", BUSY]))
            stack.callback(process.kill)
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(result.stdout)


def train(duration: float) -> float:
    """Seconds per image of the steps of a small student, measured for so many seconds."""
    import torch

    from mlkd.losses import bce
    from mlkd.models import create_model

    classes = tuple(f"class {k}" for k in range(20))
    student = create_model("resnet8_cifar", classes, embed_dim=64, image_size=SIZE, stem_stride=3)
    student.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(student.parameters())
    images = torch.randint(0, 256, (BATCH_SIZE, 3, SIZE, SIZE), dtype=torch.uint8).to(memory_format=torch.channels_last)
    targets = torch.zeros(BATCH_SIZE, len(classes))

    def step() -> None:
        optimizer.zero_grad()
        bce(student(images).logits, targets).backward()
        optimizer.step()

    step()
    steps, started = 0, time.perf_counter()
    while time.perf_counter() - started < duration:
        step()
        steps += 1
    return (time.perf_counter() - started) / (steps * BATCH_SIZE)


if __name__ == "__main__":
    print(train(float(sys.argv[1])))
