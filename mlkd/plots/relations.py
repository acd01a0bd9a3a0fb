"""Figures of how labels hang together in what networks say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from mlkd.plots.style import annotate_cells, colors, escape_math, legend_above, subplots


def correlation_differences(
    differences: Mapping[str, tuple[np.ndarray, float]],
    classes: Sequence[str],
    order: Sequence[int],
    parts: np.ndarray | None = None,
) -> Figure:
    """The absolute difference of student's and teacher's correlations, a matrix per run, all on one scale.

    Source: the figure of L2D, ICCV 2023 (Figure 5). A label whose probability never changes is grey.

    Args:
        differences: title of a run -> `mlkd.analysis.CorrelationDifference`, its matrix (q, q) and mean.
        classes: the q names.
        order: a permutation of the labels, as `mlkd.analysis.order_by_cluster` gives it.
        parts: (q,), the part of each label; lines are drawn between parts.
    """
    q = len(classes)
    side = min(2.4 + 0.05 * q, 6)
    columns = min(len(differences), 3 if q > 40 else 4)
    lines = -(-len(differences) // columns)
    fig, axes = subplots(lines, columns, width=side * columns + 1.8, height=(side + 0.5) * lines + 0.9)
    values = [matrix[~np.isnan(matrix)] for matrix, _ in differences.values()]
    high = max([0.01, *(found.max() for found in values if len(found))])
    for ax in axes.flat[len(differences) :]:
        ax.remove()
    names, size = [escape_math(classes[k]) for k in order], 6 if q <= 40 else 4
    for number, (ax, (title, (matrix, mean))) in enumerate(zip(axes.flat, differences.items(), strict=False)):
        picture = _matrix(ax, matrix, order, high)
        ax.set_title(f"{escape_math(title)}\nmean {mean:.3f}", fontsize=9)
        below = number + columns >= len(differences)
        ax.set_xticks(range(q) if below else [], names if below else [], rotation=90, fontsize=size)
        ax.set_yticks(range(q) if number % columns == 0 else [], names if number % columns == 0 else [], fontsize=size)
        for edge in () if parts is None else np.flatnonzero(np.diff(np.asarray(parts)[order])) + 0.5:
            ax.axhline(edge, color="#0072b2", lw=0.7)
            ax.axvline(edge, color="#0072b2", lw=0.7)
    fig.colorbar(picture, ax=fig.axes, label="difference of the correlations (lower is better)", shrink=0.7)
    return fig


def _matrix(ax: Axes, matrix: np.ndarray, order: Sequence[int], high: float) -> AxesImage:
    """A matrix of differences from 0 to `high`, in an order of the labels; grey where it is nan."""
    ax.set_facecolor("#dddddd")
    return ax.imshow(matrix[np.ix_(order, order)], cmap="magma_r", vmin=0, vmax=high)


def pair_images(
    matrix: np.ndarray,
    pair: tuple[int, int],
    classes: Sequence[str],
    order: Sequence[int],
    images: Sequence[np.ndarray],
    maps: Mapping[str, np.ndarray],
    *,
    contributions: Sequence[float] | np.ndarray,
) -> Figure:
    """A cell of a correlation difference, and beside the matrix some pictures with the maps of both labels.

    Args:
        matrix: (q, q), as in `mlkd.analysis.CorrelationDifference`; grey where it is nan.
        pair: two class indices; their cell is framed.
        classes: the q names.
        order: a permutation of the labels.
        images: b pictures, (H, W, 3) each.
        maps: title of a run -> (b, 2, h, w), a map for each of the two labels, in [0, 1].
        contributions: (b,), what each picture adds to the difference, as `mlkd.analysis.pair_contributions` gives it.
    """
    q, columns = len(classes), 1 + 2 * len(maps)
    fig, axes = subplots(1, 2, width=9.5, height=4.6, width_ratios=(4, columns))
    ax, beside = axes.flat
    known = matrix[~np.isnan(matrix)]
    shade = _matrix(ax, matrix, order, max([0.01, *known.tolist()]))
    names, size = [escape_math(classes[k]) for k in order], 7 if q <= 40 else 3.5
    ax.set_xticks(range(q), names, rotation=90, fontsize=size)
    ax.set_yticks(range(q), names, fontsize=size)
    places = np.argsort(order)[list(pair)]
    for column, row in (places, places[::-1]):
        ax.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, color="#0072b2", lw=2))
    ax.set_title("Difference of the correlations", fontsize=9)
    fig.colorbar(shade, ax=ax, label="lower is better", shrink=0.7)
    heads = ["image"] + [f"{escape_math(title)}:\n{escape_math(classes[k])}" for k in pair for title in maps]
    for column, head in enumerate(heads):
        beside.text(column + 0.5, -0.06, head, ha="center", va="bottom", fontsize=8)
    for row, (image, added) in enumerate(zip(images, contributions, strict=True)):
        top = 1.16 * row  # in one panel, as one for each picture takes twice the time
        height, width = np.array(image.shape[:2]) / max(image.shape[:2])
        found = [both[row, place] for place in (0, 1) for both in maps.values()]
        for column, one in enumerate([None, *found]):
            place = {"extent": (column + 0.02, column + 0.02 + 0.96 * width, top + 0.96 * height, top)}
            beside.imshow(image, interpolation="none", **place)
            if one is not None:
                beside.imshow(one, cmap="inferno", vmin=0, vmax=1, alpha=0.55, **place)
        beside.text(0.5, top + 0.98, f"{added:+.4f}", ha="center", va="top", fontsize=8)
    beside.set(xlim=(0, columns), ylim=(1.16 * max(len(images), 1), -0.35))
    beside.set(anchor="N")
    beside.set_axis_off()
    return fig


def label_pairs(matrices: Mapping[str, np.ndarray], labels: Sequence[str]) -> Figure:
    """The dependency of each two of a few labels, a matrix with numbers per run, all on one scale.

    Source: the figure of MDKD, ACM MM 2024 (Figure 6).

    Args:
        matrices: title of a run -> (labels, labels), as `mlkd.analysis.pair_dependencies` gives it.
        labels: their names.
    """
    side = 1.2 + 0.42 * len(labels)
    columns = min(len(matrices), 4)
    lines = -(-len(matrices) // columns)
    fig, axes = subplots(lines, columns, width=side * columns + 1.6, height=(side + 0.2) * lines + 0.8, sharey=True)
    for ax in axes.flat[len(matrices) :]:
        ax.remove()
    for ax, (title, matrix) in zip(axes.flat, matrices.items(), strict=False):
        picture = ax.imshow(matrix, cmap="viridis_r", vmin=0, vmax=1)
        annotate_cells(picture, np.where(np.eye(len(matrix)), np.nan, matrix))
        ax.set_xticks(range(len(labels)), [escape_math(name) for name in labels], rotation=90, fontsize=8)
        ax.set_yticks(range(len(labels)), [escape_math(name) for name in labels], fontsize=8)
        ax.set_title(escape_math(title), fontsize=9)
    fig.colorbar(picture, ax=fig.axes, label="dependency\n(low: go together)", shrink=0.8)
    return fig


def dependency_gaps(table: pd.DataFrame) -> Figure:
    """How far each run's dependencies are from the teacher's, per order: picture by picture, and of the means.

    Args:
        table: as `mlkd.analysis.dependency_gaps` returns it.
    """
    shades, orders = colors(dict.fromkeys(table["run"])), sorted(set(table["order"]))
    fig, axes = subplots(1, 2, width=8, height=3.2 + 0.1 * len(shades), sharey=True)
    panels = {"instance": "of each picture (instance level)", "batch": "of the means over pictures (batch level)"}
    for ax, (column, name) in zip(axes.flat, panels.items(), strict=True):
        for number, (title, shade) in enumerate(shades.items()):
            own = table[table["run"] == title]
            shift = 0.5 / len(shades) * (number - (len(shades) - 1) / 2)
            ax.plot([orders.index(n) + shift for n in own["order"]], own[column], "o", color=shade, ms=6)
        ax.set_xticks(range(len(orders)), [str(n) for n in orders])
        ax.set(xlabel="order: labels in a sequence", title=name, xlim=(-0.5, len(orders) - 0.5))
        ax.title.set_fontsize(9)
        ax.grid(axis="y", alpha=0.3)
    axes.flat[0].set_ylim(0, 1.08 * max(table["instance"].max(), table["batch"].max(), 1e-6))  # shared: of both panels
    axes.flat[0].set_ylabel("distance to the teacher's\ndependency (lower is better)")
    legend_above(fig, shades)
    return fig
