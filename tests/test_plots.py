"""Figures: returned, closed, labeled, and drawn for class names with any characters."""

from __future__ import annotations

from collections.abc import Callable

import analysis_figures
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib import cbook
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from mlkd import plots
from mlkd.data import MultiLabelData
from mlkd.graphs import conditional_probability, cooccurrence, seriation
from mlkd.plots import style

PLAIN = tuple(f"class {k}" for k in range(12))
ODD = ("%", "#", "é ✓", "&amp;", "{}", "<b>", "_x", "x_y^2", "$", "a$b$c", r"$\frac{$", r"a\$b")


@pytest.fixture(autouse=True, scope="module")
def without_display():
    plt.switch_backend("agg")


def data(classes: tuple[str, ...] = PLAIN, split: str = "train", *, n: int = 6, boxes: bool = True) -> MultiLabelData:
    """Small images; the first has twelve labels, the second none."""
    rng = np.random.default_rng(0)
    targets = (rng.random((n, len(classes))) < min(0.3, 4 / len(classes))).astype(np.uint8)
    targets[0, :12], targets[1] = 1, 0
    images = [rng.integers(0, 256, (20, 24, 3), np.uint8) for _ in range(n)]
    label_boxes = [
        np.array([[k, 1, 2, 10, 12] for k in np.flatnonzero(row)], np.float32).reshape(-1, 5) for row in targets
    ]
    ids = tuple(str(k) for k in range(n))
    return MultiLabelData("toy", split, images, targets, classes, ids, label_boxes if boxes else None)


def history(epochs: int = 3, **terms: float) -> pd.DataFrame:
    table = {"epoch": range(1, epochs + 1), "lr": 0.1, "val_mAP": 0.25, "seconds": 1.0, "images_per_second": 9.0}
    selected = [1, 0, 1, *[0] * epochs][:epochs]  # the third epoch, if there are so many
    return pd.DataFrame({**table, **terms, "selected": selected})


def protocols(runs: tuple[str, ...] = ("vanilla student", "l2d student"), std: float = 0.01) -> pd.DataFrame:
    rows = [
        (run, protocol, metric, 0.5 + k / 10, std, 3)
        for k, run in enumerate(runs)
        for protocol in ("threshold(0.5)", "top_k(3)")
        for metric in ("CF1", "CF1_macro", "OF1")
    ]
    return pd.DataFrame(rows, columns=["run", "protocol", "metric", "mean", "std", "n"])


def heatmap(classes: tuple[str, ...]) -> Figure:
    e, n = cooccurrence(data(classes).targets)
    return plots.conditional_heatmap(conditional_probability(e, n), classes, seriation(e, n))


def prediction(classes: tuple[str, ...]) -> Figure:
    split = data(classes)
    return plots.prediction(split.images[0], np.linspace(0.1, 0.9, len(classes)), split.targets[0], classes)


def gains(classes: tuple[str, ...], seeds: int = 3) -> Figure:
    values = np.linspace(-0.1, 0.1, seeds * len(classes)).reshape(seeds, -1)
    return plots.class_gains(values, classes, data(classes).targets.mean(axis=0), title="What l2d adds")


def partitions(classes: tuple[str, ...]) -> Figure:
    clusters = np.arange(len(classes)) % 3
    return plots.partitions(np.eye(len(classes)), {"cgp": clusters, "random": clusters[::-1]}, classes)


def logit_gradients(classes: tuple[str, ...]) -> Figure:
    split, values = data(classes), np.linspace(-1, 1, len(classes))
    return plots.logit_gradients({"MSE": values, "MLD": -values}, classes, split.targets[0], abs(values), abs(values))


def crops(classes: tuple[str, ...]) -> Figure:
    split, boxes = data(classes), np.array([[0, 0, 0.5, 0.5], [0.5, 0.1, 1, 0.11]])
    probabilities = np.linspace(0, 1, 2 * len(classes)).reshape(2, -1)
    return plots.crops(split.images[0], boxes, probabilities, split.targets[0], classes)


def crop_labels(classes: tuple[str, ...]) -> Figure:
    values = np.linspace(-1, 1, 4 * len(classes)).reshape(4, -1)
    return plots.crop_labels({"pseudo label": values, "weight": abs(values)}, data(classes).targets[0], classes)


