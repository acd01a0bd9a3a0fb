"""Models of equal parts side by side, two processes or one for every two cores, against one after another on all cores.

Starting the processes counts, so a few epochs and many are measured.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path

import joblib
import torch

import mlkd
from benchmarks.timing import seconds
from mlkd.config import Config
from mlkd.data import MultiLabelData
from mlkd.data.pixels import decoded
from mlkd.parts import train_parts

PARTS, EPOCHS = 4, (5, 15)


def run() -> list[tuple[str, float, float, float]]:
    data = {name: mlkd.load_data("scenes")[name] for name in ("train", "val", "test")}
    config = mlkd.plan("scenes", "quick").student_config
    for split in data.values():
        decoded(split, config.image_size)
    return [_measured(data, replace(config, epochs=epochs)) for epochs in EPOCHS]


def _measured(data: dict[str, MultiLabelData], config: Config) -> tuple[str, float, float, float]:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MLKD_PROGRESS_FILE"] = str(Path(folder) / "status")

        def train(jobs: int) -> float:
            return seconds(lambda: train_parts(data, config, "random", PARTS, runs=f"{folder}/{jobs}", jobs=jobs))

        cores, threads = joblib.cpu_count(), torch.get_num_threads()
        at_once = min(PARTS, max(2, cores // 2))
        torch.set_num_threads(cores)  # one after another, each may use them all
        together, apart = train(at_once), train(1)
        torch.set_num_threads(threads)
    what = f"{PARTS} parts of all scenes, {config.epochs} epochs, {at_once} at once, against one after another"
    return what, together, apart, apart / together
