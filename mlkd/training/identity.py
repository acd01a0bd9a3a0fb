"""The identity of a run: a plain description of the method, the data and the configuration, which names its folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from mlkd.data import MultiLabelData
from mlkd.methods import Method
from mlkd.models import fingerprint, load_model
from mlkd.training.config import Config
from mlkd.training.runs import Run, open_run


def find_run(method: Method, data: Mapping[str, MultiLabelData], config: Config, *, runs: str | Path = "runs") -> Run:
    """The run that `fit` would return for the same arguments: complete, interrupted, or new and empty."""
    return open_run(runs, describe_run(method, data, config))


def describe_run(method: Method, data: Mapping[str, MultiLabelData], config: Config) -> dict[str, Any]:
    """Everything that determines the result of a training, as plain values.

    Data, teachers and weight files are described by hashes of their content, so that a file that changes under the
    same name gives another run.
    """
    description: dict[str, Any] = {
        "method": method.name,
        "settings": method.settings(),
        "data": {
            "name": next(iter(data.values())).name,
            "splits": {name: hash_split(split) for name, split in data.items()},
        },
        "training": config.as_dict(),
    }
    if config.init_from:
        description["init_from"] = fingerprint(load_model(config.init_from))
    if files := _hash_weight_files(config):
        description["files"] = files
    return description


def hash_split(split: MultiLabelData) -> str:
    """A hash of class names, ids, targets, ignored labels and boxes; the image files are not part of it."""
    digest = hashlib.sha256(json.dumps([split.classes, split.ids]).encode())
    digest.update(split.targets.tobytes())
    if split.ignore_mask is not None:
        digest.update(b"ignored" + split.ignore_mask.tobytes())
    for boxes in split.boxes or ():
        digest.update(boxes.tobytes())
    return digest.hexdigest()[:16]


def _hash_weight_files(config: Config) -> dict[str, str]:
    """A hash of each file that the configuration names by its path."""
    settings = {"pretrained": config.pretrained, "word_vectors": config.head_settings.get("word_vectors")}
    paths = {name: Path(path) for name, path in settings.items() if isinstance(path, str | Path)}
    return {name: _hash_file(path, path.stat().st_mtime_ns) for name, path in paths.items() if path.is_file()}


@lru_cache
def _hash_file(path: Path, _modified_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
