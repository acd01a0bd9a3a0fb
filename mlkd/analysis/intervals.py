"""Bootstrap over pictures: how far a mean would move had other pictures been taken."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd


def bootstrap_weights(rng: np.random.Generator, n: int, resamples: int) -> np.ndarray:
    """How often each of n things is drawn when n are drawn with replacement: (resamples, n) float32, rows sum to n."""
    drawn = rng.integers(n, size=(resamples, n)) + n * np.arange(resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=n * resamples).reshape(resamples, n).astype(np.float32)


def mean_over_pictures(
    table: pd.DataFrame, by: Sequence[str], values: Sequence[str], resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Means per group with 95 % percentile intervals; the rows of one picture are drawn together.

    Args:
        table: a column `picture`, the columns `by` and `values`; nan in a value leaves the row out of its mean.
        by: what makes a group; nothing for one group of all rows.
        values: columns to take the mean of.

    Returns:
        One row per group, in the order of their keys: `by`, `n` rows, `pictures`, and for each value its mean under
        its own name, `<value>_low` and `<value>_high` (nan with fewer than two pictures).
    """
    rows = []
    groups = table.groupby(list(by), sort=True, observed=True, dropna=False) if by else [((), table)]
    for key, group in groups:
        codes, names = pd.factorize(group["picture"])
        drawn = bootstrap_weights(np.random.default_rng(seed), len(names), resamples) if len(names) > 1 else None
        row = dict(zip(by, key, strict=True)) | {"n": len(group), "pictures": len(names)}
        for value in values:
            found = group[value].to_numpy(np.float64)
            there = ~np.isnan(found)
            sums = np.bincount(codes[there], found[there], len(names))
            counts = np.bincount(codes[there], minlength=len(names)).astype(np.float64)
            row |= {value: _ratio(sums.sum(), counts.sum()), f"{value}_low": np.nan, f"{value}_high": np.nan}
            if drawn is not None and there.any():
                means = _ratio(drawn @ sums, drawn @ counts)
                row[f"{value}_low"], row[f"{value}_high"] = np.nanpercentile(means, [2.5, 97.5])
        rows.append(row)
    columns = [*by, "n", "pictures", *(f"{value}{end}" for value in values for end in ("", "_low", "_high"))]
    return pd.DataFrame(rows, columns=columns)


def _ratio(sums, counts):
    """sums / counts, nan for 0 / 0."""
    return np.divide(sums, counts, out=np.full(np.shape(counts), np.nan), where=np.asarray(counts) > 0)[()]
