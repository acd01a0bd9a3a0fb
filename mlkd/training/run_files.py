"""Reads the files of a run. Their content is validated here: a damaged file, or one of another version of mlkd, is an
error in one line that names the file and says what to do."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import ConfigDict, Field, field_validator, model_validator

from mlkd.errors import RunError
from mlkd.settings import Settings

if TYPE_CHECKING:  # imported where they are used, so that `mlkd runs` is fast
    import pandas as pd
    from torch import Tensor


class Entries(Settings):
    """The entries of a JSON file that other code reads. Files may have more."""

    model_config = ConfigDict(extra="allow")


class Training(Entries):
    title: ClassVar[str] = "`training`"

    role: str
    backbone: str
    seed: int
    epochs: int


class Data(Entries):
    title: ClassVar[str] = "`data`"

    name: str = ""


class Description(Entries):
    """`config.json`."""

    title: ClassVar[str] = "the run"

    method: str
    training: Training
    data: Data = Data()
    settings: dict[str, Any] = Field(default_factory=dict)


class SplitScores(Entries):
    """The scores of one split in `metrics.json`. mAP is nan for a split without positives."""

    title: ClassVar[str] = "a split"

    mAP: float = Field(allow_inf_nan=True)

    @field_validator("mAP")
    @classmethod
    def _check_fraction(cls, score: float) -> float:
        if not (0 <= score <= 1 or math.isnan(score)):
            raise ValueError(f"`mAP` of a split is {score}, expected a fraction.")
        return score


class Metrics(Entries):
    """`metrics.json`. Every further mapping has the scores of a split."""

    title: ClassVar[str] = "the metrics"

    test: SplitScores
    parameters: int = 0
    seconds: float = 0.0
    memory_gb: float = 0.0

    @model_validator(mode="after")
    def _check_splits(self) -> Metrics:
        for scores in (self.model_extra or {}).values():
            if isinstance(scores, dict):
                SplitScores(**scores)
        return self


class StoredComputeFormat(Settings):
    """`compute_format.json`."""

    title: ClassVar[str] = "the compute format"

    precision: Literal["float32", "bf16", "fp16"]
    channels_last: bool
    images_per_second: dict[str, float] | None


class Predictions(NamedTuple):
    """A model's predictions for one split: ids (N,), targets (N, q) uint8, logits (N, q) float32, class names (q,).

    `ignore_mask` is None, or (N, q) bool: labels that count neither as present nor as absent, as in `MultiLabelData`.
    """

    ids: np.ndarray
    targets: np.ndarray
    logits: np.ndarray
    classes: tuple[str, ...]
    ignore_mask: np.ndarray | None = None

    def same_samples(self, other: Any) -> bool:
        """Whether `other`, predictions or data, has the same images in the same order with the same labels."""
        same = self.classes == other.classes and np.array_equal(self.ids, np.asarray(other.ids))
        return (
            same
            and np.array_equal(self.targets, other.targets)
            and (self.ignore_mask is None) == (other.ignore_mask is None)
            and (self.ignore_mask is None or np.array_equal(self.ignore_mask, other.ignore_mask))
        )


def damaged(run: Path, file: Path, problem: str) -> RunError:
    """The error for a file of a run's folder that cannot be used."""
    return RunError(f"{file}: {problem}; remove the folder {run} to restart the training.")


@contextmanager
def _reading(run: Path, file: Path, problem: str) -> Iterator[None]:
    """Turns the errors of a block into a RunError. Damaged content raises errors of many kinds in the libraries."""
    try:
        yield
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise damaged(run, file, f"{problem} ({reason})") from error


def read_json(run: Path, name: str, entries: type[Settings]) -> dict[str, Any]:
    """A JSON file of a run with at least these entries; those that the file lacks have their defaults.

    Raises:
        RunError: the file cannot be read, is not JSON, or an entry is missing or of the wrong kind.
    """
    path = run / name
    with _reading(run, path, "not valid JSON"):
        content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise damaged(run, path, f"has {type(content).__name__} in place of a mapping")
    try:
        values = entries(**content).model_dump()
    except ValueError as error:
        raise damaged(
            run, path, f"damaged, or written by another version of mlkd ({str(error).rstrip('.')})"
        ) from error
    return {name: values[name] for name in dict.fromkeys((*content, *values))}  # in the order of the file


