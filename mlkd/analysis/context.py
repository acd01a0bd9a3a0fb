"""Context reliance: how much the prediction of an object depends on the objects that usually co-occur with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.signal import correlate
from scipy.stats import linregress, t

from mlkd.analysis.localization import box_mask
from mlkd.analysis.tables import mean_by_group
from mlkd.data import MultiLabelData
from mlkd.data.image_cache import decoded_images
from mlkd.graphs import Counts, conditional_probability
from mlkd.models import MergedTeacher, MultiLabelModel, model_output
from mlkd.training.runs import Run

GRAY = 127
"""Value of masked pixels."""


def context_scores(
    groups: Mapping[str, Sequence[Run]], splits: Sequence[str] = ("test", "context_shift")
) -> pd.DataFrame:
    """mAP of groups of runs on several splits, such as the synthetic scenes with and without co-occurring objects.

    Returns:
        One row per group and split: `run`, `split`, `mean` and `std` over seeds (fractions; the standard deviation is
        nan for one seed), and `n` seeds. A split that no run of the group was evaluated on has no row.
    """
    rows = []
    for title, runs in groups.items():
        for split in splits:
            values = [run.mean_ap[split] for run in runs if split in run.mean_ap]
            if values:
                std = np.std(values, ddof=1) if len(values) > 1 else np.nan
                rows.append((title, split, np.mean(values), std, len(values)))
    return pd.DataFrame(rows, columns=["run", "split", "mean", "std", "n"])


def top_cooccurring_labels(counts: Counts) -> list[tuple[int, int]]:
    r"""Each label k with the label l that co-occurs with it most often, the l with the largest $P(l \mid k)$.

    Args:
        counts: of the training images, from `mlkd.graphs.cooccurrence`.

    Returns:
        Pairs (k, l) of class indices, sorted by $P(l \mid k)$ in descending order; of equal l the lowest index. A label
        that never co-occurs with another has no pair.
    """
    probability = conditional_probability(*counts)
    best = probability.argmax(axis=1) if len(probability) else np.zeros(0, np.int64)
    strength = probability[np.arange(len(best)), best]
    order = np.argsort(-strength, kind="stable")
    return [(int(label), int(best[label])) for label in order if strength[label] > 0]


class ContextMasks(NamedTuple):
    """Pixels to mask in an image, (H, W) bool each: the context object, and a control region of the same shape."""

    context: np.ndarray
    control: np.ndarray


def context_masks(
    boxes: np.ndarray, label: int, context: int, size: int, rng: np.random.Generator
) -> ContextMasks | None:
    """A mask of the context object's boxes, and the same mask moved to where neither label has a box.

    Pixels in a box of `label` are never masked. The control is the context mask translated as a whole to a position
    drawn at random among those where it lies inside the image and overlaps no box of the two labels.

    Args:
        boxes: (m, 5), from `MultiLabelData.normalized_boxes`.
        label, context: class indices.
        size: side of the image in pixels.
        rng: draws the position of the control.

    Returns:
        None where an image has no such masks: one of the two labels has no box, the context lies within the boxes of
        `label`, or the control fits nowhere.
    """
    label_mask, context_boxes = (box_mask(boxes[boxes[:, 0] == kind, 1:], size, size) for kind in (label, context))
    masked = context_boxes & ~label_mask
    if not label_mask.any() or not masked.any():
        return None
    rows, columns = np.flatnonzero(masked.any(axis=1)), np.flatnonzero(masked.any(axis=0))
    shape = masked[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    occupied = (label_mask | context_boxes).astype(np.float64)
    overlap = correlate(occupied, shape.astype(np.float64), mode="valid", method="fft")
    free = np.argwhere(overlap < 0.5)
    if not len(free):
        return None
    top, left = free[rng.integers(len(free))]
    control = np.zeros_like(masked)
    control[top : top + shape.shape[0], left : left + shape.shape[1]] = shape
    return ContextMasks(masked, control)


def context_reliance(
    models: Mapping[str, MultiLabelModel | MergedTeacher],
    data: MultiLabelData,
    pairs: Sequence[tuple[int, int]],
    *,
    max_images: int = 50,
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Drop of a label's probability when its context object is masked, less the drop when a control region is masked.

    Args:
        models: title -> model of all classes of the data.
        data: a split with boxes.
        pairs: (label, context) class indices, for example from `top_cooccurring_labels`.
        max_images: images per pair: the first ones that have both masks of `context_masks`.
        resamples: of the bootstrap.
        seed: of the bootstrap, and of the positions of the controls, which are the same for models of the same image
            size.

    Returns:
        One row per model and pair that has an image: `run`, `label` and `context` (names), `n` and `images`, then the
        mean drop with the context masked (`drop`), with the control masked (`control`) and their difference
        (`reliance`), each in [-1, 1] with its 95 % interval over images (`_low`, `_high`).

    Raises:
        DataError: the data set has no boxes.
        ValueError: a model has other classes.
    """
    if len(data):
        data.normalized_boxes(0)  # raises before any computation if the data has no boxes
    for title, model in models.items():
        if tuple(model.classes) != data.classes:
            raise ValueError(f"The model {title!r} has the classes {model.classes}, the data {data.classes}.")
    values = ("drop", "control", "reliance")
    frames = []
    for label, context in pairs:
        masked = {
            size: _masked_images(data, size, label, context, max_images, seed)
            for size in {model.image_size for model in models.values()}
        }
        names = {"label": data.classes[label], "context": data.classes[context]}
        for title, model in models.items():
            rows, images = masked[model.image_size]
            if rows:
                frames.append(_probability_drops(model, images, label).assign(image=rows, run=title, **names))
    keys = ["run", "label", "context"]
    drops = pd.concat(frames) if frames else pd.DataFrame(columns=["image", *keys, *values])
    table = mean_by_group(drops, keys, values, resamples, seed).set_index(keys)
    order = dict.fromkeys((title, *(data.classes[k] for k in pair)) for title in models for pair in pairs)
    return table.loc[[key for key in order if key in table.index]].reset_index()


