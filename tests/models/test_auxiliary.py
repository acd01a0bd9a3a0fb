"""The modules that methods train or update beside the student."""

from __future__ import annotations

import copy

import pytest
import torch

from mlkd.models import MultiLabelModel, create_model
from mlkd.models.auxiliary import (
    CalibrationBranch,
    FeatureTranslation,
    LogitsBank,
    PreviousWeights,
    WeakClassifier,
    logits_with_weights,
)

CLASSES = ("a", "b", "c", "d")
NETWORKS = {
    "convolutions": ("test_resnet", {}),
    "swin": ("swin_tiny_patch4_window7_224", {"depths": (1, 1), "num_heads": (1, 2), "window_size": 4}),
    "vit": ("test_vit", {}),
}


def small(seed: int = 0) -> MultiLabelModel:
    torch.manual_seed(seed)
    return create_model("resnet8_cifar", CLASSES, image_size=16, embed_dim=8, widths=(4, 8, 8))


def test_logits_bank() -> None:
    bank = LogitsBank(5, 2)
    assert bank.get(torch.tensor([0, 4])).isnan().all()
    logits = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64, requires_grad=True)
    bank.update(torch.tensor([4, 1]), logits)
    assert bank.get(torch.tensor([1, 4])).tolist() == [[3, 4], [1, 2]]
    assert not bank.logits.requires_grad
    restored = LogitsBank(5, 2)
    restored.load_state_dict(bank.state_dict())
    assert torch.equal(restored.get(torch.tensor([4])), bank.get(torch.tensor([4])))
    bank.reset()
    assert bank.logits.isnan().all()


class TestPreviousWeights:
    def test_is_a_copy_in_buffers(self) -> None:
        model = small()
        previous = PreviousWeights(model)
        assert not list(previous.parameters())
        assert not previous.is_set
        assert previous.weights().keys() == model.state_dict().keys()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 1
        state = model.state_dict()
        assert not any(torch.equal(previous.weights()[name], state[name]) for name, _ in model.named_parameters())
        previous.update(model)
        assert previous.is_set
        restored = PreviousWeights(small(seed=5))
        restored.load_state_dict(previous.state_dict())
        assert restored.is_set
        for name, value in restored.weights().items():
            assert torch.equal(value, state[name])
            assert value.data_ptr() != state[name].data_ptr()
            assert not value.requires_grad

    def test_logits_with_weights_are_those_of_the_other_model(self) -> None:
        model, other = small().train(), small(seed=1).train()
        images, state = torch.rand(3, 3, 16, 16), copy.deepcopy(model.state_dict())
        logits = logits_with_weights(model, PreviousWeights(other).weights(), images)
        assert not logits.requires_grad
        torch.testing.assert_close(logits, other(images).logits)
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


class TestWeakClassifier:
    @pytest.mark.parametrize("network", NETWORKS)
    def test_layouts(self, network: str) -> None:
        name, settings = NETWORKS[network]
        model = create_model(name, CLASSES, "gap", image_size=64, **settings)
        classifier = WeakClassifier(model)
        model(torch.rand(2, 3, 64, 64))
        weak_logits = classifier()
        assert weak_logits.shape == (2, 4)
        weak_logits.sum().backward()
        assert classifier.classifier.weight.grad.abs().sum() > 0

    def test_state_is_that_of_the_linear_layer(self) -> None:
        classifier = WeakClassifier(small())
        assert set(classifier.state_dict()) == {"classifier.weight", "classifier.bias"}
        assert not list(classifier.buffers())

    def test_call_in_eval_mode_is_not_kept(self) -> None:
        model = small()
        classifier = WeakClassifier(model)
        images = torch.rand(3, 3, 16, 16)
        model(images)
        model.eval()(images[:1])
        assert classifier().shape == (3, 4)

    def test_output_is_removed_once_classified(self) -> None:
        model = small()
        classifier = WeakClassifier(model)
        model(torch.rand(3, 3, 16, 16))
        classifier()
        assert classifier.stage_output is None
        with pytest.raises(AssertionError, match="not called"):
            classifier()

    def test_functional_call(self) -> None:
        """With other weights, the same modules run, and their output is kept."""
        model = small()
        classifier = WeakClassifier(model)
        images = torch.rand(3, 3, 16, 16)
        model(images)
        weak_logits = classifier()
        weights = {name: 2 * value for name, value in model.named_parameters()}
        torch.func.functional_call(model, weights, (images,))
        other = classifier()
        assert other.shape == weak_logits.shape
        assert not torch.allclose(other, weak_logits)

    def test_copy_of_the_student_does_not_interfere(self) -> None:
        model = small()
        classifier = WeakClassifier(model)
        duplicate = copy.deepcopy(model)
        images = torch.rand(3, 3, 16, 16)
        model(images)
        duplicate(images[:2])
        assert classifier().shape == (3, 4)

    def test_backbone_without_stages(self) -> None:
        model = small()
        del model.backbone.net.feature_info
        with pytest.raises(ValueError, match="`backbone` is a CifarResNet, which does not list its stages"):
            WeakClassifier(model)

    def test_backbone_with_several_branches(self) -> None:
        model = create_model("hrnet_w18_small", CLASSES, "gap", image_size=32, pretrained=False)
        classifier = WeakClassifier(model)
        with pytest.raises(ValueError, match="penultimate stage of the student's `backbone` has 3 outputs"):
            model(torch.rand(2, 3, 32, 32))
        assert classifier.stage_output is None


def test_calibration_branch_takes_the_maximum_of_each_channel() -> None:
    branch, maps = CalibrationBranch(6, 4), torch.rand(3, 6, 2, 5)
    assert branch(maps).shape == (3, 4)
    torch.testing.assert_close(branch(maps), branch(maps.amax((2, 3), keepdim=True)))
    assert not torch.allclose(branch(maps), branch(maps.mean((2, 3), keepdim=True)))


def test_feature_translation_changes_channels_and_grid() -> None:
    translation, maps = FeatureTranslation(6, 4, 10), torch.rand(3, 6, 8, 8)
    assert [tuple(layer.weight.shape) for layer in translation.layers[::2]] == [(4, 6, 1, 1), (10, 4, 3, 3)]
    assert translation(maps, (4, 4)).shape == (3, 10, 4, 4)
    averaged = torch.nn.functional.adaptive_avg_pool2d(maps, (4, 4))
    torch.testing.assert_close(translation(maps, (4, 4)), translation.layers(averaged))
