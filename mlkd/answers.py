"""What a teacher says of the training pictures, asked once and kept: for augmentations with few fixed views."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from mlkd.data.pixels import Pixels
from mlkd.files import cache_folder, made_once, new_map
from mlkd.models import Output, fingerprint
from mlkd.progress import watched


class Answers:
    """A teacher's logits, and label-wise embeddings if wanted, for every training picture and its mirror image.

    They stand in a file of the cache folder, named after the teacher's weights and classes, the pictures and the
    precision, so whoever asks for the same again reads it. N pictures of q labels take 8 * N * q bytes, or with
    embeddings of width d 8 * N * q * (1 + d), and as much memory as is in use.

    Args:
        ask: from pictures (b, 3, H, W), uint8, to the teacher's output.
        teacher: for its name.
        pixels: the pictures as `decoded` gives them, N of (H, W, 3).
        precision: of `ask`, for the name.
        embeddings: whether to keep them too.
    """

    def __init__(
        self,
        ask: Callable[[Tensor], Output],
        teacher: Any,
        pixels: Pixels,
        precision: str,
        embeddings: bool = False,
    ):
        key = f"{fingerprint(teacher)} {pixels.name} {precision} {embeddings}"
        path = cache_folder() / "answers" / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.npy"
        made_once(path, lambda unfinished: _ask(ask, pixels, embeddings, unfinished))
        self.table = np.load(path, mmap_mode="r")

    def __call__(self, images: Tensor, rows: np.ndarray, mirrored: Tensor) -> Output:
        """The answers to these rows' pictures, mirrored or not; their features are not kept."""
        found = torch.from_numpy(self.table[mirrored.long().numpy(), rows]).to(images.device)
        embeddings = found[..., 1:] if found.shape[2] > 1 else None
        nothing: Any = None  # so that a method that reads them without `needs_features` fails at once
        return Output(found[..., 0], embeddings, nothing)


def _ask(ask: Callable[[Tensor], Output], pixels: Pixels, embeddings: bool, path: Path, batch: int = 128) -> None:
    """Writes (2, N, q, 1 or 1 + d) float32: of each picture and its mirror image, each label's logit and embedding."""
    table = None
    for start in tqdm(range(0, len(pixels), batch), "asking the teacher", leave=False, disable=not watched()):
        images = torch.from_numpy(np.array(pixels[start : start + batch])).permute(0, 3, 1, 2)
        for mirrored in (0, 1):
            output = ask(images.flip(-1) if mirrored else images)
            said = output.logits[..., None]
            if embeddings and output.embeddings is not None:
                said = torch.cat([said, output.embeddings], dim=2)
            if table is None:
                table = new_map(path, np.float32, (2, len(pixels), *said.shape[1:]))
            table[mirrored, start : start + batch] = said.cpu().numpy()
    if table is not None:
        table.flush()
