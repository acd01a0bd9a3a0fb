"""The figures of `mlkd.analysis` from small synthetic tables, for the tests that all figures must pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mlkd import plots
from mlkd.analysis import CorrelationDifference, Gain
from mlkd.data import MultiLabelData

RUNS = ("vanilla student", "l2d student", "teacher")


def make_data(classes: Sequence[str], n: int = 7) -> MultiLabelData:
    """Small images, portrait and landscape; the first has up to twelve labels, the second none."""
    rng = np.random.default_rng(0)
    targets = (rng.random((n, len(classes))) < 3 / len(classes)).astype(np.uint8)
    targets[0, :12], targets[1] = 1, 0
    images = [rng.integers(0, 256, (20, 26, 3) if row % 2 else (26, 20, 3), np.uint8) for row in range(n)]
    return MultiLabelData("toy", "test", images, targets, tuple(classes), tuple(map(str, range(n))))


def cam_grid(classes: Sequence[str]) -> Figure:
    """Two images with five other labels each."""
    maps = {run: np.linspace(0, 1, 128).reshape(2, 8, 8) for run in RUNS}
    maps["teacher"] = maps["teacher"].copy()
    maps["teacher"][0] = np.nan
    images = [np.full((20, 26, 3), 90, np.uint8)] * 2
    boxes = [np.array([[0.1, 0.2, 0.5, 0.9]]), np.zeros((0, 4))]
    probabilities = {run: np.array([0.25, 0.5]) for run in RUNS}
    others = [classes[2:7], classes[7:12]]
    return plots.cam_grid(images, maps, classes[:2], others, boxes=boxes, probabilities=probabilities)


def cam_overlay(classes: Sequence[str]) -> Figure:
    split = make_data(classes)
    boxes, probabilities = np.array([[0.1, 0.2, 0.5, 0.9]]), np.linspace(0.1, 0.9, len(classes))
    cam, targets = np.linspace(0, 1, 64).reshape(8, 8), split.targets[0]
    return plots.cam_overlay(split.images[0], cam, 0, probabilities, targets, classes, boxes=boxes, top=12)


def localization_table(names: Sequence[str]) -> pd.DataFrame:
    rows = [
        {"label": name, "run": run, "n": 5 + k, "images": 5, "area": 0.2, "hit": 0.1 * k, "energy": 0.2 * k}
        for name in names
        for k, run in enumerate(RUNS)
    ]
    table = pd.DataFrame(rows)
    for value in ("hit", "energy"):
        table[f"{value}_low"], table[f"{value}_high"] = table[value] - 0.05, table[value] + 0.1
    return table


def correlations(classes: Sequence[str]) -> Figure:
    q = len(classes)
    matrix = np.abs(np.subtract.outer(np.linspace(0, 1, q), np.linspace(0, 1, q)))
    matrix[1] = np.nan
    differences = {run: CorrelationDifference(k * matrix / 2, k / 10) for k, run in enumerate((*RUNS, "mld", "mse"))}
    return plots.correlation_differences(differences, classes, np.arange(q)[::-1], np.arange(q) // 3)


def pair_images(classes: Sequence[str]) -> Figure:
    q, split = len(classes), make_data(classes)
    matrix = np.abs(np.subtract.outer(np.linspace(0, 1, q), np.linspace(0, 1, q)))
    matrix[1] = np.nan
    maps = {run: np.linspace(0, 1, 2 * 2 * 64).reshape(2, 2, 8, 8) for run in RUNS[1:]}
    return plots.pair_images(
        matrix, (0, 2), classes, np.arange(q)[::-1].tolist(), split.images[:2], maps, contributions=[0.1, -0.2]
    )


def reliance_table(classes: Sequence[str], runs: Sequence[str] = RUNS) -> pd.DataFrame:
    rows = []
    for factor, run in enumerate(runs):
        for k, label in enumerate(classes):
            row = {"run": run, "label": label, "context": classes[k - 1], "n": 9, "images": 9}
            for value, size in (("drop", 0.3), ("control", 0.1), ("reliance", 0.2)):
                middle = size * factor * k / len(classes)
                row |= {value: middle, f"{value}_low": middle - 0.02, f"{value}_high": middle + 0.03}
            rows.append(row)
    return pd.DataFrame(rows)


def regression_lines() -> pd.DataFrame:
    return pd.DataFrame(
        [("vanilla student", *[np.nan] * 5, 2), ("l2d student", 0.5, 0.4, 0.6, 0.01, 0.9, 12)],
        columns=["run", "slope", "low", "high", "intercept", "correlation", "pairs"],
    )


def label_gain_table(classes: Sequence[str]) -> pd.DataFrame:
    middle = np.linspace(0.1, -0.05, len(classes))
    table = pd.DataFrame({"label": classes, "difference": middle, "low": middle - 0.02, "high": middle + 0.03})
    table["significant"], table["positives"] = table["low"] > 0, 17
    return pd.concat([table, table[:1].assign(label="without positives", difference=np.nan, significant=False)])


def make_recall_table(by: str, values: Sequence[float]) -> pd.DataFrame:
    rows = [
        (run, value, 40, 10 * k + 5, (10 * k + 5) / 40, (10 * k + 2) / 40, (10 * k + 9) / 40)
        for k, run in enumerate(RUNS)
        for value in values
    ]
    return pd.DataFrame(rows, columns=["run", by, "targets", "correct", "recall", "low", "high"])


def retrieval_grid(classes: Sequence[str]) -> Figure:
    neighbors = {run: np.array([[3, 4, 5], [2, 1, 0]]) for run in RUNS[:2]}
    return plots.retrieval_grid(make_data(classes), [0, 6], neighbors)


def gap_table() -> pd.DataFrame:
    rows = [(run, order, 0.1 * k + 0.01, 0.1 * k, 12) for k, run in enumerate(RUNS[:2]) for order in (2, 3, 4)]
    return pd.DataFrame(rows, columns=["run", "order", "instance", "batch", "sequences"])


def protocol_scores() -> pd.DataFrame:
    index = pd.Index(["oracle_k", "threshold(0.5)", "top_k(3)"], name="protocol")
    return pd.DataFrame({"mAP": 0.5, "CF1": [0.4, 0.6, 0.3], "OF1": [0.45, 0.5, 0.55]}, index=index)


def gradient_table(classes: Sequence[str] = ("cat",)) -> pd.DataFrame:
    rows = [
        (step, term, label, 1.0, 0.4 + 0.1 * k, 1 - 0.5 * k)
        for step in (0, 50, 100)
        for k, term in enumerate(("bce", "mld", "cd"))
        for label in ("", *classes)
    ]
    return pd.DataFrame(rows, columns=["step", "term", "class", "norm", "fraction", "cosine"])


WITH_CLASSES: dict[str, Callable[[tuple[str, ...]], Figure]] = {
    "cam_grid": cam_grid,
    "cam_overlay": cam_overlay,
    "localization_plot": lambda classes: plots.localization_plot(localization_table(classes), "label", "run"),
    "correlation_differences": correlations,
    "pair_images": pair_images,
    "label_pairs": lambda classes: plots.label_pairs(
        {run: np.linspace(0, 1, len(classes[:12]) ** 2).reshape(len(classes[:12]), -1) for run in RUNS}, classes[:12]
    ),
    "context_reliance": lambda classes: plots.context_reliance(reliance_table(classes), "teacher"),
    "reliance_regression": lambda classes: plots.reliance_regression(reliance_table(classes), regression_lines()),
    "label_gains": lambda classes: plots.label_gains(label_gain_table(classes), title="l2d less vanilla"),
    "retrieval_grid": retrieval_grid,
    "gradient_classes": lambda classes: plots.gradient_classes(gradient_table(classes)),
}
NAMES_IN_SENTENCES = ("cam_grid", "cam_overlay", "pair_images", "localization_plot", "context_reliance", "label_gains")
"""Figures in which the name of a label is part of a longer text."""

CURVE = (np.linspace(5, 150, 20), np.linspace(0.1, 0.9, 20))
OF_RUNS: dict[str, Callable[[], Figure]] = {
    "area_recall": lambda: plots.area_recall(make_recall_table("side", [10, 20, 30, 160]), {"l2d student": CURVE}),
    "recall_by": lambda: plots.recall_by(
        make_recall_table("num_labels", [1, 2, 3]), "num_labels", xlabel="labels per image"
    ),
    "dependency_gaps": lambda: plots.dependency_gaps(gap_table()),
    "retrieval_scores": lambda: plots.retrieval_scores(
        localization_table(["all"]).rename(
            columns=lambda name: name.replace("hit", "precision").replace("energy", "ndcg")  # the same kind of table
        )
    ),
    "context_scores": lambda: plots.context_scores(
        pd.DataFrame(
            [
                (run, split, 0.5 - k / 10, [0.02, np.nan][k], 2 - k)
                for run in RUNS
                for k, split in enumerate(("a", "b"))
            ],
            columns=["run", "split", "mean", "std", "n"],
        )
    ),
    "gain_intervals": lambda: plots.gain_intervals(
        {"l2d": Gain(0.05, 0.02, 0.08, 0.03, 5), "mdkd": Gain(0.01, -0.02, 0.04, float("nan"), 1)}
    ),
    "protocol_spread": lambda: plots.protocol_spread(protocol_scores(), title="One student"),
    "gradient_terms": lambda: plots.gradient_terms(gradient_table()),
}
