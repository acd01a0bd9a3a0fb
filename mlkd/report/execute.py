"""Executes one notebook with papermill, in a separate process."""

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

from mlkd.notebook.series import CURRENT_NOTEBOOK
from mlkd.progress import PROGRESS_FILE
from mlkd.report.progress import NotebookProgress, format_duration
from mlkd.training.runs import NO_TRAIN

KERNEL_ENVIRONMENT = {
    "JUPYTER_PREFER_ENV_PATH": "1",  # the kernel "python3" is this interpreter
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",  # figures are shown in the notebook
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # no warning about debuggers
}


class Outcome(NamedTuple):
    """The result of executing a notebook: the seconds it took, and in which cell and why it failed, or ""."""

    seconds: float
    error: str


def execute(
    source: Path,
    target: Path,
    parameters: Mapping[str, Any],
    *,
    cells: int,
    timeout_s: int,
    progress: NotebookProgress,
    no_train: bool = False,
) -> Outcome:
    """Executes the notebook `source` in the current folder and writes the executed copy `target`, also after an error.

    Its process is killed after `timeout_s` seconds. With `no_train` it only reads finished runs.
    """
    unfinished = target.parent / ".unfinished.ipynb"
    started, number, error = time.monotonic(), 0, ""
    with tempfile.TemporaryDirectory() as folder, _environment(source, status := Path(folder) / "status", no_train):
        with progress.watch(target.stem, cells, status) as bar:

            def start_cell(cell: Any, cell_index: int) -> None:
                nonlocal number
                number += bool(cell.cell_type == "code" and cell.source.strip())
                status.unlink(missing_ok=True)
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
                    on_cell_start=start_cell,
                    timeout_func=seconds_left,
                    config=_kernel_config(Path(folder)),
                    extra_arguments=["--log-level=50"],  # errors are in the notebook
                )
            except PapermillExecutionError as failure:
                message = str(failure.evalue).strip().split("\n")[0]
                error = f"Cell [{number}]: {failure.ename}{': ' if message else ''}{message}"
            except CellTimeoutError:
                limit = format_duration(timeout_s)
                error = f"Cell [{number}]: stopped after the notebook's time limit of {limit}; --timeout raises it."
            except RuntimeError as failure:  # nbclient's DeadKernelError, or a kernel that did not start
                error = f"Cell [{number}]: the notebook's process ended ({failure}). Was there enough memory?"
            except BaseException:
                unfinished.unlink(missing_ok=True)
                raise
        os.replace(unfinished, target)
    return Outcome(time.monotonic() - started, error)


def _kernel_config(folder: Path) -> Config:
    """The connection to the kernel: its files are in `folder`, since several reports may run in the same place.

    On Unix these are local sockets, which other users of the machine cannot connect to.
    """
    settings = {"connection_file": str(folder / "kernel.json")}
    return Config({"KernelManager": settings | ({"transport": "ipc"} if os.name == "posix" else {})})


@contextmanager
def _environment(source: Path, status_file: Path, no_train: bool) -> Iterator[None]:
    """The environment variables that a notebook's process inherits. Messages of papermill are suppressed."""
    changes = KERNEL_ENVIRONMENT | {CURRENT_NOTEBOOK: str(source), PROGRESS_FILE: str(status_file)}
    if no_train:
        changes[NO_TRAIN] = "1"
    previous = {name: os.environ.get(name) for name in changes}
    logger = logging.getLogger("papermill")
    level = logger.level
    os.environ.update(changes)
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)
        for name, value in previous.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
