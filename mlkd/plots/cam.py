"""Figures of class activation maps, and of how well they localize the objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from mlkd.plots.images import draw_prediction_bars
from mlkd.plots.style import colors, draw_intervals, escape_math, legend_above, subplots, wrap_names

TARGET = "#d62728"
"""The red of the label whose map is shown."""


def cam_grid(
    images: Sequence[np.ndarray],
    maps: Mapping[str, np.ndarray],
    labels: Sequence[str],
    others: Sequence[Sequence[str]] | None = None,
    *,
    boxes: Sequence[np.ndarray] | None = None,
    probabilities: Mapping[str, np.ndarray] | None = None,
    opacity: float = 0.55,
) -> Figure:
    """One row per image: the image with its labels, the target label in red, then each run's map over the image.

    Source: the layout of CPSD, IJCAI 2022 (Figure 4); the grids of L2D and MDKD differ in the columns only.

    Args:
        images: b images, (H, W, 3) each.
        maps: title of a run -> (b, h, w), one map per image, in [0, 1]; nan for no map.
        labels: b names, the target label of each map.
        others: the other labels of each image.
        boxes: for each image (m, 4), x1, y1, x2, y2 of the target label's boxes as fractions of the sides.
        probabilities: title of a run -> (b,), its probability of the target label.
        opacity: of the maps, in [0, 1].
    """
    columns = 1 + len(maps)
    fig, axes = subplots(len(images), columns, width=1.75 * columns + 0.9, height=2.05 * len(images) + 0.5)
    drawn_map = None
    for i, (row_axes, image) in enumerate(zip(axes, images, strict=True)):
        for ax in row_axes:
            draw_image(ax, image, None if boxes is None else boxes[i])
        _text_below(row_axes[0], labels[i], 3, color=TARGET, fontweight="bold", fontsize=8)
        if others is not None and len(others[i]):
            _text_below(row_axes[0], wrap_names(others[i], 26), 14, fontsize=7)
        for ax, (title, run_maps) in zip(row_axes[1:], maps.items(), strict=True):
            if not np.isnan(run_maps[i]).any():
                drawn_map = draw_cam(ax, image, run_maps[i], opacity)
            if probabilities is not None:
                _text_below(ax, f"{100 * probabilities[title][i]:.0f} %", 3, fontsize=8)
    for ax, title in zip(axes[0], ["image", *maps], strict=True):
        ax.set_title(escape_math(title), fontsize=9)
    if drawn_map is not None:
        fig.colorbar(drawn_map, ax=axes, label="fraction of the map's maximum", shrink=0.6)
    return fig


def draw_image(ax: Axes, image: np.ndarray, boxes: np.ndarray | None = None) -> None:
    """An image (H, W, 3) without axes, with dashed boxes (m, 4), x1, y1, x2, y2 as fractions of the sides."""
    height, width = image.shape[:2]
    ax.imshow(image, interpolation="none", extent=(0, width, height, 0))
    ax.set_axis_off()
    for x1, y1, x2, y2 in () if boxes is None else boxes * [width, height, width, height]:
        ax.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, color="white", lw=1.2, ls="--"))


def draw_cam(ax: Axes, image: np.ndarray, cam: np.ndarray, opacity: float) -> AxesImage:
    """A map (h, w) in [0, 1] over an image (H, W, 3) that is already drawn."""
    height, width = image.shape[:2]
    return ax.imshow(cam, cmap="inferno", vmin=0, vmax=1, extent=(0, width, height, 0), alpha=opacity)


def cam_overlay(
    image: np.ndarray,
    cam: np.ndarray,
    label: int,
    probabilities: np.ndarray,
    ground_truth: np.ndarray,
    classes: Sequence[str],
    *,
    boxes: np.ndarray | None = None,
    opacity: float = 0.55,
    top: int = 10,
) -> Figure:
    """An image, the map of one label over it, and the predicted probabilities of the image.

    Args:
        image: (H, W, 3).
        cam: (h, w), the map, in [0, 1].
        label: the class index of the map; its name is red.
        probabilities, ground_truth, classes: of all labels, (q,).
        boxes: (m, 4), x1, y1, x2, y2 of the label's boxes as fractions of the sides.
        opacity: of the map, in [0, 1].
        top: maximum number of labels with a bar: those that are present and `label` first, then the most probable.
    """
    fig, axes = subplots(1, 3, width=9, height=2.9, width_ratios=(1, 1.2, 1))
    left, middle, right = axes.flat
    for ax in (left, middle):
        draw_image(ax, image, boxes)
    drawn_map = draw_cam(middle, image, cam, opacity)
    left.set_title("image", fontsize=9)
    middle.set_title(escape_math(classes[label]), fontsize=9, color=TARGET, fontweight="bold")
    fig.colorbar(drawn_map, ax=middle, label="fraction of the\nmap's maximum", shrink=0.8)
    first = ground_truth.astype(bool) | (np.arange(len(ground_truth)) == label)
    shown = np.lexsort((-probabilities, -first.astype(int)))[:top]
    shown = shown[np.argsort(-probabilities[shown])][::-1]
    draw_prediction_bars(right, probabilities, ground_truth, classes, shown)
    for text, k in zip(right.get_yticklabels(), shown, strict=True):
        if k == label:
            text.set(color=TARGET, fontweight="bold")
    return fig


def _text_below(ax: Axes, text: str, points: float, **settings) -> None:
    """Centered text, `points` points below an image."""
    position: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "ha": "center", "va": "top"}
    ax.annotate(escape_math(text), (0.5, 0), xytext=(0, -points), **position, **settings)


def localization_plot(table: pd.DataFrame, by: str, color_by: str) -> Figure:
    """The pointing game and the energy inside the boxes, with a black line at the value of a random map.

    Args:
        table: from `mlkd.analysis.localization_summary` for the columns `by` and `color_by`.
        by: column of the rows, such as "size" or "label".
        color_by: column of the colors, such as "run" or "method".
    """
    rows, title_colors = list(dict.fromkeys(table[by])), colors(dict.fromkeys(table[color_by]))
    height = 1.3 + len(rows) * max(0.3, 0.12 * len(title_colors))
    fig, axes = subplots(1, 2, width=8.5, height=height, sharey=True)
    groups = table.groupby(by, observed=True)
    area, count = groups["area"].mean(), groups["n"].max()
    panels = {"hit": "pointing game: hits", "energy": "energy inside the boxes"}
    for ax, (value, name) in zip(axes.flat, panels.items(), strict=True):
        draw_intervals(ax, table, value, rows, by, title_colors, color_by)
        for y, row in enumerate(rows):
            ax.plot([100 * area[row]] * 2, [y - 0.4, y + 0.4], color="black", lw=1.5, zorder=0)
        ax.set(xlim=(-3, 103), xlabel=f"{name} (%, higher is better)")
    axes.flat[0].set_yticks(range(len(rows)), [f"{escape_math(str(row))} (n = {count[row]})" for row in rows])
    legend_above(fig, title_colors, lines=["random map"])
    return fig
