"""The perturbation budget ε: the only place that projects, clips and rounds a perturbation.

ε is in pixel units (images live in [0, 1]), never in normalised units. A generator or an attack proposes a *pattern*;
this module turns it into a protected image that obeys the budget, whatever the pattern was (eq. 2 of the paper):

    z = clip(x + δ, 0, 1),   ‖δ‖ ≤ ε.

For p = ∞ the norm is max |δ|. For p = 1 and p = 2 it is taken per pixel (mean |δ|, root mean square of δ), so that ε keeps
its pixel unit and means the same for every image size. The plain norm is then at most ε·(C·H·W)^(1/p).
"""

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from pplkit import device as devices
from pplkit import storage
from pplkit.preconditions import check_whole

NORMS = ("inf", "2", "1")


def _check_epsilon(epsilon: float) -> float:
    if isinstance(epsilon, bool) or not isinstance(epsilon, (int, float)) or not 0.0 <= epsilon <= 1.0:
        raise ValueError(f"epsilon must be a number from 0 to 1 in pixel units (8/255 = 0.031), got {epsilon!r}")
    return float(epsilon)


def check_norm(norm: str | float) -> str:
    """"inf", "2" or "1" for a norm given as text or number (`math.inf`, 2, 1); ValueError for anything else."""
    name = "inf" if norm in (math.inf, "inf") else str(norm)
    if name not in NORMS:
        raise ValueError(f"norm must be one of 'inf', '2', '1', got {norm!r}")
    return name


def check_images(images: Tensor) -> Tensor:
    """Return `images` if they are uint8 of shape (N, C, H, W), else raise a ValueError that says what they are."""
    if not isinstance(images, Tensor) or images.dtype != torch.uint8 or images.ndim != 4:
        found = f"{images.dtype} {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
        raise ValueError(f"images must be a uint8 tensor of shape (N, C, H, W), got {found}")
    return images


def to_float(images: Tensor) -> Tensor:
    """uint8 images (N, C, H, W) in 0..255 -> float32 in [0, 1]."""
    return images.float() / 255


def format_epsilon(epsilon: float) -> str:
    """ε in pixel units and in grey levels.

    >>> format_epsilon(0.1)
    '0.100 (26/255)'
    """
    return f"{_check_epsilon(epsilon):.3f} ({math.floor(epsilon * 255 + 0.5)}/255)"


def _per_pixel_norm(perturbation: Tensor, norm: str) -> Tensor:
    flat = perturbation.flatten(1)  # (B, C*H*W)
    if norm == "inf":
        return flat.abs().amax(1)  # (B,)
    if norm == "2":
        # vector_norm has gradient 0 at 0, where the square root's is infinite
        return torch.linalg.vector_norm(flat, dim=1) / flat.shape[1] ** 0.5  # (B,)
    return flat.abs().mean(1)  # (B,)


def _scale_into_ball(perturbation: Tensor, epsilon: float, norm: str) -> Tensor:
    size = _per_pixel_norm(perturbation, norm)
    scale = torch.where(size > epsilon, epsilon / size.clamp_min(1e-12), torch.ones_like(size))
    return perturbation * scale.view(-1, 1, 1, 1)


def perturbation(pattern: Tensor, epsilon: float, norm: str | float = "inf") -> Tensor:
    """Turn a pattern into a perturbation δ within the budget. Differentiable.

    p = ∞: δ = ε · clamp(pattern, −1, 1).  p = 1, 2: δ = clamp(pattern, −1, 1), scaled down radially where its per-pixel norm
    exceeds ε (for p = 2 this is the Euclidean projection).

    Args:
        pattern: float (B, C, H, W); values outside [−1, 1] are clamped.
        epsilon: budget in pixel units, 0 to 1.
        norm: "inf", "2" or "1".

    Returns:
        δ, same shape and dtype, ‖δ‖ ≤ ε for every image.

    Raises:
        ValueError: ε outside [0, 1] or unknown norm.
    """
    epsilon, norm = _check_epsilon(epsilon), check_norm(norm)
    bounded = pattern.clamp(-1, 1)
    return epsilon * bounded if norm == "inf" else _scale_into_ball(bounded, epsilon, norm)


def adversarial(images: Tensor, pattern: Tensor, epsilon: float, norm: str | float = "inf") -> Tensor:
    """z = clip(x + δ, 0, 1), eq. (2), differentiable: what the generator is trained on.

    Args:
        images: clean images, float (B, C, H, W) in [0, 1].
        pattern: float (B, C, H, W), see `perturbation`.
        epsilon, norm: the budget.
    """
    return (images + perturbation(pattern, epsilon, norm)).clamp(0, 1)


