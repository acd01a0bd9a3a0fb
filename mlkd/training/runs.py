"""The run store: one folder per training, named after its description.

A run's folder holds `config.json` (the description), `study.yml` (the study it was trained for, if any),
`history.csv` (one row per epoch), `checkpoint/` (during the training), `model.safetensors` (the weights of
the selected epoch), `predictions/<split>.npz` (ids, targets, logits), `environment.json` and, written last,
`metrics.json`: a run with that file is complete. The process that trains it holds `.lock`.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock, Timeout

from mlkd.errors import RunError, WeightsError
from mlkd.files import atomic_write, create_once, explain_write_errors, remove
from mlkd.training.run_files import (
    Description,
    Metrics,
    Predictions,
    StoredComputeFormat,
    read_checkpoint,
    read_json,
    read_predictions,
    read_table,
)

if TYPE_CHECKING:  # imported where they are used, so that `mlkd runs` is fast
    import pandas as pd
    from torch import Tensor

    from mlkd.models import MultiLabelModel

logger = logging.getLogger(__name__)

NO_TRAIN = "MLKD_NO_TRAIN"
"""Environment variable: if set, finished runs are read and nothing is trained (`mlkd report --no-train`)."""


HOLDER = ".lock_holder"
"""File in a run's folder that names the process that trains it."""


COSTS = ("epoch_seconds", "images_per_second", "memory_gb")
"""What a training costs: the medians over epochs of their seconds and of the images per second, and the peak memory."""


