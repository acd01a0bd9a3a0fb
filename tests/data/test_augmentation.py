"""Augmentations of a batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mlkd.data.augmentation import (
    AUGMENTATIONS,
    DRAWS,
    augment,
    cutout,
    hflip,
    is_flipped,
    randaugment,
    random_resized_crop,
)


def draws(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, DRAWS, generator=torch.Generator().manual_seed(seed))


def noise(count: int, height: int = 16, width: int = 16) -> Tensor:
    """Images without symmetry and without the gray value of cutout."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 127, (count, 3, height, width), dtype=torch.uint8, generator=generator)


class TestHflip:
    def test_half_of_the_images_are_flipped(self) -> None:
        images = noise(600)
        numbers = draws(600)
        for before, after, is_flip in zip(images, hflip(images, numbers), is_flipped(numbers), strict=True):
            flipped = torch.stack([before[:, :, 15 - c] for c in range(16)], dim=-1)
            assert torch.equal(after, flipped if is_flip else before)
        assert 240 < is_flipped(numbers).sum() < 360  # 300 expected, standard deviation 12


class TestCutout:
    @pytest.mark.parametrize("factor", [0.25, 0.5])
    @pytest.mark.parametrize(("height", "width"), [(32, 32), (16, 24)])
    def test_hole(self, factor: float, height: int, width: int) -> None:
        images = noise(300, height, width)
        complete = clipped = 0
        for before, after in zip(images, cutout(images, draws(300), factor), strict=True):
            hole = (after != before).any(dim=0)
            assert (after[:, hole] == 127).all()
            assert torch.equal(after[:, ~hole], before[:, ~hole])
            rows, columns = hole.any(dim=1).nonzero().flatten(), hole.any(dim=0).nonzero().flatten()
            assert hole.sum() == len(rows) * len(columns)  # a filled rectangle
            for covered, side in ((rows, height), (columns, width)):
                assert covered[-1] - covered[0] == len(covered) - 1
                at_border = bool(covered[0] == 0) or bool(covered[-1] == side - 1)
                assert len(covered) == factor * side or (at_border and factor * side / 2 <= len(covered) + 1)
                clipped += at_border
                complete += len(covered) == factor * side
        # Along one axis the center is uniform over the side, so a hole of this factor is clipped with that probability.
        assert complete / 600 == pytest.approx(1 - factor, abs=0.1)
        assert clipped > 0

    def test_centers_are_uniform(self) -> None:
        """Pixels away from the border are covered with the same probability."""
        images = noise(2000, 8, 8)
        covered = (cutout(images, draws(2000)) == 127).any(dim=1).float().mean(dim=0)
        assert covered[2:6, 2:6].sub(0.25).abs().max() < 0.05  # half of the side, in both directions
        assert covered[0, 0] == pytest.approx((2.5 / 8) ** 2, abs=0.05)


class TestRandAugment:
    def test_each_image_has_its_own_operations(self) -> None:
        images = noise(1).expand(24, -1, -1, -1).contiguous()
        after = randaugment(images, draws(24))
        assert after.shape == images.shape
        assert after.dtype == torch.uint8
        assert len({bytes(image.numpy().tobytes()) for image in after}) > 8


class TestRandomResizedCrop:
    def test_area_and_aspect_ratio(self) -> None:
        """Red increases to the right and green downwards, in the image and so in each crop."""
        ramp = torch.arange(64.0)
        image = torch.stack([ramp.expand(64, 64), ramp[:, None].expand(64, 64), torch.zeros(64, 64)]).to(torch.uint8)
        sides = []
        for after in random_resized_crop(image.expand(200, -1, -1, -1), draws(200)):
            red, green = after[0].float(), after[1].float()
            width, height = (red[:, -1] - red[:, 0]).mean() / 63, (green[-1] - green[0]).mean() / 63
            assert abs(width - height) < 0.04
            assert (red.diff(dim=1) >= 0).all()
            assert (green.diff(dim=0) >= 0).all()
            sides.append(float(width))
        assert 0.5**0.5 - 0.04 < min(sides) < 0.75
        assert 0.95 < max(sides) <= 1

    @pytest.mark.parametrize("corner", [0.0, 1 - 1e-6])
    def test_corners(self, corner: float) -> None:
        """The smallest crop of an image of 4 x 4 blocks, in a corner: 2 x 2 blocks."""
        image = torch.arange(1, 17, dtype=torch.uint8).view(4, 4).repeat_interleave(16, 0).repeat_interleave(16, 1)
        numbers = torch.zeros(1, DRAWS)
        numbers[0, 3:6] = torch.tensor([0.0, corner, corner])
        after = random_resized_crop(image.expand(1, 3, -1, -1), numbers, min_area=0.25)[0, 0]
        first = 1 if corner == 0 else 11
        assert after[8, 8] == first
        assert after[8, 56] == first + 1
        assert after[56, 8] == first + 4


@pytest.mark.parametrize("name", AUGMENTATIONS)
class TestAll:
    def test_result_follows_from_the_draws(self, name: str) -> None:
        images = noise(16)
        first = augment(images, [name], draws(16, 5))
        torch.rand(3)
        assert torch.equal(first, augment(images, [name], draws(16, 5)))
        assert not torch.equal(first, augment(images, [name], draws(16, 6)))

    def test_global_generator_is_unchanged(self, name: str) -> None:
        before = torch.get_rng_state()
        augment(noise(4), [name], draws(4))
        assert torch.equal(torch.get_rng_state(), before)

    def test_input_is_unchanged(self, name: str) -> None:
        images = noise(8)
        before = images.clone()
        after = augment(images, [name], draws(8))
        after.zero_()
        assert torch.equal(images, before)

    def test_shape_and_dtype(self, name: str) -> None:
        after = augment(noise(4, 8, 12), [name], draws(4))
        assert after.dtype == torch.uint8
        assert after.shape == (4, 3, 8, 12)
        assert not after.requires_grad

    def test_single_image_equals_its_batch(self, name: str) -> None:
        images, numbers = noise(8), draws(8)
        batch = augment(images, [name], numbers)
        for index in range(8):
            single = augment(images[index : index + 1], [name], numbers[index : index + 1])
            assert torch.equal(single[0], batch[index])


def test_order() -> None:
    images, numbers = noise(16), draws(16)
    for names in (("flip", "cutout"), ("cutout", "flip"), ("flip", "randaugment")):
        expected = images
        for name in names:
            expected = AUGMENTATIONS[name](expected, numbers)
        assert torch.equal(augment(images, names, numbers), expected)
    assert torch.equal(augment(images, (), numbers), images)


def test_unknown_name() -> None:
    with pytest.raises(ValueError, match=r"`augmentations` is 'cut_out'.*Did you mean 'cutout'"):
        augment(noise(1), ["cut_out"], draws(1))
