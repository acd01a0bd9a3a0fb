"""Figures of context: what a network loses without the usual company of an object."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mlkd.plots.style import OTHER_COLORS, color, dot, dots, escape_math, legend_above, subplots


def context_scores(table: pd.DataFrame) -> Figure:
    """Each run's mAP with the usual company and without it, joined by a line; the distance is what context gives.

    Args:
        table: as `mlkd.analysis.context_scores` returns it, for two splits.
    """
    runs, splits = list(dict.fromkeys(table["run"])), list(dict.fromkeys(table["split"]))
    fig, axes = subplots(1, 1, width=6.8, height=1.4 + 0.34 * len(runs))
    ax = axes.flat[0]
    for place, title in enumerate(runs):
        own = table[table["run"] == title].set_index("split")
        ax.plot(100 * own["mean"], [place] * len(own), color="#cccccc", lw=1.2, zorder=0)
        for split in own.index:
            mean, spread = 100 * own.loc[split, "mean"], 100 * own.loc[split, "std"]
            filled = color(title) if split == splits[0] else "white"
            dot(ax, place, (mean, mean - spread, mean + spread), color=color(title), markerfacecolor=filled)
    ax.set_yticks(range(len(runs)), [f"{escape_math(title)} (n = {_seeds(table, title)})" for title in runs])
    ax.set(
        xlim=(0, None),
        ylim=(len(runs) - 0.5, -0.5),
        xlabel="mAP (%, higher is better; lines: ± 1 standard deviation of seeds)",
    )
    ax.set_title(", ".join(f"{'●' if k == 0 else '○'} {split}" for k, split in enumerate(splits)), fontsize=10)
    ax.grid(axis="x", alpha=0.3)
    return fig


def _seeds(table: pd.DataFrame, title: str) -> int:
    return int(table.loc[table["run"] == title, "n"].max())


def context_reliance(table: pd.DataFrame, run: str) -> Figure:
    """Left: how far each label's probability falls with its companion greyed out, and with as much grey elsewhere.

    Right: the reliance, the first less the second, by which the labels are sorted.

    Args:
        table: as `mlkd.analysis.context_reliance` returns it.
        run: which of its runs.
    """
    own = table[table["run"] == run].sort_values("reliance", ascending=False)
    names = [f"{label} without {other} (n = {n})" for label, other, n in own[["label", "context", "n"]].values]
    long = pd.concat(
        own.assign(
            pair=names, masked=masked, fall=own[value], fall_low=own[f"{value}_low"], fall_high=own[f"{value}_high"]
        )
        for value, masked in (("drop", "the companion"), ("control", "as much elsewhere"))
    )
    shades = dict(zip(("the companion", "as much elsewhere"), OTHER_COLORS, strict=False))
    fig, axes = subplots(1, 2, width=9.5, height=1.6 + 0.3 * len(own), sharey=True)
    falls, difference = axes.flat
    dots(falls, long, "fall", names, "pair", shades, "masked")
    dots(difference, own.assign(pair=names), "reliance", names, "pair", {run: color(run)}, "run")
    for ax in axes.flat:
        ax.axvline(0, color="black", lw=0.8)
    falls.set(
        xlabel="fall of the label's probability\nwhen greyed out (points)", title=f"{escape_math(run)}: both falls"
    )
    difference.set(xlabel="reliance (points):\nthe first fall less the second", title=f"{escape_math(run)}: reliance")
    legend_above(fig, shades)
    return fig


def reliance_regression(table: pd.DataFrame, lines: pd.DataFrame, teacher: str = "teacher") -> Figure:
    """Each pair's reliance on context, the student's against the teacher's, with the fitted line: a panel per student.

    Up to three pairs are named, those that lie far from the others.

    Args:
        table: as `mlkd.analysis.context_reliance` returns it.
        lines: as `mlkd.analysis.reliance_regression` returns it.
        teacher: its title.
    """
    wide = table.pivot(index=["label", "context"], columns="run", values="reliance") * 100
    columns = min(len(lines), 3)
    rows = -(-len(lines) // columns)
    fig, axes = subplots(rows, columns, width=3.4 * columns, height=3.4 * rows, sharex=True, sharey=True)
    for ax in axes.flat[len(lines) :]:
        ax.remove()
    span = np.array([np.nanmin(wide.to_numpy()), np.nanmax(wide.to_numpy())])
    for ax, line in zip(axes.flat, lines.itertuples(), strict=False):
        ax.axline((0, 0), slope=1, color="#bbbbbb", lw=1, ls="--")
        ax.plot(wide[teacher], wide[line.run], "o", ms=4.5, color=color(line.run), alpha=0.75)
        if np.isfinite(line.slope):
            reach = np.array([wide[teacher].min(), wide[teacher].max()])
            ax.plot(reach, line.slope * reach + 100 * line.intercept, color=color(line.run), lw=1.5)
        own = wide[[teacher, line.run]].dropna()
        away = (own - own.median()).pow(2).sum(axis=1).pow(0.5)
        for place, pair in enumerate(away[away > np.ptp(span) / 5].nlargest(3).index):  # the rest would lie over dots
            x, y = own.loc[pair]
            left = x > span.mean()
            ax.annotate(
                escape_math(f"{pair[0]} / {pair[1]}"),
                (x, y),
                xytext=(-5 if left else 5, -9 if place == 1 else 4),  # neighbours below and above
                textcoords="offset points",
                fontsize=7,
                ha="right" if left else "left",
                bbox={"color": "white", "alpha": 0.8, "pad": 0.5},
            )
        text = f"slope {line.slope:.2f} [{line.low:.2f}, {line.high:.2f}], r = {line.correlation:.2f}"
        ax.set_title(f"{escape_math(line.run)}\n{text}", fontsize=9)
        ax.set_xlabel(f"{escape_math(teacher)}: reliance (points)")
        ax.margins(y=0.12)
        ax.grid(alpha=0.3)
    axes.flat[0].set_ylabel("student: reliance (points)")
    return fig
