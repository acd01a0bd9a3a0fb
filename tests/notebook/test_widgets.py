"""The explorers: changed through their controls, compared with the functions they call, and in static output."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit

from mlkd import plots
from mlkd.analysis import (
    correlation_difference,
    extract_features,
    label_correlations,
    nearest_neighbors,
    pair_contributions,
)
from mlkd.analysis.cam import cam_per_image
from mlkd.data import MultiLabelData
from mlkd.graphs import affinity, cooccurrence, cut_fraction, partition
from mlkd.models import MultiLabelModel, create_model, save_model
from mlkd.training.evaluate import predict
from mlkd.training.runs import Run, RunError, open_run

ipywidgets = pytest.importorskip("ipywidgets")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("pytorch_grad_cam")
pytest.importorskip("papermill")

from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook  # noqa: E402

from mlkd import report  # noqa: E402
from mlkd.notebook import widgets  # noqa: E402
from mlkd.notebook.widgets.explorer import Explorer, supports_widgets, to_png  # noqa: E402

NAMES = ("<script>alert(1)</script>", "salt & pepper", "a$b$c", "dark")


@pytest.fixture(autouse=True, scope="module")
def agg_backend() -> None:
    import matplotlib.pyplot as plt

    plt.switch_backend("agg")


@pytest.fixture(autouse=True)
def session_cache(own_cache: Path) -> None:
    """Images are decoded into the session's cache folder."""


@pytest.fixture
def data(toy_data: dict[str, MultiLabelData]) -> MultiLabelData:
    """Twelve images with boxes, whose class names need escaping."""
    split = toy_data["test"].subset(range(12))
    boxes = [np.array([[k, 2, 3, 20, 25] for k in np.flatnonzero(row)], np.float32) for row in split.targets]
    return MultiLabelData(
        "toy",
        "test",
        split.images,
        split.targets,
        NAMES,
        split.ids,
        [image_boxes.reshape(-1, 5) for image_boxes in boxes],
    )


def network(seed: int, head: str = "label_wise") -> MultiLabelModel:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        width = None if head == "gap" else 8
        model = create_model("resnet8_cifar", NAMES, head, image_size=32, embed_dim=width, widths=[8, 8, 8])
    return model.eval()


def finished_run(root: Path, method: str, model: MultiLabelModel, data: MultiLabelData) -> Run:
    run = open_run(
        root, {"method": method, "training": {"role": "student", "backbone": "resnet8_cifar", "seed": 0, "epochs": 2}}
    )
    save_model(model, run.path / "model.safetensors")
    run.write_predictions("test", predict(model, data))
    run.finish({"test": {"mAP": 0.5}})
    return run


def shown_image(explorer: Explorer) -> bytes:
    return explorer._image.value


def caption(explorer: Explorer) -> str:
    return explorer._caption.value


def error_text(explorer: Explorer) -> str:
    return explorer._error.value


def click(explorer: Explorer, panel: int, x: float, y: float) -> None:
    """Sends the browser's message for a click at a point in data coordinates of the axes `panel`."""
    figure = explorer.figure()
    to_png(figure)
    left, low = figure.transFigure.inverted().transform(figure.axes[panel].transData.transform((x, y)))
    explorer._image._handle_custom_msg({"x": left, "y": 1 - low}, [])


# The base class


def test_importing_mlkd_loads_no_widgets() -> None:
    code = "import sys, mlkd; print([m for m in ('ipywidgets', 'IPython', 'mlkd.notebook') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_error_names_the_missing_package() -> None:
    code = "import sys; sys.modules['ipywidgets'] = None; from mlkd.notebook import widgets"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.returncode == 1
    assert "ImportError: The explorers need the package 'ipywidgets': pip install 'mlkd[notebooks]'." in process.stderr


def all_texts(widget: object) -> Iterator[str]:
    """The values of the HTML widgets of a box."""
    if isinstance(widget, ipywidgets.HTML):
        yield widget.value
    for child in getattr(widget, "children", ()):
        yield from all_texts(child)


def test_class_names_are_escaped_in_html(data: MultiLabelData) -> None:
    explorers = [
        widgets.LabelGraphExplorer(cooccurrence(data.targets), NAMES, k=2),
        widgets.CamExplorer({"a <b>": network(0)}, data, label=0),
    ]
    for explorer in explorers:
        text = "".join(all_texts(explorer.box))
        assert "<script" not in text
        assert escape(NAMES[0]) in text
    assert escape(NAMES[1]) in "".join(all_texts(explorers[0].box))
    explorers[1].controls["method"].value = "cam"
    explorers[1].show_error(ValueError("no class <script> & no more"))
    assert "no class &lt;script&gt; &amp; no more" in error_text(explorers[1])


