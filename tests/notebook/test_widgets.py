"""The explorers: moved through their controls, compared with the functions below them, and run without anybody."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit

from mlkd import plots
from mlkd.analysis import (
    label_correlations,
    correlation_difference,
    extract_features,
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

from mlkd import report
from mlkd.notebook import widgets  # noqa: E402
from mlkd.notebook.widgets.explorer import Explorer, png, watched  # noqa: E402

NAMES = ("<script>alert(1)</script>", "salt & pepper", "a$b$c", "dark")


@pytest.fixture(autouse=True, scope="module")
def without_a_screen() -> None:
    import matplotlib.pyplot as plt

    plt.switch_backend("agg")


@pytest.fixture(autouse=True)
def in_the_cache(own_cache: Path) -> None:
    """Pictures are decoded into the session's cache folder."""


@pytest.fixture
def data(toy_data: dict[str, MultiLabelData]) -> MultiLabelData:
    """Twelve pictures whose classes have odd names, with boxes."""
    some = toy_data["test"].subset(range(12))
    boxes = [np.array([[k, 2, 3, 20, 25] for k in np.flatnonzero(row)], np.float32) for row in some.targets]
    return MultiLabelData(
        "toy", "test", some.images, some.targets, NAMES, some.ids, [found.reshape(-1, 5) for found in boxes]
    )


def network(seed: int, head: str = "label_wise") -> MultiLabelModel:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        width = None if head == "gap" else 8
        model = create_model("resnet8_cifar", NAMES, head, image_size=32, embed_dim=width, widths=[8, 8, 8])
    return model.eval()


def finished(root: Path, method: str, model: MultiLabelModel, data: MultiLabelData) -> Run:
    run = open_run(
        root, {"method": method, "training": {"role": "student", "backbone": "resnet8_cifar", "seed": 0, "epochs": 2}}
    )
    save_model(model, run.path / "model.safetensors")
    run.write_predictions("test", predict(model, data))
    run.finish({"test": {"mAP": 0.5}})
    return run


def shown(explorer: Explorer) -> bytes:
    return explorer._picture.value


def said(explorer: Explorer) -> str:
    return explorer._said.value


def complaint(explorer: Explorer) -> str:
    return explorer._error.value


def click(explorer: Explorer, panel: int, x: float, y: float) -> None:
    """As the browser tells it: a point in the units of the figure's axes, in shares of the picture it was shown as."""
    figure = explorer.figure()
    png(figure)
    left, low = figure.transFigure.inverted().transform(figure.axes[panel].transData.transform((x, y)))
    explorer._picture._handle_custom_msg({"x": left, "y": 1 - low}, [])


# What they share


def test_importing_mlkd_loads_no_widgets() -> None:
    code = "import sys, mlkd; print([m for m in ('ipywidgets', 'IPython', 'mlkd.widgets') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_missing_package_is_named() -> None:
    code = "import sys; sys.modules['ipywidgets'] = None; from mlkd.notebook import widgets"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "ImportError: The explorers need the package 'ipywidgets': pip install 'mlkd[notebooks]'." in done.stderr


def all_texts(widget: object) -> Iterator[str]:
    """What the HTML widgets of a box hold."""
    if isinstance(widget, ipywidgets.HTML):
        yield widget.value
    for child in getattr(widget, "children", ()):
        yield from all_texts(child)


def test_names_from_files_are_no_html(data: MultiLabelData) -> None:
    explorers = [
        widgets.LabelGraphExplorer(cooccurrence(data.targets), NAMES, k=2),
        widgets.CamExplorer({"a <b>": network(0)}, data, label=0),
    ]
    for explorer in explorers:
        text = "".join(all_texts(explorer.box))
        assert "<script" not in text
        assert escape(NAMES[0]) in text
    assert escape(NAMES[1]) in "".join(all_texts(explorers[0].box))
    explorers[1].control["method"].value = "cam"
    explorers[1].show_error(ValueError("no class <script> & no more"))
    assert "no class &lt;script&gt; &amp; no more" in complaint(explorers[1])


def test_no_name_is_a_formula(data: MultiLabelData) -> None:
    explorer = widgets.LabelGraphExplorer(cooccurrence(data.targets), NAMES, k=1)
    told = explorer.static_figure().get_supxlabel()
    assert r"a\$b\$c" in told
    assert told.replace(r"\$", "$").split() == " ".join(explorer.caption_lines()).split()


