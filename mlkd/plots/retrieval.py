"""Figures of retrieval: the pictures found, and how well they match."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mlkd.data import MultiLabelData
from mlkd.plots.style import axes_of, colours, dots, literal

SHARED, OTHER = "#007a4d", "#c0392b"
"""Green for a label that the query has too, red for one that it has not."""


def retrieved(data: MultiLabelData, queries: Sequence[int], nearest: Mapping[str, np.ndarray], most: int = 5) -> Figure:
    """Each query beside the pictures each run finds for it, their labels in green with ✓ where the query shares them.

    Source: the figures of L2D, ICCV 2023 (Figure 4), and MSKD, AAAI 2025 (Figure 3).

    Args:
        data, queries: the split, and the rows of the queries.
        nearest: title of a run -> (queries, k) rows, as `mlkd.analysis.nearest_pictures` gives them.
        most: labels named below a picture.
    """
    k = next(iter(nearest.values())).shape[1]
    lines = [(query, title) for query in range(len(queries)) for title in nearest]
    shown = [queries[query] for query, _ in lines] + [row for found in nearest.values() for row in found.flat]
    named = min(max((int(data.targets[row].sum()) for row in shown), default=0), most + 1)
    fig, axes = axes_of(len(lines), k + 1, width=1.5 * (k + 1) + 0.9, height=(1.6 + 0.14 * named) * len(lines))
    for ax in axes.flat:
        ax.set_axis_off()
    for line, (query, title) in zip(axes, lines, strict=True):
        asked = queries[query]
        own = data.targets[asked].astype(bool)
        _picture(line[0], data, asked, own, most, marks=False)
        line[0].set_title("query", fontsize=8)
        line[0].text(
            -0.08, 0.5, literal(title), transform=line[0].transAxes, rotation=90, va="center", ha="right", fontsize=9
        )
        for rank, (ax, row) in enumerate(zip(line[1:], nearest[title][query], strict=True), start=1):
            _picture(ax, data, int(row), own, most, marks=True)
            ax.set_title(str(rank), fontsize=8)
    return fig


def _picture(ax: Axes, data: MultiLabelData, row: int, own: np.ndarray, most: int, marks: bool) -> None:
    """A picture with its labels below, one in a line; those it shares first."""
    image = data.images[row]
    height, width = image.shape[:2]
    side = max(height, width)
    ax.imshow(image, interpolation="none")
    ax.set(xlim=((width - side) / 2 - 0.5, (width + side) / 2 - 0.5), ylim=((height + side) / 2, (height - side) / 2))
    labels = np.flatnonzero(data.targets[row])
    labels = np.concatenate([labels[own[labels]], labels[~own[labels]]])
    lines = [(literal(data.classes[k]) + (" ✓" if marks and own[k] else ""), own[k]) for k in labels[:most]]
    if len(labels) > most:
        lines.append((f"and {len(labels) - most} more", None))
    for place, (text, shared) in enumerate(lines or [("(none)", None)]):
        shade = "black" if not marks or shared is None else SHARED if shared else OTHER
        offset = (0, -3 - 9.5 * place)
        ax.annotate(
            text, (0.5, 0), offset, xycoords="axes fraction", textcoords="offset points", ha="center", va="top",
            fontsize=7.5, color=shade,
        )  # fmt: skip


def retrieval_scores(table: pd.DataFrame, k: int = 5) -> Figure:
    """Precision@k and nDCG@k of each run, with 95 % intervals over the queries.

    Args:
        table: as `mlkd.analysis.retrieval_table` returns it.
        k: pictures found.
    """
    runs = list(table["run"])
    fig, axes = axes_of(1, 2, width=8, height=1.2 + 0.34 * len(runs), sharey=True)
    names = {"precision": f"precision@{k}: share a label", "ndcg": f"nDCG@{k} by shared labels"}
    for ax, (value, name) in zip(axes.flat, names.items(), strict=True):
        for title, shade in colours(runs).items():
            dots(ax, table[table["run"] == title], value, runs, "run", {title: shade}, "run")
        ax.set_xlabel(f"{name} (%, higher is better;\naxis does not start at 0)")
        ax.margins(x=0.15)
    return fig
