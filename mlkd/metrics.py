"""How good a multi-label classifier is: mAP, and CP CR CF1 OP OR OF1 under a named protocol.

Papers turn scores into predicted labels in different ways and average differently, so one file of scores can
have a CF1 of 0.44 in one paper's terms and of 0.86 in another's. Here the way is always named: a *protocol*.

Letters: N pictures, q classes. `scores` are logits (before the sigmoid), shape (N, q); `targets` are 0 or 1,
shape (N, q); `ignored` is None or bool (N, q), True where an entry counts neither way.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy import ndarray

PROTOCOLS = ("oracle_k", "threshold(0.5)", "threshold(0.8)", "top_k(3)", "tuned")
METRICS = ("mAP", "CP", "CR", "CF1", "CF1_macro", "OP", "OR", "OF1")


class Scores(dict[str, Any]):
    """What `evaluate` returns: a dict (so `json.dumps` and pandas take it) that prints as a small table.

    Keys: each of `METRICS` (a fraction), `AP` (class name -> AP, without the classes left out), `classes_without_positives`
    (names of the classes without a positive), `interval` (metric -> (low, high), or None), `protocol`,
    `n` (pictures) and `q` (classes).
    """

    def __repr__(self) -> str:
        interval = self["interval"] or {}
        title = f"{self['protocol']}: {self['n']} pictures, {self['q']} classes"
        lines = [title + (", 95 % intervals over pictures" if interval else "")]
        for name in METRICS:
            spread = "  [{:.4f}, {:.4f}]".format(*interval[name]) if interval else ""
            lines.append(f"  {name:<9} {self[name]:.4f}{spread}")
        if self["classes_without_positives"]:
            lines.append(f"  left out, no positive: {', '.join(self['classes_without_positives'])}")
        return "\n".join(lines)


def average_precision(targets: ndarray, scores: ndarray, ignore_mask: ndarray | None = None) -> ndarray:
    r"""Average precision of each class; their mean is mAP.

    $$ AP_k = \sum_n (R_n - R_{n-1}) P_n $$

    where $P_n$ and $R_n$ are precision and recall when every picture scoring at least the n-th highest
    *distinct* score is predicted: pictures with equal scores come in together, whatever their order.

    Source: scikit-learn's `average_precision_score` (no interpolation), which L2D's mAP is (Yang et al., ICCV
    2023, Sec. 4, arXiv:2308.06453). Differs there: a class without positives is nan here, not 0.

    Args:
        targets: 0 or 1.
        scores: any finite real; only their order within a class matters.
        ignored: entries taken out of the ranking of their class.

    Shape: all (N, q); output (q,) float64. Range: (0, 1], or nan for a class without positives.

    Raises:
        ValueError: shapes differ, nothing to score, `targets` is not 0/1 or a score is not finite.

    Example:
        >>> targets = np.array([[1, 0], [0, 0], [1, 0]])
        >>> scores = np.array([[3.0, 1.0], [2.0, 1.0], [1.0, 1.0]])
        >>> average_precision(targets, scores).round(4)  # 1/2 * 1/1 + 1/2 * 2/3; no positive
        array([0.8333,    nan])
    """
    targets, scores, eligible = _checked(targets, scores, ignore_mask)
    result = np.full(targets.shape[1], np.nan)
    for k in range(len(result)):
        thresholds, level = _levels(targets[:, k], scores[:, k], eligible[:, k])
        positives = np.bincount(level[targets[:, k]], minlength=len(thresholds) + 1)
        result[k] = _area(positives, np.bincount(level, minlength=len(thresholds) + 1))
    return result


def binarize(
    targets: ndarray,
    scores: ndarray,
    protocol: str = "threshold(0.5)",
    *,
    ignore_mask: ndarray | None = None,
    validation: tuple[Any, ...] | None = None,
) -> ndarray:
    """The labels predicted under `protocol`, one bool per picture and class.

    ================  ===================================================================================
    `oracle_k`        each picture's k best scores, k = its true number of labels: it needs the answer. The
                      released code of L2D (arXiv:2308.06453) scores CF1 and OF1 so.
    `threshold(p)`    sigmoid(score) >= p, compared as score >= log(p / (1 - p)). MSKD 0.5; CPSD 0.5 and 0.8.
    `top_k(k)`        each picture's k best scores. ML-GCN (arXiv:1904.03582) and CPSD, with k = 3.
    `tuned`           score >= a threshold per class, from `tune_thresholds` on `validation`.
    ================  ===================================================================================

    Equal scores at the k-th place: the class that comes first is predicted. Where fewer than k entries of a
    picture count, all of those are predicted. An ignored entry is never predicted.

    Args:
        targets: 0 or 1; only `oracle_k` looks at them.
        scores: logits, any finite real.
        protocol: one of the four forms above; p strictly between 0 and 1, k from 1 to q.
        ignored: entries that count neither way.
        validation: (targets, scores) or (targets, scores, ignored) of *other* pictures; only for `tuned`.

    Shape: (N, q), validation (any number of pictures, q); output (N, q) bool.

    Raises:
        ValueError: as `average_precision`; `protocol` is none of these; `tuned` has no `validation`.

    Example:
        >>> targets, scores = np.array([[1, 1, 0]]), np.array([[2.0, -1.0, 0.0]])
        >>> binarize(targets, scores, "oracle_k")
        array([[ True, False,  True]])
        >>> binarize(targets, scores, "threshold(0.8)")  # log(0.8 / 0.2) = 1.39
        array([[ True, False, False]])
    """
    name, value = _parse(protocol)
    targets, scores, eligible = _checked(targets, scores, ignore_mask)
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
    """Per class, the score from which on predicting the class gives the best F1 on these pictures.

    Tried are the scores of the class's own positives, which hold a best threshold; of equally good ones the
    highest is taken. A class without positives gets 0, the logit of 0.5. Give it validation pictures: on the
    pictures that are then reported, it would be a second oracle.

    Shape: all (N, q); output (q,) float64, in units of `scores`.

    Raises:
        ValueError: as `average_precision`.

    Example:
        >>> targets, scores = np.array([[1], [0], [1]]), np.array([[3.0], [2.0], [1.0]])
        >>> tune_thresholds(targets, scores)  # F1 is 2/3 from 3 on, 4/5 from 1 on
        array([1.])
    """
    targets, scores, eligible = _checked(targets, scores, ignore_mask)
    result = np.zeros(targets.shape[1])
    for k in np.flatnonzero(targets.any(axis=0)):
        thresholds, level = _levels(targets[:, k], scores[:, k], eligible[:, k])
        true = np.bincount(level[targets[:, k]])[:0:-1].cumsum()  # predicted from each threshold on,
        predicted = np.bincount(level)[:0:-1].cumsum()  # highest threshold first
        result[k] = thresholds[::-1][np.argmax(2 * true / (predicted + true[-1]))]
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
    r"""Every score of a classifier on one split, with intervals, under one protocol.

    With $M_k$ true positives, $P_k$ predictions and $G_k$ positives of class k:

    $$ CP = \frac1q \sum_k \frac{M_k}{P_k}, \quad CR = \frac1q \sum_k \frac{M_k}{G_k}, \quad
       OP = \frac{\sum_k M_k}{\sum_k P_k}, \quad OR = \frac{\sum_k M_k}{\sum_k G_k} $$

    $$ CF1 = \frac{2\,CP\,CR}{CP + CR}, \quad OF1 = \frac{2\,OP\,OR}{OP + OR}, \quad
       CF1_{macro} = \frac1q \sum_k \frac{2 M_k}{P_k + G_k}, \quad mAP = \frac1q \sum_k AP_k $$

    "CF1" in print is two numbers: MSKD, CPSD and ML-GCN report `CF1`, L2D reports `CF1_macro`.

    A class without positives is left out of mAP, CP, CR, CF1 and CF1_macro (q counts the others) and named in
    `classes_without_positives`; its predictions still count in OP. A class that is never predicted has precision 0/0 = 0 and
    stays in the mean. mAP does not depend on the protocol.

    Intervals: 95 % percentile bootstrap over pictures, N drawn with replacement each time. A class without
    positives in a resample is left out there; a resample without any positive is drawn again. Predictions
    (and tuned thresholds) stay as they are. The same `seed` and N draw the same pictures. With few positives
    in a class, mAP's interval reaches further up than down: a repeated positive ranks beside its copy.

    Source: the metrics of ML-GCN (Chen et al., CVPR 2019, arXiv:1904.03582, Sec. 4.1) as the field uses them;
    L2D (Yang et al., ICCV 2023, arXiv:2308.06453, Sec. 4); scikit-learn's average precision.
    Differs from released code: L2D's counts AP = 0 for a class without positives, others divide by zero; some
    add 1 to OP's denominator for each class never predicted.

    Args:
        targets: 0 or 1, with at least one positive.
        scores: logits, any finite real.
        protocol: how labels are predicted, see `predict`.
        classes: q distinct names in the order of the columns; "0", "1", ... when None.
        ignored: entries that count neither way.
        validation: (targets, scores) or (targets, scores, ignored) of *other* pictures; only for "tuned".
        bootstrap: number of resamples; 0 gives `interval` None.
        seed: of the resamples.

    Shape: (N, q). Range: every metric in [0, 1].

    Raises:
        ValueError: as `predict`; no positive at all; `classes` does not fit; `bootstrap` is negative.

    Example:
        >>> targets = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0]])
        >>> scores = np.array([[2.0, -1.0, -3.0], [1.0, -2.0, -3.0], [3.0, 2.0, -3.0]])
        >>> evaluate(targets, scores, classes=["dog", "cat", "bus"], bootstrap=0)
        threshold(0.5): 3 pictures, 3 classes
          mAP       0.9167
          CP        0.8333
          CR        0.7500
          CF1       0.7895
          CF1_macro 0.7333
          OP        0.7500
          OR        0.7500
          OF1       0.7500
          left out, no positive: bus
    """
    if bootstrap < 0:
        raise ValueError(f"`bootstrap` is {bootstrap}; expected 0 (no intervals) or a number of resamples.")
    predicted = binarize(targets, scores, protocol, ignore_mask=ignore_mask, validation=validation)
    targets, scores, eligible = _checked(targets, scores, ignore_mask)
    n, q = scores.shape
    names = _class_names(classes, q)
    labelled = np.flatnonzero(targets.any(axis=1))
    if not labelled.size:
        raise ValueError("`targets` has no positive at all, so no metric is defined. Is it the right split?")

    sizes, cells = [], np.empty((q, n), dtype=np.intp)
    for k in range(q):
        thresholds, level = _levels(targets[:, k], scores[:, k], eligible[:, k])
        sizes.append(len(thresholds) + 1)
        cells[k] = 4 * level + 2 * targets[:, k] + predicted[:, k]
    rng = np.random.default_rng(seed)
    counts = [_counts(cells, sizes, None)]
    counts += [_counts(cells, sizes, _resample(rng, n, labelled)) for _ in range(bootstrap)]

    values = _averages(*np.stack(counts, axis=1))  # each metric: the data's value, then the resamples'
    ap, positives = counts[0][0], counts[0][3]
    interval = {m: tuple(np.percentile(values[m][1:], [2.5, 97.5]).tolist()) for m in METRICS if bootstrap}
    name, value = _parse(protocol)
    return Scores(
        {name: float(values[name][0]) for name in METRICS},
        AP={names[k]: float(ap[k]) for k in range(q) if positives[k]},
        classes_without_positives=tuple(names[k] for k in range(q) if not positives[k]),
        interval=interval or None,
        protocol=name if value == 0 else f"{name}({value})",
        n=n,
        q=q,
    )


def _levels(targets: ndarray, scores: ndarray, eligible: ndarray) -> tuple[ndarray, ndarray]:
    """One class's distinct scores of positives, ascending, and how many of them each picture reaches.

    AP and F1 need only the counts per level. Level 0, below every positive, is also where an ignored entry
    goes: it is never counted.
    """
    thresholds = np.unique(scores[targets])
    return thresholds, np.where(eligible, np.searchsorted(thresholds, scores, side="right"), 0)


def _area(positives: ndarray, pictures: ndarray) -> float:
    """Average precision from the number of positives and of pictures on each level."""
    true = positives[:0:-1]  # highest level first, without level 0
    total = true.sum()
    if total == 0:
        return math.nan
    return float(true @ (true.cumsum() / np.maximum(pictures[:0:-1].cumsum(), 1)) / total)


def _counts(cells: ndarray, sizes: Sequence[int], weights: ndarray | None) -> ndarray:
    """AP, true positives, predictions and positives of each class, (4, q), with pictures weighted.

    `cells[k, i]` is 4 * level + 2 * target + predicted, so one count of cells holds all four.
    """
    result = np.empty((4, len(sizes)))
    for k, size in enumerate(sizes):
        table = np.bincount(cells[k], weights, minlength=4 * size).reshape(size, 4)
        _, predicted, positive, both = table.sum(axis=0)
        positives = table[:, 2] + table[:, 3]
        result[:, k] = _area(positives, table.sum(axis=1)), both, predicted + both, positive + both
    return result


def _resample(rng: np.random.Generator, n: int, labelled: ndarray) -> ndarray:
    """How often each of n pictures is drawn, n times with replacement, at least one `labelled` among them."""
    while True:
        drawn = np.bincount(rng.integers(n, size=n), minlength=n).astype(np.float64)
        if drawn[labelled].any():
            return drawn


def _averages(ap: ndarray, true: ndarray, predicted: ndarray, positives: ndarray) -> dict[str, ndarray]:
    """Every metric of `METRICS`, (r,), from the counts per class, each (r, q)."""
    present = positives > 0

    def over_classes(values: ndarray) -> ndarray:
        return np.where(present, values, 0).sum(axis=1) / present.sum(axis=1)

    cp, cr = over_classes(_ratio(true, predicted)), over_classes(_ratio(true, positives))
    cf1_macro = over_classes(_ratio(2 * true, predicted + positives))
    all_true, all_predicted, all_positives = true.sum(axis=1), predicted.sum(axis=1), positives.sum(axis=1)
    op, or_ = _ratio(all_true, all_predicted), _ratio(all_true, all_positives)
    cf1, of1 = _ratio(2 * cp * cr, cp + cr), _ratio(2 * op * or_, op + or_)
    return dict(zip(METRICS, (over_classes(ap), cp, cr, cf1, cf1_macro, op, or_, of1), strict=True))


def _ratio(numerator: ndarray, denominator: ndarray) -> ndarray:
    """numerator / denominator, with 0 / 0 = 0."""
    return np.divide(numerator, denominator, out=np.zeros(denominator.shape), where=denominator > 0)


def _parse(protocol: str) -> tuple[str, float]:
    """The protocol's name and its p or k (0 where it has none)."""
    number = r"\(\s*(-?\d*\.?\d+(?:e-?\d+)?)\s*\)"
    form = re.fullmatch(rf"(oracle_k|tuned)|(threshold|top_k){number}", str(protocol).strip())
    if form is None:
        closest_match = get_close_matches(str(protocol), PROTOCOLS, n=1, cutoff=0)[0]
        forms = "oracle_k, threshold(p), top_k(k) and tuned"
        raise ValueError(f"`protocol` is {protocol!r}; did you mean '{closest_match}'? The forms are {forms}.")
    plain, name, argument = form.groups()
    if plain:
        return plain, 0
    value = float(argument)
    if name == "threshold" and not 0 < value < 1:
        raise ValueError(f"`protocol` is {protocol!r} but p must be between 0 and 1; try 'threshold(0.5)'.")
    if name == "top_k" and not (value >= 1 and value.is_integer()):
        raise ValueError(f"`protocol` is {protocol!r} but k is a whole number from 1 on; try 'top_k(3)'.")
    return name, value if name == "threshold" else int(value)


