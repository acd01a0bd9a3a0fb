"""Prints every benchmark as a line: what, our seconds, the reference's seconds, the ratio."""

from __future__ import annotations

import platform

import torch

from benchmarks import led, loop, mdkd, pixels, precision, ps, step

if __name__ == "__main__":
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}; medians\n")
    for module in (led, ps, mdkd, step, pixels, loop, precision):
        for what, ours, reference, ratio in module.run():
            print(f"{ratio:7.2f} x   {1000 * ours:8.1f} ms   {1000 * reference:8.1f} ms   {what}", flush=True)
