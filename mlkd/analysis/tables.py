"""Tables and numbers about finished runs."""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from mlkd.data import MultiLabelData
from mlkd.graphs import GRAPHS, Counts, stability
from mlkd.metrics import METRICS, PROTOCOLS, Scores, average_precision, evaluate
from mlkd.training.config import Config
from mlkd.training.runs import Predictions, Run, iter_runs


def group_runs(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Runs that differ in nothing but the seed, by a short title such as "l2d student"."""
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
    """The finished teachers and students that were scored on exactly these pictures, labels and classes.

    With `methods` the students are those of these methods only.
    """
    found = []
    same: dict[str, bool] = {}  # whether a run's description of its data means this data
    for run in iter_runs(root):
        config, role = run.config, run.config["training"]["role"]
        wanted = role == "teacher" or (role == "student" and (not methods or config["method"] in methods))
        if wanted and run.complete and data.split in run.mean_ap:
            described = json.dumps(config["data"], sort_keys=True)
            if described not in same:
                same[described] = run.predictions(data.split).same_samples(data)
            if same[described]:
                found.append(run)
    return found


def runs_with_config(runs: Iterable[Run], config: Config) -> list[Run]:
    """Those of the runs that were trained with this network and schedule, whatever their method and seed."""
    wanted = {**config.as_dict(), "seed": None}
    return [run for run in runs if {**run.config["training"], "seed": None} == wanted]


def score_table(
    groups: Mapping[str, Sequence[Run]],
    split: str = "test",
    protocols: Sequence[str] = PROTOCOLS,
    metrics: Sequence[str] = METRICS,
) -> pd.DataFrame:
    """Every group's scores on a split under every protocol, from the same prediction files.

    The protocol "tuned" chooses its thresholds on `val`.

    Returns:
        One row per group, protocol, metric: `mean` over seeds and `std` (of the seeds, nan for one), as
        fractions, and `n` seeds.
    """
    rows = []
    for title, runs in groups.items():
        files = [(run.predictions(split), run.predictions("val")) for run in runs]
        for protocol in protocols:
            scores = [_scores(found, chosen_on, protocol) for found, chosen_on in files]
            for metric in metrics:
                values = np.array([score[metric] for score in scores])
                spread = values.std(ddof=1) if len(values) > 1 else np.nan
                rows.append((title, protocol, metric, values.mean(), spread, len(values)))
    return pd.DataFrame(rows, columns=["run", "protocol", "metric", "mean", "std", "n"])


def _scores(found: Predictions, chosen_on: Predictions | None, protocol: str) -> Scores:
    return evaluate(
        found.targets,
        found.logits,
        protocol,
        classes=found.classes,
        ignore_mask=found.ignore_mask,
        validation=chosen_on and (chosen_on.targets, chosen_on.logits, chosen_on.ignore_mask),
        bootstrap=0,
    )


def protocol_table(found: Predictions, chosen_on: Predictions | None = None) -> pd.DataFrame:
    """One file of predictions, scored under every published protocol (`mlkd.metrics.PROTOCOLS`).

    Args:
        found: the predictions.
        chosen_on: of other pictures (`val`), for the thresholds of the protocol "tuned"; left out without them.

    Returns:
        Indexed by protocol, one column per metric of `mlkd.metrics.METRICS`, as fractions. A column's largest less its
        smallest value is what the protocol alone makes of the same predictions.
    """
    protocols = [name for name in PROTOCOLS if name != "tuned" or chosen_on is not None]
    scores = [_scores(found, chosen_on, protocol) for protocol in protocols]
    rows = [[score[metric] for metric in METRICS] for score in scores]
    return pd.DataFrame(rows, index=pd.Index(protocols, name="protocol"), columns=list(METRICS))


def summary_table(groups: Mapping[str, Sequence[Run]], split: str = "test") -> pd.DataFrame:
    """One line per group of runs, by title, ready to print: mean ± standard deviation over seeds, in %."""
    scores = score_table(groups, split, protocols=("threshold(0.5)",), metrics=("mAP", "CF1", "OF1"))
    rows = []
    for title, runs in groups.items():
        training = runs[0].config["training"]
        row = {"run": title, "backbone": training["backbone"], "epochs": training["epochs"], "seeds": len(runs)}
        for score in scores[scores["run"] == title].itertuples():
            row[f"{score.metric} %"] = show_score(score.mean, score.std)
        rows.append(row)
    return pd.DataFrame(rows)


def per_class_ap(run: Run, split: str = "test") -> np.ndarray:
    """A run's average precision for each class on a split, shape (q,), nan for a class without positives."""
    found = run.predictions(split)
    return average_precision(found.targets, found.logits, found.ignore_mask)


def show_score(mean: float, std: float) -> str:
    """A fraction and its spread in percent: "57.1 ± 0.4", or "57.1" where there is one seed."""
    return f"{100 * mean:.1f}" + ("" if np.isnan(std) else f" ± {100 * std:.1f}")


def partition_stability(counts: Counts, ks: Iterable[int], taus: Iterable[float], seeds: int = 10) -> pd.DataFrame:
    """How far partitions of different seeds agree, for every strategy with a graph, number of parts and root.

    Returns:
        One row per strategy, tau, k: `ari`, the mean adjusted Rand index over pairs of seeds, and `min`, the lowest.
    """
    rows = []
    for strategy, tau, k in itertools.product(GRAPHS, list(taus), list(ks)):
        found = stability(counts, k, strategy, tau, seeds)
        rows.append((strategy, tau, k, found.mean, found.min))
    return pd.DataFrame(rows, columns=["strategy", "tau", "k", "ari", "min"])
