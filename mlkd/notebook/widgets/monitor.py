"""Trainings that are going on, seen from a notebook."""

from __future__ import annotations

import asyncio
import time
from functools import lru_cache
from pathlib import Path

import ipywidgets
import pandas as pd
from matplotlib.figure import Figure
from traitlets import Bool, Tuple, observe

from mlkd import plots
from mlkd.notebook.widgets.explorer import Explorer
from mlkd.training.runs import Run, RunError, iter_runs

PATIENCE_S = 60


class TrainingMonitor(Explorer):
    """The curves of trainings that another process writes, drawn anew after each epoch.

    For trainings started with `mlkd train` in a terminal, or with `mlkd.fit` or `mlkd.notebook.launch` in another notebook. A
    training in this notebook keeps its kernel busy, and so its monitor waits until it is over; it has a bar of its own.

    It looks every second, between the cells of this notebook, and stops when the run is finished, when nothing was
    trained for a minute, when "follow" is released or when its `box` is closed.

    Args:
        path: a run's folder, or the folder of all runs.
        seconds: between two looks.

    Raises:
        RunError: there is no such folder.
    """

    hook = "mlkd-monitor"
    follow, runs = Bool(True), Tuple()

    def __init__(self, path: str | Path, *, seconds: float = 1.0):
        self.path, self.seconds = Path(path), seconds
        self._alone = (self.path / "config.json").is_file()
        if not self.path.is_dir():
            raise RunError(f"{self.path}: no such folder, expected that of a run or of all runs.")
        self._made, self._history = lru_cache(None)(_made), lru_cache(None)(_history)
        self._task: asyncio.Task[None] | None = None
        super().__init__(runs=self._look())

    def figure(self) -> Figure:
        groups: dict[str, list[pd.DataFrame]] = {}
        for path, written, _ in self.runs:
            history = self._history(path, written)
            if len(history):
                groups.setdefault(self._made(path)[0], []).append(history)
        return plots.training_curves(groups)

    def caption_lines(self) -> list[str]:
        told = []
        for path, written, state in self.runs:
            done, epochs = len(self._history(path, written)), self._made(path)[1]
            told.append(f"{path.name}: epoch {done} of {epochs}, {state}.")
        return told or [f"{self.path}: no training has begun here yet."]

    def controls(self) -> dict[str, ipywidgets.DOMWidget]:
        return {"follow": ipywidgets.ToggleButton(description="follow", tooltip="look again every second")}

    def below(self) -> list[ipywidgets.DOMWidget]:
        self._start()
        return []

    @observe("follow")
    def _start(self, _: object = None) -> None:
        if self.follow and "control" in self.__dict__ and (self._task is None or self._task.done()):
            self._task = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        """Looks until there is nothing more to see; the kernel does other things between two looks."""
        changed = time.monotonic()
        while self.follow and self.box.comm is not None:
            try:
                now = self._look()
            except (ValueError, OSError) as error:
                self.follow = False
                self.show_error(error)
                return
            states = {state for *_, state in now}
            if now != self.runs or "training" in states:
                changed = time.monotonic()
            self.runs = now
            if (self._alone and states == {"finished"}) or time.monotonic() - changed > PATIENCE_S:
                break
            await asyncio.sleep(self.seconds)
        self.follow = False

    def _look(self) -> tuple[tuple[Path, int, str], ...]:
        """Each run as it is now: its folder, when its history was written, and its state."""
        runs = [Run(self.path)] if self._alone else iter_runs(self.path)
        return tuple((run.path, _written(run.path), run.state) for run in runs)


def _written(path: Path) -> int:
    """When a run's history was written, in nanoseconds; 0 where there is none yet."""
    file = path / "history.csv"
    return file.stat().st_mtime_ns if file.is_file() else 0


def _history(path: Path, written: int) -> pd.DataFrame:
    """A run's history as it was then."""
    return Run(path).history


def _made(path: Path) -> tuple[str, int]:
    """What a run is called, as "l2d student", and how many epochs it has."""
    config = Run(path).config
    return f"{config['method']} {config['training']['role']}", config["training"]["epochs"]
