"""How much of what a network says of an object it takes from the object's usual company."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.signal import correlate
from scipy.stats import linregress, t

from mlkd.analysis.intervals import mean_over_pictures
from mlkd.analysis.localization import box_mask
from mlkd.data import MultiLabelData
from mlkd.data.image_cache import decoded_images
from mlkd.graphs import Counts, conditional_probability
from mlkd.models import MergedTeacher, MultiLabelModel
from mlkd.training.evaluate import model_output
from mlkd.training.runs import Run

GREY = 127


def context_scores(
    groups: Mapping[str, Sequence[Run]], splits: Sequence[str] = ("test", "context_shift")
) -> pd.DataFrame:
    """mAP of groups of runs on several splits, such as the scenes with and without the objects' usual company.

    Returns:
        One row per group and split: `run`, `split`, `mean` over seeds and `std` (of the seeds, nan for one), as
        fractions, and `n` seeds. A split that a group was not scored on has no row.
    """
    rows = []
    for title, runs in groups.items():
        for split in splits:
            values = [run.mean_ap[split] for run in runs if split in run.mean_ap]
            if values:
                spread = np.std(values, ddof=1) if len(values) > 1 else np.nan
                rows.append((title, split, np.mean(values), spread, len(values)))
    return pd.DataFrame(rows, columns=["run", "split", "mean", "std", "n"])


def top_cooccurring_labels(counts: Counts) -> list[tuple[int, int]]:
    """Each label with its usual companion: the label that most of its pictures have too (the first of equal ones).

    Args:
        counts: as `mlkd.graphs.cooccurrence` returns them, of the training pictures.

    Returns:
        Pairs (label, companion) of class indices, the closest pair first; a label that always stands alone has none.
    """
    together = conditional_probability(*counts)
    best = together.argmax(axis=1) if len(together) else np.zeros(0, np.int64)
    strength = together[np.arange(len(best)), best]
    order = np.argsort(-strength, kind="stable")
    return [(int(label), int(best[label])) for label in order if strength[label] > 0]


class Masked(NamedTuple):
    """What to grey out of a picture, (H, W) bool each: the companion, and as much of the picture elsewhere."""

    companion: np.ndarray
    control: np.ndarray


def masked_companion(
    boxes: np.ndarray, label: int, companion: int, size: int, rng: np.random.Generator
) -> Masked | None:
    """Two masks for one picture: the companion's boxes, and the same shape in a place where neither label has a box.

    What lies in a box of the label itself is never masked. The control is the companion's mask, moved as a whole to
    one of the places where it fits into the picture and touches no box of the two, drawn at random.

    Args:
        boxes: (m, 5) as `MultiLabelData.normalized_boxes` gives them.
        label, companion: class indices.
        size: side of the picture in pixels.
        rng: bootstrap_weights the place.

    Returns:
        None where a picture cannot tell: one of the two has no box, the companion lies within the label's boxes, or
        there is no such place.
    """
    own, other = (box_mask(boxes[boxes[:, 0] == kind, 1:], size, size) for kind in (label, companion))
    masked = other & ~own
    if not own.any() or not masked.any():
        return None
    rows, columns = np.flatnonzero(masked.any(axis=1)), np.flatnonzero(masked.any(axis=0))
    shape = masked[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    touched = correlate((own | other).astype(np.float64), shape.astype(np.float64), mode="valid", method="fft")
    free = np.argwhere(touched < 0.5)
    if not len(free):
        return None
    top, left = free[rng.integers(len(free))]
    control = np.zeros_like(masked)
    control[top : top + shape.shape[0], left : left + shape.shape[1]] = shape
    return Masked(masked, control)


def context_reliance(
    models: Mapping[str, MultiLabelModel | MergedTeacher],
    data: MultiLabelData,
    pairs: Sequence[tuple[int, int]],
    *,
    most: int = 50,
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """How far a label's probability falls when its companion is greyed out, beyond what as much grey elsewhere does.

    Args:
        models: title -> model, all of the data's classes.
        data: a split with boxes.
        pairs: (label, companion) class indices, as `companions` gives them.
        most: pictures per pair: the first that can tell (see `masked_companion`).
        resamples, seed: of the intervals, and of the controls' places, which are the same for every model of one size.

    Returns:
        One row per model and pair that a picture can tell of: `run`, `label` and `companion` (names), `n` maps and
        `pictures`, then the mean fall with the companion masked (`drop`), with the control masked (`control`) and
        their difference (`reliance`), each in [-1, 1] with its 95 % interval over pictures (`_low`, `_high`).

    Raises:
        DataError: this data set has no boxes.
        ValueError: a model has other classes.
    """
    if len(data):
        data.normalized_boxes(0)  # without boxes the error comes before any work
    for title, model in models.items():
        if tuple(model.classes) != data.classes:
            raise ValueError(f"The model {title!r} has the classes {model.classes}, the data {data.classes}.")
    frames = []
    for label, companion in pairs:
        shown = {
            size: _shown(data, size, label, companion, most, seed)
            for size in {model.image_size for model in models.values()}
        }
        for title, model in models.items():
            rows, images = shown[model.image_size]
            falls = _falls(model, images, label).assign(picture=rows, run=title)
            frames.append(falls.assign(label=data.classes[label], companion=data.classes[companion]))
    values = ("drop", "control", "reliance")
    table = pd.concat(frames) if frames else pd.DataFrame(columns=["picture", "label", "companion", *values, "run"])
    means = mean_over_pictures(table, ("run", "label", "companion"), values, resamples, seed)
    order = {(title, *(data.classes[k] for k in pair)): None for title in models for pair in pairs}
    keys = [key for key in order if key in set(means[["run", "label", "companion"]].itertuples(index=False, name=None))]
    return means.set_index(["run", "label", "companion"]).loc[keys].reset_index()


def _shown(
    data: MultiLabelData, size: int, label: int, companion: int, most: int, seed: int
) -> tuple[list[int], np.ndarray]:
    """The rows of pictures that can tell of the pair, and each whole, without companion and with the control masked:
    (3 * rows, 3, size, size) uint8."""
    pixels = decoded_images(data, size)
    rows: list[int] = []
    images: list[np.ndarray] = [np.zeros((0, size, size, 3), np.uint8)]
    for row in np.flatnonzero(data.targets[:, label] & data.targets[:, companion]).tolist():
        if len(rows) == most:
            break
        rng = np.random.default_rng([seed, label, companion, row])
        masks = masked_companion(data.normalized_boxes(row), label, companion, size, rng)
        if masks is not None:
            rows.append(row)
            greyed = [np.where(mask[..., None], np.uint8(GREY), pixels[row]) for mask in masks]
            images.append(np.stack([pixels[row], *greyed]))
    return rows, np.concatenate(images).transpose(0, 3, 1, 2)


def _falls(model, images: np.ndarray, label: int) -> pd.DataFrame:
    """How far a label's probability falls in each picture of `_shown`, masked either way."""
    device = next(model.parameters()).device
    said = [np.zeros(0)]
    for start in range(0, len(images), 96):
        logits = model_output(model, torch.from_numpy(images[start : start + 96].copy()).to(device)).logits[:, label]
        said.append(torch.sigmoid(logits.double()).cpu().numpy())
    whole, without, control = np.concatenate(said).reshape(-1, 3).T
    return pd.DataFrame({"drop": whole - without, "control": whole - control, "reliance": control - without})


