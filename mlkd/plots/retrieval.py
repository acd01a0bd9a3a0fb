"""Figures of retrieval: the pictures found, and how well they match."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mlkd.data import MultiLabelData
from mlkd.plots.style import colors, dots, escape_math, subplots

SHARED, OTHER = "#007a4d", "#c0392b"
"""Green for a label that the query has too, red for one that it has not."""


def retrieval_grid(
    data: MultiLabelData, queries: Sequence[int], neighbors: Mapping[str, np.ndarray], most: int = 5
) -> Figure:
    """Each query beside the pictures each run finds for it, their labels in green with ✓ where the query shares them.

    Source: the figures of L2D, ICCV 2023 (Figure 4), and MSKD, AAAI 2025 (Figure 3).

    Args:
        data, queries: the split, and the rows of the queries.
        neighbors: title of a run -> (queries, k) rows, as `mlkd.analysis.nearest_neighbors` gives them.
        most: labels named below a picture.
    """
    k = next(iter(neighbors.values())).shape[1]
    lines = [(query, title) for query in range(len(queries)) for title in neighbors]
    shown = [queries[query] for query, _ in lines] + [row for found in neighbors.values() for row in found.flat]
    named = min(max((int(data.targets[row].sum()) for row in shown), default=1), most + 1)
    tall = 1.12 + LINE * named  # a picture's side is 1; below it its labels, above it its rank
    fig, axes = subplots(len(lines), k + 1, width=1.5 * (k + 1) + 0.5, height=1.55 * tall * len(lines))
    for ax in axes.flat:
        ax.set_axis_off()
    for line, (query, title) in zip(axes, lines, strict=True):
        own = data.targets[queries[query]].astype(bool)
        _picture(line[0], data, queries[query], "query", own, most, tall, marks=False)
        line[0].text(-0.06, 0.5, escape_math(title), rotation=90, va="center", ha="right", fontsize=9)
        for rank, (ax, row) in enumerate(zip(line[1:], neighbors[title][query], strict=True), start=1):
            _picture(ax, data, int(row), str(rank), own, most, tall, marks=True)
    return fig


LINE = 0.105
"""Height of a line of text, in sides of a picture."""


def _picture(
    ax: Axes, data: MultiLabelData, row: int, title: str, own: np.ndarray, most: int, tall: float, marks: bool
) -> None:
    """A picture in a square of side 1 with its labels below, one in a line; those that it shares first."""
    image = data.images[row]
    height, width = np.array(image.shape[:2]) / max(image.shape[:2])
    ax.imshow(
        image, interpolation="none", extent=(0.5 - width / 2, 0.5 + width / 2, 0.5 + height / 2, 0.5 - height / 2)
    )
    ax.set(xlim=(0, 1), ylim=(tall - 0.12, -0.12))
    ax.text(0.5, 0.48 - height / 2, title, ha="center", va="bottom", fontsize=8)
    labels = np.flatnonzero(data.targets[row])
    labels = np.concatenate([labels[own[labels]], labels[~own[labels]]])
    lines = [(escape_math(data.classes[k]) + (" ✓" if marks and own[k] else ""), own[k]) for k in labels[:most]]
    if len(labels) > most:
        lines.append((f"and {len(labels) - most} more", None))
    for place, (text, shared) in enumerate(lines or [("(none)", None)]):
        shade = "black" if not marks or shared is None else SHARED if shared else OTHER
        ax.text(0.5, 1.02 + LINE * place, text, ha="center", va="top", fontsize=7.5, color=shade)


def retrieval_scores(table: pd.DataFrame, k: int = 5) -> Figure:
    """Precision@k and nDCG@k of each run, with 95 % intervals over the queries.

    Args:
        table: as `mlkd.analysis.retrieval_table` returns it.
        k: pictures found.
    """
    runs = list(table["run"])
    fig, axes = subplots(1, 2, width=8, height=1.2 + 0.34 * len(runs), sharey=True)
    names = {"precision": f"precision@{k}: share a label", "ndcg": f"nDCG@{k} by shared labels"}
    for ax, (value, name) in zip(axes.flat, names.items(), strict=True):
        for title, shade in colors(runs).items():
            dots(ax, table[table["run"] == title], value, runs, "run", {title: shade}, "run")
        ax.set_xlabel(f"{name} (%, higher is better;\naxis does not start at 0)")
        ax.margins(x=0.15)
    return fig
