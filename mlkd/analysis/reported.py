"""Scores of finished runs beside those that a paper reports."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mlkd.analysis.gains import gain, pair_by_seed
from mlkd.analysis.tables import score_table
from mlkd.metrics import METRICS
from mlkd.training.runs import Run

Rows = Mapping[str, Mapping[str, float]]

COLUMNS = ("row", "metric", "seeds", "mean", "std", "reported")
GAIN_COLUMNS = ("gain", "gain_low", "gain_high", "significant", "reported_gain")


def compare_with_reported(
    groups: Mapping[str, Sequence[Run]],
    reported: Rows,
    *,
    metrics: Sequence[str] = (),
    protocol: str = "threshold(0.5)",
    baselines: Mapping[str, str] | None = None,
    resamples: int = 200,
    split: str = "test",
) -> pd.DataFrame:
    """The scores of groups of runs and of a paper's rows, with the gain in mAP over the baseline.

    Args:
        groups: row -> runs that differ in nothing but seeds, such as "l2d".
        reported: row -> metric -> score in %. A row may be in one of the two only.
        metrics: of `mlkd.metrics.METRICS` or of `mlkd.training.runs.COSTS`, or "relative_time", the seconds of an epoch
            divided by the baseline's; those reported if empty, else mAP, CF1 and OF1.
        protocol: of both, as for `mlkd.evaluate`.
        baselines: row -> the row of its baseline, "" for none; by default "vanilla".
        resamples: of the bootstrap for the interval of a gain, as in `mlkd.analysis.gain`; 0 for no interval. It takes
            about a minute for 200 resamples, 40,000 images and 80 labels.
        split: the evaluated split.

    Returns:
        One row per row and metric, the paper's rows first: `row`, `metric`, `seeds` (number of runs), `mean` and `std`
        over them, `reported`; for mAP also `gain`, `gain_low` and `gain_high` (95 % interval), `significant` and
        `reported_gain`. Metrics and gains are in %, costs in their units; what does not exist is missing (nan). Runs
        of one seed that differ in another one, such as that of a random partition, have a gain without interval.
    """
    metrics = metrics or tuple(dict.fromkeys(itertools.chain(*reported.values()))) or ("mAP", "CF1", "OF1")
    entries: list[dict[str, Any]] = []
    for row in dict.fromkeys([*reported, *groups]):
        runs, baseline = groups.get(row, ()), (baselines or {}).get(row, "vanilla" if row != "vanilla" else "")
        baseline_runs = groups.get(baseline, ())
        means = _means(runs, baseline_runs, metrics, protocol, split) if runs else {}
        for metric in metrics:
            mean, std = means.get(metric, (np.nan, np.nan))
            score = reported.get(row, {}).get(metric, np.nan)
            entry = dict(zip(COLUMNS, (row, metric, len(runs), mean, std, score), strict=True))
            if metric == "mAP":
                entry["reported_gain"] = score - reported.get(baseline, {}).get("mAP", np.nan)
                entry |= _gain(runs, baseline_runs, split, resamples)
            entries.append(entry)
    return pd.DataFrame(entries, columns=[*COLUMNS, *GAIN_COLUMNS]).astype({"significant": "boolean"})


def _means(
    runs: Sequence[Run], baseline: Sequence[Run], metrics: Sequence[str], protocol: str, split: str
) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation over runs: of each metric in %, and of each cost."""
    scores = score_table({"": runs}, split, [protocol], [metric for metric in metrics if metric in METRICS])
    means = {score.metric: (100 * score.mean, 100 * score.std) for score in scores.itertuples()}
    costs = pd.DataFrame([run.costs for run in runs])
    if baseline:
        costs["relative_time"] = costs["epoch_seconds"] / np.mean([run.costs["epoch_seconds"] for run in baseline])
    return means | {name: (costs[name].mean(), costs[name].std()) for name in costs}


def _gain(runs: Sequence[Run], baseline: Sequence[Run], split: str, resamples: int) -> dict[str, Any]:
    """The gain in mAP over the baseline in %, over the seeds that both have; its interval if each is there once."""
    scores = {run.config["training"]["seed"]: run.mean_ap[split] for run in baseline}
    seeds = [run.config["training"]["seed"] for run in runs]
    if not set(seeds) & set(scores):
        return {}
    if resamples and len(set(seeds)) == len(seeds):
        result = gain(pair_by_seed(runs, baseline, split), resamples)
        values = (100 * result.difference, 100 * result.low, 100 * result.high, result.is_significant)
        return dict(zip(GAIN_COLUMNS, values, strict=False))
    differences = [run.mean_ap[split] - scores[seed] for run, seed in zip(runs, seeds, strict=True) if seed in scores]
    return {"gain": 100 * np.mean(differences)}
