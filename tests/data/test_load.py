"""Data sets named in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from mlkd import scenes
from mlkd.data import dataset, load_data, register_reader, voc


def test_voc(voc_folder: Path) -> None:
    data = load_data(f"voc:{voc_folder.parents[1]}?year=2007&difficult=ignore")
    assert data["test"].ids == ("4", "5")
    assert data["test"].ignore_mask is not None
    assert load_data(f"voc:{voc_folder}")["test"].ignore_mask is None


def test_coco(coco_folder: Path) -> None:
    assert len(load_data(f"coco:{coco_folder}")["test"]) == 2
    assert len(load_data(f"coco:{coco_folder}?unlabelled=keep&year=2014")["test"]) == 3


def test_home(voc_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(voc_folder.parents[1]))
    assert load_data("voc:~/VOCdevkit")["test"].ids == ("4", "5")


def test_scenes(voc_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def folder(seed: int, size: int) -> Path:
        asked.append((seed, size))
        return voc_folder

    monkeypatch.setattr(scenes, "folder", folder)
    monkeypatch.setattr(scenes, "CLASSES", ("dog", "cat", "person", "car"))
    train = load_data("scenes?size=64&seed=1")["train"]
    assert (train.name, train.classes) == ("scenes", ("dog", "cat", "person", "car"))
    load_data("scenes")
    assert asked == [(1, 64), (0, 96)]


def test_a_new_reader_is_one_function(voc_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "READERS", dataset.READERS)
    monkeypatch.setitem(dataset.READERS, "mine", None)  # taken out again afterwards

    @register_reader("mine")
    def read(root: Path, *, kind: Literal["a", "b"] = "a", name: str = "", secret: float = 0.0):
        return {"root": root, "kind": kind, "name": name}

    assert load_data("mine:/data?kind=b&name=x=y") == {"root": Path("/data"), "kind": "b", "name": "x=y"}
    with pytest.raises(ValueError, match="`mine` has no option `secret`"):
        load_data("mine:/data?secret=1")  # not of a type that can be written here


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("vocs:/data", r"no reader `vocs`; known are coco, scenes, voc\. Did you mean `voc`\?"),
        ("", "no reader ``"),
        ("voc", r"`voc` needs a path, as in `voc:/path/to/folder`"),
        ("voc:", "needs a path"),
        ("scenes:/data", "`scenes` takes no path"),
        ("scenes?sized=64", r"`scenes` has no option `sized`\. Did you mean `size`\?"),
        ("scenes?size=big", "`size` is `big`; expected a whole number"),
        ("scenes?size", "`size` is not one `size=<value>`"),
        ("scenes?size=1&size=2", "`size=2` is not one `size=<value>`"),
        ("voc:/data?classes=a", r"`voc` has no option `classes`"),
        (
            "voc:/data?difficult=Ignored",
            r"expected one of positive, ignore, negative\. Did you mean `ignore`\?",
        ),
        ("coco:/data?year=new", "`year` is `new`; expected a whole number"),
    ],
)
def test_errors(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_data(spec)


def test_reader_and_line_agree(voc_folder: Path) -> None:
    by_line, by_call = load_data(f"voc:{voc_folder}"), voc.read(voc_folder)
    assert by_line.keys() == by_call.keys()
    for split in by_call:
        assert (by_line[split].targets == by_call[split].targets).all()