WITH_CLASSES: dict[str, Callable[[tuple[str, ...]], Figure]] = {
    "image_grid": lambda classes: plots.image_grid(data(classes), [0, 1, 2], columns=2, boxes=True),
    "class_frequencies": lambda classes: plots.class_frequencies({"train": data(classes), "test": data(classes, n=3)}),
    "label_counts": lambda classes: plots.label_counts({"train": data(classes), "test": data(classes, n=3)}),
    "conditional_heatmap": heatmap,
    "prediction": prediction,
    "class_scores": lambda classes: plots.class_scores({name: 0.5 for name in classes}, data(classes)),
    "class_gains": gains,
    "partitions": partitions,
    "logit_gradients": logit_gradients,
    "crops": crops,
    "crop_labels": crop_labels,
    **analysis_figures.WITH_CLASSES,
}
TRIALS = pd.DataFrame(
    {
        "method": ["vanilla", "vanilla", "l2d", "l2d"],
        "trial": [1, 2, 1, 2],
        "state": ["complete", "stopped", "failed", "complete"],
        "val_mAP": [0.4, 0.3, np.nan, 0.5],
    }
)
OF_RUNS: dict[str, Callable[[], Figure]] = {
    "training_curves": lambda: plots.training_curves(
        {"vanilla student": [history(bce=2.0), history(bce=3.0)], "l2d student": [history(bce=2.0, mld=1.0)]}
    ),
    "scores_by_seed": lambda: plots.scores_by_seed({"vanilla": [0.3, 0.4], "l2d": [0.5]}),
    "tuning_trials": lambda: plots.tuning_trials(TRIALS),
    "stability": lambda: plots.stability(
        pd.DataFrame(
            [("cgp", 3, 2, 0.9), ("cgp", 3, 3, 0.5), ("dgp", 3, 2, 0.1)], columns=["strategy", "tau", "k", "ari"]
        ),
        title="toy",
    ),
    "protocol_scores": lambda: plots.protocol_scores(protocols()),
    "sensitivity": lambda: plots.sensitivity(
        {
            "lambda_cd": {"l2d": {0: [0.5, 0.6], 0.1: [0.6, 0.7], 100: [0.4]}},
            "k": {"cgpd": {2: [0.5], 5: [0.6]}, "random-psd": {2: [0.4, 0.5]}},
        },
        {"vanilla": [0.3, 0.4], "sd": [0.5]},
    ),
    **analysis_figures.OF_RUNS,
}
ALL = {**{name: lambda draw=draw: draw(PLAIN) for name, draw in WITH_CLASSES.items()}, **OF_RUNS}


def draw(fig: Figure) -> None:
    """Lays out all text and ticks; errors in drawing are raised here."""
    fig.draw_without_rendering()


def texts(fig: Figure) -> list[str]:
    """All text of a figure as it is drawn; none of it may be parsed as a formula."""
    contents = []
    for text in fig.findobj(Text):
        content = text.get_text()
        if text.get_parse_math() and not content.startswith(r"$\mathdefault"):  # matplotlib's own powers of ten
            assert not cbook.is_math_text(content), f"{content!r} is drawn as a formula"
            content = content.replace(r"\$", "$")
        contents.append(content)
    return contents


UNITS = (
    "%",
    "points",
    "labels per image",
    "Rand index",
    "affinity",
    "negative gradient",
    "weight",
    "lower is better",
    "low:",
    "map's maximum",
)


def test_every_figure_is_tested() -> None:
    assert set(plots.__all__) - {"color"} == set(ALL)


@pytest.mark.parametrize("name", ALL)
class TestEveryFigure:
    def test_returned_and_closed(self, name: str) -> None:
        before = plt.get_fignums()
        fig = ALL[name]()
        assert isinstance(fig, Figure)
        assert plt.get_fignums() == before == []

    def test_title_labels_and_units(self, name: str) -> None:
        """Every panel with axes has a title or an axis label, and every figure with numbers a unit."""
        fig = ALL[name]()
        draw(fig)
        for ax in fig.axes:
            panel_texts = [ax.get_title(), ax.get_xlabel(), ax.get_ylabel()]
            assert any(panel_texts) or not ax.axison
        text = " ".join(texts(fig))
        assert name in ("image_grid", "retrieval_grid") or any(unit in text for unit in UNITS)

    def test_nothing_is_outside_the_figure(self, name: str) -> None:
        fig = ALL[name]()
        draw(fig)
        box, (width, height) = fig.get_tightbbox(), fig.get_size_inches()
        assert min(box.x0, box.y0, width - box.x1, height - box.y1) > -0.02, f"{box} of {width} x {height} inches"

    def test_global_style_is_not_changed(self, name: str) -> None:
        before = dict(plt.rcParams)
        ALL[name]()
        assert dict(plt.rcParams) == before