def quantise(images: Tensor, adversarial_images: Tensor) -> Tensor:
    """Round adversarial images to the uint8 that gets published.

    The perturbation is rounded toward zero, not to the nearest grey level, so no norm of it can grow: an image within the
    budget stays within the budget, up to float32 resolution (4e-7 in pixel units).

    Args:
        images: clean images, uint8 (B, C, H, W).
        adversarial_images: float (B, C, H, W) in [0, 1].
    """
    change = (adversarial_images.float() * 255 - images.float()).clamp(-255, 255)
    steps = torch.trunc(change + torch.sign(change) * 1e-4)  # a float a hair under a whole step is that step
    return (images.to(torch.int16) + steps.to(torch.int16)).clamp(0, 255).to(torch.uint8)


def enforce(images: Tensor, adversarial_images: Tensor, epsilon: float, norm: str | float = "inf") -> Tensor:
    """Force any attack's output into the budget and round it: project (∞: clamp; 1, 2: scale), clip to [0, 1], quantise.

    Args:
        images: clean images, uint8 (B, C, H, W).
        adversarial_images: an attack's proposal, float (B, C, H, W) in pixel units.
        epsilon, norm: the budget.

    Returns:
        protected images, uint8 (B, C, H, W).

    Raises:
        ValueError: wrong dtype or shape, NaN in the proposal, bad budget.
    """
    epsilon, norm = _check_epsilon(epsilon), check_norm(norm)
    check_images(images)
    if adversarial_images.shape != images.shape:
        raise ValueError(f"adversarial images have shape {tuple(adversarial_images.shape)}, "
                         f"clean ones {tuple(images.shape)}: they must be equal")
    if not torch.isfinite(adversarial_images).all():
        raise ValueError("adversarial images contain NaN or infinity: the generator or attack diverged")
    clean = to_float(images)
    change = adversarial_images.float() - clean
    change = change.clamp(-epsilon, epsilon) if norm == "inf" else _scale_into_ball(change, epsilon, norm)
    return quantise(images, (clean + change).clamp(0, 1))


@torch.no_grad()
def protect(images: Tensor, generator: Callable[[Tensor], Tensor], epsilon: float, norm: str | float = "inf", *,
            batch_size: int = 512, device: str | torch.device | None = None, cache: str | Path | None = None) -> Tensor:
    """Protect images: x (uint8) -> z (uint8), within the budget whatever the generator returns.

    Args:
        images: uint8 (N, C, H, W).
        generator: callable, float images (B, C, H, W) in [0, 1] -> pattern (B, C, H, W); a module is put in eval mode.
        epsilon: budget in pixel units, 0 to 1.
        norm: "inf", "2" or "1".
        batch_size: images per forward pass, at least 1.
        device: where to run; default: the generator's device, else the images'.
        cache: folder for the protected pixels, for sets beyond memory: they lie in a file there, which vanishes with the
            returned tensor.

    Returns:
        protected images, uint8 (N, C, H, W), on the device of `images`, with `cache` on the CPU.

    Raises:
        ValueError: images not uint8 (N, C, H, W), bad ε or norm, a batch size below 1, NaN or a wrong shape from the generator.
        OutOfMemory: a batch does not fit; the message names the size to try.
    """
    epsilon, norm = _check_epsilon(epsilon), check_norm(norm)
    check_images(images)
    check_whole(batch_size, "batch_size")
    training = False
    if isinstance(generator, torch.nn.Module):
        training = generator.training
        generator.eval()
        device = device or next((p.device for p in generator.parameters()), images.device)
    protected = torch.empty_like(images) if cache is None else storage.scratch(tuple(images.shape), cache)
    try:
        for start in range(0, len(images), batch_size):
            with devices.memory_help(lambda: devices.try_fewer("protect", batch_size, "smaller images")):
                batch = images[start:start + batch_size].to(device or images.device)  # (B, C, H, W)
                clean = to_float(batch)
                pattern = generator(clean)
                if pattern.shape != clean.shape:
                    raise ValueError(f"the generator returned shape {tuple(pattern.shape)} for images of shape "
                                     f"{tuple(clean.shape)}: a pattern must have the images' shape")
                z = adversarial(clean, pattern.float(), epsilon, norm)
                protected[start:start + batch_size] = enforce(batch, z, epsilon, norm).to(protected.device)
    finally:
        if training:
            generator.train()
    return protected


def perturbation_norm(images: Tensor, protected: Tensor, norm: str | float = "inf") -> Tensor:
    """Per-image size of protected − clean in pixel units (per-pixel norm for p = 1, 2).

    Args:
        images, protected: uint8 (N, C, H, W).
        norm: "inf", "2" or "1".

    Returns:
        float32 (N,).

    Raises:
        ValueError: not uint8 (N, C, H, W) or of two shapes; unknown norm.
    """
    if check_images(images).shape != check_images(protected).shape:
        raise ValueError(f"clean images have shape {tuple(images.shape)}, protected ones {tuple(protected.shape)}: "
                         "they must be equal")
    return _per_pixel_norm(to_float(protected) - to_float(images), check_norm(norm))
