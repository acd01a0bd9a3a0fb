"""Figures of differences between groups of runs, and of the effect of the protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mlkd.plots.style import GAIN, LOSS, colors, draw_interval, escape_math, legend_above, styles, subplots


def label_gains(table: pd.DataFrame, *, title: str) -> Figure:
    """Difference of AP for each label with its 95 % interval, sorted; filled where significant.

    Args:
        table: from `mlkd.analysis.class_gains`; labels with nan are left out.
        title: what is compared.
    """
    known = table[table["difference"].notna()]
    many = len(known) >= 40
    fig, axes = subplots(1, 1, width=6.8, height=1.6 + (0.14 if many else 0.21) * len(known))
    ax = axes.flat[0]
    for y, row in enumerate(known.itertuples()):
        dot_color = "#8c8c8c" if not row.significant else GAIN if row.difference > 0 else LOSS
        interval = (100 * value for value in (row.difference, row.low, row.high))
        draw_interval(ax, y, interval, color=dot_color, markerfacecolor=dot_color if row.significant else "white")
    ax.axvline(0, color="black", lw=0.8)
    names = [f"{escape_math(row.label)} ({row.positives})" for row in known.itertuples()]
    ax.set_yticks(range(len(known)), names, fontsize=6 if many else 8)
    ax.set(
        ylim=(max(len(known), 1) - 0.5, -0.5), xlabel="difference of AP (points), 95 % interval; filled: significant"
    )
    ax.set(ylabel="label (positives)", title=title)
    ax.grid(axis="x", alpha=0.3)
    return fig


def gain_intervals(gains: Mapping[str, Any]) -> Figure:
    """Difference of mAP with its 95 % interval, over a gray band of the effects that its seeds detect with less than
    80 % power; filled where significant.

    Args:
        gains: title of a comparison -> `mlkd.analysis.Gain`.
    """
    fig, axes = subplots(1, 1, width=7.2, height=1.3 + 0.42 * len(gains))
    ax, title_colors = axes.flat[0], colors(gains)
    limit = max([1.0, *(100 * abs(value) for gain in gains.values() for value in (gain.low, gain.high))]) * 1.25
    for y, (title, gain) in enumerate(gains.items()):
        band = np.nan_to_num(100 * gain.minimum_detectable_effect, nan=np.inf)
        band = min(band, 10 * limit)
        ax.barh(y, 2 * band, left=-band, height=0.7, color="#e8e8e8", zorder=0)
        interval = (100 * value for value in (gain.difference, gain.low, gain.high))
        face = title_colors[title] if gain.is_significant else "white"
        draw_interval(ax, y, interval, color=title_colors[title], markerfacecolor=face)
    ax.axvline(0, color="black", lw=0.8)
    ax.set_yticks(range(len(gains)), [f"{escape_math(title)} (n = {gain.seeds})" for title, gain in gains.items()])
    ax.set(xlim=(-limit, limit), ylim=(max(len(gains), 1) - 0.5, -0.5))
    ax.set_xlabel(
        "difference of mAP (points), 95 % interval\ngray: effects below 80 % power; filled: significant", fontsize=9
    )
    return fig


def protocol_spread(table: pd.DataFrame, *, title: str) -> Figure:
    """The scores of one set of predictions under every protocol: one row per metric, with the range over protocols.

    Args:
        table: from `mlkd.analysis.protocol_table`.
        title: whose predictions.
    """
    metrics = list(table.columns)
    fig, axes = subplots(1, 1, width=7.5, height=1.8 + 0.36 * len(metrics))
    ax = axes.flat[0]
    protocol_styles = styles(table.index)
    for y, metric in enumerate(metrics):
        values = 100 * table[metric]
        low, high = values.min(), values.max()
        ax.plot([low, high], [y, y], color="#cccccc", lw=5, zorder=0, solid_capstyle="round")
        for protocol, value in values.items():
            ax.plot(value, y, ls="", ms=7, mec="white", mew=0.6, **protocol_styles[protocol])
        position = {"xytext": (9, 0), "textcoords": "offset points", "va": "center"}
        ax.annotate(f"{high - low:.0f}", (high, y), fontsize=8, **position)
    ax.set_yticks(range(len(metrics)), metrics)
    ax.set(ylim=(len(metrics) - 0.5, -0.5), xlim=(0, 102), title=title)
    ax.set_xlabel("score (%); number: range over the protocols, in points")
    ax.grid(axis="x", alpha=0.3)
    legend_above(fig, protocol_styles, 3)
    return fig