def test_a_notebook_shows_widgets_only_to_somebody(monkeypatch: pytest.MonkeyPatch, data: MultiLabelData) -> None:
    content: dict[str, bool] = {}

    class Kernel:
        def get_parent(self, channel: str) -> dict:
            return {"content": content} if channel == "shell" else {}

    class Shell:
        kernel = Kernel()

    assert not watched()  # no notebook at all
    monkeypatch.setattr("mlkd.notebook.widgets.explorer.get_ipython", Shell)
    explorer = widgets.LabelGraphExplorer(cooccurrence(data.targets), NAMES, k=2)
    for said_by_client, live in (({}, False), ({"allow_stdin": False}, False), ({"allow_stdin": True}, True)):
        content = said_by_client
        assert watched() is live
    assert "application/vnd.jupyter.widget-view+json" in explorer._repr_mimebundle_()


# The label graph


def test_the_label_graph(data: MultiLabelData) -> None:
    counts = cooccurrence(data.targets)
    explorer = widgets.LabelGraphExplorer(counts, NAMES, k=2)
    assert "mlkd-label-graph" in explorer.box._dom_classes
    for name, value in (("k", 3), ("tau", 1.0), ("strategy", "dgp"), ("strategy", "random"), ("k", 4)):
        before = shown(explorer)
        explorer.control[name].value = value
        assert getattr(explorer, name) == value
        assert shown(explorer) != before
        parts = partition(counts, explorer.k, explorer.strategy, explorer.tau)
        joined = affinity(counts, "cgp", explorer.tau)
        assert shown(explorer) == png(plots.partitions(joined, {explorer.strategy: parts}, NAMES))
        assert f"Cut: {100 * cut_fraction(joined, parts):.1f} %" in said(explorer)
        assert f"Labels in a part: {', '.join(str(sum(parts == part)) for part in range(explorer.k))}." in said(
            explorer
        )
        for part in range(explorer.k):
            own = ", ".join(name for name, one in zip(NAMES, parts, strict=True) if one == part)
            assert f"{part + 1}: {escape(own)}<" in said(explorer)


def test_a_value_set_in_python_moves_the_control(data: MultiLabelData) -> None:
    explorer = widgets.LabelGraphExplorer(cooccurrence(data.targets), NAMES, k=2)
    control = explorer.control["k"]
    before = (explorer.box, shown(explorer))[1]
    explorer.k = 4
    assert control.value == 4
    assert shown(explorer) != before


def test_what_cannot_be_shown_is_told_and_the_picture_stays(data: MultiLabelData) -> None:
    targets = data.targets.copy()
    targets[:, 1] = 0
    explorer = widgets.LabelGraphExplorer(cooccurrence(targets), NAMES, k=2)
    before = (explorer.box, shown(explorer))[1]
    explorer.control["k"].value = 4
    assert "`k` is 4, expected 1 to 3 parts of 4 labels" in complaint(explorer)
    assert shown(explorer) == before
    explorer.control["k"].value = 3
    assert complaint(explorer) == ""
    assert shown(explorer) != before
    with pytest.raises(ValueError, match="`k` is 5, expected 1 to 3"):
        widgets.LabelGraphExplorer(cooccurrence(targets), NAMES, k=5)


# Maps


def test_the_map_of_a_picture(data: MultiLabelData) -> None:
    models = {"teacher": network(0), "l2d student": network(1)}
    explorer = widgets.CamExplorer(models, data, row=3, method="layercam")
    assert "mlkd-cam" in explorer.box._dom_classes
    moves = (("label", 3), ("opacity", 0.2), ("network", "l2d student"), ("layer", "blocks.1"), ("method", "gradcam"))
    for name, value in moves:
        before = shown(explorer)
        explorer.control[name].value = value
        assert shown(explorer) != before
        row, label = explorer.row, explorer.label
        found = cam_per_image(
            models[explorer.network], data, [row], [label], method=explorer.method, layer=explorer.layer or None
        )
        boxes = data.normalized_boxes(row)
        probabilities = expit(predict(models[explorer.network], data).logits[row])
        expected = plots.cam_overlay(
            data.images[row],
            found.maps[0],
            label,
            probabilities,
            data.targets[row],
            NAMES,
            boxes=boxes[boxes[:, 0] == label, 1:],
            opacity=explorer.opacity,
        )
        assert shown(explorer) == png(expected)
        assert f"{escape(NAMES[label])} {100 * found.probabilities[0]:.0f} %" in said(explorer)


