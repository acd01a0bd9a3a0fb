"""What a model file states about its model beside the weights, in every format. Nothing here imports torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlkd.errors import WeightsError

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
            classes = tuple(json.loads(texts["classes"]))
            preprocessing = dict(json.loads(texts.get("preprocessing", "{}")))
            values = json.loads(texts.get("thresholds", "null"))
            thresholds = None if values is None else tuple(float(value) for value in values)
        except (KeyError, TypeError, ValueError) as error:
            raise WeightsError(f"{path}: has no valid class names, preprocessing and thresholds of mlkd.") from error
        if thresholds is not None and len(thresholds) != len(classes):
            raise WeightsError(f"{path}: has {len(thresholds)} `thresholds` for {len(classes)} classes.")
        return cls(classes, preprocessing, thresholds)


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