def test_class_names_are_escaped_in_formulas(data: MultiLabelData) -> None:
    explorer = widgets.LabelGraphExplorer(cooccurrence(data.targets), NAMES, k=1)
    text = explorer.static_figure().get_supxlabel()
    assert r"a\$b\$c" in text
    assert text.replace(r"\$", "$").split() == " ".join(explorer.caption_lines()).split()


def test_widgets_are_shown_by_interactive_clients_only(monkeypatch: pytest.MonkeyPatch, data: MultiLabelData) -> None:
    content: dict[str, bool] = {}

    class Kernel:
        def get_parent(self, channel: str) -> dict:
            return {"content": content} if channel == "shell" else {}

    class Shell:
        kernel = Kernel()

    assert not supports_widgets()  # no notebook at all
    monkeypatch.setattr("mlkd.notebook.widgets.explorer.get_ipython", Shell)
    explorer = widgets.LabelGraphExplorer(cooccurrence(data.targets), NAMES, k=2)
    for request, live in (({}, False), ({"allow_stdin": False}, False), ({"allow_stdin": True}, True)):
        content = request
        assert supports_widgets() is live
    assert "application/vnd.jupyter.widget-view+json" in explorer._repr_mimebundle_()


# The label graph


def test_label_graph(data: MultiLabelData) -> None:
    counts = cooccurrence(data.targets)
    explorer = widgets.LabelGraphExplorer(counts, NAMES, k=2)
    assert "mlkd-label-graph" in explorer.box._dom_classes
    for name, value in (("k", 3), ("tau", 1.0), ("strategy", "dgp"), ("strategy", "random"), ("k", 4)):
        before = shown_image(explorer)
        explorer.controls[name].value = value
        assert getattr(explorer, name) == value
        assert shown_image(explorer) != before
        subsets = partition(counts, explorer.k, explorer.strategy, explorer.tau)
        graph = affinity(counts, "cgp", explorer.tau)
        assert shown_image(explorer) == to_png(plots.partitions(graph, {explorer.strategy: subsets}, NAMES))
        assert f"Cut: {100 * cut_fraction(graph, subsets):.1f} %" in caption(explorer)
        sizes = ", ".join(str(sum(subsets == number)) for number in range(explorer.k))
        assert f"Labels per subset: {sizes}." in caption(explorer)
        for number in range(explorer.k):
            names = ", ".join(name for name, subset in zip(NAMES, subsets, strict=True) if subset == number)
            assert f"{number + 1}: {escape(names)}<" in caption(explorer)


def test_setting_a_trait_updates_the_control(data: MultiLabelData) -> None:
    explorer = widgets.LabelGraphExplorer(cooccurrence(data.targets), NAMES, k=2)
    control = explorer.controls["k"]
    before = (explorer.box, shown_image(explorer))[1]
    explorer.k = 4
    assert control.value == 4
    assert shown_image(explorer) != before


def test_error_is_shown_and_the_image_is_kept(data: MultiLabelData) -> None:
    targets = data.targets.copy()
    targets[:, 1] = 0
    explorer = widgets.LabelGraphExplorer(cooccurrence(targets), NAMES, k=2)
    before = (explorer.box, shown_image(explorer))[1]
    explorer.controls["k"].value = 4
    assert "`k` is 4, expected 1 to 3 label subsets of 4 labels" in error_text(explorer)
    assert shown_image(explorer) == before
    explorer.controls["k"].value = 3
    assert error_text(explorer) == ""
    assert shown_image(explorer) != before
    with pytest.raises(ValueError, match="`k` is 5, expected 1 to 3"):
        widgets.LabelGraphExplorer(cooccurrence(targets), NAMES, k=5)


# Class activation maps


