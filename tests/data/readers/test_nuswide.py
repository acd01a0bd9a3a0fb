"""NUS-WIDE folders in the published layout."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from mlkd.cli import cli
from mlkd.data import DataError, MultiLabelData, load_data
from mlkd.data.readers import nuswide
from mlkd.data.validate import find_problems
from mlkd.study import create_study

CLASSES = ("airport", "bear", "cat")
LISTS = {
    "Train": [rf"actor\{k:04d}_21244{k}.jpg" for k in range(1, 9)]
    + [rf"bear_cub\{k:04d}_17417{k}.jpg" for k in (1, 2)],
    "Test": [rf"actor\{k:04d}_21244{k}.jpg" for k in range(9, 12)] + [r"zoo\0001_534152430.jpg"],
}
TARGETS = {
    "Train": np.array([[1, 0, 0], [0, 1, 0], [1, 1, 1], [0, 0, 0]] * 2 + [[0, 1, 1], [0, 0, 1]], np.uint8),
    "Test": np.array([[0, 0, 1], [1, 0, 1], [0, 0, 0], [0, 1, 0]], np.uint8),
}
IDS = {split: [name.removesuffix(".jpg").replace("\\", "/") for name in names] for split, names in LISTS.items()}


def write_split(root: Path, split: str, names: Sequence[str], targets: np.ndarray, classes: Sequence[str]) -> None:
    """The list of a split's images and its label files: a 0 or 1 per line. The split "" is all images."""
    (root / "ImageList").mkdir(parents=True, exist_ok=True)
    (root / "ImageList" / f"{split}Imagelist.txt").write_text("".join(f"{name}\n" for name in names))
    folder = root / "Groundtruth" / ("TrainTestLabels" if split else "AllLabels")
    folder.mkdir(parents=True, exist_ok=True)
    lines = np.full((len(classes), len(names), 2), ord("\n"), np.uint8)
    lines[:, :, 0] = targets.T + ord("0")
    for name, column in zip(classes, lines, strict=True):
        (folder / f"Labels_{name}{'_' * bool(split)}{split}.txt").write_bytes(column.tobytes())


