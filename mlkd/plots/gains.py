"""Figures of differences between groups of runs, and of what a protocol alone makes of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mlkd.plots.style import GAIN, LOSS, colors, dot, escape_math, legend_above, other_looks, subplots


def label_gains(table: pd.DataFrame, *, title: str) -> Figure:
    """Which labels gained: difference of AP with 95 % intervals, sorted; filled where significant.

    Args:
        table: as `mlkd.analysis.class_gains` returns it; labels with nan are left out.
        title: what is compared.
    """
    known = table[table["difference"].notna()]
    fig, axes = subplots(1, 1, width=6.8, height=1.6 + (0.21 if len(known) < 40 else 0.14) * len(known))
    ax = axes.flat[0]
    for place, row in enumerate(known.itertuples()):
        shade = "#8c8c8c" if not row.significant else GAIN if row.difference > 0 else LOSS
        dot(
            ax,
            place,
            (100 * value for value in (row.difference, row.low, row.high)),
            color=shade,
            markerfacecolor=shade if row.significant else "white",
        )
    ax.axvline(0, color="black", lw=0.8)
    names = [f"{escape_math(row.label)} ({row.positives})" for row in known.itertuples()]
    ax.set_yticks(range(len(known)), names, fontsize=8 if len(known) < 40 else 6)
    ax.set(
        ylim=(max(len(known), 1) - 0.5, -0.5), xlabel="difference of AP (points), 95 % interval; filled: significant"
    )
    ax.set(ylabel="label (positives)", title=title)
    ax.grid(axis="x", alpha=0.3)
    return fig


def gain_intervals(found: Mapping[str, Any]) -> Figure:
    """Is a gain real? Each difference of mAP with its interval, over the band of what its seeds could not show.

    Args:
        found: title of a comparison -> `mlkd.analysis.Gain`.
    """
    fig, axes = subplots(1, 1, width=7.2, height=1.3 + 0.42 * len(found))
    ax, shades = axes.flat[0], colors(found)
    reach = max([1.0, *(100 * abs(value) for one in found.values() for value in (one.low, one.high))]) * 1.25
    for place, (title, one) in enumerate(found.items()):
        blind = (
            min(100 * one.minimum_detectable_effect, 10 * reach)
            if np.isfinite(one.minimum_detectable_effect)
            else 10 * reach
        )
        ax.barh(place, 2 * blind, left=-blind, height=0.7, color="#e8e8e8", zorder=0)
        values = (100 * value for value in (one.difference, one.low, one.high))
        dot(ax, place, values, color=shades[title], markerfacecolor=shades[title] if one.is_significant else "white")
    ax.axvline(0, color="black", lw=0.8)
    ax.set_yticks(range(len(found)), [f"{escape_math(title)} (n = {one.seeds})" for title, one in found.items()])
    ax.set(xlim=(-reach, reach), ylim=(max(len(found), 1) - 0.5, -0.5))
    ax.set_xlabel("difference of mAP (points), 95 % interval; grey: too small for this many seeds; filled: real")
    ax.xaxis.label.set_fontsize(9)
    return fig


def protocol_spread(table: pd.DataFrame, *, title: str) -> Figure:
    """One file of predictions under every protocol: a line per metric, its length what the protocol alone makes.

    Args:
        table: as `mlkd.analysis.protocol_table` returns it.
        title: whose predictions.
    """
    metrics = list(table.columns)
    fig, axes = subplots(1, 1, width=7.5, height=1.8 + 0.36 * len(metrics))
    ax = axes.flat[0]
    looks = other_looks(table.index)
    for place, metric in enumerate(metrics):
        values = 100 * table[metric]
        ax.plot([values.min(), values.max()], [place, place], color="#cccccc", lw=5, zorder=0, solid_capstyle="round")
        for protocol, value in values.items():
            ax.plot(value, place, ls="", ms=7, mec="white", mew=0.6, **looks[protocol])
        ax.annotate(
            f"{values.max() - values.min():.0f}",
            (values.max(), place),
            xytext=(9, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    ax.set_yticks(range(len(metrics)), metrics)
    ax.set(ylim=(len(metrics) - 0.5, -0.5), xlim=(0, 102), title=title)
    ax.set_xlabel("score (%); the number: from lowest to highest, in points")
    ax.grid(axis="x", alpha=0.3)
    legend_above(fig, looks, 3)
    return fig