def test_cam_explorer(data: MultiLabelData) -> None:
    models = {"teacher": network(0), "l2d student": network(1)}
    explorer = widgets.CamExplorer(models, data, index=3, method="layercam")
    assert "mlkd-cam" in explorer.box._dom_classes
    moves = (("label", 3), ("opacity", 0.2), ("network", "l2d student"), ("layer", "blocks.1"), ("method", "gradcam"))
    for name, value in moves:
        before = shown_image(explorer)
        explorer.controls[name].value = value
        assert shown_image(explorer) != before
        row, label = explorer.index, explorer.label
        expected_cam = cam_per_image(
            models[explorer.network], data, [row], [label], method=explorer.method, layer=explorer.layer or None
        )
        boxes = data.normalized_boxes(row)
        probabilities = expit(predict(models[explorer.network], data).logits[row])
        expected = plots.cam_overlay(
            data.images[row],
            expected_cam.maps[0],
            label,
            probabilities,
            data.targets[row],
            NAMES,
            boxes=boxes[boxes[:, 0] == label, 1:],
            opacity=explorer.opacity,
        )
        assert shown_image(explorer) == to_png(expected)
        assert f"{escape(NAMES[label])} {100 * expected_cam.probabilities[0]:.0f} %" in caption(explorer)


def test_changing_the_image_selects_its_first_label(data: MultiLabelData) -> None:
    explorer = widgets.CamExplorer({"teacher": network(0)}, data, index=0, label=2)
    assert (explorer.box, explorer.label)[1] == 2
    row = next(row for row, has in enumerate(data.targets) if not has[0] and has.sum() == 2)
    explorer.controls["index"].value = row
    present = np.flatnonzero(data.targets[row]).tolist()
    assert explorer.label == present[0]
    options = explorer.controls["label"].options
    assert [k for _, k in options][:2] == present
    assert [text.endswith(" ✓") for text, _ in options] == [True, True, False, False]
    assert f"image {data.ids[row]}" in caption(explorer)
    assert "the label is present" in caption(explorer)


def test_layers_of_each_network(data: MultiLabelData) -> None:
    vit = create_model("test_vit", NAMES, image_size=64, embed_dim=8).eval()
    explorer = widgets.CamExplorer({"cnn": network(0), "vit": vit}, data)
    assert "blocks.2" in [name for _, name in explorer.controls["layer"].options]
    explorer.controls["layer"].value = "blocks.1"
    explorer.controls["network"].value = "vit"
    assert explorer.layer == ""
    assert "blocks.11" not in [name for _, name in explorer.controls["layer"].options]


def test_cam_method_that_the_head_does_not_support(data: MultiLabelData) -> None:
    explorer = widgets.CamExplorer({"label-wise": network(0), "pooled": network(0, "gap")}, data)
    before = (explorer.box, shown_image(explorer))[1]
    explorer.controls["method"].value = "cam"
    assert "needs the last layer and a linear head" in error_text(explorer)
    assert shown_image(explorer) == before
    explorer.controls["network"].value = "pooled"
    assert error_text(explorer) == ""
    assert shown_image(explorer) != before


def test_invalid_arguments(data: MultiLabelData) -> None:
    models = {"teacher": network(0)}
    with pytest.raises(ValueError, match=r"`index` is 12, expected 0 to 11"):
        widgets.CamExplorer(models, data, index=12)
    with pytest.raises(ValueError, match=r"`label` is 9, expected a class index in 0\.\.3"):
        widgets.CamExplorer(models, data, label=9)
    with pytest.raises(ValueError, match=r"`method` is 'gradcm'.*'gradcam'"):
        widgets.CamExplorer(models, data, method="gradcm")
    with pytest.raises(ValueError, match="`models` is empty"):
        widgets.CamExplorer({}, data)


# Label pairs


@pytest.fixture
def runs(tmp_path: Path, data: MultiLabelData) -> dict[str, Run]:
    names = ("vanilla", "l2d", "mdkd")
    return {name: finished_run(tmp_path, name, network(seed), data) for seed, name in enumerate(names)}


def test_label_pair(runs: dict[str, Run], data: MultiLabelData) -> None:
    teacher = runs.pop("vanilla")
    explorer = widgets.LabelPairInspector(runs, teacher, data, pair=(2, 1))
    teacher_probs = expit(teacher.predictions().logits)
    student_probs = {title: expit(run.predictions().logits) for title, run in runs.items()}
    assert "mlkd-pairs" in explorer.box._dom_classes
    e, n = cooccurrence(data.targets)
    for name, value in (("student", "mdkd"), ("first", 0), ("second", 3), ("first", 1)):
        before = shown_image(explorer), caption(explorer)
        explorer.controls[name].value = value
        assert shown_image(explorer) != before[0]
        assert caption(explorer) != before[1]
        k, m = explorer.first, explorer.second
        contributions = pair_contributions(student_probs[explorer.student], teacher_probs, k, m)
        difference = label_correlations(student_probs[explorer.student])[k, m] - label_correlations(teacher_probs)[k, m]
        rows, values = explorer.top_contributions()
        expected = sorted(range(len(data)), key=lambda row: -contributions[row] * np.sign(difference))[:3]
        assert rows.tolist() == expected
        np.testing.assert_array_equal(values, contributions[expected])
        assert f"co-occur in {e[k, m]} of 12 images of test" in caption(explorer)
        assert f"({escape(NAMES[k])}: {n[k]}, {escape(NAMES[m])}: {n[m]})" in caption(explorer)
        assert f"difference {difference:+.3f}" in caption(explorer)
        for row in expected:
            assert f"{contributions[row]:+.4f}  {data.ids[row]}: " in caption(explorer)


