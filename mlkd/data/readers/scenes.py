"""The synthetic `scenes` data set, written into the cache on first use."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mlkd import scenes
from mlkd.data.dataset import MultiLabelData
from mlkd.data.readers import register_reader, voc
from mlkd.files import cache_dir, create_once
from mlkd.progress import is_interactive


@register_reader("scenes")
def read(*, size: int = 96, seed: int = 0) -> dict[str, MultiLabelData]:
    """Reads the synthetic data set of `mlkd.scenes`, with the additional split "context_shift".

    Args:
        size: width and height of the images in pixels, at least 16.
        seed: another seed gives another data set.
    """
    splits = voc.read(cached_folder(seed, size), classes=scenes.CLASSES)
    return {split: replace(data, name="scenes") for split, data in splits.items()}


def cached_folder(seed: int, size: int) -> Path:
    """The data set's VOC folder in the cache; it is written if it is absent."""
    root = cache_dir().expanduser().absolute() / f"scenes-v{scenes.VERSION}-s{seed}-{size}"
    create_once(root, lambda unfinished: scenes.write(unfinished, seed, size, progress=is_interactive()))
    return root
