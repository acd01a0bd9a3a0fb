"""Damaged image files and label files: each is read, or refused with a one-line error that names it.

`make test` runs a few hundred cases and `make soak` thousands; the cases are the same every time.
"""

from __future__ import annotations

import json
import os
import re
import signal
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mlkd import scenes
from mlkd.data import DataError, load_data
from mlkd.data.decode import decode_file, image_size
from mlkd.data.readers import mirflickr
from mlkd.data.validate import find_problems

LIMIT_S = 10
SIZE = 48


class Hang(BaseException):
    """A case that takes too long; no `except Exception` catches it."""


@contextmanager
def time_limit() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise Hang(f"took longer than {LIMIT_S} s")

    previous = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LIMIT_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


# Mutations

BYTES = st.one_of(
    st.tuples(st.just("set"), st.floats(0, 1), st.binary(min_size=1, max_size=4)),
    st.tuples(st.just("insert"), st.floats(0, 1), st.binary(min_size=1, max_size=8)),
    st.tuples(st.just("delete"), st.floats(0, 1), st.integers(1, 64)),
    st.tuples(st.just("repeat"), st.floats(0, 1), st.integers(1, 64)),
    st.tuples(st.just("truncate"), st.floats(0, 1), st.none()),
)
VALUES = st.one_of(
    st.sampled_from(
        ["", "-1", "0", "1e400", "nan", "9" * 5000, "null", "[]", "{}", "true", "1e9", "?", "../../x", "/etc/passwd"]
    ),
    st.sampled_from(["a" * 300, "\0", "é", "\ud800", "a\nb", "<b>", "&amp;", '"', "\\ud800"]),
    st.text(max_size=5),
)
TOKENS = st.tuples(st.just("value"), st.floats(0, 1), VALUES)
"""The number or word at a position becomes another value."""


def mutate(content: bytes, edits: list[tuple[str, float, Any]]) -> bytes:
    for kind, place, value in edits:
        k = int(place * len(content))
        if kind == "set":
            content = content[:k] + value + content[k + len(value) :]
        elif kind == "insert":
            content = content[:k] + value + content[k:]
        elif kind == "delete":
            content = content[:k] + content[k + value :]
        elif kind == "repeat":
            content = content[:k] + content[k : k + value] * 2 + content[k + value :]
        elif kind == "truncate":
            content = content[:k]
        elif token := re.compile(rb"[\w.+-]+").search(content, k):
            content = content[: token.start()] + value.encode("utf-8", "surrogatepass") + content[token.end() :]
    return content


# What is damaged


def write_images(folder: Path) -> dict[str, Path]:
    """A file of each format and color mode, of a drawn scene."""
    image = Image.fromarray(scenes.draw_scene(0, "train", 3, SIZE).pixels)
    exif = Image.Exif()
    exif[274] = 6
    deep = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    files = {
        "jpeg": (image, "a.jpg", {"exif": exif}),
        "progressive jpeg": (image, "b.jpg", {"progressive": True, "quality": 60}),
        "cmyk jpeg": (image.convert("CMYK"), "c.jpg", {}),
        "png": (image, "d.png", {"exif": exif}),
        "16-bit png": (deep, "e.png", {}),
        "palette png": (image.quantize(16), "f.png", {"transparency": 0}),
        "alpha png": (image.convert("RGBA"), "g.png", {}),
        "gif": (image, "h.gif", {"save_all": True, "append_images": [image.rotate(90)]}),
        "webp": (image, "i.webp", {}),
        "bmp": (image, "j.bmp", {}),
        "tiff": (image, "k.tif", {"compression": "tiff_lzw"}),
        "16-bit tiff": (deep, "l.tif", {}),
    }
    folder.mkdir()
    for picture, name, options in files.values():
        picture.save(folder / name, **options)
    return {kind: folder / name for kind, (_, name, _) in files.items()}


def write_nuswide(root: Path) -> None:
    for folder in ("ImageList", "ConceptsList", "Groundtruth/TrainTestLabels", "Flickr/cat"):
        (root / folder).mkdir(parents=True)
    (root / "ConceptsList/Concepts81.txt").write_text("cat\nsky\n")
    for split, numbers in (("Train", range(4)), ("Test", range(4, 6))):
        (root / f"ImageList/{split}Imagelist.txt").write_text("".join(f"cat\\{n:04d}_{n}.jpg\n" for n in numbers))
        for name in ("cat", "sky"):
            labels = "".join(f"{(n + (name == 'sky')) % 2}\n" for n in numbers)
            (root / f"Groundtruth/TrainTestLabels/Labels_{name}_{split}.txt").write_text(labels)
    for n in range(6):
        Image.new("RGB", (8, 8)).save(root / f"Flickr/cat/{n:04d}_{n}.jpg")


