"""Tables of the scores of finished runs, and means with bootstrap intervals for the tables of this package."""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from mlkd.bootstrap import bootstrap_weights, percentile_interval
from mlkd.data import MultiLabelData
from mlkd.graphs import GRAPHS, Counts, cut_fraction, stability
from mlkd.metrics import METRICS, PROTOCOLS, Scores, average_precision, evaluate
from mlkd.training.config import Config
from mlkd.training.run_files import Predictions
from mlkd.training.runs import Run, is_readable, iter_runs


def group_runs(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Groups of runs that differ in nothing but the seed, by a short title such as "l2d student"."""
    groups: dict[str, list[Run]] = {}
    titles: dict[str, str] = {}
    for run in runs:
        config = run.config
        training = {name: value for name, value in config["training"].items() if name != "seed"}
        key = json.dumps({**config, "training": training}, sort_keys=True)
        if key not in titles:
            title = f"{config['method']} {training['role']}" if training["role"] == "student" else "teacher"
            taken = sum(other == title or other.startswith(f"{title} #") for other in titles.values())
            titles[key] = title if not taken else f"{title} #{taken + 1}"
        groups.setdefault(titles[key], []).append(run)
    return groups


def runs_on(root: str | Path, data: MultiLabelData, methods: Collection[str] = ()) -> list[Run]:
    """The finished teachers and students that were evaluated on exactly these images, labels and classes.

    A run with a damaged file is left out, and a warning says what to do.

    Args:
        root: folder of runs.
        data: a split.
        methods: names of methods; only their students are returned. Empty for all methods.
    """
    runs = []
    for run in iter_runs(root):
        config, role = run.config, run.config["training"]["role"]
        wanted = role == "teacher" or (role == "student" and (not methods or config["method"] in methods))
        if not (wanted and run.complete and data.split in run.mean_ap and is_readable(run, predictions=True)):
            continue
        if run.predictions(data.split).same_samples(data):
            runs.append(run)
    return runs


def runs_with_config(runs: Iterable[Run], config: Config) -> list[Run]:
    """The runs that were trained with this network and schedule, whatever their method and seed."""
    wanted = {**config.as_dict(), "seed": None}
    return [run for run in runs if {**run.config["training"], "seed": None} == wanted]


def score_table(
    groups: Mapping[str, Sequence[Run]],
    split: str = "test",
    protocols: Sequence[str] = PROTOCOLS,
    metrics: Sequence[str] = METRICS,
) -> pd.DataFrame:
    """The scores of each group of runs on a split under each protocol, from the stored predictions.

    The thresholds of the protocol "tuned" are tuned on `val`; its scores are nan for runs that were trained without
    that split.

    Returns:
        One row per group, protocol and metric: `run`, `protocol`, `metric`, `mean` and `std` over seeds (fractions; the
        standard deviation is nan for one seed), and `n` seeds.
    """
    rows = []
    for title, runs in groups.items():
        tuned = "tuned" in protocols
        validation = [run.predictions("val") if tuned and "val" in run.mean_ap else None for run in runs]
        predictions = [(run.predictions(split), val) for run, val in zip(runs, validation, strict=True)]
        for protocol in protocols:
            known = protocol != "tuned" or None not in validation
            scores = [_evaluate(test, val, protocol) for test, val in predictions] if known else []
            for metric in metrics:
                values = np.array([score[metric] for score in scores] if known else [np.nan] * len(runs))
                std = values.std(ddof=1) if len(values) > 1 else np.nan
                rows.append((title, protocol, metric, values.mean(), std, len(values)))
    return pd.DataFrame(rows, columns=["run", "protocol", "metric", "mean", "std", "n"])


def _evaluate(predictions: Predictions, validation: Predictions | None, protocol: str) -> Scores:
    return evaluate(
        predictions.targets,
        predictions.logits,
        protocol,
        classes=predictions.classes,
        ignore_mask=predictions.ignore_mask,
        validation=validation and (validation.targets, validation.logits, validation.ignore_mask),
        bootstrap=0,
    )


def protocol_table(predictions: Predictions, validation: Predictions | None = None) -> pd.DataFrame:
    """The scores of one set of predictions under each protocol in `mlkd.metrics.PROTOCOLS`.

    Args:
        predictions: of one split.
        validation: predictions of the `val` split, to tune the thresholds of the protocol "tuned"; without them that
            protocol is left out.

    Returns:
        Indexed by protocol, one column per metric of `mlkd.metrics.METRICS`, as fractions. The range of a column is due
        to the protocol alone.
    """
    protocols = [name for name in PROTOCOLS if name != "tuned" or validation is not None]
    scores = [_evaluate(predictions, validation, protocol) for protocol in protocols]
    rows = [[score[metric] for metric in METRICS] for score in scores]
    return pd.DataFrame(rows, index=pd.Index(protocols, name="protocol"), columns=list(METRICS))


def summary_table(groups: Mapping[str, Sequence[Run]], split: str = "test") -> pd.DataFrame:
    """One row per group of runs, formatted for display: mean ± standard deviation over seeds, in %."""
    scores = score_table(groups, split, protocols=("threshold(0.5)",), metrics=("mAP", "CF1", "OF1"))
    rows = []
    for title, runs in groups.items():
        training = runs[0].config["training"]
        row = {"run": title, "backbone": training["backbone"], "epochs": training["epochs"], "seeds": len(runs)}
        for score in scores[scores["run"] == title].itertuples():
            row[f"{score.metric} %"] = format_score(score.mean, score.std)
        rows.append(row)
    return pd.DataFrame(rows)


def per_class_ap(run: Run, split: str = "test") -> np.ndarray:
    """The average precision of a run for each class on a split, shape (q,), nan for a class without positives."""
    predictions = run.predictions(split)
    return average_precision(predictions.targets, predictions.logits, predictions.ignore_mask)


def class_ap_table(groups: Mapping[str, Sequence[Run]], split: str = "test") -> pd.DataFrame:
    """The average precision of each class in %, the mean over the seeds of each group, and mAP in the last row.

    Source: the layout of Table 3 of L2D (ICCV 2023) and of MDKD (ACM MM 2024), transposed.

    Returns:
        Indexed by class in descending order of the positives in the split, then "mAP"; one column per group. A class
        without positives is nan, and is left out of mAP.
    """
    predictions = next(iter(groups.values()))[0].predictions(split)
    order = np.argsort(-predictions.targets.sum(axis=0), kind="stable")
    columns = {
        title: 100 * np.mean([per_class_ap(run, split) for run in runs], axis=0) for title, runs in groups.items()
    }
    table = pd.DataFrame(columns, index=pd.Index(predictions.classes, name="class")).iloc[order]
    return pd.concat([table, table.mean().to_frame("mAP").T.rename_axis("class")])


def top_predictions(probs: np.ndarray, targets: np.ndarray, classes: Sequence[str], k: int = 4) -> list[str]:
    """The k labels of an image with the highest probabilities as text, such as "dog 93 % ✓"; ✓: the label is present.

    Source: the layout of Figure 1 of MSKD (AAAI 2025).

    Shape: probs and targets (q,).
    """
    order = np.argsort(-probs, kind="stable")[:k]
    return [f"{classes[label]} {100 * probs[label]:.0f} %{' ✓' if targets[label] else ''}" for label in order]


def format_score(mean: float, std: float) -> str:
    """Mean and standard deviation, given as fractions, in percent: "57.1 ± 0.4", or "57.1" where `std` is nan."""
    return f"{100 * mean:.1f}" + ("" if np.isnan(std) else f" ± {100 * std:.1f}")


def partition_stability(counts: Counts, ks: Iterable[int], taus: Iterable[float], seeds: int = 10) -> pd.DataFrame:
    """Agreement of label partitions over seeds, for each graph, each tau and each number of label subsets k.

    Returns:
        One row per strategy, tau and k: `strategy`, `tau`, `k`, `ari`, the mean adjusted Rand index over pairs of
        seeds, and `min`, the lowest.
    """
    rows = []
    for strategy, tau, k in itertools.product(GRAPHS, list(taus), list(ks)):
        agreement = stability(counts, k, strategy, tau, seeds)
        rows.append((strategy, tau, k, agreement.mean, agreement.min))
    return pd.DataFrame(rows, columns=["strategy", "tau", "k", "ari", "min"])


def partition_table(
    counts: Counts, partitions: Mapping[str, np.ndarray], resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    r"""The sizes of label subsets, and how often labels of one subset co-occur, compared with random subsets.

    The fraction of co-occurrences within the subsets depends on their sizes $s_j$: over all permutations of the labels
    its mean is $\sum_j s_j (s_j - 1) / (q (q - 1))$. One large subset contains most pairs, whatever its labels.

    Args:
        counts: (e, n) from `mlkd.graphs.cooccurrence`.
        partitions: name -> label subsets, from `mlkd.graphs.partition`.
        resamples, seed: random partitions with the same sizes, which permute the labels.

    Returns:
        Indexed by name: `sizes`, in descending order; `within`, the fraction of co-occurrences within the subsets;
        `random`, its mean over random partitions with the same sizes; `random_low` and `random_high`, which enclose
        95 % of them.
    """
    e, rng, rows = counts[0], np.random.default_rng(seed), {}
    for name, clusters in partitions.items():
        random = [1 - cut_fraction(e, rng.permutation(clusters)) for _ in range(resamples)]
        sizes = ", ".join(map(str, sorted(np.bincount(clusters), reverse=True)))
        rows[name] = sizes, 1 - cut_fraction(e, clusters), np.mean(random), *np.percentile(random, [2.5, 97.5])
    columns = ["sizes", "within", "random", "random_low", "random_high"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("partition")


def mean_by_group(
    table: pd.DataFrame, by: Sequence[str], values: Sequence[str], resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Means per group with 95 % bootstrap intervals over images; the rows of an image are resampled together.

    Args:
        table: a column `image`, the columns `by` and the columns `values`. A row whose value is nan is left out of the
            mean of that value.
        by: columns that define the groups; empty for one group of all rows.
        values: columns to average.
        resamples, seed: of the bootstrap.

    Returns:
        One row per group, sorted by `by`: `by`, `n` rows, `images`, and for each value its mean under its own name,
        `<value>_low` and `<value>_high` (nan for fewer than two images).
    """
    rows = []
    groups = table.groupby(list(by), sort=True, observed=True, dropna=False) if by else [((), table)]
    for key, group in groups:
        image, names = pd.factorize(group["image"])
        weights = bootstrap_weights(np.random.default_rng(seed), len(names), resamples) if len(names) > 1 else None
        row = dict(zip(by, key, strict=True)) | {"n": len(group), "images": len(names)}
        for value in values:
            entries = group[value].to_numpy(np.float64)
            known = ~np.isnan(entries)
            sums = np.bincount(image[known], entries[known], len(names))  # of each image
            counts = np.bincount(image[known], minlength=len(names)).astype(np.float64)
            row |= {value: _ratio(sums.sum(), counts.sum()), f"{value}_low": np.nan, f"{value}_high": np.nan}
            if weights is not None and known.any():
                means = _ratio(weights @ sums, weights @ counts)
                row[f"{value}_low"], row[f"{value}_high"] = percentile_interval(means)
        rows.append(row)
    columns = [*by, "n", "images", *(f"{value}{end}" for value in values for end in ("", "_low", "_high"))]
    return pd.DataFrame(rows, columns=columns)


def _ratio(sums, counts):
    """sums / counts, nan for 0 / 0."""
    return np.divide(sums, counts, out=np.full(np.shape(counts), np.nan), where=np.asarray(counts) > 0)[()]