def test_another_picture_begins_with_its_first_label(data: MultiLabelData) -> None:
    explorer = widgets.CamExplorer({"teacher": network(0)}, data, row=0, label=2)
    assert (explorer.box, explorer.label)[1] == 2
    row = next(row for row, has in enumerate(data.targets) if not has[0] and has.sum() == 2)
    explorer.control["row"].value = row
    own = np.flatnonzero(data.targets[row]).tolist()
    assert explorer.label == own[0]
    options = explorer.control["label"].options
    assert [k for _, k in options][:2] == own
    assert [text.endswith(" ✓") for text, _ in options] == [True, True, False, False]
    assert f"picture {data.ids[row]}" in said(explorer)
    assert "the picture has it" in said(explorer)


def test_each_network_has_its_layers(data: MultiLabelData) -> None:
    vit = create_model("test_vit", NAMES, image_size=64, embed_dim=8).eval()
    explorer = widgets.CamExplorer({"cnn": network(0), "vit": vit}, data)
    assert "blocks.2" in [name for _, name in explorer.control["layer"].options]
    explorer.control["layer"].value = "blocks.1"
    explorer.control["network"].value = "vit"
    assert explorer.layer == ""
    assert "blocks.11" not in [name for _, name in explorer.control["layer"].options]


def test_a_method_that_a_head_does_not_have(data: MultiLabelData) -> None:
    explorer = widgets.CamExplorer({"label-wise": network(0), "pooled": network(0, "gap")}, data)
    before = (explorer.box, shown(explorer))[1]
    explorer.control["method"].value = "cam"
    assert "needs the last layer and a linear head" in complaint(explorer)
    assert shown(explorer) == before
    explorer.control["network"].value = "pooled"
    assert complaint(explorer) == ""
    assert shown(explorer) != before


def test_wrong_beginnings_are_refused(data: MultiLabelData) -> None:
    models = {"teacher": network(0)}
    with pytest.raises(ValueError, match=r"`row` is 12, expected 0 to 11"):
        widgets.CamExplorer(models, data, row=12)
    with pytest.raises(ValueError, match=r"`label` is 9, expected a class index in 0\.\.3"):
        widgets.CamExplorer(models, data, label=9)
    with pytest.raises(ValueError, match=r"`method` is 'gradcm'.*'gradcam'"):
        widgets.CamExplorer(models, data, method="gradcm")
    with pytest.raises(ValueError, match="`models` is empty"):
        widgets.CamExplorer({}, data)


# Pairs of labels


@pytest.fixture
def trained(tmp_path: Path, data: MultiLabelData) -> dict[str, Run]:
    names = ("vanilla", "l2d", "mdkd")
    return {name: finished(tmp_path, name, network(seed), data) for seed, name in enumerate(names)}


def test_a_pair_of_labels(trained: dict[str, Run], data: MultiLabelData) -> None:
    teacher = trained.pop("vanilla")
    explorer = widgets.LabelPairInspector(trained, teacher, data, pair=(2, 1))
    its, said_by = (expit(teacher.predictions().logits), {t: expit(r.predictions().logits) for t, r in trained.items()})
    assert "mlkd-pairs" in explorer.box._dom_classes
    e, n = cooccurrence(data.targets)
    for name, value in (("student", "mdkd"), ("first", 0), ("second", 3), ("first", 1)):
        before = shown(explorer), said(explorer)
        explorer.control[name].value = value
        assert shown(explorer) != before[0]
        assert said(explorer) != before[1]
        k, m = explorer.first, explorer.second
        added = pair_contributions(said_by[explorer.student], its, k, m)
        gap = label_correlations(said_by[explorer.student])[k, m] - label_correlations(its)[k, m]
        rows, values = explorer.drivers()
        expected = sorted(range(len(data)), key=lambda row: -added[row] * np.sign(gap))[:3]
        assert rows.tolist() == expected
        np.testing.assert_array_equal(values, added[expected])
        assert f"together in {e[k, m]} of 12 pictures of test" in said(explorer)
        assert f"{escape(NAMES[k])} in {n[k]}, {escape(NAMES[m])} in {n[m]}" in said(explorer)
        assert f"difference {gap:+.3f}" in said(explorer)
        for row in expected:
            assert f"{added[row]:+.4f}  {data.ids[row]} has" in said(explorer)


