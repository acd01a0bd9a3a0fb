"""What is found and what is missed: by the size of an object, the frequency of a label, the labels in a picture."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from mlkd.data import MultiLabelData

SIDE = 224
"""Side of the square picture at which objects are measured, in pixels."""


def object_table(data: MultiLabelData) -> pd.DataFrame:
    """Every object of a split, with its size in the picture squeezed to 224 x 224 pixels.

    Returns:
        One row per object: `image` (its row), `label` (class index) and `side`, the square root of the area of its
        box, in (0, 224].

    Raises:
        DataError: this data set has no boxes.
    """
    found = [np.zeros((0, 3))]
    for row in range(len(data)):
        boxes = data.normalized_boxes(row)
        side = SIDE * np.sqrt((boxes[:, 3] - boxes[:, 1]) * (boxes[:, 4] - boxes[:, 2]))
        found.append(np.column_stack([np.full(len(boxes), row), boxes[:, 0], side]))
    table = pd.DataFrame(np.concatenate(found), columns=["image", "label", "side"])
    return table.astype({"image": np.int64, "label": np.int64})


def label_table(data: MultiLabelData, train: MultiLabelData) -> pd.DataFrame:
    """Every label of every picture of a split; for data with or without boxes.

    Returns:
        One row per picture and label that it has: `image` (its row), `label` (class index), `labels` (how many the
        picture has) and `frequency` (the share of the training pictures with the label, in %).

    Raises:
        ValueError: `train` has other classes.
    """
    if train.classes != data.classes:
        raise ValueError(f"`train` has the classes {train.classes}, `data` {data.classes}; expected the same.")
    picture, label = np.nonzero(data.targets)
    labels, frequency = data.targets.sum(axis=1), 100 * train.targets.mean(axis=0)
    return pd.DataFrame(
        {"image": picture, "label": label, "num_labels": labels[picture], "frequency": frequency[label]}
    )


def recall_table(
    targets: pd.DataFrame, by: str, predicted: Mapping[str, np.ndarray], step: float | None = None
) -> pd.DataFrame:
    r"""How many targets each run finds, in groups of alike ones, with 95 % Wilson intervals.

    A target (an object, or a label of a picture) is found where its label is predicted for its picture. With
    `by="side"` and `step=10` the groups are those of MSKD: group x holds the objects of area above $(x - 10)^2$ and up
    to $x^2$.

    Source: Xu et al., MSKD, AAAI 2025, Figure 5.
    Differs from the paper, which has 22 groups: with sides up to 224 there are 23.

    Args:
        targets: as `objects` or `positives` returns it.
        by: the column to group by: "side", "frequency", "labels" or "label".
        predicted: title of a run -> (N, q) bool, as `mlkd.metrics.binarize` returns it; (N, q) of the same split.
        step: the width of a group, which has its upper edge as its name; None for one group per value.

    Returns:
        One row per run and group that has targets: `run`, `by`, `targets`, `correct`, `recall`, `low`, `high`.
    """
    values = targets[by].to_numpy()
    groups = values if step is None else step * np.ceil(np.round(values / step, 9))
    names, place = np.unique(groups, return_inverse=True)
    total = np.bincount(place, minlength=len(names))
    rows = []
    for title, found in predicted.items():
        hit = found[targets["image"].to_numpy(), targets["label"].to_numpy()].astype(bool)
        for name, correct, count in zip(names, np.bincount(place[hit], minlength=len(names)), total, strict=True):
            interval = binomtest(int(correct), int(count)).proportion_ci(method="wilson")
            rows.append((title, name, count, correct, correct / count, interval.low, interval.high))
    return pd.DataFrame(rows, columns=["run", by, "targets", "correct", "recall", "low", "high"])


def recall_curve(values: np.ndarray, found: np.ndarray, at: np.ndarray) -> np.ndarray:
    """A smooth curve of recall: a logistic regression on a cubic spline of the value, both from scikit-learn.

    The spline has knots at the quartiles of the values; the regression has scikit-learn's default penalty. Nothing is
    assumed of the direction: recall may fall again where objects fill the picture.

    Args:
        values: of each target, such as its side.
        found: whether each was found.
        at: where to read the curve; beyond the values it goes on as a constant.

    Shape: values and found (m,), at (n,); output (n,) in [0, 1]; nan without targets.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import SplineTransformer

    values, found = np.asarray(values, np.float64), np.asarray(found, bool)
    if not len(values):
        return np.full(len(at), np.nan)
    if found.all() or not found.any() or len(np.unique(values)) < 5:
        return np.full(len(at), found.mean())
    spline = SplineTransformer(5, knots="quantile", extrapolation="constant")
    curve = make_pipeline(spline, LogisticRegression(max_iter=1000)).fit(values[:, None], found)
    return curve.predict_proba(np.asarray(at, np.float64)[:, None])[:, 1]
