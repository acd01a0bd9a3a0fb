"""Figures of labels: frequency, number per image, co-occurrence and partitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from mlkd.data import MultiLabelData
from mlkd.plots.style import set_label_ticks, subplots


def class_frequencies(splits: Mapping[str, MultiLabelData]) -> Figure:
    """The fraction of the images of each split that have each label, the most frequent label first."""
    train = next(iter(splits.values()))
    order = np.argsort(-train.targets.mean(axis=0), kind="stable")
    fig, axes = subplots(1, 1, width=max(6.5, 0.16 * len(order) + 2), height=3.4)
    ax = axes.flat[0]
    for number, (name, split) in enumerate(splits.items()):
        percent = 100 * split.targets.mean(axis=0)[order]
        ax.plot(percent, "osD^v"[number % 5], ms=5, alpha=0.8, label=f"{name} (n = {len(split)})")
    set_label_ticks(ax.xaxis, [train.classes[k] for k in order])
    ax.set(ylabel="images with the label (%)", ylim=(0, None), title="Label frequency")
    ax.grid(axis="y", alpha=0.3)
    ax.legend(frameon=False)
    return fig


def label_counts(splits: Mapping[str, MultiLabelData]) -> Figure:
    """The distribution of the number of labels per image in each split."""
    fig, axes = subplots(1, len(splits), width=2.6 * len(splits), height=2.5, sharex=True, sharey=True)
    for ax, (name, split) in zip(axes.flat, splits.items(), strict=True):
        counts = split.targets.sum(axis=1)
        percent = 100 * np.bincount(counts) / len(counts)
        ax.bar(range(len(percent)), percent, color="#56b4e9")
        ax.set(title=f"{name}: {counts.mean():.2f} on average\n(n = {len(split)})", xlabel="labels per image")
        ax.title.set_fontsize(9)
    axes.flat[0].set_ylabel("images (%)")
    return fig


def conditional_heatmap(probabilities: np.ndarray, classes: Sequence[str], order: Sequence[int]) -> Figure:
    """P(column | row) as a heat map, rows and columns in the given order."""
    q = len(classes)
    side = min(3 + 0.22 * q, 13)
    fig, axes = subplots(1, 1, width=side + 0.8, height=side)
    ax = axes.flat[0]
    percent = 100 * probabilities[np.ix_(order, order)]
    image = ax.imshow(percent, cmap="viridis", vmin=0, vmax=max(percent.max(), 1))
    for axis in (ax.xaxis, ax.yaxis):
        set_label_ticks(axis, [classes[k] for k in order], size=8 if q <= 40 else 5)
    ax.set(title="P(column label | row label)", xlabel="co-occurring label", ylabel="label")
    fig.colorbar(image, ax=ax, label="images with the row's label (%)", shrink=0.7)
    return fig


def partitions(affinities: np.ndarray, clusters: Mapping[str, np.ndarray], classes: Sequence[str]) -> Figure:
    """The affinity matrix of a label graph, sorted by each partition, with a frame around each label subset.

    Args:
        affinities: (q, q) in [0, 1], from `mlkd.graphs.affinity`.
        clusters: name of a partition -> (q,), the number of each label's subset.
        classes: the q names.
    """
    many = len(classes) > 40
    side, size = (4.0, 4) if many else (3.0, 6)
    width, height = side * len(clusters), side + 0.9
    if len(clusters) == 1:
        width, height, size = 2 * side, 1.4 * side, size + 2
    fig, axes = subplots(1, len(clusters), width=width, height=height)
    for ax, (name, numbers) in zip(axes.flat, clusters.items(), strict=True):
        order = np.argsort(numbers, kind="stable")
        image = ax.imshow(affinities[np.ix_(order, order)], cmap="Greys", vmin=0, vmax=1)
        start = 0
        for count in np.bincount(numbers):
            ax.add_patch(Rectangle((start - 0.5, start - 0.5), count, count, fill=False, color="#d55e00", lw=1.5))
            start += count
        ax.set_xticks([])
        set_label_ticks(ax.yaxis, [classes[k] for k in order], size=size)
        ax.set_title(name)
    fig.colorbar(image, ax=axes, label="co-occurrence affinity", shrink=0.7)
    return fig


def stability(table: pd.DataFrame, *, title: str) -> Figure:
    """Agreement of partitions with different seeds against the number of label subsets: one panel per strategy.

    Args:
        table: from `mlkd.analysis.partition_stability`.
        title: what is partitioned.
    """
    strategies, taus = table["strategy"].unique(), table["tau"].unique()
    fig, axes = subplots(1, len(strategies), width=3.6 * len(strategies), height=2.8, sharey=True)
    for ax, strategy in zip(axes.flat, strategies, strict=True):
        for level, tau in zip(np.linspace(0.35, 1, len(taus)), taus, strict=True):
            rows = table[(table["strategy"] == strategy) & (table["tau"] == tau)]
            ax.plot(rows["k"], rows["ari"], "o-", ms=4, color=plt.cm.viridis(1 - level), label=f"tau = {tau:g}")
        ax.set(xlabel="number of label subsets k", ylim=(-0.1, 1.05), title=f"{strategy.upper()}, {title}")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.grid(alpha=0.3)
    axes.flat[0].set_ylabel("agreement between seeds\n(adjusted Rand index)")
    axes.flat[-1].legend(frameon=False, fontsize=8)
    return fig