def test_buttons_select_the_largest_differences(runs: dict[str, Run], data: MultiLabelData) -> None:
    teacher = runs.pop("vanilla")
    explorer = widgets.LabelPairInspector(runs, teacher, data)
    explorer.controls["student"].value = "mdkd"
    matrix = correlation_difference(*(expit(run.predictions().logits) for run in (runs["mdkd"], teacher))).matrix
    pairs = sorted(((k, m) for k in range(4) for m in range(k + 1, 4)), key=lambda pair: -matrix[pair])

    before = (explorer.box, shown_image(explorer))[1]
    for button, (k, m) in zip(explorer.buttons, pairs, strict=True):
        assert button.description == f"{NAMES[k]}, {NAMES[m]}: {matrix[k, m]:.2f}"
    explorer.buttons[4].click()
    assert (explorer.first, explorer.second) == pairs[4]
    assert explorer.controls["first"].value == pairs[4][0]
    assert shown_image(explorer) != before
    explorer.controls["second"].value = explorer.first
    assert "with itself is 1" in error_text(explorer)


def test_clicks_select_cells(runs: dict[str, Run], data: MultiLabelData) -> None:
    teacher = runs.pop("vanilla")
    explorer = widgets.LabelPairInspector(runs, teacher, data, pair=(0, 1))
    assert explorer.box
    names = [text.get_text().replace("\\$", "$") for text in explorer.figure().axes[0].get_yticklabels()]
    for row, column in ((0, 3), (3, 0), (2, 1)):
        before = shown_image(explorer)
        click(explorer, 0, column + 0.4, row - 0.4)
        assert (NAMES[explorer.first], NAMES[explorer.second]) == (names[row], names[column])
        assert shown_image(explorer) != before
    chosen = explorer.first, explorer.second
    click(explorer, 1, 0.5, 0.5)  # an image, not a cell
    assert (explorer.first, explorer.second) == chosen
    click(explorer, 0, 2, 2)
    assert "with itself is 1" in error_text(explorer)


def test_label_with_constant_probability(runs: dict[str, Run], data: MultiLabelData) -> None:
    predictions = runs["l2d"].predictions()
    predictions.logits[:, 1] = 0
    runs["l2d"].write_predictions("test", predictions)
    teacher = runs.pop("vanilla")
    explorer = widgets.LabelPairInspector(runs, teacher, data)
    assert 1 not in (explorer.first, explorer.second)
    before = (explorer.box, shown_image(explorer))[1]
    assert [button.description.endswith("nan") for button in explorer.buttons] == [False] * 3 + [True] * 3
    explorer.controls["first"].value = 1
    assert "the teacher or the l2d predicts the same probability for every image" in error_text(explorer)
    assert shown_image(explorer) == before
    explorer.controls["student"].value = "mdkd"
    assert error_text(explorer) == ""


def test_maps_of_a_label_pair(runs: dict[str, Run], data: MultiLabelData, monkeypatch: pytest.MonkeyPatch) -> None:
    """The maps of teacher and student, for the images with the largest contributions."""
    teacher = runs.pop("vanilla")
    explorer = widgets.LabelPairInspector(runs, teacher, data, pair=(3, 0))
    passed_maps: dict[str, np.ndarray] = {}
    original = plots.pair_images

    def record(*args, **settings):
        passed_maps.update(args[5])
        return original(*args, **settings)

    monkeypatch.setattr(plots, "pair_images", record)
    explorer.figure()
    rows = explorer.top_contributions()[0].tolist()
    assert list(passed_maps) == ["teacher", "l2d"]
    for run, maps in zip((teacher, runs["l2d"]), passed_maps.values(), strict=True):
        for position, label in enumerate((3, 0)):
            np.testing.assert_allclose(
                maps[:, position], cam_per_image(run.model(), data, rows, [label] * 3).maps, atol=1e-5
            )


