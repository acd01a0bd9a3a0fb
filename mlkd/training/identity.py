"""The identity of a run: a plain description of the method, the data, the configuration and the version of the code
that trains, which names its folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlkd.data import MultiLabelData
from mlkd.data.file_hashes import file_hashes, image_hashes
from mlkd.methods import Method
from mlkd.models import fingerprint, load_model
from mlkd.training.config import Config
from mlkd.training.runs import Run, open_run

VERSION = 1
"""Of the code that trains: increase it with every change after which the same training gives other weights.

A change of one method increases `Method.version` of that method."""


def find_run(method: Method, data: Mapping[str, MultiLabelData], config: Config, *, runs: str | Path = "runs") -> Run:
    """The run that `fit` would return for the same arguments: complete, interrupted, or new and empty."""
    return open_run(runs, describe_run(method, data, config))


def describe_run(method: Method, data: Mapping[str, MultiLabelData], config: Config) -> dict[str, Any]:
    """Everything that determines the result of a training, as plain values.

    Images, labels, teachers and weight files are described by hashes of their content, wherever the files are, so that
    a file that changes under the same name gives another run.
    """
    return {
        "method": method.name,
        "settings": method.settings(),
        "data": {
            "name": next(iter(data.values())).name,
            "splits": {name: hash_split(split) for name, split in data.items()},
        },
        "training": _hash_files(config),
        "version": [VERSION, method.version],
    }


def hash_split(split: MultiLabelData) -> str:
    """A hash of class names, ids, targets, ignored labels and boxes; the image files are not part of it."""
    digest = hashlib.sha256(json.dumps([split.classes, split.ids]).encode())
    digest.update(image_hashes(split.images).tobytes())
    digest.update(split.targets.tobytes())
    if split.ignore_mask is not None:
        digest.update(b"ignored" + split.ignore_mask.tobytes())
    for boxes in split.boxes or ():
        digest.update(boxes.tobytes())
    return digest.hexdigest()[:16]


def _hash_files(config: Config) -> dict[str, Any]:
    """The settings as plain values, with hashes in place of the paths of weight files."""
    settings = config.as_dict()
    if config.init_from:
        settings["init_from"] = fingerprint(load_model(config.init_from))
    for section, name in ((settings, "pretrained"), (settings["head_settings"], "word_vectors")):
        path = section.get(name)
        if isinstance(path, str) and Path(path).is_file():
            section[name] = file_hashes([Path(path)]).tobytes().hex()[:16]
    return settings
