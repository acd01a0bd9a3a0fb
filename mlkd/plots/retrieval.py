"""Figures of retrieval: the retrieved images and their scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mlkd.data import MultiLabelData
from mlkd.plots.style import colors, draw_intervals, escape_math, subplots

SHARED, OTHER = "#007a4d", "#c0392b"
"""Green for labels that the query also has, red for the others."""
LINE = 0.105
"""Height of a line of text, as a fraction of the side of an image."""


def retrieval_grid(
    data: MultiLabelData, queries: Sequence[int], neighbors: Mapping[str, np.ndarray], max_labels: int = 5
) -> Figure:
    """Each query beside the images that each run retrieves for it; labels shared with the query are green with ✓.

    Source: the figures of L2D, ICCV 2023 (Figure 4), and MSKD, AAAI 2025 (Figure 3).

    Args:
        data: a split.
        queries: indices of the queries.
        neighbors: title of a run -> (queries, k) indices, from `mlkd.analysis.nearest_neighbors`.
        max_labels: labels named below an image.
    """
    k = next(iter(neighbors.values())).shape[1]
    rows = [(query, title) for query in range(len(queries)) for title in neighbors]
    shown = [*queries, *(index for run_neighbors in neighbors.values() for index in run_neighbors.flat)]
    num_lines = min(max((int(data.targets[index].sum()) for index in shown), default=1), max_labels + 1)
    height = 1.12 + LINE * num_lines  # an image of side 1, its labels below and its rank above
    fig, axes = subplots(len(rows), k + 1, width=1.5 * (k + 1) + 0.5, height=1.55 * height * len(rows))
    for row_axes, (query, title) in zip(axes, rows, strict=True):
        query_labels = data.targets[queries[query]].astype(bool)
        retrieved = [queries[query], *neighbors[title][query]]
        for rank, (ax, index) in enumerate(zip(row_axes, retrieved, strict=True)):
            ax.set_axis_off()
            _draw_image(ax, data.images[int(index)], str(rank) if rank else "query")
            _draw_labels(ax, data, int(index), query_labels, max_labels, mark=rank > 0)
            ax.set(xlim=(0, 1), ylim=(height - 0.12, -0.12))
        row_axes[0].text(-0.06, 0.5, escape_math(title), rotation=90, va="center", ha="right", fontsize=9)
    return fig


def _draw_image(ax: Axes, image: np.ndarray, title: str) -> None:
    """An image centered in a square of side 1, with a title."""
    height, width = np.array(image.shape[:2]) / max(image.shape[:2])
    extent = (0.5 - width / 2, 0.5 + width / 2, 0.5 + height / 2, 0.5 - height / 2)
    ax.imshow(image, interpolation="none", extent=extent)
    ax.text(0.5, 0.48 - height / 2, title, ha="center", va="bottom", fontsize=8)


def _draw_labels(
    ax: Axes, data: MultiLabelData, index: int, query_labels: np.ndarray, max_labels: int, mark: bool
) -> None:
    """The labels of an image below it, one per line, those shared with the query first; `mark` colors them."""
    labels = np.flatnonzero(data.targets[index])
    labels = np.concatenate([labels[query_labels[labels]], labels[~query_labels[labels]]])
    lines = []
    for k in labels[:max_labels]:
        tick, line_color = (" ✓", SHARED) if query_labels[k] else ("", OTHER)
        lines.append((escape_math(data.classes[k]) + (tick if mark else ""), line_color if mark else "black"))
    if len(labels) > max_labels:
        lines.append((f"and {len(labels) - max_labels} more", "black"))
    for number, (text, line_color) in enumerate(lines or [("(none)", "black")]):
        ax.text(0.5, 1.02 + LINE * number, text, ha="center", va="top", fontsize=7.5, color=line_color)


def retrieval_scores(table: pd.DataFrame, k: int = 5) -> Figure:
    """Precision@k and nDCG@k of each run, with 95 % intervals over the queries.

    Args:
        table: from `mlkd.analysis.retrieval_table`.
        k: number of retrieved images.
    """
    runs = list(table["run"])
    fig, axes = subplots(1, 2, width=8, height=1.2 + 0.34 * len(runs), sharey=True)
    names = {"precision": f"precision@{k}", "ndcg": f"nDCG@{k}"}
    for ax, (value, name) in zip(axes.flat, names.items(), strict=True):
        for title, run_color in colors(runs).items():
            draw_intervals(ax, table[table["run"] == title], value, runs, "run", {title: run_color}, "run")
        ax.set_xlabel(f"{name} (%, higher is better;\naxis does not start at 0)")
        ax.margins(x=0.15)
    return fig