def _thresholds_from(validation: tuple[Any, ...] | None, q: int) -> ndarray:
    """The tuned thresholds of q classes; what is wrong with `validation` is said so."""
    if validation is None:
        raise ValueError("`protocol` is 'tuned' but `validation` is missing; pass its (targets, scores).")
    try:
        thresholds = tune_thresholds(*validation)
    except ValueError as error:
        raise ValueError(f"In `validation`: {error}") from error
    if len(thresholds) != q:
        raise ValueError(f"`validation` has {len(thresholds)} classes but `scores` has {q}; expected equal.")
    return thresholds


def _class_names(classes: Sequence[str] | None, q: int) -> tuple[str, ...]:
    """One distinct name per class."""
    names = tuple(map(str, range(q) if classes is None else classes))
    if not len(names) == len(set(names)) == q:
        raise ValueError(f"`classes` is {names}; expected {q} distinct names, one per column of `scores`.")
    return names


def _checked(targets: ndarray, scores: ndarray, ignore_mask: ndarray | None) -> tuple[ndarray, ndarray, ndarray]:
    """`targets` as bool without the ignored ones, `scores` as float32 or float64, and which entries count."""
    targets, scores = np.asarray(targets), np.asarray(scores)
    if scores.ndim != 2 or scores.size == 0:
        raise ValueError(f"`scores` has shape {scores.shape}; expected (N, q), N pictures and q classes, not 0.")
    if targets.shape != scores.shape:
        raise ValueError(
            f"`targets` has shape {targets.shape} but `scores` has {scores.shape}; both are (N, q). "
            "Do they come from the same split?"
        )
    if scores.dtype not in (np.float32, np.float64):
        scores = scores.astype(np.float64)
    _demand("scores", scores, np.isfinite(scores), "a finite logit. Did the training diverge?")
    zero_or_one = (targets == 0) | (targets == 1)
    _demand("targets", targets, zero_or_one, "0 or 1; what counts neither way goes into `ignored`.")
    if ignore_mask is None:
        return targets == 1, scores, np.ones(scores.shape, dtype=bool)
    ignore_mask = np.asarray(ignore_mask)
    if ignore_mask.shape != scores.shape or ignore_mask.dtype != bool:
        raise ValueError(
            f"`ignored` is {ignore_mask.dtype} {ignore_mask.shape} but `scores` has shape {scores.shape}; "
            "expected bool of that shape, True where an entry does not count."
        )
    return (targets == 1) & ~ignore_mask, scores, ~ignore_mask


def _demand(name: str, values: ndarray, fine: ndarray, expected: str) -> None:
    """An error that names the first entry of `values` that is not `fine`."""
    if not fine.all():
        i, k = np.argwhere(~fine)[0]
        raise ValueError(f"`{name}` is {values[i, k]} at row {i}, column {k}; expected {expected}")
