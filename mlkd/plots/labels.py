"""Figures of labels: how often, how many, which together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from mlkd.data import MultiLabelData
from mlkd.plots.style import escape_math, subplots


def class_frequencies(splits: Mapping[str, MultiLabelData]) -> Figure:
    """The share of the pictures of each split that has each label, the most frequent first."""
    train = next(iter(splits.values()))
    order = np.argsort(-train.targets.mean(axis=0), kind="stable")
    fig, axes = subplots(1, 1, width=max(6.5, 0.16 * len(order) + 2), height=3.4)
    ax = axes.flat[0]
    for position, (name, split) in enumerate(splits.items()):
        marker = "osD^v"[position % 5]
        share = 100 * split.targets.mean(axis=0)[order]
        ax.plot(share, marker, ms=5, alpha=0.8, label=f"{name} (n = {len(split)})")
    ax.set_xticks(
        range(len(order)),
        [escape_math(train.classes[k]) for k in order],
        rotation=90,
        fontsize=8 if len(order) < 40 else 6,
    )
    ax.set(ylabel="pictures with the label (%)", ylim=(0, None), title="How often each label occurs")
    ax.grid(axis="y", alpha=0.3)
    ax.legend(frameon=False)
    return fig


def label_counts(splits: Mapping[str, MultiLabelData]) -> Figure:
    """How many labels the pictures of each split have."""
    fig, axes = subplots(1, len(splits), width=2.6 * len(splits), height=2.5, sharex=True, sharey=True)
    for ax, (name, split) in zip(axes.flat, splits.items(), strict=True):
        counts = split.targets.sum(axis=1)
        share = 100 * np.bincount(counts) / len(counts)
        ax.bar(range(len(share)), share, color="#56b4e9")
        ax.set(title=f"{name}: {counts.mean():.2f} on average\n(n = {len(split)})", xlabel="labels in a picture")
        ax.title.set_fontsize(9)
    axes.flat[0].set_ylabel("pictures (%)")
    return fig


def conditional_heatmap(probabilities: np.ndarray, classes: Sequence[str], order: Sequence[int]) -> Figure:
    """P(column | row) as a heat map, rows and columns in the given order."""
    q = len(classes)
    side = min(3 + 0.22 * q, 13)
    fig, axes = subplots(1, 1, width=side + 0.8, height=side)
    ax = axes.flat[0]
    shown = 100 * probabilities[np.ix_(order, order)]
    picture = ax.imshow(shown, cmap="viridis", vmin=0, vmax=max(shown.max(), 1))
    size = 8 if q <= 40 else 5
    ax.set_xticks(range(q), [escape_math(classes[k]) for k in order], rotation=90, fontsize=size)
    ax.set_yticks(range(q), [escape_math(classes[k]) for k in order], fontsize=size)
    ax.set(
        title="Of the pictures with the row's label,\nhow many have the column's too",
        xlabel="also there",
        ylabel="there",
    )
    fig.colorbar(picture, ax=ax, label="pictures (%)", shrink=0.7)
    return fig


def partitions(joined: np.ndarray, parts: Mapping[str, np.ndarray], classes: Sequence[str]) -> Figure:
    """A label graph once for each partition, the labels of a part beside each other, a frame around each part.

    Args:
        joined: (q, q), how strongly two labels are joined, in [0, 1].
        parts: name of a partition -> (q,), the part of each label.
        classes: the names of the labels.
    """
    side, letters = (3.0, 6) if len(classes) <= 40 else (4.0, 4)
    width, height = side * len(parts), side + 0.9
    if len(parts) == 1:
        width, height, letters = 2 * side, 1.4 * side, letters + 2
    fig, axes = subplots(1, len(parts), width=width, height=height)
    for ax, (name, part) in zip(axes.flat, parts.items(), strict=True):
        order = np.argsort(part, kind="stable")
        picture = ax.imshow(joined[np.ix_(order, order)], cmap="Greys", vmin=0, vmax=1)
        start = 0
        for size in np.bincount(part):
            ax.add_patch(Rectangle((start - 0.5, start - 0.5), size, size, fill=False, color="#d55e00", lw=1.5))
            start += size
        ax.set_xticks([])
        ax.set_yticks(range(len(order)), [escape_math(classes[k]) for k in order], fontsize=letters)
        ax.set_title(name)
    fig.colorbar(picture, ax=axes, label="joined by standing together", shrink=0.7)
    return fig


def stability(table: pd.DataFrame, *, title: str) -> Figure:
    """How far partitions of different seeds agree, against the number of parts: a panel per strategy.

    Args:
        table: as `mlkd.analysis.partition_stability` returns it.
        title: what was divided.
    """
    strategies, taus = table["strategy"].unique(), table["tau"].unique()
    fig, axes = subplots(1, len(strategies), width=3.6 * len(strategies), height=2.8, sharey=True)
    for ax, strategy in zip(axes.flat, strategies, strict=True):
        for shade, tau in zip(np.linspace(0.35, 1, len(taus)), taus, strict=True):
            rows = table[(table["strategy"] == strategy) & (table["tau"] == tau)]
            ax.plot(rows["k"], rows["ari"], "o-", ms=4, color=plt.cm.viridis(1 - shade), label=f"tau = {tau:g}")
        ax.set(xlabel="parts k", ylim=(-0.1, 1.05), title=f"{strategy.upper()}, {title}")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.grid(alpha=0.3)
    axes.flat[0].set_ylabel("agreement of two seeds\n(adjusted Rand index)")
    axes.flat[-1].legend(frameon=False, fontsize=8)
    return fig
