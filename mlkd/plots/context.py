"""Figures of context reliance: what a network loses without co-occurring objects."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mlkd.plots.style import (
    OTHER_COLORS,
    color,
    draw_interval,
    draw_intervals,
    escape_math,
    legend_above,
    subplots,
)


def context_scores(table: pd.DataFrame) -> Figure:
    """mAP of each run on two splits, with and without co-occurring objects, connected by a line.

    Args:
        table: from `mlkd.analysis.context_scores`, for two splits.
    """
    runs, splits = list(dict.fromkeys(table["run"])), list(dict.fromkeys(table["split"]))
    seeds = table.groupby("run")["n"].max()
    fig, axes = subplots(1, 1, width=6.8, height=1.4 + 0.34 * len(runs))
    ax = axes.flat[0]
    for y, title in enumerate(runs):
        scores = table[table["run"] == title].set_index("split")
        ax.plot(100 * scores["mean"], [y] * len(scores), color="#cccccc", lw=1.2, zorder=0)
        for split in scores.index:
            mean, std = 100 * scores.loc[split, "mean"], 100 * scores.loc[split, "std"]
            face = color(title) if split == splits[0] else "white"
            draw_interval(ax, y, (mean, mean - std, mean + std), color=color(title), markerfacecolor=face)
    ax.set_yticks(range(len(runs)), [f"{escape_math(title)} (n = {seeds[title]})" for title in runs])
    ax.set(
        xlim=(0, None),
        ylim=(len(runs) - 0.5, -0.5),
        xlabel="mAP (%, higher is better; lines: ± 1 standard deviation over seeds)",
    )
    ax.set_title(", ".join(f"{'●' if k == 0 else '○'} {split}" for k, split in enumerate(splits)), fontsize=10)
    ax.grid(axis="x", alpha=0.3)
    return fig


def context_reliance(table: pd.DataFrame, run: str) -> Figure:
    """Left: the drop of each label's probability with the context masked and with a control region masked.

    Right: the reliance, which is the difference of the two. The labels are sorted by reliance.

    Args:
        table: from `mlkd.analysis.context_reliance`.
        run: one of its runs.
    """
    rows = table[table["run"] == run].sort_values("reliance", ascending=False)
    names = [f"{label} without {context} (n = {n})" for label, context, n in rows[["label", "context", "n"]].values]
    suffixes = ("", "_low", "_high")
    masks = {"drop": "context masked", "control": "control region masked"}
    drops = pd.concat(
        pd.DataFrame({"pair": names, "mask": mask} | {f"drop{end}": rows[f"{value}{end}"] for end in suffixes})
        for value, mask in masks.items()
    )
    mask_colors = dict(zip(masks.values(), OTHER_COLORS, strict=False))
    fig, axes = subplots(1, 2, width=9.5, height=1.6 + 0.3 * len(rows), sharey=True)
    left, right = axes.flat
    draw_intervals(left, drops, "drop", names, "pair", mask_colors, "mask")
    draw_intervals(right, rows.assign(pair=names), "reliance", names, "pair", {run: color(run)}, "run")
    for ax in axes.flat:
        ax.axvline(0, color="black", lw=0.8)
    left.set(xlabel="drop of the label's probability (points)", title=f"{escape_math(run)}: both drops")
    right.set(xlabel="reliance (points): difference of the drops", title=f"{escape_math(run)}: reliance")
    legend_above(fig, mask_colors)
    return fig


def reliance_regression(table: pd.DataFrame, lines: pd.DataFrame, teacher: str = "teacher") -> Figure:
    """Context reliance of each student against the teacher's, with the regression line; one dot per pair, one panel
    per student.

    Up to three pairs that are far from the others are named.

    Args:
        table: from `mlkd.analysis.context_reliance`.
        lines: from `mlkd.analysis.reliance_regression`.
        teacher: title of the teacher.
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
            x = np.array([wide[teacher].min(), wide[teacher].max()])
            ax.plot(x, line.slope * x + 100 * line.intercept, color=color(line.run), lw=1.5)
        pairs = wide[[teacher, line.run]].dropna()
        distance = (pairs - pairs.median()).pow(2).sum(axis=1).pow(0.5)
        outliers = distance[distance > np.ptp(span) / 5].nlargest(3).index  # other names would overlap dots
        for number, pair in enumerate(outliers):
            x, y = pairs.loc[pair]
            left = x > span.mean()
            ax.annotate(
                escape_math(f"{pair[0]} / {pair[1]}"),
                (x, y),
                xytext=(-5 if left else 5, -9 if number == 1 else 4),  # the second below its dot, the others above
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
