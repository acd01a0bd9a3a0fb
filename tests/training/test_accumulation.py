"""Gradient accumulation: gradient and statistics of the slices, for every method, and which methods refuse it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mlkd.data import MultiLabelData
from mlkd.methods import METHODS, Batch, create_method
from mlkd.models import MultiLabelModel, Output, create_model
from mlkd.training.accumulation import forward_in_slices
from mlkd.training.config import Config
from mlkd.training.loop import fit

CLASSES = ("a", "b", "c", "d")
NEEDS_WHOLE_BATCH = {"ddgsd", "mulsupcon", "uskd"}


class Network(nn.Module):
    """A convolution, a normalization, dropout and a linear layer; records the number of images of each call."""

    def __init__(self, norm: nn.Module):
        super().__init__()
        self.conv, self.norm, self.linear = nn.Conv2d(3, 8, 3), norm, nn.Linear(8, 4)
        self.calls: list[int] = []

    def forward(self, images: Tensor) -> Output:
        self.calls.append(len(images))
        features = nn.functional.dropout(self.norm(self.conv(images)), 0.5, self.training).relu()
        return Output(self.linear(features.mean(dim=(2, 3))), None, features)


def batch_norm() -> nn.Module:
    return nn.BatchNorm2d(8)


def group_norm() -> nn.Module:
    return nn.GroupNorm(2, 8)


def network(norm: nn.Module) -> Network:
    torch.manual_seed(0)
    return Network(norm).double()


def pairwise_loss(output: Output) -> Tensor:
    """Compares the images of a batch."""
    return torch.cdist(output.logits, output.logits).square().sum() + output.features.square().mean()


def plain_slices(model: nn.Module, images: Tensor, num_slices: int) -> Output:
    """The reference: the slices in a loop, with all activations in memory."""
    edges = [len(images) * k // num_slices for k in range(num_slices + 1)]
    sizes = sorted((end - start for start, end in itertools.pairwise(edges)), reverse=True)
    logits, features, start = [], [], 0
    for size in sizes:
        output = model(images[start : start + size])
        logits.append(output.logits)
        features.append(output.features)
        start += size
    return Output(torch.cat(logits), None, torch.cat(features))


def gradients(model: Network, forward, images: Tensor, num_slices: int) -> list[Tensor]:
    torch.manual_seed(1)
    loss = pairwise_loss(forward(model, images, num_slices))
    return [loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))]


@settings(max_examples=15)
@given(b=st.integers(2, 9), num_slices=st.integers(1, 9), norm=st.sampled_from([batch_norm, group_norm]))
def test_gradient_dropout_and_statistics_equal_those_of_plain_slices(b: int, num_slices: int, norm) -> None:
    num_slices = min(num_slices, b)
    images = torch.rand(b, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(b))
    sliced, plain = network(norm()), network(norm())
    for _ in range(2):  # the second step starts with the running statistics of the first
        for actual, expected in zip(
            gradients(sliced, forward_in_slices, images, num_slices),
            gradients(plain, plain_slices, images, num_slices),
            strict=True,
        ):
            torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)
    for name, buffer in sliced.named_buffers():
        torch.testing.assert_close(buffer, plain.get_buffer(name), rtol=1e-12, atol=0)
    assert max(sliced.calls) == -(-b // num_slices)
    assert torch.equal(torch.rand(1), torch.rand(1)) is False  # the generator still advances


def test_gradient_equals_that_of_the_whole_batch_without_batch_norm() -> None:
    images = torch.rand(7, 3, 6, 6, dtype=torch.float64)
    model = network(group_norm()).eval()  # without dropout, whose random numbers depend on the slices
    whole = gradients(model, forward_in_slices, images, 1)
    for num_slices in (2, 3, 7, 20):
        for actual, expected in zip(gradients(model, forward_in_slices, images, num_slices), whole, strict=True):
            torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


@pytest.fixture(scope="module")
def convnext() -> dict[str, MultiLabelModel]:
    """A student and a teacher with layer norm, so that slices have no influence."""
    torch.manual_seed(0)
    return {name: create_model("test_convnext", CLASSES, image_size=32, embed_dim=8) for name in ("student", "teacher")}


@pytest.mark.parametrize("name", [name for name in METHODS if name not in NEEDS_WHOLE_BATCH])
def test_every_other_method_has_the_gradient_of_the_whole_batch(
    name: str, convnext: Mapping[str, MultiLabelModel]
) -> None:
    student, teacher = convnext["student"].train(), convnext["teacher"].eval()
    options = {"crop_mode": "corners"} if name == "mskd" else {}
    method = create_method(name, **options, **dict.fromkeys(METHODS[name].required_teachers, teacher))
    images = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 1], [0, 0, 1, 1], [1, 0, 1, 1], [1, 1, 0, 1]]).float()

    def step(num_slices: int) -> list[Tensor]:
        torch.manual_seed(1)
        auxiliary = method.build_auxiliary(student, len(images))
        parameters = [*student.parameters(), *(auxiliary.parameters() if auxiliary else ())]
        with torch.no_grad():
            teachers = dict.fromkeys(method.required_teachers, teacher(images))
        batch = Batch(
            images,
            targets,
            teachers=teachers,
            model=student,
            auxiliary=auxiliary,
            second_view=images.flip(-1),
            sample_indices=torch.arange(len(images)),
            epoch_fraction=0.5,
        )
        terms = method.loss_terms(forward_in_slices(student, images, num_slices), batch)
        gradient = torch.autograd.grad(torch.stack(list(terms.values())).sum(), parameters, allow_unused=True)
        return [torch.zeros(()) if value is None else value for value in gradient]

    whole, sliced = step(1), step(4)
    norm = torch.stack([value.norm() for value in whole]).norm()
    difference = torch.stack([(a - b).norm() for a, b in zip(whole, sliced, strict=True)]).norm()
    assert norm > 0
    assert difference < 1e-4 * norm


@pytest.mark.parametrize("name", sorted(NEEDS_WHOLE_BATCH))
def test_methods_that_need_the_whole_batch_refuse_it_before_training(
    name: str, toy_data: Mapping[str, MultiLabelData], toy_config: Config, tmp_path: Path
) -> None:
    message = rf"`grad_accum_steps` is 2, expected 1: the method '{name}' needs all images of a batch in one"
    with pytest.raises(ValueError, match=message):
        fit(name, toy_data, toy_config.replace(grad_accum_steps=2), runs=tmp_path)
    assert not list(tmp_path.iterdir())


def test_which_methods_need_the_whole_batch() -> None:
    assert {name for name, method in METHODS.items() if method.needs_whole_batch} == NEEDS_WHOLE_BATCH


@pytest.mark.usefixtures("own_cache")
def test_training_with_slices(
    toy_data: Mapping[str, MultiLabelData], toy_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = toy_config.replace(backbone="test_convnext", backbone_settings={}, head="gap", embed_dim=None, epochs=1)
    whole = fit("vanilla", toy_data, config, runs=tmp_path)
    sizes = []
    original = MultiLabelModel.forward
    monkeypatch.setattr(MultiLabelModel, "forward", lambda self, x: sizes.append(len(x)) or original(self, x))
    sliced = fit("vanilla", toy_data, config.replace(grad_accum_steps=3, eval_batch_size=25), runs=tmp_path)
    assert sliced.path != whole.path
    assert sizes == [*(6, 5, 5, 5, 5, 6) * 4, 25, 15, 25, 15, 25, 15]  # 4 steps forward and backward, val; val, test
    assert sliced.history["bce"][0] == pytest.approx(whole.history["bce"][0], rel=1e-4)