class Run:
    """One training on disk, complete or resumable."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        if not (self.path / "config.json").is_file():
            raise RunError(f"{self.path}: no run here, its config.json is missing.")

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, {'complete' if self.complete else 'unfinished'})"

    @property
    def config(self) -> dict[str, Any]:
        """Its description: "method", "settings" of the method, "data" and "training"."""
        return read_json(self.path, "config.json", Description)

    @property
    def complete(self) -> bool:
        return (self.path / "metrics.json").is_file()

    @property
    def state(self) -> str:
        """One of "finished", "training" (by a process that runs now) and "not finished"."""
        if self.complete:
            return "finished"
        if (self.path / HOLDER).is_file():  # a killed process leaves this file, but not its lock
            try:
                with FileLock(self.path / ".lock").acquire(blocking=False):
                    return "not finished"
            except OSError:  # the lock is held, or belongs to another user
                return "training"
        return "not finished"

    @property
    def metrics(self) -> dict[str, Any]:
        """Of a complete run: "select", "selected_epoch" (whose weights are kept), "parameters", "seconds", "memory_gb"
        (peak), and for each evaluated split its mAP."""
        if not self.complete:
            raise RunError(f"{self.path}: not finished; start the same training again to resume it.")
        return read_json(self.path, "metrics.json", Metrics)

    @property
    def mean_ap(self) -> dict[str, float]:
        """mAP of every evaluated split, as a fraction."""
        return {name: value["mAP"] for name, value in self.metrics.items() if isinstance(value, dict)}

    @property
    def epochs_done(self) -> int:
        """The number of finished epochs."""
        path = self.path / "history.csv"
        return max(path.read_bytes().count(b"\n") - 1, 0) if path.is_file() else 0

    @property
    def history(self) -> pd.DataFrame:
        """One row per epoch: learning rate, mean loss terms, mAP on validation, seconds.

        `selected` is 1 where the weights of the epoch were kept; the last such epoch is the selected one.
        """
        import pandas as pd

        if not (self.path / "history.csv").is_file():
            return pd.DataFrame({"epoch": []})
        return read_table(self.path, "history.csv", ["epoch"])

    @property
    def costs(self) -> dict[str, float]:
        """The values of `COSTS` of a complete run; nan for what was not measured."""
        history, memory = self.history, self.metrics.get("memory_gb") or np.nan
        if history.empty:
            return dict.fromkeys(COSTS, np.nan)
        medians = history.reindex(columns=["seconds", "images_per_second"]).median()
        return dict(zip(COSTS, (*medians, memory), strict=True))

    @property
    def compute_format(self) -> dict[str, Any]:
        """With precision="auto" the measured and chosen `ComputeFormat`; otherwise empty."""
        if not (self.path / "compute_format.json").is_file():
            return {}
        return read_json(self.path, "compute_format.json", StoredComputeFormat)

    @property
    def gradients(self) -> pd.DataFrame:
        """The gradients of the loss terms, as recorded by `fit(log_gradients_every=...)`; otherwise no rows.

        Rows of `mlkd.training.gradients.gradients` with `epoch`, from 1, and `step`, counted over all epochs from 0.
        """
        import pandas as pd

        numbers, texts, fractions = ("epoch", "step", "norm"), ("term", "class"), ("fraction", "cosine")
        if not (self.path / "gradients.csv").is_file():
            return pd.DataFrame(columns=["epoch", "step", "term", "class", "norm", "fraction", "cosine"])
        # a class may have the name "nan"
        return read_table(
            self.path, "gradients.csv", numbers, texts, keep_default_na=False, na_values={n: [""] for n in fractions}
        )

    def predictions(self, split: str = "test") -> Predictions:
        """The predictions of the selected epoch for every image of a split."""
        return read_predictions(self.path, split)

    def model(self) -> MultiLabelModel:
        """The trained model with the weights of the selected epoch, in eval mode on the CPU."""
        from mlkd.models import load_model

        path = self.path / "model.safetensors"
        if not self.complete:
            raise RunError(f"{path}: the training is not finished; start it again to resume it.")
        try:
            return load_model(path)
        except WeightsError as error:
            raise RunError(f"{error} Remove the folder {self.path} to restart the training.") from error

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        _write_json(self.path / name, value)

    def write_text(self, name: str, text: str) -> None:
        with atomic_write(self.path / name) as unfinished:
            unfinished.write_text(text)

    def write_history(self, rows: list[dict[str, float]]) -> None:
        import pandas as pd

        with atomic_write(self.path / "history.csv") as unfinished:
            pd.DataFrame(rows).to_csv(unfinished, index=False)

    def write_gradients(self, epoch: int, rows: pd.DataFrame) -> None:
        """Adds the rows of an epoch; those that an interrupted training left of it or of later ones are replaced."""
        import pandas as pd

        recorded = self.gradients
        tables = [table for table in (recorded[recorded["epoch"] < epoch], rows.assign(epoch=epoch)) if len(table)]
        with atomic_write(self.path / "gradients.csv") as unfinished:
            (pd.concat(tables) if tables else recorded).to_csv(unfinished, index=False)

    def write_predictions(self, split: str, predictions: Predictions) -> None:
        arrays: dict[str, Any] = {
            "ids": np.asarray(predictions.ids, dtype=np.str_),
            "targets": predictions.targets,
            "logits": predictions.logits.astype(np.float32),
            "classes": np.asarray(predictions.classes, dtype=np.str_),
        }
        if predictions.ignore_mask is not None:
            arrays["ignore_mask"] = predictions.ignore_mask
        with (
            atomic_write(self.path / "predictions" / f"{split}.npz") as unfinished,
            unfinished.open("wb") as file,
        ):
            np.savez_compressed(file, **arrays)

    # A checkpoint is a folder such as `checkpoint/epoch-0003`, which is written under another name and then renamed:
    # `weights.safetensors`, and `state.pt` with the rest, which is read without executing pickled code.

    def save_checkpoint(self, epoch: int, weights: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Writes the checkpoint of a finished epoch, which replaces that of the epoch before."""
        import torch
        from safetensors.torch import save

        with atomic_write(self.path / "checkpoint" / f"epoch-{epoch:04d}") as unfinished:
            unfinished.mkdir()
            tensors = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
            (unfinished / "weights.safetensors").write_bytes(save(tensors))
            buffer = io.BytesIO()
            torch.save(dict(state), buffer)
            (unfinished / "state.pt").write_bytes(buffer.getbuffer())
        for previous in self.checkpoints[:-1]:
            remove(previous)

    def load_checkpoint(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Weights and state after the last finished epoch, or None before the first."""
        return read_checkpoint(self.path, self.checkpoints[-1]) if self.checkpoints else None

    @property
    def checkpoints(self) -> list[Path]:
        """The folders of the checkpoint and, if a process was killed while it replaced it, of the one before."""
        return sorted((self.path / "checkpoint").glob("epoch-*"))

    @contextmanager
    def locked(self, wait: bool = True) -> Iterator[None]:
        """Holds the run's lock, so that no other process trains it; waits for a process that does.

        The operating system releases the lock when its process ends, also when it is killed.

        Raises:
            RunError: another process trains this run and `wait` is False.
            WriteError: the folder cannot be written to.
        """
        lock, holder = FileLock(self.path / ".lock"), self.path / HOLDER
        try:
            with explain_write_errors(self.path):
                lock.acquire(blocking=False)
        except Timeout:
            owner = holder.read_text() if holder.is_file() else "another process"
            if not wait:
                raise RunError(
                    f"{self.path}: {owner} is training this run; start the same command again when it has ended."
                ) from None
            logger.warning("%s: %s is training this run; waiting for it to end.", self.path, owner)
            lock.acquire()
        try:
            for leftover in self.path.rglob(".*.unfinished"):
                remove(leftover)  # of a killed process
            with atomic_write(holder) as unfinished:
                unfinished.write_text(f"process {os.getpid()} on {platform.node()}")
            yield
        finally:
            remove(holder)
            lock.release()  # the lock file is kept, so that waiting processes do not lock a deleted file

    def finish(self, metrics: Mapping[str, Any]) -> None:
        """Writes the metrics, which marks the run as complete, and removes its checkpoint."""
        self.write_json("metrics.json", metrics)
        remove(self.path / "checkpoint")


def open_run(root: str | Path, description: Mapping[str, Any]) -> Run:
    """The run of a description; its folder is created if it does not exist.

    Args:
        root: the folder of all runs.
        description: plain values; the same description gives the same folder.

    Raises:
        RunError: the run is not finished, and `$MLKD_NO_TRAIN` is set.
    """
    text = json.dumps(description, sort_keys=True)
    name = "-".join(
        [
            description["method"],
            description["training"]["role"],
            description["training"]["backbone"].replace("/", "_"),
            f"s{description['training']['seed']}",
            hashlib.sha256(text.encode()).hexdigest()[:8],
        ]
    )
    path = Path(root) / name
    if os.environ.get(NO_TRAIN) and not (path / "metrics.json").is_file():
        raise RunError(
            f"{path}: no finished run, and with --no-train nothing is trained; leave out --no-train to train it."
        )

    def write(unfinished: Path) -> None:
        _write_json(path / "environment.json", environment())
        unfinished.write_text(_as_json(description))

    create_once(path / "config.json", write)
    return Run(path)


def iter_runs(root: str | Path) -> Iterator[Run]:
    """Every run in a folder, sorted by name. A damaged run is left out, and a warning says what to do."""
    folder = Path(root)
    for name in sorted(os.listdir(folder)) if folder.is_dir() else ():
        if os.path.isfile(folder / name / "config.json") and is_readable(run := Run(folder / name)):
            yield run


def is_readable(run: Run, *, predictions: bool = False) -> bool:
    """Whether the description and the metrics of a run are undamaged; if not, a warning says what to do.

    Args:
        run: finished or not.
        predictions: whether the predictions of every evaluated split are read as well.
    """
    try:
        splits = run.mean_ap if run.config and run.complete else ()
        for split in splits if predictions else ():
            run.predictions(split)
    except RunError as error:
        _warn_once(str(error))
        return False
    return True


@cache
def _warn_once(message: str) -> None:
    """Logs a warning, once in a process: the folder of runs is read again and again."""
    logger.warning("Left out: %s", message)


def summarize_runs(root: str | Path) -> list[dict[str, str]]:
    """One line per run, finished or not: its name, data, epochs and mAP. Damaged runs are left out, with a warning."""
    lines = []
    for run in iter_runs(root):
        config, complete = run.config, run.complete
        scores, epochs = run.mean_ap if complete else {}, config["training"]["epochs"]
        lines.append(
            {
                "run": run.path.name,
                "data": config["data"]["name"],
                "epochs": f"{epochs if complete else run.epochs_done}/{epochs}",
                "val mAP %": f"{100 * scores['val']:.2f}" if "val" in scores else "",
                "test mAP %": f"{100 * scores['test']:.2f}" if scores else "",
            }
        )
    return lines


def environment() -> dict[str, str]:
    """Versions of Python and the main packages, and the machine; stored with every run."""
    from importlib.metadata import version

    import timm
    import torch
    import torchvision

    return {
        "mlkd": version("mlkd"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "timm": timm.__version__,
        "machine": f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads",
    }


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    with atomic_write(path) as unfinished:
        unfinished.write_text(_as_json(value))


def _as_json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=1) + "\n"
