"""Evaluation: batches of images, eval mode, predictions of a split."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mlkd.data import MultiLabelData
from mlkd.models import MultiLabelModel, model_output
from mlkd.training.evaluate import iter_batches, mean_average_precision, predict
from mlkd.training.runs import Predictions


def test_iter_batches_yields_every_image_once_or_the_given_ones(
    toy_data: dict[str, MultiLabelData], toy_teacher: MultiLabelModel, own_cache
) -> None:
    data = toy_data["val"]
    batches = list(iter_batches(toy_teacher, data, batch_size=16))
    assert [len(indices) for indices, _ in batches] == [16, 16, 8]
    assert np.concatenate([indices for indices, _ in batches]).tolist() == list(range(40))
    ((indices, images),) = iter_batches(toy_teacher, data, [7, 3, 7])
    assert indices.tolist() == [7, 3, 7]
    assert images.dtype == torch.uint8
    assert np.array_equal(images.permute(0, 2, 3, 1).numpy(), data.images[[7, 3, 7]])
    assert list(iter_batches(toy_teacher, data, [])) == []


def test_model_output_restores_the_mode_also_after_an_error(
    toy_teacher: MultiLabelModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy_teacher.train()
    toy_teacher.head.norm1.eval()
    before = [module.training for module in toy_teacher.modules()]
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    logits = model_output(toy_teacher, images).logits
    assert not logits.requires_grad
    assert torch.equal(model_output(toy_teacher, images).logits, logits)
    assert [module.training for module in toy_teacher.modules()] == before

    def fails(*_) -> None:
        raise RuntimeError("in the middle")

    monkeypatch.setattr(toy_teacher.head, "forward", fails)
    with pytest.raises(RuntimeError, match="in the middle"):
        model_output(toy_teacher, images)
    assert [module.training for module in toy_teacher.modules()] == before


def test_iter_batches_resizes_to_the_image_size_of_the_model(
    toy_data: dict[str, MultiLabelData], toy_teacher: MultiLabelModel, own_cache
) -> None:
    toy_teacher.image_size = 20
    ((_, images),) = iter_batches(toy_teacher, toy_data["val"], [0, 1])
    assert images.shape == (2, 3, 20, 20)


def test_predictions_of_a_split_are_in_its_order_and_in_float32(
    toy_data: dict[str, MultiLabelData], toy_teacher: MultiLabelModel, own_cache
) -> None:
    data = toy_data["test"]
    predictions = predict(toy_teacher, data)
    images = torch.from_numpy(np.array(data.images)).permute(0, 3, 1, 2)
    expected = model_output(toy_teacher, images).logits.numpy()
    np.testing.assert_allclose(predictions.logits, expected, rtol=0, atol=1e-5)
    assert predictions.logits.dtype == np.float32
    assert predictions.same_samples(data)


def test_mean_average_precision_ignores_masked_labels_and_classes_without_positives() -> None:
    """The first class has AP 1 without the masked label and 1/2 with it; the second has no positive."""
    targets, logits = np.array([[1, 0], [0, 0], [0, 0]], np.uint8), np.array([[1.0, 0], [2.0, 0], [0.0, 0]], np.float32)
    predictions = Predictions(np.array(["a", "b", "c"]), targets, logits, ("x", "y"))
    assert mean_average_precision(predictions) == pytest.approx(0.5)
    mask = np.array([[False, False], [True, False], [False, False]])
    assert mean_average_precision(predictions._replace(ignore_mask=mask)) == pytest.approx(1.0)
