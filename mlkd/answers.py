"""What a teacher says of the training pictures, asked once and kept: for augmentations with few fixed views."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from mlkd.data import MultiLabelData
from mlkd.data.pixels import Pixels
from mlkd.files import made_once, new_map
from mlkd.models import Output, fingerprint
from mlkd.progress import watched

VIEWS = ("as it is", "mirrored")


class KeptTeacher(nn.Module):
    """A teacher's logits, and label-wise embeddings if kept, for every training picture and its mirror image.

    It stands in for the teacher wherever a method needs one (`L2D(teacher=KeptTeacher("answers"))`), so a student can
    be distilled where there is no teacher: on these pictures, with augment=() or ("flip",). The run is the same as with
    the teacher itself, if both are asked in the same precision (`mlkd answers` asks in float32).

    Args:
        folder: as `keep_answers` wrote it: `answers.json`, `logits.npy` (2, N, q) and perhaps `embeddings.npy`
            (2, N, q, d), both float32 and read as memory maps.

    Attributes:
        classes, image_size, settings, fingerprint: the teacher's.
        asked_at: side of the pictures it was asked about, in pixels.

    Raises:
        ValueError: no such folder.
    """

    def __init__(self, folder: str | Path):
        super().__init__()
        self.folder = Path(folder)
        try:
            about = json.loads((self.folder / "answers.json").read_text())
            self.classes = tuple(about["classes"])
            self.image_size: int = about["image_size"]
            self.settings: dict[str, Any] = about["settings"]
            self.fingerprint: str = about["fingerprint"]
            self.pictures: str = about["pictures"]
            self.asked_at: int = about["asked_at"]
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(
                f"{self.folder}: no kept answers of a teacher, answers.json is missing or broken. "
                f"`mlkd answers MODEL FOLDER` makes them in a new folder."
            ) from error
        self.logits = np.load(self.folder / "logits.npy", mmap_mode="r")
        path = self.folder / "embeddings.npy"
        self.embeddings = np.load(path, mmap_mode="r") if path.is_file() else None
        self.head = self  # where a method looks whether there are embeddings
        self.has_embeddings = self.embeddings is not None

    def answer(self, rows: Tensor, mirrored: Tensor) -> Output:
        """The answers to these rows' pictures, mirrored or not; the feature maps are not kept."""
        at = mirrored.long().numpy(), rows.numpy()
        embeddings = None if self.embeddings is None else torch.from_numpy(self.embeddings[at])
        nothing: Any = None  # so that a method that reads them without `needs_features` fails at once
        return Output(torch.from_numpy(self.logits[at]), embeddings, nothing)

    def check(self, data: MultiLabelData, size: int) -> None:
        """Raises ValueError when the answers are about other pictures than these, at this size."""
        if self.pictures != _pictures(data):
            raise ValueError(
                f"{self.folder}: the teacher was asked about other pictures than those of {data.name} {data.split}; "
                f"expected the same ids in the same order."
            )
        if self.asked_at != size:
            raise ValueError(
                f"{self.folder}: the teacher was asked about pictures of {self.asked_at} pixels, but the training's "
                f"`image_size` is {size}; `mlkd answers --image-size {size}` asks about those."
            )


def keep_answers(
    teacher: Any,
    data: MultiLabelData,
    pixels: Pixels,
    folder: str | Path,
    *,
    ask: Callable[[Tensor], Output] | None = None,
    embeddings: bool = True,
) -> KeptTeacher:
    """Asks a teacher about every picture and its mirror image and keeps the answers in a folder.

    N pictures of q labels take 8 * N * q bytes, or with embeddings of width d 8 * N * q * (1 + d).

    Args:
        teacher: any model of `data.classes`, in eval mode.
        data: the split the students will be trained on.
        pixels: its pictures as `decoded` gives them, N of (H, W, 3).
        folder: a new one; with the same answers there already, it is only read.
        ask: from pictures (b, 3, H, W), uint8, to the output; None to call the teacher where it is.
        embeddings: whether label-wise embeddings are kept too, where the teacher has some.

    Raises:
        ValueError: the folder holds something else, or answers of another teacher or to other pictures.
    """
    size = pixels.table.shape[1]

    def make(unfinished: Path) -> None:
        unfinished.mkdir()
        _ask(ask or torch.no_grad()(teacher), data, pixels, embeddings, unfinished)
        about = {
            "classes": list(teacher.classes),
            "image_size": teacher.image_size,
            "settings": teacher.settings,
            "fingerprint": fingerprint(teacher),
            "pictures": _pictures(data),
            "asked_at": size,
            "views": VIEWS,
        }
        (unfinished / "answers.json").write_text(json.dumps(about, indent=1, default=str) + "\n")

    made_once(Path(folder), make)
    kept = KeptTeacher(folder)
    kept.check(data, size)
    lacks = embeddings and teacher.head.has_embeddings and not kept.has_embeddings
    if kept.fingerprint != fingerprint(teacher) or lacks:
        other = "no embeddings" if lacks else "another teacher's answers"
        raise ValueError(f"{folder}: there are {other} in this folder; choose a new one.")
    return kept


def _ask(
    ask: Callable[[Tensor], Output],
    data: MultiLabelData,
    pixels: Pixels,
    embeddings: bool,
    folder: Path,
    batch: int = 128,
) -> None:
    """Writes what is said of each picture and of its mirror image, each kind into a file of its own."""
    maps: dict[str, np.memmap] = {}
    title = f"asking the teacher about {data.name}"
    for start in tqdm(range(0, len(data), batch), title, leave=False, disable=not watched()):
        images = torch.from_numpy(np.array(pixels[start : start + batch])).permute(0, 3, 1, 2)
        for view in range(len(VIEWS)):
            output = ask(images.flip(-1) if view else images)
            said = {"logits": output.logits}
            if embeddings and output.embeddings is not None:
                said["embeddings"] = output.embeddings
            for name, values in said.items():
                if name not in maps:
                    shape = (len(VIEWS), len(data), *values.shape[1:])
                    maps[name] = new_map(folder / f"{name}.npy", np.float32, shape)
                maps[name][view, start : start + batch] = values.float().cpu().numpy()
    for table in maps.values():
        table.flush()


def _pictures(data: MultiLabelData) -> str:
    """Names a split's pictures by their ids."""
    return hashlib.sha256(json.dumps([data.split, *data.ids]).encode()).hexdigest()[:24]
