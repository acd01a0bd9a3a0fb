"""Progress of a training: a live bar, or one line per epoch where the output is not interactive."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from pathlib import Path

from tqdm.auto import tqdm

PROGRESS_FILE = "MLKD_PROGRESS_FILE"
"""Environment variable: the file to which a training writes its status line, for a report or sweep that started it."""

TIMING = ("epoch", "lr", "selected", "seconds", "images_per_second")
"""The columns of a history other than losses and scores."""


class Progress:
    """The progress display of one training, a context manager.

    A terminal and a notebook show a live bar with the loss terms, images per second and the remaining time; any other
    output has one line per epoch on stdout. The status line also goes to the file of `$MLKD_PROGRESS_FILE`, if set.

    Args:
        title: the training's name.
        epochs, steps, batch_size: of the training; steps are per epoch.
        done: the number of finished epochs.
        silent: show nothing, as in all but the first process of a distributed training.
    """

    def __init__(self, title: str, epochs: int, steps: int, batch_size: int, done: int = 0, silent: bool = False):
        self.title, self.epochs, self.batch_size, self.silent = title, epochs, batch_size, silent
        self.file = None if silent else os.environ.get(PROGRESS_FILE)
        self.live = is_interactive() and not silent
        self.bar = tqdm(
            desc=title,
            total=epochs * steps,
            initial=done * steps,
            disable=not self.live,
            unit="step",
            dynamic_ncols=True,
            bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt} [{remaining} left{postfix}]",
        )
        self.started, self.steps_done, self.last_update = time.monotonic(), 0, 0.0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    @property
    def images_per_second(self) -> float:
        return self.steps_done * self.batch_size / max(time.monotonic() - self.started, 1e-9)

    def step(self, epoch: int, losses: dict[str, float]) -> None:
        """Shows that a step is finished, at most twice a second. `losses`: the running means of the loss terms."""
        self.steps_done += 1
        self.bar.update()
        now = time.monotonic()
        if now - self.last_update < 0.5:
            return
        self.last_update = now
        values = [f"{name} {value:.3g}" for name, value in losses.items()] + [f"{self.images_per_second:.0f} img/s"]
        self.bar.set_postfix_str(", ".join(values), refresh=False)
        if self.file:
            with suppress(OSError):  # on a full disk the training itself raises the error
                Path(self.file).write_text(f"{self.title}: epoch {epoch + 1}/{self.epochs}, {', '.join(values)}")

    def epoch(self, epoch: int, row: dict[str, float]) -> None:
        """Shows that an epoch is finished. `row`: its row of the history."""
        if not self.live and not self.silent:
            values = [f"{name} {value:.3g}" for name, value in row.items() if name not in TIMING]
            speed = f"{row['images_per_second']:.0f} img/s"
            print(f"{self.title}: epoch {epoch + 1}/{self.epochs}, {', '.join(values)}, {speed}", flush=True)


def is_interactive() -> bool:
    """Whether a moving bar is visible: in a terminal or a notebook, and not under a report or sweep."""
    return PROGRESS_FILE not in os.environ and (sys.stderr.isatty() or _in_notebook())


def _in_notebook() -> bool:
    """Whether this process is a Jupyter kernel."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and hasattr(shell, "kernel")
