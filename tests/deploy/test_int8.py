"""Models in int8."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mlkd.deploy import int8
from mlkd.deploy.int8 import Int8Result, export_int8
from mlkd.deploy.load import load_run_model
from mlkd.deploy.onnx_model import OnnxModel
from mlkd.metrics import average_precision, tune_thresholds
from mlkd.study import Study
from mlkd.training.runs import Run


@pytest.fixture(scope="module", autouse=True)
def one_export(onnx_file: Path) -> Iterator[None]:
    """Copies the exported model in float32 in place of exporting it again, which takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(int8, "save_onnx", lambda model, path, **notes: shutil.copy(onnx_file, path))
        yield


@pytest.fixture(scope="module")
def exported(toy_run: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Int8Result]:
    file = tmp_path_factory.mktemp("int8") / "student-int8.onnx"
    return file, export_int8(toy_run, file, max_loss=100, calibration_images=48)


def test_the_result_is_the_change_of_map(exported: tuple[Path, Int8Result], toy_study: Study, toy_run: Run) -> None:
    file, result = exported
    assert (result.split, result.calibration_images) == ("val", 48)
    assert result.float32 == pytest.approx(toy_run.mean_ap["val"], abs=1e-6)
    val = toy_study.splits["val"]
    model = OnnxModel(file)
    logits = model.logits(np.stack([val.images[k] for k in range(len(val))]).transpose(0, 3, 1, 2))
    assert result.int8 == pytest.approx(np.nanmean(average_precision(val.targets, logits)))
    assert result.loss == pytest.approx(100 * (result.float32 - result.int8))
    assert json.loads(model.texts["int8"]) == result._asdict()
    tuned = 1 / (1 + np.exp(-tune_thresholds(val.targets, logits)))
    assert np.allclose(model.thresholds, tuned, atol=1e-4)


def test_the_outputs_are_near_those_in_float32_and_the_file_has_8_bit_weights(
    exported: tuple[Path, Int8Result], toy_run: Run
) -> None:
    import onnx

    file, _ = exported
    images = np.random.default_rng(0).integers(90, 150, (8, 3, 32, 32), dtype=np.uint8)
    difference = np.abs(OnnxModel(file).probabilities(images) - load_run_model(toy_run).probabilities(images))
    assert 0 < difference.max() < 0.1
    kinds = {
        tensor.data_type for tensor in onnx.load(file).graph.initializer if len(tensor.dims) == 4 and tensor.dims[0] > 1
    }
    assert kinds == {onnx.TensorProto.INT8}  # the convolutions
    card = file.with_name(f"{file.name}.md").read_text()
    assert "calibrated on 48 training images" in card


def test_a_larger_loss_than_accepted_is_refused(toy_run: Run, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"not written, since int8 lowers the mAP on val from .* by more than"):
        export_int8(toy_run, tmp_path / "student.onnx", max_loss=-100, calibration_images=2)
    assert list(tmp_path.iterdir()) == []


def test_other_data_than_the_run_is_an_error(toy_study: Study, toy_run: Run, tmp_path: Path) -> None:
    from toy import TOY_SPLITS

    splits = toy_study.splits
    TOY_SPLITS["other"] = {**splits, "train": splits["train"].subset(range(10, 64))}
    with pytest.raises(ValueError, match=r"the data is not that of the run.*: train is [0-9a-f]{16} here and") as e:
        export_int8(toy_run, tmp_path / "student.onnx", data="toy:other")
    assert "val is" not in str(e.value)


def test_only_onnx(toy_run: Run) -> None:
    with pytest.raises(ValueError, match=r"expected a name that ends in \.onnx: int8 exists for ONNX only"):
        export_int8(toy_run, "student.pt2")
