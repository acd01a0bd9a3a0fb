"""Figures of the gradients of the loss terms."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mlkd.plots.style import annotate_cells, escape_math, legend_above, set_label_ticks, styles, subplots


def gradient_terms(table: pd.DataFrame) -> Figure:
    """Over the training: each loss term's fraction of the gradient norm, and its cosine to the first term's gradient.

    Args:
        table: `Run.gradients`, or rows of `mlkd.training.gradients.gradients` with a column `step`.
    """
    table = table[table["class"] == ""]
    term_styles = styles(dict.fromkeys(table["term"]))
    base = next(iter(term_styles), "")
    fig, axes = subplots(1, 2, width=8.5, height=3.3)
    fractions, cosines = axes.flat
    for term, style in term_styles.items():
        rows = table[table["term"] == term]
        fractions.plot(rows["step"], 100 * rows["fraction"], ms=5, lw=1.3, **style)
        if term != base:
            cosines.plot(rows["step"], rows["cosine"], ms=5, lw=1.3, **style)
    for ax in axes.flat:
        ax.set_xlabel("step")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.grid(alpha=0.3)
    fractions.set(ylabel="fraction of the gradient norm (%)", ylim=(0, 102), title="Gradient norm of each loss term")
    cosines.set(ylabel=f"cosine to the gradient of {base}", ylim=(-1.05, 1.05), title=f"Alignment with {base}")
    cosines.axhline(0, color="black", lw=0.8)
    legend_above(fig, term_styles)
    return fig


def gradient_classes(table: pd.DataFrame) -> Figure:
    """Means over the training for each class: the fractions of `gradient_terms`, and the cosines.

    Args:
        table: `Run.gradients`, or rows of `mlkd.training.gradients.gradients` per class; the classes keep its order.
    """
    table = table[table["class"] != ""]
    terms, classes = list(dict.fromkeys(table["term"])), list(dict.fromkeys(table["class"]))
    means = table.assign(fraction=100 * table["fraction"]).groupby(["class", "term"])[["fraction", "cosine"]].mean()
    fig, axes = subplots(
        1,
        2,
        width=3.4 + 1.1 * len(terms),
        height=1.4 + 0.21 * len(classes),
        sharey=True,
        width_ratios=(max(len(terms), 1), max(len(terms) - 1, 1)),
    )
    panels = {
        "fraction": (terms, "Fraction of the gradient norm (%)", "viridis", (0, 100), "{:.0f}"),
        "cosine": (terms[1:], f"Cosine to the gradient of {(terms or [''])[0]}", "RdBu", (-1, 1), "{:+.2f}"),
    }
    for ax, (column, (columns, title, cmap, (low, high), form)) in zip(axes.flat, panels.items(), strict=True):
        values = means[column].unstack("term").reindex(index=classes, columns=columns).to_numpy(float)
        ax.set(facecolor="#dddddd", title=title)
        ax.title.set_fontsize(9)
        if not values.size:
            continue
        image = ax.imshow(values, cmap=cmap, vmin=low, vmax=high, aspect="auto")
        annotate_cells(image, values, form)
        ax.set_xticks(range(len(columns)), [escape_math(name) for name in columns])
        set_label_ticks(ax.yaxis, classes)
    return fig
