"""Augmentation: each operation does what it says to each picture, and nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mlkd.data.augment import AUGMENTATIONS, augment, cutout, flip, randaugment


def noise(count: int, height: int = 16, width: int = 16) -> Tensor:
    """Pictures without symmetry and without the grey of a hole."""
    pictures = torch.randint(0, 127, (count, 3, height, width), dtype=torch.uint8, generator=torch.manual_seed(1))
    torch.manual_seed(0)
    return pictures


class TestFlip:
    def test_each_picture_mirrored_or_not(self) -> None:
        images = noise(600)
        mirrored = 0
        for before, after in zip(images, flip(images), strict=True):
            turned = torch.stack([before[:, :, 15 - c] for c in range(16)], dim=-1)
            assert torch.equal(after, before) or torch.equal(after, turned)
            mirrored += torch.equal(after, turned)
        assert 240 < mirrored < 360  # 300 expected, standard deviation 12


class TestCutout:
    @pytest.mark.parametrize("factor", [0.25, 0.5])
    @pytest.mark.parametrize(("height", "width"), [(32, 32), (16, 24)])
    def test_hole(self, factor: float, height: int, width: int) -> None:
        images = noise(300, height, width)
        whole = touching = 0
        for before, after in zip(images, cutout(images, factor), strict=True):
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
        covered = (cutout(images) == 127).any(dim=1).float().mean(dim=0)
        assert covered[2:6, 2:6].sub(0.25).abs().max() < 0.05  # half of the side, in both directions
        assert covered[0, 0] == pytest.approx((2.5 / 8) ** 2, abs=0.05)


class TestRandAugment:
    def test_pictures_are_treated_apart(self) -> None:
        images = noise(1).expand(24, -1, -1, -1).contiguous()
        after = randaugment(images)
        assert after.shape == images.shape
        assert after.dtype == torch.uint8
        assert len({bytes(picture.numpy().tobytes()) for picture in after}) > 8


@pytest.mark.parametrize("name", AUGMENTATIONS)
class TestAll:
    def test_the_seed_decides(self, name: str) -> None:
        images = noise(16)
        torch.manual_seed(5)
        first = augment(images, [name])
        assert torch.equal(first, _after_seed(5, images, name))
        assert not torch.equal(first, _after_seed(6, images, name))

    def test_input_stays(self, name: str) -> None:
        images = noise(8)
        before = images.clone()
        after = augment(images, [name])
        after.zero_()
        assert torch.equal(images, before)

    def test_one_picture(self, name: str) -> None:
        assert augment(noise(1, 8, 12), [name]).shape == (1, 3, 8, 12)

    def test_what_comes_out_is_like_what_went_in(self, name: str) -> None:
        after = augment(noise(4), [name])
        assert after.dtype == torch.uint8
        assert after.shape == (4, 3, 16, 16)
        assert not after.requires_grad


def _after_seed(seed: int, images: Tensor, name: str) -> Tensor:
    torch.manual_seed(seed)
    return augment(images, [name])


def test_in_the_order_given() -> None:
    images = noise(16)
    for names in (("flip", "cutout"), ("cutout", "flip"), ("flip", "randaugment")):
        torch.manual_seed(3)
        expected = images
        for name in names:
            expected = AUGMENTATIONS[name](expected)
        torch.manual_seed(3)
        assert torch.equal(augment(images, names), expected)
    assert torch.equal(augment(images, ()), images)


def test_unknown_name() -> None:
    with pytest.raises(ValueError, match=r"`augment` is 'cut_out'.*Did you mean 'cutout'"):
        augment(noise(1), ["cut_out"])
