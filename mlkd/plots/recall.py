"""Figures of recall by the size of an object, the frequency of a label and the number of labels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter

from mlkd.plots.style import colors, legend_above, subplots

MIN_OBJECTS = 10
"""Recall is not drawn for groups with fewer objects."""


def area_recall(table: pd.DataFrame, curves: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None) -> Figure:
    """Left: the number of objects of each size and how many each run recalls. Right: recall with intervals.

    Sizes with fewer than `MIN_OBJECTS` objects are left out on the right.

    Source: the left panel is that of MSKD, AAAI 2025 (Figure 5).

    Args:
        table: from `mlkd.analysis.recall_table` for "side" with a step.
        curves: title of a run -> sides in pixels and the fitted recall there, from `mlkd.analysis.recall_curve`.
    """
    run_colors = colors(dict.fromkeys(table["run"]))
    fig, axes = subplots(1, 2, width=10, height=3.9)
    left, right = axes.flat
    total = table.groupby("side")["targets"].first()
    step = np.diff(total.index).min() if len(total) > 1 else 10
    left.bar(total.index - step / 2, total, width=0.9 * step, color="#dddddd")
    for number, (title, run_color) in enumerate(run_colors.items()):
        rows = table[table["run"] == title]
        left.plot(rows["side"] - step / 2, rows["correct"], "o-", ms=3.5, lw=1.3, color=run_color)
        rows = rows[rows["targets"] >= MIN_OBJECTS]
        x = rows["side"] - step / 2 + 0.5 * step * _offset(number, len(run_colors)) / len(run_colors)
        right.vlines(x, 100 * rows["low"], 100 * rows["high"], color=run_color, lw=1.2, alpha=0.5)
        right.plot(x, 100 * rows["recall"], "o", ms=3.5, color=run_color)
        if curves and title in curves:
            sides, fitted = curves[title]
            right.plot(sides, 100 * np.asarray(fitted), color=run_color, lw=1.5)
    for ax in axes.flat:
        ax.set_xlabel("square root of the box's area (pixels at 224 x 224)")
        ax.grid(axis="y", alpha=0.3)
    left.set(ylabel="objects", title="Objects (gray) and recalled objects")
    right.set(
        ylabel="recall (%, higher is better, 95 % intervals)",
        ylim=(-2, 102),
        title=f"Recall of sizes with at least {MIN_OBJECTS} objects",
    )
    legend_above(fig, {"all": "#dddddd", **run_colors})
    return fig


def recall_by(table: pd.DataFrame, by: str, *, xlabel: str, logarithmic: bool = False) -> Figure:
    """Recall of each run with 95 % intervals, against a number such as the frequency of the label.

    Args:
        table: from `mlkd.analysis.recall_table` for the column `by`.
        by: "num_labels", "frequency" or "side".
        xlabel: name of the number, with its unit.
        logarithmic: whether the x-axis is logarithmic.
    """
    run_colors = colors(dict.fromkeys(table["run"]))
    fig, axes = subplots(1, 1, width=7.5, height=3.6)
    ax = axes.flat[0]
    values = np.sort(table[by].unique())
    step = np.diff(values).min() if len(values) > 1 else 1.0
    for number, (title, run_color) in enumerate(run_colors.items()):
        rows = table[table["run"] == title]
        offset = _offset(number, len(run_colors))
        x = rows[by] * 1.014**offset if logarithmic else rows[by] + 0.5 * step / len(run_colors) * offset
        ax.vlines(x, 100 * rows["low"], 100 * rows["high"], color=run_color, lw=1.3, alpha=0.6)
        ax.plot(x, 100 * rows["recall"], "o", ms=4.5, color=run_color)
    if logarithmic:
        ax.set_xscale("log")
        ax.set_xticks([1, 2, 5, 10, 20, 50, 100])
        positive = values[values > 0]  # a label without training images is outside the logarithmic axis
        ax.set_xlim(0.8 * min(positive, default=1), 1.25 * max(positive, default=100))
        ax.xaxis.set_major_formatter(ScalarFormatter())
        ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set(xlabel=xlabel, ylabel="recall (%, higher is better)", ylim=(-2, 102))
    ax.grid(axis="y", alpha=0.3)
    legend_above(fig, run_colors)
    return fig


def _offset(number: int, count: int) -> float:
    """The horizontal offset of one of `count` runs, around 0, so that their dots do not overlap."""
    return number - (count - 1) / 2