def test_predictions_for_other_images(runs: dict[str, Run], data: MultiLabelData) -> None:
    teacher = runs.pop("vanilla")
    with pytest.raises(ValueError, match=r"predictions for 'test' are for other images or labels"):
        widgets.LabelPairInspector(runs, teacher, data.subset(range(4)))
    with pytest.raises(ValueError, match="`students` is empty"):
        widgets.LabelPairInspector({}, teacher, data)
    with pytest.raises(ValueError, match=r"`pair` is \(0, 4\), expected two class indices in 0\.\.3"):
        widgets.LabelPairInspector(runs, teacher, data, pair=(0, 4))
    with pytest.raises(ValueError, match="with itself is 1"):
        widgets.LabelPairInspector(runs, teacher, data, pair=(2, 2))
    (teacher.path / "predictions" / "test.npz").unlink()
    with pytest.raises(RunError, match="no predictions for the split 'test'"):
        widgets.LabelPairInspector(runs, teacher, data)


# Retrieval


def test_click_selects_the_query(data: MultiLabelData) -> None:
    features = {name: extract_features(network(seed), data) for seed, name in enumerate(("teacher", "l2d student"))}
    explorer = widgets.RetrievalExplorer(features, data, query=2, k=3)
    assert "mlkd-retrieval" in explorer.box._dom_classes
    explorer.controls["run"].value = "l2d student"
    for number in (1, 2, 0):
        before = shown_image(explorer)
        wanted = nearest_neighbors(features["l2d student"], [explorer.query], 3)[0, number]
        click(explorer, 1 + number, 0.5, 0.5)
        assert explorer.query == explorer.controls["query"].value == wanted
        assert shown_image(explorer) != before
        neighbors = nearest_neighbors(features["l2d student"], [wanted], 3)
        assert shown_image(explorer) == to_png(plots.retrieval_grid(data, [wanted], {"l2d student": neighbors}))
        shared = (data.targets[neighbors[0]] & data.targets[wanted]).any(axis=1).sum()
        if data.targets[wanted].any():
            assert f"{shared} of the 3 nearest images share a label" in caption(explorer)
    before = explorer.query
    click(explorer, 0, 0.5, 0.5)
    assert explorer.query == before
    explorer.controls["query"].value = 1
    assert "the query has no labels" in caption(explorer)


def test_invalid_features(data: MultiLabelData) -> None:
    with pytest.raises(ValueError, match=r"`features` of 'l2d' has 5 rows, expected 12"):
        widgets.RetrievalExplorer({"l2d": np.eye(5)}, data)
    with pytest.raises(ValueError, match=r"`k` is 12, expected 1 to 11"):
        widgets.RetrievalExplorer({"l2d": np.eye(12)}, data, k=12)
    with pytest.raises(ValueError, match="`query` is -1"):
        widgets.RetrievalExplorer({"l2d": np.eye(12)}, data, query=-1)


# Training in another process


def new_run(root: Path, method: str = "l2d", epochs: int = 3, seed: int = 0) -> Run:
    training = {"role": "student", "backbone": "net", "seed": seed, "epochs": epochs}
    return open_run(root, {"method": method, "training": training})


def rows(epochs: int) -> list[dict[str, float]]:
    constant = {"lr": 0.1, "bce": 2.0, "seconds": 1.0, "images_per_second": 9.0}
    return [{"epoch": k + 1, **constant, "val_mAP": 0.1 * k} for k in range(epochs)]


async def until(condition: Callable[[], bool], seconds: float = 5) -> None:
    for _ in range(int(seconds / 0.01)):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the condition did not become true")


def test_monitor_of_a_run(tmp_path: Path) -> None:
    run = new_run(tmp_path)

    async def watch() -> None:
        monitor = widgets.TrainingMonitor(run.path, seconds=0.01)
        assert "mlkd-monitor" in monitor.box._dom_classes
        assert f"{run.path.name}: epoch 0 of 3, not finished." in caption(monitor)
        with run.locked():
            await until(lambda: "epoch 0 of 3, training." in caption(monitor))
            for epoch in (1, 2):
                before = shown_image(monitor)
                run.write_history(rows(epoch))
                await until(lambda epoch=epoch: f"epoch {epoch} of 3, training." in caption(monitor))
                assert shown_image(monitor) != before
                assert shown_image(monitor) == to_png(
                    plots.training_curves({"l2d student": [pd.DataFrame(rows(epoch))]})
                )
        assert not monitor._task.done()
        run.write_history(rows(3))
        run.finish({})
        await until(monitor._task.done)
        assert "epoch 3 of 3, finished." in caption(monitor)
        assert monitor.follow is monitor.controls["follow"].value is False

    asyncio.run(watch())


