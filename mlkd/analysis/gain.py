"""Whether one group of runs is better than another: label by label, and at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control, t

from mlkd.analysis.intervals import bootstrap_weights
from mlkd.metrics import average_precision
from mlkd.training.runs import Run


class Paired(NamedTuple):
    """Two groups of runs on one split, paired by seed.

    Attributes:
        targets: (N, q), 0 or 1.
        ignored: (N, q) bool, or None.
        ours, theirs: logits (s, N, q), of the same s seeds in the same order.
        classes: q names.
        seeds: s seeds.
    """

    targets: np.ndarray
    ignore_mask: np.ndarray | None
    ours: np.ndarray
    theirs: np.ndarray
    classes: tuple[str, ...]
    seeds: tuple[int, ...]


def pair_by_seed(ours: Sequence[Run], theirs: Sequence[Run], split: str = "test") -> Paired:
    """The predictions of two groups of runs, paired by seed; a seed that one group lacks is left out.

    Raises:
        ValueError: no seed is common, or the runs were not scored on the same pictures.
    """
    by_seed = [{run.config["training"]["seed"]: run for run in runs} for runs in (ours, theirs)]
    seeds = tuple(sorted(set(by_seed[0]) & set(by_seed[1])))
    if not seeds:
        raise ValueError(
            f"The runs have the seeds {sorted(by_seed[0])} and {sorted(by_seed[1])}; expected at least one in common."
        )
    found = [[runs[seed].predictions(split) for seed in seeds] for runs in by_seed]
    first = found[0][0]
    for other in [*found[0], *found[1]]:
        if not other.same_samples(first):
            raise ValueError(f"The runs were scored on different pictures or labels of {split!r}; expected the same.")
    ours_logits, theirs_logits = (np.stack([one.logits for one in group]) for group in found)
    return Paired(first.targets, first.ignore_mask, ours_logits, theirs_logits, first.classes, seeds)


def class_gains(pair: Paired, resamples: int = 2000, seed: int = 0, level: float = 0.05) -> pd.DataFrame:
    """Each label's difference of AP, ours less theirs, with intervals and a test that allows for many labels.

    Paired bootstrap: pictures are drawn with replacement, the same for all runs, and so are seeds, the same for both
    groups. The p-value is twice the smaller share of resamples on either side of 0 (counted as
    (1 + count) / (1 + resamples), so none is below 2 / (1 + resamples)). `significant` follows Benjamini and Hochberg,
    who hold the expected share of false ones among those marked at `level`. With one seed the interval is that of
    other pictures alone.

    Args:
        pair: as `paired` returns it.
        resamples, seed: of the bootstrap.
        level: of the test.

    Returns:
        One row per label, the largest gain first: `label`, `difference` (mean over seeds, a fraction), `low`, `high`
        (95 %), `p`, `adjusted` (p after Benjamini and Hochberg), `significant` and `positives`. A label without
        positives comes last, with nan.
    """
    observed = _differences(pair, np.ones((1, len(pair.targets)), np.float32)).mean(axis=0)[0]
    resampled = _resampled(pair, resamples, seed)
    low, high, p = (np.full(len(observed), np.nan) for _ in range(3))
    known = ~np.isnan(observed)
    for k in np.flatnonzero(known):
        values = resampled[~np.isnan(resampled[:, k]), k]
        low[k], high[k] = np.percentile(values, [2.5, 97.5])
        p[k] = min(1, 2 * (1 + min((values <= 0).sum(), (values >= 0).sum())) / (1 + len(values)))
    adjusted = np.full(len(observed), np.nan)
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
    """What `gain` returns, in fractions of mAP: the difference, its 95 % interval, the smallest effect, the seeds."""

    difference: float
    low: float
    high: float
    smallest: float
    seeds: int

    @property
    def is_significant(self) -> bool:
        """Whether the interval leaves 0 out and the difference is one that this many seeds can show."""
        return bool((self.low > 0 or self.high < 0) and abs(self.difference) >= self.smallest)


def gain(pair: Paired, resamples: int = 2000, seed: int = 0) -> Gain:
    """Is this gain real? The difference of mAP, its interval, and the smallest effect this many seeds could show.

    The interval is that of `class_gains`' bootstrap. With few seeds it is too narrow (s seeds drawn from s vary by
    (s - 1) / s of what they should), so look at `smallest` too: see `minimum_detectable_effect`. With one seed nothing is known
    of other seeds, and `smallest` is nan.
    """
    by_seed = _mean(_differences(pair, np.ones((1, len(pair.targets)), np.float32)))[:, 0]
    values = _mean(_resampled(pair, resamples, seed))
    low, high = np.percentile(values[~np.isnan(values)], [2.5, 97.5])
    return Gain(float(by_seed.mean()), float(low), float(high), minimum_detectable_effect(by_seed), len(pair.seeds))


def minimum_detectable_effect(differences: np.ndarray, power: float = 0.8, level: float = 0.05) -> float:
    r"""The smallest true difference that a paired t-test over this many seeds finds with probability `power`.

    $$ \delta = \big(t_{1 - \alpha/2,\, s - 1} + t_{\text{power},\, s - 1}\big) \frac{\sigma}{\sqrt s} $$

    with the standard deviation $\sigma$ of the s differences, the level $\alpha$ of the two-sided test and quantiles of
    Student's t. It is the usual approximation; for two or three seeds it is a rough one.

    Shape: differences (s,), one per seed. Range: >= 0; nan for one seed.
    """
    s = len(differences)
    if s < 2:
        return float("nan")
    quantiles = t.ppf(1 - level / 2, s - 1) + t.ppf(power, s - 1)
    return float(quantiles * np.std(differences, ddof=1) / np.sqrt(s))


def _resampled(pair: Paired, resamples: int, seed: int, at_once: int = 200) -> np.ndarray:
    """The differences (resamples, q) of other pictures and seeds."""
    rng = np.random.default_rng(seed)
    found, s = [], len(pair.seeds)
    for start in range(0, resamples, at_once):
        count = min(at_once, resamples - start)
        pictures, seeds = bootstrap_weights(rng, len(pair.targets), count), bootstrap_weights(rng, s, count)
        found.append(np.einsum("rs,srq->rq", seeds, _differences(pair, pictures)) / s)
    return np.concatenate(found)


def _differences(pair: Paired, drawn: np.ndarray) -> np.ndarray:
    """AP of ours less theirs, (s, resamples, q), when picture i counts `drawn[r, i]` times; nan without positives."""
    return np.stack(
        [
            resampled_ap(pair.targets, ours, drawn, pair.ignore_mask)
            - resampled_ap(pair.targets, theirs, drawn, pair.ignore_mask)
            for ours, theirs in zip(pair.ours, pair.theirs, strict=True)
        ]
    )


def resampled_ap(
    targets: np.ndarray, scores: np.ndarray, drawn: np.ndarray, ignore_mask: np.ndarray | None = None
) -> np.ndarray:
    """`mlkd.metrics.average_precision` of several resamples at once.

    Shape: targets and scores (N, q), drawn (r, N), how often each picture counts; output (r, q), nan where a class has
    no positive.
    """
    if drawn.shape[0] == 1 and (drawn == 1).all():
        return average_precision(targets, scores, ignore_mask)[None]
    result = np.full((len(drawn), targets.shape[1]), np.nan)
    for k in range(targets.shape[1]):
        rows = np.arange(len(targets)) if ignore_mask is None else np.flatnonzero(~ignore_mask[:, k])
        rows = rows[np.argsort(-scores[rows, k], kind="stable")]
        positive = np.flatnonzero(targets[rows, k])
        # the last place with the same score: equal scores come in together
        last = np.searchsorted(-scores[rows, k], -scores[rows[positive], k], side="right") - 1
        ranked = drawn[:, rows]
        own = ranked[:, positive]
        predicted = ranked.cumsum(axis=1, dtype=np.float64)[:, last]
        true = own.cumsum(axis=1, dtype=np.float64)[:, np.searchsorted(positive, last, side="right") - 1]
        precision = np.divide(true, predicted, out=np.zeros_like(true), where=predicted > 0)
        total = own.sum(axis=1)
        np.divide((own * precision).sum(axis=1), total, out=result[:, k], where=total > 0)
    return result


def _mean(values: np.ndarray) -> np.ndarray:
    """The mean over the last axis of what is known; nan where nothing is."""
    known = ~np.isnan(values)
    count = known.sum(axis=-1)
    sums = np.where(known, values, 0).sum(axis=-1)
    return np.divide(sums, count, out=np.full(count.shape, np.nan), where=count > 0)
