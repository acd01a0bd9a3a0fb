"""Figures of label correlations and dependencies in the predictions of networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from mlkd.plots.style import annotate_cells, colors, escape_math, legend_above, set_label_ticks, subplots


def correlation_differences(
    differences: Mapping[str, tuple[np.ndarray, float]],
    classes: Sequence[str],
    order: Sequence[int],
    clusters: np.ndarray | None = None,
) -> Figure:
    """Absolute differences between student and teacher label correlations, one matrix per run, on a common scale.

    Source: the figure of L2D, ICCV 2023 (Figure 5). Labels with constant probability are gray.

    Args:
        differences: title of a run -> `mlkd.analysis.CorrelationDifference`, its matrix (q, q) and mean.
        classes: the q names.
        order: a permutation of the labels, for example from `mlkd.analysis.order_by_cluster`.
        clusters: (q,), the label subset of each label; lines separate the subsets.
    """
    q = len(classes)
    side = min(2.4 + 0.05 * q, 6)
    columns = min(len(differences), 3 if q > 40 else 4)
    rows = -(-len(differences) // columns)
    fig, axes = subplots(rows, columns, width=side * columns + 1.8, height=(side + 0.5) * rows + 0.9)
    known = [matrix[~np.isnan(matrix)] for matrix, _ in differences.values()]
    high = max([0.01, *(values.max() for values in known if len(values))])
    for ax in axes.flat[len(differences) :]:
        ax.remove()
    names, size = [classes[k] for k in order], 6 if q <= 40 else 4
    for number, (ax, (title, (matrix, mean))) in enumerate(zip(axes.flat, differences.items(), strict=False)):
        image = _draw_difference(ax, matrix, order, high)
        ax.set_title(f"{escape_math(title)}\nmean {mean:.3f}", fontsize=9)
        set_label_ticks(ax.xaxis, names if number + columns >= len(differences) else [], size=size)
        set_label_ticks(ax.yaxis, names if number % columns == 0 else [], size=size)
        for edge in () if clusters is None else np.flatnonzero(np.diff(np.asarray(clusters)[order])) + 0.5:
            ax.axhline(edge, color="#0072b2", lw=0.7)
            ax.axvline(edge, color="#0072b2", lw=0.7)
    fig.colorbar(image, ax=fig.axes, label="difference of correlations\n(lower is better)", shrink=0.7)
    return fig


def _draw_difference(ax: Axes, matrix: np.ndarray, order: Sequence[int], high: float) -> AxesImage:
    """A matrix of differences from 0 to `high`, rows and columns in the given order; nan is gray."""
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
    """A correlation difference with one cell framed, beside images with the maps of the two labels of the cell.

    Args:
        matrix: (q, q), as in `mlkd.analysis.CorrelationDifference`; nan is gray.
        pair: two class indices; their cell is framed.
        classes: the q names.
        order: a permutation of the labels.
        images: b images, (H, W, 3) each.
        maps: title of a run -> (b, 2, h, w), a map for each of the two labels, in [0, 1].
        contributions: (b,), of each image to the difference, from `mlkd.analysis.pair_contributions`.
    """
    q, columns = len(classes), 1 + 2 * len(maps)
    fig, axes = subplots(1, 2, width=9.5, height=4.6, width_ratios=(4, columns))
    left, right = axes.flat
    known = matrix[~np.isnan(matrix)]
    difference = _draw_difference(left, matrix, order, max([0.01, *known.tolist()]))
    for axis in (left.xaxis, left.yaxis):
        set_label_ticks(axis, [classes[k] for k in order], size=7 if q <= 40 else 3.5)
    positions = np.argsort(order)[list(pair)]
    for column, row in (positions, positions[::-1]):
        left.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, color="#0072b2", lw=2))
    left.set_title("Difference of correlations", fontsize=9)
    fig.colorbar(difference, ax=left, label="lower is better", shrink=0.7)
    titles = ["image"] + [f"{escape_math(title)}:\n{escape_math(classes[k])}" for k in pair for title in maps]
    for column, title in enumerate(titles):
        right.text(column + 0.5, -0.06, title, ha="center", va="bottom", fontsize=8)
    for row, (image, contribution) in enumerate(zip(images, contributions, strict=True)):
        top = 1.16 * row  # all images in one panel: a panel per image takes twice the time
        height, width = np.array(image.shape[:2]) / max(image.shape[:2])
        overlays = [run_maps[row, number] for number in (0, 1) for run_maps in maps.values()]
        for column, overlay in enumerate([None, *overlays]):
            extent = (column + 0.02, column + 0.02 + 0.96 * width, top + 0.96 * height, top)
            right.imshow(image, interpolation="none", extent=extent)
            if overlay is not None:
                right.imshow(overlay, cmap="inferno", vmin=0, vmax=1, alpha=0.55, extent=extent)
        right.text(0.5, top + 0.98, f"{contribution:+.4f}", ha="center", va="top", fontsize=8)
    right.set(xlim=(0, columns), ylim=(1.16 * max(len(images), 1), -0.35), anchor="N")
    right.set_axis_off()
    return fig


def label_pairs(matrices: Mapping[str, np.ndarray], labels: Sequence[str]) -> Figure:
    """The dependency of each two of a few labels: one annotated matrix per run, on a common scale.

    Source: the figure of MDKD, ACM MM 2024 (Figure 6).

    Args:
        matrices: title of a run -> (labels, labels), from `mlkd.analysis.pair_dependencies`.
        labels: names of the labels.
    """
    side = 1.2 + 0.42 * len(labels)
    columns = min(len(matrices), 4)
    rows = -(-len(matrices) // columns)
    fig, axes = subplots(rows, columns, width=side * columns + 1.6, height=(side + 0.2) * rows + 0.8, sharey=True)
    for ax in axes.flat[len(matrices) :]:
        ax.remove()
    for ax, (title, matrix) in zip(axes.flat, matrices.items(), strict=False):
        image = ax.imshow(matrix, cmap="viridis_r", vmin=0, vmax=1)
        annotate_cells(image, np.where(np.eye(len(matrix)), np.nan, matrix))
        for axis in (ax.xaxis, ax.yaxis):
            set_label_ticks(axis, labels, size=8)
        ax.set_title(escape_math(title), fontsize=9)
    fig.colorbar(image, ax=fig.axes, label="dependency (low:\nsimilar probabilities)", shrink=0.8)
    return fig


def dependency_gaps(table: pd.DataFrame) -> Figure:
    """Distance between each run's dependencies and the teacher's for each order, at instance and at batch level.

    Args:
        table: from `mlkd.analysis.dependency_gaps`.
    """
    run_colors, orders = colors(dict.fromkeys(table["run"])), sorted(set(table["order"]))
    fig, axes = subplots(1, 2, width=8, height=3.2 + 0.1 * len(run_colors), sharey=True)
    panels = {"instance": "instance level: of each image", "batch": "batch level: of the means over images"}
    for ax, (column, name) in zip(axes.flat, panels.items(), strict=True):
        for number, (title, run_color) in enumerate(run_colors.items()):
            rows = table[table["run"] == title]
            shift = 0.5 / len(run_colors) * (number - (len(run_colors) - 1) / 2)
            ax.plot([orders.index(n) + shift for n in rows["order"]], rows[column], "o", color=run_color, ms=6)
        ax.set_xticks(range(len(orders)), [str(n) for n in orders])
        ax.set(xlabel="order (labels in a sequence)", title=name, xlim=(-0.5, len(orders) - 0.5))
        ax.title.set_fontsize(9)
        ax.grid(axis="y", alpha=0.3)
    axes.flat[0].set_ylim(0, 1.08 * max(table["instance"].max(), table["batch"].max(), 1e-6))  # of both panels
    axes.flat[0].set_ylabel("distance to the teacher's\ndependency (lower is better)")
    legend_above(fig, run_colors)
    return fig
