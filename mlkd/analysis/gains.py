"""Significance of the difference between two groups of runs: for each label and for mAP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control, t

from mlkd.bootstrap import bootstrap_weights, percentile_interval
from mlkd.metrics import average_precision
from mlkd.training.runs import Run


class PairedPredictions(NamedTuple):
    """Predictions of two groups of runs on one split, paired by seed.

    Attributes:
        targets: (N, q), 0 or 1.
        ignore_mask: (N, q) bool, or None.
        logits: (s, N, q), one for each of the s seeds.
        baseline_logits: (s, N, q), of the same seeds in the same order.
        classes: q names.
        seeds: s seeds.
    """

    targets: np.ndarray
    ignore_mask: np.ndarray | None
    logits: np.ndarray
    baseline_logits: np.ndarray
    classes: tuple[str, ...]
    seeds: tuple[int, ...]


def pair_by_seed(runs: Sequence[Run], baseline: Sequence[Run], split: str = "test") -> PairedPredictions:
    """The predictions of two groups of runs, paired by seed; seeds that only one group has are left out.

    Raises:
        ValueError: no seed is in both groups, or the runs were not evaluated on the same images and labels.
    """
    by_seed, baseline_by_seed = ({run.config["training"]["seed"]: run for run in group} for group in (runs, baseline))
    seeds = tuple(sorted(set(by_seed) & set(baseline_by_seed)))
    if not seeds:
        raise ValueError(
            f"The runs have the seeds {sorted(by_seed)} and the baseline runs {sorted(baseline_by_seed)}; expected at "
            "least one seed in both."
        )
    predictions = [by_seed[seed].predictions(split) for seed in seeds]
    baseline_predictions = [baseline_by_seed[seed].predictions(split) for seed in seeds]
    first = predictions[0]
    if not all(other.same_samples(first) for other in predictions + baseline_predictions):
        raise ValueError(f"The runs were evaluated on different images or labels of {split!r}; expected the same.")
    logits, baseline_logits = (
        np.stack([each.logits for each in group]) for group in (predictions, baseline_predictions)
    )
    return PairedPredictions(first.targets, first.ignore_mask, logits, baseline_logits, first.classes, seeds)


def class_gains(pair: PairedPredictions, resamples: int = 2000, seed: int = 0, level: float = 0.05) -> pd.DataFrame:
    """Difference of AP from the baseline for each label, with intervals and a test corrected for the number of labels.

    Paired bootstrap over images and seeds: each resample draws images, the same for all runs, and seeds, the same for
    both groups. The p-value is twice the smaller fraction of resamples on either side of 0, counted as
    (1 + count) / (1 + resamples), so it is at least 2 / (1 + resamples). `significant` uses the Benjamini-Hochberg
    procedure, which keeps the expected fraction of false discoveries at `level`. With one seed the interval covers the
    choice of images only.

    Source: Benjamini and Hochberg, Controlling the false discovery rate, JRSS B, 1995.

    Args:
        pair: from `pair_by_seed`.
        resamples, seed: of the bootstrap.
        level: false discovery rate.

    Returns:
        One row per label, the largest gain first: `label`, `difference` (mean over seeds, a fraction), `low`, `high`
        (95 % interval), `p`, `adjusted` (p after Benjamini-Hochberg), `significant` and `positives`. Labels without
        positives come last, with nan.
    """
    observed = _differences(pair, np.ones((1, len(pair.targets)), np.float32)).mean(axis=0)[0]
    resampled = _resampled_differences(pair, resamples, seed)
    low, high, p, adjusted = (np.full(len(observed), np.nan) for _ in range(4))
    known = ~np.isnan(observed)
    for k in np.flatnonzero(known):
        values = resampled[~np.isnan(resampled[:, k]), k]
        low[k], high[k] = percentile_interval(values)
        p[k] = min(1, 2 * (1 + min((values <= 0).sum(), (values >= 0).sum())) / (1 + len(values)))
    if known.any():
        adjusted[known] = false_discovery_control(p[known], method="bh")
    table = pd.DataFrame(
        {
            "label": pair.classes,
            "difference": observed,
            "low": low,
            "high": high,
            "p": p,
            "adjusted": adjusted,
            "significant": adjusted <= level,
            "positives": pair.targets.sum(axis=0),
        }
    )
    return table.sort_values("difference", ascending=False, kind="stable", ignore_index=True)


class Gain(NamedTuple):
    """Difference of mAP between two groups of runs, in fractions.

    Attributes:
        difference: mean over seeds.
        low, high: 95 % bootstrap interval over images and seeds.
        minimum_detectable_effect: see the function of that name; nan for one seed.
        seeds: number of seeds.
    """

    difference: float
    low: float
    high: float
    minimum_detectable_effect: float
    seeds: int

    @property
    def is_significant(self) -> bool:
        """Whether the interval excludes 0 and the difference is at least the minimum detectable effect."""
        return bool((self.low > 0 or self.high < 0) and abs(self.difference) >= self.minimum_detectable_effect)


def gain(pair: PairedPredictions, resamples: int = 2000, seed: int = 0) -> Gain:
    """Difference of mAP from the baseline, with its bootstrap interval and the minimum detectable effect.

    The interval comes from the bootstrap of `class_gains`. With few seeds it is too narrow, because s seeds drawn from
    s have (s - 1) / s of the variance; the minimum detectable effect accounts for the number of seeds. With one seed
    there is no estimate of the variance over seeds, and the minimum detectable effect is nan.
    """
    by_seed = _mean_over_classes(_differences(pair, np.ones((1, len(pair.targets)), np.float32)))[:, 0]
    low, high = percentile_interval(_mean_over_classes(_resampled_differences(pair, resamples, seed)))
    return Gain(float(by_seed.mean()), low, high, minimum_detectable_effect(by_seed), len(pair.seeds))


def minimum_detectable_effect(differences: np.ndarray, power: float = 0.8, level: float = 0.05) -> float:
    r"""The smallest true difference that a paired t-test over this many seeds detects with probability `power`.

    $$ \delta = \big(t_{1 - \alpha/2,\, s - 1} + t_{\text{power},\, s - 1}\big) \frac{\sigma}{\sqrt s} $$

    with the standard deviation $\sigma$ of the s differences, the level $\alpha$ of the two-sided test and quantiles of
    Student's t. This is the usual approximation; it is rough for two or three seeds.

    Shape: differences (s,), one per seed. Range: >= 0; nan for one seed.
    """
    s = len(differences)
    if s < 2:
        return float("nan")
    quantiles = t.ppf(1 - level / 2, s - 1) + t.ppf(power, s - 1)
    return float(quantiles * np.std(differences, ddof=1) / np.sqrt(s))


def weighted_average_precision(
    targets: np.ndarray, scores: np.ndarray, weights: np.ndarray, ignore_mask: np.ndarray | None = None
) -> np.ndarray:
    """`mlkd.metrics.average_precision` of many bootstrap resamples at once.

    Shape: targets and scores (N, q), weights (r, N), how often each image occurs in each resample; output (r, q), nan
    where a class has no positive.
    """
    if len(weights) == 1 and (weights == 1).all():
        return average_precision(targets, scores, ignore_mask)[None]
    result = np.full((len(weights), targets.shape[1]), np.nan)
    for k in range(targets.shape[1]):
        rows = np.arange(len(targets)) if ignore_mask is None else np.flatnonzero(~ignore_mask[:, k])
        rows = rows[np.argsort(-scores[rows, k], kind="stable")]  # the highest score first
        positives = np.flatnonzero(targets[rows, k])
        # the last rank with the same score: images with equal scores enter together
        last = np.searchsorted(-scores[rows, k], -scores[rows[positives], k], side="right") - 1
        ranked = weights[:, rows]
        positive_weights = ranked[:, positives]
        predicted = ranked.cumsum(axis=1, dtype=np.float64)[:, last]
        true_positives = positive_weights.cumsum(axis=1, dtype=np.float64)
        true_positives = true_positives[:, np.searchsorted(positives, last, side="right") - 1]
        precision = np.divide(true_positives, predicted, out=np.zeros_like(predicted), where=predicted > 0)  # P_n
        total = positive_weights.sum(axis=1)
        np.divide((positive_weights * precision).sum(axis=1), total, out=result[:, k], where=total > 0)
    return result


def _differences(pair: PairedPredictions, weights: np.ndarray) -> np.ndarray:
    """AP less the baseline's, (s, r, q), for r weightings (r, N) of the images; nan for a class without positives."""
    return np.stack(
        [
            weighted_average_precision(pair.targets, logits, weights, pair.ignore_mask)
            - weighted_average_precision(pair.targets, baseline_logits, weights, pair.ignore_mask)
            for logits, baseline_logits in zip(pair.logits, pair.baseline_logits, strict=True)
        ]
    )


def _resampled_differences(pair: PairedPredictions, resamples: int, seed: int, chunk: int = 200) -> np.ndarray:
    """The mean over seeds of `_differences`, (resamples, q), with images and seeds resampled, `chunk` at a time."""
    rng, s = np.random.default_rng(seed), len(pair.seeds)
    differences = []
    for start in range(0, resamples, chunk):
        count = min(chunk, resamples - start)
        image_weights, seed_weights = bootstrap_weights(rng, len(pair.targets), count), bootstrap_weights(rng, s, count)
        differences.append(np.einsum("rs,srq->rq", seed_weights, _differences(pair, image_weights)) / s)
    return np.concatenate(differences)


def _mean_over_classes(values: np.ndarray) -> np.ndarray:
    """The mean over the last axis without nan; nan where all are nan."""
    known = ~np.isnan(values)
    count = known.sum(axis=-1)
    sums = np.where(known, values, 0).sum(axis=-1)
    return np.divide(sums, count, out=np.full(count.shape, np.nan), where=count > 0)
