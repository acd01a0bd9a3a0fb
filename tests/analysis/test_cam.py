"""Class activation maps against loops, for a CNN, a Swin and a ViT with every head."""

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


def make_model(backbone: str = "cnn", head: str = "label_wise", classes: tuple[str, ...] = CLASSES) -> MultiLabelModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        name, size, settings = BACKBONES[backbone]
        width = None if head == "gap" else 16
        return create_model(name, classes, head, image_size=size, embed_dim=width, **settings)


def make_images(model: MultiLabelModel, b: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (b, 3, model.image_size, model.image_size), generator=generator, dtype=torch.uint8)


def normalize_map(small: Tensor, size: int) -> Tensor:
    """A map normalized to [0, 1], resized to the image and normalized again."""
    small = small - small.min()
    large = F.interpolate((small / (1e-7 + small.max()))[None, None], (size, size), mode="bilinear")[0, 0]
    large = large - large.min()
    return large / (1e-7 + large.max())


def gradcam_map(gradient: Tensor, features: Tensor) -> Tensor:
    weighted = torch.zeros(features.shape[1:])
    for d in range(len(features)):
        weighted += gradient[d].mean() * features[d]
    return weighted.clamp(min=0)


def layercam_map(gradient: Tensor, features: Tensor) -> Tensor:
    weighted = torch.zeros(features.shape[1:])
    for d in range(len(features)):
        weighted += gradient[d].clamp(min=0) * features[d]
    return weighted.clamp(min=0)


REFERENCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"gradcam": gradcam_map, "layercam": layercam_map}


def expected_map(model: MultiLabelModel, image: Tensor, label: int, weight_channels: Callable) -> Tensor:
    """The map of one image and one label from the equation."""
    model = model.eval()
    features = model.features(image[None]).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(model.head(features)[0][0, label], features)
    return normalize_map(weight_channels(gradient[0], features[0].detach()), image.shape[-1])


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_maps_against_the_equation(backbone: str, head: str) -> None:
    model = make_model(backbone, head)
    images, largest = make_images(model, 2), []
    for method, weight_channels in REFERENCES.items():
        maps = cam(model, images, ["bus", 0], method=method)
        largest.append(maps.max())
        assert maps.shape == (2, 2, model.image_size, model.image_size)
        assert maps.dtype == np.float32
        for i in range(2):
            for column, label in enumerate((2, 0)):
                expected = expected_map(model, images[i], label, weight_channels)
                np.testing.assert_allclose(maps[i, column], expected.numpy(), atol=2e-4)
    assert max(largest) > 0.99  # the map of one method can be 0 everywhere


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("method", [name for name in METHODS if name != "cam"])
def test_methods_on_an_inner_layer(backbone: str, method: str) -> None:
    model = make_model(backbone)
    images = make_images(model, 2)
    maps = cam(model, images, [0, 1], method=method, layer=INNER[backbone])
    assert maps.shape == (2, 2, model.image_size, model.image_size)
    assert maps.min() >= 0
    assert maps.max() <= 1
    assert maps.max(axis=(2, 3)).max() > 0.99
    assert not np.allclose(maps, cam(model, images, [0, 1], method=method))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_map_layers_give_maps(backbone: str) -> None:
    model = make_model(backbone).train()
    layers = map_layers(model)
    assert INNER[backbone] in layers
    assert len(set(layers)) == len(layers)
    assert all(name.count(".") < 2 for name in layers)
    assert model.training
    images = make_images(model, 1)
    for name in layers:
        maps = cam(model, images, [0], layer=name)
        assert maps.shape == (1, 1, model.image_size, model.image_size)
    assert not any(module._forward_hooks for module in model.modules())
    assert map_layers(MergedTeacher([model], CLASSES)) == ()


def test_default_is_the_last_layer() -> None:
    model = make_model()
    images = make_images(model)
    np.testing.assert_allclose(cam(model, images, [0], layer="blocks.2"), cam(model, images, [0]), atol=1e-4)


def test_cam_is_the_weighted_sum_of_the_features() -> None:
    model = make_model(head="gap").eval()
    images = make_images(model)
    maps = cam(model, images, [1, 3], method="cam")
    with torch.no_grad():
        features, weight = model.features(images), model.head.classifier.weight
    for i in range(len(images)):
        for column, label in enumerate((1, 3)):
            weighted = torch.zeros(features.shape[2:])
            for d in range(features.shape[1]):
                weighted += weight[label, d] * features[i, d]
            expected = normalize_map(weighted.detach().clamp(min=0), 32)
            np.testing.assert_allclose(maps[i, column], expected.numpy(), atol=2e-4)


def test_cam_needs_a_linear_head() -> None:
    with pytest.raises(ValueError, match=r"head is 'label_wise'.*method='gradcam'"):
        cam(make_model(), make_images(make_model()), [0], method="cam")
    with pytest.raises(ValueError, match="gradcam"):
        cam(make_model(head="gap"), make_images(make_model()), [0], method="cam", layer="blocks.0")


def test_labels_of_each_image() -> None:
    model = make_model()
    images = make_images(model)
    full = cam(model, images, range(4))
    targets = np.array([[1, 0, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0]], np.uint8)
    with torch.no_grad():
        predicted = (torch.sigmoid(model.eval()(images).logits) >= 0.5).numpy()
    assert 0 < predicted.sum() < 12
    for labels, selected in (("ground_truth", targets == 1), ("predicted", predicted)):
        maps = cam(model, images, labels, targets=targets)
        assert maps.shape == full.shape
        np.testing.assert_allclose(maps[selected], full[selected], atol=1e-5)
        assert np.isnan(maps[~selected]).all()
    assert cam(model, images, []).shape == (3, 0, 32, 32)
    assert np.isnan(cam(model, images, targets=torch.zeros(3, 4))).all()


