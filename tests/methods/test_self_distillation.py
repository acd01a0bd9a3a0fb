"""The self-distillation methods: what they remember, what they weigh, and that a stopped training goes on alike."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from mlkd.data import MultiLabelData
from mlkd.losses.classification import bce
from mlkd.losses.ddgsd import mmd, mutual_kl
from mlkd.losses.dlb import dlb
from mlkd.losses.mulsupcon import mulsupcon
from mlkd.losses.ps_kd import ps_kd
from mlkd.losses.tf_kd import tf_kd
from mlkd.losses.uskd import non_target_loss, target_loss, weak_loss
from mlkd.methods import Batch, create_method
from mlkd.models import MultiLabelModel, Output, create_model
from mlkd.progress import Progress
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
each_reduction = pytest.mark.parametrize("reduction", ["sum", "batchmean"])

Data = Mapping[str, MultiLabelData]


def small(backbone: str = "resnet8_cifar", head: str = "label_wise", **settings) -> MultiLabelModel:
    torch.manual_seed(0)
    settings = settings or {"image_size": 16, "widths": (4, 8, 8)}
    return create_model(backbone, CLASSES, head, embed_dim=8, **settings)


def output(seed: int, b: int = 5) -> Output:
    torch.manual_seed(seed)
    return Output(torch.randn(b, 4).requires_grad_(), None, torch.randn(b, 8, 2, 2).requires_grad_())


def batch_of(rows: list[int], **changes) -> Batch:
    torch.manual_seed(1)
    targets = (torch.rand(len(rows), 4) < 0.5).float()
    ignore_mask = torch.zeros(len(rows), 4, dtype=torch.bool)
    ignore_mask[0, 1] = True
    pictures = torch.rand(len(rows), 3, 16, 16)
    return Batch(pictures, targets, ignore_mask, sample_indices=torch.tensor(rows), **changes)


def close(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    assert list(found) == list(wanted)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, msg=lambda text, name=name: f"{name}: {text}")


class TestSettings:
    def test_the_papers(self) -> None:
        assert create_method("ps-kd").settings()["alpha_T"] == 0.8
        assert {**create_method("dlb").settings(), "alpha": 1.0, "temperature": 3.0} == create_method("dlb").settings()
        assert {**create_method("uskd").settings(), "alpha": 1.0, "beta": 0.1, "mu": 0.005} == create_method(
            "uskd"
        ).settings()
        assert {**create_method("tf-kd").settings(), "alpha": 0.1, "temperature": 20.0} == create_method(
            "tf-kd"
        ).settings()
        assert create_method("mulsupcon").settings()["temperature"] == 0.1

    @each_method
    def test_needs(self, name: str) -> None:
        method = create_method(name)
        assert method.required_teachers == ()
        assert method.needs_overlapping_batches == (name == "dlb")
        assert method.needs_two_views == (name in ("ddgsd", "mulsupcon"))
        method.check(small(head="gap"))

    @each_method
    def test_an_unknown_reduction(self, name: str) -> None:
        student, method, batch = small(), create_method(name, reduction="sun"), batch_of([0, 1, 2])
        batch = batch._replace(model=student, auxiliary=method.build_auxiliary(student, 9), second_view=batch.images)
        with pytest.raises(ValueError, match="`reduction` is 'sun'"):
            method.loss_terms(student(batch.images), batch)


class TestTerms:
    @each_reduction
    def test_tf_kd(self, reduction: str) -> None:
        student, batch = output(0), batch_of([0, 1, 2, 3, 4])
        settings = {"confidence": 0.9, "temperature": 2.0, "soften": "both"}
        found = create_method("tf-kd", alpha=0.3, reduction=reduction, **settings).loss_terms(student, batch)
        hard = bce(student.logits, batch.targets, reduction=reduction, ignore_mask=batch.ignore_mask)
        soft = tf_kd(student.logits, batch.targets, reduction=reduction, **settings)
        close(found, {"bce": 0.7 * hard, "tf_kd": 0.3 * soft})

    @each_reduction
    def test_ps_kd(self, reduction: str) -> None:
        """Two epochs of pictures 0 to 4, of which the first sees all but 4; the third sees what the second said."""
        method = create_method("ps-kd", alpha_T=0.6, reduction=reduction)
        parts = method.build_auxiliary(small(), 7)
        rows = [[0, 1, 2, 3], [3, 1, 4, 2], [1, 4]]
        past = {row: torch.full((4,), torch.nan) for row in range(7)}
        for epoch, seen in enumerate(rows):
            student, batch = output(epoch, len(seen)), batch_of(seen, auxiliary=parts, epoch_fraction=epoch / 3)
            found = method.loss_terms(student, batch)
            wanted = ps_kd(
                student.logits,
                torch.stack([past[row] for row in seen]),
                batch.targets,
                alpha=0.6 * epoch / 3,
                reduction=reduction,
                ignore_mask=batch.ignore_mask,
            )
            close(found, {"ps_kd": wanted})
            past |= {row: student.logits[i].detach() for i, row in enumerate(seen)}
        assert not parts.logits.requires_grad
        assert parts.logits[[5, 6, 0]].isnan().any(dim=1).tolist() == [True, True, False]

    @each_reduction
    def test_dlb(self, reduction: str) -> None:
        """Only what was in the batch just before counts, not what was in one before that."""
        method = create_method("dlb", alpha=0.5, temperature=2.0, reduction=reduction)
        parts = method.build_auxiliary(small(), 9)
        last: dict[int, Tensor] = {}
        unknown = torch.full((4,), torch.nan)
        for step, rows in enumerate([[0, 1, 2, 3], [2, 3, 4, 6], [0, 1, 4, 6], [5, 7, 8, 2], [2]]):
            student, batch = output(step, len(rows)), batch_of(rows, auxiliary=parts)
            found = method.loss_terms(student, batch)
            wanted = dlb(student.logits, torch.stack([last.get(row, unknown) for row in rows]), temperature=2.0)
            weight = 0.5 * len(rows) if reduction == "sum" else 0.5
            hard = bce(student.logits, batch.targets, reduction=reduction, ignore_mask=batch.ignore_mask)
            close(found, {"bce": hard, "dlb": weight * wanted})
            assert (found["dlb"] > 0) == (step in (1, 2, 4))
            last = {row: student.logits[i].detach() for i, row in enumerate(rows)}

    @each_reduction
    def test_ddgsd(self, reduction: str) -> None:
        student, twin = output(0), output(1)
        batch = batch_of([0, 1, 2, 3, 4], model=lambda images: twin if images == "twins" else None, second_view="twins")
        found = create_method("ddgsd", lambda_kl=2.0, lambda_mmd=3.0, reduction=reduction).loss_terms(student, batch)
        hard = [
            bce(o.logits, batch.targets, reduction=reduction, ignore_mask=batch.ignore_mask) for o in (student, twin)
        ]
        moved = mmd(student.features.mean((2, 3)), twin.features.mean((2, 3)))
        wanted = {
            "bce": (hard[0] + hard[1]) / 2,
            "kl": 2 * mutual_kl(student.logits, twin.logits, reduction=reduction),
            "mmd": 3 * moved * (5 if reduction == "sum" else 1),
        }
        close(found, wanted)
        sum(found.values()).backward()
        for tensor in (student.logits, twin.logits, student.features, twin.features):
            assert tensor.grad.abs().sum() > 0

    @each_reduction
    def test_uskd(self, reduction: str) -> None:
        model = small()
        method = create_method("uskd", alpha=2.0, beta=3.0, mu=5.0, reduction=reduction)
        parts = method.build_auxiliary(model, 9)
        batch = batch_of([0, 1, 2, 3, 4], auxiliary=parts)
        student = model(batch.images)
        found = method.loss_terms(student, batch)
        normalised = (batch.images - model.mean) / model.std
        with torch.no_grad():  # the net's three blocks are its three stages
            stage = model.backbone.net.blocks[:2](model.backbone.net.stem(normalised))
            weak = parts.classifier(stage.mean(dim=(2, 3)))
        times = 5 if reduction == "sum" else 1
        wanted = {
            "bce": bce(student.logits, batch.targets, reduction=reduction, ignore_mask=batch.ignore_mask),
            "target": 2 * times * target_loss(student.logits, batch.targets),
            "non_target": 3 * times * non_target_loss(student.logits, weak, batch.targets),
            "weak": 5 * times * weak_loss(weak, batch.targets),
        }
        close(found, wanted)
        found["weak"].backward()
        assert parts.classifier.weight.grad.abs().sum() > 0
        assert model.backbone.net.blocks[0].conv1.weight.grad.abs().sum() > 0
        assert model.backbone.net.blocks[2].conv1.weight.grad is None

    @each_reduction
    def test_mulsupcon(self, reduction: str) -> None:
        student, twin, model = output(0), output(1), small()
        method = create_method("mulsupcon", weight=2.0, temperature=0.5, projection=6, reduction=reduction)
        parts = method.build_auxiliary(model, 9)
        assert parts(torch.zeros(3, 8)).shape == (3, 6)
        batch = batch_of([0, 1, 2, 3, 4], model=lambda images: twin, second_view="twins", auxiliary=parts)
        found = method.loss_terms(student, batch)
        embeddings = parts(torch.cat([o.features.mean((2, 3)) for o in (student, twin)]))
        contrast = mulsupcon(embeddings, batch.targets.repeat(2, 1), temperature=0.5)
        wanted = {
            "bce": bce(student.logits, batch.targets, reduction=reduction, ignore_mask=batch.ignore_mask),
            "mulsupcon": 2 * contrast * (5 if reduction == "sum" else 1),
        }
        close(found, wanted)
        found["mulsupcon"].backward()
        for tensor in (student.features, twin.features, parts[0].weight):
            assert tensor.grad.abs().sum() > 0


NETS = {
    "convolutions": ("test_resnet", {}),
    "swin": ("swin_tiny_patch4_window7_224", {"depths": (1, 1), "num_heads": (1, 2), "window_size": 4}),
    "vit": ("test_vit", {}),
}


class TestWeakClassifier:
    @pytest.mark.parametrize("net", NETS)
    def test_layouts(self, net: str) -> None:
        name, settings = NETS[net]
        model = create_model(name, CLASSES, "gap", image_size=64, **settings)
        parts = create_method("uskd").parts(model, 9)
        model(torch.rand(2, 3, 64, 64))
        weak = parts()
        assert weak.shape == (2, 4)
        weak.sum().backward()
        assert parts.classifier.weight.grad.abs().sum() > 0

    def test_only_the_classifier_is_trained_beside_the_student(self) -> None:
        parts = create_method("uskd").parts(small(), 9)
        assert set(parts.state_dict()) == {"classifier.weight", "classifier.bias"}
        assert not list(parts.buffers())

    def test_a_call_in_eval_mode_is_not_kept(self) -> None:
        model = small()
        parts = create_method("uskd").parts(model, 9)
        images = torch.rand(3, 3, 16, 16)
        model(images)
        model.eval()(images[:1])
        assert parts().shape == (3, 4)

    def test_nothing_is_kept_once_classified(self) -> None:
        model = small()
        parts = create_method("uskd").parts(model, 9)
        model(torch.rand(3, 3, 16, 16))
        parts()
        assert parts.kept is None
        with pytest.raises(AssertionError, match="not called"):
            parts()

    def test_functional_call(self) -> None:
        """Other weights, the same modules: what they give is kept."""
        model = small()
        parts = create_method("uskd").parts(model, 9)
        images = torch.rand(3, 3, 16, 16)
        model(images)
        own = parts()
        weights = {name: 2 * value for name, value in model.named_parameters()}
        torch.func.functional_call(model, weights, (images,))
        other = parts()
        assert other.shape == own.shape
        assert not torch.allclose(other, own)

    def test_a_copy_of_the_student_does_not_mix(self) -> None:
        model = small()
        parts = create_method("uskd").parts(model, 9)
        twin = copy.deepcopy(model)
        images = torch.rand(3, 3, 16, 16)
        model(images)
        twin(images[:2])
        assert parts().shape == (3, 4)

    def test_a_net_without_stages(self) -> None:
        model = small()
        del model.backbone.net.feature_info
        with pytest.raises(ValueError, match="`backbone` is a CifarResNet, which does not list its stages"):
            create_method("uskd").parts(model, 9)

    def test_a_net_of_several_branches(self) -> None:
        model = create_model("hrnet_w18_small", CLASSES, "gap", image_size=32, pretrained=False)
        create_method("uskd").parts(model, 9)
        with pytest.raises(ValueError, match="last stage but one of the student's `backbone` gives 3 outputs"):
            model(torch.rand(2, 3, 32, 32))


# Whole trainings


def stopped(method, data: Data, config: Config, runs: Path, step: int) -> None:
    """A training that ends at a step as if Ctrl-C had been pressed."""
    original, calls = Progress.step, [0]

    def stopping(*args, **kwargs):
        calls[0] += 1
        if calls[0] == step:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(Progress, "step", stopping)
        with pytest.raises(KeyboardInterrupt):
            fit(method, data, config, runs=runs)
    (run,) = iter_runs(runs)
    assert not run.complete
    assert len(run.history) == 1


def losses(run: Run) -> np.ndarray:
    return run.history.drop(columns=["seconds", "images_per_second"]).to_numpy()


@each_method
def test_it_trains_and_goes_on_as_if_it_had_not_stopped(
    name: str, toy_data: Data, toy_config: Config, tmp_path: Path
) -> None:
    config = toy_config.replace(epochs=2, batch_size=8, augmentations=("flip", "cutout"))
    data = {split: pictures.subset(np.arange(32)) for split, pictures in toy_data.items()}
    whole = fit(create_method(name), data, config, runs=tmp_path / "whole")
    history = whole.history
    assert list(history.columns)[2:-3] == TERMS[name]
    falls = history["bce"] if name == "dlb" else history[TERMS[name]].sum(axis=1)
    assert falls.iloc[-1] < falls.iloc[0]

    steps = 7 if name == "dlb" else 4  # an epoch's, of 32 pictures in batches of 8
    stopped(create_method(name), data, config, tmp_path / "stopped", steps + 2)
    run = fit(create_method(name), data, config, runs=tmp_path / "stopped")
    assert np.array_equal(losses(run), losses(whole))
    mine, its = (load_file(r.path / "model.safetensors") for r in (run, whole))
    assert mine.keys() == its.keys()  # the student's alone
    assert all(torch.equal(mine[key], its[key]) for key in mine)


@pytest.mark.parametrize("name", ["ps-kd", "uskd", "mulsupcon"])
def test_mixed_precision(name: str, toy_data: Data, toy_config: Config, tmp_path: Path) -> None:
    data = {split: pictures.subset(np.arange(32)) for split, pictures in toy_data.items()}
    run = fit(create_method(name), data, toy_config.replace(epochs=2, precision="bf16"), runs=tmp_path)
    assert np.isfinite(run.history[TERMS[name]].to_numpy()).all()
