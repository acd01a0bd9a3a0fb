"""MIRFLICKR-25k folders in the published layout."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from mlkd.cli import cli
from mlkd.data import DataError, load_data
from mlkd.data.readers import mirflickr
from mlkd.data.validate import find_problems
from mlkd.study import create_study

ANNOTATIONS = "mirflickr25k_annotations_v080"


def write_annotations(folder: Path, numbers: Mapping[str, Sequence[int]]) -> None:
    """One file per class; classes that are not given have no images but number 1."""
    folder.mkdir(parents=True)
    (folder / "README.txt").write_text("MIRFLICKR-25000 annotations\n")
    for name in mirflickr.CLASSES[38]:
        (folder / f"{name}.txt").write_text("".join(f"{number}\r\n" for number in numbers.get(name, [1])))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set of 10 images to train on and 4 to evaluate on."""
    monkeypatch.setattr(mirflickr, "NUM_IMAGES", {"train": 10, "test": 4})
    root = tmp_path / "MIRFLICKR"
    (root / "mirflickr").mkdir(parents=True)
    for number in range(1, 15):
        Image.new("RGB", (40, 30), (15 * number, 0, 0)).save(root / "mirflickr" / f"im{number}.jpg")
    numbers = {"animals": [2, 5, 11], "dog": [5, 11], "dog_r1": [11], "food": [3, 14], "sky": [4, 6, 7, 8, 9, 10, 12]}
    write_annotations(root / ANNOTATIONS, numbers)
    return root


def test_published_layout(folder: Path) -> None:
    splits = mirflickr.read(folder)
    assert {name: len(split) for name, split in splits.items()} == {"train": 9, "val": 1, "test": 4, "trainval": 10}
    trainval, test = splits["trainval"], splits["test"]
    assert (test.name, test.split, len(test.classes), test.boxes) == ("MIRFLICKR", "test", 24, None)
    assert trainval.ids == tuple(f"im{number}" for number in range(1, 11))
    assert test.ids == ("im11", "im12", "im13", "im14")
    present = {i: [test.classes[k] for k in np.flatnonzero(row)] for i, row in zip(test.ids, test.targets, strict=True)}
    assert present == {"im11": ["animals", "dog"], "im12": ["sky"], "im13": [], "im14": ["food"]}
    assert trainval.targets[:, test.classes.index("animals")].tolist() == [0, 1, 0, 0, 1, 0, 0, 0, 0, 0]
    assert test.images[0].shape == (30, 40, 3)
    assert find_problems(splits) == []


@pytest.mark.parametrize("labels", [23, 24, 38])
def test_labels(folder: Path, labels: int) -> None:
    test = load_data(f"mirflickr:{folder}?labels={labels}")["test"]
    assert len(test.classes) == labels
    assert list(test.classes) == sorted(test.classes)
    assert ("food" in test.classes) == (labels != 23)
    assert sum(name.endswith("_r1") for name in test.classes) == (14 if labels == 38 else 0)
    if labels == 38:
        assert test.targets[:, test.classes.index("dog_r1")].tolist() == [1, 0, 0, 0]


def test_command_line_and_recipes(folder: Path) -> None:
    result = CliRunner().invoke(cli, ["data", "check", f"mirflickr:{folder}"])
    assert result.output.endswith("no problems in train 9, val 1, test 4, trainval 10 images of 24 classes.\n")
    for recipe in ("mskd-mirflickr-r34", "mskd-mirflickr-swint"):
        study = create_study(recipe)
        assert study.reported is not None
        assert study.replace(data=study.reported.data_address(str(folder))).classes == mirflickr.CLASSES[23]


@pytest.mark.parametrize("labels", ["25", "potential"])
def test_unknown_labels(folder: Path, labels: str) -> None:
    with pytest.raises(
        ValueError, match=r"`labels`.* is '(25', expected one of 23, 24, 38|potential', expected a whole)"
    ):
        load_data(f"mirflickr:{folder}?labels={labels}")


