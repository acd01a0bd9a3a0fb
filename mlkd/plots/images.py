"""Figures of images and of predictions for one image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mlkd.data import MultiLabelData
from mlkd.plots.style import annotate_cells, escape_math, set_label_ticks, subplots, wrap_names


def image_grid(
    data: MultiLabelData, indices: Sequence[int], *, columns: int = 8, boxes: bool = False, names: bool = True
) -> Figure:
    """Images of a split with their labels and, optionally, their boxes.

    Args:
        data: a split.
        indices: images of the split.
        columns: images per row.
        boxes: whether to draw the boxes, if the data has boxes.
        names: whether to write the labels below each image.
    """
    rows = -(-len(indices) // columns)
    fig, axes = subplots(rows, columns, width=1.45 * columns, height=(1.75 if names else 1.5) * rows)
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, index in zip(axes.flat, indices, strict=False):
        image = data.images[index]
        height, width = image.shape[:2]
        side = max(height, width)
        ax.imshow(image, interpolation="none")
        ax.set(xlim=((width - side) / 2 - 0.5, (width + side) / 2 - 0.5), ylim=(height - 0.5, height - side - 0.5))
        if boxes and data.boxes is not None:
            for _, x1, y1, x2, y2 in data.boxes[index]:
                ax.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, color="#d55e00", lw=1))
        if names:
            labels = [data.classes[k] for k in np.flatnonzero(data.targets[index])]
            ax.set_title(escape_math(wrap_names(labels)), fontsize=7, y=-0.03, pad=0, va="top")
    return fig


def prediction(
    image: np.ndarray, probabilities: np.ndarray, ground_truth: np.ndarray, classes: Sequence[str], top: int = 10
) -> Figure:
    """An image beside the `top` labels with the highest probabilities; labels that are present are marked."""
    fig, axes = subplots(1, 2, width=7.5, height=3.2, width_ratios=(1, 1.3))
    left, right = axes.flat
    left.imshow(image, interpolation="none")
    left.set_axis_off()
    draw_prediction_bars(right, probabilities, ground_truth, classes, np.argsort(-probabilities)[:top][::-1])
    right.set_title("Most probable labels; blue with ✓: present", fontsize=10)
    return fig


def draw_prediction_bars(
    ax: Axes,
    probabilities: np.ndarray,
    ground_truth: np.ndarray,
    classes: Sequence[str],
    labels: Sequence[int] | np.ndarray,
) -> None:
    """A bar for the probability of each of `labels`, the first at the bottom; labels that are present are marked."""
    bar_colors = ["#0072b2" if ground_truth[k] else "#bbbbbb" for k in labels]
    ax.barh(range(len(labels)), 100 * probabilities[labels], color=bar_colors)
    ax.set_yticks(range(len(labels)), [escape_math(classes[k]) + (" ✓" if ground_truth[k] else "") for k in labels])
    ax.axvline(50, color="black", lw=0.8, ls=":")
    ax.set(xlim=(0, 100), xlabel="probability (%)")


def logit_gradients(
    gradients: Mapping[str, np.ndarray],
    classes: Sequence[str],
    ground_truth: np.ndarray,
    student: np.ndarray,
    teacher: np.ndarray,
    max_labels: int = 24,
) -> Figure:
    """The direction in which several losses change the logits of a student for one image, below the probabilities.

    The labels that are present come first, then the others by the teacher's probability.

    Args:
        gradients: name of a loss -> the negative gradient of each logit, (q,), scaled to [-1, 1].
        classes, ground_truth: names and targets, (q,).
        student, teacher: probabilities, (q,).
        max_labels: number of labels shown.
    """
    order = np.lexsort((-teacher, -ground_truth.astype(int)))[:max_labels]
    height, ratios = 2 + 0.3 * len(gradients), (2, len(gradients))
    fig, axes = subplots(2, 1, width=7.5, height=height, height_ratios=ratios, sharex=True)
    panels = (
        ({"teacher": teacher, "student": student}, "Greys", (0, 1), "probability"),
        (gradients, "PuOr", (-1, 1), "negative gradient"),
    )
    for ax, (rows, cmap, (low, high), label) in zip(axes.flat, panels, strict=True):
        values = np.stack([row[order] for row in rows.values()])
        image = ax.imshow(values, cmap=cmap, vmin=low, vmax=high, aspect="auto")
        ax.set_yticks(range(len(rows)), list(rows))
        ax.axvline(ground_truth[order].sum() - 0.5, color="black", lw=1)
        fig.colorbar(image, ax=ax, label=label)
    axes.flat[0].set_title("Left of the line: labels that are present")
    axes.flat[1].set_title("Change of the student's logits by each loss")
    set_label_ticks(axes.flat[1].xaxis, [classes[k] for k in order], size=8)
    return fig


def crops(
    image: np.ndarray,
    boxes: np.ndarray,
    probabilities: np.ndarray,
    ground_truth: np.ndarray,
    classes: Sequence[str],
    top: int = 4,
) -> Figure:
    """An image with the frames of its crops, then each crop, resized to the image, with its most probable labels.

    Args:
        image: (H, W, 3).
        boxes: (S, 4), x1, y1, x2, y2 as fractions of the sides.
        probabilities: (S, q), of each crop.
        ground_truth, classes: the targets of the image and the names, (q,); labels that are present are marked with ✓.
        top: labels named below each crop.
    """
    height, width = image.shape[:2]
    fig, axes = subplots(1, 1 + len(boxes), width=1.9 * (1 + len(boxes)), height=2.9)
    for ax in axes.flat:
        ax.set_axis_off()
        ax.set_anchor("N")
    full, *crop_axes = axes.flat
    full.imshow(image)
    full.set_title("full image", fontsize=9)
    pixels = boxes * [width, height, width, height]
    for number, (ax, (x1, y1, x2, y2), row) in enumerate(zip(crop_axes, pixels, probabilities, strict=True), start=1):
        crop_color = plt.cm.tab10(number - 1)
        full.add_patch(Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, color=crop_color, lw=2))
        ax.imshow(image[int(y1) : max(round(y2), int(y1) + 1), int(x1) : max(round(x2), int(x1) + 1)], aspect="auto")
        ax.set_box_aspect(height / width)
        ax.set_title(f"crop {number}", fontsize=9, color=crop_color)
        names = [
            f"{escape_math(classes[k])}{' ✓' if ground_truth[k] else ''} {100 * row[k]:.0f} %"
            for k in np.argsort(-row)[:top]
        ]
        ax.text(0, -0.04, "\n".join(names), transform=ax.transAxes, va="top", fontsize=7)
    return fig


def crop_labels(
    stages: Mapping[str, np.ndarray], ground_truth: np.ndarray, classes: Sequence[str], max_labels: int = 24
) -> Figure:
    """The evidence of each crop of an image for each label: one matrix (crops x labels) per stage of a computation.

    A stage without negative values is drawn as weights, from 0 to 1 with the values in the cells.

    Args:
        stages: name of a stage -> (S, q).
        ground_truth, classes: the targets of the image and the names, (q,).
        max_labels: number of labels shown: those that are present first, then those with the largest first stage.
    """
    first = np.abs(next(iter(stages.values()))).sum(axis=0)
    order = np.lexsort((-first, -ground_truth.astype(int)))[:max_labels]
    fig, axes = subplots(len(stages), 1, width=7.5, height=1.1 + 1.15 * len(stages), sharex=True)
    for ax, (name, values) in zip(axes.flat, stages.items(), strict=True):
        values = values[:, order]
        if values.min() < 0:
            high = np.abs(values).max()
            image = ax.imshow(values, cmap="PuOr", vmin=-high, vmax=high, aspect="auto")
            fig.colorbar(image, ax=ax, label="absent to present")
        else:
            image = ax.imshow(values, cmap="Greys", vmin=0, vmax=1, aspect="auto")
            annotate_cells(image, values, size=6)
            fig.colorbar(image, ax=ax, label="weight")
        ax.axvline(ground_truth[order].sum() - 0.5, color="black", lw=1)
        ax.set_yticks(range(len(values)), [f"crop {number + 1}" for number in range(len(values))], fontsize=8)
        ax.set_title(name, fontsize=9)
    fig.suptitle("Left of the line: labels that are present", fontsize=10)
    set_label_ticks(axes.flat[-1].xaxis, [classes[k] for k in order], size=8)
    return fig