def read_table(
    run: Path, name: str, numbers: Collection[str], texts: Collection[str] = (), **options: Any
) -> pd.DataFrame:
    """A CSV file of a run, whose columns are numbers but for `texts`.

    Args:
        run: its folder.
        name: the file.
        numbers: columns that every row has a number in.
        texts: columns of texts.
        options: further arguments of `pandas.read_csv`.

    Raises:
        RunError: the file cannot be read, or a column is missing or of the wrong kind.
    """
    import pandas as pd

    path = run / name
    with _reading(run, path, "not a readable table"):
        content = path.read_bytes()
        table = pd.read_csv(io.BytesIO(content), dtype=dict.fromkeys(texts, str), **options)
    if not isinstance(table.index, pd.RangeIndex):
        raise damaged(run, path, "a row has more values than there are columns")
    for column in (*numbers, *texts):
        if column not in table:
            raise damaged(run, path, f"has no column {column!r}")
    for column in table.columns.difference(list(texts)):
        kind = table[column].dtype.kind
        if len(table) and (kind not in "iuf" or (column in numbers and table[column].isna().any())):
            raise damaged(run, path, f"the column {column!r} has something other than numbers")
    if not content.endswith(b"\n"):
        raise damaged(run, path, "the end of the file is missing")
    return table


def read_predictions(run: Path, split: str) -> Predictions:
    """The predictions of a run for a split.

    Raises:
        RunError: there are none, the file cannot be read, or its arrays do not have the shapes of `Predictions`.
    """
    path = run / "predictions" / f"{split}.npz"
    if not path.is_file():
        raise RunError(f"{path}: this run has no predictions for the split {split!r}.")
    # numpy leaves a file open that it cannot read, but not the stream
    with (
        _reading(run, path, "not a readable file of predictions"),
        path.open("rb") as stream,
        np.load(stream, allow_pickle=False) as file,
    ):
        arrays = {name: file[name] for name in file.files}
        ids, targets, logits, classes = (arrays[name] for name in ("ids", "targets", "logits", "classes"))
        ignore_mask = arrays.get("ignore_mask")
    shape = (ids.size, classes.size)
    problems = {
        "ids": ids.ndim != 1 or ids.dtype.kind != "U" or not ids.size,
        "classes": classes.ndim != 1 or classes.dtype.kind != "U" or not classes.size,
        "targets": targets.shape != shape or targets.dtype.kind not in "biu" or not np.isin(targets, (0, 1)).all(),
        "logits": logits.shape != shape or logits.dtype.kind != "f" or not np.isfinite(logits).all(),
        "ignore_mask": ignore_mask is not None and (ignore_mask.shape != shape or ignore_mask.dtype != bool),
    }
    for name, invalid in problems.items():
        if invalid:
            array = arrays[name]
            raise damaged(
                run, path, f"`{name}` is invalid ({array.dtype}, shape {array.shape}, expected {_EXPECTED[name]})"
            )
    return Predictions(ids, targets, logits, tuple(classes.tolist()), ignore_mask)


_EXPECTED = {
    "ids": "a text for each image",
    "classes": "a text for each class",
    "targets": "0 or 1 for each image and class",
    "logits": "a finite number for each image and class",
    "ignore_mask": "true or false for each image and class",
}


def read_checkpoint(run: Path, folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The weights and the state in a checkpoint's folder; code in it is not executed.

    Raises:
        RunError: a file is missing, cannot be read, or has something else.
    """
    import torch
    from safetensors.torch import load_file

    with _reading(run, folder, "not a readable checkpoint"):
        weights = load_file(folder / "weights.safetensors")
        state = torch.load(folder / "state.pt", map_location="cpu", weights_only=True)
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise damaged(run, folder / "state.pt", "not the state of a training")
    return weights, state