def reliance_regression(table: pd.DataFrame, teacher: str = "teacher", level: float = 0.95) -> pd.DataFrame:
    """How much of the teacher's reliance on context each student has: a line through the pairs of labels (SciPy).

    A slope of 1 is the teacher's reliance, 0 none of it; the correlation says whether it is the same pairs.

    Args:
        table: as `context_reliance` returns it, the teacher among the runs.
        teacher: its title.
        level: of the slope's interval, from Student's t with pairs - 2 degrees of freedom.

    Returns:
        One row per other run: `run`, `slope`, `low`, `high`, `intercept`, `correlation` and `pairs`; nan where fewer
        than three pairs are known of both, or the teacher relies on all alike.

    Raises:
        ValueError: the teacher is not among the runs.
    """
    if teacher not in set(table["run"]):
        raise ValueError(f"`teacher` is {teacher!r}, expected one of the runs: {', '.join(table['run'].unique())}.")
    wide = table.pivot(index=["label", "companion"], columns="run", values="reliance")
    rows = []
    for run in [title for title in table["run"].unique() if title != teacher]:
        known = wide[[teacher, run]].dropna()
        x, y = known[teacher].to_numpy(), known[run].to_numpy()
        if len(known) < 3 or np.ptp(x) == 0:
            rows.append((run, *[np.nan] * 5, len(known)))
            continue
        line = linregress(x, y)
        reach = t.ppf((1 + level) / 2, len(known) - 2) * line.stderr
        rows.append((run, line.slope, line.slope - reach, line.slope + reach, line.intercept, line.rvalue, len(known)))
    return pd.DataFrame(rows, columns=["run", "slope", "low", "high", "intercept", "correlation", "pairs"])