def test_monitor_of_a_folder_of_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = new_run(tmp_path)
    first.write_history(rows(2))
    monkeypatch.setattr("mlkd.notebook.widgets.monitor.IDLE_LIMIT_S", 0.1)

    async def watch() -> None:
        monitor = widgets.TrainingMonitor(tmp_path, seconds=0.01)
        (axes, *_) = monitor.figure().axes
        assert [line.get_label() for line in axes.lines] == ["l2d student"]
        before = (monitor.box, shown_image(monitor))[1]
        second = new_run(tmp_path, "vanilla")
        second.write_history(rows(1))
        await until(lambda: f"{second.path.name}: epoch 1 of 3" in caption(monitor))
        assert shown_image(monitor) != before
        assert caption(monitor).count("<p") == 2
        await until(monitor._task.done)  # nothing is trained
        second.write_history(rows(2))
        monitor.controls["follow"].value = True
        await until(lambda: f"{second.path.name}: epoch 2 of 3" in caption(monitor))
        monitor.controls["follow"].value = False
        await until(monitor._task.done)

    asyncio.run(watch())


def test_closed_monitor_stops(tmp_path: Path) -> None:
    run = new_run(tmp_path)

    async def watch() -> None:
        monitor = widgets.TrainingMonitor(run.path, seconds=0.01)
        monitor.box  # noqa: B018
        with run.locked():
            await asyncio.sleep(0.05)
            assert not monitor._task.done()
            monitor.box.close()
            await until(monitor._task.done)

    asyncio.run(watch())


def test_deleted_run_is_an_error(tmp_path: Path) -> None:
    run = new_run(tmp_path)

    async def watch() -> None:
        monitor = widgets.TrainingMonitor(run.path, seconds=0.01)
        monitor.box  # noqa: B018
        for file in run.path.iterdir():
            file.unlink()
        run.path.rmdir()
        await until(monitor._task.done)
        assert "no run here" in error_text(monitor)

    asyncio.run(watch())


def test_folders_without_runs(tmp_path: Path) -> None:
    assert widgets.TrainingMonitor(tmp_path).caption_lines() == [f"{tmp_path}: no runs yet."]
    widgets.TrainingMonitor(tmp_path).static_figure()
    with pytest.raises(RunError, match="no such folder, expected the folder of a run or of all runs"):
        widgets.TrainingMonitor(tmp_path / "rums")


# Static output

CELL = """
import numpy as np
from mlkd.notebook import widgets
from mlkd.graphs import cooccurrence
targets = np.array([[1, 1, 0], [0, 1, 1], [1, 0, 0], [1, 1, 0]])
explorer = widgets.LabelGraphExplorer(cooccurrence(targets), ("<script>alert(1)</script>", "b & c", "d"), k=2)
"""


def test_report_contains_static_figures_and_no_widgets(tmp_path: Path) -> None:
    cells = [new_code_cell(CELL), new_code_cell("explorer"), new_code_cell("explorer.static_figure()")]
    parameters = new_code_cell("seeds = 1", metadata={"tags": ["parameters"]})
    (tmp_path / "notebooks").mkdir()
    nbformat.write(
        new_notebook(cells=[new_markdown_cell("# Label subsets\n\nWhich?"), parameters, *cells]),
        tmp_path / "notebooks" / "00_subsets.ipynb",
    )
    code = report.run("night", {}, notebooks=tmp_path / "notebooks", reports=tmp_path / "reports")
    assert code == 0
    executed = nbformat.read(tmp_path / "reports" / "night" / "00_subsets.ipynb", 4)
    *_, explorer_cell, static_cell = executed.cells
    (output,), (figure,) = explorer_cell.outputs, static_cell.outputs
    assert output.data["image/png"] == figure.data["image/png"]
    assert "widgets" not in executed.metadata
    page = (tmp_path / "reports" / "night" / "00_subsets.html").read_text()
    for text in (json.dumps(executed), page):
        assert "vnd.jupyter.widget" not in text
    assert output.data["image/png"].replace("\n", "")[:200] in page
    assert "to use this widget" not in page