@pytest.mark.parametrize("name", WITH_CLASSES)
class TestClassNames:
    def test_eighty_classes(self, name: str) -> None:
        draw(WITH_CLASSES[name](tuple(f"class {k}" for k in range(80))))

    def test_three_classes(self, name: str) -> None:
        draw(WITH_CLASSES[name](("cat", "dog", "sheep")))

    def test_odd_characters(self, name: str) -> None:
        """Names are drawn literally; "a$b$c" is not a formula."""
        fig = WITH_CLASSES[name](ODD)
        shown = texts(fig)
        draw(fig)
        if name == "label_counts":
            return
        num_names = {"prediction": 10, "crops": 4, "retrieval_grid": 0, "reliance_regression": 0}
        for odd in ODD[len(ODD) - num_names.get(name, len(ODD)) :]:
            assert any(odd in text for text in shown), odd
            if name not in ("image_grid", *num_names, *analysis_figures.NAMES_IN_SENTENCES):
                assert odd in shown


class TestImageGrid:
    def test_boxes(self) -> None:
        with_boxes, without = data(), data(boxes=False)
        count = [int(row.sum()) for row in with_boxes.targets]

        def count_boxes(split: MultiLabelData, **settings) -> list[int]:
            fig = plots.image_grid(split, [2, 1, 0], **settings)
            return [sum(isinstance(patch, Rectangle) for patch in ax.patches) for ax in fig.axes[:3]]

        assert count_boxes(with_boxes, boxes=True) == [count[2], 0, 12]
        assert count_boxes(with_boxes) == count_boxes(without, boxes=True) == [0, 0, 0]
        box = plots.image_grid(with_boxes, [0], boxes=True).axes[0].patches[0]
        assert (box.get_x(), box.get_y(), box.get_width(), box.get_height()) == (1, 2, 9, 10)

    def test_names(self) -> None:
        fig = plots.image_grid(data(("cat", "a long name of a class", "dog")), [0, 1], columns=2)
        assert [ax.get_title() for ax in fig.axes] == ["cat,\na long name of a class,\ndog", "(none)"]
        assert [ax.get_title() for ax in plots.image_grid(data(), [0, 1], columns=2, names=False).axes] == ["", ""]

    def test_images_are_those_of_the_indices(self) -> None:
        split = data()
        fig = plots.image_grid(split, [4, 2, 5], columns=2)
        assert len(fig.axes) == 4
        for ax, row in zip(fig.axes, (4, 2, 5), strict=False):
            assert np.array_equal(ax.images[0].get_array(), split.images[row])
        assert not fig.axes[3].images
        assert not fig.axes[3].axison


