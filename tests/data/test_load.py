"""Data addresses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest

from mlkd.data import READERS, DataError, load_data, register_reader
from mlkd.data.load import resolve_address
from mlkd.data.readers import mirflickr, voc


def test_voc(voc_folder: Path) -> None:
    data = load_data(f"voc:{voc_folder.parents[1]}?year=2007&difficult=ignore")
    assert data["test"].ids == ("4", "5")
    assert data["test"].ignore_mask is not None
    assert load_data(f"voc:{voc_folder}")["test"].ignore_mask is None


def test_coco(coco_folder: Path) -> None:
    assert len(load_data(f"coco:{coco_folder}")["test"]) == 2
    assert len(load_data(f"coco:{coco_folder}?unlabeled=keep&year=2014")["test"]) == 3


def test_home_folder(voc_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(voc_folder.parents[1]))
    assert load_data("voc:~/VOCdevkit")["test"].ids == ("4", "5")


def test_question_mark_in_a_path(voc_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "what?" / "a?year=1999"
    folder.mkdir(parents=True)
    voc_folder.rename(folder / "VOC2007")
    assert load_data(f"voc:{folder}")["test"].ids == ("4", "5")
    assert load_data(f"voc:{folder}?year=2007&difficult=ignore")["test"].ignore_mask is not None
    with pytest.raises(ValueError, match=r"/what\?/a\?year=1999: no folder `VOC2012`"):
        load_data(f"voc:{folder}?year=2012")
    with pytest.raises(ValueError, match="absent: no such folder"):
        load_data(f"voc:{tmp_path}/absent?year=2007")


def test_paths_that_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for path in ("~no-such-user/x", tmp_path / "loop", tmp_path / ("a" * 256), tmp_path / "a\0b"):
        for reader in ("voc", "coco", "nuswide", "mirflickr"):
            with pytest.raises(DataError, match=str(path)[-5:].replace("\0", r"\\x00")):
                load_data(f"{reader}:{path}")


def test_address_equals_call(voc_folder: Path) -> None:
    by_address, by_call = load_data(f"voc:{voc_folder}"), voc.read(voc_folder)
    assert by_address.keys() == by_call.keys()
    for split in by_call:
        assert (by_address[split].targets == by_call[split].targets).all()


def test_registered_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(READERS, "entries", {**READERS})  # removes the new reader after the test

    @register_reader("custom")
    def read(root: Path, *, kind: Literal["a", "b"] = "a", name: str = "", ratio: float | None = None):
        return {"root": root, "kind": kind, "name": name, "ratio": ratio}

    @register_reader("fixed")
    def read_fixed():
        return {}

    expected = {"root": Path("/data"), "kind": "b", "name": "x=y", "ratio": 0.5}
    assert load_data("custom:/data?kind=b&name=x=y&ratio=0.5") == expected
    with pytest.raises(ValueError, match="`fixed` has no options"):
        load_data("fixed?size=1")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("vocs:/data", r"no reader `vocs`, expected one of coco, .*voc\. Did you mean `voc`\?"),
        ("", "no reader ``"),
        ("voc", r"`voc` needs a path, as in `voc:/path/to/folder`"),
        ("voc:", "needs a path"),
        ("scenes:/data", "`scenes` takes no path"),
        ("scenes?sized=64", r"no setting 'sized' of the data reader 'scenes'\. Did you mean 'size'\?"),
        ("scenes?size=big", "`size` of the data reader 'scenes' is 'big', expected a whole number"),
        ("scenes?size", "`size` is invalid, expected each option once, as `<option>=<value>`"),
        ("scenes?size=0", "`size` of the scenes is 0; expected at least 16 pixels"),
        ("scenes?size=1&size=2", "`size=2` is invalid, expected each option once"),
        ("voc:/data?classes=a", r"`classes` of the data reader 'voc' is 'a', expected"),
        ("voc:/data?difficult=Ignored", r"expected positive, ignore or negative\. Did you mean 'ignore'\?"),
        ("coco:/data?year=new", "`year` of the data reader 'coco' is 'new', expected a whole number"),
    ],
)
def test_errors(address: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_data(address)


def test_addresses_are_validated_without_torch() -> None:
    script = """
import sys
from mlkd.data import load_data
import mlkd.data.image_cache, mlkd.data.validate
try:
    load_data("voc:/no/such/folder")
except ValueError as error:
    print(type(error).__name__, "torch" in sys.modules)
"""
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert process.stdout == "DataError False\n"


def candidates(path: Path) -> str:
    with pytest.raises(DataError) as error:
        resolve_address(str(path))
    return str(error.value).partition("choose one of ")[2]


def test_a_path_is_recognized(voc_folder: Path, coco_folder: Path, tmp_path: Path, monkeypatch) -> None:
    root = voc_folder.parents[1]
    assert resolve_address(str(root)) == f"voc:{root}"
    assert resolve_address(f"{root}?difficult=ignore") == f"voc:{root}?difficult=ignore"
    assert resolve_address(f"voc:{root}") == f"voc:{root}"
    assert load_data(str(voc_folder))["test"].ids == ("4", "5")
    assert resolve_address(str(coco_folder)) == f"coco:{coco_folder}"
    monkeypatch.chdir(tmp_path)
    assert resolve_address("coco/") == "coco:coco/"
    monkeypatch.setenv("HOME", str(root))
    assert resolve_address("~/VOCdevkit") == "voc:~/VOCdevkit"
    for folder in ("ImageList", "Groundtruth"):
        (tmp_path / "wide" / folder).mkdir(parents=True)
    assert resolve_address("wide") == "nuswide:wide"
    (tmp_path / "flickr" / "annotations").mkdir(parents=True)
    for name in mirflickr.POTENTIAL:
        (tmp_path / "flickr" / "annotations" / f"{name}.txt").write_text("1\n")
    assert resolve_address("flickr") == "mirflickr:flickr"
    (tmp_path / "photos" / "train").mkdir(parents=True)
    with pytest.raises(DataError, match="photos: not recognized as a data set"):
        resolve_address("photos")
    (tmp_path / "photos" / "train" / "metadata.jsonl").write_text("")
    assert resolve_address("photos") == "table:photos"
    (tmp_path / "photos" / "labels.csv").write_text("")
    assert resolve_address("photos/labels.csv?seed=1") == "table:photos/labels.csv?seed=1"
    assert resolve_address("scenes?size=64") == "scenes?size=64"


def test_an_ambiguous_path_is_an_error_with_the_candidates(voc_folder: Path, coco_folder: Path, write_coco) -> None:
    voc_folder.with_name("VOC2012").mkdir()
    (voc_folder.with_name("VOC2012") / "ImageSets" / "Main").mkdir(parents=True)
    root = voc_folder.parent
    assert candidates(root) == f"voc:{root}?year=2007, voc:{root}?year=2012."
    assert load_data(f"{root}?year=2007")["test"].ids == ("4", "5")
    write_coco(coco_folder, "val2017", {"a.jpg": [(2, 0, 0, 10, 10)]})
    (coco_folder / "labels.csv").write_text("")
    assert candidates(coco_folder) == (
        f"coco:{coco_folder}?year=2014, coco:{coco_folder}?year=2017, table:{coco_folder}."
    )
