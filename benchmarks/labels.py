"""The index cache of NUS-WIDE and COCO 2014 in full size, against parsing their label files; no image is needed."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.timing import Row, compare
from mlkd.data.readers import coco, nuswide


def run(smoke: bool = False) -> list[Row]:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MLKD_CACHE"] = f"{folder}/cache"
        for name, reader, write in (("NUS-WIDE", nuswide, _write_nuswide), ("COCO 2014", coco, _write_coco)):
            root = Path(folder) / name
            num_images = write(root, 1000 if smoke else 1)
            for path in (root, *root.rglob("*")):
                os.utime(path, (0, 0))  # recently modified files are not cached
            title = f"index cache of {name}, {num_images:,} images, against parsing its label files"
            parse = reader.read.__wrapped__  # without the cache
            rows.append(compare(title, lambda r=reader, f=root: r.read(f), lambda p=parse, f=root: p(f), repeats=3))
    return rows


def _write_nuswide(root: Path, divisor: int) -> int:
    """81 labels with 1.9 of them per image, as many images as the official split divided by `divisor`."""
    rng = np.random.default_rng(0)
    for folder in ("ImageList", "Groundtruth/TrainTestLabels"):
        (root / folder).mkdir(parents=True)
    classes = [f"concept{k}" for k in range(81)]
    (root / "Concepts81.txt").write_text("\n".join(classes))
    sizes = {"Train": 161_789 // divisor, "Test": 107_859 // divisor}
    for split, size in sizes.items():
        names = [rf"{split}{k % 704}\{k:04d}_{2_124_494_179 + k}.jpg" for k in range(size)]
        (root / "ImageList" / f"{split}Imagelist.txt").write_text("\n".join(names))
        for name in classes:
            lines = np.full((size, 2), ord("\n"), np.uint8)
            lines[:, 0] = ord("0") + (rng.random(size) < 1.9 / 81)
            (root / "Groundtruth" / "TrainTestLabels" / f"Labels_{name}_{split}.txt").write_bytes(lines.tobytes())
    return sum(sizes.values())


def _write_coco(root: Path, divisor: int) -> int:
    """80 classes, boxes and polygons of 30 points, as many as in COCO 2014 divided by `divisor`."""
    rng = np.random.default_rng(0)
    (root / "annotations").mkdir(parents=True)
    sizes = {"train2014": (82_783 // divisor, 604_907 // divisor), "val2014": (40_504 // divisor, 291_875 // divisor)}
    for split, (num_images, num_boxes) in sizes.items():
        images = [
            {"id": k, "file_name": f"COCO_{split}_{k:012d}.jpg", "width": 640, "height": 480, "license": 5}
            for k in range(num_images)
        ]
        boxes = rng.uniform(5, 150, (num_boxes, 4)).round(2).tolist()
        polygons = rng.uniform(0, 400, (num_boxes, 60)).round(2).tolist()
        annotations = [
            {"id": k, "image_id": image, "category_id": category, "iscrowd": 0, "bbox": box, "segmentation": [polygon]}
            for k, (image, category, box, polygon) in enumerate(
                zip(
                    rng.integers(num_images, size=num_boxes).tolist(),
                    rng.integers(80, size=num_boxes).tolist(),
                    boxes,
                    polygons,
                    strict=True,
                )
            )
        ]
        categories = [{"id": k, "name": f"class{k}"} for k in range(80)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return sum(num_images for num_images, _ in sizes.values())
