"""The scenes on disk: a Pascal VOC folder, written once and kept in the cache."""

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

from mlkd.files import cache_dir, create_once
from mlkd.progress import is_interactive
from mlkd.scenes.compose import VERSION, Drawing, draw
from mlkd.scenes.kinds import CLASSES

SPLITS: Mapping[str, int] = MappingProxyType({"train": 4000, "val": 500, "test": 1000, "context_shift": 1000})

_Job = tuple[str, str, int]  # picture id, split, index within the split


def _annotation(name: str, drawing: Drawing) -> str:
    """The picture's boxes in VOC's XML: 1-based pixels, the last one included."""
    height, width = drawing.pixels.shape[:2]
    lines = [
        "<annotation>",
        "  <folder>scenes</folder>",
        f"  <filename>{name}.jpg</filename>",
        f"  <source><database>mlkd scenes {VERSION}</database><image>{drawing.place}</image></source>",
        f"  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>",
        "  <segmented>0</segmented>",
    ]
    for box, truncated in zip(drawing.boxes.astype(int), drawing.truncated, strict=True):
        kind, x1, y1, x2, y2 = box
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


def _write_picture(job: _Job, root: Path, seed: int, size: int) -> frozenset[int]:
    """Draw and save one picture with its annotation; the class indices in it."""
    name, split, index = job
    drawing = draw(seed, split, index, size)
    jpeg = io.BytesIO()
    Image.fromarray(drawing.pixels).save(jpeg, "JPEG", quality=95, subsampling=0)
    (root / "JPEGImages" / f"{name}.jpg").write_bytes(jpeg.getvalue())
    (root / "Annotations" / f"{name}.xml").write_text(_annotation(name, drawing), encoding="utf-8")
    return frozenset(drawing.boxes[:, 0].astype(int).tolist())


def _workers() -> int:
    """As many processes as there are cores to use, but few: starting one costs seconds and memory."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 4)


def _write_pictures(jobs: list[_Job], root: Path, seed: int, size: int) -> Iterator[frozenset[int]]:
    """Each picture's classes, in order; several processes share the work when that pays."""
    work = partial(_write_picture, root=root, seed=seed, size=size)
    done = 0
    if _workers() > 1 and len(jobs) >= 1000:
        # A script without `if __name__ == "__main__"` cannot start processes: then this one does it all.
        with contextlib.suppress(BrokenProcessPool):
            with ProcessPoolExecutor(_workers(), multiprocessing.get_context("spawn")) as pool:
                for classes in pool.map(work, jobs, chunksize=50):
                    yield classes
                    done += 1
            return
    for job in jobs[done:]:
        yield work(job)


def write(root: str | Path, seed: int = 0, size: int = 96, splits: Mapping[str, int] = SPLITS) -> Path:
    """Write the scenes as a Pascal VOC folder: JPEGImages, Annotations, ImageSets/Main.

    The folder appears under its name when it is complete, not before.

    Args:
        root: the folder to make.
        seed: see `draw`.
        size: width and height of the pictures in pixels.
        splits: how many pictures each split has.

    Raises:
        FileExistsError: `root` exists and is not an empty folder.
    """
    root = Path(root).absolute()
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise FileExistsError(f"{root} exists already; the scenes are written to a new folder. Remove it first?")
    root.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
    try:
        _write_all(unfinished, seed, size, splits)
        unfinished.chmod(0o755)
        unfinished.replace(root)  # also onto an empty folder
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return root


def _write_all(root: Path, seed: int, size: int, splits: Mapping[str, int]) -> None:
    sets = root / "ImageSets" / "Main"
    for part in (root / "JPEGImages", root / "Annotations", sets):
        part.mkdir(parents=True)
    pairs = [(split, index) for split, count in splits.items() for index in range(count)]
    jobs = [(f"{number:06d}", split, index) for number, (split, index) in enumerate(pairs, start=1)]
    drawn = _write_pictures(jobs, root, seed, size)
    present = list(
        tqdm(drawn, "drawing scenes", len(jobs), unit=" pictures", leave=False, disable=not is_interactive())
    )
    for split in splits:
        rows = [(job[0], classes) for job, classes in zip(jobs, present, strict=True) if job[1] == split]
        (sets / f"{split}.txt").write_text("".join(f"{name}\n" for name, _ in rows), encoding="utf-8")
        for k, label in enumerate(CLASSES):
            lines = (f"{name} {1 if k in classes else -1:2d}\n" for name, classes in rows)
            (sets / f"{label}_{split}.txt").write_text("".join(lines), encoding="utf-8")


def folder(seed: int = 0, size: int = 96, cache: str | Path | None = None) -> Path:
    """The scenes' folder in the cache, written on first use.

    Args:
        seed: see `draw`.
        size: width and height of the pictures in pixels.
        cache: the folder to keep it in; default `mlkd.files.cache_dir()`.
    """
    root = Path(cache or cache_dir()).expanduser().absolute() / f"scenes-v{VERSION}-s{seed}-{size}"
    create_once(root, lambda unfinished: write(unfinished, seed, size))
    return root
