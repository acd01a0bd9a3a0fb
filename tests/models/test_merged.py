"""Models of label subsets, merged into one."""

from __future__ import annotations

import copy
import json

import pytest
import torch

from mlkd.models import MergedTeacher, MultiLabelModel, create_model, fingerprint

CLASSES = ("a", "b", "c", "d", "e")


def small(classes: str, head: str = "label_wise", seed: int = 0, **changes) -> MultiLabelModel:
    torch.manual_seed(seed)
    settings = {"image_size": 16, "embed_dim": 8, "widths": (4, 8, 8), **changes}
    return create_model("resnet8_cifar", tuple(classes), head, **settings).eval()


@pytest.fixture
def models() -> list[MultiLabelModel]:
    return [small("ca", seed=1), small("ebd", seed=2)]


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_logits_are_those_of_the_label_s_model(models: list[MultiLabelModel], images: torch.Tensor) -> None:
    merged = MergedTeacher(models, CLASSES)(images)
    assert merged.logits.shape == (3, 5)
    assert merged.embeddings.shape == (3, 5, 8)
    for model in models:
        output = model(images)
        for column, name in enumerate(model.classes):
            position = CLASSES.index(name)
            assert torch.equal(merged.logits[:, position], output.logits[:, column])
            assert torch.equal(merged.embeddings[:, position], output.embeddings[:, column])
    assert torch.equal(merged.features, torch.cat([model(images).features for model in models], dim=1))


def test_order_of_the_models_does_not_matter(models: list[MultiLabelModel], images: torch.Tensor) -> None:
    first, second = (MergedTeacher(ordered, CLASSES)(images) for ordered in (models, models[::-1]))
    assert torch.equal(first.logits, second.logits)
    assert torch.equal(first.embeddings, second.embeddings)


def test_more_than_ten_models(images: torch.Tensor) -> None:
    """Positions follow from the class names, not from file names, in which 10 sorts before 2."""
    models = [small(name, "gap", seed) for seed, name in enumerate("abcdefghijkl")]
    logits = MergedTeacher(models, tuple("lkjihgfedcba"))(images).logits
    for position, model in enumerate(reversed(models)):
        assert torch.equal(logits[:, position], model(images).logits[:, 0])


def test_one_model_of_all_labels(images: torch.Tensor) -> None:
    model = small("abcde")
    for output, expected in zip(MergedTeacher([model], CLASSES)(images), model(images), strict=True):
        assert torch.equal(output, expected)


def test_different_architectures(images: torch.Tensor) -> None:
    """Feature maps of two sizes are dropped; so are embeddings if one head has none."""
    models = [small("ab", "gap"), small("cde", image_size=32)]
    merged = MergedTeacher(models, CLASSES)
    assert merged.image_size == 32
    output = merged(images)
    assert torch.equal(output.logits, torch.cat([model(images).logits for model in models], dim=1))
    assert output.embeddings is None
    assert output.features.shape == (3, 0, 1, 1)
    assert merged.settings["head"] == "gap"
    assert not merged.head.has_embeddings
    assert merged.head is models[0].head


def test_fingerprint(models: list[MultiLabelModel]) -> None:
    """Differs with the weights, the classes and their order; is the same for a copy."""
    merged = MergedTeacher(models, CLASSES)
    assert merged.classes == CLASSES
    assert merged.settings["head"] == "label_wise"
    assert json.loads(json.dumps(merged.settings))["image_size"] == 16
    assert fingerprint(copy.deepcopy(merged)) == fingerprint(merged)
    others = [
        MergedTeacher([small("ca", seed=1), small("ebd", seed=3)], CLASSES),
        MergedTeacher(models, CLASSES[::-1]),
        MergedTeacher([small("ac", seed=1), small("ebd", seed=2)], CLASSES),
    ]
    assert len({fingerprint(teacher) for teacher in (merged, *others)}) == 4
    assert merged.state_dict().keys() == {
        f"models.{number}.{name}" for number, model in enumerate(models) for name in model.state_dict()
    }


@pytest.mark.parametrize(
    ("known", "message"),
    [
        (("ab", "cd"), "exactly once: e have no model"),
        (("abc", "cde"), "exactly once: c have several models"),
        (("abc", "dez"), "exactly once: z are not among the classes"),
        (("abb", "dez"), "exactly once: c have no model; b have several models; z are not among the classes"),
        ((), "a, b, c, d, e have no model"),
    ],
)
def test_every_class_needs_exactly_one_model(known: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=f"`models` must contain every class .*{message}"):
        MergedTeacher([small(classes, "gap") for classes in known], CLASSES)
