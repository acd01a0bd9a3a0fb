"""MSKD: its settings, terms and previous weights, and trainings with it."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from interruption import interrupt
from safetensors.torch import load_file
from torch import Tensor
from torchvision.ops import roi_align

from mlkd.data import MultiLabelData
from mlkd.losses import bce, combine_crops, l_sd, mbd, roi_crop, softmax_kd
from mlkd.methods import METHODS, MSKD, Batch, create_method
from mlkd.models import MultiLabelModel, Output, create_model
from mlkd.models.auxiliary import PreviousWeights
from mlkd.progress import Progress
from mlkd.training.config import Config
from mlkd.training.loop import fit
from mlkd.training.runs import Run, iter_runs

Data = Mapping[str, MultiLabelData]
TERMS = ["bce", "lsd", "rsd", "ssd"]


def small(head: str = "label_wise", seed: int = 0) -> MultiLabelModel:
    torch.manual_seed(seed)
    return create_model("resnet8_cifar", ("a", "b", "c", "d"), head, image_size=16, embed_dim=8, widths=(4, 8, 8))


def one_step(method: MSKD, model: MultiLabelModel, seed: int = 0, **more) -> tuple[Output, Batch]:
    """The student's output for six images in train mode, and the batch of the training loop."""
    torch.manual_seed(seed)
    images = torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8)
    targets = (torch.rand(6, 4) < 0.5).float()
    targets[0] = 0
    model.train()
    return model(images), Batch(images, targets, model=model, **more)


def assert_close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


class TestSettings:
    def test_defaults_are_the_papers(self) -> None:
        method = create_method("mskd")
        assert METHODS["mskd"] is MSKD
        assert isinstance(method, MSKD)
        assert (method.lambda_lsd, method.lambda_rsd, method.lambda_ssd, method.num_crops) == (1.5, 2, 2, 4)
        mbd_settings = (method.temperature, method.omega, method.gamma_pos, method.gamma_neg, method.as_in_paper)
        assert mbd_settings == (4, 0.5, 0.25, 1, False)
        assert method.propagation_steps == 2
        assert method.reduction == "sum"
        assert not method.required_teachers

    def test_number_of_crops(self) -> None:
        for settings, shape in [({}, (6, 4, 4)), ({"crop_mode": "corners"}, (6, 4, 4)), ({"num_crops": 1}, (6, 1, 4))]:
            assert create_method("mskd", **settings).boxes(6).shape == shape
        with pytest.raises(ValueError, match="`num_crops` is 5, expected 4 with crop_mode='corners'"):
            create_method("mskd", crop_mode="corners", num_crops=5)


