"""The data set on disk: a Pascal VOC folder."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from types import MappingProxyType

from PIL import Image
from tqdm.auto import tqdm

from mlkd.scenes.compose import VERSION, Scene, draw_scene
from mlkd.scenes.kinds import CLASSES

SPLITS: Mapping[str, int] = MappingProxyType({"train": 4000, "val": 500, "test": 1000, "context_shift": 1000})
"""The number of images of each split."""

_Job = tuple[str, str, int]  # image id, split, index within the split


def write(
    root: str | Path, seed: int = 0, size: int = 96, splits: Mapping[str, int] = SPLITS, *, progress: bool = False
) -> Path:
    """Writes the data set as a Pascal VOC folder: JPEGImages, Annotations, ImageSets/Main.

    The folder gets its name when it is complete.

    Args:
        root: the folder to create.
        seed: as in `draw_scene`.
        size: width and height of the images in pixels.
        splits: the number of images of each split.
        progress: whether to show a progress bar.

    Raises:
        FileExistsError: `root` exists and is not an empty folder.
    """
    root = Path(root).absolute()
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise FileExistsError(f"{root} exists already; expected a new or empty folder. Choose another one.")
    root.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
    try:
        _write_folder(unfinished, seed, size, splits, progress)
        unfinished.chmod(0o755)
        unfinished.replace(root)  # also onto an empty folder
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return root


def _write_folder(root: Path, seed: int, size: int, splits: Mapping[str, int], progress: bool) -> None:
    sets = root / "ImageSets" / "Main"
    for folder in (root / "JPEGImages", root / "Annotations", sets):
        folder.mkdir(parents=True)
    pairs = [(split, index) for split, count in splits.items() for index in range(count)]
    jobs = [(f"{number:06d}", split, index) for number, (split, index) in enumerate(pairs, start=1)]
    results = _write_images(jobs, root, seed, size)
    present = list(tqdm(results, "drawing scenes", len(jobs), unit=" images", leave=False, disable=not progress))
    for split in splits:
        rows = [(job[0], classes) for job, classes in zip(jobs, present, strict=True) if job[1] == split]
        (sets / f"{split}.txt").write_text("".join(f"{name}\n" for name, _ in rows), encoding="utf-8")
        for k, label in enumerate(CLASSES):
            lines = (f"{name} {1 if k in classes else -1:2d}\n" for name, classes in rows)
            (sets / f"{label}_{split}.txt").write_text("".join(lines), encoding="utf-8")


def _write_images(jobs: list[_Job], root: Path, seed: int, size: int) -> Iterator[frozenset[int]]:
    """Each image's classes, in order; several processes write the images of a large data set."""
    work = partial(_write_image, root=root, seed=seed, size=size)
    finished = 0
    if _num_processes() > 1 and len(jobs) >= 1000:
        # A script without `if __name__ == "__main__"` cannot start processes; this process then writes all images.
        with contextlib.suppress(BrokenProcessPool):
            with ProcessPoolExecutor(_num_processes(), multiprocessing.get_context("spawn")) as pool:
                for classes in pool.map(work, jobs, chunksize=50):
                    yield classes
                    finished += 1
            return
    for job in jobs[finished:]:
        yield work(job)


def _num_processes() -> int:
    """One process per available core, at most 4: starting one takes seconds and memory."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 4)


def _write_image(job: _Job, root: Path, seed: int, size: int) -> frozenset[int]:
    """Writes one image with its annotation; returns the class indices of its objects."""
    name, split, index = job
    scene = draw_scene(seed, split, index, size)
    jpeg = io.BytesIO()
    Image.fromarray(scene.pixels).save(jpeg, "JPEG", quality=95, subsampling=0)
    (root / "JPEGImages" / f"{name}.jpg").write_bytes(jpeg.getvalue())
    (root / "Annotations" / f"{name}.xml").write_text(_annotation(name, scene), encoding="utf-8")
    return frozenset(scene.boxes[:, 0].astype(int).tolist())


def _annotation(name: str, scene: Scene) -> str:
    """The image's boxes in VOC's XML: pixels count from 1, the last one is included."""
    height, width = scene.pixels.shape[:2]
    lines = [
        "<annotation>",
        "  <folder>scenes</folder>",
        f"  <filename>{name}.jpg</filename>",
        f"  <source><database>mlkd scenes {VERSION}</database><image>{scene.layout}</image></source>",
        f"  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>",
        "  <segmented>0</segmented>",
    ]
    for (kind, x1, y1, x2, y2), truncated in zip(scene.boxes.astype(int), scene.truncated, strict=True):
        lines += [
            "  <object>",
            f"    <name>{CLASSES[kind]}</name>",
            "    <pose>Unspecified</pose>",
            f"    <truncated>{int(truncated)}</truncated>",
            "    <difficult>0</difficult>",
            f"    <bndbox><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox>",
            "  </object>",
        ]
    return "\n".join([*lines, "</annotation>", ""])
