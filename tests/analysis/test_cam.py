"""Class activation maps: against plain loops, on a CNN, a Swin and a ViT, with every head."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mlkd.analysis.cam import METHODS, cam, cam_per_image, map_layers
from mlkd.data import MultiLabelData
from mlkd.models import HEADS, MergedTeacher, MultiLabelModel, create_model

pytest.importorskip("pytorch_grad_cam")

CLASSES = ("cat", "dog", "bus", "cup")
BACKBONES = {
    "cnn": ("resnet8_cifar", 32, {}),
    "swin": ("swin_tiny_patch4_window7_224", 64, {"depths": [1, 1, 1, 1], "num_heads": [1, 1, 1, 1]}),
    "vit": ("test_vit", 64, {}),
}
INNER = {"cnn": "blocks.1", "swin": "layers.2", "vit": "blocks.2"}


def made(backbone: str = "cnn", head: str = "label_wise", classes: tuple[str, ...] = CLASSES) -> MultiLabelModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        name, size, settings = BACKBONES[backbone]
        width = None if head == "gap" else 16
        return create_model(name, classes, head, image_size=size, embed_dim=width, **settings)


def pictures(model: MultiLabelModel, b: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (b, 3, model.image_size, model.image_size), generator=generator, dtype=torch.uint8)


def scaled(small: Tensor, size: int) -> Tensor:
    """A map of the layer's grid from 0 to 1, enlarged, and to 1 again."""
    small = small - small.min()
    large = F.interpolate((small / (1e-7 + small.max()))[None, None], (size, size), mode="bilinear")[0, 0]
    large = large - large.min()
    return large / (1e-7 + large.max())


def weigh_by_mean(gradient: Tensor, features: Tensor) -> Tensor:
    found = torch.zeros(features.shape[1:])
    for d in range(len(features)):
        found += gradient[d].mean() * features[d]
    return found.clamp(min=0)


def weigh_by_positive(gradient: Tensor, features: Tensor) -> Tensor:
    found = torch.zeros(features.shape[1:])
    for d in range(len(features)):
        found += gradient[d].clamp(min=0) * features[d]
    return found.clamp(min=0)


REFERENCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"gradcam": weigh_by_mean, "layercam": weigh_by_positive}


def one_map(model: MultiLabelModel, image: Tensor, label: int, weigh: Callable) -> Tensor:
    """One picture, one label, written from the equation."""
    model = model.eval()
    features = model.features(image[None]).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(model.head(features)[0][0, label], features)
    return scaled(weigh(gradient[0], features[0].detach()), image.shape[-1])


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_maps_are_those_of_the_equation(backbone: str, head: str) -> None:
    model = made(backbone, head)
    images = pictures(model, 2)
    for method, weigh in REFERENCES.items():
        maps = cam(model, images, ["bus", 0], method=method)
        assert maps.shape == (2, 2, model.image_size, model.image_size)
        assert maps.dtype == np.float32
        for i in range(2):
            for place, label in enumerate((2, 0)):
                expected = one_map(model, images[i], label, weigh)
                np.testing.assert_allclose(maps[i, place], expected.numpy(), atol=2e-4)
    assert maps.max() > 0.99


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("method", [name for name in METHODS if name != "cam"])
def test_every_method_on_an_inner_layer(backbone: str, method: str) -> None:
    model = made(backbone)
    images = pictures(model, 2)
    maps = cam(model, images, [0, 1], method=method, layer=INNER[backbone])
    assert maps.shape == (2, 2, model.image_size, model.image_size)
    assert maps.min() >= 0
    assert maps.max() <= 1
    assert maps.max(axis=(2, 3)).max() > 0.99
    assert not np.allclose(maps, cam(model, images, [0, 1], method=method))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_layers_with_maps_can_be_looked_at(backbone: str) -> None:
    model = made(backbone).train()
    found = map_layers(model)
    assert INNER[backbone] in found
    assert len(set(found)) == len(found)
    assert all(name.count(".") < 2 for name in found)
    assert model.training
    images = pictures(model, 1)
    for name in found:
        maps = cam(model, images, [0], layer=name)
        assert maps.shape == (1, 1, model.image_size, model.image_size)
    assert not any(module._forward_hooks for module in model.modules())
    assert map_layers(MergedTeacher([model], CLASSES)) == ()


def test_the_last_layer_by_name_is_the_default() -> None:
    model = made()
    images = pictures(model)
    np.testing.assert_allclose(cam(model, images, [0], layer="blocks.2"), cam(model, images, [0]), atol=1e-4)


def test_cam_is_the_weighted_sum_of_the_features() -> None:
    model = made(head="gap").eval()
    images = pictures(model)
    maps = cam(model, images, [1, 3], method="cam")
    with torch.no_grad():
        features, weight = model.features(images), model.head.classifier.weight
    for i in range(len(images)):
        for place, label in enumerate((1, 3)):
            found = torch.zeros(features.shape[2:])
            for d in range(features.shape[1]):
                found += weight[label, d] * features[i, d]
            expected = scaled(found.detach().clamp(min=0), 32)
            np.testing.assert_allclose(maps[i, place], expected.numpy(), atol=2e-4)


def test_cam_with_another_head() -> None:
    with pytest.raises(ValueError, match=r"head is 'label_wise'.*method='gradcam'"):
        cam(made(), pictures(made()), [0], method="cam")
    with pytest.raises(ValueError, match="gradcam"):
        cam(made(head="gap"), pictures(made()), [0], method="cam", layer="blocks.0")


