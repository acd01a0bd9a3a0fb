"""How a training tells where it is: a live bar, or one line per epoch where nobody can watch one move."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from pathlib import Path

from tqdm.auto import tqdm

PROGRESS_FILE = "MLKD_PROGRESS_FILE"
"""Environment variable: where a headless training writes its status line, for the report that waits for it."""


TIMING = ("epoch", "lr", "seconds", "images_per_second")
"""What a history has beside losses and scores."""


class Progress:
    """Progress of one training, as a context manager.

    A terminal and a notebook get a live bar with the loss terms, images per second and the time left; anything
    else one line per epoch. Under a report, the status line also goes to the file that `$MLKD_PROGRESS_FILE` names.
    `silent` ones say nothing: those of the other processes of one training.
    """

    def __init__(self, title: str, epochs: int, steps: int, batch_size: int, done: int = 0, silent: bool = False):
        self.title, self.epochs, self.steps, self.batch_size = title, epochs, steps, batch_size
        self.silent = silent
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
        self.started, self.steps_done, self.told = time.monotonic(), 0, 0.0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    @property
    def images_per_second(self) -> float:
        return self.steps_done * self.batch_size / max(time.monotonic() - self.started, 1e-9)

    def step(self, epoch: int, losses: dict[str, float]) -> None:
        """One step done. `losses`: the running means of the loss terms."""
        self.steps_done += 1
        self.bar.update()
        now = time.monotonic()
        if now - self.told < 0.5:
            return
        self.told = now
        parts = [f"{name} {value:.3g}" for name, value in losses.items()] + [f"{self.images_per_second:.0f} img/s"]
        self.bar.set_postfix_str(", ".join(parts), refresh=False)
        if self.file:
            with suppress(OSError):  # a full disk: the training itself says so
                Path(self.file).write_text(f"{self.title}: epoch {epoch + 1}/{self.epochs}, {', '.join(parts)}")

    def epoch(self, epoch: int, row: dict[str, float]) -> None:
        """One epoch done and scored."""
        if not self.live and not self.silent:
            shown = [f"{name} {value:.3g}" for name, value in row.items() if name not in TIMING]
            speed = f"{row['images_per_second']:.0f} img/s"
            print(f"{self.title}: epoch {epoch + 1}/{self.epochs}, {', '.join(shown)}, {speed}", flush=True)


def is_interactive() -> bool:
    """Whether somebody can see a bar move: in a terminal or a notebook, and not under a report."""
    return PROGRESS_FILE not in os.environ and (sys.stderr.isatty() or _in_notebook())


def _in_notebook() -> bool:
    """Whether this process is a Jupyter kernel."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and hasattr(shell, "kernel")
