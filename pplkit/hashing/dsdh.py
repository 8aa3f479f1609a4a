"""DSDH: deep supervised discrete hashing (Li, Sun, He & Tan, NeurIPS 2017).

    min Σ_ij [softplus(θ_ij) − s_ij θ_ij] + μ‖Y − BW‖² + ν‖W‖² + η‖B − U‖²,   B ∈ {−1, +1}^{n×c},  θ_ij = ½ u_i·u_j.

Rows are images here (the paper's matrices are transposed): Y one-hot (n, L), B and U (n, c), W (c, L).
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from pplkit.hashing.dpsh import pairwise_likelihood, similar_pairs
from pplkit.hashing.network import sign
from pplkit.hashing.victim import Victim


def update_classifier(codes: Tensor, targets: Tensor, ratio: float) -> Tensor:
    """W = (BᵀB + (ν/μ) I)⁻¹ BᵀY, the exact minimiser of μ‖Y − BW‖² + ν‖W‖².

    Args:
        codes: B, float (n, c) in {−1, +1}.
        targets: Y, float (n, L).
        ratio: ν/μ > 0.

    Returns:
        W, float (c, L).
    """
    eye = torch.eye(codes.shape[1], dtype=codes.dtype, device=codes.device)
    return torch.linalg.solve(codes.T @ codes + ratio * eye, codes.T @ targets)


def update_codes(codes: Tensor, targets: Tensor, classifier: Tensor, outputs: Tensor, ratio: float) -> Tensor:
    """One sweep of discrete cyclic coordinate descent: b_k ← sign(p_k − B_{\\k} W_{\\k} w_kᵀ), P = YWᵀ + (η/μ)U.

    Each bit update minimises ‖Y − BW‖² + (η/μ)‖B − U‖² over that column, so the objective never rises.

    Args:
        codes: B, float (n, c) in {−1, +1}.
        targets: Y, float (n, L).
        classifier: W, float (c, L).
        outputs: U, float (n, c).
        ratio: η/μ ≥ 0.

    Returns:
        new B, float (n, c); an entry whose argument is 0 keeps its value.
    """
    codes = codes.clone()
    linear = targets @ classifier.T + ratio * outputs  # P (n, c)
    gram = classifier @ classifier.T  # (c, c)
    for k in range(codes.shape[1]):
        others = gram[:, k].clone()  # (c,)
        others[k] = 0
        argument = linear[:, k] - codes @ others  # (n,)
        codes[:, k] = torch.where(argument == 0, codes[:, k], torch.sign(argument))
    return codes


def network_loss(relaxed_codes: Tensor, buffer: Tensor, similar: Tensor, codes: Tensor, eta: float) -> Tensor:
    """What the network minimises: gradient Σ_j (σ(θ_ij) − s_ij) u_j + 2η (u_i − b_i) at row i, that of the symmetric objective.

    2 Σ_ij [softplus(θ_ij) − s_ij θ_ij] + η Σ_i ‖u_i − b_i‖²: the factor 2 stands for the other side of each pair, since the
    buffer is constant.

    Args:
        relaxed_codes: u_i, float (b, c), with gradient.
        buffer: u_j, float (n, c), the latest output for every training image, constant.
        similar: s, float (b, n) in {0, 1}.
        codes: b_i, float (b, c) in {−1, +1}.
        eta: η ≥ 0.

    Returns:
        scalar.
    """
    pairs = 2 * pairwise_likelihood(relaxed_codes, buffer, similar)  # (b,)
    return (pairs + eta * (relaxed_codes - codes).square().sum(1)).sum()


@dataclass(eq=False)
class DSDH(Victim):
    """DSDH victim; see `Victim` for the shared arguments. Once per epoch W, then B are solved for with the current U.

    Args:
        mu: μ, weight of the classification error of the codes.
        nu: ν, ridge on the classifier W.
        eta: η, weight of the distance between codes and network outputs.
        epochs: passes over the training images. The original runs 150.
        sweeps: passes over the bits per epoch.
    """

    mu: float = field(default=1.0, kw_only=True)
    nu: float = field(default=0.1, kw_only=True)
    eta: float = field(default=55.0, kw_only=True)
    epochs: int = field(default=30, kw_only=True)
    sweeps: int = field(default=3, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.mu > 0:
            raise ValueError(f"mu must be positive, got {self.mu!r}; without a classification term use DPSH")
        if not self.nu > 0:
            raise ValueError(f"nu must be positive, got {self.nu!r}; without it W need not be unique")

    def _fit(self, images: Tensor, labels: Tensor, progress: bool) -> None:
        targets = labels.float() if labels.ndim == 2 else torch.nn.functional.one_hot(labels.long()).float()  # Y (n, L)
        buffer = torch.zeros(len(images), self.bits, device=images.device)  # U (n, c)
        codes = sign(torch.randn(len(images), self.bits, generator=self._random)).float().to(images.device)  # B (n, c)

        def loss(index: Tensor, u: Tensor) -> Tensor:
            buffer[index] = u.detach()
            total = network_loss(u, buffer, similar_pairs(labels[index], labels), codes[index], self.eta)
            return total / (len(images) * len(index))

        for _ in (bar := self._bar(self.epochs, progress)):
            for _ in range(self.sweeps):
                classifier = update_classifier(codes, targets, self.nu / self.mu)
                codes = update_codes(codes, targets, classifier, buffer, self.eta / self.mu)
            value = self._train_epoch(images, self._permutation(len(images)), loss)
            bar.set_postfix(loss=f"{value:.3f}", refresh=False)
