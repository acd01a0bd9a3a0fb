"""The teachers of a training: evaluated at every step, or once with their outputs cached on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from mlkd.data import MultiLabelData
from mlkd.data.image_cache import DecodedImages, decoded_images
from mlkd.files import cache_dir, create_memmap, create_once
from mlkd.methods import Method
from mlkd.models import Output, fingerprint
from mlkd.progress import is_interactive
from mlkd.training.config import Config
from mlkd.training.loader import AugmentedBatch
from mlkd.training.precision import ComputeFormat

if TYPE_CHECKING:
    from accelerate import Accelerator

VIEWS = ("as it is", "mirrored")


class CachedTeacher(nn.Module):
    """A teacher's logits, and label-wise embeddings if kept, for every training picture and its mirror image.

    It stands in for the teacher wherever a method needs one (`L2D(teacher=CachedTeacher("answers"))`), so a student can
    be distilled where there is no teacher: on these pictures, with augmentations=() or ("flip",). The run is the same as with
    the teacher itself, if both are asked in the same precision (`mlkd cache-teacher` asks in float32).

    Args:
        folder: as `cache_teacher_outputs` wrote it: `answers.json`, `logits.npy` (2, N, q) and perhaps `embeddings.npy`
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
                f"`mlkd cache-teacher MODEL FOLDER` makes them in a new folder."
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
                f"`image_size` is {size}; `mlkd cache-teacher --image-size {size}` asks about those."
            )


def cache_teacher_outputs(
    teacher: Any,
    data: MultiLabelData,
    pixels: DecodedImages,
    folder: str | Path,
    *,
    ask: Callable[[Tensor], Output] | None = None,
    embeddings: bool = True,
) -> CachedTeacher:
    """Asks a teacher about every picture and its mirror image and keeps the answers in a folder.

    N pictures of q labels take 8 * N * q bytes, or with embeddings of width d 8 * N * q * (1 + d).

    Args:
        teacher: any model of `data.classes`, in eval mode.
        data: the split the students will be trained on.
        pixels: its pictures as `decoded_images` gives them, N of (H, W, 3).
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

    create_once(Path(folder), make)
    kept = CachedTeacher(folder)
    kept.check(data, size)
    lacks = embeddings and teacher.head.has_embeddings and not kept.has_embeddings
    if kept.fingerprint != fingerprint(teacher) or lacks:
        other = "no embeddings" if lacks else "another teacher's answers"
        raise ValueError(f"{folder}: there are {other} in this folder; choose a new one.")
    return kept


def _ask(
    ask: Callable[[Tensor], Output],
    data: MultiLabelData,
    pixels: DecodedImages,
    embeddings: bool,
    folder: Path,
    batch: int = 128,
) -> None:
    """Writes what is said of each picture and of its mirror image, each kind into a file of its own."""
    maps: dict[str, np.memmap] = {}
    title = f"asking the teacher about {data.name}"
    for start in tqdm(range(0, len(data), batch), title, leave=False, disable=not is_interactive()):
        images = torch.from_numpy(np.array(pixels[start : start + batch])).permute(0, 3, 1, 2)
        for view in range(len(VIEWS)):
            output = ask(images.flip(-1) if view else images)
            said = {"logits": output.logits}
            if embeddings and output.embeddings is not None:
                said["embeddings"] = output.embeddings
            for name, values in said.items():
                if name not in maps:
                    shape = (len(VIEWS), len(data), *values.shape[1:])
                    maps[name] = create_memmap(folder / f"{name}.npy", np.float32, shape)
                maps[name][view, start : start + batch] = values.float().cpu().numpy()
    for table in maps.values():
        table.flush()


def _pictures(data: MultiLabelData) -> str:
    """Names a split's pictures by their ids."""
    return hashlib.sha256(json.dumps([data.split, *data.ids]).encode()).hexdigest()[:24]


Ask = Callable[[AugmentedBatch, Tensor], Output]
"""From a step's pictures, as drawn and on the device, to what a teacher says of them."""


def asked(
    accelerator: Accelerator, method: Method, data: MultiLabelData, config: Config, speed: ComputeFormat
) -> dict[str, Ask]:
    """For each teacher of a method, by its role, how to ask it.

    Args:
        data: the split the student is trained on.
        speed: what the training computes in, and so its teachers.

    Raises:
        ValueError: kept answers that do not fit the data or the training.
    """
    found: dict[str, Ask] = {}
    for role, teacher in method.teachers.items():
        if not isinstance(teacher, CachedTeacher) and config.cache_teacher_outputs and not method.needs_features:
            teacher = _kept(accelerator, teacher, method, data, config, speed)
        if isinstance(teacher, CachedTeacher):
            _check(teacher, method, data, config)
            found[role] = _remembering(accelerator, teacher)
        else:
            found[role] = partial(_looking, _live(accelerator, teacher, speed.layout))
    return found


def _live(accelerator: Accelerator, teacher: nn.Module, layout: torch.memory_format) -> Callable[[Tensor], Output]:
    """Without gradient, in eval mode, in the training's precision."""
    teacher = teacher.to(accelerator.device).to(memory_format=layout).eval()

    @torch.no_grad()
    def ask(images: Tensor) -> Output:
        with accelerator.autocast():
            return teacher(images.to(accelerator.device))

    return ask


def _looking(ask: Callable[[Tensor], Output], _: AugmentedBatch, images: Tensor) -> Output:
    return ask(images)


def _remembering(accelerator: Accelerator, kept: CachedTeacher) -> Ask:
    def ask(drawn: AugmentedBatch, _: Tensor) -> Output:
        logits, embeddings, features = kept.answer(drawn.rows[drawn.mine], drawn.mirrored)
        return Output(
            logits.to(accelerator.device), None if embeddings is None else embeddings.to(accelerator.device), features
        )

    return ask


def _kept(
    accelerator: Accelerator,
    teacher: nn.Module,
    method: Method,
    data: MultiLabelData,
    config: Config,
    speed: ComputeFormat,
) -> CachedTeacher:
    """Its answers in the cache folder, asked for now if they are not there yet."""
    pixels, embeddings = decoded_images(data, config.image_size), method.needs_embeddings
    key = f"{fingerprint(teacher)} {pixels.name} {speed.precision} {accelerator.device.type} {embeddings}"
    folder = cache_dir() / "answers" / hashlib.sha256(key.encode()).hexdigest()[:24]
    return cache_teacher_outputs(
        teacher, data, pixels, folder, ask=_live(accelerator, teacher, speed.layout), embeddings=embeddings
    )


def _check(kept: CachedTeacher, method: Method, data: MultiLabelData, config: Config) -> None:
    kept.check(data, config.image_size)
    if method.needs_features:
        raise ValueError(
            f"The method {method.name!r} compares feature maps, which {kept.folder} does not keep; give the teacher "
            f"itself."
        )
    if set(config.augmentations) - {"flip"}:
        raise ValueError(
            f"`augmentations` is {list(config.augmentations)}, but {kept.folder} has the teacher's answers to each picture and its "
            f"mirror image only; use augmentations=() or ('flip',), or give the teacher itself."
        )