def write_mirflickr(root: Path) -> None:
    (root / "images").mkdir(parents=True)
    (root / "annotations").mkdir()
    for n in range(1, 9):
        Image.new("RGB", (8, 8)).save(root / f"images/im{n}.jpg")
    for name in mirflickr.CLASSES[24]:
        (root / f"annotations/{name}.txt").write_text("1\n3\n7\n")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Callable[[], object]]]:
    """For each kind a file that is damaged, and a function that reads it."""
    root = tmp_path_factory.mktemp("fuzz")

    def read_image(path: Path) -> Callable[[], object]:
        return lambda: (image_size(path), decode_file(path), decode_file(path, 8))

    cases = {kind: (path, read_image(path)) for kind, path in write_images(root / "images").items()}

    scenes.write(root / "voc", size=16, splits={"train": 3, "val": 2, "test": 2})
    write_nuswide(root / "nuswide")
    write_mirflickr(root / "mirflickr")
    splits = load_data(f"voc:{root / 'voc'}")
    for split in ("train", "val", "test"):
        names = {"images": [], "annotations": [], "categories": [{"id": 3, "name": "a"}, {"id": 7, "name": "b"}]}
        (root / "coco" / split).mkdir(parents=True)
        for k, _ in enumerate(splits[split].ids):
            names["images"].append({"id": k, "file_name": f"{k}.jpg", "width": 16, "height": 16})
            names["annotations"].append({"image_id": k, "category_id": 3 + 4 * (k % 2), "bbox": [1, 2.5, 3, 4]})
            Image.new("RGB", (16, 16)).save(root / "coco" / split / f"{k}.jpg")
        (root / "coco/annotations").mkdir(exist_ok=True)
        (root / f"coco/annotations/instances_{split}.json").write_text(json.dumps(names))

    table = "image,labels,split\n0.jpg,a;b,train\n1.jpg,b,val\n2.jpg,?,test\n3.jpg,a,test\n"
    for name, text in {
        "labels.csv": table,
        "wide.csv": "image,a,b\n0.jpg,1,0\n1.jpg,0,1\n2.jpg,?,1\n3.jpg,1,1\n",
        "boxes.tsv": "image\tx1\ty1\tx2\ty2\tlabel\n0.jpg\t1\t2\t3\t4\ta\n1.jpg\t0\t0\t8\t8\tb\n2.jpg\t0\t0\t8\t8\tb\n",
        "labels.jsonl": "".join(
            json.dumps({"file_name": f"{k}.jpg", "labels": ["a", "b"][k % 2 :]}) + "\n" for k in range(4)
        ),
    }.items():
        (root / name).mkdir()
        (root / name / name).write_text(text)
        for k in range(4):
            Image.new("RGB", (8, 8), (k, k, k)).save(root / name / f"{k}.jpg")

    def read_data(address: str) -> Callable[[], object]:
        return lambda: find_problems(load_data(address))

    for kind, address, file in (
        ("voc xml", "voc", "Annotations/000001.xml"),
        ("voc list", "voc", "ImageSets/Main/val.txt"),
        ("voc class list", "voc", f"ImageSets/Main/{scenes.CLASSES[0]}_train.txt"),
        ("coco json", "coco", "annotations/instances_train.json"),
        ("nuswide list", "nuswide", "ImageList/TrainImagelist.txt"),
        ("nuswide labels", "nuswide", "Groundtruth/TrainTestLabels/Labels_sky_Train.txt"),
        ("nuswide classes", "nuswide", "ConceptsList/Concepts81.txt"),
        ("mirflickr labels", "mirflickr", "annotations/dog.txt"),
    ):
        path = root / address / file
        cases[kind] = (path, read_data(f"{address}:{root / address}"))
    for name in ("labels.csv", "wide.csv", "boxes.tsv", "labels.jsonl"):
        cases[name] = (root / name / name, read_data(f"table:{root / name / name}"))
    return cases


@pytest.mark.parametrize("cases", [200, pytest.param(2000, marks=pytest.mark.soak)])
def test_damaged_files(
    cases: int, corpus: dict[str, tuple[Path, Callable[[], object]]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(mirflickr, "NUM_IMAGES", {"train": 5, "test": 3})
    root = os.path.commonpath([path for path, _ in corpus.values()])
    originals = {kind: path.read_bytes() for kind, (path, _) in corpus.items()}
    outcomes: Counter[tuple[str, str]] = Counter()

    def damage(kind: str, edits: list[tuple[str, float, Any]]) -> None:
        path, read = corpus[kind]
        path.write_bytes(mutate(originals[kind], edits))
        message = ""
        try:
            with time_limit(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow's warnings about broken files
                read()
        except DataError as error:
            message = str(error)
        finally:
            path.write_bytes(originals[kind])
        outcomes[kind, "refused" if message else "read"] += 1
        assert not message or message.isprintable()
        assert not message or root in message or message.split()[0].rstrip(":") in path.parts  # a file, or the data set

    for kind, (path, _) in corpus.items():
        edits = st.lists(BYTES, min_size=1, max_size=3)
        if path.parent.name != "images":
            edits = st.lists(TOKENS, min_size=1, max_size=2) | edits
        fuzz = given(st.just(kind), edits)(damage)
        settings(max_examples=-(-cases // len(corpus)))(fuzz)()
    for kind in corpus:
        print(f"{kind}: {outcomes[kind, 'read']} read, {outcomes[kind, 'refused']} refused")
    assert sum(outcomes.values()) >= cases
    assert not list((tmp_path / "cache").rglob("*.unfinished"))


def test_a_mutation_is_one() -> None:
    assert mutate(b"abcd", [("set", 0.5, b"x")]) == b"abxd"
    assert mutate(b"abcd", [("insert", 0.5, b"x")]) == b"abxcd"
    assert mutate(b"abcd", [("delete", 0.25, 2)]) == b"ad"
    assert mutate(b"abcd", [("repeat", 0, 2)]) == b"ababcd"
    assert mutate(b"abcd", [("truncate", 0.5, None)]) == b"ab"
    assert mutate(b"<a>12</a>", [("value", 0.3, "nan")]) == b"<a>nan</a>"
