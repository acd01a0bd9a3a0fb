"""From image files to labels and probabilities, for a model of any format. Nothing here imports torch."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mlkd.data.image_cache import resized_image
from mlkd.data.images import ImageFiles
from mlkd.errors import DataError


class ImagePrediction(NamedTuple):
    """A model's prediction for an image file.

    Attributes:
        path: the image file.
        probabilities: (q,) float32, one per class.
        labels: the names of the predicted labels, the most probable first.
    """

    path: Path
    probabilities: np.ndarray
    labels: tuple[str, ...]


class ImagePredictor(ABC):
    """The base class of models that predict the labels of image files.

    Attributes:
        classes: the q label names.
        image_size: side of the input in pixels.
        thresholds: (q,) the probabilities from which on a label is predicted; None for 0.5.
    """

    classes: tuple[str, ...]
    image_size: int
    thresholds: np.ndarray | None

    @abstractmethod
    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Images (b, 3, S, S) uint8, of the model's image size S, to probabilities (b, q) float32."""

    def predict(
        self, paths: Iterable[str | Path], *, threshold: float | None = None, batch_size: int = 32
    ) -> list[ImagePrediction]:
        """The labels of image files.

        Args:
            paths: the image files.
            threshold: the probability from which on a label is predicted, in place of the model's thresholds.
            batch_size: images per forward pass.

        Raises:
            DataError: an image file is missing or broken.
            ValueError: `threshold` is not between 0 and 1.
        """
        predictions = []
        for result in self.iter_predictions(list(paths), threshold=threshold, batch_size=batch_size):
            if isinstance(result, DataError):
                raise result
            predictions.append(result)
        return predictions

    def iter_predictions(
        self, paths: Sequence[str | Path], *, threshold: float | None = None, batch_size: int = 32
    ) -> Iterator[ImagePrediction | DataError]:
        """As `predict`, one image after the other; in place of a missing or broken image there is its error."""
        if threshold is not None and not 0 <= threshold <= 1:
            raise ValueError(f"`threshold` is {threshold}, expected a probability from 0 to 1.")
        limits = np.full(len(self.classes), 0.5) if self.thresholds is None else self.thresholds
        limits = limits if threshold is None else np.full(len(self.classes), threshold)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for start in range(0, len(paths), batch_size):
                batch = [Path(path) for path in paths[start : start + batch_size]]
                images = list(pool.map(self._read, batch))
                pixels = [image for image in images if isinstance(image, np.ndarray)]
                rows = iter(self.probabilities(np.stack(pixels).transpose(0, 3, 1, 2)) if pixels else ())
                for path, image in zip(batch, images, strict=True):
                    yield image if isinstance(image, DataError) else self._prediction(path, next(rows), limits)

    def _read(self, path: Path) -> np.ndarray | DataError:
        """An image at the model's size, uint8 (S, S, 3), as in the training, or the error why it cannot be read."""
        try:
            return resized_image(ImageFiles(path.parent, [path.name]), 0, self.image_size)
        except DataError as error:
            return error

    def _prediction(self, path: Path, probabilities: np.ndarray, thresholds: np.ndarray) -> ImagePrediction:
        order = np.argsort(-probabilities, kind="stable")
        labels = tuple(self.classes[k] for k in order if probabilities[k] >= thresholds[k])
        return ImagePrediction(path, probabilities, labels)
