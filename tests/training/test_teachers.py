"""Kept answers: the same as the teacher's own, asked once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import mlkd
from mlkd.data import MultiLabelData
from mlkd.data.image_cache import decoded_images
from mlkd.methods import create_method
from mlkd.models import MultiLabelModel, create_model, fingerprint
from mlkd.training.config import Config
from mlkd.training.teachers import CachedTeacher, cache_teacher_outputs

CLASSES = ("a", "b", "c")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLKD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def net(head: str = "label_wise", seed: int = 0) -> MultiLabelModel:
    torch.manual_seed(seed)
    return create_model("resnet8_cifar", CLASSES, head, image_size=16, embed_dim=8, widths=(8, 8, 8)).eval()


def pictures(split: str, count: int) -> MultiLabelData:
    rng = np.random.default_rng(["train", "val", "test"].index(split))
    images = [rng.integers(0, 256, (16, 16, 3), dtype=np.uint8) for _ in range(count)]
    targets = rng.integers(0, 2, (count, 3)).astype(np.uint8)
    return MultiLabelData("toy", split, images, targets, CLASSES, tuple(f"{split}{i}" for i in range(count)))


def small(augment: tuple[str, ...]) -> Config:
    return Config(
        backbone="resnet8_cifar",
        backbone_settings={"widths": (8, 8, 8)},
        embed_dim=8,
        pretrained=False,
        image_size=16,
        epochs=2,
        batch_size=8,
        augmentations=augment,
    )


@pytest.mark.parametrize(("head", "wanted"), [("label_wise", True), ("label_wise", False), ("gap", True)])
@torch.no_grad()
def test_they_are_what_the_teacher_says(head: str, wanted: bool, tmp_path: Path) -> None:
    teacher, data = net(head), pictures("train", 130)  # more than the 128 that are asked at once
    asked = []

    def ask(images: torch.Tensor) -> mlkd.Output:
        asked.append(len(images))
        return teacher(images)

    pixels = decoded_images(data, 16)
    kept = cache_teacher_outputs(teacher, data, pixels, tmp_path / "kept", ask=ask, embeddings=wanted)
    assert sum(asked) == 260
    rows, mirrored = torch.tensor([3, 129, 5, 3]), torch.tensor([False, True, True, True])
    images = torch.from_numpy(np.array(pixels[rows.numpy()])).permute(0, 3, 1, 2)
    seen = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
    said, expected = kept.answer(rows, mirrored), teacher(seen)
    torch.testing.assert_close(said.logits, expected.logits)
    if head == "gap" or not wanted:
        assert said.embeddings is None
    else:
        assert said.embeddings is not None
        torch.testing.assert_close(said.embeddings, expected.embeddings)
    assert said.features is None
    assert kept.has_embeddings == (said.embeddings is not None)
    assert (kept.classes, kept.image_size, kept.fingerprint) == (CLASSES, 16, fingerprint(teacher))
    cache_teacher_outputs(teacher, data, pixels, tmp_path / "kept", ask=ask, embeddings=wanted)
    assert sum(asked) == 260  # read, not asked again


def test_other_answers_in_the_folder_are_told(tmp_path: Path) -> None:
    data = pictures("train", 6)
    pixels, folder = decoded_images(data, 16), tmp_path / "kept"
    cache_teacher_outputs(net(), data, pixels, folder, embeddings=False)
    with pytest.raises(ValueError, match="kept: there are another teacher's answers in this folder"):
        cache_teacher_outputs(net(seed=9), data, pixels, folder, embeddings=False)
    with pytest.raises(ValueError, match="kept: there are no embeddings in this folder; choose a new one"):
        cache_teacher_outputs(net(), data, pixels, folder)
    with pytest.raises(ValueError, match="asked about pictures of 16 pixels, but the training's `image_size` is 24"):
        cache_teacher_outputs(net(), data, decoded_images(data, 24), folder, embeddings=False)
    with pytest.raises(ValueError, match="asked about other pictures"):
        cache_teacher_outputs(net(), pictures("train", 5), pixels, folder, embeddings=False)
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        ValueError, match=r"empty: no kept answers.*`mlkd cache-teacher MODEL FOLDER` makes them in a new"
    ):
        cache_teacher_outputs(net(), data, pixels, tmp_path / "empty")


def test_an_interruption_leaves_nothing(tmp_path: Path) -> None:
    def ask(images: torch.Tensor) -> mlkd.Output:
        raise KeyboardInterrupt

    data = pictures("train", 4)
    with pytest.raises(KeyboardInterrupt):
        cache_teacher_outputs(net(), data, decoded_images(data, 16), tmp_path / "answers" / "kept", ask=ask)
    assert not list((tmp_path / "answers").iterdir())


@pytest.mark.parametrize("augmentations", [(), ("flip",)])
@pytest.mark.parametrize("name", ["l2d", "mld", "rkd"])
def test_a_training_with_them_is_the_same(name: str, augment: tuple[str, ...], tmp_path: Path) -> None:
    """Also for a method that compares feature maps, which are asked for at every step."""
    data = {split: pictures(split, 24) for split in ("train", "val", "test")}
    config = small(augment)
    histories = []
    for keep in (False, True):
        method = create_method(name, teacher=net(seed=5))
        run = mlkd.fit(method, data, config.replace(cache_teacher_outputs=keep), runs=tmp_path / str(keep))
        histories.append(run.history.drop(columns=["seconds", "images_per_second"]))
    np.testing.assert_allclose(histories[0], histories[1], rtol=1e-4)


def test_only_for_fixed_views() -> None:
    with pytest.raises(ValueError, match="`cache_teacher_outputs` is on, but `augmentations` has 'cutout'"):
        Config(cache_teacher_outputs=True, augmentations=("flip", "cutout"))


def test_no_teacher_present(tmp_path: Path) -> None:
    """A student learns from a folder of answers as it does from the teacher, and is the same run."""
    data = {split: pictures(split, 24) for split in ("train", "val", "test")}
    cache_teacher_outputs(net(seed=5), data["train"], decoded_images(data["train"], 16), tmp_path / "kept")
    runs = [
        mlkd.fit(create_method("l2d", teacher=teacher), data, small(("flip",)), runs=tmp_path / str(number))
        for number, teacher in enumerate((net(seed=5), CachedTeacher(tmp_path / "kept")))
    ]
    assert runs[0].path.name == runs[1].path.name
    times = ["seconds", "images_per_second"]
    np.testing.assert_allclose(*(run.history.drop(columns=times) for run in runs), rtol=1e-4)


def test_what_does_not_fit_is_told(tmp_path: Path) -> None:
    data = {split: pictures(split, 24) for split in ("train", "val", "test")}
    kept = cache_teacher_outputs(
        net(), data["train"], decoded_images(data["train"], 16), tmp_path / "kept", embeddings=False
    )
    with pytest.raises(
        ValueError, match=r"`augmentations` is \['cutout'\], but .*kept has the teacher's answers to each"
    ):
        mlkd.fit(create_method("mld", teacher=kept), data, small(("cutout",)), runs=tmp_path)
    with pytest.raises(ValueError, match="'l2d' distils label-wise embeddings, which the teacher's"):
        mlkd.fit(create_method("l2d", teacher=kept), data, small(()), runs=tmp_path)
    with pytest.raises(ValueError, match=r"'rkd' compares feature maps, which .*kept does not keep"):
        mlkd.fit(create_method("rkd", teacher=kept), data, small(()), runs=tmp_path)
    with pytest.raises(ValueError, match="asked about other pictures than those of toy train"):
        mlkd.fit(create_method("mld", teacher=kept), {**data, "train": pictures("train", 20)}, small(()), runs=tmp_path)
    with pytest.raises(ValueError, match="`image_size` is 24; `mlkd cache-teacher --image-size 24`"):
        mlkd.fit(create_method("mld", teacher=kept), data, small(()).replace(image_size=24), runs=tmp_path)
    for content in (None, "{}", "{"):
        if content is not None:
            (tmp_path / "answers.json").write_text(content)
        with pytest.raises(ValueError, match=r"answers\.json is missing or broken"):
            CachedTeacher(tmp_path)
