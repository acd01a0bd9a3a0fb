"""Predictions for image files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlkd.data import ImageFiles, MultiLabelData
from mlkd.errors import DataError
from mlkd.models.image_predictor import ImagePredictor
from mlkd.models.model import MultiLabelModel
from mlkd.training.evaluate import predict


class MeanColor(ImagePredictor):
    """The probability of each color is its mean in the image."""

    classes = ("red", "green", "blue")
    image_size = 4
    thresholds = None

    def __init__(self) -> None:
        self.batches: list[int] = []

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        assert images.dtype == np.uint8
        assert images.shape[1:] == (3, 4, 4)
        self.batches.append(len(images))
        return images.mean(axis=(2, 3), dtype=np.float32) / 255


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    colors = [(255, 0, 130), (10, 250, 0), (0, 0, 0)]
    for k, color in enumerate(colors):
        Image.new("RGB", (9, 7), color).save(tmp_path / f"{k}.png")
    return [tmp_path / f"{k}.png" for k in range(len(colors))]


def test_labels_from_the_most_probable_on(files: list[Path]) -> None:
    predictions = MeanColor().predict(map(str, files))
    assert [prediction.labels for prediction in predictions] == [("red", "blue"), ("green",), ()]
    assert [prediction.path for prediction in predictions] == files
    assert np.allclose(predictions[0].probabilities, [1, 0, 130 / 255])


def test_thresholds_per_class_and_one_for_all(files: list[Path]) -> None:
    model = MeanColor()
    model.thresholds = np.array([1.0, 0.99, 0.0])
    assert [prediction.labels for prediction in model.predict(files)] == [("red", "blue"), ("blue",), ("blue",)]
    labels = [prediction.labels for prediction in model.predict(files, threshold=0.03)]
    assert labels == [("red", "blue"), ("green", "red"), ()]
    with pytest.raises(ValueError, match=r"`threshold` is 1\.5, expected a probability from 0 to 1"):
        model.predict(files, threshold=1.5)


def test_batches(files: list[Path]) -> None:
    model = MeanColor()
    model.predict(files, batch_size=2)
    assert model.batches == [2, 1]
    assert model.predict([]) == []


def test_a_broken_image_is_named(files: list[Path], tmp_path: Path) -> None:
    files[1].write_bytes(files[1].read_bytes()[:40])
    model = MeanColor()
    with pytest.raises(DataError, match=r"1\.png: the file is truncated, broken or not an image"):
        model.predict(files)
    first, second, third, fourth = model.iter_predictions([*files, tmp_path / "absent.png"], batch_size=2)
    assert (first.labels, third.labels) == (("red", "blue"), ())
    assert "1.png" in str(second)
    assert "absent.png: no such file" in str(fourth)


def test_a_batch_of_broken_images_is_not_evaluated(tmp_path: Path) -> None:
    model = MeanColor()
    (result,) = model.iter_predictions([tmp_path / "absent.png"])
    assert isinstance(result, DataError)
    assert model.batches == []


@pytest.mark.usefixtures("own_cache")
def test_image_files_give_the_predictions_of_a_split(toy_teacher: MultiLabelModel, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for k in range(3):
        Image.fromarray(rng.integers(0, 256, (70, 90, 3), dtype=np.uint8)).save(tmp_path / f"{k}.jpg")
    names = [f"{k}.jpg" for k in range(3)]
    targets = np.ones((3, 4), np.uint8)
    split = MultiLabelData("toy", "test", ImageFiles(tmp_path, names), targets, toy_teacher.classes, tuple(names))
    logits = predict(toy_teacher, split).logits
    predictions = toy_teacher.predict([tmp_path / name for name in names])
    probabilities = np.stack([prediction.probabilities for prediction in predictions])
    assert np.allclose(probabilities, 1 / (1 + np.exp(-logits)), atol=1e-6)