def test_buttons_lead_to_the_largest_cells(trained: dict[str, Run], data: MultiLabelData) -> None:
    teacher = trained.pop("vanilla")
    explorer = widgets.LabelPairInspector(trained, teacher, data)
    explorer.control["student"].value = "mdkd"
    matrix = correlation_difference(*(expit(run.predictions().logits) for run in (trained["mdkd"], teacher))).matrix
    pairs = sorted(((k, m) for k in range(4) for m in range(k + 1, 4)), key=lambda pair: -matrix[pair])

    before = (explorer.box, shown(explorer))[1]
    for button, (k, m) in zip(explorer.buttons, pairs, strict=True):
        assert button.description == f"{NAMES[k]}, {NAMES[m]}: {matrix[k, m]:.2f}"
    explorer.buttons[4].click()
    assert (explorer.first, explorer.second) == pairs[4]
    assert explorer.control["first"].value == pairs[4][0]
    assert shown(explorer) != before
    explorer.control["second"].value = explorer.first
    assert "correlation with itself is 1" in complaint(explorer)


def test_clicks_lead_to_cells(trained: dict[str, Run], data: MultiLabelData) -> None:
    teacher = trained.pop("vanilla")
    explorer = widgets.LabelPairInspector(trained, teacher, data, pair=(0, 1))
    assert explorer.box
    names = [text.get_text().replace("\\$", "$") for text in explorer.figure().axes[0].get_yticklabels()]
    for row, column in ((0, 3), (3, 0), (2, 1)):
        before = shown(explorer)
        click(explorer, 0, column + 0.4, row - 0.4)
        assert (NAMES[explorer.first], NAMES[explorer.second]) == (names[row], names[column])
        assert shown(explorer) != before
    chosen = explorer.first, explorer.second
    click(explorer, 1, 0.5, 0.5)  # a picture, no cell
    assert (explorer.first, explorer.second) == chosen
    click(explorer, 0, 2, 2)
    assert "correlation with itself is 1" in complaint(explorer)


def test_a_label_that_never_moves(trained: dict[str, Run], data: MultiLabelData) -> None:
    found = trained["l2d"].predictions()
    found.logits[:, 1] = 0
    trained["l2d"].write_predictions("test", found)
    teacher = trained.pop("vanilla")
    explorer = widgets.LabelPairInspector(trained, teacher, data)
    assert 1 not in (explorer.first, explorer.second)
    before = (explorer.box, shown(explorer))[1]
    assert [button.description.endswith("nan") for button in explorer.buttons] == [False] * 3 + [True] * 3
    explorer.control["first"].value = 1
    assert "the same probability in every picture, for the teacher or the l2d" in complaint(explorer)
    assert shown(explorer) == before
    explorer.control["student"].value = "mdkd"
    assert complaint(explorer) == ""


