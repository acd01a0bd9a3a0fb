"""Small data sets and trainings, and real data if available."""

from __future__ import annotations

import json
import os
import signal
import tarfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image
from toy import TOY_SPLITS

from mlkd import scenes
from mlkd.data import MultiLabelData
from mlkd.files import create_once
from mlkd.models import MultiLabelModel, create_model
from mlkd.study import Study
from mlkd.training.config import Config

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts background jobs
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("LOKY_MAX_CPU_COUNT", "1")  # processes take longer to start than these trainings to end

collect_ignore = [
    "analysis_figures.py",
    "compare.py",
    "in_process.py",
    "interruption.py",
    "programs",
    "tiny_notebooks.py",
    "toy.py",
]
"""Modules that tests import; collecting them for doctests would import them a second time."""

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

SIZE = (40, 30)  # width, height of the images written here

VocObject = tuple[str, int, int, int, int, int]  # class, xmin, ymin, xmax, ymax, difficult
CocoObject = tuple[int, float, float, float, float]  # category id, x, y, width, height


def write_image(path: Path) -> None:
    """An image that differs for each file name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(zlib.crc32(path.name.encode()))
    Image.fromarray(rng.integers(100, 156, (SIZE[1], SIZE[0], 3)).astype(np.uint8)).save(path)


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
        for i, image_objects in objects.items():
            width, height = SIZE if sizes is None else sizes[i]
            if sizes is None:
                write_image(folder / "JPEGImages" / f"{i}.jpg")
            lines = [
                "<annotation>",
                f"<filename>{i}.jpg</filename>",
                f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>",
            ]
            for name, xmin, ymin, xmax, ymax, difficult in image_objects:
                lines += [
                    f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>",
                    f"<xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax>",
                    # A part of the object has its own name and box.
                    "</bndbox><part><name>head</name><bndbox><xmin>1</xmin></bndbox></part></object>",
                ]
            (folder / "Annotations" / f"{i}.xml").write_text("\n".join([*lines, "</annotation>"]))
        return folder

    return write


@pytest.fixture
def voc_folder(tmp_path: Path, write_voc: Callable[..., Path]) -> Path:
    """Five images: two in train, one in val, two in test."""
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

    def write(root: Path, split: str, images: Mapping[str, Iterable[CocoObject]], folder: str = "") -> Path:
        names = list(images)
        content = {
            "categories": [{"id": 9, "name": "apple"}, {"id": 2, "name": "zebra"}, {"id": 4, "name": "bus"}],
            "images": [
                {"id": 100 + k, "file_name": name, "width": SIZE[0], "height": SIZE[1]} for k, name in enumerate(names)
            ],
            "annotations": [
                {
                    "id": k,
                    "image_id": 100 + names.index(name),
                    "category_id": category,
                    "bbox": bbox,
                }
                for k, (name, (category, *bbox)) in enumerate((n, o) for n, objects in images.items() for o in objects)
            ],
        }
        for name in names:
            write_image(root / (folder or split) / name)
        path = root / "annotations" / f"instances_{split}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1))
        return path

    return write


@pytest.fixture
def coco_folder(tmp_path: Path, write_coco: Callable[..., Path]) -> Path:
    """The layout of COCO 2014: 20 images to train on, 2 to evaluate on, one more of each without objects."""
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
    """A folder of real data, `$MLKD_TEST_DATA`; tests that need it are skipped if there is none."""
    folder = Path(os.environ.get("MLKD_TEST_DATA", Path(__file__).parents[1] / ".." / "shared" / "data")).resolve()
    if not folder.is_dir():
        pytest.skip("no real data: set MLKD_TEST_DATA to a folder of it")
    return folder


@pytest.fixture(scope="session")
def real_coco(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A subset of COCO 2017: all annotations, and the images of the test split."""
    root = tmp_path_factory.mktemp("real")
    for part in ("annotations", "test"):
        path = real_data / f"coco2017_subset_{part}.tar"
        if not path.is_file():
            pytest.skip(f"no real COCO data: {path.name} is not in MLKD_TEST_DATA")
        with tarfile.open(path) as tar:
            tar.extractall(root, filter="data")
    return root / "coco2017_subset"


TOY_CLASSES = ("red", "green", "blue", "dark")


def toy_split(split: str, first: int, count: int) -> MultiLabelData:
    """Gray images of 32 x 32 pixels with a square at random for each color that is a label."""
    rng = np.random.default_rng(first)
    targets = (rng.random((count, len(TOY_CLASSES))) < 0.5).astype(np.uint8)
    targets[0], targets[1] = 1, 0
    images = rng.integers(100, 140, (count, 32, 32, 3)).astype(np.uint8)
    for row, label in np.argwhere(targets):
        y, x = rng.integers(0, 20, 2)
        images[row, y : y + 12, x : x + 12] = 20
        if label < 3:
            images[row, y : y + 12, x : x + 12, label] = 240
    ids = tuple(f"p{first + row:04d}" for row in range(count))
    return MultiLabelData("toy", split, images, targets, TOY_CLASSES, ids)


@pytest.fixture(scope="session")
def toy_data() -> dict[str, MultiLabelData]:
    """Images that a small network learns in a second: 64 in train, 40 in val, 40 in test."""
    return {
        "train": toy_split("train", 0, 64),
        "val": toy_split("val", 1000, 40),
        "test": toy_split("test", 2000, 40),
    }


@pytest.fixture(scope="session")
def toy_config() -> Config:
    """Three epochs of four steps; about 0.1 s each."""
    return Config(
        backbone="resnet8_cifar",
        backbone_settings={"widths": [8, 16, 16]},
        embed_dim=16,
        pretrained=False,
        image_size=32,
        epochs=3,
        batch_size=16,
        optimizer="adamw",
        lr=5e-3,
        augmentations=(),
    )


@pytest.fixture(scope="session")
def toy_study(
    tmp_path_factory: pytest.TempPathFactory, toy_data: dict[str, MultiLabelData], toy_config: Config
) -> Study:
    """A study with two finished runs of different seeds, on data with names that need escaping in HTML."""
    classes = ("<script>alert(1)</script>", "cat & dog", "blue", "dark")
    TOY_SPLITS["<path>"] = {name: replace(split, name="toy <b>", classes=classes) for name, split in toy_data.items()}
    config, runs = toy_config.replace(epochs=1), tmp_path_factory.mktemp("toy") / "runs"
    study = Study(data="toy:<path>", teacher=config.replace(role="teacher"), student=config, seeds=2, runs=runs)
    study.train_students("vanilla")
    return study


@pytest.fixture
def toy_teacher() -> MultiLabelModel:
    """A wider network with the same classes and fixed weights, in eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return create_model("resnet8_cifar", TOY_CLASSES, image_size=32, embed_dim=32, widths=[12, 16, 24]).eval()


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A temporary folder that the processes of pytest-xdist have in common."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session")
def cache(shared_folder: Path) -> Path:
    """A temporary cache folder with a small `scenes` data set."""
    folder = shared_folder / "cache"
    count = {"train": 110, "val": 30, "test": 40, "context_shift": 30}
    create_once(folder / f"scenes-v{scenes.VERSION}-s0-96", lambda unfinished: scenes.write(unfinished, splits=count))
    return folder


@pytest.fixture
def own_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The session's cache folder in place of the user's, for the package and for processes it starts."""
    monkeypatch.setenv("MLKD_CACHE", str(cache))
    return cache
