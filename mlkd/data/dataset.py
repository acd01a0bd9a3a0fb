"""`MultiLabelData`: images, targets, class names and boxes of one split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mlkd.data.boxes import targets_from_objects
from mlkd.data.images import ImageFiles, Images, select_images
from mlkd.errors import DataError


@dataclass(frozen=True)
class MultiLabelData:
    """One split of a multi-label data set.

    Attributes:
        name: the data set, for titles and messages, such as "scenes".
        split: "train", "val", "test", ...
        images: N images; `images[i]` decodes one as uint8 RGB (H, W, 3).
        targets: (N, q) uint8, 1 if the image has the label.
        classes: the q class names, in the order of the columns of `targets`.
        ids: N names, unique within the split.
        boxes: None, or for each image an (m, 5) float32 array of class index, x1, y1, x2, y2 in pixels of the
            original image (0 <= x1 < x2 <= W), each of a class that the image has.
        ignore_mask: None, or (N, q) bool: labels that count neither as present nor as absent (objects that VOC
            marks as difficult, read with `difficult="ignore"`). Their targets are 0.

    Raises:
        DataError: the shapes or dtypes do not match.
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
                f"{self.name} {self.split}: `ignore_mask` is {self.ignore_mask.dtype} {self.ignore_mask.shape}, "
                f"expected bool ({n}, {q}) like `targets`."
            )

    @classmethod
    def from_objects(
        cls,
        name: str,
        split: str,
        images: Images,
        classes: Sequence[str],
        ids: Sequence[str],
        objects: Sequence[np.ndarray],
        ignore_mask: np.ndarray | None = None,
    ) -> MultiLabelData:
        """A split of a detection data set: an image has the labels of its objects.

        Args:
            name, split, images, classes, ids, ignore_mask: as in `MultiLabelData`.
            objects: for each image (m, 5): class index, x1, y1, x2, y2. An object without width or height adds
                its label, but no box.
        """
        arrays = [np.asarray(image_objects, np.float32).reshape(-1, 5) for image_objects in objects]
        return cls(
            name=name,
            split=split,
            images=images,
            targets=targets_from_objects(arrays, len(classes)),
            classes=tuple(classes),
            ids=tuple(ids),
            boxes=[boxes[(boxes[:, 1] < boxes[:, 3]) & (boxes[:, 2] < boxes[:, 4])] for boxes in arrays],
            ignore_mask=ignore_mask,
        )

    def __len__(self) -> int:
        return len(self.ids)

    def subset(self, indices: Sequence[int] | np.ndarray) -> MultiLabelData:
        """The images at `indices`, in that order, with their targets and boxes."""
        indices = np.asarray(indices, dtype=np.int64)
        return replace(
            self,
            images=select_images(self.images, indices),
            targets=self.targets[indices],
            ids=tuple(self.ids[i] for i in indices),
            boxes=None if self.boxes is None else [self.boxes[i] for i in indices],
            ignore_mask=None if self.ignore_mask is None else self.ignore_mask[indices],
        )

    def select_classes(self, indices: Sequence[int] | np.ndarray) -> MultiLabelData:
        """The same images with only the classes at `indices`, in that order.

        Boxes of other classes are dropped; the others get their class's new index.
        """
        columns = np.asarray(indices, dtype=np.int64)
        new_index = np.full(len(self.classes), -1)
        new_index[columns] = np.arange(len(columns))

        def select_boxes(boxes: np.ndarray) -> np.ndarray:
            new = new_index[boxes[:, 0].astype(np.int64)]
            return np.concatenate([new[:, None], boxes[:, 1:]], axis=1, dtype=boxes.dtype)[new >= 0]

        return replace(
            self,
            targets=self.targets[:, columns],
            classes=tuple(self.classes[k] for k in columns),
            boxes=None if self.boxes is None else [select_boxes(boxes) for boxes in self.boxes],
            ignore_mask=None if self.ignore_mask is None else self.ignore_mask[:, columns],
        )

    def normalized_boxes(self, index: int) -> np.ndarray:
        """The boxes of image `index`, (m, 5) float64: class index, then x1, y1, x2, y2 as fractions of its sides.

        Raises:
            DataError: this data set has no boxes.
        """
        if self.boxes is None:
            raise DataError(
                f"{self.name} {self.split}: this data set has no boxes; expected one with objects, as the readers "
                f"`voc`, `coco` and `scenes` return."
            )
        if isinstance(self.images, ImageFiles):
            width, height = self.images.size(index)
        else:
            height, width = self.images[index].shape[:2]
        return self.boxes[index].reshape(-1, 5) / np.array([1, width, height, width, height], np.float64)
