"""The teachers of a training: evaluated at every step, or once with their outputs cached on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from mlkd.data import MultiLabelData
from mlkd.data.file_hashes import file_hashes, image_hashes
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

VIEWS = ("original", "horizontal flip")


class CachedTeacher(nn.Module):
    """The cached outputs of a teacher for each training image and its horizontal flip.

    These are the logits and, if stored, the label-wise embeddings.

    It takes the place of the teacher of a method (`L2D(teacher=CachedTeacher("outputs"))`), so that a student can be
    distilled without the teacher: on the same images, with augmentations=() or ("flip",). The run is the same as with
    the teacher, if both are evaluated in the same precision (`mlkd cache-teacher` uses float32).

    Args:
        folder: as `cache_teacher_outputs` wrote it: `teacher.json`, `logits.npy` (2, N, q) and, if stored,
            `embeddings.npy` (2, N, q, d), both float32 and read as memory maps.

    Attributes:
        classes, image_size, settings, fingerprint: those of the teacher.
        evaluated_at: side of the images that it was evaluated on, in pixels.
        images_hash: identifies those images.

    Raises:
        ValueError: the folder has no cached outputs, or they were changed after they were written.
    """

    def __init__(self, folder: str | Path):
        super().__init__()
        self.folder = Path(folder)
        try:
            description = json.loads((self.folder / "teacher.json").read_text())
            self.classes = tuple(description["classes"])
            self.image_size: int = description["image_size"]
            self.settings: dict[str, Any] = description["settings"]
            self.fingerprint: str = description["fingerprint"]
            self.images_hash: str = description["images_hash"]
            self.evaluated_at: int = description["evaluated_at"]
            hashes: dict[str, str] = description["hashes"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{self.folder}: no cached teacher outputs, teacher.json is missing or not valid. "
                f"`mlkd cache-teacher MODEL FOLDER` writes them to a new folder."
            ) from error
        self.logits = self._open("logits.npy", 3)
        stored = (self.folder / "embeddings.npy").is_file()
        self.embeddings = self._open("embeddings.npy", 4) if stored else None
        if not np.isfinite(self.logits).all():
            raise self._damaged("logits.npy", "has values that are not finite")
        if self.embeddings is not None and self.embeddings.shape[1] != self.logits.shape[1]:
            raise self._damaged("embeddings.npy", "has another number of images than logits.npy")
        for name, hashed in _hash_outputs(self.folder).items():
            if hashed != hashes.get(name):
                raise self._damaged(name, "has changed since it was written")
        self.head = self  # a method reads `teacher.head.has_embeddings`
        self.has_embeddings = self.embeddings is not None

    def _open(self, name: str, ndim: int) -> np.ndarray:
        """A table of outputs (2, N, q, ...) as a memory map."""
        try:
            table = np.load(self.folder / name, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise self._damaged(name, f"cannot be read ({error})") from error
        if table.ndim != ndim or table.dtype != np.float32 or table.shape[0] != len(VIEWS):
            raise self._damaged(name, f"has {table.dtype} of shape {table.shape}")
        if table.shape[2] != len(self.classes):
            raise self._damaged(name, f"has {table.shape[2]} classes, teacher.json {len(self.classes)}")
        return table

    def _damaged(self, name: str, problem: str) -> ValueError:
        return ValueError(
            f"{self.folder / name}: {problem}. Remove the folder {self.folder}; `mlkd cache-teacher MODEL FOLDER` "
            f"writes the outputs again."
        )

    def lookup(self, sample_indices: Tensor, hflipped: Tensor) -> Output:
        """The outputs for these images of the training split, flipped or not; without feature maps."""
        index = hflipped.long().numpy(), sample_indices.numpy()
        embeddings = None if self.embeddings is None else torch.from_numpy(self.embeddings[index])
        features: Any = None  # a method that reads them without `needs_features` fails at once
        return Output(torch.from_numpy(self.logits[index]), embeddings, features)

    def check(self, data: MultiLabelData, image_size: int) -> None:
        """Raises ValueError when the outputs belong to other images, or to another image size."""
        if self.images_hash != _hash_images(data):
            raise ValueError(
                f"{self.folder}: the teacher was evaluated on other images than those of {data.name} {data.split}; "
                f"expected the same images in the same order."
            )
        if self.logits.shape[1] != len(data):
            raise self._damaged("logits.npy", f"has {self.logits.shape[1]} images, expected {len(data)}")
        if self.evaluated_at != image_size:
            raise ValueError(
                f"{self.folder}: the teacher was evaluated on images of {self.evaluated_at} pixels, but the training's "
                f"`image_size` is {image_size}; use `mlkd cache-teacher --set student.image_size={image_size}`."
            )


def cache_teacher_outputs(
    teacher: Any,
    data: MultiLabelData,
    pixels: DecodedImages,
    folder: str | Path,
    *,
    forward: Callable[[Tensor], Output] | None = None,
    embeddings: bool = True,
) -> CachedTeacher:
    """Evaluates a teacher on every image and its horizontal flip and stores the outputs in a folder.

    N images with q labels take 8 * N * q bytes, or with embeddings of width d 8 * N * q * (1 + d).

    Args:
        teacher: a model of `data.classes`, in eval mode.
        data: the split that the students are trained on.
        pixels: its images as `decoded_images` returns them, N of (H, W, 3).
        folder: a new folder; one that holds these outputs already is only read.
        forward: from images (b, 3, H, W), uint8, to the output; None calls the teacher on its device.
        embeddings: whether label-wise embeddings are stored too, if the teacher has them.

    Raises:
        ValueError: the folder holds something else, or the outputs of another teacher or on other images.
    """
    image_size = pixels.table.shape[1]

    def write(unfinished: Path) -> None:
        unfinished.mkdir()
        _write_outputs(forward or torch.no_grad()(teacher), data, pixels, embeddings, unfinished)
        description = {
            "classes": list(teacher.classes),
            "image_size": teacher.image_size,
            "settings": teacher.settings,
            "fingerprint": fingerprint(teacher),
            "images_hash": _hash_images(data),
            "evaluated_at": image_size,
            "views": VIEWS,
            "hashes": _hash_outputs(unfinished),
        }
        (unfinished / "teacher.json").write_text(json.dumps(description, indent=1, default=str) + "\n")

    create_once(Path(folder), write)
    cached = CachedTeacher(folder)
    cached.check(data, image_size)
    if cached.fingerprint != fingerprint(teacher):
        raise ValueError(f"{folder}: this folder has the outputs of another teacher; choose a new one.")
    if embeddings and teacher.head.has_embeddings and not cached.has_embeddings:
        raise ValueError(f"{folder}: this folder has the teacher's outputs without embeddings; choose a new one.")
    return cached


def _write_outputs(
    forward: Callable[[Tensor], Output],
    data: MultiLabelData,
    pixels: DecodedImages,
    embeddings: bool,
    folder: Path,
    batch_size: int = 128,
) -> None:
    """Writes the outputs for each image and its flip, one file per kind of output."""
    tables: dict[str, np.memmap] = {}
    title = f"evaluating the teacher on {data.name}"
    for start in tqdm(range(0, len(data), batch_size), title, leave=False, disable=not is_interactive()):
        images = torch.from_numpy(np.array(pixels[start : start + batch_size])).permute(0, 3, 1, 2)
        for view in range(len(VIEWS)):
            output = forward(images.flip(-1) if view else images)
            outputs = {"logits": output.logits}
            if embeddings and output.embeddings is not None:
                outputs["embeddings"] = output.embeddings
            for name, values in outputs.items():
                if name not in tables:
                    shape = (len(VIEWS), len(data), *values.shape[1:])
                    tables[name] = create_memmap(folder / f"{name}.npy", np.float32, shape)
                tables[name][view, start : start + batch_size] = values.float().cpu().numpy()
    for table in tables.values():
        table.flush()


def _hash_images(data: MultiLabelData) -> str:
    """Identifies the images of a split by their ids and their content."""
    return hashlib.sha256(json.dumps(data.ids).encode() + image_hashes(data.images).tobytes()).hexdigest()[:24]


def _hash_outputs(folder: Path) -> dict[str, str]:
    """A hash of each file with outputs, by its name."""
    files = sorted(folder.glob("*.npy"))
    return {path.name: hashed.tobytes().hex() for path, hashed in zip(files, file_hashes(files), strict=True)}


TeacherFunction = Callable[[AugmentedBatch, Tensor], Output]
"""From a step's batch, and its images on the device, to a teacher's output."""


def prepare_teachers(
    accelerator: Accelerator, method: Method, data: MultiLabelData, config: Config, compute_format: ComputeFormat
) -> dict[str, TeacherFunction]:
    """For each teacher of a method, by its role, the function that gives its output at each step.

    Args:
        data: the training split.
        compute_format: of the training; teachers are evaluated in it too.

    Raises:
        ValueError: cached outputs that do not fit the data or the training.
    """
    functions: dict[str, TeacherFunction] = {}
    for role, teacher in method.teachers.items():
        if not isinstance(teacher, CachedTeacher) and config.cache_teacher_outputs and not method.needs_features:
            teacher = _cache_automatically(accelerator, teacher, method, data, config, compute_format)
        if isinstance(teacher, CachedTeacher):
            _check_cached(teacher, method, data, config)
            functions[role] = _cached_function(accelerator, teacher)
        else:
            functions[role] = _live_function(accelerator, teacher, compute_format)
    return functions


def _live_function(accelerator: Accelerator, teacher: nn.Module, compute_format: ComputeFormat) -> TeacherFunction:
    forward = _forward_function(accelerator, teacher, compute_format)
    return lambda _, images: forward(images)


def _cached_function(accelerator: Accelerator, teacher: CachedTeacher) -> TeacherFunction:
    def look_up(augmented: AugmentedBatch, _: Tensor) -> Output:
        sample_indices = augmented.sample_indices[augmented.rank_positions]
        logits, embeddings, features = teacher.lookup(sample_indices, augmented.hflipped)
        device = accelerator.device
        return Output(logits.to(device), None if embeddings is None else embeddings.to(device), features)

    return look_up


def _forward_function(
    accelerator: Accelerator, teacher: nn.Module, compute_format: ComputeFormat
) -> Callable[[Tensor], Output]:
    """The teacher without gradient, in eval mode, in the training's precision."""
    teacher = teacher.to(accelerator.device).to(memory_format=compute_format.layout).eval()

    @torch.no_grad()
    def forward(images: Tensor) -> Output:
        with compute_format.autocast(accelerator.device):
            return teacher(images.to(accelerator.device))

    return forward


