"""Baselines that need no labels and no network: linear hashes of the pixels.

A linear hash has one direction per bit: h(x) = sign(Pᵀ(x − x̄)), x̄ the mean image, P (D, c), D = C·H·W pixels.

- Random projections: P is drawn, not learned (Charikar, STOC 2002).
- ITQ, iterative quantisation: P = WR, the c leading principal components W turned by the rotation R that brings
  them closest to binary (Gong & Lazebnik, CVPR 2011).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from pplkit.budget import check_images, to_float
from pplkit.hashing.network import sign
from pplkit.preconditions import check_whole


@dataclass(frozen=True, eq=False)
class LinearHash:
    """h(x) = sign(Pᵀ(x − x̄)) on pixels in [0, 1].

    Attributes:
        mean: x̄, float (D,).
        directions: P, float (D, c), one column per bit.
        history: what the fit minimised, one value per iteration; empty where nothing was fitted.
    """

    mean: Tensor
    directions: Tensor
    history: tuple[float, ...] = ()

    def project(self, images: Tensor) -> Tensor:
        """Pᵀ(x − x̄), the numbers whose signs are the bits.

        Args:
            images: uint8 (N, C, H, W) with C·H·W = D; taken to [0, 1] here.

        Returns:
            float32 (N, c).

        Raises:
            ValueError: not uint8 (N, C, H, W), or of another number of pixel values than the hash was made for.
        """
        check_images(images)
        pixels = to_float(images).flatten(1)  # (N, D)
        if pixels.shape[1] != len(self.mean):
            raise ValueError(
                f"images have {pixels.shape[1]} pixel values, the hash was made for {len(self.mean)}; "
                "encode images of the size that it was fitted on"
            )
        return (pixels - self.mean) @ self.directions  # (N, c)

    def encode(self, images: Tensor) -> Tensor:
        """Binary codes of uint8 images (N, C, H, W): int8 (N, c) in {−1, +1}, sign(0) = +1; errors as `project`."""
        return sign(self.project(images))


def random_projection(images: Tensor, bits: int, seed: int = 0) -> LinearHash:
    """Directions drawn from a standard normal distribution; only the mean image is taken from the data.

    The hyperplane of a bit separates two centred images with probability angle/π, so the expected Hamming
    distance is c·angle/π (Charikar, STOC 2002).

    Args:
        images: uint8 (N, C, H, W), N > 0.
        bits: c ≥ 1.
        seed: seed of the directions; the first columns do not depend on `bits`.

    Raises:
        ValueError: images that are not uint8 (N, C, H, W), none at all, or bits below 1.
    """
    mean = _mean(images, bits)
    random = torch.Generator().manual_seed(seed)
    columns = [torch.randn(len(mean), generator=random) for _ in range(bits)]  # one draw per bit: prefixes agree
    return LinearHash(mean, torch.stack(columns, 1).to(mean.device))  # (D, c)


def principal_components(images: Tensor, bits: int) -> LinearHash:
    """The c orthonormal directions along which the images vary most, the largest variance first.

    The sign of a direction is free; its entry of largest magnitude is made positive, so that every machine
    gets the same one.

    Args:
        images: uint8 (N, C, H, W), N > 0; the D × D covariance must fit into memory.
        bits: c, 1..D.

    Raises:
        ValueError: images that are not uint8 (N, C, H, W), none at all, or bits outside 1..D.
    """
    mean = _mean(images, bits)
    if bits > len(mean):
        raise ValueError(f"bits is {bits}, but images of {len(mean)} pixel values have no more than {len(mean)} components")
    centred = (to_float(images).flatten(1) - mean).double()  # (N, D)
    vectors = torch.linalg.eigh(centred.T @ centred).eigenvectors.flip(1)[:, :bits]  # (D, c)
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))  # (1, c)
    return LinearHash(mean, (vectors * largest.sign()).float())


def rotation(projected: Tensor, codes: Tensor) -> Tensor:
    """The orthogonal matrix nearest to taking V to B: argmin_R ‖B − VR‖², RᵀR = I (orthogonal Procrustes).

    With the singular value decomposition VᵀB = A Σ Cᵀ it is R = A Cᵀ.

    Args:
        projected: V, float (N, c).
        codes: B, (N, c) in {−1, +1}.

    Returns:
        R, float (c, c), of V's dtype.

    Raises:
        ValueError: V and B of different shape.
    """
    if projected.ndim != 2 or projected.shape != codes.shape:
        raise ValueError(f"V and B must be (N, c) both, got {tuple(projected.shape)} and {tuple(codes.shape)}")
    left, _, right = torch.linalg.svd(projected.T @ codes.to(projected.dtype))  # (c, c), (c,), (c, c)
    return left @ right


def itq(images: Tensor, bits: int, iterations: int = 50, seed: int = 0) -> LinearHash:
    """Iterative quantisation: min over B ∈ {−1, +1}^{N×c} and rotations R of ‖B − VR‖², V the images' principal components.

    B = sign(VR) and R = `rotation(V, B)` in turn, from a random rotation; each step is an exact minimisation, so the
    error never rises. V is scaled to mean square 1, which changes no code and makes errors of different c comparable.

    Args:
        images: uint8 (N, C, H, W), at least two different ones.
        bits: c, 1..D.
        iterations: rounds of both steps, at least 1.
        seed: seed of the first rotation.

    Returns:
        LinearHash with directions WR; `history` holds mean_ik (b_ik − (VR)_ik)² after each B step.

    Raises:
        ValueError: as `principal_components`, images that are all the same, or iterations below 1.
    """
    check_whole(iterations, "iterations")
    components = principal_components(images, bits)
    if bool((images == images[:1]).all()):
        raise ValueError(f"itq needs images that differ, but all {len(images)} are the same")
    projected = components.project(images).double()  # V (N, c)
    projected = projected / projected.square().mean().sqrt()
    random = torch.Generator().manual_seed(seed)
    turn, _ = torch.linalg.qr(torch.randn(bits, bits, generator=random, dtype=torch.float64))  # R (c, c)
    turn = turn.to(projected.device)
    history = []
    for _ in range(iterations):
        rotated = projected @ turn  # VR (N, c)
        codes = sign(rotated).double()  # B (N, c)
        history.append(float((codes - rotated).square().mean()))
        turn = rotation(projected, codes)
    return LinearHash(components.mean, components.directions @ turn.float(), tuple(history))


def _mean(images: Tensor, bits: int) -> Tensor:
    """Mean image, float (D,), after the checks that all hashes share."""
    check_images(images)
    if len(images) == 0:
        raise ValueError("images is empty; at least one image is needed")
    check_whole(bits, "bits (code length)")
    return to_float(images).flatten(1).mean(0)
