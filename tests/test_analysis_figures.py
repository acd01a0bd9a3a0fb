"""The values in the figures of the analyses."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from analysis_figures import (
    OF_RUNS,
    WITH_CLASSES,
    gap_table,
    gradient_table,
    localization_table,
    make_data,
    make_recall_table,
    regression_lines,
    reliance_table,
)
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from mlkd import plots
from mlkd.analysis import Gain
from mlkd.plots.style import COLORS, GAIN, MORE_COLORS, SPARE_COLORS, colors, styles

CLASSES = ("cat", "dog", "bus")


def test_titles_of_a_figure_have_different_colors() -> None:
    titles = ("sd student", "ps student", "cpsd student", "mse", "vanilla student", "teacher", "gradcam", "layercam")
    title_colors = colors(titles)
    assert len(set(title_colors.values())) == len(titles)
    assert (title_colors["vanilla student"], title_colors["teacher"]) == (COLORS["vanilla"], COLORS["teacher"])
    assert title_colors["sd student"] == COLORS["sd"]
    assert colors(["random-psd student", "chance"])["chance"] == "#000000"
    methods = [name for name in COLORS if name not in ("random-psd", "chance")]
    assert len(set(colors([*methods, "teacher #2"]).values())) == len(methods) + 1
    assert list(colors(["l2d student", "l2d student #2"])) == ["l2d student", "l2d student #2"]


def test_styles_do_not_use_the_colors_of_methods() -> None:
    term_styles = styles(["bce", "mld", "bd2", "bd3", "bd4", "id2", "id3", "id4"])
    assert (
        len({tuple(look.values()) for look in term_styles.values()})
        == len({look["marker"] for look in term_styles.values()})
        == 8
    )
    assert not {look["color"] for look in term_styles.values()} & {*COLORS.values(), *SPARE_COLORS, *MORE_COLORS}


def test_cam_grid() -> None:
    fig = WITH_CLASSES["cam_grid"](CLASSES)
    assert [ax.get_title() for ax in fig.axes[:4]] == ["image", "vanilla student", "l2d student", "teacher"]
    first = fig.axes[:4]
    assert [len(ax.images) for ax in first] == [1, 2, 2, 1]  # the teacher's map of the first image is nan
    shown = first[1].images[1]
    np.testing.assert_array_equal(shown.get_array(), np.linspace(0, 1, 128).reshape(2, 8, 8)[0])
    assert shown.get_clim() == (0, 1)
    assert first[1].images[0].get_extent() == shown.get_extent()
    target = next(text for text in first[0].texts if text.get_text() == "cat")
    assert to_hex(target.get_color()) == "#d62728"
    box = next(patch for patch in first[2].patches if isinstance(patch, Rectangle))
    assert [box.get_x(), box.get_y(), box.get_width(), box.get_height()] == pytest.approx([2.6, 4, 10.4, 14])
    assert [text.get_text() for text in fig.axes[5].texts] == ["50 %"]


def test_localization_plot() -> None:
    fig = plots.localization_plot(localization_table(["small", "large"]), "label", "run")
    left, right = fig.axes[:2]
    dots = [line for line in left.lines if line.get_marker() == "o"]
    assert sorted(line.get_xdata()[0] for line in dots) == pytest.approx([0, 0, 10, 10, 20, 20])
    assert [tick.get_text() for tick in left.get_yticklabels()] == ["small (n = 7)", "large (n = 7)"]
    for ax in (left, right):
        chance = [line for line in ax.lines if line.get_color() == "black"]
        assert [list(line.get_xdata()) for line in chance] == [pytest.approx([20, 20])] * 2
    assert [text.get_text() for text in fig.legends[0].get_texts()][-1] == "random map"


def test_correlation_differences_share_one_scale() -> None:
    fig = WITH_CLASSES["correlation_differences"](CLASSES)
    panels = [ax for ax in fig.axes if ax.images][:5]
    assert {ax.images[0].get_clim() for ax in panels} == {(0, 2)}  # of the largest, 4 * 1 / 2
    assert panels[1].get_title() == "l2d student\nmean 0.100"
    shown = np.ma.filled(panels[1].images[0].get_array(), np.nan)
    np.testing.assert_allclose(shown, [[0, 0.25, 0.5], [np.nan] * 3, [0.5, 0.25, 0]])  # reversed: 2, 1, 0
    assert [tick.get_text() for tick in panels[0].get_yticklabels()] == ["bus", "dog", "cat"]


def test_label_pairs() -> None:
    matrix = np.array([[0, 0.25], [0.25, 0]])
    fig = plots.label_pairs({"teacher": matrix}, ("cat", "dog"))
    assert [text.get_text() for text in fig.axes[0].texts] == ["0.25", "0.25"]
    np.testing.assert_array_equal(fig.axes[0].images[0].get_array(), matrix)


def test_dependency_gaps() -> None:
    fig = plots.dependency_gaps(gap_table())
    heights = [list(line.get_ydata()) for line in fig.axes[0].lines]
    assert heights == [pytest.approx([0.01] * 3), pytest.approx([0.11] * 3)]
    assert [list(line.get_ydata()) for line in fig.axes[1].lines][1] == pytest.approx([0.1] * 3)


def test_area_recall() -> None:
    counts, shares = OF_RUNS["area_recall"]().axes
    assert [(bar.get_x() + bar.get_width() / 2, bar.get_height()) for bar in counts.patches] == [
        (5, 40), (15, 40), (25, 40), (155, 40),
    ]  # fmt: skip
    assert [line.get_ydata()[0] for line in counts.lines] == [5, 15, 25]
    assert list(counts.lines[0].get_xdata()) == [5, 15, 25, 155]
    points = [line for line in shares.lines if line.get_marker() == "o"]
    assert [line.get_ydata()[0] for line in points] == pytest.approx([12.5, 37.5, 62.5])
    (curve,) = [line for line in shares.lines if line.get_marker() == "None"]
    assert curve.get_ydata()[[0, -1]].tolist() == [10, 90]
    intervals = [c for c in shares.collections if isinstance(c, LineCollection)]
    assert intervals[0].get_segments()[0][:, 1].tolist() == [5, 22.5]
    left, middle, right = (line.get_xdata()[0] for line in points)
    assert left < middle == 5 < right < 10  # side by side
    assert plots.area_recall(make_recall_table("side", [10]))  # one group, no curves


def test_area_recall_of_few_objects_is_not_drawn() -> None:
    table = make_recall_table("side", [10, 20])
    table.loc[table["side"] == 20, "targets"] = 9
    counts, shares = plots.area_recall(table).axes
    assert [len(line.get_xdata()) for line in counts.lines] == [2, 2, 2]
    assert [len(line.get_xdata()) for line in shares.lines] == [1, 1, 1]
    assert shares.get_title() == "Recall of sizes with at least 10 objects"


def test_recall_by_frequency() -> None:
    fig = plots.recall_by(
        make_recall_table("frequency", [0, 3, 40]), "frequency", xlabel="frequency (%)", logarithmic=True
    )
    fig.draw_without_rendering()
    assert fig.axes[0].get_xscale() == "log"
    left, middle, right = (line.get_xdata() for line in fig.axes[0].lines)
    assert list(middle) == [0, 3, 40]
    assert left[1] < 3 < right[1]  # side by side
    assert right[2] < 41


def test_retrieval_grid() -> None:
    data = make_data(CLASSES)
    data.targets[:] = [[1, 1, 0], [0, 0, 0], [0, 1, 1], [1, 1, 1], [0, 0, 1], [1, 0, 0], [1, 0, 0]]
    fig = plots.retrieval_grid(data, [0], {"l2d": np.array([[3, 4, 1]]), "mld": np.array([[2, 5, 6]])})
    query, third = fig.axes[0], fig.axes[2]
    assert [text.get_text() for text in query.texts] == ["query", "cat", "dog", "l2d"]
    assert np.array_equal(fig.axes[1].images[0].get_array(), data.images[3])
    labels = [(text.get_text(), to_hex(text.get_color())) for text in fig.axes[1].texts[1:]]
    assert labels == [("cat ✓", "#007a4d"), ("dog ✓", "#007a4d"), ("bus", "#c0392b")]
    assert [text.get_text() for text in third.texts] == ["2", "bus"]
    assert [text.get_text() for text in fig.axes[3].texts] == ["3", "(none)"]
    data = make_data(tuple(map(str, range(20))))
    many = plots.retrieval_grid(data, [1], {"l2d": np.array([[0]])})
    assert [text.get_text() for text in many.axes[1].texts][-1] == f"and {data.targets[0].sum() - 5} more"


def test_retrieval_scores() -> None:
    fig = OF_RUNS["retrieval_scores"]()
    assert [tick.get_text() for tick in fig.axes[0].get_yticklabels()] == ["vanilla student", "l2d student", "teacher"]
    dots = [line.get_xdata()[0] for line in fig.axes[1].lines if line.get_marker() == "o"]
    assert dots == pytest.approx([0, 20, 40])


def test_context_scores() -> None:
    ax = OF_RUNS["context_scores"]().axes[0]
    assert ax.get_yticklabels()[0].get_text() == "vanilla student (n = 2)"
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    assert [line.get_xdata()[0] for line in dots[:2]] == pytest.approx([50, 40])
    assert dots[1].get_markerfacecolor() == "white"
    assert ax.get_xlim()[0] == 0


def test_context_reliance_is_sorted() -> None:
    drops, reliance = plots.context_reliance(reliance_table(CLASSES), "teacher").axes
    names = [tick.get_text() for tick in drops.get_yticklabels()]
    assert names == ["bus without dog (n = 9)", "dog without cat (n = 9)", "cat without bus (n = 9)"]
    dots = [line.get_xdata()[0] for line in drops.lines if line.get_marker() == "o"]
    assert dots == pytest.approx([40, 20, 0, 40 / 3, 20 / 3, 0])
    dots = [line.get_xdata()[0] for line in reliance.lines if line.get_marker() == "o"]
    assert dots == pytest.approx([80 / 3, 40 / 3, 0])
    assert list(reliance.lines[0].get_xdata()) == pytest.approx([80 / 3 - 2, 80 / 3 + 3])


def test_reliance_regression() -> None:
    fig = plots.reliance_regression(reliance_table(CLASSES), regression_lines())
    vanilla, l2d = fig.axes
    assert l2d.get_title() == "l2d student\nslope 0.50 [0.40, 0.60], r = 0.90"
    points = next(line for line in l2d.lines if line.get_marker() == "o")
    assert sorted(points.get_xdata()) == pytest.approx([0, 40 / 3, 80 / 3])
    assert points.get_ydata().tolist() == pytest.approx((points.get_xdata() / 2).tolist())
    line = l2d.lines[-1]
    assert line.get_ydata().tolist() == pytest.approx([1, 0.5 * 80 / 3 + 1])
    assert len(vanilla.lines) == 2  # no line without a slope
    outlier = reliance_table(tuple("abcdefgh"))
    outlier["reliance"] = 0.0
    outlier.loc[outlier["label"] == "c", "reliance"] = 0.5
    _, l2d = plots.reliance_regression(outlier, regression_lines()).axes
    assert [text.get_text() for text in l2d.texts] == ["c / b"]  # the others overlap


def test_label_gains() -> None:
    ax = WITH_CLASSES["label_gains"](CLASSES).axes[0]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["cat (17)", "dog (17)", "bus (17)"]
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    assert [line.get_xdata()[0] for line in dots] == pytest.approx([10, 2.5, -5])
    assert [line.get_markerfacecolor() for line in dots] == [GAIN, GAIN, "white"]


def test_gain_intervals() -> None:
    fig = plots.gain_intervals({"l2d": Gain(0.05, 0.02, 0.08, 0.03, 5), "mdkd": Gain(0.04, 0.02, 0.06, 0.3, 2)})
    ax = fig.axes[0]
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    assert [line.get_markerfacecolor() == "white" for line in dots] == [False, True]
    assert [line.get_xdata()[0] for line in dots] == pytest.approx([5, 4])
    assert [(bar.get_x(), bar.get_width()) for bar in ax.patches] == [pytest.approx((-3, 6)), pytest.approx((-30, 60))]


def test_protocol_spread() -> None:
    ax = OF_RUNS["protocol_spread"]().axes[0]
    assert [text.get_text() for text in ax.texts] == ["0", "30", "10"]
    marks = [line for line in ax.lines if line.get_marker() != "None"]
    assert [line.get_xdata()[0] for line in marks] == pytest.approx([50, 50, 50, 40, 60, 30, 45, 50, 55])
    assert len({line.get_marker() for line in marks[:3]}) == 3


def test_gradient_terms() -> None:
    fraction, cosine = plots.gradient_terms(gradient_table()).axes
    assert [list(line.get_ydata()) for line in fraction.lines] == [pytest.approx([40 + 10 * k] * 3) for k in range(3)]
    assert [list(line.get_ydata()) for line in cosine.lines[:2]] == [
        [0.5] * 3,
        [0] * 3,
    ]  # the BCE is not compared with itself
    assert list(fraction.lines[0].get_xdata()) == [0, 50, 100]


def test_gradient_classes() -> None:
    fraction, cosine = plots.gradient_classes(gradient_table(("cat", "dog"))).axes
    assert [text.get_text() for text in fraction.texts] == ["40", "50", "60"] * 2
    assert [text.get_text() for text in cosine.texts] == ["+0.50", "+0.00"] * 2  # the BCE is not compared with itself
    assert [text.get_text() for text in fraction.get_yticklabels()] == ["cat", "dog"]
    assert [text.get_text() for text in cosine.get_xticklabels()] == ["mld", "cd"]


def test_empty_tables_are_drawn() -> None:
    plots.localization_plot(localization_table(["all"])[:0], "label", "run").draw_without_rendering()
    plots.gradient_terms(gradient_table()[:0]).draw_without_rendering()
    plots.gradient_classes(gradient_table()[:0]).draw_without_rendering()
    assert not [text for text in plots.gain_intervals({}).findobj(Text) if "(n =" in text.get_text()]
    plots.label_gains(
        pd.DataFrame({"label": ["cat"], "difference": [np.nan]}), title="nothing"
    ).draw_without_rendering()
