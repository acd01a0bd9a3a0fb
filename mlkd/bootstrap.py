"""The bootstrap: the uncertainty of a statistic, estimated by resampling with replacement."""

from __future__ import annotations

import numpy as np
from numpy import ndarray


def bootstrap_weights(rng: np.random.Generator, n: int, resamples: int, required: ndarray | None = None) -> ndarray:
    """How often each of n samples occurs in each resample of n samples, drawn with replacement.

    A statistic of a resample is the statistic of the data with these numbers as sample weights.

    Args:
        rng: the random generator to draw from.
        n: number of samples.
        resamples: number of resamples.
        required: indices of samples; a resample without any of them is drawn again. None accepts every resample.

    Shape: output (resamples, n) float32; each row sums to n.

    Source: Efron, Bootstrap methods: another look at the jackknife, Annals of Statistics, 1979.

    Example:
        >>> bootstrap_weights(np.random.default_rng(0), n=4, resamples=2)
        array([[0., 1., 2., 1.],
               [3., 1., 0., 0.]], dtype=float32)
    """
    weights = np.empty((resamples, n), np.float32)
    for row in weights:
        while True:
            row[:] = np.bincount(rng.integers(n, size=n), minlength=n)
            if required is None or row[required].any():
                break
    return weights


def percentile_interval(values: ndarray) -> tuple[float, float]:
    """The 95 % percentile interval of a statistic; resamples in which it is nan do not count.

    Args:
        values: the statistic of each resample.

    Shape: values (resamples,).

    Example:
        >>> percentile_interval(np.arange(1.0, 42.0))
        (2.0, 40.0)
    """
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)
