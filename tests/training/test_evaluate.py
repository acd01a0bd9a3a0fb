"""Asking a finished model: in batches, in evaluation mode, which it leaves again."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mlkd.data import MultiLabelData
from mlkd.models import MultiLabelModel
from mlkd.training.evaluate import answer, batches


def test_every_picture_once_or_the_ones_asked_for(
    toy_data: dict[str, MultiLabelData], toy_teacher: MultiLabelModel, own_cache
) -> None:
    data = toy_data["val"]
    found = list(batches(toy_teacher, data, batch=16))
    assert [len(rows) for rows, _ in found] == [16, 16, 8]
    assert np.concatenate([rows for rows, _ in found]).tolist() == list(range(40))
    ((rows, images),) = batches(toy_teacher, data, [7, 3, 7])
    assert rows.tolist() == [7, 3, 7]
    assert images.dtype == torch.uint8
    assert np.array_equal(images.permute(0, 2, 3, 1).numpy(), data.images[[7, 3, 7]])
    assert list(batches(toy_teacher, data, [])) == []


def test_the_mode_is_as_before_also_after_an_error(
    toy_teacher: MultiLabelModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy_teacher.train()
    toy_teacher.head.norm1.eval()
    before = [module.training for module in toy_teacher.modules()]
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    said = answer(toy_teacher, images).logits
    assert not said.requires_grad
    assert torch.equal(answer(toy_teacher, images).logits, said)
    assert [module.training for module in toy_teacher.modules()] == before

    def fails(*_) -> None:
        raise RuntimeError("in the middle")

    monkeypatch.setattr(toy_teacher.head, "forward", fails)
    with pytest.raises(RuntimeError, match="in the middle"):
        answer(toy_teacher, images)
    assert [module.training for module in toy_teacher.modules()] == before
