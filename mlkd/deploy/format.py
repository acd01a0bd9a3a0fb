"""Predictions as a table, as JSON and as comma-separated values."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence

from mlkd.models.image_predictor import ImagePrediction


def to_table(predictions: Sequence[ImagePrediction], classes: Sequence[str], top: int = 0) -> str:
    """One line per image with its labels and their probabilities, the most probable first.

    Args:
        predictions: of a model with these classes.
        classes: the q label names.
        top: list that many labels of each image, predicted or not; 0 for those that are predicted.
    """
    width = max([len("image"), *(len(str(prediction.path)) for prediction in predictions)])
    lines = [f"{'image':{width}}  labels"]
    for prediction in predictions:
        probabilities = dict(zip(classes, prediction.probabilities.tolist(), strict=True))
        labels = ", ".join(f"{name} {probabilities[name]:.2f}" for name in _labels(prediction, classes, top))
        lines.append(f"{prediction.path!s:{width}}  {labels or '-'}")
    return "\n".join(lines)


def to_json(predictions: Sequence[ImagePrediction], classes: Sequence[str], top: int = 0) -> str:
    """A list of objects with `image`, `labels` (as in `to_table`) and `probabilities` by class name."""
    rows = [
        {
            "image": str(prediction.path),
            "labels": list(_labels(prediction, classes, top)),
            "probabilities": dict(zip(classes, _rounded(prediction), strict=True)),
        }
        for prediction in predictions
    ]
    return json.dumps(rows, indent=1, ensure_ascii=False)


def to_csv(predictions: Sequence[ImagePrediction], classes: Sequence[str], top: int = 0) -> str:
    """The columns `image`, `labels` (as in `to_table`, separated by `|`) and the probability of each class."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "labels", *classes])
    for prediction in predictions:
        writer.writerow([prediction.path, "|".join(_labels(prediction, classes, top)), *_rounded(prediction)])
    return text.getvalue()


def _labels(prediction: ImagePrediction, classes: Sequence[str], top: int) -> Sequence[str]:
    if not top:
        return prediction.labels
    return [classes[k] for k in (-prediction.probabilities).argsort(kind="stable")[:top]]


def _rounded(prediction: ImagePrediction) -> list[float]:
    return [round(value, 6) for value in prediction.probabilities.tolist()]
