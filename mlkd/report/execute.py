"""One notebook: executed by papermill in a process of its own."""

from __future__ import annotations

import logging
import math
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import papermill
from nbclient.exceptions import CellTimeoutError
from papermill.exceptions import PapermillExecutionError
from traitlets.config import Config

from mlkd.progress import PROGRESS_FILE
from mlkd.report.screen import NotebookProgress, duration
from mlkd.training.runs import NO_TRAIN

KERNEL_ENVIRONMENT = {
    "JUPYTER_PREFER_ENV_PATH": "1",  # "python3" is this interpreter, not one the user installed elsewhere
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",  # figures stand in the notebook
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # no advice about debuggers
}

# A local socket where there is one: nobody else on the machine can listen.
KERNEL_CONFIG = Config({"KernelManager": {"transport": "ipc"}} if os.name == "posix" else {})


class Outcome(NamedTuple):
    """How a notebook ended: `error` is empty, or says in a sentence where and why it stopped."""

    seconds: float
    error: str


def execute(
    source: Path,
    target: Path,
    parameters: Mapping[str, Any],
    *,
    cells: int,
    timeout_s: int,
    screen: NotebookProgress,
    no_train: bool = False,
) -> Outcome:
    """Executes the notebook `source` in this process's folder; `target` is written when it has ended, well or not.

    Its process is killed when the time is over, whatever it does. With `no_train` it reads finished runs only.
    """
    unfinished = target.parent / ".unfinished.ipynb"
    started, number, error = time.monotonic(), 0, ""

    with tempfile.TemporaryDirectory() as folder, _quiet(status_file := Path(folder) / "status", no_train):
        with screen.watch(target.stem, cells, status_file) as bar:

            def cell_starts(cell: Any, cell_index: int) -> None:
                nonlocal number
                number += bool(cell.cell_type == "code" and cell.source.strip())
                status_file.unlink(missing_ok=True)
                bar.update(cell_index - bar.n)

            def seconds_left(cell: Any) -> int:
                return max(1, math.ceil(started + timeout_s - time.monotonic()))

            try:
                papermill.execute_notebook(
                    source,
                    unfinished,
                    parameters=dict(parameters),
                    kernel_name="python3",
                    language="python",
                    progress_bar=False,
                    on_cell_start=cell_starts,
                    timeout_func=seconds_left,
                    config=KERNEL_CONFIG,
                    extra_arguments=["--log-level=50"],  # an error is in the notebook; the rest is noise
                )
            except PapermillExecutionError as failed:
                said = str(failed.evalue).strip().split("\n")[0]
                error = f"Cell [{number}]: {failed.ename}{': ' if said else ''}{said}"
            except CellTimeoutError:
                limit = duration(timeout_s)
                error = f"Cell [{number}]: stopped, as the notebook took longer than {limit}; --timeout allows more."
            except RuntimeError as failed:  # nbclient's DeadKernelError, or a kernel that never answered
                error = f"Cell [{number}]: its process ended ({failed}). Was there enough memory?"
            except BaseException:
                unfinished.unlink(missing_ok=True)
                raise
        os.replace(unfinished, target)
    return Outcome(time.monotonic() - started, error)


@contextmanager
def _quiet(status_file: Path, no_train: bool) -> Iterator[None]:
    """The environment a notebook's process inherits; papermill says nothing of its own."""
    changed = {**KERNEL_ENVIRONMENT, PROGRESS_FILE: str(status_file), **({NO_TRAIN: "1"} if no_train else {})}
    before = {name: os.environ.get(name) for name in changed}
    logger = logging.getLogger("papermill")
    level = logger.level
    os.environ.update(changed)
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
