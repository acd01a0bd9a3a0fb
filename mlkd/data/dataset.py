"""The one form every reader ends in: images, targets, class names, boxes; and what all readers share."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from mlkd.errors import DataError

UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
"""What Pillow raises for a file that is no picture, or half of one."""


def safe_join(root: Path, path: str | Path) -> Path:
    """`root / path`, which must not lead out of `root`; names in annotation files are not trusted."""
    full = root / path
    if ".." in full.parts or not full.is_relative_to(root):
        raise DataError(f"{path}: lies outside the data folder {root}; expected a path below that folder.")
    return full


class Images(Protocol):
    """N pictures; `images[i]` is one as uint8 RGB, shape (H, W, 3)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> np.ndarray: ...


class ImageFiles:
    """Image files of one data root, decoded when they are asked for.

    Args:
        root: the data set's folder. Every path must lie inside it.
        paths: one path per image, relative to `root`.
        part: the rows of other files that these are, where they are a subset.

    Raises:
        DataError: a path leads out of `root` (checked here); a file is missing, truncated or no image
            (checked when that image is read).
    """

    def __init__(self, root: str | Path, paths: Sequence[str | Path], part: ImageSubset | None = None):
        self.root = Path(root).resolve()
        self.paths = [safe_join(self.root, path) for path in paths]
        self.part = part

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, rows: np.ndarray) -> ImageFiles:
        """The files at `rows`, in that order."""
        return ImageFiles(self.root, [self.paths[row] for row in rows], ImageSubset(self, rows))

    def decode(self, index: int, size: int | None = None) -> Image.Image:
        """Image `index`, decoded, in RGB.

        Args:
            index: which picture.
            size: decode a JPEG file at a half, a quarter or an eighth of its size where both sides stay at
                least `size`. That is much faster, and enough for a picture that is then resized to `size`.
        """
        path = self.paths[index]
        if not path.is_file():
            raise DataError(missing(path))
        try:
            with Image.open(path) as image:
                if size is not None:
                    image.draft("RGB", (size, size))
                return image.convert("RGB")
        except UNREADABLE as error:
            raise DataError(f"{path}: the image is truncated, broken or no image ({error}).") from error

    def size(self, index: int) -> tuple[int, int]:
        """Width and height of image `index`, from the head of its file."""
        path = self.paths[index]
        if not path.is_file():
            raise DataError(missing(path))
        try:
            with Image.open(path) as image:
                return image.size
        except UNREADABLE as error:
            raise DataError(f"{path}: the image is truncated, broken or no image ({error}).") from error

    def __getitem__(self, index: int) -> np.ndarray:
        """Image `index` as uint8 RGB, shape (H, W, 3)."""
        return np.asarray(self.decode(index))


def missing(path: Path) -> str:
    """The message for an image file that is not there."""
    return f"{path}: no such image file. Is the data set unpacked completely?"


