"""Figures of activation maps, and of how well they hit the objects."""

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
from mlkd.plots.style import colors, dots, escape_math, legend_above, subplots, wrap_names

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
    """A line per picture: the picture with its labels, the target label in red, then each run's map over it.

    Source: the figure of CPSD, IJCAI 2022 (Figure 4); L2D's and MDKD's grids are the same with other columns.

    Args:
        images: b pictures, (H, W, 3) each.
        maps: title of a run -> (b, h, w), one map per picture, in [0, 1]; where a map is nan the picture stays bare.
        labels: b names, the label that each map is of.
        others: the other labels of each picture.
        boxes: for each picture (m, 4), x1, y1, x2, y2 of the label's boxes as shares of the sides.
        probabilities: title of a run -> (b,), what it gives the label.
        opacity: of the maps, in [0, 1].
    """
    columns = 1 + len(maps)
    fig, axes = subplots(len(images), columns, width=1.75 * columns + 0.9, height=2.05 * len(images) + 0.5)
    shade = None
    for row, (line, image) in enumerate(zip(axes, images, strict=True)):
        for ax in line:
            draw_image(ax, image, None if boxes is None else boxes[row])
        _below(line[0], labels[row], 3, color=TARGET, fontweight="bold", fontsize=8)
        if others is not None and len(others[row]):
            _below(line[0], wrap_names(others[row], 26), 14, fontsize=7)
        for ax, (title, found) in zip(line[1:], maps.items(), strict=True):
            if not np.isnan(found[row]).any():
                shade = draw_cam(ax, image, found[row], opacity)
            if probabilities is not None:
                _below(ax, f"{100 * probabilities[title][row]:.0f} %", 3, fontsize=8)
    for ax, title in zip(axes[0], ["image", *maps], strict=True):
        ax.set_title(escape_math(title), fontsize=9)
    if shade is not None:
        fig.colorbar(shade, ax=axes, label="share of the map's largest value", shrink=0.6)
    return fig


def draw_image(ax: Axes, image: np.ndarray, boxes: np.ndarray | None = None) -> None:
    """A picture (H, W, 3) without axes, with dashed frames at boxes (m, 4), x1, y1, x2, y2 as shares of the sides."""
    height, width = image.shape[:2]
    ax.imshow(image, interpolation="none", extent=(0, width, height, 0))
    ax.set_axis_off()
    for x1, y1, x2, y2 in () if boxes is None else boxes * [width, height, width, height]:
        ax.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, color="white", lw=1.2, ls="--"))


def draw_cam(ax: Axes, image: np.ndarray, found: np.ndarray, opacity: float) -> AxesImage:
    """A map (h, w) in [0, 1] over the picture (H, W, 3) that was drawn there."""
    height, width = image.shape[:2]
    return ax.imshow(found, cmap="inferno", vmin=0, vmax=1, extent=(0, width, height, 0), alpha=opacity)


def cam_overlay(
    image: np.ndarray,
    found: np.ndarray,
    label: int,
    probabilities: np.ndarray,
    truth: np.ndarray,
    classes: Sequence[str],
    *,
    boxes: np.ndarray | None = None,
    opacity: float = 0.55,
    top: int = 10,
) -> Figure:
    """A picture, the map of one label over it, and beside them what the network says of the picture's labels.

    Args:
        image: (H, W, 3).
        found: (h, w), the map, in [0, 1].
        label: the class index that the map is of; its name is red.
        probabilities, truth, classes: of all labels, (q,).
        boxes: (m, 4), x1, y1, x2, y2 of the label's boxes as shares of the sides.
        opacity: of the map, in [0, 1].
        top: labels with a bar at most: the picture's own and the one shown come first, then the likeliest others.
    """
    fig, axes = subplots(1, 3, width=9, height=2.9, width_ratios=(1, 1.2, 1))
    for ax in axes.flat[:2]:
        draw_image(ax, image, boxes)
    shade = draw_cam(axes.flat[1], image, found, opacity)
    axes.flat[0].set_title("image", fontsize=9)
    axes.flat[1].set_title(escape_math(classes[label]), fontsize=9, color=TARGET, fontweight="bold")
    fig.colorbar(shade, ax=axes.flat[1], label="share of the map's\nlargest value", shrink=0.8)
    first = np.lexsort((-probabilities, -(truth.astype(bool) | (np.arange(len(truth)) == label)).astype(int)))[:top]
    likely = first[np.argsort(-probabilities[first])][::-1]
    draw_prediction_bars(axes.flat[2], probabilities, truth, classes, likely)
    for text, k in zip(axes.flat[2].get_yticklabels(), likely, strict=True):
        if k == label:
            text.set(color=TARGET, fontweight="bold")
    return fig


def _below(ax: Axes, text: str, points: float, **settings) -> None:
    """Text in the middle below a picture, that many points away from it."""
    away: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "ha": "center", "va": "top"}
    ax.annotate(escape_math(text), (0.5, 0), xytext=(0, -points), **away, **settings)


def localization_plot(table: pd.DataFrame, by: str, title_of: str) -> Figure:
    """How well maps hit the boxes: the pointing game beside the energy inside, with a black line for chance.

    Args:
        table: as `mlkd.analysis.localization_summary` returns it for the columns `by` and `title_of`.
        by: what makes a line, such as "size" or "label".
        title_of: what makes a colour, such as "run" or "method".
    """
    rows, shades = list(dict.fromkeys(table[by])), colors(dict.fromkeys(table[title_of]))
    height = 1.3 + len(rows) * max(0.3, 0.12 * len(shades))
    fig, axes = subplots(1, 2, width=8.5, height=height, sharey=True)
    for ax, value, name in zip(axes.flat, ("hit", "energy"), ("pointing game: hits", "energy inside"), strict=True):
        dots(ax, table, value, rows, by, shades, title_of)
        chance = table.groupby(by, observed=True)["area"].mean()
        for place, row in enumerate(rows):
            ax.plot([100 * chance[row]] * 2, [place - 0.4, place + 0.4], color="black", lw=1.5, zorder=0)
        ax.set(xlim=(-3, 103), xlabel=f"{name} (%, higher is better)")
    counts = table.groupby(by, observed=True)["n"].max()
    axes.flat[0].set_yticks(range(len(rows)), [f"{escape_math(str(row))} (n = {counts[row]})" for row in rows])
    legend_above(fig, shades, marks=["chance"])
    return fig
