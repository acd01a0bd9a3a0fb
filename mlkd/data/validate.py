"""Validation of a data set before training: labels, boxes and image files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations, islice
from os.path import isfile
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from mlkd.data.boxes import format_box
from mlkd.data.dataset import MultiLabelData
from mlkd.data.images import ImageFiles
from mlkd.data.paths import check_file
from mlkd.errors import DataError, one_line
from mlkd.progress import is_interactive


def validate(data: Mapping[str, MultiLabelData]) -> None:
    """Raises an error if the quick checks, which open no image file, find a problem; called before every training.

    Raises:
        DataError: with the first problems.
    """
    if problems := find_problems(data, decode=False, limit=10):
        raise DataError(*problems)


def find_problems(data: Mapping[str, MultiLabelData], *, decode: bool = True, limit: int = 100) -> list[str]:
    """The problems of a data set, one sentence each: the file or image, the field, what was expected.

    Every split is checked, then the splits are compared: they must have the same classes and no image in common
    (`trainval` is `train` and `val` together and may share their images).

    Args:
        data: the splits, as `load_data` returns them.
        decode: also decode every image completely and compare its boxes with its size. This takes a few
            milliseconds per image, on all cores; without it 10,000 images take a fraction of a second.
        limit: stop after this many problems; the last sentence then says so.

    Returns:
        The problems; an empty list if there are none.
    """
    problems = list(map(one_line, islice(_problems(data, decode), limit + 1)))
    if len(problems) > limit:
        problems[limit:] = [f"Stopped after {limit} problems; there are more."]
    return problems


def _problems(data: Mapping[str, MultiLabelData], decode: bool) -> Iterator[str]:
    reported: set[str] = set()  # an image of `train` is also one of `trainval`
    for split in data.values():
        for problem in _split_problems(split):
            if problem not in reported:
                yield problem
            reported.add(problem)
    for (first_name, first), (second_name, second) in combinations(data.items(), 2):
        if first.classes != second.classes:
            yield f"{first.name}: `classes` of {first_name} and {second_name} differ; expected the same in one order."
        names = {first_name, second_name}
        if "trainval" in names and names & {"train", "val"}:
            continue
        if shared := set(first.ids) & set(second.ids):
            yield (
                f"{first.name}: {len(shared)} image(s) in both {first_name} and {second_name}, such as "
                f"`{min(shared)}`; expected splits without common ids."
            )
    if decode:
        yield from _decoding_problems(data)


def _split_problems(data: MultiLabelData) -> Iterator[str]:
    """The problems of one split's ids, classes, targets, boxes and missing files; no image is opened."""
    where = f"{data.name} {data.split}"
    if not len(data):
        yield f"{where}: the split is empty; expected at least one image."
        return
    seen: set[str] = set()
    for i in data.ids:
        if i in seen:
            yield f"{where}: the id `{i}` occurs more than once in `ids`; expected each image once."
        seen.add(i)
    for name in sorted({name for name in data.classes if data.classes.count(name) > 1}):
        yield f"{where}: `{name}` occurs more than once in `classes`; expected each class once."
    if data.targets.max(initial=0) > 1:
        row, column = np.argwhere(data.targets > 1)[0]
        yield (
            f"{where}: image `{data.ids[row]}` has {data.targets[row, column]} in `targets` for "
            f"`{data.classes[column]}`; expected 0 or 1."
        )
    if not data.targets.any():
        yield f"{where}: no image has any label in `targets`; expected at least one positive."
    if data.ignore_mask is not None:
        for row, column in np.argwhere(data.ignore_mask & (data.targets != 0)):
            yield (
                f"{where}: image `{data.ids[row]}` has `{data.classes[column]}` both in `targets` "
                f"and in `ignore_mask`; expected one of them."
            )
    yield from _box_problems(data, where)
    if isinstance(data.images, ImageFiles):
        for index in range(len(data)):
            try:
                check_file(data.images.path(index))
            except DataError as error:
                yield str(error)


def _box_problems(data: MultiLabelData, where: str) -> Iterator[str]:
    if not data.boxes:
        return
    rows = np.repeat(np.arange(len(data)), [len(boxes) for boxes in data.boxes])
    boxes = np.concatenate([np.reshape(boxes, (-1, 5)) for boxes in data.boxes])
    column, x1, y1, x2, y2 = boxes.T
    known = (column >= 0) & (column < len(data.classes)) & (column == np.floor(column))
    labeled = known.copy()
    labeled[known] = data.targets[rows[known], column[known].astype(np.int64)] != 0
    valid = (x1 >= 0) & (y1 >= 0) & (x1 < x2) & (y1 < y2)  # False for nan
    for k in np.flatnonzero(~(known & labeled & valid)):
        image = f"{where}: image `{data.ids[rows[k]]}`"
        if not known[k]:
            yield f"{image} has a box of class {column[k]:g}; expected 0 to {len(data.classes) - 1}."
        elif not labeled[k]:
            name = data.classes[int(column[k])]
            yield f"{image} has a box of `{name}` but 0 in `targets`; expected 1 for every class with a box."
        if not valid[k]:
            yield f"{image} has the box {format_box(boxes[k, 1:])}; expected 0 <= x1 < x2 and 0 <= y1 < y2."


def _decoding_problems(data: Mapping[str, MultiLabelData]) -> Iterator[str]:
    """Decodes each image once, even if it is in several splits."""
    jobs: dict[Any, tuple[MultiLabelData, int]] = {}
    for split in data.values():
        for index in range(len(split)):
            key = split.images.path(index) if isinstance(split.images, ImageFiles) else (split.split, index)
            jobs.setdefault(key, (split, index))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        problems = pool.map(lambda job: _image_problem(*job), jobs.values())
        try:
            for problem in tqdm(problems, "decoding", len(jobs), leave=False, disable=not is_interactive()):
                if problem:
                    yield problem
        finally:
            pool.shutdown(cancel_futures=True)  # when the caller stops at its limit


def _image_problem(data: MultiLabelData, index: int) -> str | None:
    """The problem of one image's pixels, if it has one."""
    images = data.images
    if isinstance(images, ImageFiles) and not isfile(images.path(index)):
        return None  # reported by `_split_problems`
    try:
        height, width = images[index].shape[:2]
    except DataError as error:
        return str(error)
    for _, x1, y1, x2, y2 in data.boxes[index] if data.boxes else ():
        if x2 > width or y2 > height:
            return (
                f"{data.name} {data.split}: image `{data.ids[index]}` has {width} x {height} pixels but "
                f"the box {format_box((x1, y1, x2, y2))}; expected x2 <= {width} and y2 <= {height}."
            )
    return None
