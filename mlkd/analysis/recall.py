"""Recall by the size of an object, by the frequency of a label and by the number of labels in an image."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from mlkd.data import MultiLabelData

SIDE = 224
"""Side of the square image in which objects are measured, in pixels."""


def object_table(data: MultiLabelData) -> pd.DataFrame:
    """Every object of a split, with its size in the image resized to 224 x 224 pixels.

    Returns:
        One row per object: `image` (its index), `label` (class index) and `side`, the square root of the area of its
        box, in (0, 224].

    Raises:
        DataError: the data set has no boxes.
    """
    objects = [np.zeros((0, 3))]
    for index in range(len(data)):
        boxes = data.normalized_boxes(index)
        side = SIDE * np.sqrt((boxes[:, 3] - boxes[:, 1]) * (boxes[:, 4] - boxes[:, 2]))
        objects.append(np.column_stack([np.full(len(boxes), index), boxes[:, 0], side]))
    table = pd.DataFrame(np.concatenate(objects), columns=["image", "label", "side"])
    return table.astype({"image": np.int64, "label": np.int64})


def label_table(data: MultiLabelData, train: MultiLabelData) -> pd.DataFrame:
    """Every label that is present in an image of a split; for data with or without boxes.

    Returns:
        One row per image and label: `image` (its index), `label` (class index), `num_labels` (of the image) and
        `frequency` (the fraction of the training images with the label, in %).

    Raises:
        ValueError: `train` has other classes.
    """
    if train.classes != data.classes:
        raise ValueError(f"`train` has the classes {train.classes}, `data` {data.classes}; expected the same.")
    image, label = np.nonzero(data.targets)
    num_labels, frequency = data.targets.sum(axis=1), 100 * train.targets.mean(axis=0)
    return pd.DataFrame(
        {"image": image, "label": label, "num_labels": num_labels[image], "frequency": frequency[label]}
    )


def recall_table(
    targets: pd.DataFrame, by: str, predicted: Mapping[str, np.ndarray], step: float | None = None
) -> pd.DataFrame:
    r"""Recall of each run in groups of targets, with 95 % Wilson intervals.

    A target (an object, or a label of an image) is recalled where its label is predicted for its image. With
    `by="side"` and `step=10` the groups are those of MSKD: group x has the objects of area above $(x - 10)^2$ and up
    to $x^2$.

    Source: Wang et al., MSKD, AAAI 2025, Figure 5.
    Differs from the paper, which has 22 groups: with sides up to 224 there are 23.

    Args:
        targets: from `object_table` or `label_table`.
        by: the column that defines the groups: "side", "frequency", "num_labels" or "label".
        predicted: title of a run -> (N, q) bool of the same split, from `mlkd.metrics.binarize`.
        step: the width of a group, which is named by its upper edge; None for one group per value.

    Returns:
        One row per run and group with targets: `run`, `by`, `targets`, `correct`, `recall`, `low`, `high`.
    """
    values = targets[by].to_numpy()
    edges = values if step is None else step * np.ceil(np.round(values / step, 9))
    names, group = np.unique(edges, return_inverse=True)
    total = np.bincount(group, minlength=len(names))
    rows = []
    for title, labels in predicted.items():
        recalled = labels[targets["image"].to_numpy(), targets["label"].to_numpy()].astype(bool)
        correct = np.bincount(group[recalled], minlength=len(names))
        for name, hits, count in zip(names, correct, total, strict=True):
            interval = binomtest(int(hits), int(count)).proportion_ci(method="wilson")
            rows.append((title, name, count, hits, hits / count, interval.low, interval.high))
    return pd.DataFrame(rows, columns=["run", by, "targets", "correct", "recall", "low", "high"])


def recall_curve(values: np.ndarray, recalled: np.ndarray, at: np.ndarray) -> np.ndarray:
    """A smooth curve of recall: logistic regression on a cubic spline of the value (scikit-learn).

    The spline has knots at the quartiles of the values; the regression has scikit-learn's default penalty. The curve
    need not be monotonic: recall may decrease where objects fill the image.

    Args:
        values: of each target, such as its side.
        recalled: whether each target is recalled.
        at: where to evaluate the curve; it is constant outside the range of the values.

    Shape: values and recalled (m,), at (n,); output (n,) in [0, 1]; nan without targets.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import SplineTransformer

    values, recalled = np.asarray(values, np.float64), np.asarray(recalled, bool)
    if not len(values):
        return np.full(len(at), np.nan)
    if recalled.all() or not recalled.any() or len(np.unique(values)) < 5:
        return np.full(len(at), recalled.mean())
    spline = SplineTransformer(5, knots="quantile", extrapolation="constant")
    curve = make_pipeline(spline, LogisticRegression(max_iter=1000)).fit(values[:, None], recalled)
    return curve.predict_proba(np.asarray(at, np.float64)[:, None])[:, 1]
