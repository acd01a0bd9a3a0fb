"""Small data folders written on the spot, and real data where there is some."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

SIZE = (40, 30)  # width, height of the pictures written here

VocObject = tuple[str, int, int, int, int, int]  # class, xmin, ymin, xmax, ymax, difficult
CocoObject = tuple[int, float, float, float, float]  # category id, x, y, width, height


def write_picture(path: Path, value: int = 128) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((SIZE[1], SIZE[0], 3), value, np.uint8)).save(path)


@pytest.fixture
def write_voc() -> Callable[..., Path]:
    """A function that writes a VOC folder and returns it."""

    def write(
        folder: Path,
        lists: Mapping[str, Sequence[str]],
        objects: Mapping[str, Iterable[VocObject]],
        sizes: Mapping[str, tuple[int, int]] | None = None,
    ) -> Path:
        for name in ("Annotations", "ImageSets/Main", "JPEGImages"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        for split, ids in lists.items():
            (folder / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(f"{i}\n" for i in ids))
        for i, found in objects.items():
            width, height = SIZE if sizes is None else sizes[i]
            if sizes is None:
                write_picture(folder / "JPEGImages" / f"{i}.jpg")
            lines = [
                "<annotation>",
                f"<filename>{i}.jpg</filename>",
                f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>",
            ]
            for name, xmin, ymin, xmax, ymax, difficult in found:
                lines += [
                    f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>",
                    f"<xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax>",
                    # A part has a name and a box of its own, which are not the object's.
                    "</bndbox><part><name>head</name><bndbox><xmin>1</xmin></bndbox></part></object>",
                ]
            (folder / "Annotations" / f"{i}.xml").write_text("\n".join([*lines, "</annotation>"]))
        return folder

    return write


@pytest.fixture
def voc_folder(tmp_path: Path, write_voc: Callable[..., Path]) -> Path:
    """Five pictures: two to train on, one to choose by, two to score on."""
    objects = {
        "1": [("cat", 1, 1, 10, 10, 0), ("cat", 5, 5, 20, 20, 1), ("dog", 11, 6, 40, 30, 0)],
        "2": [("person", 2, 3, 4, 5, 0)],
        "3": [("dog", 1, 1, 40, 30, 0)],
        "4": [("cat", 3, 3, 9, 9, 1), ("person", 1, 1, 9, 9, 0)],
        "5": [("car", 1, 1, 9, 9, 1)],
    }
    lists = {"train": ["1", "2"], "val": ["3"], "trainval": ["1", "2", "3"], "test": ["4", "5"]}
    return write_voc(tmp_path / "VOCdevkit" / "VOC2007", lists, objects)


@pytest.fixture
def write_coco() -> Callable[..., Path]:
    """A function that writes one split of a COCO folder and returns its annotation file."""

    def write(root: Path, split: str, pictures: Mapping[str, Iterable[CocoObject]], folder: str = "") -> Path:
        names = list(pictures)
        content = {
            "categories": [{"id": 9, "name": "apple"}, {"id": 2, "name": "zebra"}, {"id": 4, "name": "bus"}],
            "images": [
                {"id": 100 + k, "file_name": name, "width": SIZE[0], "height": SIZE[1]}
                for k, name in enumerate(names)
            ],
            "annotations": [
                {
                    "id": k,
                    "image_id": 100 + names.index(name),
                    "category_id": found[0],
                    "bbox": list(found[1:]),
                }
                for k, (name, found) in enumerate((n, f) for n, objects in pictures.items() for f in objects)
            ],
        }
        for name in names:
            write_picture(root / (folder or split) / name)
        path = root / "annotations" / f"instances_{split}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1))
        return path

    return write


@pytest.fixture
def coco_folder(tmp_path: Path, write_coco: Callable[..., Path]) -> Path:
    """COCO 2014's layout: 20 pictures to train on, 2 to score on, one more of each without objects."""
    train = {f"COCO_train2014_{k:012d}.jpg": [(2, 0, 0, 10, 10)] for k in range(20)}
    write_coco(tmp_path / "coco", "train2014", train | {"COCO_train2014_000000000099.jpg": []})
    val = {
        "v1.jpg": [(9, 1.5, 2, 30, 20.25), (4, 0, 0, 40, 30), (9, 3, 3, 4, 4)],
        "v2.jpg": [],
        "v3.jpg": [(2, 1, 1, 5, 5)],
    }
    write_coco(tmp_path / "coco", "val2014", val)
    return tmp_path / "coco"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """A folder of real data, `$MLKD_TEST_DATA`; what needs it is skipped where there is none."""
    folder = Path(
        os.environ.get("MLKD_TEST_DATA", Path(__file__).parents[1] / ".." / "shared" / "data")
    ).resolve()
    if not folder.is_dir():
        pytest.skip("no real data: set MLKD_TEST_DATA to a folder of it")
    return folder


@pytest.fixture(scope="session")
def real_coco(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A subset of COCO 2017 in the plain layout: all annotations, and the pictures of the test split."""
    root = tmp_path_factory.mktemp("real")
    for part in ("annotations", "test"):
        path = real_data / f"coco2017_subset_{part}.tar"
        if not path.is_file():
            pytest.skip(f"no real COCO data: {path.name} is not in MLKD_TEST_DATA")
        with tarfile.open(path) as tar:
            tar.extractall(root, filter="data")
    return root / "coco2017_subset"
