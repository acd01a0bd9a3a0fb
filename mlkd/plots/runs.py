"""Figures of runs: how they trained and what they score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mlkd.data import MultiLabelData
from mlkd.plots.style import GAIN, LOSS, OTHER_COLORS, color, colors, escape_math, legend_above, subplots
from mlkd.progress import TIMING


def training_curves(histories: Mapping[str, Sequence[pd.DataFrame]]) -> Figure:
    """Left: mAP on validation over the epochs. Then one panel for each loss term. A line per seed.

    Args:
        histories: title of a group of runs -> one history per seed.
    """
    known = (*TIMING, "val_mAP")
    terms = list(dict.fromkeys(name for group in histories.values() for h in group for name in h if name not in known))
    panels, shades = ["val_mAP", *terms], colors(histories)
    columns = min(len(panels), 3)
    lines = -(-len(panels) // columns)
    fig, axes = subplots(lines, columns, width=3.1 * columns, height=2.5 * lines)
    for ax in axes.flat[len(panels) :]:
        ax.remove()
    for ax, panel in zip(axes.flat, panels, strict=False):
        scale = 100 if panel == "val_mAP" else 1
        for title, group in histories.items():
            for position, history in enumerate(h for h in group if panel in h):
                values, label = scale * history[panel], title if position == 0 else None
                ax.plot(history["epoch"], values, ".-", ms=4, lw=1.3, color=shades[title], label=label, alpha=0.8)
        ax.set_title(
            "mAP on validation (%, higher is better)" if panel == "val_mAP" else f"loss term {panel}, weighted"
        )
        ax.set_xlabel("epoch")
        ax.title.set_fontsize(9)
        ax.grid(alpha=0.3)
    if histories:
        axes.flat[0].legend(frameon=False, fontsize=8)
    return fig


def scores_by_seed(scores: Mapping[str, Sequence[float]], *, metric: str = "mAP", split: str = "test") -> Figure:
    """One dot per seed, a bar for the mean; the axis does not start at 0, and says so."""
    titles, shades = list(scores), colors(scores)
    fig, axes = subplots(1, 1, width=6.2, height=1.2 + 0.42 * len(titles))
    ax = axes.flat[0]
    for position, title in enumerate(titles):
        values = 100 * np.asarray(scores[title])
        ax.plot(values, np.full(len(values), position), "o", color=shades[title], ms=6, alpha=0.7)
        ax.plot([values.mean()] * 2, [position - 0.3, position + 0.3], color=shades[title], lw=2.5)
        ax.annotate(f"{values.mean():.1f}", (values.mean(), position - 0.32), ha="center", va="bottom", fontsize=8)
    ax.set_yticks(range(len(titles)), [f"{title} (n = {len(scores[title])})" for title in titles])
    ax.set(
        ylim=(len(titles) - 0.4, -0.8),
        xlabel=f"{metric} on {split} (%, higher is better; axis does not start at 0)",
    )
    ax.margins(x=0.15)
    ax.grid(axis="x", alpha=0.3)
    return fig


def protocol_scores(table: pd.DataFrame, metrics: Sequence[str] = ("CF1", "CF1_macro", "OF1")) -> Figure:
    """The same predictions under every protocol: a panel per metric, a line per group of runs.

    Args:
        table: as `mlkd.analysis.score_table` returns it.
    """
    protocols, shades = list(dict.fromkeys(table["protocol"])), colors(dict.fromkeys(table["run"]))
    step = min(0.14, 0.75 / len(shades))
    high = max(0.6, 0.11 * len(shades))
    fig, axes = subplots(1, len(metrics), width=3.2 * len(metrics) + 1, height=1 + high * len(protocols), sharey=True)
    for ax, metric in zip(axes.flat, metrics, strict=True):
        for shift, (title, shade) in enumerate(shades.items()):
            rows = table[(table["run"] == title) & (table["metric"] == metric)].set_index("protocol").loc[protocols]
            height = np.arange(len(protocols)) + step * (shift - (len(shades) - 1) / 2)
            ax.errorbar(100 * rows["mean"], height, xerr=100 * rows["std"].fillna(0), fmt="o", ms=4.5, color=shade)
        for edge in range(1, len(protocols)):
            ax.axhline(edge - 0.5, color="#cccccc", lw=0.8)
        ax.set_yticks(range(len(protocols)), protocols)
        ax.set(xlabel=f"{metric} (%)", ylim=(len(protocols) - 0.5, -0.5))
        ax.grid(axis="x", alpha=0.3)
    legend_above(fig, shades, 5)
    return fig


def class_scores(ap: Mapping[str, float], train: MultiLabelData) -> Figure:
    """Each class's average precision, the most frequent class in training on top, beside what chance would give it."""
    share = dict(zip(train.classes, train.targets.mean(axis=0), strict=True))
    names = sorted(ap, key=lambda name: -share[name])
    small = len(names) >= 40
    fig, axes = subplots(1, 1, width=7, height=1.4 + (0.14 if small else 0.21) * len(names))
    ax, places = axes.flat[0], range(len(names))
    ax.plot([100 * share[name] for name in names], places, "|", ms=6 if small else 9, mew=1.5, color=color("chance"))
    ax.plot([100 * ap[name] for name in names], places, "o", ms=4 if small else 6, color=OTHER_COLORS[0])
    ax.set_yticks(places, [escape_math(name) for name in names], fontsize=6 if small else 8)
    ax.set(xlim=(0, 102), ylim=(len(names) - 0.5, -0.5), xlabel="AP on test (%, higher is better)")
    ax.set(ylabel="label, the most frequent on top")
    ax.grid(alpha=0.3)
    legend_above(fig, {"average precision": OTHER_COLORS[0]}, marks=["chance: training pictures with the label (%)"])
    return fig


def class_gains(gains: np.ndarray, classes: Sequence[str], frequencies: np.ndarray, *, title: str) -> Figure:
    """Difference of AP for each class, seeds as dots and their mean as a bar; the most frequent class first.

    Args:
        gains: (seeds, q), in fractions; nan for a class without positives.
        frequencies: (q,), share of the training pictures with the label.
    """
    order = np.argsort(-frequencies, kind="stable")
    mean = 100 * gains[:, order].mean(axis=0)
    fig, axes = subplots(1, 1, width=max(6.5, 0.17 * len(order) + 2), height=3.4)
    ax = axes.flat[0]
    ax.bar(range(len(order)), mean, color=np.where(mean >= 0, GAIN, LOSS), alpha=0.75)
    for row in gains:
        ax.plot(100 * row[order], ".", color="black", ms=3)
    ax.axhline(0, color="black", lw=0.8)
    ax.set_xticks(
        range(len(order)), [escape_math(classes[k]) for k in order], rotation=90, fontsize=8 if len(order) < 40 else 6
    )
    ax.set(ylabel="difference of AP (points)", title=title)
    ax.grid(axis="y", alpha=0.3)
    return fig
