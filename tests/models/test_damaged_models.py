"""Model files of others: damaged ones, and ones that would open another file, are refused in one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from mlkd.errors import WeightsError
from mlkd.models import MultiLabelModel, create_model, load_model, save_model

CLASSES = ("cat", "dog")


@pytest.fixture(scope="module")
def model() -> MultiLabelModel:
    return create_model("resnet8_cifar", CLASSES, image_size=32, embed_dim=8, widths=[8, 8, 8])


def write(path: Path, model: MultiLabelModel, metadata: dict[str, str] | None = None, **settings: Any) -> Path:
    """A model file with changed settings (... removes one) or other metadata."""
    changed = {name: value for name, value in {**model.settings, **settings}.items() if value is not ...}
    texts = {"settings": json.dumps(changed), "classes": json.dumps(CLASSES), **(metadata or {})}
    save_file(model.state_dict(), path, texts)
    return path


SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "no backbone": ({"backbone": ...}, "`backbone` of its settings is missing"),
    "no head": ({"head": ...}, "`head` of its settings is missing"),
    "no image size": ({"image_size": ...}, "`image_size` of its settings is missing"),
    "backbone a number": ({"backbone": 5}, "`backbone` of its settings is 5, expected a text"),
    "unknown backbone": ({"backbone": "resnet8_cifr"}, "`backbone` is 'resnet8_cifr', which is not a model of timm"),
    "backbone of a hub": ({"backbone": "hf-hub:someone/net"}, "which is not a model of timm"),
    "backbone of a folder": ({"backbone": "local-dir:/etc"}, "which is not a model of timm"),
    "unknown head": ({"head": "tail"}, "`head` is 'tail'"),
    "image size a text": ({"image_size": "32"}, "`image_size` of its settings is '32', expected a whole number"),
    "image size 0": ({"image_size": 0}, "`image_size` of its settings is 0, expected"),
    "huge images": ({"image_size": 10**9}, "`image_size` of its settings is 1000000000, expected a number of at most"),
    "embed_dim -1": ({"embed_dim": -1}, "`embed_dim` of its settings is -1"),
    "embed_dim true": ({"embed_dim": True}, "`embed_dim` of its settings is True"),
    "embed_dim 7": ({"embed_dim": 7}, "no model can be built from its settings (ValueError: "),
    "embed_dim 16": ({"embed_dim": 16}, "its tensors do not fit its settings (size mismatch"),
    "head settings a list": ({"head_settings": [1]}, "`head_settings` of its settings is [1]"),
    "unknown head setting": ({"head_settings": {"depth": 3}}, "has no setting 'depth'"),
    "unknown backbone setting": ({"width": 3}, "no model can be built from its settings (TypeError"),
    "widths a text": ({"widths": "88"}, "no model can be built from its settings"),
    "widths negative": ({"widths": [-8, 8, 8]}, "no model can be built from its settings"),
    "another network": ({"widths": [8, 8, 16]}, "its tensors do not fit its settings (size mismatch"),
    "other classes": ({"classes": ["a"]}, "no model can be built from its settings (TypeError"),
    "pretrained": ({"pretrained": "/etc/passwd"}, "its settings have pretrained, which would open another file"),
    "pretrained by name": ({"pretrained": True}, "its settings have pretrained, which would open another file"),
    "a checkpoint": ({"checkpoint_path": "/etc/passwd"}, "its settings have checkpoint_path, which would open"),
    "timm's configuration": ({"pretrained_cfg": {"file": "/etc/passwd"}}, "its settings have pretrained_cfg, which"),
    "word vectors": (
        {"head": "transformer", "head_settings": {"word_vectors": "/etc/passwd"}},
        "its settings have word_vectors, which would open another file",
    ),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_damaged_settings_are_refused(model: MultiLabelModel, tmp_path: Path, case: str) -> None:
    settings, problem = SETTINGS[case]
    path = write(tmp_path / "model.safetensors", model, **settings)
    with pytest.raises(WeightsError) as caught:
        load_model(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert problem in message
    assert "\n" not in message
    assert len(message) < 600


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *[("settings", text) for text in ("", "{", "[]", "null", '"resnet8_cifar"', "[" * 100_000)],
        *[("classes", text) for text in ("", "[", "{}", "null", "3", '"ab"', "[]", "[1, 2]", "[null]", "[" * 100_000)],
        *[("thresholds", text) for text in ("[", "[0.5]", '["a", "b"]', "[NaN, 0.5]", "[0.5, 2]", "{}")],
        *[("preprocessing", text) for text in ("[", "[1]", "3")],
    ],
)
def test_damaged_metadata_are_refused(model: MultiLabelModel, tmp_path: Path, name: str, text: str) -> None:
    path = write(tmp_path / "model.safetensors", model, {name: text})
    with pytest.raises(WeightsError, match=r"model\.safetensors: "):
        load_model(path)


def test_word_vectors_of_a_saved_model_are_a_number(tmp_path: Path) -> None:
    """A model with word vectors is rebuilt without their file."""
    vectors = tmp_path / "glove.txt"
    vectors.write_text("cat 1 2 3\ndog 4 5 6\n")
    settings = {"word_vectors": str(vectors), "layers": 1}
    model = create_model("resnet8_cifar", CLASSES, "transformer", image_size=32, embed_dim=8, head_settings=settings)
    save_model(model, tmp_path / "model.safetensors")
    vectors.unlink()
    assert torch.equal(load_model(tmp_path / "model.safetensors").head.word_vectors, model.head.word_vectors)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_name_the_file(model: MultiLabelModel, tmp_path: Path, value: float) -> None:
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    name = next(name for name in state if name.startswith("backbone.net."))
    state[name].view(-1)[0] = value
    metadata = {"settings": json.dumps(model.settings), "classes": json.dumps(CLASSES)}
    save_file(state, tmp_path / "model.safetensors", metadata)
    backbone = {key.removeprefix("backbone.net."): tensor for key, tensor in state.items() if "net." in key}
    torch.save(backbone, tmp_path / "backbone.pth")
    for path, load in (
        (tmp_path / "model.safetensors", load_model),
        (
            tmp_path / "backbone.pth",
            lambda path: create_model("resnet8_cifar", CLASSES, pretrained=path, image_size=32, widths=[8, 8, 8]),
        ),
    ):
        with pytest.raises(WeightsError, match=r"has values that are not finite") as caught:
            load(path)
        assert str(caught.value).startswith(f"{path}: the tensor ")


@pytest.mark.parametrize("state", [{0: torch.ones(3)}, {"a": 3}, [torch.ones(2)], {"model": {1: torch.ones(1)}}])
def test_a_state_dict_without_names_is_refused(tmp_path: Path, state: Any) -> None:
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match=r"weights\.pth: expected a mapping from names to tensors"):
        create_model("resnet8_cifar", CLASSES, pretrained=tmp_path / "weights.pth", image_size=32)
