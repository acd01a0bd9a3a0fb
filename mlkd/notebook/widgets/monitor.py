"""Monitor of trainings in other processes."""

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
from mlkd.errors import RunError
from mlkd.notebook.widgets.explorer import Explorer
from mlkd.training.runs import Run, iter_runs

IDLE_LIMIT_S = 60


class TrainingMonitor(Explorer):
    """The training curves of runs that other processes train, updated after each epoch.

    The runs may be trained by `mlkd train` in a terminal, by `mlkd.launch`, or by `mlkd.fit` in another notebook. A
    training in this notebook blocks the kernel, so its monitor is updated only afterwards; it has a progress bar.

    The monitor polls the files while no cell is running. It stops when the run is finished, when nothing was trained
    for a minute, when "follow" is switched off or when its `box` is closed.

    Args:
        path: a run's folder, or the folder of all runs.
        seconds: the polling interval.

    Raises:
        RunError: there is no such folder.
    """

    css_class = "mlkd-monitor"
    follow, runs = Bool(True), Tuple()

    def __init__(self, path: str | Path, *, seconds: float = 1.0):
        self.path, self.seconds = Path(path), seconds
        self._is_run = (self.path / "config.json").is_file()
        if not self.path.is_dir():
            raise RunError(f"{self.path}: no such folder, expected the folder of a run or of all runs.")
        self._describe, self._history = lru_cache(None)(_describe), lru_cache(None)(_read_history)
        self._task: asyncio.Task[None] | None = None
        super().__init__(runs=self._poll())

    def figure(self) -> Figure:
        histories: dict[str, list[pd.DataFrame]] = {}
        for path, modified, _ in self.runs:
            history = self._history(path, modified)
            if len(history):
                histories.setdefault(self._describe(path)[0], []).append(history)
        return plots.training_curves(histories)

    def caption_lines(self) -> list[str]:
        lines = []
        for path, modified, state in self.runs:
            done, epochs = len(self._history(path, modified)), self._describe(path)[1]
            lines.append(f"{path.name}: epoch {done} of {epochs}, {state}.")
        return lines or [f"{self.path}: no runs yet."]

    def create_controls(self) -> dict[str, ipywidgets.DOMWidget]:
        return {"follow": ipywidgets.ToggleButton(description="follow", tooltip="update after each epoch")}

    def extra_controls(self) -> list[ipywidgets.DOMWidget]:
        self._start()
        return []

    @observe("follow")
    def _start(self, _: object = None) -> None:
        if self.follow and "controls" in self.__dict__ and (self._task is None or self._task.done()):
            self._task = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        """Polls the runs until nothing more can change; the kernel executes other code in between."""
        changed = time.monotonic()
        while self.follow and self.box.comm is not None:
            try:
                runs = self._poll()
            except (ValueError, OSError) as error:
                self.follow = False
                self.show_error(error)
                return
            states = {state for *_, state in runs}
            if runs != self.runs or "training" in states:
                changed = time.monotonic()
            self.runs = runs
            if (self._is_run and states == {"finished"}) or time.monotonic() - changed > IDLE_LIMIT_S:
                break
            await asyncio.sleep(self.seconds)
        self.follow = False

    def _poll(self) -> tuple[tuple[Path, int, str], ...]:
        """Each run's folder, the time its history was modified, and its state."""
        runs = [Run(self.path)] if self._is_run else iter_runs(self.path)
        return tuple((run.path, _modified(run.path), run.state) for run in runs)


def _modified(path: Path) -> int:
    """The time a run's history was modified, in nanoseconds; 0 if it does not exist yet."""
    file = path / "history.csv"
    return file.stat().st_mtime_ns if file.is_file() else 0


def _read_history(path: Path, modified: int) -> pd.DataFrame:
    """A run's history; `modified` is part of the cache key."""
    return Run(path).history


def _describe(path: Path) -> tuple[str, int]:
    """A run's title, such as "l2d student", and its number of epochs."""
    config = Run(path).config
    return f"{config['method']} {config['training']['role']}", config["training"]["epochs"]
