"""Cached teacher outputs: the same as the teacher's, evaluated once."""

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


def network(head: str = "label_wise", seed: int = 0) -> MultiLabelModel:
    torch.manual_seed(seed)
    return create_model("resnet8_cifar", CLASSES, head, image_size=16, embed_dim=8, widths=(8, 8, 8)).eval()


def noise(split: str, count: int) -> MultiLabelData:
    rng = np.random.default_rng(["train", "val", "test"].index(split))
    images = [rng.integers(0, 256, (16, 16, 3), dtype=np.uint8) for _ in range(count)]
    targets = rng.integers(0, 2, (count, 3)).astype(np.uint8)
    return MultiLabelData("toy", split, images, targets, CLASSES, tuple(f"{split}{i}" for i in range(count)))


def small(augmentations: tuple[str, ...]) -> Config:
    return Config(
        backbone="resnet8_cifar",
        backbone_settings={"widths": (8, 8, 8)},
        embed_dim=8,
        pretrained=False,
        image_size=16,
        epochs=2,
        batch_size=8,
        augmentations=augmentations,
    )


@pytest.mark.parametrize(("head", "wanted"), [("label_wise", True), ("label_wise", False), ("gap", True)])
@torch.no_grad()
def test_cached_outputs_are_those_of_the_teacher(head: str, wanted: bool, tmp_path: Path) -> None:
    teacher, data = network(head), noise("train", 130)  # more than one batch of 128
    batch_sizes = []

    def forward(images: torch.Tensor) -> mlkd.Output:
        batch_sizes.append(len(images))
        return teacher(images)

    pixels = decoded_images(data, 16)
    cached = cache_teacher_outputs(teacher, data, pixels, tmp_path / "cached", forward=forward, embeddings=wanted)
    assert sum(batch_sizes) == 260
    indices, hflipped = torch.tensor([3, 129, 5, 3]), torch.tensor([False, True, True, True])
    images = torch.from_numpy(np.array(pixels[indices.numpy()])).permute(0, 3, 1, 2)
    views = torch.where(hflipped[:, None, None, None], images.flip(-1), images)
    output, expected = cached.lookup(indices, hflipped), teacher(views)
    torch.testing.assert_close(output.logits, expected.logits)
    if head == "gap" or not wanted:
        assert output.embeddings is None
    else:
        assert output.embeddings is not None
        torch.testing.assert_close(output.embeddings, expected.embeddings)
    assert output.features is None
    assert cached.has_embeddings == (output.embeddings is not None)
    assert (cached.classes, cached.image_size, cached.fingerprint) == (CLASSES, 16, fingerprint(teacher))
    cache_teacher_outputs(teacher, data, pixels, tmp_path / "cached", forward=forward, embeddings=wanted)
    assert sum(batch_sizes) == 260  # read, not evaluated again


def test_a_folder_with_other_outputs_is_an_error(tmp_path: Path) -> None:
    data = noise("train", 6)
    pixels, folder = decoded_images(data, 16), tmp_path / "cached"
    cache_teacher_outputs(network(), data, pixels, folder, embeddings=False)
    with pytest.raises(ValueError, match="cached: this folder has the outputs of another teacher; choose a new one"):
        cache_teacher_outputs(network(seed=9), data, pixels, folder, embeddings=False)
    with pytest.raises(
        ValueError, match="cached: this folder has the teacher's outputs without embeddings; choose a new one"
    ):
        cache_teacher_outputs(network(), data, pixels, folder)
    with pytest.raises(ValueError, match="evaluated on images of 16 pixels, but the training's `image_size` is 24"):
        cache_teacher_outputs(network(), data, decoded_images(data, 24), folder, embeddings=False)
    with pytest.raises(ValueError, match="evaluated on other images"):
        cache_teacher_outputs(network(), noise("train", 5), pixels, folder, embeddings=False)
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        ValueError, match=r"empty: no cached teacher outputs.*`mlkd cache-teacher MODEL FOLDER` writes them to a new"
    ):
        cache_teacher_outputs(network(), data, pixels, tmp_path / "empty")


