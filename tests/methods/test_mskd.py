"""The method MSKD: its crops, its memory of the step before, and trainings with it."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torchvision.ops import roi_align

from mlkd.data import MultiLabelData
from mlkd.losses.classification import bce
from mlkd.losses.mskd import l_sd, mbd, r_sd
from mlkd.methods import METHODS, MSKD, Batch, create_method
from mlkd.methods.mskd import PreviousWeights, roi_crop
from mlkd.models import MultiLabelModel, Output, create_model
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
    """The student's output for six pictures in train mode, and the batch as the loop hands it over."""
    torch.manual_seed(seed)
    images = torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8)
    targets = (torch.rand(6, 4) < 0.5).float()
    targets[0] = 0
    model.train()
    return model(images), Batch(images, targets, model=model, **more)


def close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


class TestSettings:
    def test_the_papers(self) -> None:
        method = create_method("mskd")
        assert METHODS["mskd"] is MSKD
        assert isinstance(method, MSKD)
        assert (method.lambda_lsd, method.lambda_rsd, method.lambda_ssd, method.num_crops) == (1.5, 2, 2, 4)
        mbd_settings = (method.temperature, method.omega, method.gamma_pos, method.gamma_neg, method.as_in_paper)
        assert mbd_settings == (4, 0.5, 0.25, 1, False)
        assert method.propagation_steps == 2
        assert method.reduction == "sum"
        assert not method.required_teachers

    def test_fine(self) -> None:
        for settings in ({}, {"crop_mode": "corners"}, {"num_crops": 1}):
            create_method("mskd", **settings).check(small("gap"))

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"crop_mode": "corner"}, r"`crop_mode` is 'corner'.*Did you mean 'corners'"),
            ({"num_crops": 0}, r"`num_crops` is 0, expected a whole number of at least 1"),
            ({"crop_mode": "corners", "num_crops": 5}, r"`num_crops` is 5, expected 4 with crop_mode='corners'"),
        ],
    )
    def test_mistakes(self, settings: dict, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            create_method("mskd", **settings).check(small())


class TestCrops:
    def test_random_boxes(self) -> None:
        torch.manual_seed(0)
        boxes = MSKD(num_crops=3).boxes(2000)
        assert boxes.shape == (2000, 3, 4)
        assert boxes.min() >= 0
        assert boxes.max() <= 1 + 1e-6
        sides = boxes[..., 2:] - boxes[..., :2]
        area, ratio = sides.prod(dim=-1), sides[..., 0] / sides[..., 1]
        for found, low, high in [(area, 0.2, 0.3), (ratio, 2 / 5, 5 / 3)]:
            assert low - 1e-5 <= found.min() < low * 1.01  # all of the range is used
            assert high * 0.99 < found.max() <= high + 1e-5
        free = boxes[..., :2] / (1 - sides)  # where in the room that is left
        assert free.flatten(0, 1).mean(dim=0).tolist() == pytest.approx([0.5, 0.5], abs=0.02)

    def test_boxes_follow_from_torchs_generator(self) -> None:
        draws = []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            draws.append(MSKD().boxes(3))
        assert torch.equal(draws[0], draws[1])
        assert not torch.equal(draws[0], draws[2])

    def test_corners(self) -> None:
        boxes = MSKD(crop_mode="corners").boxes(2)
        assert boxes.shape == (2, 4, 4)
        quarters = [[0, 0, 0.5, 0.5], [0.5, 0, 1, 0.5], [0, 0.5, 0.5, 1], [0.5, 0.5, 1, 1]]
        assert boxes.tolist() == [quarters, quarters]

    def test_cut_on_a_ramp(self) -> None:
        """Channels that hold each pixel's own x and y, in pixels: a crop of them shows where it was taken."""
        y, x = torch.meshgrid(torch.arange(8) + 0.5, torch.arange(12) + 0.5, indexing="ij")
        maps = torch.stack([torch.stack([x, y]), torch.stack([x, y]) + 100])
        boxes = torch.tensor([[[0.25, 0.25, 0.75, 0.5], [0.5, 0.125, 0.75, 0.625]]]).expand(2, -1, -1)
        crops = roi_crop(maps, boxes)
        assert crops.shape == (4, 2, 8, 12)
        for row, (left, top, right, bottom) in enumerate([(3, 2, 9, 4), (6, 1, 9, 5)]):
            wide = left + (right - left) * (torch.arange(12) + 0.5) / 12
            high = top + (bottom - top) * (torch.arange(8) + 0.5) / 8
            for image in (0, 1):
                found = crops[2 * image + row] - 100 * image
                close(found[0], wide.expand(8, 12))
                close(found[1], high[:, None].expand(8, 12))

    def test_a_cut_map_carries_gradient(self) -> None:
        maps = torch.rand(1, 1, 4, 4, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda x: roi_crop(x, MSKD(crop_mode="corners").boxes(1)), maps)

    @pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
    def test_what_the_student_is_shown(self, dtype: torch.dtype) -> None:
        """Crops image by image, between 0 and 1, in one call; then the batch itself by the weights before."""
        shown = []
        model, method = small(), MSKD(crop_mode="corners")
        output, batch = one_step(method, model, auxiliary=PreviousWeights(model))
        batch.auxiliary.keep(model)
        pictures = batch.images if dtype == torch.uint8 else batch.images / 255
        batch = batch._replace(images=pictures)
        graphs = []
        model.register_forward_pre_hook(lambda _, args: shown.append(args[0]))
        model.register_forward_hook(lambda *args: graphs.append(args[2].logits.requires_grad))
        method.loss_terms(output, batch)
        assert graphs == [False, False]
        assert [tuple(x.shape) for x in shown] == [(24, 3, 16, 16), (6, 3, 16, 16)]
        boxes = [torch.tensor([[i, *(16 * box).tolist()]]) for i in range(6) for box in method.boxes(6)[i]]
        plain = batch.images.float() / (255 if dtype == torch.uint8 else 1)
        close(shown[0], roi_align(plain, torch.cat(boxes), 16, aligned=True))
        assert torch.equal(shown[1], pictures)


class TestTerms:
    @pytest.mark.parametrize("head", ["gap", "label_wise"])
    @pytest.mark.parametrize("crop_mode", ["random", "corners"])
    @pytest.mark.parametrize("reduction", ["sum", "batchmean"])
    def test_eq_17(self, head: str, crops: str, reduction: str) -> None:
        settings = {"lambda_lsd": 2.0, "lambda_rsd": 3.0, "lambda_ssd": 5.0, "crop_mode": crops, "reduction": reduction}
        mbd_settings = {"temperature": 2.0, "omega": 0.3, "gamma_pos": 0.5, "gamma_neg": 2.0, "as_in_paper": True}
        method = create_method("mskd", **settings, **mbd_settings, propagation_steps=1)
        before, model = small(head, seed=3).train(), small(head)
        parts = method.build_auxiliary(before, 100)
        parts.keep(before)
        output, batch = one_step(method, model, auxiliary=parts)
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
            q_before = before(images).logits
        for i in range(6):
            roi.append(model.head(roi_crop(output.features[i : i + 1], boxes[i : i + 1]))[0])
            crop.append(crop_logits[4 * i : 4 * i + 4])
        options = {**mbd_settings, "reduction": reduction}
        share = 6 if reduction == "batchmean" else 1
        expected = {
            "bce": bce(output.logits, batch.targets, reduction=reduction, ignore_mask=ignore_mask),
            "lsd": 2 * l_sd(torch.stack(roi), torch.stack(crop)) / share,
            "rsd": 3 * r_sd(output.logits, torch.stack(crop), batch.targets, steps=1, **options),
            "ssd": 5 * mbd(output.logits, q_before, batch.targets, **options),
        }
        assert list(terms) == TERMS
        for name, value in expected.items():
            close(terms[name], value)
            assert value.abs() > 1e-5

        parameters = list(model.parameters())
        mine = torch.autograd.grad(sum(terms.values()), parameters, retain_graph=True)
        its = torch.autograd.grad(sum(expected.values()), parameters)
        for one, two in zip(mine, its, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4)

    def test_batchmean_divides_everything(self) -> None:
        model = small()
        results = []
        for reduction in ("sum", "batchmean"):
            method = MSKD(reduction=reduction)
            parts = PreviousWeights(small(seed=4))
            parts.known.fill_(True)
            output, batch = one_step(method, model, auxiliary=parts)
            torch.manual_seed(1)
            results.append(method.loss_terms(output, batch))
        for name in TERMS:
            close(results[0][name] / 6, results[1][name])

    @pytest.mark.parametrize("head", ["gap", "label_wise"])
    def test_crops_teach_without_learning(self, head: str) -> None:
        """L-SD reaches backbone and head, through the feature map alone; R-SD and S-SD through the logits alone."""
        method, model = MSKD(), small(head)
        output, batch = one_step(method, model, auxiliary=PreviousWeights(model))
        batch.auxiliary.known.fill_(True)
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

    def test_the_head_learns_under_autocast(self) -> None:
        """Autocast keeps copies of weights; one made without a graph, for the crops, must not serve L-SD."""
        method, model = MSKD(lambda_rsd=0.0, lambda_ssd=0.0), small("gap")
        output, batch = one_step(method, model)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            terms = method.loss_terms(output, batch)
        assert terms["lsd"].dtype == torch.float32
        terms["lsd"].backward()
        assert model.head.classifier.weight.grad.abs().sum() > 0

    def test_the_students_statistics_are_those_of_whole_pictures(self) -> None:
        method, model = MSKD(), small()
        output, batch = one_step(method, model, auxiliary=PreviousWeights(model))
        before = copy.deepcopy(model.state_dict())
        for _ in range(3):
            method.loss_terms(output, batch)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert model.training
        assert all(parameter.requires_grad for parameter in model.parameters())

    @pytest.mark.parametrize(
        ("off", "left", "forwards"),
        [
            (["lambda_lsd"], ["bce", "rsd", "ssd"], 2),
            (["lambda_rsd"], ["bce", "lsd", "ssd"], 2),
            (["lambda_ssd"], ["bce", "lsd", "rsd"], 1),
            (["lambda_lsd", "lambda_rsd"], ["bce", "ssd"], 1),
            (["lambda_lsd", "lambda_rsd", "lambda_ssd"], ["bce"], 0),
        ],
    )
    def test_weight_zero(self, off: list[str], left: list[str], forwards: int) -> None:
        calls = []
        method, model = MSKD(**dict.fromkeys(off, 0.0)), small()
        parts = method.build_auxiliary(model, 10)
        assert (parts is None) == ("lambda_ssd" in off)
        output, batch = one_step(method, model, auxiliary=parts)
        if parts is not None:
            parts.keep(model)
        model.register_forward_pre_hook(lambda *_: calls.append(1))
        assert list(method.loss_terms(output, batch)) == left
        assert len(calls) == forwards


class TestPreviousWeights:
    def test_a_copy_in_buffers(self) -> None:
        model = small()
        parts = MSKD().parts(model, 10)
        assert isinstance(parts, PreviousWeights)
        assert not list(parts.parameters())
        assert not parts.known
        assert parts.weights().keys() == model.state_dict().keys()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 1
        state = model.state_dict()
        assert not any(torch.equal(parts.weights()[name], state[name]) for name, _ in model.named_parameters())
        parts.keep(model)
        assert parts.known
        restored = PreviousWeights(small(seed=5))
        restored.load_state_dict(parts.state_dict())
        assert restored.known
        for name, value in restored.weights().items():
            assert torch.equal(value, state[name])
            assert value.data_ptr() != state[name].data_ptr()
            assert not value.requires_grad

    def test_the_first_step_has_no_step_before(self) -> None:
        method, model = MSKD(), small()
        output, batch = one_step(method, model, auxiliary=method.build_auxiliary(model, 10))
        first = method.loss_terms(output, batch)["ssd"]
        assert first == 0
        (gradient,) = torch.autograd.grad(first, output.logits)
        assert (gradient == 0).all()
        assert method.loss_terms(output, batch)["ssd"].requires_grad

    def test_each_step_has_the_weights_of_the_one_before(self) -> None:
        """Three steps; the reference reloads a model with the weights that were remembered by hand."""
        method, model = MSKD(lambda_lsd=0.0, lambda_rsd=0.0, lambda_ssd=3.0), small()
        parts = method.build_auxiliary(model, 10)
        optimizer = torch.optim.SGD(model.parameters(), 0.05)
        remembered = None
        for number in range(3):
            output, batch = one_step(method, model, seed=number, auxiliary=parts)
            terms = method.loss_terms(output, batch)
            if remembered is not None:
                past = small()
                past.load_state_dict(remembered)
                logits = past.train()(batch.images).logits
                expected = 3 * mbd(output.logits, logits, batch.targets)
                assert (logits - output.logits).abs().max() > 1e-3
                close(terms["ssd"], expected)
            remembered = copy.deepcopy(model.state_dict())
            assert all(torch.equal(value, remembered[name]) for name, value in parts.weights().items())
            optimizer.zero_grad()
            sum(terms.values()).backward()
            optimizer.step()


@pytest.mark.usefixtures("own_cache")
class TestTraining:
    def test_what_the_loop_hands_over(self, toy_data: Data, toy_config: Config, tmp_path: Path) -> None:
        """The weights kept at a step are the student's at that step, whatever the loop has wrapped around it."""
        seen: list[tuple] = []

        class Watches(MSKD):
            def loss_terms(self, student: Output, batch: Batch) -> dict[str, Tensor]:
                before = copy.deepcopy(batch.auxiliary.weights())
                statistics = {name: value.clone() for name, value in batch.model.named_buffers()}
                terms = super().loss_terms(student, batch)
                now = batch.model.state_dict()
                assert all(torch.equal(value, now[name]) for name, value in batch.auxiliary.weights().items())
                assert all(torch.equal(statistics[name], value) for name, value in batch.model.named_buffers())
                assert {value.dtype for value in terms.values()} == {torch.float32}
                seen.append((before, {name: value.clone() for name, value in now.items()}, terms["ssd"].item()))
                return terms

        histories = []
        for precision in ("float32", "bf16"):
            seen.clear()
            run = fit(Watches(), toy_data, toy_config.replace(epochs=2, precision=precision), runs=tmp_path)
            histories.append(run.history)
            assert len(seen) == 8
            assert seen[0][2] == 0
            for (_, last, _), (before, now, value) in itertools.pairwise(seen):
                assert value != 0
                assert all(torch.equal(kept, last[name]) for name, kept in before.items())
                assert not torch.equal(now["head.weight"], before["head.weight"])
        np.testing.assert_allclose(histories[0]["bce"], histories[1]["bce"], rtol=0.1)
        assert histories[0]["bce"].tolist() != histories[1]["bce"].tolist()

    def test_a_stopped_training_goes_on_as_if_it_had_not(
        self, toy_data: Data, toy_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config = toy_config.replace(augmentations=("flip",))
        whole = fit("mskd", toy_data, config, runs=tmp_path / "whole")
        assert list(whole.history.columns)[2:6] == TERMS
        assert np.isfinite(whole.history[TERMS].to_numpy()).all()
        assert whole.history["bce"].iloc[-1] < whole.history["bce"].iloc[0]
        for owner, name, call in [(Progress, "step", 6), (Run, "write_history", 2)]:  # in epoch 2, and after it
            original, calls = getattr(owner, name), []

            def stopping(*args, original=original, calls=calls, call=call, **kwargs):
                calls.append(1)
                if len(calls) == call:
                    raise KeyboardInterrupt
                return original(*args, **kwargs)

            with monkeypatch.context() as patch:
                patch.setattr(owner, name, stopping)
                with pytest.raises(KeyboardInterrupt):
                    fit("mskd", toy_data, config, runs=tmp_path / name)
            assert [run.complete for run in iter_runs(tmp_path / name)] == [False]
            again = fit("mskd", toy_data, config, runs=tmp_path / name)
            mine, its = (load_file(run.path / "model.safetensors") for run in (whole, again))
            assert all(torch.equal(mine[key], its[key]) for key in mine.keys() | its.keys())
            assert whole.history[TERMS].equals(again.history[TERMS])