class TestValues:
    def test_class_frequencies(self) -> None:
        split = data()
        fig = plots.class_frequencies({"train": split, "test": data(n=3)})
        shown = fig.axes[0].lines[0].get_ydata()
        assert sorted(shown, reverse=True) == list(shown)
        names = [tick.get_text() for tick in fig.axes[0].get_xticklabels()]
        assert dict(zip(names, shown, strict=True)) == pytest.approx(
            dict(zip(PLAIN, 100 * split.targets.mean(axis=0), strict=True))
        )
        assert [text.get_text() for text in fig.axes[0].get_legend().get_texts()] == ["train (n = 6)", "test (n = 3)"]

    def test_label_counts(self) -> None:
        split = data()
        ax, few = plots.label_counts({"train": split, "test": split.subset(np.array([1]))}).axes
        assert ax.get_xlim() == few.get_xlim()
        heights = [bar.get_height() for bar in ax.patches]
        assert sum(heights) == pytest.approx(100)
        for count, height in enumerate(heights):
            assert height == pytest.approx(100 * sum(int(row.sum()) == count for row in split.targets) / 6)

    def test_heatmap_order(self) -> None:
        p = np.array([[0, 0.5, 0.1], [0.2, 0, 0.3], [0.4, 0.6, 0]])
        ax = plots.conditional_heatmap(p, ("a", "b", "c"), [2, 0, 1]).axes[0]
        assert [tick.get_text() for tick in ax.get_yticklabels()] == ["c", "a", "b"]
        expected = [[0, 40, 60], [10, 0, 50], [30, 20, 0]]
        assert np.asarray(ax.images[0].get_array()) == pytest.approx(np.array(expected))

    def test_font_size_of_partitions(self) -> None:
        partitions = {"cgp": np.repeat([0, 1, 2], [7, 4, 1])}
        for clusters, size in ((partitions, 8), (partitions | {"dgp": np.arange(12) % 3}, 6)):
            fig = plots.partitions(np.eye(12), clusters, PLAIN)
            assert {tick.get_size() for tick in fig.axes[0].get_yticklabels()} == {size}

    def test_prediction_marks_the_ground_truth(self) -> None:
        probabilities, ground_truth = np.linspace(0, 0.9, 12), np.arange(12) % 2
        ax = plots.prediction(data().images[0], probabilities, ground_truth, PLAIN, top=4).axes[1]
        names = [tick.get_text() for tick in ax.get_yticklabels()]
        assert names == ["class 8", "class 9 ✓", "class 10", "class 11 ✓"]
        assert [bar.get_width() for bar in ax.patches] == pytest.approx(100 * probabilities[8:])

    def test_crops_have_the_shape_of_the_image(self) -> None:
        full, *crop_axes = crops(PLAIN).axes
        assert [ax.get_box_aspect() for ax in crop_axes] == [20 / 24] * 2
        assert full.images[0].get_size() == (20, 24)

    def test_weights_of_crops_are_drawn_from_0_to_1(self) -> None:
        fig = crop_labels(PLAIN)
        labels, weights, *bars = fig.axes
        assert labels.images[0].get_clim() == (-1, 1)
        assert weights.images[0].get_clim() == (0, 1)
        assert weights.texts[0].get_text() == f"{weights.images[0].get_array()[0, 0]:.2f}"
        assert (len(labels.texts), len(weights.texts)) == (0, 48)
        assert [bar.get_ylabel() for bar in bars] == ["absent to present", "weight"]

    def test_one_seed(self) -> None:
        draw(plots.training_curves({"vanilla": [history(1, bce=2.0)]}))
        draw(plots.scores_by_seed({"l2d": [0.5]}))
        draw(plots.protocol_scores(protocols(("l2d",), std=float("nan"))))
        draw(gains(PLAIN, seeds=1))

    def test_curves(self) -> None:
        fig = OF_RUNS["training_curves"]()
        assert [ax.get_title() for ax in fig.axes] == [
            "mAP on validation (%, higher is better)\ncircle: the selected epoch",
            "weighted loss term bce",
            "weighted loss term mld",
        ]
        assert [len(ax.lines) for ax in fig.axes] == [6, 3, 1]  # each curve of the first panel has a circle
        assert [line.get_xdata().tolist() for line in fig.axes[0].lines[1::2]] == [[3]] * 3
        assert list(fig.axes[0].lines[0].get_ydata()) == [25, 25, 25]
        legend = [text.get_text() for text in fig.axes[0].get_legend().get_texts()]
        assert legend == ["vanilla student", "l2d student"]

    def test_class_scores(self) -> None:
        split = data(("a", "b", "c"), n=10)
        split.targets[:] = 0
        split.targets[:2, 0] = split.targets[:6, 1] = split.targets[:3, 2] = 1
        ax = plots.class_scores({"a": 0.5, "b": 0.4, "c": 0.3}, split).axes[0]
        assert [tick.get_text() for tick in ax.get_yticklabels()] == ["b", "c", "a"]  # the most frequent first
        chance, ap = ax.lines
        assert list(chance.get_xdata()) == pytest.approx([60, 30, 20])
        assert list(ap.get_xdata()) == pytest.approx([40, 30, 50])
        assert ax.get_ylim() == (2.5, -0.5)

    def test_scores_by_seed(self) -> None:
        ax = OF_RUNS["scores_by_seed"]().axes[0]
        assert [tick.get_text() for tick in ax.get_yticklabels()] == ["vanilla (n = 2)", "l2d (n = 1)"]
        assert "does not start at 0" in ax.get_xlabel()
        assert [text.get_text() for text in ax.texts] == ["35.0", "50.0"]

    def test_tuning_trials(self) -> None:
        ax = OF_RUNS["tuning_trials"]().axes[0]
        assert [tick.get_text() for tick in ax.get_yticklabels()] == ["vanilla", "l2d"]
        assert [text.get_text() for text in ax.texts] == ["40.0", "50.0"]  # the best complete trial
        stopped = [line for line in ax.lines if line.get_markerfacecolor() == "none" and len(line.get_xdata())]
        assert [line.get_xdata().tolist() for line in stopped] == [[30.0]]

    def test_classes_without_a_score(self) -> None:
        """nan for a class without positives, and a class that training does not have."""
        split = data(("a", "b", "c"))
        split.targets[:, 1] = 0
        draw(plots.class_scores({"a": 0.5, "b": 0.4, "c": float("nan")}, split))
        draw(plots.class_gains(np.full((2, 3), np.nan), ("a", "b", "c"), split.targets.mean(axis=0), title="none"))

    def test_colors_of_methods(self) -> None:
        assert plots.color("l2d student") == plots.color("l2d") == style.COLORS["l2d"]
        assert plots.color("new method") in style.MORE_COLORS
        assert plots.color("new method") == plots.color("new student")
