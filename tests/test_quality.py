"""PSNR and SSIM against numbers by hand, loops and scikit-image."""

import math

import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from pplkit.quality import psnr, ssim


@pytest.fixture
def pairs():
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (5, 3, 12, 9), generator=random, dtype=torch.uint8)
    noise = torch.randint(-40, 41, images.shape, generator=random)
    return images, (images.int() + noise).clamp(0, 255).to(torch.uint8)


def test_psnr_by_hand():
    black = torch.zeros(3, 1, 2, 2, dtype=torch.uint8)
    other = black.clone()
    other[0] = 255  # the largest error there is
    other[1, 0, 0, 0] = 51  # MSE = 51²/4 = (255/10)²
    assert psnr(black, other)[:2].tolist() == pytest.approx([0, 20], abs=1e-5)
    assert psnr(black, other)[2] == math.inf


def test_both_agree_with_scikit_image(pairs):
    images, protected = pairs
    for ours, theirs in (
        (psnr(images, protected), lambda a, b: peak_signal_noise_ratio(a, b, data_range=255)),
        (ssim(images, protected), lambda a, b: structural_similarity(a, b, channel_axis=0, data_range=255)),
    ):
        assert ours.shape == (5,) and ours.dtype == torch.float32
        for value, a, b in zip(ours.tolist(), images.numpy(), protected.numpy(), strict=True):
            assert value == pytest.approx(theirs(a, b), rel=1e-5)


def test_no_wrap_around_and_no_order(pairs):
    images, protected = pairs
    assert torch.equal(psnr(images, protected), psnr(protected, images))
    assert torch.allclose(ssim(images, images), torch.ones(5))
    white = torch.full_like(images, 255)
    assert torch.allclose(psnr(white, torch.zeros_like(white)), torch.zeros(5))


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_refusals(measure, pairs):
    images, protected = pairs
    with pytest.raises(ValueError, match="uint8"):
        measure(images.float(), protected)
    with pytest.raises(ValueError, match="must be equal"):
        measure(images, protected[:2])


def test_ssim_needs_a_window(pairs):
    with pytest.raises(ValueError, match="7 x 7"):
        ssim(pairs[0][:, :, :6], pairs[1][:, :, :6])