class ImageSubset:
    """Some of the pictures of `images`, in the order of `rows`."""

    def __init__(self, images: Images, rows: np.ndarray):
        self.images, those = whole(images)
        self.rows = those[rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.images[int(self.rows[index])]


def whole(images: Images) -> tuple[Images, np.ndarray]:
    """The pictures of which these are some rows, and those rows; themselves and all rows where they are no subset."""
    part = images.part if isinstance(images, ImageFiles) else images
    return (part.images, part.rows) if isinstance(part, ImageSubset) else (images, np.arange(len(images)))


@dataclass(frozen=True)
class MultiLabelData:
    """One split of a multi-label data set.

    Attributes:
        name: the data set, for titles and messages, such as "scenes".
        split: "train", "val", "test", ...
        images: N pictures; `images[i]` decodes one as uint8 RGB (H, W, 3).
        targets: (N, q) uint8, 1 where the picture has the label.
        classes: the q class names, in the order of the columns of `targets`.
        ids: N names, unique within the split.
        boxes: None, or for each picture an (m, 5) float32 array of class index, x1, y1, x2, y2 in pixels
            of the original picture (0 <= x1 < x2 <= W), each of a class the picture has.
        ignored: None, or (N, q) bool: labels that count neither as present nor as absent (objects that VOC
            marks difficult, when read with `difficult="ignore"`). Their targets are 0.
    """

    name: str
    split: str
    images: Images
    targets: np.ndarray
    classes: tuple[str, ...]
    ids: tuple[str, ...]
    boxes: list[np.ndarray] | None = None
    ignore_mask: np.ndarray | None = None

    def __post_init__(self) -> None:
        n, q = len(self.ids), len(self.classes)
        if self.targets.shape != (n, q) or self.targets.dtype != np.uint8:
            raise DataError(
                f"{self.name} {self.split}: `targets` is {self.targets.dtype} {self.targets.shape}, "
                f"expected uint8 ({n}, {q}): one row per id, one column per class."
            )
        lengths = {"images": len(self.images), "boxes": n if self.boxes is None else len(self.boxes)}
        for field, length in lengths.items():
            if length != n:
                raise DataError(f"{self.name} {self.split}: `{field}` has {length} entries for {n} ids.")
        if self.ignore_mask is not None and (self.ignore_mask.shape != (n, q) or self.ignore_mask.dtype != np.bool_):
            raise DataError(
                f"{self.name} {self.split}: `ignored` is {self.ignore_mask.dtype} {self.ignore_mask.shape}, "
                f"expected bool ({n}, {q}) like `targets`."
            )

    def __len__(self) -> int:
        return len(self.ids)

    def subset(self, indices: Sequence[int] | np.ndarray) -> MultiLabelData:
        """The pictures at `indices`, in that order; everything else stays."""
        rows = np.asarray(indices, dtype=np.int64)
        images = self.images
        return replace(
            self,
            images=images.take(rows) if isinstance(images, ImageFiles) else ImageSubset(images, rows),
            targets=self.targets[rows],
            ids=tuple(self.ids[i] for i in rows),
            boxes=None if self.boxes is None else [self.boxes[i] for i in rows],
            ignore_mask=None if self.ignore_mask is None else self.ignore_mask[rows],
        )

    def select_classes(self, indices: Sequence[int] | np.ndarray) -> MultiLabelData:
        """The same pictures with only the classes at `indices`, in that order: a sub-task of its own.

        Boxes of other classes are left out, those that stay carry their class's new index.
        """
        columns = np.asarray(indices, dtype=np.int64)
        number = np.full(len(self.classes), -1)
        number[columns] = np.arange(len(columns))

        def kept(boxes: np.ndarray) -> np.ndarray:
            new = number[boxes[:, 0].astype(np.int64)]
            return np.concatenate([new[:, None], boxes[:, 1:]], axis=1, dtype=boxes.dtype)[new >= 0]

        return replace(
            self,
            targets=self.targets[:, columns],
            classes=tuple(self.classes[k] for k in columns),
            boxes=None if self.boxes is None else [kept(boxes) for boxes in self.boxes],
            ignore_mask=None if self.ignore_mask is None else self.ignore_mask[:, columns],
        )

    def normalized_boxes(self, row: int) -> np.ndarray:
        """The boxes of picture `row`, (m, 5) float64: class index, then x1, y1, x2, y2 as shares of its sides.

        Raises:
            DataError: this data set has no boxes.
        """
        if self.boxes is None:
            raise DataError(
                f"{self.name} {self.split}: this data set has no boxes; expected one with objects, as `voc`, `coco` "
                f"and `scenes` read them."
            )
        if isinstance(self.images, ImageFiles):
            width, height = self.images.size(row)
        else:
            height, width = self.images[row].shape[:2]
        return self.boxes[row].reshape(-1, 5) / np.array([1, width, height, width, height], np.float64)

    def check(self) -> Iterator[str]:
        """What is wrong with this split, one sentence each; nothing when it can be trained on.

        No picture is opened, so this is quick enough for the start of every run: labels and boxes are
        compared with each other and every image file must exist. `mlkd.data.validate` also decodes them.
        """
        where = f"{self.name} {self.split}"
        if not len(self):
            yield f"{where}: the split is empty; expected at least one picture."
            return
        seen: set[str] = set()
        for i in self.ids:
            if i in seen:
                yield f"{where}: id `{i}` stands more than once in `ids`; expected each picture once."
            seen.add(i)
        for name in sorted({name for name in self.classes if self.classes.count(name) > 1}):
            yield f"{where}: `{name}` stands more than once in `classes`; expected each class once."
        if self.targets.max(initial=0) > 1:
            row, column = np.argwhere(self.targets > 1)[0]
            yield (
                f"{where}: picture `{self.ids[row]}` has {self.targets[row, column]} in `targets` for "
                f"`{self.classes[column]}`; expected 0 or 1."
            )
        if not self.targets.any():
            yield f"{where}: no picture has any label in `targets`; expected at least one positive."
        if self.ignore_mask is not None:
            for row, column in np.argwhere(self.ignore_mask & (self.targets != 0)):
                yield (
                    f"{where}: picture `{self.ids[row]}` has `{self.classes[column]}` both in `targets` "
                    f"and in `ignored`; expected one of them."
                )
        yield from self._check_boxes(where)
        if isinstance(self.images, ImageFiles):
            for path in self.images.paths:
                if not path.is_file():
                    yield missing(path)

    def _check_boxes(self, where: str) -> Iterator[str]:
        if not self.boxes:
            return
        rows = np.repeat(np.arange(len(self)), [len(boxes) for boxes in self.boxes])
        boxes = np.concatenate([np.reshape(boxes, (-1, 5)) for boxes in self.boxes])
        column, x1, y1, x2, y2 = boxes.T
        known = (column >= 0) & (column < len(self.classes)) & (column == np.floor(column))
        labelled = known.copy()
        labelled[known] = self.targets[rows[known], column[known].astype(np.int64)] != 0
        sound = (x1 >= 0) & (y1 >= 0) & (x1 < x2) & (y1 < y2)  # False for nan
        for k in np.flatnonzero(~(known & labelled & sound)):
            picture = f"{where}: picture `{self.ids[rows[k]]}`"
            if not known[k]:
                yield f"{picture} has a box of class {column[k]:g}; expected 0 to {len(self.classes) - 1}."
            elif not labelled[k]:
                name = self.classes[int(column[k])]
                yield f"{picture} has a box of `{name}` but 0 in `targets`; expected 1 where a box is."
            if not sound[k]:
                yield f"{picture} has the box {show(boxes[k, 1:])}; expected 0 <= x1 < x2 and 0 <= y1 < y2."


def show(box: Iterable[float]) -> str:
    """A box in an error message: (x1, y1, x2, y2)."""
    return "(" + ", ".join(f"{value:g}" for value in box) + ")"


def clip_box(box: tuple[float, float, float, float], width: float, height: float) -> tuple[float, ...] | None:
    """The box x1, y1, x2, y2 clipped to the picture, or None where it is wrong.

    Up to 1 px outside is the rounding of real annotation files and is clipped; more is a mistake. A box of no
    width or no height is let through (COCO has some): `from_objects` keeps its label and drops the box.
    """
    x1, y1, x2, y2 = box
    if -1 <= x1 <= x2 <= width + 1 and -1 <= y1 <= y2 <= height + 1:  # False for nan
        return max(x1, 0.0), max(y1, 0.0), min(x2, width), min(y2, height)
    return None


def present(objects: Sequence[np.ndarray], q: int) -> np.ndarray:
    """(N, q) uint8: 1 where one of a picture's objects (first column: class index) is of the class."""
    targets = np.zeros((len(objects), q), np.uint8)
    for row, found in enumerate(objects):
        targets[row, found[:, 0].astype(np.int64)] = 1
    return targets


def from_objects(
    name: str,
    split: str,
    images: Images,
    classes: Sequence[str],
    ids: Sequence[str],
    objects: Sequence[np.ndarray],
    ignore_mask: np.ndarray | None = None,
) -> MultiLabelData:
    """A split whose labels follow from its objects: what detection data becomes.

    Args:
        name, split, images, classes, ids, ignored: as in `MultiLabelData`.
        objects: for each picture (m, 5): class index, x1, y1, x2, y2. An object of no width or height gives
            its label, and no box.
    """
    arrays = [np.asarray(found, np.float32).reshape(-1, 5) for found in objects]
    return MultiLabelData(
        name=name,
        split=split,
        images=images,
        targets=present(arrays, len(classes)),
        classes=tuple(classes),
        ids=tuple(ids),
        boxes=[found[(found[:, 1] < found[:, 3]) & (found[:, 2] < found[:, 4])] for found in arrays],
        ignore_mask=ignore_mask,
    )


def hold_out(train: MultiLabelData, fraction: float = 0.1, seed: int = 0) -> tuple[MultiLabelData, MultiLabelData]:
    """Two parts of `train`: what is left to train on, and a `val` split of `fraction` of the pictures.

    The pictures with the smallest hash of seed and id are held out, so the parts do not depend on the order
    of a file and are the same on every machine.

    Raises:
        ValueError: `fraction` is not between 0 and 1.
        DataError: fewer than two pictures.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"`fraction` is {fraction}; expected a number between 0 and 1.")
    if len(train) < 2:
        raise DataError(f"{train.name} {train.split}: {len(train)} picture(s); holding out needs at least 2.")
    ranks = [hashlib.sha256(f"{seed}:{i}".encode()).digest() for i in train.ids]
    count = min(max(1, round(fraction * len(train))), len(train) - 1)
    held = np.zeros(len(train), bool)
    held[sorted(range(len(train)), key=lambda row: (ranks[row], row))[:count]] = True
    rest, val = train.subset(np.flatnonzero(~held)), train.subset(np.flatnonzero(held))
    return replace(rest, split="train"), replace(val, split="val")


def standard_splits(splits: Mapping[str, MultiLabelData]) -> dict[str, MultiLabelData]:
    """What every reader returns: at least `train`, `val` (to choose by) and `test` (to score on).

    - Without a `test`, `val` is what papers score on (COCO, VOC 2012): it becomes `test`.
    - Without a `val`, a tenth of the training pictures is held out (`hold_out`, seed 0), and the whole
      training set is kept as `trainval`, which is what papers train on.
    - All other splits stay as they are.

    Raises:
        DataError: there is nothing to train on, or nothing to score on.
    """
    result = dict(splits)
    some = next(iter(result.values()))
    if "test" not in result and "val" in result:
        result["test"] = replace(result.pop("val"), split="test")
        result.pop("trainval", None)  # it contains what is scored on
    if "train" not in result and "val" not in result and "trainval" in result:
        result["train"] = replace(result["trainval"], split="train")
    if "train" not in result:
        raise DataError(f"{some.name}: no split to train on; found {', '.join(splits)}, expected `train`.")
    if "test" not in result:
        raise DataError(f"{some.name}: no split to score on; found {', '.join(splits)}, expected `test`.")
    if "val" not in result:
        result.setdefault("trainval", replace(result["train"], split="trainval"))
        result["train"], result["val"] = hold_out(result["train"])
    first = ("train", "val", "test")
    return {name: result[name] for name in (*first, *(name for name in result if name not in first))}


READERS: dict[str, Callable[..., dict[str, MultiLabelData]]] = {}
"""Readers by scheme; see `reader`."""


def register_reader(scheme: str) -> Callable[[Any], Any]:
    """Register the function below as what `load_data("<scheme>:<root>?<option>=<value>")` calls.

    Its parameter `root`, if there is one, is the path; its keyword-only parameters annotated with int, str or
    a `Literal` are the options.
    """

    def register(function: Callable[..., dict[str, MultiLabelData]]) -> Callable[..., Any]:
        READERS[scheme] = function
        return function

    return register
