"""Metrics of multi-label classifiers: mAP, and CP, CR, CF1, OP, OR and OF1 under a named protocol.

Papers turn scores into predicted labels in different ways and average over classes in different ways, so the same
scores can have a CF1 of 0.44 in one paper and of 0.86 in another. Here the way is always named: the *protocol*.

Notation: N images, q classes. `scores` are logits (before the sigmoid), shape (N, q). `targets` are 0 or 1, shape
(N, q). `ignore_mask` is None or bool (N, q), True where an entry is excluded.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy import ndarray

from mlkd.bootstrap import bootstrap_weights, percentile_interval
from mlkd.errors import closest_match

PROTOCOLS = ("oracle_k", "threshold(0.5)", "threshold(0.8)", "top_k(3)", "tuned")
METRICS = ("mAP", "CP", "CR", "CF1", "CF1_macro", "OP", "OR", "OF1")


class Scores(dict[str, Any]):
    """The result of `evaluate`: a dict, which `json.dumps` and pandas accept, printed as a small table.

    Keys: each of `METRICS` (a fraction), `AP` (class name -> average precision, without classes that have no positive),
    `classes_without_positives` (their names), `interval` (metric -> (low, high), or None), `protocol`, `n` (images)
    and `q` (classes).
    """

    def __repr__(self) -> str:
        interval = self["interval"] or {}
        title = f"{self['protocol']}: {self['n']} images, {self['q']} classes"
        lines = [title + (", 95 % bootstrap intervals over images" if interval else "")]
        for name in METRICS:
            low_high = "  [{:.4f}, {:.4f}]".format(*interval[name]) if interval else ""
            lines.append(f"  {name:<9} {self[name]:.4f}{low_high}")
        if self["classes_without_positives"]:
            lines.append(f"  classes without positives (excluded): {', '.join(self['classes_without_positives'])}")
        return "\n".join(lines)


def average_precision(targets: ndarray, scores: ndarray, ignore_mask: ndarray | None = None) -> ndarray:
    r"""Average precision of each class; the mean over classes is mAP.

    $$ AP_k = \sum_n (R_n - R_{n-1}) P_n $$

    where $P_n$ and $R_n$ are precision and recall when every image whose score is at least the n-th highest
    *distinct* score is predicted. Images with equal scores enter together, so their order does not matter.

    Source: scikit-learn's `average_precision_score` (no interpolation), which L2D uses for mAP (Yang et al., ICCV
    2023, Sec. 4, arXiv:2308.06453). Differs from it: a class without positives gives nan, not 0.

    Args:
        targets: 0 or 1.
        scores: any finite number; only the order within a class matters.
        ignore_mask: entries that are excluded from the ranking of their class.

    Shape: all (N, q); output (q,) float64. Range: (0, 1], or nan for a class without positives.

    Raises:
        ValueError: the shapes differ or are empty, `targets` is not 0/1, or a score is not finite.

    Example:
        >>> targets = np.array([[1, 0], [0, 0], [1, 0]])
        >>> scores = np.array([[3.0, 1.0], [2.0, 1.0], [1.0, 1.0]])
        >>> average_precision(targets, scores).round(4)  # 1/2 * 1/1 + 1/2 * 2/3; no positive
        array([0.8333,    nan])
    """
    targets, scores, eligible = _validate(targets, scores, ignore_mask)
    classes = range(targets.shape[1])
    levels = [_levels(targets[:, k], scores[:, k], eligible[:, k])[1] for k in classes]
    return np.array([_area_under_curve(levels[k], np.flatnonzero(targets[:, k])) for k in classes])


def binarize(
    targets: ndarray,
    scores: ndarray,
    protocol: str = "threshold(0.5)",
    *,
    ignore_mask: ndarray | None = None,
    validation: tuple[Any, ...] | None = None,
) -> ndarray:
    """The labels predicted under `protocol`, one bool per image and class.

    ================  ===================================================================================
    `oracle_k`        each image's k best scores, where k is its true number of labels. It needs the ground truth.
                      The official code of L2D (arXiv:2308.06453) computes CF1 and OF1 this way.
    `threshold(p)`    sigmoid(score) >= p, compared as score >= log(p / (1 - p)). MSKD 0.5; CPSD 0.5 and 0.8.
    `top_k(k)`        each image's k best scores. ML-GCN (arXiv:1904.03582) and CPSD, with k = 3.
    `tuned`           score >= a threshold per class, from `tune_thresholds` on `validation`.
    ================  ===================================================================================

    Of equal scores at the k-th position, the class with the lower index is predicted. Where an image has fewer than k
    entries that are not ignored, all of those are predicted. An ignored entry is never predicted.

    Args:
        targets: 0 or 1; used by `oracle_k` only.
        scores: logits, any finite number.
        protocol: one of the four forms above; p strictly between 0 and 1, k from 1 to q.
        ignore_mask: entries that are excluded.
        validation: (targets, scores) or (targets, scores, ignore_mask) of *other* images; used by `tuned` only.

    Shape: (N, q), validation (any number of images, q); output (N, q) bool.

    Raises:
        ValueError: as `average_precision`; an unknown `protocol`; `tuned` without `validation`.

    Example:
        >>> targets, scores = np.array([[1, 1, 0]]), np.array([[2.0, -1.0, 0.0]])
        >>> binarize(targets, scores, "oracle_k")
        array([[ True, False,  True]])
        >>> binarize(targets, scores, "threshold(0.8)")  # log(0.8 / 0.2) = 1.39
        array([[ True, False, False]])
    """
    name, value = _parse_protocol(protocol)
    targets, scores, eligible = _validate(targets, scores, ignore_mask)
    q = scores.shape[1]
    if name == "threshold":
        return (scores >= np.float64(math.log(value / (1 - value)))) & eligible
    if name == "tuned":
        return (scores >= _thresholds_from(validation, q)) & eligible
    if value > q:
        raise ValueError(f"`protocol` is {protocol!r} but `scores` has {q} classes; k is at most {q}.")
    k = targets.sum(axis=1) if name == "oracle_k" else np.full(len(scores), int(value))
    best_first = np.argsort(np.where(eligible, -scores, np.inf), axis=1, kind="stable")
    predicted = np.zeros(scores.shape, dtype=bool)
    np.put_along_axis(predicted, best_first, np.arange(q) < k[:, None], axis=1)
    return predicted & eligible


def tune_thresholds(targets: ndarray, scores: ndarray, ignore_mask: ndarray | None = None) -> ndarray:
    """For each class, the threshold with the best F1 on these images.

    The candidates are the scores of the positives of the class, one of which is optimal. Of equally good ones the
    highest is returned. A class without positives gets 0, the logit of 0.5. Tune on validation images: thresholds tuned
    on the evaluated images use their ground truth.

    Shape: all (N, q); output (q,) float64, in units of `scores`.

    Raises:
        ValueError: as `average_precision`.

    Example:
        >>> targets, scores = np.array([[1], [0], [1]]), np.array([[3.0], [2.0], [1.0]])
        >>> tune_thresholds(targets, scores)  # F1 is 2/3 for threshold 3 and 4/5 for threshold 1
        array([1.])
    """
    targets, scores, eligible = _validate(targets, scores, ignore_mask)
    result = np.zeros(targets.shape[1])
    for k in np.flatnonzero(targets.any(axis=0)):
        thresholds, level = _levels(targets[:, k], scores[:, k], eligible[:, k])
        true_positives, predicted = _counts(level[targets[:, k]]).cumsum(), _counts(level).cumsum()
        f1 = 2 * true_positives / (predicted + true_positives[-1])
        result[k] = thresholds[::-1][np.argmax(f1)]
    return result


def evaluate(
    targets: ndarray,
    scores: ndarray,
    protocol: str = "threshold(0.5)",
    *,
    classes: Sequence[str] | None = None,
    ignore_mask: ndarray | None = None,
    validation: tuple[Any, ...] | None = None,
    bootstrap: int = 200,
    seed: int = 0,
) -> Scores:
    r"""All metrics of a classifier on one split, with bootstrap intervals, under one protocol.

    With $M_k$ true positives, $P_k$ predictions and $G_k$ positives of class k:

    $$ CP = \frac1q \sum_k \frac{M_k}{P_k}, \quad CR = \frac1q \sum_k \frac{M_k}{G_k}, \quad
       OP = \frac{\sum_k M_k}{\sum_k P_k}, \quad OR = \frac{\sum_k M_k}{\sum_k G_k} $$

    $$ CF1 = \frac{2\,CP\,CR}{CP + CR}, \quad OF1 = \frac{2\,OP\,OR}{OP + OR}, \quad
       CF1_{macro} = \frac1q \sum_k \frac{2 M_k}{P_k + G_k}, \quad mAP = \frac1q \sum_k AP_k $$

    Papers use "CF1" for two numbers: MSKD, CPSD and ML-GCN report `CF1`, L2D reports `CF1_macro`. The columns "P@1" and
    "R@1" of MSKD's tables are CP and CR: in several rows of its Table 1, CF1 is their harmonic mean.

    A class without positives is excluded from mAP, CP, CR, CF1 and CF1_macro (q counts the others) and listed in
    `classes_without_positives`; its predictions still count in OP. A class that is never predicted has precision
    0/0 = 0 and stays in the mean. mAP does not depend on the protocol.

    Intervals: 95 % percentile bootstrap over images. A class without positives in a resample is excluded there; a
    resample without any positive is drawn again. Predictions and tuned thresholds are not recomputed. The same `seed`
    and N give the same resamples. With few positives in a class, mAP's interval extends further up than down, because a
    positive that is drawn twice is ranked beside its copy.

    Source: the metrics of ML-GCN (Chen et al., CVPR 2019, arXiv:1904.03582, Sec. 4.1) as the field uses them;
    L2D (Yang et al., ICCV 2023, arXiv:2308.06453, Sec. 4); scikit-learn's average precision.
    Differs from official code: L2D's counts AP = 0 for a class without positives, others divide by zero; some
    add 1 to OP's denominator for each class that is never predicted.

    Args:
        targets: 0 or 1, with at least one positive.
        scores: logits, any finite number.
        protocol: how labels are predicted, see `binarize`.
        classes: q distinct names in the order of the columns; "0", "1", ... when None.
        ignore_mask: entries that are excluded.
        validation: (targets, scores) or (targets, scores, ignore_mask) of *other* images; used by "tuned" only.
        bootstrap: number of resamples; with 0, `interval` is None.
        seed: of the resamples.

    Shape: (N, q). Range: every metric in [0, 1].

    Raises:
        ValueError: as `binarize`; no positive at all; the wrong number of `classes`; a negative `bootstrap`.

    Example:
        >>> targets = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0]])
        >>> scores = np.array([[2.0, -1.0, -3.0], [1.0, -2.0, -3.0], [3.0, 2.0, -3.0]])
        >>> evaluate(targets, scores, classes=["dog", "cat", "bus"], bootstrap=0)
        threshold(0.5): 3 images, 3 classes
          mAP       0.9167
          CP        0.8333
          CR        0.7500
          CF1       0.7895
          CF1_macro 0.7333
          OP        0.7500
          OR        0.7500
          OF1       0.7500
          classes without positives (excluded): bus
    """
    if bootstrap < 0:
        raise ValueError(f"`bootstrap` is {bootstrap}; expected a number of resamples, or 0 for no intervals.")
    predicted = binarize(targets, scores, protocol, ignore_mask=ignore_mask, validation=validation)
    targets, scores, eligible = _validate(targets, scores, ignore_mask)
    n, q = scores.shape
    names = _class_names(classes, q)
    labelled = np.flatnonzero(targets.any(axis=1))
    if not labelled.size:
        raise ValueError("`targets` has no positive at all, so no metric is defined. Check that the split is right.")

    weights = np.ones((1 + bootstrap, n))  # row 0 is the data itself
    weights[1:] = bootstrap_weights(np.random.default_rng(seed), n, bootstrap, required=labelled)
    levels = [_levels(targets[:, k], scores[:, k], eligible[:, k])[1] for k in range(q)]
    rows = [np.flatnonzero(targets[:, k]) for k in range(q)]
    ap = np.array([[_area_under_curve(levels[k], rows[k], row) for k in range(q)] for row in [None, *weights[1:]]])
    true_positives, predictions, positives = (weights @ table for table in (targets & predicted, predicted, targets))

    values = _average(ap, true_positives, predictions, positives)
    absent = positives[0] == 0
    name, value = _parse_protocol(protocol)
    return Scores(
        {name: float(values[name][0]) for name in METRICS},
        AP={names[k]: float(ap[0, k]) for k in np.flatnonzero(~absent)},
        classes_without_positives=tuple(names[k] for k in np.flatnonzero(absent)),
        interval={name: percentile_interval(values[name][1:]) for name in METRICS} if bootstrap else None,
        protocol=name if value == 0 else f"{name}({value})",
        n=n,
        q=q,
    )


def _levels(positive: ndarray, scores: ndarray, eligible: ndarray) -> tuple[ndarray, ndarray]:
    """The distinct scores of the positives of one class, ascending, and how many of them each image reaches, (N,).

    AP and F1 depend on the scores only through these levels. Level 0 is below every positive; ignored entries have
    level 0, which is never counted.
    """
    thresholds = np.unique(scores[positive])
    return thresholds, np.where(eligible, np.searchsorted(thresholds, scores, side="right"), 0)


def _counts(level: ndarray, weights: ndarray | None = None) -> ndarray:
    """The (weighted) number of images at each level, the highest level first, without level 0."""
    return np.bincount(level, weights)[:0:-1]


def _area_under_curve(level: ndarray, rows: ndarray, weights: ndarray | None = None) -> float:
    """Average precision of one class from the level of each image, the rows of the positives and sample weights."""
    positives = _counts(level[rows], None if weights is None else weights[rows])
    total = positives.sum()
    if total == 0:
        return math.nan
    precision = positives.cumsum() / np.maximum(_counts(level, weights).cumsum(), 1)  # P_n
    return float(positives @ precision / total)  # R_n - R_{n-1} = positives / total


def _average(ap: ndarray, true_positives: ndarray, predictions: ndarray, positives: ndarray) -> dict[str, ndarray]:
    """Every metric of `METRICS`, (r,), from the values of each class, (r, q): the equations of `evaluate`."""
    present = positives > 0

    def mean(values: ndarray) -> ndarray:
        return np.where(present, values, 0).sum(axis=1) / present.sum(axis=1)

    m, p, g = (count.sum(axis=1) for count in (true_positives, predictions, positives))
    cp, cr = mean(_ratio(true_positives, predictions)), mean(_ratio(true_positives, positives))
    op, or_ = _ratio(m, p), _ratio(m, g)
    return {
        "mAP": mean(ap),
        "CP": cp,
        "CR": cr,
        "CF1": _ratio(2 * cp * cr, cp + cr),
        "CF1_macro": mean(_ratio(2 * true_positives, predictions + positives)),
        "OP": op,
        "OR": or_,
        "OF1": _ratio(2 * op * or_, op + or_),
    }


def _ratio(numerator: ndarray, denominator: ndarray) -> ndarray:
    """numerator / denominator, with 0 / 0 = 0."""
    return np.divide(numerator, denominator, out=np.zeros(denominator.shape), where=denominator > 0)


def _parse_protocol(protocol: str) -> tuple[str, float]:
    """The name of the protocol and its p or k (0 where it has none)."""
    number = r"\(\s*(-?\d*\.?\d+(?:e-?\d+)?)\s*\)"
    match = re.fullmatch(rf"(oracle_k|tuned)|(threshold|top_k){number}", str(protocol).strip())
    if match is None:
        raise ValueError(
            f"`protocol` is {protocol!r}, expected oracle_k, threshold(p), top_k(k) or tuned. "
            f"Did you mean {closest_match(str(protocol), PROTOCOLS)!r}?"
        )
    plain, name, argument = match.groups()
    if plain:
        return plain, 0
    value = float(argument)
    if name == "threshold" and not 0 < value < 1:
        raise ValueError(f"`protocol` is {protocol!r} but p must be between 0 and 1; try 'threshold(0.5)'.")
    if name == "top_k" and not (value >= 1 and value.is_integer()):
        raise ValueError(f"`protocol` is {protocol!r} but k must be a positive integer; try 'top_k(3)'.")
    return name, value if name == "threshold" else int(value)


def _thresholds_from(validation: tuple[Any, ...] | None, q: int) -> ndarray:
    """The tuned thresholds of q classes; errors name `validation`."""
    if validation is None:
        raise ValueError("`protocol` is 'tuned' but `validation` is missing; pass its (targets, scores).")
    try:
        thresholds = tune_thresholds(*validation)
    except ValueError as error:
        raise ValueError(f"In `validation`: {error}") from error
    if len(thresholds) != q:
        raise ValueError(f"`validation` has {len(thresholds)} classes but `scores` has {q}; expected the same number.")
    return thresholds


def _class_names(classes: Sequence[str] | None, q: int) -> tuple[str, ...]:
    """One distinct name per class."""
    names = tuple(map(str, range(q) if classes is None else classes))
    if not len(names) == len(set(names)) == q:
        raise ValueError(f"`classes` is {names}; expected {q} distinct names, one per column of `scores`.")
    return names


def _validate(targets: ndarray, scores: ndarray, ignore_mask: ndarray | None) -> tuple[ndarray, ndarray, ndarray]:
    """Targets as bool without the ignored entries, scores as float32 or float64, and which entries are not ignored."""
    targets, scores = np.asarray(targets), np.asarray(scores)
    if scores.ndim != 2 or scores.size == 0:
        raise ValueError(f"`scores` has shape {scores.shape}; expected (N, q) with at least one image and one class.")
    if targets.shape != scores.shape:
        raise ValueError(
            f"`targets` has shape {targets.shape} but `scores` has {scores.shape}; both are (N, q). "
            "Do they come from the same split?"
        )
    if scores.dtype not in (np.float32, np.float64):
        scores = scores.astype(np.float64)
    _check_entries("scores", scores, np.isfinite(scores), "a finite logit. Did the training diverge?")
    zero_or_one = (targets == 0) | (targets == 1)
    _check_entries("targets", targets, zero_or_one, "0 or 1; mark entries to exclude in `ignore_mask`.")
    if ignore_mask is None:
        return targets == 1, scores, np.ones(scores.shape, dtype=bool)
    ignore_mask = np.asarray(ignore_mask)
    if ignore_mask.shape != scores.shape or ignore_mask.dtype != bool:
        raise ValueError(
            f"`ignore_mask` is {ignore_mask.dtype} {ignore_mask.shape} but `scores` has shape {scores.shape}; "
            "expected bool of that shape, True where an entry is excluded."
        )
    return (targets == 1) & ~ignore_mask, scores, ~ignore_mask


def _check_entries(name: str, values: ndarray, valid: ndarray, expected: str) -> None:
    """Raises ValueError with the first entry of `values` that is not valid."""
    if not valid.all():
        i, k = np.argwhere(~valid)[0]
        raise ValueError(f"`{name}` is {values[i, k]} at row {i}, column {k}; expected {expected}")