def test_an_interruption_leaves_no_files(tmp_path: Path) -> None:
    def forward(images: torch.Tensor) -> mlkd.Output:
        raise KeyboardInterrupt

    data = noise("train", 4)
    with pytest.raises(KeyboardInterrupt):
        cache_teacher_outputs(
            network(), data, decoded_images(data, 16), tmp_path / "outputs" / "cached", forward=forward
        )
    assert not list((tmp_path / "outputs").iterdir())


@pytest.mark.parametrize("augmentations", [(), ("flip",)])
@pytest.mark.parametrize("name", ["l2d", "mld", "rkd"])
def test_training_with_cached_outputs_gives_the_same_history(
    name: str, augmentations: tuple[str, ...], tmp_path: Path
) -> None:
    """Also for a method that compares feature maps, whose teacher is evaluated at every step."""
    data = {split: noise(split, 24) for split in ("train", "val", "test")}
    config = small(augmentations)
    histories = []
    for cached in (False, True):
        method = create_method(name, teacher=network(seed=5))
        run = mlkd.fit(method, data, config.replace(cache_teacher_outputs=cached), runs=tmp_path / str(cached))
        histories.append(run.history.drop(columns=["seconds", "images_per_second"]))
    np.testing.assert_allclose(histories[0], histories[1], rtol=1e-4)


