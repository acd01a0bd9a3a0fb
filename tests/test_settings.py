"""Settings: strict types, one-line errors with the closest name, a plain form that reads back."""

from __future__ import annotations

import json
from typing import Annotated, Any, ClassVar, Literal

import pytest
from pydantic import Field

from mlkd.settings import Settings
from mlkd.training.config import Config


class Example(Settings):
    title: ClassVar[str] = "the example"

    count: Annotated[int, Field(ge=1)] = 1
    rate: Annotated[float, Field(gt=0, le=1)] = 0.5
    on: bool = False
    kind: Literal["left", "right"] = "left"
    names: dict[str, Any] = Field(default_factory=dict)
    width: int | None = None
    path: bool | str = True


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cuont": 1}, "There is no setting 'cuont' of the example. Did you mean 'count'?"),
        ({"count": 0}, "`count` of the example is 0, expected a number of at least 1."),
        ({"count": True}, "`count` of the example is True, expected a whole number."),
        ({"count": 1.5}, "`count` of the example is 1.5, expected a whole number."),
        ({"count": "1"}, "`count` of the example is '1', expected a whole number."),
        ({"rate": 0}, "`rate` of the example is 0, expected a number greater than 0.0."),
        ({"rate": 2.0}, "`rate` of the example is 2.0, expected a number of at most 1.0."),
        ({"rate": float("nan")}, "`rate` of the example is nan, expected a finite number."),
        ({"on": 1}, "`on` of the example is 1, expected true or false."),
        ({"kind": "Left"}, "`kind` of the example is 'Left', expected left or right. Did you mean 'left'?"),
        ({"names": [1]}, "`names` of the example is [1], expected a mapping."),
        ({"width": "wide"}, "`width` of the example is 'wide', expected a whole number."),
        ({"path": 3}, "`path` of the example is 3, expected true or false or a text."),
    ],
)
def test_invalid_settings_give_one_line(change: dict, message: str) -> None:
    for create in (lambda: Example(**change), lambda: Example().replace(**change)):
        with pytest.raises(ValueError, match=r"^[^\n]*$") as caught:
            create()
        assert str(caught.value) == message


def test_a_missing_setting_is_named() -> None:
    class Required(Settings):
        name: str

    with pytest.raises(ValueError, match=r"^`name` is missing.$"):
        Required()


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Example().count = 2  # type: ignore[misc]


def test_replace_leaves_the_original_unchanged() -> None:
    first = Example(names={"a": 1})
    second = first.replace(count=2)
    assert (first.count, second.count, second.names) == (1, 2, {"a": 1})
    first.as_dict()["names"]["a"] = 3
    assert first.names == {"a": 1}
    assert Example().names is not Example().names


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {
            "augmentations": (),
            "backbone_settings": {"stem_stride": 2, "deep": {"a": [1]}},
            "pretrained": "a.safetensors",
        },
        {"head": "transformer", "head_settings": {"layers": 2, "word_vectors": "glove.txt"}},
        {"embed_dim": 64, "seed": 7, "role": "teacher", "lr": 3e-5, "max_grad_norm": 1.0, "precision": "bf16"},
    ],
)
def test_round_trip_through_json(changes: dict) -> None:
    config = Config(**changes)
    plain = config.as_dict()
    assert list(plain) == list(Config.model_fields)
    assert json.loads(json.dumps(plain)) == plain
    assert Config(**plain) == config
