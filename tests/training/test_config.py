"""The configuration of a training: the paper's defaults, and what is refused."""

from __future__ import annotations

import pytest

from mlkd.training.config import Config


def test_defaults_are_the_papers() -> None:
    """L2D, Sec. 4."""
    config = Config()
    assert (config.image_size, config.batch_size, config.epochs) == (224, 64, 80)
    assert (config.optimizer, config.schedule, config.lr, config.weight_decay) == ("adam", "one_cycle", 1e-4, 1e-4)
    assert config.augmentations == ("flip", "cutout", "randaugment")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr_": 1}, "Did you mean 'lr'"),
        ({"batchsize": 1}, "Did you mean 'batch_size'"),
        (
            {"optimizer": "Adam"},
            r"`optimizer`.* is 'Adam', expected adam, adamw, sgd or momentum\. Did you mean 'adam'",
        ),
        ({"schedule": "onecycle"}, r"`schedule`.* is 'onecycle'.*Did you mean 'one_cycle'"),
        ({"precision": "float16"}, r"`precision`.* is 'float16', expected auto, float32, bf16 or fp16"),
        ({"role": "pupil"}, r"`role`.* is 'pupil', expected teacher, student or label_subset"),
        ({"augmentations": ("flip", "cut")}, r"`augmentations`.* is 'cut'.*Did you mean 'cutout'"),
        ({"augmentations": 5}, r"`augmentations`.* is 5, expected a list"),
        ({"backbone_settings": [1]}, r"`backbone_settings`.* is \[1\], expected a mapping"),
        ({"batch_size": 0}, r"`batch_size`.* is 0, expected .*at least 1\."),
        ({"batch_size": "64"}, r"`batch_size`.* is '64', expected a whole number"),
        ({"image_size": -3}, r"`image_size`.* is -3, expected .*at least 1\."),
        ({"epochs": -1}, r"`epochs`.* is -1, expected .*at least 0\."),
        ({"epochs": True}, r"`epochs`.* is True, expected a whole number"),
        ({"lr": True}, r"`lr`.* is True, expected a number"),
        ({"lr": -0.1}, r"`lr`.* is -0\.1, expected .*at least 0"),
        ({"lr": float("nan")}, r"`lr`.* is nan, expected a finite number"),
        ({"weight_decay": -1}, "`weight_decay`.* is -1"),
        ({"max_grad_norm": -1}, "`max_grad_norm`.* is -1"),
        ({"select": "Best"}, r"`select`.* is 'Best', expected best or last\. Did you mean 'best'"),
        ({"ema_decay": 1.0}, r"`ema_decay`.* is 1\.0, expected a number less than 1"),
        ({"warmup": -0.1}, r"`warmup`.* is -0\.1, expected a number of at least 0"),
        ({"filter_bias_and_bn": 1}, "`filter_bias_and_bn`.* is 1, expected true or false"),
        ({"eval_batch_size": 0}, "`eval_batch_size`.* is 0"),
        (
            {"grad_accum_steps": 9, "batch_size": 8},
            r"`grad_accum_steps` is 9, expected at most the number of images in a batch: `batch_size` is 8\.",
        ),
    ],
)
def test_invalid_values(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Config(**change)


def test_teacher_outputs_are_cached_for_images_that_stay_the_same() -> None:
    assert Config(cache_teacher_outputs=True, augmentations=["flip"]).augmentations == ("flip",)
    with pytest.raises(ValueError, match=r"`cache_teacher_outputs` is on, but `augmentations` is \['flip', 'cutout'\]"):
        Config(cache_teacher_outputs=True, augmentations=("flip", "cutout"))