def test_float_and_larger_images() -> None:
    model = make_model()
    images = make_images(model)
    np.testing.assert_allclose(cam(model, images / 255, [0]), cam(model, images, [0]), atol=1e-6)
    large = images.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert cam(model, large, [0]).shape == (3, 1, 64, 64)
    assert cam(model, large, [0], layer="blocks.1").shape == (3, 1, 64, 64)


def test_map_without_positive_evidence_is_zero() -> None:
    model = make_model(head="gap")
    with torch.no_grad():
        model.head.classifier.weight[2] = -1  # the features are >= 0
    maps = cam(model, make_images(model), [2, 1])
    assert (maps[:, 0] == 0).all()
    assert maps[:, 1].max() > 0.99


def test_merged_teacher_uses_the_submodel_of_the_label() -> None:
    first, second = make_model(classes=("dog", "cup")), make_model(head="gap", classes=("bus", "cat"))
    merged = MergedTeacher([first, second], CLASSES)
    images = make_images(first)
    maps = cam(merged, images, ["cat", "dog", "cup"])
    np.testing.assert_allclose(maps[:, 0], cam(second, images, ["cat"])[:, 0], atol=1e-5)
    np.testing.assert_allclose(maps[:, 1:], cam(first, images, ["dog", "cup"]), atol=1e-5)
    assert cam(merged, images, "predicted").shape == (3, 4, 32, 32)


def test_one_label_per_image() -> None:
    model = make_model().eval()
    images = make_images(model, 4)
    arrays = images.permute(0, 2, 3, 1).numpy()
    data = MultiLabelData("toy", "test", arrays, np.ones((4, 4), np.uint8), CLASSES, ("a", "b", "c", "d"))
    indices, labels = [2, 0, 3], [1, 3, 1]
    label_cam = cam_per_image(model, data, indices, labels, method="layercam")
    maps = cam(model, images[indices], range(4), method="layercam")
    np.testing.assert_allclose(label_cam.maps, maps[[0, 1, 2], labels], atol=1e-5)
    with torch.no_grad():
        logits = model(images[indices]).logits
    np.testing.assert_allclose(label_cam.probabilities, logits[[0, 1, 2], labels].sigmoid(), atol=1e-5)
    with pytest.raises(ValueError, match="shorter"):
        cam_per_image(model, data, indices, labels[:2])


class TestModelStateIsRestored:
    def state(self, model: MultiLabelModel) -> list:
        flags = [(module.training, len(module._forward_hooks)) for module in model.modules()]
        return flags + [(p.requires_grad, None if p.grad is None else p.grad.sum().item()) for p in model.parameters()]

    def prepared(self) -> MultiLabelModel:
        """In training mode except for one module; one layer frozen, the others with gradients."""
        model = make_model().train()
        model.head.norm1.eval()
        model.backbone.net.stem.requires_grad_(False)
        model(make_images(model)).logits.sum().backward()
        return model

    @pytest.mark.parametrize("layer", [None, "blocks.1"])
    def test_after_maps(self, layer: str | None) -> None:
        model = self.prepared()
        before, weights = self.state(model), {name: value.clone() for name, value in model.state_dict().items()}
        cam(model, make_images(model), [0, 1], layer=layer)
        assert self.state(model) == before
        assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())

    @pytest.mark.parametrize("layer", [None, "blocks.1"])
    def test_after_an_error(self, layer: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
        model = self.prepared()
        before = self.state(model)

        def fails(*_) -> None:
            raise RuntimeError("inside the head")

        monkeypatch.setattr(model.head, "forward", fails)
        with pytest.raises(RuntimeError, match="inside the head"):
            cam(model, make_images(model), [0, 1], layer=layer)
        assert self.state(model) == before

    def test_inside_no_grad(self) -> None:
        model = make_model()
        with torch.no_grad():
            maps = cam(model, make_images(model), [0])
        np.testing.assert_array_equal(maps, cam(model, make_images(model), [0]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": ["cta"]}, "'cta'.*Did you mean 'cat'"),
        ({"labels": [4]}, r"has 4, expected class indices in 0\.\.3"),
        ({"labels": "all"}, "ground_truth, predicted"),
        ({"labels": "ground_truth"}, "`targets` is missing"),
        ({"labels": "ground_truth", "targets": np.zeros((2, 4))}, r"\(2, 4\), expected \(3, 4\)"),
        ({"labels": [0], "method": "grad-cam"}, "Did you mean 'gradcam'"),
        ({"labels": [0], "layer": "block.1"}, "Did you mean 'blocks.1'"),
    ],
)
def test_invalid_arguments_give_one_line_errors(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cam(make_model(), make_images(make_model()), **arguments)


def test_fast_enough_for_a_widget() -> None:
    """32 images of 96 pixels with 3 labels each take less than half a second; best of three runs."""
    model = create_model("resnet8_cifar", CLASSES, image_size=96, embed_dim=64, stem_stride=3)
    images = make_images(model, 32)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        cam(model, images, [0, 1, 2])
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.5
