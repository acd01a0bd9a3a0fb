"""What all figures share: colours, axes, text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
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
"""One colour per method in every figure: Okabe and Ito's, safe for colour-blind readers, and three more."""
SPARE_COLORS = ("#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#0072b2", "#7b3294", "#8c564b", "#7fb800")
MORE_COLORS = ("#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
OTHER_COLORS = ("#332288", "#999933", "#ee3377", "#882255", "#c8b050")
"""For what is no method, such as protocols and loss terms: colours that no method has, after Tol."""
GAIN, LOSS = OTHER_COLORS[0], OTHER_COLORS[2]
OTHER_MARKERS = "oDs^vPX*"


def color(title: str) -> str:
    """The colour of a method, or of a group of runs such as "l2d student"."""
    name = title.split()[0]
    return COLORS.get(name) or MORE_COLORS[sum(map(ord, name)) % len(MORE_COLORS)]


def colors(titles: Iterable[str]) -> dict[str, str]:
    """A colour for each title of one figure: its own, or the next free one where an earlier title has it."""
    own = {title: color(title) for title in titles}
    spare = [shade for shade in SPARE_COLORS if shade not in own.values()]
    found: dict[str, str] = {}
    for title, shade in own.items():
        found[title] = spare.pop(0) if shade in found.values() and spare else shade
    return found


def other_looks(titles: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Colour and marker for each of a few titles that are no methods, as `Axes.plot` takes them."""
    return {
        title: {
            "color": OTHER_COLORS[number % len(OTHER_COLORS)],
            "marker": OTHER_MARKERS[number % len(OTHER_MARKERS)],
        }
        for number, title in enumerate(titles)
    }


def dot(ax: Axes, at: float, found: Iterable[float], **settings) -> None:
    """A value, its low and its high end on the horizontal axis at a height; nothing of what is nan."""
    value, low, high = found
    ax.plot([low, high], [at, at], color=settings.get("color"), lw=1.6, alpha=0.7)
    ax.plot([value], [at], "o", ms=5, **settings)


def dots(
    ax: Axes,
    table: pd.DataFrame,
    value: str,
    rows: Sequence[str],
    row_of: str,
    shades: Mapping[str, str],
    title_of: str,
    scale: float = 100,
) -> None:
    """A line for each of `rows`, the first on top, and on it a dot with its interval for each title of `shades`.

    Args:
        table: `value`, `<value>_low`, `<value>_high` and the columns `row_of` and `title_of`.
        scale: of the axis; 100 for fractions in %.
    """
    step = 0.7 / max(len(shades), 1)
    for number, (title, shade) in enumerate(shades.items()):
        own = table[table[title_of] == title].set_index(row_of)
        for height, row in enumerate(rows):
            if row in own.index:
                at = height + step * (number - (len(shades) - 1) / 2)
                found = [scale * own.loc[row, f"{value}{end}"] for end in ("", "_low", "_high")]
                dot(ax, at, found, color=shade, label=escape_math(title) if height == 0 else None)
    ax.set_yticks(range(len(rows)), [escape_math(str(row)) for row in rows], fontsize=8 if len(rows) < 40 else 6)
    ax.set_ylim(max(len(rows), 1) - 0.5, -0.5)
    ax.grid(axis="x", alpha=0.3)


def legend_above(
    fig: Figure, shades: Mapping[str, str | dict[str, Any]], columns: int = 4, marks: Sequence[str] = ()
) -> None:
    """A legend of coloured dots (or of `other_looks`), and of black upright lines, above all panels."""
    handles = []
    for title, shade in shades.items():
        look = {"color": shade, "marker": "o"} if isinstance(shade, str) else shade
        handles.append(Line2D([], [], ls="", label=escape_math(title), **look))
    handles += [Line2D([], [], marker="|", ms=11, mew=1.5, ls="", color="black", label=mark) for mark in marks]
    fig.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), columns) or 1, frameon=False)


def annotate_cells(picture: AxesImage, values: np.ndarray, form: str = "{:.2f}", size: float = 7) -> None:
    """The values (rows, columns) of a drawn matrix in its cells, black or white; nothing where one is nan."""
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            red, green, blue, _ = picture.cmap(picture.norm(value))
            shade = "black" if 0.3 * red + 0.59 * green + 0.11 * blue > 0.5 else "white"
            text = form.format(round(value, 2) + 0.0)  # no "-0.00"
            picture.axes.text(column, row, text, ha="center", va="center", fontsize=size, color=shade)


def subplots(rows: int, columns: int, *, width: float, height: float, **settings) -> tuple[Figure, np.ndarray]:
    """A figure that a notebook shows once, when a cell returns it, with its axes as an array (rows, columns)."""
    ratios = settings.pop("width_ratios", None)
    fig, axes = plt.subplots(
        rows,
        columns,
        figsize=(width, height),
        layout="constrained",
        squeeze=False,
        width_ratios=ratios,
        **settings,
    )
    plt.close(fig)
    for ax in axes.flat:
        _plain(ax)
    return fig, axes


def _plain(ax: Axes) -> None:
    ax.spines[["top", "right"]].set_visible(False)


def wrap_names(labels: Sequence[str], width: int = 20) -> str:
    """Label names in lines of about `width` characters."""
    lines = [""]
    for label in labels:
        piece = label if not lines[-1] else f"{lines[-1]}, {label}"
        if len(piece) > width and lines[-1]:
            lines[-1] += ","
            lines.append(label)
        else:
            lines[-1] = piece
    return "\n".join(lines) if labels else "(none)"


def escape_math(text: str) -> str:
    """Text that matplotlib draws as it is, dollar signs too, instead of reading a formula between them."""
    return text.replace("$", r"\$")