@pytest.mark.parametrize("annotations", mirflickr.ANNOTATION_FOLDERS)
@pytest.mark.parametrize("images", mirflickr.IMAGE_FOLDERS)
def test_layouts(folder: Path, annotations: str, images: str) -> None:
    expected = mirflickr.read(folder)["test"]
    for pattern, target in (("mirflickr/*.jpg", images), (f"{ANNOTATIONS}/*.txt", annotations)):
        for path in list(folder.glob(pattern)):
            (folder / target).mkdir(parents=True, exist_ok=True)
            shutil.move(path, folder / target / path.name)
    splits = mirflickr.read(folder)
    assert (splits["test"].targets == expected.targets).all()
    assert find_problems(splits, decode=False) == []


def test_without_images(folder: Path) -> None:
    shutil.rmtree(folder / "mirflickr")
    splits = mirflickr.read(folder)
    assert splits["test"].targets.sum() == 4
    problems = find_problems({"test": splits["test"]})
    assert len(problems) == 4
    assert f"{folder}/mirflickr/im11.jpg: no such file; expected an image" in problems[0]


def test_missing_image(folder: Path) -> None:
    (folder / "mirflickr" / "im12.jpg").unlink()
    (problem,) = find_problems(mirflickr.read(folder))
    assert problem.startswith(f"{folder}/mirflickr/im12.jpg: no such file; expected an image")


BAD_FILES: dict[str, tuple[str, Callable[[str], str | None], str]] = {
    "unknown image": ("sky", lambda text: text + "15\n", r"sky\.txt, line 8: `15`; expected the .* image, 1 to 14"),
    "zero": ("dog", lambda text: "0\n" + text, r"dog\.txt, line 1: `0`; expected the number of an image"),
    "not a number": ("dog", lambda text: text + "im3\n", r"dog\.txt, line 3: `im3`; expected the number"),
    "empty line": ("dog", lambda text: text.replace("\n", "\n\n", 1), r"dog\.txt, line 2: ``; expected the number"),
    "empty file": ("dog", lambda text: "", r"dog\.txt: the file is empty; expected one image number per line"),
    "missing file": ("animals", lambda text: None, r"animals\.txt: no such file; expected one image number per line"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_file(folder: Path, case: str) -> None:
    name, change, message = BAD_FILES[case]
    path = folder / ANNOTATIONS / f"{name}.txt"
    content = change(path.read_text())
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    with pytest.raises(DataError, match=message):
        mirflickr.read(folder)


def test_file_of_a_label_that_is_not_read_may_be_absent(folder: Path) -> None:
    (folder / ANNOTATIONS / "food.txt").unlink()
    assert len(mirflickr.read(folder, labels=23)["test"].classes) == 23


def test_missing_folders(folder: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such folder; expected one with the images and annotations"):
        mirflickr.read(folder / "nowhere")
    shutil.rmtree(folder / ANNOTATIONS)
    with pytest.raises(DataError, match=r"MIRFLICKR: no annotation files; expected files such as `.*/animals\.txt`"):
        mirflickr.read(folder)


def test_full_size(real_data: Path, tmp_path: Path) -> None:
    """The labels of all 25,000 images are those of an independent list."""
    path = real_data / "labels" / "mirflickr25k_labels.npz"
    if not path.is_file():
        pytest.skip("no real MIRFLICKR labels")
    real = np.load(path)
    names, labels = real["class_names"].tolist(), real["labels"][np.argsort(real["image_numbers"])]
    columns = {name: (1 + np.flatnonzero(labels[:, k])).tolist() for k, name in enumerate(names)}
    write_annotations(tmp_path / ANNOTATIONS, columns)
    for count in (23, 24, 38):
        splits = mirflickr.read(tmp_path, labels=count)
        test, trainval = splits["test"], splits["trainval"]
        assert (len(trainval), len(test), len(test.classes)) == (20_000, 5_000, count)
        expected = labels[:, [names.index(name) for name in test.classes]]
        assert (trainval.targets == expected[:20_000]).all()
        assert (test.targets == expected[20_000:]).all()
        assert (np.concatenate([trainval.targets, test.targets]).sum(axis=0) == expected.sum(axis=0, dtype=int)).all()
    assert test.classes == tuple(names)
