"""How much of a perturbation an eye can see: PSNR and SSIM of protected images, one value per image."""

import torch
from torch import Tensor

from pplkit.budget import check_images


def _check_pair(images: Tensor, protected: Tensor) -> None:
    if check_images(images).shape != check_images(protected).shape:
        raise ValueError(f"clean images have shape {tuple(images.shape)}, protected ones {tuple(protected.shape)}: "
                         "they must be equal")


def psnr(images: Tensor, protected: Tensor) -> Tensor:
    """Peak signal-to-noise ratio, 10 log10(255² / MSE), in decibels; larger is more alike, infinite for equal images.

    Args:
        images, protected: uint8 (N, C, H, W).

    Returns:
        float32 (N,).

    Raises:
        ValueError: not uint8 (N, C, H, W), or of two shapes.
    """
    _check_pair(images, protected)
    error = (protected.float() - images.float()).square().flatten(1).mean(1)  # (N,)
    return 10 * torch.log10(255**2 / error)


def ssim(images: Tensor, protected: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004), mean over windows of 7 × 7 pixels and channels; 1 for equal images.

    Args:
        images, protected: uint8 (N, C, H, W), at least 7 × 7 pixels.

    Returns:
        float32 (N,), at most 1.

    Raises:
        ValueError: not uint8 (N, C, H, W), of two shapes, or smaller than a window.
    """
    from skimage.metrics import structural_similarity  # 0.5 s to import, needed in notebooks only

    _check_pair(images, protected)
    if min(images.shape[2:]) < 7:
        raise ValueError(f"SSIM looks at windows of 7 x 7 pixels, got images of {images.shape[2]} x {images.shape[3]}")
    pairs = zip(images.cpu().numpy(), protected.cpu().numpy(), strict=True)
    return torch.tensor([structural_similarity(a, b, channel_axis=0, data_range=255) for a, b in pairs], dtype=torch.float32)
