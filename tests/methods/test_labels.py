"""Settings of the losses against the labels: that every method with such a term uses them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mlkd import losses
from mlkd.methods import METHODS, ASLMethod, Batch, BCEMethod, Vanilla, create_method
from mlkd.models import MultiLabelModel, create_model

CLASSES = ("a", "b", "c", "d")
BCE_METHODS = [name for name, method in METHODS.items() if issubclass(method, BCEMethod)]
ASL_METHODS = [name for name, method in METHODS.items() if issubclass(method, ASLMethod)]


@pytest.fixture(scope="module")
def model() -> MultiLabelModel:
    torch.manual_seed(0)
    return create_model("resnet8_cifar", CLASSES, image_size=16, embed_dim=8, widths=(8, 8, 8)).train()


def label_term(name: str, model: MultiLabelModel, **settings) -> tuple[Tensor, Tensor, Batch]:
    """The method's term against the labels, the student's logits and the batch."""
    method = create_method(name, **settings, **dict.fromkeys(METHODS[name].required_teachers, model))
    torch.manual_seed(1)
    images = torch.randint(0, 256, (5, 3, 16, 16), dtype=torch.uint8)
    targets = torch.tensor([[1, 1, 1, 0], [1, 0, 1, 1], [0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 0, 0]]).float()
    auxiliary = method.build_auxiliary(model, 5)
    output = model(images)
    mask = torch.zeros(5, 4, dtype=torch.bool)
    mask[4, 0] = True
    batch = Batch(
        images,
        targets,
        mask,
        teachers=dict.fromkeys(method.required_teachers, output),
        model=model,
        auxiliary=auxiliary,
        second_view=images,
        sample_indices=torch.arange(5),
    )
    terms = method.loss_terms(output, batch)
    return terms["bce" if issubclass(METHODS[name], BCEMethod) and "bce" in terms else "asl"], output.logits, batch


@pytest.mark.parametrize("name", BCE_METHODS)
def test_bce_settings(name: str, model: MultiLabelModel) -> None:
    settings = {"pos_weight": [1.0, 2.0, 0.5, 3.0], "class_weights": [1.0, 0.0, 2.0, 1.0], "label_smoothing": 0.2}
    term, logits, batch = label_term(name, model, **settings)
    reduction = METHODS[name].default_reduction()
    expected = losses.bce(logits, batch.targets, reduction=reduction, ignore_mask=batch.ignore_mask, **settings)
    factor = 1 - create_method(name).settings()["alpha"] if name == "tf-kd" else 1.0
    torch.testing.assert_close(term, factor * expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ASL_METHODS)
def test_asl_settings(name: str, model: MultiLabelModel) -> None:
    settings = {"gamma_neg": 2.0, "gamma_pos": 1.0, "clip": 0.1, "detach_focus": False}
    loss = {"loss": "asl"} if name == "vanilla" else {}
    term, logits, batch = label_term(name, model, **loss, **settings)
    assert torch.equal(term, losses.asl(logits, batch.targets, ignore_mask=batch.ignore_mask, **settings))


def test_all_methods_have_one_of_the_losses() -> None:
    assert set(METHODS) - {*BCE_METHODS, *ASL_METHODS} == {"ps-kd"}  # its targets are mixed with predictions
    assert {"cpsd", "cgpd", "dgpd", "random-psd", "sd", "vanilla"} == set(ASL_METHODS)


def test_defaults_are_those_of_the_losses() -> None:
    assert Vanilla().settings() == {
        **{"loss": "bce", "reduction": "sum", "pos_weight": 1.0, "class_weights": [], "label_smoothing": 0.0},
        **{"gamma_neg": 4.0, "gamma_pos": 0.0, "clip": 0.05, "detach_focus": True},
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"loss": "asl", "pos_weight": 2.0},
            "`pos_weight` .* is a setting of loss='bce', but `loss` is 'asl'",
        ),
        ({"loss": "asl", "label_smoothing": 0.1}, "`label_smoothing` .* is a setting of loss='bce'"),
        ({"gamma_neg": 2.0}, "`gamma_neg` .* is a setting of loss='asl', but `loss` is 'bce'"),
        ({"clip": 1.0}, r"`clip` .* is 1\.0, expected a number less than 1"),
        ({"gamma_pos": -1}, "`gamma_pos` .* is -1, expected a number of at least 0"),
        ({"label_smoothing": 1}, "`label_smoothing` .* is 1, expected a number less than 1"),
        ({"pos_weight": "balanced"}, "`pos_weight` .* is 'balanced', expected a number or a list"),
    ],
)
def test_invalid_settings(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_method("vanilla", **settings)


@pytest.mark.parametrize("setting", ["pos_weight", "class_weights"])
def test_weights_of_another_number_of_classes(setting: str, model: MultiLabelModel) -> None:
    method = create_method("mdkd", teacher=model, **{setting: [1.0, 2.0]})
    with pytest.raises(ValueError, match=f"`{setting}` of the method 'mdkd' has 2 numbers, expected one for each"):
        method.check(model)
