"""Changed losses or trainings need a new version, so that nobody finds the runs of other code.

`python tests/training/test_version.py` writes the recorded values again, after the version was increased.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mlkd.data import MultiLabelData
from mlkd.methods import METHODS, Batch, create_method
from mlkd.models import MultiLabelModel, create_model
from mlkd.training import identity
from mlkd.training.config import Config
from mlkd.training.loop import fit

RECORDED = Path(__file__).with_name("recorded_losses.json")
CLASSES = ("a", "b", "c", "d")
BUILT_IN = [name for name, method in METHODS.items() if method.__module__.startswith("mlkd.")]
TRAININGS: dict[str, dict[str, Any]] = {
    "one cycle, adamw": {"optimizer": "adamw", "augmentations": ("flip", "crop", "cutout", "randaugment")},
    "cosine, sgd": {"optimizer": "sgd", "schedule": "cosine", "warmup": 0.2, "augmentations": ("flip",)},
    "clipped, averaged, in slices": {"max_grad_norm": 0.5, "ema_decay": 0.5, "grad_accum_steps": 2},
}
TOLERANCE = {"rtol": 2e-3, "atol": 1e-7}
"""Other processors and versions of PyTorch round differently; a change of the code is larger."""


def network(seed: int) -> MultiLabelModel:
    torch.manual_seed(seed)
    return create_model("resnet8_cifar", CLASSES, image_size=16, embed_dim=8, widths=(8, 8, 8))


def loss_terms(name: str) -> dict[str, float]:
    """The loss terms of a method for a student and a teacher at their initial weights."""
    roles = METHODS[name].required_teachers
    student, teachers = network(0), {role: network(seed).eval() for seed, role in enumerate(roles, 1)}
    method = create_method(name, **teachers)
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (6, 3, 16, 16), dtype=np.uint8))
    targets = torch.from_numpy(rng.integers(0, 2, (6, 4))).float()
    with torch.no_grad():
        outputs = {role: teacher(images) for role, teacher in teachers.items()}
    auxiliary = method.build_auxiliary(student, len(images))
    batch = Batch(
        images,
        targets,
        None,
        outputs,
        model=student,
        auxiliary=auxiliary,
        second_view=images.flip(-1),
        sample_indices=torch.arange(len(images)),
        epoch_fraction=0.5,
    )
    torch.manual_seed(1)
    return {term: value.item() for term, value in method.reduced_loss_terms(student(images), batch).items()}


def training(name: str, folder: Path) -> list[float]:
    """The mean loss of each epoch of a training, and the learning rate at its end."""
    rng = np.random.default_rng(0)
    data = {}
    for split, n in (("train", 24), ("val", 8), ("test", 8)):
        images = list(rng.integers(0, 256, (n, 16, 16, 3), dtype=np.uint8))
        targets = rng.integers(0, 2, (n, 4)).astype(np.uint8)
        data[split] = MultiLabelData("noise", split, images, targets, CLASSES, tuple(f"{split}{i}" for i in range(n)))
    config = Config(
        backbone="resnet8_cifar",
        backbone_settings={"widths": (8, 8, 8)},
        embed_dim=8,
        pretrained=False,
        image_size=16,
        epochs=2,
        batch_size=8,
        lr=1e-3,
    ).replace(**TRAININGS[name])
    history = fit("vanilla", data, config, runs=folder).history
    return [*history["bce"].tolist(), history["lr"].iloc[-1]]


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    return json.loads(RECORDED.read_text())


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_changed_loss_has_a_new_version(name: str, recorded: dict[str, Any]) -> None:
    values = recorded["methods"][name]
    assert METHODS[name].version == values["version"], "record the losses again (see above)"
    assert loss_terms(name) == pytest.approx(values["terms"], rel=TOLERANCE["rtol"], abs=TOLERANCE["atol"]), (
        f"The loss of {name!r} has changed: increase `version` of the method."
    )


@pytest.mark.parametrize("name", TRAININGS)
def test_a_changed_training_has_a_new_version(
    name: str, recorded: dict[str, Any], tmp_path: Path, own_cache: None
) -> None:
    assert recorded["version"] == identity.VERSION, "record the losses again (see above)"
    np.testing.assert_allclose(
        training(name, tmp_path),
        recorded["trainings"][name],
        err_msg="The training has changed: increase `mlkd.training.identity.VERSION`.",
        **TOLERANCE,
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        content = {
            "version": identity.VERSION,
            "methods": {
                name: {"version": METHODS[name].version, "terms": loss_terms(name)} for name in sorted(BUILT_IN)
            },
            "trainings": {name: training(name, Path(folder)) for name in TRAININGS},
        }
    RECORDED.write_text(json.dumps(content, indent=1) + "\n")