class TestTerms:
    @pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
    def test_inputs_of_the_student(self, dtype: torch.dtype) -> None:
        """Crops image by image, between 0 and 1, in one call; then the batch with the previous weights."""
        inputs = []
        model, method = small(), MSKD(crop_mode="corners")
        output, batch = one_step(method, model, auxiliary=PreviousWeights(model))
        batch.auxiliary.update(model)
        images = batch.images if dtype == torch.uint8 else batch.images / 255
        batch = batch._replace(images=images)
        graphs = []
        model.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
        model.register_forward_hook(lambda *args: graphs.append(args[2].logits.requires_grad))
        method.loss_terms(output, batch)
        assert graphs == [False, False]
        assert [tuple(x.shape) for x in inputs] == [(24, 3, 16, 16), (6, 3, 16, 16)]
        boxes = [torch.tensor([[i, *(16 * box).tolist()]]) for i in range(6) for box in method.boxes(6)[i]]
        plain = batch.images.float() / (255 if dtype == torch.uint8 else 1)
        assert_close(inputs[0], roi_align(plain, torch.cat(boxes), 16, aligned=True))
        assert torch.equal(inputs[1], images)

    @pytest.mark.parametrize("head", ["gap", "label_wise"])
    @pytest.mark.parametrize("crop_mode", ["random", "corners"])
    @pytest.mark.parametrize("balanced", [True, False])
    def test_eq_17(self, head: str, crop_mode: str, balanced: bool) -> None:
        weights = {"lambda_lsd": 2.0, "lambda_rsd": 3.0, "lambda_ssd": 5.0}
        settings = {**weights, "crop_mode": crop_mode, "mbd": balanced}
        mbd_settings = {"temperature": 2.0, "omega": 0.3, "gamma_pos": 0.5, "gamma_neg": 2.0, "as_in_paper": True}
        mbd_settings["detach_weights"] = False
        method = create_method("mskd", **settings, **mbd_settings, propagation_steps=1)
        previous_model, model = small(head, seed=3).train(), small(head)
        previous = method.build_auxiliary(previous_model, 100)
        previous.update(previous_model)
        output, batch = one_step(method, model, auxiliary=previous)
        ignore_mask = torch.zeros(6, 4, dtype=torch.bool)
        ignore_mask[1, 1] = True
        batch = batch._replace(ignore_mask=ignore_mask)

        torch.manual_seed(1)
        terms = method.loss_terms(output, batch)
        torch.manual_seed(1)
        boxes = method.boxes(6)

        other = copy.deepcopy(model)
        images = batch.images.float() / 255
        roi, crop = [], []
        with torch.no_grad():
            crop_logits = other(roi_crop(images, boxes)).logits
            previous_logits = previous_model(images).logits
        for i in range(6):
            roi.append(model.head(roi_crop(output.features[i : i + 1], boxes[i : i + 1]))[0])
            crop.append(crop_logits[4 * i : 4 * i + 4])

        def distill(teacher_logits: torch.Tensor) -> torch.Tensor:
            if balanced:
                return mbd(output.logits, teacher_logits, batch.targets, **mbd_settings)
            return softmax_kd(output.logits, teacher_logits, temperature=2.0)

        expected = {
            "bce": bce(output.logits, batch.targets, ignore_mask=ignore_mask),
            "lsd": 2 * l_sd(torch.stack(roi), torch.stack(crop)),
            "rsd": 3 * distill(combine_crops(torch.stack(crop), output.logits, batch.targets, 1)),
            "ssd": 5 * distill(previous_logits),
        }
        assert list(terms) == TERMS
        for name, value in expected.items():
            assert_close(terms[name], value)
            assert value.abs() > 1e-5

        parameters = list(model.parameters())
        actual = torch.autograd.grad(sum(terms.values()), parameters, retain_graph=True)
        wanted = torch.autograd.grad(sum(expected.values()), parameters)
        for gradient, reference in zip(actual, wanted, strict=True):
            torch.testing.assert_close(gradient, reference, rtol=1e-3, atol=1e-4)

    @pytest.mark.parametrize("head", ["gap", "label_wise"])
    def test_gradient_of_each_term(self, head: str) -> None:
        """That of L-SD flows through the feature map only, to backbone and head; the others flow through the logits."""
        method, model = MSKD(), small(head)
        output, batch = one_step(method, model, auxiliary=PreviousWeights(model))
        batch.auxiliary.is_set.fill_(True)
        terms = method.loss_terms(output, batch)
        for name, through in (("lsd", "features"), ("rsd", "logits"), ("ssd", "logits")):
            for other in ("features", "logits"):
                gradient = torch.autograd.grad(
                    terms[name], getattr(output, other), retain_graph=True, allow_unused=True
                )[0]
                if other == through:
                    assert gradient.abs().sum() > 0
                else:
                    assert gradient is None or name != "lsd" or (gradient == 0).all()
        gradients = torch.autograd.grad(terms["lsd"], list(model.parameters()), allow_unused=True)
        assert gradients[0].abs().sum() > 0
        heads = torch.autograd.grad(
            method.loss_terms(*one_step(method, model, auxiliary=batch.auxiliary))["lsd"],
            list(model.head.parameters()),
            allow_unused=True,
        )
        assert any(gradient is not None and gradient.abs().sum() > 0 for gradient in heads)

    def test_head_gets_a_gradient_under_autocast(self) -> None:
        """Autocast caches cast weights; one that was cast without a graph, for the crops, must not be used in L-SD."""
        method, model = MSKD(lambda_rsd=0.0, lambda_ssd=0.0), small("gap")
        output, batch = one_step(method, model)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            terms = method.loss_terms(output, batch)
        assert terms["lsd"].dtype == torch.float32
        terms["lsd"].backward()
        assert model.head.classifier.weight.grad.abs().sum() > 0

    def test_running_statistics_do_not_change(self) -> None:
        method, model = MSKD(), small()
        output, batch = one_step(method, model, auxiliary=PreviousWeights(model))
        before = copy.deepcopy(model.state_dict())
        for _ in range(3):
            method.loss_terms(output, batch)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert model.training
        assert all(parameter.requires_grad for parameter in model.parameters())

    @pytest.mark.parametrize(
        ("zeros", "remaining", "forwards"),
        [
            (["lambda_lsd"], ["bce", "rsd", "ssd"], 2),
            (["lambda_rsd"], ["bce", "lsd", "ssd"], 2),
            (["lambda_ssd"], ["bce", "lsd", "rsd"], 1),
            (["lambda_lsd", "lambda_rsd"], ["bce", "ssd"], 1),
            (["lambda_lsd", "lambda_rsd", "lambda_ssd"], ["bce"], 0),
        ],
    )
    def test_weight_zero_removes_the_term(self, zeros: list[str], remaining: list[str], forwards: int) -> None:
        calls = []
        method, model = MSKD(**dict.fromkeys(zeros, 0.0)), small()
        previous = method.build_auxiliary(model, 10)
        assert (previous is None) == ("lambda_ssd" in zeros)
        output, batch = one_step(method, model, auxiliary=previous)
        if previous is not None:
            previous.update(model)
        model.register_forward_pre_hook(lambda *_: calls.append(1))
        assert list(method.loss_terms(output, batch)) == remaining
        assert len(calls) == forwards