def _masked_images(
    data: MultiLabelData, size: int, label: int, context: int, max_images: int, seed: int
) -> tuple[list[int], np.ndarray]:
    """The rows of n images that have both masks, and for each the original, the one without context and the control.

    Shape: images (3 n, 3, size, size) uint8.
    """
    pixels = decoded_images(data, size)
    rows: list[int] = []
    images: list[np.ndarray] = [np.zeros((0, size, size, 3), np.uint8)]
    for row in np.flatnonzero(data.targets[:, label] & data.targets[:, context]).tolist():
        if len(rows) == max_images:
            break
        rng = np.random.default_rng([seed, label, context, row])
        masks = context_masks(data.normalized_boxes(row), label, context, size, rng)
        if masks is not None:
            rows.append(row)
            masked = [np.where(mask[..., None], np.uint8(GRAY), pixels[row]) for mask in masks]
            images.append(np.stack([pixels[row], *masked]))
    return rows, np.concatenate(images).transpose(0, 3, 1, 2)


def _probability_drops(model, images: np.ndarray, label: int, batch_size: int = 96) -> pd.DataFrame:
    """The drop of a label's probability in each image of `_masked_images` with either mask, and the difference."""
    device = next(model.parameters()).device
    probabilities = []
    for start in range(0, len(images), batch_size):
        batch = torch.from_numpy(images[start : start + batch_size].copy()).to(device)
        probabilities.append(torch.sigmoid(model_output(model, batch).logits[:, label].double()).cpu().numpy())
    original, without_context, without_control = np.concatenate(probabilities).reshape(-1, 3).T
    return pd.DataFrame(
        {
            "drop": original - without_context,
            "control": original - without_control,
            "reliance": without_control - without_context,
        }
    )


def reliance_regression(table: pd.DataFrame, teacher: str = "teacher", level: float = 0.95) -> pd.DataFrame:
    """Linear regression of each student's reliance on context on the teacher's, over the pairs of labels (SciPy).

    A slope of 1 is the reliance of the teacher, 0 is none. The correlation measures whether it is the same pairs.

    Args:
        table: from `context_reliance`, with the teacher among the runs.
        teacher: title of the teacher.
        level: of the slope's confidence interval, from Student's t with pairs - 2 degrees of freedom.

    Returns:
        One row per other run: `run`, `slope`, `low`, `high`, `intercept`, `correlation` and `pairs`; nan with fewer
        than three pairs in common, or if the teacher's reliance is the same for all pairs.

    Raises:
        ValueError: the teacher is not among the runs.
    """
    if teacher not in set(table["run"]):
        raise ValueError(f"`teacher` is {teacher!r}, expected one of the runs: {', '.join(table['run'].unique())}.")
    wide = table.pivot(index=["label", "context"], columns="run", values="reliance")
    rows = []
    for run in [title for title in table["run"].unique() if title != teacher]:
        known = wide[[teacher, run]].dropna()
        x, y = known[teacher].to_numpy(), known[run].to_numpy()
        if len(known) < 3 or np.ptp(x) == 0:
            rows.append((run, *[np.nan] * 5, len(known)))
            continue
        line = linregress(x, y)
        half_width = t.ppf((1 + level) / 2, len(known) - 2) * line.stderr
        low, high = line.slope - half_width, line.slope + half_width
        rows.append((run, line.slope, low, high, line.intercept, line.rvalue, len(known)))
    return pd.DataFrame(rows, columns=["run", "slope", "low", "high", "intercept", "correlation", "pairs"])
