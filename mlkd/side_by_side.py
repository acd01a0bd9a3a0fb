"""Several trainings at once, each in a process of its own with its share of the cores."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple, TextIO

import joblib
import torch

from mlkd.config import Config
from mlkd.data import MultiLabelData
from mlkd.data.check import require
from mlkd.data.pixels import decoded
from mlkd.methods import Method
from mlkd.plugins import plugins, run_plugin
from mlkd.runs import Run
from mlkd.train import TrainingError, find_run, fit


class Training(NamedTuple):
    """What `fit` is given. `name` stands before the lines it prints, and in its error."""

    name: str
    method: Method
    data: Mapping[str, MultiLabelData]
    config: Config


def fit_all(trainings: Sequence[Training], *, runs: str | Path = "runs", jobs: int = 0) -> list[Run]:
    """The runs of all trainings, in their order: complete ones are read, the others trained side by side.

    The pictures are decoded before, once, in this process. A training is the same run as by `fit`. Its numbers are
    the same as with as many threads in `fit`; other numbers of threads can change their last bits.

    Args:
        trainings: independent of each other.
        runs: the folder of all runs.
        jobs: how many processes, at most one per training. 0 for one for every two cores, since a training uses two
            well and starting processes takes seconds; with a GPU, whose memory one training may fill, and under
            torchrun for 1. With 1 all are trained in this process, one after another.

    Raises:
        ValueError: `jobs` is negative.
        DataError: something in the data is wrong.
        TrainingError: one of them cannot go on, or its process ended; the others are stopped, their finished epochs
            are kept. A backbone that is registered in a notebook is not known to other processes: use a plug-in file.
    """
    if jobs < 0:
        raise ValueError(f"`jobs` is {jobs}, expected 0 (one for every two cores) or more.")
    found = [find_run(training.method, training.data, training.config, runs=runs) for training in trainings]
    waiting = [training for training, run in zip(trainings, found, strict=True) if not run.complete]
    jobs = min(jobs or _places(), len(waiting))
    if jobs > 1:
        for training in waiting:
            require(training.data)
            for split in training.data.values():
                decoded(split, training.config.image_size)
        longest_first = sorted(waiting, key=lambda training: -len(training.data["train"]))
        _side_by_side(longest_first, runs, jobs)
    else:
        for training in trainings:
            _fit(training, runs)
    return found


def _places() -> int:
    alone = torch.accelerator.is_available() or int(os.environ.get("WORLD_SIZE", 1)) > 1
    return 1 if alone else max(1, joblib.cpu_count() // 2)


def _side_by_side(trainings: Sequence[Training], runs: str | Path, jobs: int) -> None:
    """Each training in one of `jobs` processes that joblib starts; it divides the cores among them, as threads."""
    told = {name: value for name, value in os.environ.items() if name.startswith("MLKD_")}
    processes = joblib.Parallel(
        jobs,
        backend="loky",
        batch_size=1,
        pre_dispatch="all",
        initializer=_begin,
        initargs=(plugins(), told),  # processes that began otherwise are not used again
    )
    try:
        processes(joblib.delayed(_fit_labelled)(training, runs) for training in trainings)
    except BrokenProcessPool as error:
        raise TrainingError(
            f"A process that trained one of {', '.join(training.name for training in trainings)} was ended. Was there "
            f"enough memory? With `jobs=1` they are trained one after another; finished epochs are kept."
        ) from error


def _begin(files: Sequence[str], environment: Mapping[str, str]) -> None:
    os.environ.update(environment)
    for file in files:
        run_plugin(file)


def _fit_labelled(training: Training, runs: str | Path) -> None:
    """What a process does; one line per epoch, as nobody can watch several bars move in one place."""
    lines = _Labelled(training.name, sys.stdout)
    with redirect_stdout(lines), redirect_stderr(lines):
        _fit(training, runs)


def _fit(training: Training, runs: str | Path) -> None:
    try:
        fit(training.method, training.data, training.config, runs=runs)
    except TrainingError as error:
        raise TrainingError(f"{training.name}: {error}") from error


class _Labelled(io.TextIOBase):
    """Writes whole lines to `stream`, each after `label`."""

    def __init__(self, label: str, stream: TextIO):
        self.label, self.stream, self.line = label, stream, ""

    def write(self, text: str) -> int:
        *lines, self.line = (self.line + text).split("\n")
        for line in lines:
            self.stream.write(f"{self.label}: {line}\n")
            self.stream.flush()
        return len(text)
