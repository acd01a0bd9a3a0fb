"""Figures of what is found: by the size of an object, by the frequency and the number of labels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter

from mlkd.plots.style import colors, legend_above, subplots

FEW = 10
"""Of fewer objects no share is drawn."""


def area_recall(table: pd.DataFrame, curves: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None) -> Figure:
    """Left: how many objects of each size there are and how many each run finds. Right: the shares, with intervals.

    A size with fewer than `FEW` objects says little and is left out on the right.

    Source: the left panel is the figure of MSKD, AAAI 2025 (Figure 5).

    Args:
        table: as `mlkd.analysis.recall_table` returns it for "side" with a step.
        curves: title of a run -> sides in pixels and the fitted recall there, as `mlkd.analysis.recall_curve` gives it.
    """
    shades = colors(dict.fromkeys(table["run"]))
    fig, axes = subplots(1, 2, width=10, height=3.9)
    counts, shares = axes.flat
    total = table.groupby("side")["targets"].first()
    step = np.diff(total.index).min() if len(total) > 1 else 10
    counts.bar(total.index - step / 2, total, width=0.9 * step, color="#dddddd")
    for number, (title, shade) in enumerate(shades.items()):
        own = table[table["run"] == title]
        counts.plot(own["side"] - step / 2, own["correct"], "o-", ms=3.5, lw=1.3, color=shade)
        many = own[own["targets"] >= FEW]
        aside = number - (len(shades) - 1) / 2  # side by side, so that none hides another
        at = many["side"] - step / 2 + 0.5 * step / len(shades) * aside
        shares.vlines(at, 100 * many["low"], 100 * many["high"], color=shade, lw=1.2, alpha=0.5)
        shares.plot(at, 100 * many["recall"], "o", ms=3.5, color=shade)
        if curves and title in curves:
            sides, fitted = curves[title]
            shares.plot(sides, 100 * np.asarray(fitted), color=shade, lw=1.5)
    for ax in axes.flat:
        ax.set_xlabel("square root of the box's area (pixels at 224 x 224)")
        ax.grid(axis="y", alpha=0.3)
    counts.set(ylabel="objects", title="Objects (grey) and objects found")
    shares.set(
        ylabel="found (%, higher is better, 95 % intervals)",
        ylim=(-2, 102),
        title=f"Share found, sizes with {FEW} objects or more",
    )
    legend_above(fig, {"all": "#dddddd", **shades})
    return fig


def recall_by(table: pd.DataFrame, by: str, *, xlabel: str, logarithmic: bool = False) -> Figure:
    """The share of labels that each run finds, with 95 % intervals, against a number such as the label's frequency.

    Args:
        table: as `mlkd.analysis.recall_table` returns it for the column `by`.
        by: "labels", "frequency" or "side".
        xlabel: what it is, with its unit.
        logarithmic: whether its axis is.
    """
    shades = colors(dict.fromkeys(table["run"]))
    fig, axes = subplots(1, 1, width=7.5, height=3.6)
    ax = axes.flat[0]
    values = np.sort(table[by].unique())
    step = np.diff(values).min() if len(values) > 1 else 1.0
    for number, (title, shade) in enumerate(shades.items()):
        own = table[table["run"] == title]
        aside = number - (len(shades) - 1) / 2  # side by side, so that none hides another
        at = own[by] * 1.014**aside if logarithmic else own[by] + 0.5 * step / len(shades) * aside
        ax.vlines(at, 100 * own["low"], 100 * own["high"], color=shade, lw=1.3, alpha=0.6)
        ax.plot(at, 100 * own["recall"], "o", ms=4.5, color=shade)
    if logarithmic:
        ax.set_xscale("log")
        ax.set_xticks([1, 2, 5, 10, 20, 50, 100])
        seen = values[values > 0]  # a label that training lacks has no place on this axis
        ax.set_xlim(0.8 * min(seen, default=1), 1.25 * max(seen, default=100))
        ax.xaxis.set_major_formatter(ScalarFormatter())
        ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set(xlabel=xlabel, ylabel="labels found (%, higher is better)", ylim=(-2, 102))
    ax.grid(axis="y", alpha=0.3)
    legend_above(fig, shades)
    return fig