def write_classes(root: Path, classes: Sequence[str]) -> None:
    (root / "ConceptsList").mkdir(parents=True)
    (root / "ConceptsList" / "Concepts81.txt").write_text("".join(f"{name}\r\n" for name in classes))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten images to train on and four to evaluate on, below `Flickr`."""
    root = tmp_path / "NUS-WIDE"
    write_classes(root, CLASSES)
    for split, names in LISTS.items():
        write_split(root, split, names, TARGETS[split], CLASSES)
        for name in names:
            path = root / "Flickr" / name.replace("\\", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 30), tuple(name.encode()[-7:-4])).save(path)
    order = np.random.default_rng(0).permutation(14)  # the list of all images has an order of its own
    all_names, all_targets = LISTS["Train"] + LISTS["Test"], np.concatenate([TARGETS["Train"], TARGETS["Test"]])
    write_split(root, "", [all_names[row] for row in order], all_targets[order], CLASSES)
    return root


def rows_by_id(data: MultiLabelData) -> dict[str, list[int]]:
    return dict(zip(data.ids, data.targets.tolist(), strict=True))


def test_published_layout(folder: Path) -> None:
    splits = nuswide.read(folder)
    assert {name: len(split) for name, split in splits.items()} == {"train": 9, "val": 1, "test": 4, "trainval": 10}
    for split, listed in (("trainval", "Train"), ("test", "Test")):
        data = splits[split]
        assert (data.name, data.split, data.classes, data.boxes) == ("NUS-WIDE", split, CLASSES, None)
        assert data.ids == tuple(IDS[listed])
        assert (data.targets == TARGETS[listed]).all()
        assert data.images[0].shape == (30, 40, 3)
    assert splits["test"].images.path(3) == folder / "Flickr" / "zoo" / "0001_534152430.jpg"
    assert find_problems(splits) == []


def test_labels_of_all_images(folder: Path) -> None:
    """`AllLabels` gives the same splits as `TrainTestLabels`, though the list of all images has another order."""
    expected = {name: rows_by_id(split) for name, split in nuswide.read(folder).items()}
    shutil.rmtree(folder / "Groundtruth" / "TrainTestLabels")
    splits = nuswide.read(folder)
    assert {name: rows_by_id(split) for name, split in splits.items()} == expected
    assert splits["test"].ids == tuple(IDS["Test"])


def test_unlabeled(folder: Path) -> None:
    splits = load_data(f"nuswide:{folder}?unlabeled=drop")
    assert {name: len(split) for name, split in splits.items()} == {"train": 7, "val": 1, "test": 3, "trainval": 8}
    for split, listed in (("trainval", "Train"), ("test", "Test")):
        labeled = TARGETS[listed].any(axis=1)
        assert splits[split].ids == tuple(np.array(IDS[listed])[labeled])
        assert (splits[split].targets == TARGETS[listed][labeled]).all()
    assert find_problems(splits) == []
    assert len(load_data(f"nuswide:{folder}?unlabeled=keep")["test"]) == 4
    with pytest.raises(ValueError, match=r"`unlabeled` is 'dropped', .* Did you mean 'drop'\?"):
        nuswide.read(folder, unlabeled="dropped")  # type: ignore[arg-type]


def test_command_line_and_recipes(folder: Path) -> None:
    result = CliRunner().invoke(cli, ["data", "check", f"nuswide:{folder}?unlabeled=drop"])
    assert result.output.endswith("no problems in train 7, val 1, test 3, trainval 8 images of 3 classes.\n")
    for recipe, num_images in (("l2d-nuswide-r101-r34", 10), ("cpsd-nuswide-r101-tf", 8)):
        study = create_study(recipe)
        assert study.reported is not None
        splits = study.replace(data=study.reported.data_address(str(folder))).splits
        assert len(splits["trainval"]) == num_images


def test_list_of_classes_beside_the_images(folder: Path) -> None:
    shutil.move(folder / "ConceptsList" / "Concepts81.txt", folder)
    assert nuswide.read(folder)["test"].classes == CLASSES


@pytest.mark.parametrize("parent", ["Flickr", "images", "image", "."])
@pytest.mark.parametrize("form", ["as listed", "file name", "Flickr id"])
def test_image_layouts(folder: Path, parent: str, form: str) -> None:
    shutil.move(folder / "Flickr", folder / "original")
    for file in sorted((folder / "original").rglob("*.jpg")):
        names = {
            "as listed": f"{file.parent.name}/{file.name}",
            "file name": file.name,
            "Flickr id": file.name.split("_")[1],
        }
        target = folder / parent / names[form]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(file, target)
    assert find_problems(nuswide.read(folder), decode=False) == []


def test_without_images(folder: Path) -> None:
    """Labels are read without the images; the validation names each file that is missing."""
    shutil.rmtree(folder / "Flickr")
    splits = nuswide.read(folder)
    assert (splits["test"].targets == TARGETS["Test"]).all()
    problems = find_problems({"test": splits["test"]})
    assert len(problems) == 4
    assert f"{folder}/Flickr/actor/0009_212449.jpg: no such file; expected an image" in problems[0]


def test_missing_image(folder: Path) -> None:
    (folder / "Flickr" / "actor" / "0010_2124410.jpg").unlink()
    (problem,) = find_problems(nuswide.read(folder))
    assert problem.startswith(f"{folder}/Flickr/actor/0010_2124410.jpg: no such file; expected an image")


LABELS = "Groundtruth/TrainTestLabels/Labels_{}.txt"
TRAIN_LIST, TEST_LIST = "ImageList/TrainImagelist.txt", "ImageList/TestImagelist.txt"
BAD_FILES: dict[str, tuple[str, Callable[[str], str | None], str]] = {
    "label 2": (LABELS.format("bear_Train"), lambda text: text.replace("1", "2", 1), "line 2: `2`; expected 0 or 1"),
    "label -1": (LABELS.format("bear_Test"), lambda text: text + "-1", r"line 5: `-1`; expected 0 or 1"),
    "empty line": (LABELS.format("bear_Test"), lambda text: "0\n\n" + text, r"line 2: ``; expected 0 or 1"),
    "two in a line": (LABELS.format("bear_Test"), lambda text: "0 0" + text[3:], r"line 1: `0 0`; expected 0 or 1"),
    "short labels": (
        LABELS.format("cat_Train"),
        lambda text: text[:-2],
        r"Labels_cat_Train\.txt, line 9: the last of 9 labels, but .*TrainImagelist\.txt lists 10 images",
    ),
    "long labels": (LABELS.format("cat_Test"), lambda text: text + "1\n", r"last of 5 labels, but .* lists 4 images"),
    "no label file": (
        LABELS.format("cat_Test"),
        lambda text: None,
        r"Labels_cat_Test\.txt: no such file; expected the labels of the class in .*Concepts81\.txt, line 3",
    ),
    "missing class": (
        "ConceptsList/Concepts81.txt",
        lambda text: text.replace("bear", "bee"),
        r"Labels_bear_Train\.txt: .*Concepts81\.txt does not list this class",
    ),
    "no classes": ("ConceptsList/Concepts81.txt", lambda text: None, "NUS-WIDE: no list of classes; expected"),
    "empty classes": ("ConceptsList/Concepts81.txt", lambda text: "\n", r"Concepts81\.txt: the file is empty"),
    "no list": (TEST_LIST, lambda text: None, r"TestImagelist\.txt: no such file; expected one image per line"),
    "empty list": (TRAIN_LIST, lambda text: "", r"TrainImagelist\.txt: the file is empty; expected one image per line"),
    "image twice": (
        TRAIN_LIST,
        lambda text: text.replace("actor\\0003_212443", "actor\\0002_212442"),
        r"TrainImagelist\.txt, line 3: `actor/0002_212442\.jpg` is in line 2, too",
    ),
    "empty line in a list": (TRAIN_LIST, lambda text: text.replace("\n", "\n\n", 1), "line 2: the line is empty"),
    "outside": (TRAIN_LIST, lambda text: text.replace("actor", "../..", 1), "lies outside the data folder"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_file(folder: Path, case: str) -> None:
    name, change, message = BAD_FILES[case]
    path = folder / name
    content = change(path.read_text())
    if content is None:
        path.unlink()
    else:
        assert content != path.read_text()
        path.write_text(content)
    with pytest.raises(DataError, match=message):
        nuswide.read(folder)


def test_image_that_the_list_of_all_images_lacks(folder: Path) -> None:
    shutil.rmtree(folder / "Groundtruth" / "TrainTestLabels")
    path = folder / TEST_LIST
    path.write_text(path.read_text().replace("zoo", "zoos"))
    with pytest.raises(DataError, match=r"TestImagelist\.txt, line 4: `zoos/.*` is not in .*ImageList/Imagelist\.txt"):
        nuswide.read(folder)


def test_missing_folders(folder: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such folder; expected one with `ImageList`"):
        nuswide.read(folder / "nowhere")
    shutil.rmtree(folder / "Groundtruth")
    with pytest.raises(DataError, match="no labels; expected `Groundtruth/TrainTestLabels` or `Groundtruth/AllLabels`"):
        nuswide.read(folder)


def test_image_in_both_lists(folder: Path) -> None:
    path = folder / TEST_LIST
    path.write_text(path.read_text().replace("actor\\0009_212449", "actor\\0001_212441"))
    problems = find_problems(nuswide.read(folder), decode=False)
    assert any("in both test and trainval, such as `actor/0001_212441`" in problem for problem in problems)


def test_full_size(real_data: Path, tmp_path: Path) -> None:
    """The counts per class of all 269,648 images are those of an independent list."""
    path = real_data / "labels" / "nuswide81_labels.npz"
    if not path.is_file():
        pytest.skip("no real NUS-WIDE labels")
    real = np.load(path)
    is_test, labels, classes = real["is_test"].astype(bool), real["labels"], real["class_names"].tolist()
    write_classes(tmp_path, classes)
    for split, rows in (("Train", np.flatnonzero(~is_test)), ("Test", np.flatnonzero(is_test))):
        write_split(tmp_path, split, [rf"folder\{row:06d}_{row}.jpg" for row in rows.tolist()], labels[rows], classes)
    splits = nuswide.read(tmp_path)
    assert splits["trainval"].classes == tuple(classes)
    for split, rows in (("trainval", ~is_test), ("test", is_test)):
        assert len(splits[split]) == rows.sum()
        assert (splits[split].targets.sum(axis=0, dtype=int) == labels[rows].sum(axis=0, dtype=int)).all()
    assert len(splits["train"]) + len(splits["val"]) == len(splits["trainval"])
    assert len(splits["trainval"]) + len(splits["test"]) == 269_648