def test_labels_of_each_picture() -> None:
    model = made()
    images = pictures(model)
    every = cam(model, images, range(4))
    targets = np.array([[1, 0, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0]], np.uint8)
    with torch.no_grad():
        predicted = (torch.sigmoid(model.eval()(images).logits) >= 0.5).numpy()
    assert 0 < predicted.sum() < 12
    for labels, asked in (("ground_truth", targets == 1), ("predicted", predicted)):
        maps = cam(model, images, labels, targets=targets)
        assert maps.shape == every.shape
        np.testing.assert_allclose(maps[asked], every[asked], atol=1e-5)
        assert np.isnan(maps[~asked]).all()
    assert cam(model, images, []).shape == (3, 0, 32, 32)
    assert np.isnan(cam(model, images, targets=torch.zeros(3, 4))).all()


def test_float_and_larger_pictures() -> None:
    model = made()
    images = pictures(model)
    np.testing.assert_allclose(cam(model, images / 255, [0]), cam(model, images, [0]), atol=1e-6)
    large = images.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert cam(model, large, [0]).shape == (3, 1, 64, 64)
    assert cam(model, large, [0], layer="blocks.1").shape == (3, 1, 64, 64)


def test_nothing_speaks_for_the_label() -> None:
    model = made(head="gap")
    with torch.no_grad():
        model.head.classifier.weight[2] = -1  # the features are 0 or more
    maps = cam(model, pictures(model), [2, 1])
    assert (maps[:, 0] == 0).all()
    assert maps[:, 1].max() > 0.99


def test_a_merged_teacher_asks_the_part_that_knows() -> None:
    one, other = made(classes=("dog", "cup")), made(head="gap", classes=("bus", "cat"))
    merged = MergedTeacher([one, other], CLASSES)
    images = pictures(one)
    maps = cam(merged, images, ["cat", "dog", "cup"])
    np.testing.assert_allclose(maps[:, 0], cam(other, images, ["cat"])[:, 0], atol=1e-5)
    np.testing.assert_allclose(maps[:, 1:], cam(one, images, ["dog", "cup"]), atol=1e-5)
    assert cam(merged, images, "predicted").shape == (3, 4, 32, 32)


def test_a_look_at_one_label_of_each_picture() -> None:
    model = made().eval()
    images = pictures(model, 4)
    shown = images.permute(0, 2, 3, 1).numpy()
    data = MultiLabelData("toy", "test", shown, np.ones((4, 4), np.uint8), CLASSES, ("a", "b", "c", "d"))
    rows, labels = [2, 0, 3], [1, 3, 1]
    found = cam_per_image(model, data, rows, labels, method="layercam")
    maps = cam(model, images[rows], range(4), method="layercam")
    np.testing.assert_allclose(found.maps, maps[[0, 1, 2], labels], atol=1e-5)
    with torch.no_grad():
        logits = model(images[rows]).logits
    np.testing.assert_allclose(found.probabilities, logits[[0, 1, 2], labels].sigmoid(), atol=1e-5)
    with pytest.raises(ValueError, match="shorter"):
        cam_per_image(model, data, rows, labels[:2])


class TestTheModelStaysAsItWas:
    def state(self, model: MultiLabelModel) -> list:
        flags = [(module.training, len(module._forward_hooks)) for module in model.modules()]
        return flags + [(p.requires_grad, None if p.grad is None else p.grad.sum().item()) for p in model.parameters()]

    def prepared(self) -> MultiLabelModel:
        """In training, one module of it not; one weight fixed, the others with gradients."""
        model = made().train()
        model.head.norm1.eval()
        model.backbone.net.stem.requires_grad_(False)
        model(pictures(model)).logits.sum().backward()
        return model

    @pytest.mark.parametrize("layer", [None, "blocks.1"])
    def test_after_maps(self, layer: str | None) -> None:
        model = self.prepared()
        before, weights = self.state(model), {name: value.clone() for name, value in model.state_dict().items()}
        cam(model, pictures(model), [0, 1], layer=layer)
        assert self.state(model) == before
        assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())

    @pytest.mark.parametrize("layer", [None, "blocks.1"])
    def test_after_an_error(self, layer: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
        model = self.prepared()
        before = self.state(model)

        def fails(*_) -> None:
            raise RuntimeError("in the middle")

        monkeypatch.setattr(model.head, "forward", fails)
        with pytest.raises(RuntimeError, match="in the middle"):
            cam(model, pictures(model), [0, 1], layer=layer)
        assert self.state(model) == before

    def test_inside_no_grad(self) -> None:
        model = made()
        with torch.no_grad():
            maps = cam(model, pictures(model), [0])
        np.testing.assert_array_equal(maps, cam(model, pictures(model), [0]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": ["cta"]}, "'cta'.*near it: cat"),
        ({"labels": [4]}, r"has 4, expected class indices in 0\.\.3"),
        ({"labels": "all"}, "truth, predicted"),
        ({"labels": "ground_truth"}, "`targets` is missing"),
        ({"labels": "ground_truth", "targets": np.zeros((2, 4))}, r"\(2, 4\), expected \(3, 4\)"),
        ({"labels": [0], "method": "grad-cam"}, "Did you mean 'gradcam'"),
        ({"labels": [0], "layer": "block.1"}, "near it: 'blocks.1'"),
    ],
)
def test_mistakes(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cam(made(), pictures(made()), **arguments)


def test_fast_enough_for_a_widget() -> None:
    """32 pictures of 96 pixels, 3 labels each: well under half a second; the best of three, as machines are busy."""
    model = create_model("resnet8_cifar", CLASSES, image_size=96, embed_dim=64, stem_stride=3)
    images = pictures(model, 32)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        cam(model, images, [0, 1, 2])
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.5
