"""Augmentation: each operation does what it says to each picture, and nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mlkd.data.augmentation import AUGMENTATIONS, DRAWS, augment, crop, cutout, flip, is_flipped, randaugment


def draws(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, DRAWS, generator=torch.Generator().manual_seed(seed))


def noise(count: int, height: int = 16, width: int = 16) -> Tensor:
    """Pictures without symmetry and without the grey of a hole."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 127, (count, 3, height, width), dtype=torch.uint8, generator=generator)


class TestFlip:
    def test_each_picture_mirrored_or_not(self) -> None:
        images = noise(600)
        drawn = draws(600)
        for before, after, mirrored in zip(images, flip(images, drawn), is_flipped(drawn), strict=True):
            turned = torch.stack([before[:, :, 15 - c] for c in range(16)], dim=-1)
            assert torch.equal(after, turned if mirrored else before)
        assert 240 < is_flipped(drawn).sum() < 360  # 300 expected, standard deviation 12


class TestCutout:
    @pytest.mark.parametrize("factor", [0.25, 0.5])
    @pytest.mark.parametrize(("height", "width"), [(32, 32), (16, 24)])
    def test_hole(self, factor: float, height: int, width: int) -> None:
        images = noise(300, height, width)
        whole = touching = 0
        for before, after in zip(images, cutout(images, draws(300), factor), strict=True):
            hole = (after != before).any(dim=0)
            assert (after[:, hole] == 127).all()
            assert torch.equal(after[:, ~hole], before[:, ~hole])
            rows, columns = hole.any(dim=1).nonzero().flatten(), hole.any(dim=0).nonzero().flatten()
            assert hole.sum() == len(rows) * len(columns)  # a full rectangle
            for found, side in ((rows, height), (columns, width)):
                assert found[-1] - found[0] == len(found) - 1
                at_border = bool(found[0] == 0) or bool(found[-1] == side - 1)
                assert len(found) == factor * side or (at_border and factor * side / 2 <= len(found) + 1)
                touching += at_border
                whole += len(found) == factor * side
        # Along one axis the centre is uniform over the side, so a hole of this factor is clipped with that probability.
        assert whole / 600 == pytest.approx(1 - factor, abs=0.1)
        assert touching > 0

    def test_centres_are_everywhere(self) -> None:
        """Each pixel but those at the border is as likely to be covered."""
        images = noise(2000, 8, 8)
        covered = (cutout(images, draws(2000)) == 127).any(dim=1).float().mean(dim=0)
        assert covered[2:6, 2:6].sub(0.25).abs().max() < 0.05  # half of the side, in both directions
        assert covered[0, 0] == pytest.approx((2.5 / 8) ** 2, abs=0.05)


class TestRandAugment:
    def test_pictures_are_treated_apart(self) -> None:
        images = noise(1).expand(24, -1, -1, -1).contiguous()
        after = randaugment(images, draws(24))
        assert after.shape == images.shape
        assert after.dtype == torch.uint8
        assert len({bytes(picture.numpy().tobytes()) for picture in after}) > 8


class TestCrop:
    def test_a_part_enlarged(self) -> None:
        """Of pictures whose red grows to the right and whose green grows downwards, whatever is cut out does too."""
        ramp = torch.arange(64.0)
        image = torch.stack([ramp.expand(64, 64), ramp[:, None].expand(64, 64), torch.zeros(64, 64)]).to(torch.uint8)
        sides = []
        for after in crop(image.expand(200, -1, -1, -1), draws(200)):
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
        """The smallest part of a picture of four times four blocks, in a corner: two by two of the blocks."""
        image = torch.arange(1, 17, dtype=torch.uint8).view(4, 4).repeat_interleave(16, 0).repeat_interleave(16, 1)
        drawn = torch.zeros(1, DRAWS)
        drawn[0, 3:6] = torch.tensor([0.0, corner, corner])
        after = crop(image.expand(1, 3, -1, -1), drawn, smallest=0.25)[0, 0]
        first = 1 if corner == 0 else 11
        assert after[8, 8] == first
        assert after[8, 56] == first + 1
        assert after[56, 8] == first + 4


@pytest.mark.parametrize("name", AUGMENTATIONS)
class TestAll:
    def test_the_draws_decide(self, name: str) -> None:
        images = noise(16)
        first = augment(images, [name], draws(16, 5))
        torch.rand(3)
        assert torch.equal(first, augment(images, [name], draws(16, 5)))
        assert not torch.equal(first, augment(images, [name], draws(16, 6)))

    def test_the_global_generator_is_left_alone(self, name: str) -> None:
        before = torch.get_rng_state()
        augment(noise(4), [name], draws(4))
        assert torch.equal(torch.get_rng_state(), before)

    def test_input_stays(self, name: str) -> None:
        images = noise(8)
        before = images.clone()
        after = augment(images, [name], draws(8))
        after.zero_()
        assert torch.equal(images, before)

    def test_one_picture(self, name: str) -> None:
        assert augment(noise(1, 8, 12), [name], draws(1)).shape == (1, 3, 8, 12)

    def test_what_comes_out_is_like_what_went_in(self, name: str) -> None:
        after = augment(noise(4), [name], draws(4))
        assert after.dtype == torch.uint8
        assert after.shape == (4, 3, 16, 16)
        assert not after.requires_grad


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_a_picture_alone_is_as_in_its_batch(name: str) -> None:
    images, drawn = noise(8), draws(8)
    together = augment(images, [name], drawn)
    for index in range(8):
        alone = augment(images[index : index + 1], [name], drawn[index : index + 1])
        assert torch.equal(alone[0], together[index])


def test_in_the_order_given() -> None:
    images, drawn = noise(16), draws(16)
    for names in (("flip", "cutout"), ("cutout", "flip"), ("flip", "randaugment")):
        expected = images
        for name in names:
            expected = AUGMENTATIONS[name](expected, drawn)
        assert torch.equal(augment(images, names, drawn), expected)
    assert torch.equal(augment(images, (), drawn), images)


def test_unknown_name() -> None:
    with pytest.raises(ValueError, match=r"`augmentations` is 'cut_out'.*Did you mean 'cutout'"):
        augment(noise(1), ["cut_out"], draws(1))
