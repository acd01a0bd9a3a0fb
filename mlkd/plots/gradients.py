"""Figures of the distillation microscope: what each loss term pulls."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mlkd.plots.style import annotate_cells, escape_math, legend_above, other_looks, subplots


def gradient_terms(table: pd.DataFrame) -> Figure:
    """Over the training: each loss term's share of the gradient norm, and its cosine to the first term's gradient.

    Args:
        table: `Run.gradients`, or rows of `mlkd.training.gradients.gradients` with a column `step`.
    """
    table = table[table["class"] == ""]
    looks = other_looks(dict.fromkeys(table["term"]))
    base = next(iter(looks), "")
    fig, axes = subplots(1, 2, width=8.5, height=3.3)
    for ax, column in zip(axes.flat, ("fraction", "cosine"), strict=True):
        for term, look in looks.items():
            own = table[table["term"] == term]
            if column == "fraction" or term != base:
                ax.plot(own["step"], own[column] * (100 if column == "fraction" else 1), ms=5, lw=1.3, **look)
        ax.set_xlabel("step")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.grid(alpha=0.3)
    axes.flat[0].set(ylabel="share of the gradient norm (%)", ylim=(0, 102), title="How strongly each term pulls")
    axes.flat[1].set(ylabel=f"cosine to the gradient of {base}", ylim=(-1.05, 1.05), title=f"With or against {base}")
    axes.flat[1].axhline(0, color="black", lw=0.8)
    legend_above(fig, looks)
    return fig


def gradient_classes(table: pd.DataFrame) -> Figure:
    """For each class, the means over the training: the terms' shares, and their cosines to the first term's gradient.

    Args:
        table: `Run.gradients`, or rows of `mlkd.training.gradients.gradients` per class; its order is the figure's.
    """
    table = table[table["class"] != ""]
    terms, classes = list(dict.fromkeys(table["term"])), list(dict.fromkeys(table["class"]))
    means = table.groupby(["class", "term"])[["fraction", "cosine"]].mean()
    fig, axes = subplots(
        1,
        2,
        width=3.4 + 1.1 * len(terms),
        height=1.4 + 0.21 * len(classes),
        sharey=True,
        width_ratios=(max(len(terms), 1), max(len(terms) - 1, 1)),
    )
    panels = {
        "fraction": (terms, "Share of the gradient norm (%)", "viridis", (0, 100), "{:.0f}"),
        "cosine": (terms[1:], f"Cosine to the gradient of {(terms or [''])[0]}", "RdBu", (-1, 1), "{:+.2f}"),
    }
    for ax, (column, (shown, title, shades, limits, form)) in zip(axes.flat, panels.items(), strict=True):
        values = means[column].unstack("term").reindex(index=classes, columns=shown).to_numpy(float)
        values = values * 100 if column == "fraction" else values
        ax.set(facecolor="#dddddd", title=title)
        ax.title.set_fontsize(9)
        if not values.size:
            continue
        picture = ax.imshow(values, cmap=shades, vmin=limits[0], vmax=limits[1], aspect="auto")
        annotate_cells(picture, values, form)
        ax.set_xticks(range(len(shown)), [escape_math(name) for name in shown])
        ax.set_yticks(
            range(len(classes)), [escape_math(name) for name in classes], fontsize=8 if len(classes) < 40 else 6
        )
    return fig