def _cache_automatically(
    accelerator: Accelerator,
    teacher: nn.Module,
    method: Method,
    data: MultiLabelData,
    config: Config,
    compute_format: ComputeFormat,
) -> CachedTeacher:
    """The teacher's outputs in the cache folder, evaluated now if they are not there yet."""
    pixels, embeddings = decoded_images(data, config.image_size), method.needs_embeddings
    key = f"{fingerprint(teacher)} {pixels.name} {compute_format.precision} {accelerator.device.type} {embeddings}"
    folder = cache_dir() / "teacher_outputs" / hashlib.sha256(key.encode()).hexdigest()[:24]
    forward = _forward_function(accelerator, teacher, compute_format)
    return cache_teacher_outputs(teacher, data, pixels, folder, forward=forward, embeddings=embeddings)


def _check_cached(teacher: CachedTeacher, method: Method, data: MultiLabelData, config: Config) -> None:
    teacher.check(data, config.image_size)
    if method.needs_features:
        raise ValueError(
            f"The method {method.name!r} compares feature maps, which {teacher.folder} does not have; pass the "
            f"teacher itself."
        )
    if set(config.augmentations) - {"flip"}:
        raise ValueError(
            f"`augmentations` is {list(config.augmentations)}, but {teacher.folder} has the teacher's outputs for each "
            f"image and its horizontal flip only; use augmentations=() or ('flip',), or pass the teacher itself."
        )
