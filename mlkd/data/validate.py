"""Is a data set fit to train on? What is checked before hours are spent."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations, islice
from typing import Any

from tqdm.auto import tqdm

from mlkd.data.dataset import DataError, ImageFiles, MultiLabelData, show
from mlkd.progress import is_interactive


def find_problems(data: Mapping[str, MultiLabelData], *, pixels: bool = True, limit: int = 100) -> list[str]:
    """What is wrong with a data set, one sentence each: the file or picture, the field, what was expected.

    Every split is checked by itself (`MultiLabelData.check`), then the splits are compared: the same classes
    everywhere, and no picture in two of them (`trainval` is `train` and `val` together and may share theirs).

    Args:
        data: the splits, as `load_data` returns them.
        pixels: also decode every picture completely and compare its boxes with its real size. That takes a
            few milliseconds each, on all cores; without it 10,000 pictures take a fraction of a second.
        limit: stop after this many findings; the last sentence then says so.

    Returns:
        The findings; an empty list when there are none.
    """
    found = list(islice(_problems(data, pixels), limit + 1))
    if len(found) > limit:
        found[limit:] = [f"Stopped after {limit} findings; there are more."]
    return found


def validate(data: Mapping[str, MultiLabelData]) -> None:
    """Raise unless the data set passes the quick check, which opens no picture; for the start of every run.

    Raises:
        DataError: with the first findings.
    """
    if problems := find_problems(data, pixels=False, limit=10):
        raise DataError("\n".join(problems))


def _problems(data: Mapping[str, MultiLabelData], pixels: bool) -> Iterator[str]:
    for split in data.values():
        yield from split.check()
    for (one, first), (other, second) in combinations(data.items(), 2):
        if first.classes != second.classes:
            yield f"{first.name}: `classes` of {one} and {other} differ; expected the same in one order."
        if "trainval" in (one, other) and {one, other} & {"train", "val"}:
            continue
        if shared := set(first.ids) & set(second.ids):
            yield (
                f"{first.name}: {len(shared)} picture(s) in both {one} and {other}, such as `{min(shared)}`; "
                f"expected splits without common ids."
            )
    if pixels:
        yield from _broken_pictures(data)


def _broken_pictures(data: Mapping[str, MultiLabelData]) -> Iterator[str]:
    """Decode each picture once, though it may be in several splits."""
    jobs: dict[Any, tuple[MultiLabelData, int]] = {}
    for split in data.values():
        for row in range(len(split)):
            key = split.images.paths[row] if isinstance(split.images, ImageFiles) else (split.split, row)
            jobs.setdefault(key, (split, row))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(lambda job: _broken(*job), jobs.values())
        try:
            for problem in tqdm(results, "decoding", len(jobs), leave=False, disable=not is_interactive()):
                if problem:
                    yield problem
        finally:
            pool.shutdown(cancel_futures=True)  # when the caller stops at its limit


def _broken(data: MultiLabelData, row: int) -> str | None:
    """What is wrong with the pixels of one picture."""
    images = data.images
    if isinstance(images, ImageFiles) and not images.paths[row].is_file():
        return None  # `MultiLabelData.check` has said it
    try:
        height, width = images[row].shape[:2]
    except DataError as error:
        return str(error)
    for _, x1, y1, x2, y2 in data.boxes[row] if data.boxes else ():
        if x2 > width or y2 > height:
            return (
                f"{data.name} {data.split}: picture `{data.ids[row]}` is {width} x {height} pixels but "
                f"has the box {show((x1, y1, x2, y2))}; expected x2 <= {width} and y2 <= {height}."
            )
    return None
