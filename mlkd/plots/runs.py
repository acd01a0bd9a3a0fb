"""Figures of runs: training curves and scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mlkd.data import MultiLabelData
from mlkd.plots.style import (
    GAIN,
    LOSS,
    OTHER_COLORS,
    color,
    colors,
    escape_math,
    legend_above,
    set_label_ticks,
    subplots,
)
from mlkd.progress import TIMING


def training_curves(histories: Mapping[str, Sequence[pd.DataFrame]]) -> Figure:
    """First panel: mAP on validation over the epochs. Then one panel per loss term. One line per seed.

    A circle marks the selected epoch, whose weights are kept. Without a validation split there is no first panel.

    Args:
        histories: title of a group of runs -> one history per seed.
    """
    known = (*TIMING, "val_mAP")
    terms = list(dict.fromkeys(name for group in histories.values() for h in group for name in h if name not in known))
    validated = not histories or any("val_mAP" in history for group in histories.values() for history in group)
    panels, run_colors = [*(["val_mAP"] if validated else []), *terms], colors(histories)
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    fig, axes = subplots(rows, columns, width=3.1 * columns, height=2.5 * rows)
    for ax in axes.flat[len(panels) :]:
        ax.remove()
    for ax, panel in zip(axes.flat, panels, strict=False):
        scale = 100 if panel == "val_mAP" else 1
        for title, group in histories.items():
            for number, history in enumerate(h for h in group if panel in h):
                values, label = scale * history[panel], title if number == 0 else None
                ax.plot(history["epoch"], values, ".-", ms=4, lw=1.3, color=run_colors[title], label=label, alpha=0.8)
                if panel == "val_mAP" and "selected" in history:
                    last = history.index[history["selected"] == 1][-1:]
                    ax.plot(history["epoch"][last], values[last], "o", ms=9, mfc="none", color=run_colors[title])
        if panel == "val_mAP":
            ax.set_title("mAP on validation (%, higher is better)\ncircle: the selected epoch")
        else:
            ax.set_title(f"weighted loss term {panel}")
        ax.set_xlabel("epoch")
        ax.title.set_fontsize(9)
        ax.grid(alpha=0.3)
    if histories:
        axes.flat[0].legend(frameon=False, fontsize=8)
    return fig


def scores_by_seed(scores: Mapping[str, Sequence[float]], *, metric: str = "mAP", split: str = "test") -> Figure:
    """One dot per seed and a line at the mean; the axis does not start at 0."""
    titles, run_colors = list(scores), colors(scores)
    fig, axes = subplots(1, 1, width=6.2, height=1.2 + 0.42 * len(titles))
    ax = axes.flat[0]
    for y, title in enumerate(titles):
        values = 100 * np.asarray(scores[title])
        ax.plot(values, np.full(len(values), y), "o", color=run_colors[title], ms=6, alpha=0.7)
        ax.plot([values.mean()] * 2, [y - 0.3, y + 0.3], color=run_colors[title], lw=2.5)
        ax.annotate(f"{values.mean():.1f}", (values.mean(), y - 0.32), ha="center", va="bottom", fontsize=8)
    ax.set_yticks(range(len(titles)), [f"{title} (n = {len(scores[title])})" for title in titles])
    ax.set(
        ylim=(len(titles) - 0.4, -0.8),
        xlabel=f"{metric} on {split} (%, higher is better; axis does not start at 0)",
    )
    ax.margins(x=0.15)
    ax.grid(axis="x", alpha=0.3)
    return fig


def sensitivity(
    panels: Mapping[str, Mapping[str, Mapping[float, Sequence[float]]]],
    references: Mapping[str, Sequence[float]] | None = None,
    *,
    metric: str = "mAP",
) -> Figure:
    """Score against a setting: one panel per setting, one line per method through its means, one dot per seed.

    The values of a setting are evenly spaced in their order. The axis of the scores does not start at 0.

    Args:
        panels: setting -> method -> value of the setting -> the score of each seed, as fractions.
        references: title -> scores of runs without these settings, such as the baseline: a horizontal line at the
            mean with a band from the lowest to the highest.
        metric: the name of the score.
    """
    references = references or {}
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    fig, axes = subplots(rows, columns, width=3.4 * columns + 0.6, height=2.7 * rows + 0.5, sharey=True)
    for ax in axes.flat[len(panels) :]:
        ax.remove()
    line_colors = colors(dict.fromkeys([*references, *(title for lines in panels.values() for title in lines)]))
    for ax, (setting, lines) in zip(axes.flat, panels.items(), strict=False):
        values = sorted({value for scores in lines.values() for value in scores})
        for title, scores in references.items():
            percent = 100 * np.asarray(scores)
            ax.axhline(percent.mean(), color=line_colors[title], ls="--", lw=1.2)
            ax.axhspan(percent.min(), percent.max(), color=line_colors[title], alpha=0.12, lw=0)
        for title, by_value in lines.items():
            known = sorted(by_value)
            positions = [values.index(value) for value in known]
            means = [100 * np.mean(by_value[value]) for value in known]
            ax.plot(positions, means, "-", color=line_colors[title], lw=1.5)
            for position, value in zip(positions, known, strict=True):
                seeds = 100 * np.asarray(by_value[value])
                ax.plot(np.full(len(seeds), position), seeds, "o", color=line_colors[title], ms=4, alpha=0.6)
        ax.set_xticks(range(len(values)), [f"{value:g}" for value in values])
        ax.set(xlabel=escape_math(setting), ylabel=f"{metric} on test (%)" if ax is axes.flat[0] else "")
        ax.margins(x=0.1, y=0.1)
        ax.grid(alpha=0.3)
    legend_above(fig, line_colors, 4)
    return fig


def protocol_scores(table: pd.DataFrame, metrics: Sequence[str] = ("CF1", "CF1_macro", "OF1")) -> Figure:
    """The same predictions under every protocol: one panel per metric, one dot per group of runs.

    Args:
        table: from `mlkd.analysis.score_table`.
    """
    protocols, run_colors = list(dict.fromkeys(table["protocol"])), colors(dict.fromkeys(table["run"]))
    step = min(0.14, 0.75 / len(run_colors))
    height = 1 + max(0.6, 0.11 * len(run_colors)) * len(protocols)
    fig, axes = subplots(1, len(metrics), width=3.2 * len(metrics) + 1, height=height, sharey=True)
    for ax, metric in zip(axes.flat, metrics, strict=True):
        for number, (title, run_color) in enumerate(run_colors.items()):
            rows = table[(table["run"] == title) & (table["metric"] == metric)].set_index("protocol").loc[protocols]
            y = np.arange(len(protocols)) + step * (number - (len(run_colors) - 1) / 2)
            ax.errorbar(100 * rows["mean"], y, xerr=100 * rows["std"].fillna(0), fmt="o", ms=4.5, color=run_color)
        for edge in range(1, len(protocols)):
            ax.axhline(edge - 0.5, color="#cccccc", lw=0.8)
        ax.set_yticks(range(len(protocols)), protocols)
        ax.set(xlabel=f"{metric} (%)", ylim=(len(protocols) - 0.5, -0.5))
        ax.grid(axis="x", alpha=0.3)
    legend_above(fig, run_colors, 5)
    return fig


def class_scores(ap: Mapping[str, float], train: MultiLabelData) -> Figure:
    """Average precision of each class beside that of random scores, the class most frequent in training first."""
    frequency = dict(zip(train.classes, train.targets.mean(axis=0), strict=True))
    names = sorted(ap, key=lambda name: -frequency[name])
    many = len(names) >= 40
    fig, axes = subplots(1, 1, width=7, height=1.4 + (0.14 if many else 0.21) * len(names))
    ax, y = axes.flat[0], range(len(names))
    ax.plot([100 * frequency[name] for name in names], y, "|", ms=6 if many else 9, mew=1.5, color=color("chance"))
    ax.plot([100 * ap[name] for name in names], y, "o", ms=4 if many else 6, color=OTHER_COLORS[0])
    set_label_ticks(ax.yaxis, names)
    ax.set(xlim=(0, 102), ylim=(len(names) - 0.5, -0.5), xlabel="AP on test (%, higher is better)")
    ax.set(ylabel="label, the most frequent first")
    ax.grid(alpha=0.3)
    chance = "random scores: training images with the label (%)"
    legend_above(fig, {"average precision": OTHER_COLORS[0]}, lines=[chance])
    return fig


def class_gains(gains: np.ndarray, classes: Sequence[str], frequencies: np.ndarray, *, title: str) -> Figure:
    """Difference of AP for each class, one dot per seed and a bar for the mean; the most frequent class first.

    Args:
        gains: (seeds, q), in fractions; nan for a class without positives.
        classes: the q names.
        frequencies: (q,), the fraction of the training images with the label.
        title: what is compared.
    """
    order = np.argsort(-frequencies, kind="stable")
    mean = 100 * gains[:, order].mean(axis=0)
    fig, axes = subplots(1, 1, width=max(6.5, 0.17 * len(order) + 2), height=3.4)
    ax = axes.flat[0]
    ax.bar(range(len(order)), mean, color=np.where(mean >= 0, GAIN, LOSS), alpha=0.75)
    for row in gains:
        ax.plot(100 * row[order], ".", color="black", ms=3)
    ax.axhline(0, color="black", lw=0.8)
    set_label_ticks(ax.xaxis, [classes[k] for k in order])
    ax.set(ylabel="difference of AP (points)", title=title)
    ax.grid(axis="y", alpha=0.3)
    return fig


def tuning_trials(trials: pd.DataFrame) -> Figure:
    """One row per method: the mAP on validation of each trial, filled if it was complete; the best one is marked.

    Args:
        trials: as `mlkd.study.run_tuning.trials_table` returns them.
    """
    methods = list(dict.fromkeys(trials["method"]))
    fig, axes = subplots(1, 1, width=6.8, height=1.4 + 0.34 * len(methods))
    ax, method_colors = axes.flat[0], colors(methods)
    for y, method in enumerate(methods):
        rows = trials[trials["method"] == method]
        for state, fill in (("complete", method_colors[method]), ("stopped", "none")):
            group = rows[rows["state"] == state]
            ax.plot(100 * group["val_mAP"], np.full(len(group), y), "o", ms=6, mec=method_colors[method], mfc=fill)
        complete = rows[rows["state"] == "complete"]
        own = complete[complete["trial"] == 1]
        ax.plot(100 * own["val_mAP"], np.full(len(own), y), "k|", ms=13)
        if len(complete):
            best = 100 * complete["val_mAP"].max()
            ax.annotate(f"{best:.1f}", (best, y), xytext=(7, 0), textcoords="offset points", va="center", fontsize=8)
    ax.set_yticks(range(len(methods)), methods)
    ax.set(
        ylim=(len(methods) - 0.4, -0.6),
        xlabel="mAP on validation (%); axis does not start at 0",
        title="trials: filled if complete, open if stopped early; line: the study's own settings",
    )
    ax.title.set_fontsize(9)
    ax.margins(x=0.12)
    ax.grid(axis="x", alpha=0.3)
    return fig
