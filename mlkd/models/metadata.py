"""What a model file states about its model beside the weights, in every format. Nothing here imports torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field

from mlkd.errors import WeightsError, first_few
from mlkd.settings import Settings

OPENS_FILES = ("pretrained", "checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")
"""Arguments of `create_model` and of timm with which a network reads weights from a file or from the network."""

RESIZE = "to image_size x image_size without keeping the aspect ratio, bilinear with antialiasing (Pillow)"


@dataclass(frozen=True)
class ModelMetadata:
    """Class names, preprocessing and thresholds of a model.

    Attributes:
        classes: the q label names, in the order of the outputs.
        preprocessing: "image_size", "resize" (in words), "mean" and "std" per channel for values in 0..1.
        thresholds: q probabilities from which on a label is predicted; None for 0.5.
    """

    classes: tuple[str, ...]
    preprocessing: dict[str, Any]
    thresholds: tuple[float, ...] | None = None

    def to_texts(self) -> dict[str, str]:
        """The metadata as texts, which every format stores; `from_texts` reads them."""
        texts = {"classes": json.dumps(self.classes), "preprocessing": json.dumps(self.preprocessing)}
        return texts | ({"thresholds": json.dumps(self.thresholds)} if self.thresholds is not None else {})

    @classmethod
    def from_texts(cls, texts: Mapping[str, str], path: str | Path) -> ModelMetadata:
        """The metadata of the model file at `path`.

        Raises:
            WeightsError: the file has no class names, an entry that is not valid, or another number of thresholds.
        """
        try:
            classes = json.loads(texts["classes"])
            preprocessing = dict(json.loads(texts.get("preprocessing", "{}")))
            values = json.loads(texts.get("thresholds", "null"))
            thresholds = None if values is None else tuple(float(value) for value in values)
            if not (isinstance(classes, list) and classes and all(isinstance(name, str) for name in classes)):
                raise TypeError("the class names are not a list of texts")
            if not all(0 <= threshold <= 1 for threshold in thresholds or ()):
                raise ValueError("a threshold is not a probability")
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise WeightsError(f"{path}: has no valid class names, preprocessing and thresholds of mlkd.") from error
        if thresholds is not None and len(thresholds) != len(classes):
            raise WeightsError(f"{path}: has {len(thresholds)} `thresholds` for {len(classes)} classes.")
        return cls(tuple(classes), preprocessing, thresholds)


class SavedSettings(Settings):
    """The settings in a model file; further ones are those of the backbone."""

    title: ClassVar[str] = "its settings"
    model_config = ConfigDict(extra="allow")

    backbone: str
    head: str
    image_size: Annotated[int, Field(ge=1, le=4096)]
    embed_dim: Annotated[int, Field(ge=1, le=65536)] | None = None
    head_settings: dict[str, Any] = Field(default_factory=dict)


def read_settings(texts: Mapping[str, str], path: str | Path) -> dict[str, Any]:
    """The arguments of `create_model` in the model file at `path`. They may come from anybody, and open no other file.

    Raises:
        WeightsError: a setting is missing, is of the wrong kind or would open a file.
    """
    try:
        settings = json.loads(texts["settings"])
        SavedSettings(**settings)
    except (ValueError, TypeError, RecursionError) as error:
        raise WeightsError(f"{path}: its settings are damaged ({str(error).rstrip('.')}).") from error
    files = [name for name in OPENS_FILES if name in settings]
    if isinstance(settings.get("head_settings", {}).get("word_vectors"), str):
        files.append("word_vectors")
    if files:
        raise WeightsError(
            f"{path}: its settings have {first_few(files)}, which would open another file; a model file has all "
            f"weights itself. Write it again with `mlkd.save_model`."
        )
    return settings


def describe_preprocessing(image_size: int, mean: Sequence[float], std: Sequence[float]) -> dict[str, Any]:
    """How an image becomes the input of a network, as `ModelMetadata.preprocessing`."""
    return {"image_size": image_size, "resize": RESIZE, "mean": list(mean), "std": list(std)}


def check_preprocessing(stored: Mapping[str, Any], expected: Mapping[str, Any], path: str | Path) -> None:
    """Raises WeightsError, with each difference, if a model file was written with another preprocessing.

    Files of earlier versions store none and are not compared.
    """
    differences = [
        f"{name} is {stored.get(name)!r} in the file and {expected[name]!r} here"
        for name in expected
        if stored and stored.get(name) != expected[name]
    ]
    if differences:
        raise WeightsError(
            f"{path}: the preprocessing of its model differs from that of this installation: {'; '.join(differences)}. "
            f"Install the version of timm that it was trained with, or the plugin of its backbone."
        )
