"""Colors, axes and text common to all figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis, XAxis
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D

COLORS = {
    "teacher": "#444444",
    "vanilla": "#8c8c8c",
    "l2d": "#0072b2",
    "mdkd": "#d55e00",
    "cpsd": "#009e73",
    "mskd": "#cc79a7",
    "mld": "#56b4e9",
    "mse": "#e69f00",
    "ps": "#7b3294",
    "sd": "#8c564b",
    "random-psd": "#7fb800",
    "chance": "#000000",
}
"""The color of each method in every figure: the colorblind-safe palette of Okabe and Ito, and three more."""
SPARE_COLORS = ("#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#0072b2", "#7b3294", "#8c564b", "#7fb800")
MORE_COLORS = ("#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
OTHER_COLORS = ("#332288", "#999933", "#ee3377", "#882255", "#c8b050")
"""Colors of everything that is not a method, such as protocols and loss terms, after Tol; no method has them."""
GAIN, LOSS = OTHER_COLORS[0], OTHER_COLORS[2]
OTHER_MARKERS = "oDs^vPX*"


def color(title: str) -> str:
    """The color of a method, or of a group of runs such as "l2d student"."""
    name = title.split()[0]
    return COLORS.get(name) or MORE_COLORS[sum(map(ord, name)) % len(MORE_COLORS)]


def colors(titles: Iterable[str]) -> dict[str, str]:
    """A different color for each title in a figure: its `color`, or the next spare one if that is taken."""
    preferred = {title: color(title) for title in titles}
    spare = [value for value in SPARE_COLORS if value not in preferred.values()]
    result: dict[str, str] = {}
    for title, value in preferred.items():
        result[title] = spare.pop(0) if value in result.values() and spare else value
    return result


def styles(titles: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Color and marker, as for `Axes.plot`, for each of a few titles that are not methods."""
    return {
        title: {
            "color": OTHER_COLORS[number % len(OTHER_COLORS)],
            "marker": OTHER_MARKERS[number % len(OTHER_MARKERS)],
        }
        for number, title in enumerate(titles)
    }


def draw_interval(ax: Axes, y: float, value_low_high: Iterable[float], **settings) -> None:
    """A dot at a value and a line from its lower to its upper end, at height y; nan is not drawn."""
    value, low, high = value_low_high
    ax.plot([low, high], [y, y], color=settings.get("color"), lw=1.6, alpha=0.7)
    ax.plot([value], [y], "o", ms=5, **settings)


def draw_intervals(
    ax: Axes,
    table: pd.DataFrame,
    value: str,
    rows: Sequence[str],
    row_column: str,
    title_colors: Mapping[str, str],
    title_column: str,
    scale: float = 100,
) -> None:
    """For each of `rows`, the first on top, a dot with its interval for each title of `title_colors`.

    Args:
        table: `value`, `<value>_low`, `<value>_high`, `row_column` and `title_column`.
        scale: factor for the values; 100 for fractions in %.
    """
    step = 0.7 / max(len(title_colors), 1)
    for number, (title, title_color) in enumerate(title_colors.items()):
        values = table[table[title_column] == title].set_index(row_column)
        for height, row in enumerate(rows):
            if row in values.index:
                y = height + step * (number - (len(title_colors) - 1) / 2)
                interval = [scale * values.loc[row, f"{value}{end}"] for end in ("", "_low", "_high")]
                draw_interval(ax, y, interval, color=title_color, label=escape_math(title) if height == 0 else None)
    set_label_ticks(ax.yaxis, [str(row) for row in rows])
    ax.set_ylim(max(len(rows), 1) - 0.5, -0.5)
    ax.grid(axis="x", alpha=0.3)


def legend_above(
    fig: Figure, entries: Mapping[str, str | dict[str, Any]], columns: int = 4, lines: Sequence[str] = ()
) -> None:
    """A legend above all panels: a marker per title (a color, or a style of `styles`), then black vertical lines."""
    handles = []
    for title, entry in entries.items():
        style = {"color": entry, "marker": "o"} if isinstance(entry, str) else entry
        handles.append(Line2D([], [], ls="", label=escape_math(title), **style))
    handles += [Line2D([], [], marker="|", ms=11, mew=1.5, ls="", color="black", label=line) for line in lines]
    fig.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), columns) or 1, frameon=False)


def annotate_cells(image: AxesImage, values: np.ndarray, form: str = "{:.2f}", size: float = 7) -> None:
    """The values (rows, columns) of a matrix in its cells, in black or white; nan is left blank."""
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            red, green, blue, _ = image.cmap(image.norm(value))
            text_color = "black" if 0.3 * red + 0.59 * green + 0.11 * blue > 0.5 else "white"
            text = form.format(round(value, 2) + 0.0)  # no "-0.00"
            image.axes.text(column, row, text, ha="center", va="center", fontsize=size, color=text_color)


def set_label_ticks(axis: Axis, labels: Sequence[str], size: float | None = None) -> None:
    """One tick per label, in small type where there are many; labels on the x-axis are rotated."""
    axis.set_ticks(
        range(len(labels)),
        [escape_math(label) for label in labels],
        fontsize=size or (8 if len(labels) < 40 else 6),
        rotation=90 if isinstance(axis, XAxis) else 0,
    )


def subplots(rows: int, columns: int, *, width: float, height: float, **settings) -> tuple[Figure, np.ndarray]:
    """A closed figure, which a notebook shows once when a cell returns it, and its axes as an array (rows, columns)."""
    fig, axes = plt.subplots(rows, columns, figsize=(width, height), layout="constrained", squeeze=False, **settings)
    plt.close(fig)
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
    return fig, axes


def wrap_names(labels: Sequence[str], width: int = 20) -> str:
    """Label names in lines of about `width` characters."""
    lines = [""]
    for label in labels:
        line = label if not lines[-1] else f"{lines[-1]}, {label}"
        if len(line) > width and lines[-1]:
            lines[-1] += ","
            lines.append(label)
        else:
            lines[-1] = line
    return "\n".join(lines) if labels else "(none)"


def escape_math(text: str) -> str:
    """Text that matplotlib draws literally, including dollar signs, which otherwise enclose a formula."""
    return text.replace("$", r"\$")