class TestPreviousWeights:
    def test_first_step_has_no_previous_weights(self) -> None:
        method, model = MSKD(), small()
        output, batch = one_step(method, model, auxiliary=method.build_auxiliary(model, 10))
        first = method.loss_terms(output, batch)["ssd"]
        assert first == 0
        (gradient,) = torch.autograd.grad(first, output.logits)
        assert (gradient == 0).all()
        assert method.loss_terms(output, batch)["ssd"].requires_grad

    def test_each_step_has_the_weights_of_the_previous_one(self) -> None:
        """Three steps; the reference loads copies of the weights into a model."""
        method, model = MSKD(lambda_lsd=0.0, lambda_rsd=0.0, lambda_ssd=3.0), small()
        previous = method.build_auxiliary(model, 10)
        optimizer = torch.optim.SGD(model.parameters(), 0.05)
        saved = None
        for number in range(3):
            output, batch = one_step(method, model, seed=number, auxiliary=previous)
            terms = method.loss_terms(output, batch)
            if saved is not None:
                previous_model = small()
                previous_model.load_state_dict(saved)
                logits = previous_model.train()(batch.images).logits
                expected = 3 * mbd(output.logits, logits, batch.targets)
                assert (logits - output.logits).abs().max() > 1e-3
                assert_close(terms["ssd"], expected)
            saved = copy.deepcopy(model.state_dict())
            assert all(torch.equal(value, saved[name]) for name, value in previous.weights().items())
            optimizer.zero_grad()
            sum(terms.values()).backward()
            optimizer.step()


@pytest.mark.usefixtures("own_cache")
class TestTraining:
    def test_batches_of_the_training_loop(self, toy_data: Data, toy_config: Config, tmp_path: Path) -> None:
        """The saved weights are the student's at that step, also where the loop has wrapped it."""
        steps: list[tuple] = []

        class RecordingMSKD(MSKD):
            def loss_terms(self, student: Output, batch: Batch) -> dict[str, Tensor]:
                previous = copy.deepcopy(batch.auxiliary.weights())
                statistics = {name: value.clone() for name, value in batch.model.named_buffers()}
                terms = super().loss_terms(student, batch)
                current = batch.model.state_dict()
                assert all(torch.equal(value, current[name]) for name, value in batch.auxiliary.weights().items())
                assert all(torch.equal(statistics[name], value) for name, value in batch.model.named_buffers())
                assert {value.dtype for value in terms.values()} == {torch.float32}
                copies = {name: value.clone() for name, value in current.items()}
                steps.append((previous, copies, terms["ssd"].item()))
                return terms

        histories = []
        for precision in ("float32", "bf16"):
            steps.clear()
            run = fit(RecordingMSKD(), toy_data, toy_config.replace(epochs=2, precision=precision), runs=tmp_path)
            histories.append(run.history)
            assert len(steps) == 8
            assert steps[0][2] == 0
            for (_, last, _), (previous, current, value) in itertools.pairwise(steps):
                assert value != 0
                assert all(torch.equal(weight, last[name]) for name, weight in previous.items())
                assert not torch.equal(current["head.weight"], previous["head.weight"])
        np.testing.assert_allclose(histories[0]["bce"], histories[1]["bce"], rtol=0.1)
        assert histories[0]["bce"].tolist() != histories[1]["bce"].tolist()

    def test_resumed_training_is_bit_identical(self, toy_data: Data, toy_config: Config, tmp_path: Path) -> None:
        config = toy_config.replace(augmentations=("flip",))
        expected = fit("mskd", toy_data, config, runs=tmp_path / "uninterrupted")
        assert list(expected.history.columns)[2:6] == TERMS
        assert np.isfinite(expected.history[TERMS].to_numpy()).all()
        assert expected.history["bce"].iloc[-1] < expected.history["bce"].iloc[0]
        for owner, name, call in [(Progress, "step", 6), (Run, "write_history", 2)]:  # in epoch 2, and after it
            with interrupt(call, owner, name):
                fit("mskd", toy_data, config, runs=tmp_path / name)
            assert [run.complete for run in iter_runs(tmp_path / name)] == [False]
            resumed = fit("mskd", toy_data, config, runs=tmp_path / name)
            weights = [load_file(run.path / "model.safetensors") for run in (expected, resumed)]
            assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0].keys() | weights[1].keys())
            assert expected.history[TERMS].equals(resumed.history[TERMS])
