"""Prints every benchmark as a line: the ratio, the times of mlkd and of the reference, and what was timed.

`python -m benchmarks --smoke` runs each one once in a small size."""

from __future__ import annotations

import platform
import sys

import torch

from benchmarks import epoch, images, labels, led, mdkd, precision, ps, shared_machine, step

if __name__ == "__main__":
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}; medians\n")
    for module in (led, ps, mdkd, step, labels, images, epoch, shared_machine, precision):
        for row in module.run(smoke="--smoke" in sys.argv[1:]):
            times = f"{1000 * row.seconds:8.1f} ms   {1000 * row.reference_seconds:8.1f} ms"
            print(f"{row.ratio:7.2f} x   {times}   {row.title}", flush=True)
