"""Figures of pictures, and of what networks say of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mlkd.data import MultiLabelData
from mlkd.plots.style import annotate_cells, escape_math, subplots, wrap_names


def image_grid(
    data: MultiLabelData, rows: Sequence[int], *, columns: int = 8, boxes: bool = False, names: bool = True
) -> Figure:
    """Pictures with their labels below and, if wanted, the boxes they come from.

    Args:
        data, rows: which pictures of which split.
        columns: pictures in a line.
        boxes: draw the boxes, where the data has them.
        names: write the labels below each picture.
    """
    lines = -(-len(rows) // columns)
    fig, axes = subplots(lines, columns, width=1.45 * columns, height=(1.75 if names else 1.5) * lines)
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, row in zip(axes.flat, rows, strict=False):
        picture = data.images[row]
        height, width = picture.shape[:2]
        side = max(height, width)
        ax.imshow(picture, interpolation="none")
        ax.set(xlim=((width - side) / 2 - 0.5, (width + side) / 2 - 0.5), ylim=(height - 0.5, height - side - 0.5))
        if boxes and data.boxes is not None:
            for _, x1, y1, x2, y2 in data.boxes[row]:
                ax.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, color="#d55e00", lw=1))
        if names:
            labels = [data.classes[k] for k in np.flatnonzero(data.targets[row])]
            ax.set_title(escape_math(wrap_names(labels)), fontsize=7, y=-0.03, pad=0, va="top")
    return fig


def prediction(
    image: np.ndarray, probabilities: np.ndarray, truth: np.ndarray, classes: Sequence[str], top: int = 10
) -> Figure:
    """A picture beside the labels a model finds likeliest; the true ones are marked."""
    fig, axes = subplots(1, 2, width=7.5, height=3.2, width_ratios=(1, 1.3))
    axes.flat[0].imshow(image, interpolation="none")
    axes.flat[0].set_axis_off()
    draw_prediction_bars(axes.flat[1], probabilities, truth, classes, np.argsort(-probabilities)[:top][::-1])
    axes.flat[1].set_title("The likeliest labels; blue with ✓: truly there", fontsize=10)
    return fig


def draw_prediction_bars(
    ax: Axes, probabilities: np.ndarray, truth: np.ndarray, classes: Sequence[str], labels: Sequence[int] | np.ndarray
) -> None:
    """A bar for the probability of each of `labels`, the first at the bottom; the true ones are marked."""
    ax.barh(
        range(len(labels)), 100 * probabilities[labels], color=["#0072b2" if truth[k] else "#bbbbbb" for k in labels]
    )
    ax.set_yticks(range(len(labels)), [escape_math(classes[k]) + (" ✓" if truth[k] else "") for k in labels])
    ax.axvline(50, color="black", lw=0.8, ls=":")
    ax.set(xlim=(0, 100), xlabel="probability (%)")


def logit_gradients(
    steps: Mapping[str, np.ndarray],
    classes: Sequence[str],
    truth: np.ndarray,
    student: np.ndarray,
    teacher: np.ndarray,
    most: int = 24,
) -> Figure:
    """Where several losses push a student's logits on one picture, below what student and teacher say of it.

    The labels that are there stand first, then those that the teacher finds likeliest.

    Args:
        steps: name of a loss -> the step it asks of each logit, (q,), in [-1, 1].
        classes, truth: names and targets, (q,).
        student, teacher: probabilities, (q,).
        most: labels shown.
    """
    order = np.lexsort((-teacher, -truth.astype(int)))[:most]
    fig, axes = subplots(2, 1, width=7.5, height=2 + 0.3 * len(steps), height_ratios=(2, len(steps)), sharex=True)
    tables = (
        ({"teacher": teacher, "student": student}, "Greys", (0, 1), "probability"),
        (steps, "PuOr", (-1, 1), "push, down to up"),
    )
    for ax, (table, cmap, (low, high), label) in zip(axes.flat, tables, strict=True):
        values = np.stack([row[order] for row in table.values()])
        picture = ax.imshow(values, cmap=cmap, vmin=low, vmax=high, aspect="auto")
        ax.set_yticks(range(len(table)), list(table))
        ax.axvline(truth[order].sum() - 0.5, color="black", lw=1)
        fig.colorbar(picture, ax=ax, label=label)
    axes.flat[0].set_title("Left of the line: labels that are there")
    axes.flat[1].set_title("Where each loss pushes the student")
    axes.flat[1].set_xticks(range(len(order)), [escape_math(classes[k]) for k in order], rotation=90, fontsize=8)
    return fig


def crops(
    image: np.ndarray,
    boxes: np.ndarray,
    probabilities: np.ndarray,
    truth: np.ndarray,
    classes: Sequence[str],
    top: int = 4,
) -> Figure:
    """A picture with the frames of its crops, then each crop in the picture's shape above the labels likeliest in it.

    Args:
        image: (H, W, 3).
        boxes: (S, 4), x1 y1 x2 y2 as shares of the sides.
        probabilities: (S, q), of each crop.
        truth, classes: the picture's targets and the names, (q,); a label that is truly there has a tick.
        top: labels named below each crop.
    """
    height, width = image.shape[:2]
    fig, axes = subplots(1, 1 + len(boxes), width=1.9 * (1 + len(boxes)), height=2.9)
    for ax in axes.flat:
        ax.set_axis_off()
        ax.set_anchor("N")
    whole, *others = axes.flat
    whole.imshow(image)
    whole.set_title("whole", fontsize=9)
    scaled = boxes * [width, height, width, height]
    for number, (ax, (x1, y1, x2, y2), row) in enumerate(zip(others, scaled, probabilities, strict=True), start=1):
        shade = plt.cm.tab10(number - 1)
        whole.add_patch(Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, color=shade, lw=2))
        ax.imshow(image[int(y1) : max(round(y2), int(y1) + 1), int(x1) : max(round(x2), int(x1) + 1)], aspect="auto")
        ax.set_box_aspect(height / width)
        ax.set_title(f"crop {number}", fontsize=9, color=shade)
        likely = np.argsort(-row)[:top]
        said = [f"{escape_math(classes[k])}{' ✓' if truth[k] else ''} {100 * row[k]:.0f} %" for k in likely]
        ax.text(0, -0.04, "\n".join(said), transform=ax.transAxes, va="top", fontsize=7)
    return fig


def crop_labels(stages: Mapping[str, np.ndarray], truth: np.ndarray, classes: Sequence[str], most: int = 24) -> Figure:
    """What each crop of a picture stands for, label by label: a table (crops x labels) for each stage.

    A stage without values below 0 holds shares: it is drawn from 0 to 1, with its numbers.

    Args:
        stages: name of a stage -> (S, q).
        truth, classes: the picture's targets and the names, (q,).
        most: labels shown: those that are there first, then those with the largest first stage.
    """
    first = np.abs(next(iter(stages.values()))).sum(axis=0)
    order = np.lexsort((-first, -truth.astype(int)))[:most]
    fig, axes = subplots(len(stages), 1, width=7.5, height=1.1 + 1.15 * len(stages), sharex=True)
    for ax, (name, values) in zip(axes.flat, stages.items(), strict=True):
        shown = values[:, order]
        if shown.min() < 0:
            high, said = np.abs(shown).max(), "against to for"
            picture = ax.imshow(shown, cmap="PuOr", vmin=-high, vmax=high, aspect="auto")
        else:
            said = "share of 1"
            picture = ax.imshow(shown, cmap="Greys", vmin=0, vmax=1, aspect="auto")
            annotate_cells(picture, shown, size=6)
        ax.axvline(truth[order].sum() - 0.5, color="black", lw=1)
        ax.set_yticks(range(len(shown)), [f"crop {number + 1}" for number in range(len(shown))], fontsize=8)
        ax.set_title(name, fontsize=9)
        fig.colorbar(picture, ax=ax, label=said)
    fig.suptitle("Left of the line: labels that are there", fontsize=10)
    axes.flat[-1].set_xticks(range(len(order)), [escape_math(classes[k]) for k in order], rotation=90, fontsize=8)
    return fig
