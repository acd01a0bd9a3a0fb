"""Settings: defaults, errors that say what was meant, and a plain form that reads back."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, fields

import pytest

from mlkd.errors import check_choice, closest_match
from mlkd.training.config import OPTIMIZERS, PRECISIONS, SCHEDULES, Config


class TestErrors:
    @pytest.mark.parametrize(
        ("name", "meant"),
        [("lr_", "lr"), ("batchsize", "batch_size"), ("Epochs", "epochs"), ("augmentation", "augmentations")],
    )
    def test_unknown_setting(self, name: str, meant: str) -> None:
        for make in (lambda: Config().replace(**{name: 1}), lambda: Config.from_dict({name: 1})):
            with pytest.raises(ValueError, match=f"There is no setting '{name}'. Did you mean '{meant}'"):
                make()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"optimizer": "Adam"}, r"`optimizer` is 'Adam', expected one of adam, adamw, sgd\. Did you mean 'adam'"),
            ({"schedule": "onecycle"}, r"`schedule` is 'onecycle'.*Did you mean 'one_cycle'"),
            ({"precision": "float16"}, r"`precision` is 'float16'.*expected one of auto, float32, bf16, fp16"),
            ({"role": "pupil"}, r"`role` is 'pupil', expected one of teacher, student, part"),
            ({"augmentations": ("flip", "cut")}, r"`augmentations` is 'cut'.*Did you mean 'cutout'"),
            ({"batch_size": 0}, r"`batch_size` is 0, expected .*at least 1\."),
            ({"image_size": -3}, r"`image_size` is -3, expected .*at least 1\."),
            ({"epochs": -1}, r"`epochs` is -1, expected .*0 or more\."),
            ({"lr": -0.1}, r"`lr` is -0\.1, expected .*0 or more\."),
            ({"weight_decay": -1}, "`weight_decay` is -1"),
            ({"max_grad_norm": -1}, "`max_grad_norm` is -1"),
        ],
    )
    def test_wrong_value(self, change: dict, message: str) -> None:
        for make in (lambda: Config(**change), lambda: Config().replace(**change), lambda: Config.from_dict(change)):
            with pytest.raises(ValueError, match=message):
                make()

    @pytest.mark.parametrize("change", [{"lr": float("nan")}, {"batch_size": "64"}])
    def test_no_number(self, change: dict) -> None:
        with pytest.raises(ValueError, match=f"`{next(iter(change))}` is "):
            Config(**change)

    @pytest.mark.parametrize(
        ("name", "values"),
        [
            ("optimizer", OPTIMIZERS),
            ("schedule", SCHEDULES),
            ("precision", PRECISIONS),
            ("epochs", (0, 1)),
            ("lr", (0.0,)),
        ],
    )
    def test_allowed(self, name: str, values: tuple) -> None:
        for value in values:
            assert getattr(Config().replace(**{name: value}), name) == value

    def test_frozen(self) -> None:
        with pytest.raises(FrozenInstanceError):
            Config().lr = 1.0


class TestPlainForm:
    def test_papers_defaults(self) -> None:
        """L2D, Sec. 4."""
        config = Config()
        assert (config.image_size, config.batch_size, config.epochs) == (224, 64, 80)
        assert (config.optimizer, config.schedule, config.lr, config.weight_decay) == ("adam", "one_cycle", 1e-4, 1e-4)
        assert config.augmentations == ("flip", "cutout", "randaugment")

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
    def test_round_trip_through_json(self, changes: dict) -> None:
        config = Config(**changes)
        plain = config.as_dict()
        assert list(plain) == [field.name for field in fields(Config)]
        assert json.loads(json.dumps(plain)) == plain  # lists, no tuples
        assert Config.from_dict(plain) == config
        assert Config.from_dict(plain).augment == tuple(config.augmentations)

    def test_missing_settings_are_defaults(self) -> None:
        assert Config.from_dict({"epochs": 2}) == Config(epochs=2)

    def test_changes_leave_the_first_alone(self) -> None:
        first = Config(backbone_settings={"stem_stride": 2})
        second = first.replace(seed=5, augmentations=["flip"])
        assert (first.seed, second.seed, second.augment) == (0, 5, ("flip",))
        first.as_dict()["backbone_settings"]["stem_stride"] = 3
        assert first.backbone_settings == {"stem_stride": 2}
        assert Config().backbone_settings is not Config().backbone_settings
        assert Config().head_settings is not Config().head_settings


class TestSpelling:
    @pytest.mark.parametrize(("word", "meant"), [("L2D", "l2d"), ("vanila", "vanilla"), ("zzz", None), ("", None)])
    def test_nearest(self, word: str, meant: str | None) -> None:
        found = closest_match(word, ["vanilla", "l2d"])
        assert found == meant or (meant is None and found in ("vanilla", "l2d"))

    def test_the_known_name_keeps_its_case(self) -> None:
        assert closest_match("of1", ["CF1_macro", "OF1"]) == "OF1"

    def test_check_one_of(self) -> None:
        check_choice("method", "l2d", iter(["l2d"]))
        with pytest.raises(ValueError, match=r"`method` is None, expected one of l2d, vanilla\. Did you mean"):
            check_choice("method", None, iter(["l2d", "vanilla"]))