def test_students_share_the_cached_outputs(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The teacher is evaluated once, in the first training; a bf16 training has outputs of its own."""
    data, teacher, calls = {split: noise(split, 24) for split in ("train", "val", "test")}, network(seed=5), []
    teacher.register_forward_hook(lambda *_: calls.append(1))
    config = small(("flip",)).replace(cache_teacher_outputs=True)
    counts = []
    for changes in ({"seed": 0}, {"seed": 1}, {"precision": "bf16"}):
        mlkd.fit(create_method("l2d", teacher=teacher), data, config.replace(**changes), runs=tmp_path)
        counts.append((len(calls), len(list((cache / "teacher_outputs").glob("*/teacher.json")))))
    assert counts == [(2, 1), (2, 1), (4, 2)]  # one batch of 24 images, original and flipped


def test_cache_teacher_outputs_requires_fixed_views() -> None:
    with pytest.raises(ValueError, match=r"`cache_teacher_outputs` is on, but `augmentations` is \['flip', 'cutout'\]"):
        Config(cache_teacher_outputs=True, augmentations=("flip", "cutout"))


def test_training_without_the_teacher(tmp_path: Path) -> None:
    """A student distilled from a folder of cached outputs is the same run as with the teacher."""
    data = {split: noise(split, 24) for split in ("train", "val", "test")}
    cache_teacher_outputs(network(seed=5), data["train"], decoded_images(data["train"], 16), tmp_path / "cached")
    runs = [
        mlkd.fit(create_method("l2d", teacher=teacher), data, small(("flip",)), runs=tmp_path / str(number))
        for number, teacher in enumerate((network(seed=5), CachedTeacher(tmp_path / "cached")))
    ]
    assert runs[0].path.name == runs[1].path.name
    times = ["seconds", "images_per_second"]
    np.testing.assert_allclose(*(run.history.drop(columns=times) for run in runs), rtol=1e-4)


def test_cached_outputs_that_do_not_fit_are_an_error(tmp_path: Path) -> None:
    data = {split: noise(split, 24) for split in ("train", "val", "test")}
    cached = cache_teacher_outputs(
        network(), data["train"], decoded_images(data["train"], 16), tmp_path / "cached", embeddings=False
    )
    with pytest.raises(
        ValueError, match=r"`augmentations` is \['cutout'\], but .*cached has the teacher's outputs for each"
    ):
        mlkd.fit(create_method("mld", teacher=cached), data, small(("cutout",)), runs=tmp_path)
    with pytest.raises(ValueError, match="'l2d' distills label-wise embeddings, which the teacher's"):
        mlkd.fit(create_method("l2d", teacher=cached), data, small(()), runs=tmp_path)
    with pytest.raises(ValueError, match=r"'rkd' compares feature maps, which .*cached does not have"):
        mlkd.fit(create_method("rkd", teacher=cached), data, small(()), runs=tmp_path)
    with pytest.raises(ValueError, match=r"'cam-kd' distills the class activation maps of one network.*CachedTeacher"):
        mlkd.fit(create_method("cam-kd", teacher=cached), data, small(()), runs=tmp_path)
    with pytest.raises(ValueError, match="evaluated on other images than those of toy train"):
        mlkd.fit(create_method("mld", teacher=cached), {**data, "train": noise("train", 20)}, small(()), runs=tmp_path)
    with pytest.raises(ValueError, match=r"`image_size` is 24; use `mlkd cache-teacher --set student.image_size=24`"):
        mlkd.fit(create_method("mld", teacher=cached), data, small(()).replace(image_size=24), runs=tmp_path)
    for content in (None, "{}", "{"):
        if content is not None:
            (tmp_path / "teacher.json").write_text(content)
        with pytest.raises(ValueError, match=r"teacher\.json is missing or not valid"):
            CachedTeacher(tmp_path)


DAMAGE = {
    "missing": (None, "logits.npy: cannot be read"),
    "empty": (b"", "logits.npy: cannot be read"),
    "cut off": (b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order'", "logits.npy: cannot be read"),
    "other numbers": (np.zeros((2, 24, 3)), "logits.npy: has float64 of shape (2, 24, 3)"),
    "one view": (np.zeros((1, 24, 3), np.float32), "logits.npy: has float32 of shape (1, 24, 3)"),
    "other classes": (np.zeros((2, 24, 5), np.float32), "logits.npy: has 5 classes, teacher.json 3"),
    "nan": (np.full((2, 24, 3), np.nan, np.float32), "logits.npy: has values that are not finite"),
    "other images": (np.zeros((2, 20, 3), np.float32), "embeddings.npy: has another number of images"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_cached_outputs_are_named(case: str, tmp_path: Path) -> None:
    content, message = DAMAGE[case]
    data, folder = noise("train", 24), tmp_path / "outputs"
    cache_teacher_outputs(network(), data, decoded_images(data, 16), folder)
    (folder / "logits.npy").unlink()
    if isinstance(content, bytes):
        (folder / "logits.npy").write_bytes(content)
    elif content is not None:
        np.save(folder / "logits.npy", content)
    with pytest.raises(ValueError, match=r"Remove the folder .*; `mlkd cache-teacher MODEL FOLDER`") as caught:
        CachedTeacher(folder)
    assert f"{folder}/{message}" in str(caught.value)


def test_changed_cached_outputs_are_refused(tmp_path: Path) -> None:
    teacher, data = network(), noise("train", 12)
    folder = cache_teacher_outputs(teacher, data, decoded_images(data, 16), tmp_path / "outputs").folder
    logits = np.load(folder / "logits.npy")
    np.save(folder / "logits.npy", logits + 1)
    with pytest.raises(ValueError, match=r"logits\.npy: has changed since it was written"):
        CachedTeacher(folder)
    np.save(folder / "logits.npy", logits)
    assert np.array_equal(CachedTeacher(folder).logits, logits)


def test_cached_outputs_of_other_images_with_the_same_ids_are_refused(tmp_path: Path) -> None:
    teacher, data = network(), noise("train", 12)
    cached = cache_teacher_outputs(teacher, data, decoded_images(data, 16), tmp_path / "outputs")
    other = noise("val", 12)
    other = MultiLabelData("toy", "train", other.images, data.targets, CLASSES, data.ids)
    with pytest.raises(ValueError, match="expected the same images in the same order"):
        cached.check(other, 16)
