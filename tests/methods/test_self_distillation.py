"""The self-distillation methods: their terms and what they keep between steps, and trainings with them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from interruption import interrupt
from safetensors.torch import load_file
from torch import Tensor

from mlkd.data import MultiLabelData
from mlkd.losses import (
    bce,
    dlb_loss,
    mmd,
    mulsupcon_loss,
    mutual_kl,
    non_target_loss,
    ps_kd_loss,
    target_loss,
    tf_kd_loss,
    weak_loss,
)
from mlkd.methods import Batch, create_method
from mlkd.models import MultiLabelModel, Output, create_model
from mlkd.training.config import Config
from mlkd.training.loop import fit
from mlkd.training.runs import Run, iter_runs

CLASSES = ("a", "b", "c", "d")
TERMS = {
    "tf-kd": ["bce", "tf_kd"],
    "ps-kd": ["ps_kd"],
    "dlb": ["bce", "dlb"],
    "ddgsd": ["bce", "kl", "mmd"],
    "uskd": ["bce", "target", "non_target", "weak"],
    "mulsupcon": ["bce", "mulsupcon"],
}
each_method = pytest.mark.parametrize("name", TERMS)

Data = Mapping[str, MultiLabelData]


def small(head: str = "label_wise") -> MultiLabelModel:
    torch.manual_seed(0)
    return create_model("resnet8_cifar", CLASSES, head, embed_dim=8, image_size=16, widths=(4, 8, 8))


def output(seed: int, b: int = 5) -> Output:
    torch.manual_seed(seed)
    return Output(torch.randn(b, 4).requires_grad_(), None, torch.randn(b, 8, 2, 2).requires_grad_())


def batch_of(rows: list[int], **changes) -> Batch:
    torch.manual_seed(1)
    targets = (torch.rand(len(rows), 4) < 0.5).float()
    ignore_mask = torch.zeros(len(rows), 4, dtype=torch.bool)
    ignore_mask[0, 1] = True
    images = torch.rand(len(rows), 3, 16, 16)
    return Batch(images, targets, ignore_mask, sample_indices=torch.tensor(rows), **changes)


def assert_close(terms: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert list(terms) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, msg=lambda text, name=name: f"{name}: {text}")


class TestSettings:
    def test_defaults_are_the_papers(self) -> None:
        defaults = {
            "ps-kd": {"alpha_T": 0.8},
            "dlb": {"lambda_dlb": 1.0, "temperature": 3.0},
            "uskd": {"lambda_target": 1.0, "lambda_non_target": 0.1, "lambda_weak": 0.005},
            "tf-kd": {"alpha": 0.1, "confidence": 0.99, "temperature": 20.0, "soften": "teacher"},
            "ddgsd": {"lambda_kl": 1.0, "lambda_mmd": 5e-4},
            "mulsupcon": {"lambda_mulsupcon": 1.0, "temperature": 0.1, "projection_dim": 256},
        }
        for name, settings in defaults.items():
            reduction = "sum" if name in ("ps-kd", "tf-kd") else "batchmean"
            method = create_method(name)
            assert {key: method.settings()[key] for key in settings} == settings
            assert method.reduction == reduction

    @each_method
    def test_requirements(self, name: str) -> None:
        method = create_method(name)
        assert method.required_teachers == ()
        assert method.needs_overlapping_batches == (name == "dlb")
        assert method.needs_two_views == (name in ("ddgsd", "mulsupcon"))
        assert method.check(small(head="gap")) is None


class TestTerms:
    def test_tf_kd(self) -> None:
        student, batch = output(0), batch_of([0, 1, 2, 3, 4])
        settings = {"confidence": 0.9, "temperature": 2.0, "soften": "both"}
        terms = create_method("tf-kd", alpha=0.3, **settings).loss_terms(student, batch)
        hard = bce(student.logits, batch.targets, reduction="sum", ignore_mask=batch.ignore_mask)
        soft = tf_kd_loss(student.logits, batch.targets, reduction="sum", **settings)
        assert_close(terms, {"bce": 0.7 * hard, "tf_kd": 0.3 * soft})

    def test_ps_kd(self) -> None:
        """Three epochs of images 0 to 4; the targets are mixed with the logits of the previous one."""
        method = create_method("ps-kd", alpha_T=0.6)
        auxiliary = method.build_auxiliary(small(), 7)
        rows = [[0, 1, 2, 3], [3, 1, 4, 2], [1, 4]]
        past = {row: torch.full((4,), torch.nan) for row in range(7)}
        for epoch, seen in enumerate(rows):
            student, batch = output(epoch, len(seen)), batch_of(seen, auxiliary=auxiliary, epoch_fraction=epoch / 3)
            terms = method.loss_terms(student, batch)
            expected = ps_kd_loss(
                student.logits,
                torch.stack([past[row] for row in seen]),
                batch.targets,
                alpha=0.6 * epoch / 3,
                reduction="sum",
                ignore_mask=batch.ignore_mask,
            )
            assert_close(terms, {"ps_kd": expected})
            past |= {row: student.logits[i].detach() for i, row in enumerate(seen)}
        assert not auxiliary.logits.requires_grad
        assert auxiliary.logits[[5, 6, 0]].isnan().any(dim=1).tolist() == [True, True, False]

    def test_dlb(self) -> None:
        """Only the images of the last batch are compared, not those of earlier ones."""
        method = create_method("dlb", lambda_dlb=0.5, temperature=2.0)
        auxiliary = method.build_auxiliary(small(), 9)
        last: dict[int, Tensor] = {}
        unknown = torch.full((4,), torch.nan)
        for step, rows in enumerate([[0, 1, 2, 3], [2, 3, 4, 6], [0, 1, 4, 6], [5, 7, 8, 2], [2]]):
            student, batch = output(step, len(rows)), batch_of(rows, auxiliary=auxiliary)
            terms = method.loss_terms(student, batch)
            expected = dlb_loss(student.logits, torch.stack([last.get(row, unknown) for row in rows]), temperature=2.0)
            hard = bce(student.logits, batch.targets, reduction="batchmean", ignore_mask=batch.ignore_mask)
            assert_close(terms, {"bce": hard, "dlb": 0.5 * expected})
            assert (terms["dlb"] > 0) == (step in (1, 2, 4))
            last = {row: student.logits[i].detach() for i, row in enumerate(rows)}

    def test_ddgsd(self) -> None:
        student, second = output(0), output(1)
        batch = batch_of([0, 1, 2, 3, 4], model=lambda images: second if images == "view" else None, second_view="view")
        terms = create_method("ddgsd", lambda_kl=2.0, lambda_mmd=3.0).loss_terms(student, batch)
        hard = [
            bce(o.logits, batch.targets, reduction="batchmean", ignore_mask=batch.ignore_mask)
            for o in (student, second)
        ]
        discrepancy = mmd(student.features.mean((2, 3)), second.features.mean((2, 3)))
        expected = {
            "bce": (hard[0] + hard[1]) / 2,
            "kl": 2 * mutual_kl(student.logits, second.logits, reduction="batchmean"),
            "mmd": 3 * discrepancy,
        }
        assert_close(terms, expected)
        sum(terms.values()).backward()
        for tensor in (student.logits, second.logits, student.features, second.features):
            assert tensor.grad.abs().sum() > 0

    def test_uskd(self) -> None:
        model = small()
        weights = {"lambda_target": 2.0, "lambda_non_target": 3.0, "lambda_weak": 5.0}
        method = create_method("uskd", **weights)
        auxiliary = method.build_auxiliary(model, 9)
        batch = batch_of([0, 1, 2, 3, 4], auxiliary=auxiliary)
        student = model(batch.images)
        terms = method.loss_terms(student, batch)
        normalized = (batch.images - model.mean) / model.std
        with torch.no_grad():  # the three blocks are the three stages
            stage = model.backbone.net.blocks[:2](model.backbone.net.stem(normalized))
            weak = auxiliary.classifier(stage.mean(dim=(2, 3)))
        expected = {
            "bce": bce(student.logits, batch.targets, reduction="batchmean", ignore_mask=batch.ignore_mask),
            "target": 2 * target_loss(student.logits, batch.targets),
            "non_target": 3 * non_target_loss(student.logits, weak, batch.targets),
            "weak": 5 * weak_loss(weak, batch.targets),
        }
        assert_close(terms, expected)
        terms["weak"].backward()
        assert auxiliary.classifier.weight.grad.abs().sum() > 0
        assert model.backbone.net.blocks[0].conv1.weight.grad.abs().sum() > 0
        assert model.backbone.net.blocks[2].conv1.weight.grad is None

    def test_mulsupcon(self) -> None:
        student, second, model = output(0), output(1), small()
        settings = {"lambda_mulsupcon": 2.0, "temperature": 0.5, "projection_dim": 6}
        method = create_method("mulsupcon", **settings)
        auxiliary = method.build_auxiliary(model, 9)
        assert auxiliary(torch.zeros(3, 8)).shape == (3, 6)
        batch = batch_of([0, 1, 2, 3, 4], model=lambda images: second, second_view="view", auxiliary=auxiliary)
        terms = method.loss_terms(student, batch)
        embeddings = auxiliary(torch.cat([o.features.mean((2, 3)) for o in (student, second)]))
        contrast = mulsupcon_loss(embeddings, batch.targets.repeat(2, 1), temperature=0.5)
        expected = {
            "bce": bce(student.logits, batch.targets, reduction="batchmean", ignore_mask=batch.ignore_mask),
            "mulsupcon": 2 * contrast,
        }
        assert_close(terms, expected)
        terms["mulsupcon"].backward()
        for tensor in (student.features, second.features, auxiliary[0].weight):
            assert tensor.grad.abs().sum() > 0


# Trainings


def losses(run: Run) -> np.ndarray:
    return run.history.drop(columns=["seconds", "images_per_second"]).to_numpy()


@each_method
def test_resumed_training_is_bit_identical(name: str, toy_data: Data, toy_config: Config, tmp_path: Path) -> None:
    config = toy_config.replace(epochs=2, batch_size=8, augmentations=("flip", "cutout"))
    data = {name: split.subset(np.arange(32)) for name, split in toy_data.items()}
    uninterrupted = fit(create_method(name), data, config, runs=tmp_path / "uninterrupted")
    history = uninterrupted.history
    assert list(history.columns)[2 : list(history.columns).index("val_mAP")] == TERMS[name]
    loss = history["bce"] if name == "dlb" else history[TERMS[name]].sum(axis=1)
    assert loss.iloc[-1] < loss.iloc[0]

    steps = 7 if name == "dlb" else 4  # per epoch, of 32 images in batches of 8
    with interrupt(steps + 2):
        fit(create_method(name), data, config, runs=tmp_path / "interrupted")
    (run,) = iter_runs(tmp_path / "interrupted")
    assert not run.complete
    assert len(run.history) == 1
    resumed = fit(create_method(name), data, config, runs=tmp_path / "interrupted")
    assert np.array_equal(losses(resumed), losses(uninterrupted))
    weights = [load_file(run.path / "model.safetensors") for run in (resumed, uninterrupted)]
    assert weights[0].keys() == weights[1].keys() == resumed.model().state_dict().keys()
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())


@pytest.mark.parametrize("name", ["ps-kd", "uskd", "mulsupcon"])
def test_mixed_precision(name: str, toy_data: Data, toy_config: Config, tmp_path: Path) -> None:
    data = {name: split.subset(np.arange(32)) for name, split in toy_data.items()}
    run = fit(create_method(name), data, toy_config.replace(epochs=2, precision="bf16"), runs=tmp_path)
    assert np.isfinite(run.history[TERMS[name]].to_numpy()).all()