def test_the_maps_of_a_pair(trained: dict[str, Run], data: MultiLabelData, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the teacher and the student, of the pictures that drive the difference."""
    teacher = trained.pop("vanilla")
    explorer = widgets.LabelPairInspector(trained, teacher, data, pair=(3, 0))
    given: dict[str, np.ndarray] = {}
    real = plots.pair_images

    def note(*args, **settings):
        given.update(args[5])
        return real(*args, **settings)

    monkeypatch.setattr(plots, "pair_images", note)
    explorer.figure()
    rows = explorer.drivers()[0].tolist()
    assert list(given) == ["teacher", "l2d"]
    for run, maps in zip((teacher, trained["l2d"]), given.values(), strict=True):
        for place, label in enumerate((3, 0)):
            np.testing.assert_allclose(
                maps[:, place], cam_per_image(run.model(), data, rows, [label] * 3).maps, atol=1e-5
            )


def test_predictions_of_other_pictures(trained: dict[str, Run], data: MultiLabelData) -> None:
    teacher = trained.pop("vanilla")
    with pytest.raises(ValueError, match=r"predictions for 'test' are of other pictures or labels"):
        widgets.LabelPairInspector(trained, teacher, data.subset(range(4)))
    with pytest.raises(ValueError, match="`students` is empty"):
        widgets.LabelPairInspector({}, teacher, data)
    with pytest.raises(ValueError, match=r"`pair` is \(0, 4\), expected two class indices in 0\.\.3"):
        widgets.LabelPairInspector(trained, teacher, data, pair=(0, 4))
    with pytest.raises(ValueError, match="correlation with itself"):
        widgets.LabelPairInspector(trained, teacher, data, pair=(2, 2))
    (teacher.path / "predictions" / "test.npz").unlink()
    with pytest.raises(RunError, match="no predictions for the split 'test'"):
        widgets.LabelPairInspector(trained, teacher, data)


# Retrieval


def test_retrieval_follows_clicks(data: MultiLabelData) -> None:
    vectors = {name: extract_features(network(seed), data) for seed, name in enumerate(("teacher", "l2d student"))}
    explorer = widgets.RetrievalExplorer(vectors, data, query=2, k=3)
    assert "mlkd-retrieval" in explorer.box._dom_classes
    explorer.control["run"].value = "l2d student"
    for number in (1, 2, 0):
        before = shown(explorer)
        wanted = nearest_neighbors(vectors["l2d student"], [explorer.query], 3)[0, number]
        click(explorer, 1 + number, 0.5, 0.5)
        assert explorer.query == explorer.control["query"].value == wanted
        assert shown(explorer) != before
        neighbors = nearest_neighbors(vectors["l2d student"], [wanted], 3)
        assert shown(explorer) == png(plots.retrieval_grid(data, [wanted], {"l2d student": neighbors}))
        shared = (data.targets[neighbors[0]] & data.targets[wanted]).any(axis=1).sum()
        if data.targets[wanted].any():
            assert f"{shared} of the 3 pictures found share a label" in said(explorer)
    before = explorer.query
    click(explorer, 0, 0.5, 0.5)
    assert explorer.query == before
    explorer.control["query"].value = 1
    assert "it has no labels to share" in said(explorer)


def test_vectors_that_do_not_fit(data: MultiLabelData) -> None:
    with pytest.raises(ValueError, match=r"`vectors` of 'l2d' has 5 rows, expected 12"):
        widgets.RetrievalExplorer({"l2d": np.eye(5)}, data)
    with pytest.raises(ValueError, match=r"`k` is 12, expected 1 to 11"):
        widgets.RetrievalExplorer({"l2d": np.eye(12)}, data, k=12)
    with pytest.raises(ValueError, match="`row` is -1"):
        widgets.RetrievalExplorer({"l2d": np.eye(12)}, data, query=-1)


# A training that goes on elsewhere


def begun(root: Path, method: str = "l2d", epochs: int = 3, seed: int = 0) -> Run:
    training = {"role": "student", "backbone": "net", "seed": seed, "epochs": epochs}
    return open_run(root, {"method": method, "training": training})


def rows(epochs: int) -> list[dict[str, float]]:
    steady = {"lr": 0.1, "bce": 2.0, "seconds": 1.0, "images_per_second": 9.0}
    return [{"epoch": k + 1, **steady, "val_mAP": 0.1 * k} for k in range(epochs)]


async def until(found: object, seconds: float = 5) -> None:
    for _ in range(int(seconds / 0.01)):
        if found():  # type: ignore[operator]
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came")


def test_a_training_is_followed_to_its_end(tmp_path: Path) -> None:
    run = begun(tmp_path)

    async def watch() -> None:
        monitor = widgets.TrainingMonitor(run.path, seconds=0.01)
        assert "mlkd-monitor" in monitor.box._dom_classes
        assert f"{run.path.name}: epoch 0 of 3, not finished." in said(monitor)
        with run.locked():
            await until(lambda: "epoch 0 of 3, training." in said(monitor))
            for epoch in (1, 2):
                before = shown(monitor)
                run.write_history(rows(epoch))
                await until(lambda epoch=epoch: f"epoch {epoch} of 3, training." in said(monitor))
                assert shown(monitor) != before
                assert shown(monitor) == png(plots.training_curves({"l2d student": [pd.DataFrame(rows(epoch))]}))
        assert not monitor._task.done()
        run.write_history(rows(3))
        run.finish({})
        await until(monitor._task.done)
        assert "epoch 3 of 3, finished." in said(monitor)
        assert monitor.follow is monitor.control["follow"].value is False

    asyncio.run(watch())


def test_a_folder_of_runs_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = begun(tmp_path)
    first.write_history(rows(2))
    monkeypatch.setattr("mlkd.notebook.widgets.monitor.PATIENCE_S", 0.1)

    async def watch() -> None:
        monitor = widgets.TrainingMonitor(tmp_path, seconds=0.01)
        (axes, *_) = monitor.figure().axes
        assert [line.get_label() for line in axes.lines] == ["l2d student"]
        before = (monitor.box, shown(monitor))[1]
        second = begun(tmp_path, "vanilla")
        second.write_history(rows(1))
        await until(lambda: f"{second.path.name}: epoch 1 of 3" in said(monitor))
        assert shown(monitor) != before
        assert said(monitor).count("<p") == 2
        await until(monitor._task.done)  # nobody trains
        second.write_history(rows(2))
        monitor.control["follow"].value = True
        await until(lambda: f"{second.path.name}: epoch 2 of 3" in said(monitor))
        monitor.control["follow"].value = False
        await until(monitor._task.done)

    asyncio.run(watch())


def test_a_closed_monitor_stops(tmp_path: Path) -> None:
    run = begun(tmp_path)

    async def watch() -> None:
        monitor = widgets.TrainingMonitor(run.path, seconds=0.01)
        monitor.box  # noqa: B018
        with run.locked():
            await asyncio.sleep(0.05)
            assert not monitor._task.done()
            monitor.box.close()
            await until(monitor._task.done)

    asyncio.run(watch())


def test_a_run_that_goes_away_is_told(tmp_path: Path) -> None:
    run = begun(tmp_path)

    async def watch() -> None:
        monitor = widgets.TrainingMonitor(run.path, seconds=0.01)
        monitor.box  # noqa: B018
        for file in run.path.iterdir():
            file.unlink()
        run.path.rmdir()
        await until(monitor._task.done)
        assert "no run here" in complaint(monitor)

    asyncio.run(watch())


def test_folders_without_trainings(tmp_path: Path) -> None:
    assert widgets.TrainingMonitor(tmp_path).caption_lines() == [f"{tmp_path}: no training has begun here yet."]
    widgets.TrainingMonitor(tmp_path).static_figure()
    with pytest.raises(RunError, match="no such folder, expected that of a run or of all runs"):
        widgets.TrainingMonitor(tmp_path / "rums")


# Without anybody

CELL = """
import numpy as np
from mlkd.notebook import widgets
from mlkd.graphs import cooccurrence
targets = np.array([[1, 1, 0], [0, 1, 1], [1, 0, 0], [1, 1, 0]])
explorer = widgets.LabelGraphExplorer(cooccurrence(targets), ("<script>alert(1)</script>", "b & c", "d"), k=2)
"""


def test_a_report_holds_stills_and_no_widgets(tmp_path: Path) -> None:
    cells = [new_code_cell(CELL), new_code_cell("explorer"), new_code_cell("explorer.static_figure()")]
    parameters = new_code_cell("seeds = 1", metadata={"tags": ["parameters"]})
    (tmp_path / "notebooks").mkdir()
    nbformat.write(
        new_notebook(cells=[new_markdown_cell("# Parts\n\nWhich?"), parameters, *cells]),
        tmp_path / "notebooks" / "00_parts.ipynb",
    )
    code = report.run("night", {}, notebooks=tmp_path / "notebooks", reports=tmp_path / "reports")
    assert code == 0
    executed = nbformat.read(tmp_path / "reports" / "night" / "00_parts.ipynb", 4)
    *_, shown_cell, still = executed.cells
    (output,), (figure,) = shown_cell.outputs, still.outputs
    assert output.data["image/png"] == figure.data["image/png"]
    assert "widgets" not in executed.metadata
    page = (tmp_path / "reports" / "night" / "00_parts.html").read_text()
    for text in (json.dumps(executed), page):
        assert "vnd.jupyter.widget" not in text
    assert output.data["image/png"].replace("\n", "")[:200] in page
    assert "A widget: open the notebook" not in page
