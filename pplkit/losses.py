"""The losses of PPL, eqs. (4)–(11), on relaxed codes in (−1, 1).

X (B, c) are the codes of clean images, Z (B, c) those of their adversarial counterparts, S (B, B) the similarity matrix. Sums
of the paper are means here (`reduction="mean"`): with sums, affinity and similarity loss drown the domain and matching loss.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pplkit.preconditions import is_finite, is_number

Kernel = Callable[[Tensor], Tensor]  # squared distances (…) -> kernel values (…)


def similarity_matrix(labels: Tensor, other: Tensor | None = None, *, balanced: bool = False,
                      dtype: torch.dtype = torch.float32) -> Tensor:
    """S_ij = +1 where item i and item j share a label, else −1; balanced (ADSH): else −r, r = #similar / #dissimilar.

    Args:
        labels: int (B,) class indices, or multi-hot (B, L) with entries 0 and 1.
        other: labels of the columns, same form, (N,) or (N, L); default: `labels`.
        balanced: weigh dissimilar pairs so that S sums to 0. With ten classes nine pairs in ten are dissimilar; literal −1 then
            pulls every code to 0.
        dtype: of S.

    Returns:
        (B, N) of `dtype`.

    Raises:
        ValueError: no tensors, labels of rank other than 1 or 2, or of two different forms.
    """
    other = labels if other is None else other
    for given in (labels, other):
        if not isinstance(given, Tensor):
            raise ValueError(f"labels must be a torch tensor, got {type(given).__name__} (torch.as_tensor makes one)")
    if labels.ndim not in (1, 2) or labels.shape[1:] != other.shape[1:]:
        raise ValueError(f"labels must both be (N,) or both multi-hot (N, L), got {tuple(labels.shape)} and "
                         f"{tuple(other.shape)}")
    if labels.ndim == 1:
        similar = labels[:, None] == other[None, :]  # (B, N)
    else:
        similar = labels.float() @ other.float().T > 0  # (B, N)
    ones = similar.to(dtype)
    count = similar.sum()
    dissimilar = similar.numel() - count
    r = torch.where(dissimilar > 0, count.double() / dissimilar.clamp_min(1), 1.0).to(dtype) if balanced else 1.0
    return ones - r * (1 - ones)


def _check_pair(first: Tensor, second: Tensor, similarity: Tensor) -> None:
    if first.ndim != 2 or first.shape[1:] != second.shape[1:] or first.shape[1] == 0:
        raise ValueError(f"codes must be (B, c) with equal c of at least 1, got {tuple(first.shape)} and {tuple(second.shape)}")
    if similarity.shape != (len(first), len(second)):
        raise ValueError(f"similarity must be {(len(first), len(second))} for these codes, got {tuple(similarity.shape)}")


def _reduce(terms: Tensor, reduction: str) -> Tensor:
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction must be 'mean' or 'sum', got {reduction!r}")
    return terms.mean() if reduction == "mean" and terms.numel() > 0 else terms.sum()  # a batch of no images costs 0


def similarity_loss(clean_codes: Tensor, adversarial_codes: Tensor, similarity: Tensor, *, reduction: str = "mean",
                    scaled: bool = True) -> Tensor:
    """J_s, eq. (9): mean_ij (x_i·z_j / c − S_ij)².

    Args:
        clean_codes: X, float (B, c).
        adversarial_codes: Z, float (N, c).
        similarity: S, float (B, N).
        reduction: "mean" or "sum" over pairs (the Frobenius norm of the paper is the sum).
        scaled: False gives the other reading of the paper's damaged residual, x_i·z_j − c·S_ij.

    Returns:
        scalar; 0 for an empty batch.

    Raises:
        ValueError: codes of different length, a similarity of another shape, an unknown reduction.
    """
    _check_pair(clean_codes, adversarial_codes, similarity)
    c = clean_codes.shape[1]
    residual = clean_codes @ adversarial_codes.T / c - similarity.to(clean_codes.dtype)  # (B, N)
    return _reduce(residual.square(), reduction) * (1 if scaled else c * c)


def affinity_loss(adversarial_codes: Tensor, similarity: Tensor, *, reduction: str = "mean", scaled: bool = True) -> Tensor:
    """J_o, eq. (4): mean_ij (z_i·z_j / c − S_ij)²: protected images stay usable among themselves.

    Args:
        adversarial_codes: Z, float (B, c).
        similarity: S, float (B, B).
        reduction, scaled, returns and errors as `similarity_loss`.
    """
    return similarity_loss(adversarial_codes, adversarial_codes, similarity, reduction=reduction, scaled=scaled)


def matching_loss(clean_codes: Tensor, adversarial_codes: Tensor, *, reduction: str = "mean") -> Tensor:
    """J_e, eq. (10): mean_i ‖x_i − z_i‖².

    Args:
        clean_codes: X, float (B, c).
        adversarial_codes: Z, float (B, c), row i from the same image as row i of X.
        reduction: "mean" or "sum" over images.

    Returns:
        scalar; 0 for an empty batch.

    Raises:
        ValueError: codes of different shapes, an unknown reduction.
    """
    if clean_codes.shape != adversarial_codes.shape or clean_codes.ndim != 2:
        raise ValueError(f"codes must be (B, c) twice, got {tuple(clean_codes.shape)} and {tuple(adversarial_codes.shape)}")
    return _reduce((clean_codes - adversarial_codes).square().sum(1), reduction)


def squared_distances(first: Tensor, second: Tensor) -> Tensor:
    """‖a_i − b_j‖² for a (B, c), b (N, c) -> (B, N), never negative, differentiable also at 0.

    Both are moved by the mean of a first, which changes no distance: among codes that are nearly equal, as those of a surrogate
    on its way to collapse, ‖a‖² + ‖b‖² − 2 a·b would be the rounding error of large numbers.
    """
    centre = first.detach().mean(0)  # (c,)
    first, second = first - centre, second - centre
    cross = first @ second.T  # (B, N)
    return (first.square().sum(1)[:, None] + second.square().sum(1)[None, :] - 2 * cross).clamp_min(0)


def _check_positive(name: str, value: float) -> None:
    if not is_finite(value) or value <= 0:
        raise ValueError(f"{name} must be positive and finite, got {value!r}")


def gaussian_kernel(bandwidth: float) -> Kernel:
    """k(a, b) = exp(−‖a − b‖² / bandwidth), one fixed bandwidth in squared code units; ValueError if it is not positive."""
    _check_positive("bandwidth", bandwidth)
    return lambda distances: torch.exp(-distances / bandwidth)


def multi_gaussian_kernel(factors: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 4.0), floor: float = 1e-6) -> Kernel:
    """k(a, b) = mean_f exp(−‖a − b‖² / (f·m)), m = detached mean squared distance of the joint batch.

    `floor` keeps m positive, so that a collapsed batch (all codes equal) gives k = 1 and a discrepancy of 0, not NaN.

    Raises:
        ValueError: no factor; a factor or a floor that is not positive and finite.
    """
    if not factors:
        raise ValueError(f"factors must be at least one, got {factors!r}")
    for factor in factors:
        _check_positive("each of factors", factor)
    _check_positive("floor", floor)

    def kernel(distances: Tensor) -> Tensor:
        mean = distances.detach().mean().clamp_min(floor)
        scaled = distances / mean
        return sum(torch.exp(-scaled / factor) for factor in factors) / len(factors)

    return kernel


def linear_kernel(distances: Tensor) -> Tensor:
    """k(a, b) = −‖a − b‖²/2: gives exactly the discrepancies of the linear kernel a·b.

    −‖a − b‖²/2 = a·b − (‖a‖² + ‖b‖²)/2, and with a symmetric S the square terms cancel between the three sums.
    """
    return -distances / 2


def _weighted_discrepancy(kernels: tuple[Tensor, Tensor, Tensor], weights: Tensor) -> Tensor:
    """Σ w k(x, x) + Σ w k(z, z) − 2 Σ w k(x, z) with w = weights / Σ weights; 0 if no weight is set."""
    total = weights.sum()
    w = weights / total.clamp_min(1)
    clean, adversarial, cross = kernels
    return (w * clean).sum() + (w * adversarial).sum() - 2 * (w * cross).sum()


def _joint_kernels(clean_codes: Tensor, adversarial_codes: Tensor, kernel: Kernel) -> tuple[Tensor, Tensor, Tensor]:
    if clean_codes.shape != adversarial_codes.shape or clean_codes.ndim != 2:
        raise ValueError(f"codes must be (B, c) twice, got {tuple(clean_codes.shape)} and {tuple(adversarial_codes.shape)}")
    n = len(clean_codes)
    both = torch.cat([clean_codes, adversarial_codes])  # (2B, c)
    if torch.finfo(both.dtype).bits < 32:
        both = both.float()  # from 256 images on, the number of pairs is beyond float16
    values = kernel(squared_distances(both, both))  # (2B, 2B)
    return values[:n, :n], values[n:, n:], values[:n, n:]


def smmd(clean_codes: Tensor, adversarial_codes: Tensor, similarity: Tensor, kernel: Kernel | None = None) -> Tensor:
    """Similarity-aware MMD, eqs. (5)–(8): D_s = D_s⁺ − D_s⁻, with S⁺ = [S > 0], S⁻ = [S ≤ 0] and, for • ∈ {+, −},

        D_s^• = Σ S^•_ij k(x_i, x_j)/ΣS^• + Σ S^•_ij k(z_i, z_j)/ΣS^• − 2 Σ S^•_ij k(x_i, z_j)/ΣS^•.

    A batch without a similar (or without a dissimilar) pair contributes 0 for that part.

    Args:
        clean_codes: X, float (B, c).
        adversarial_codes: Z, float (B, c), row i from the same image as row i of X.
        similarity: S, float (B, B), positive for similar pairs.
        kernel: squared distances -> kernel values; default `multi_gaussian_kernel()`.

    Returns:
        scalar, of half-precision codes float32; can be negative (it is a difference of two discrepancies).

    Raises:
        ValueError: codes or similarity of other shapes.
    """
    kernels = _joint_kernels(clean_codes, adversarial_codes, kernel or multi_gaussian_kernel())
    _check_pair(clean_codes, adversarial_codes, similarity)
    similar = (similarity > 0).to(kernels[0].dtype)  # (B, B)
    return _weighted_discrepancy(kernels, similar) - _weighted_discrepancy(kernels, 1 - similar)


def mmd(clean_codes: Tensor, adversarial_codes: Tensor, kernel: Kernel | None = None) -> Tensor:
    """Squared maximum mean discrepancy, V-statistic (Gretton et al. 2012, eq. 5): S of all ones, so it never sees a class.

    MMD² = mean_ij k(x_i, x_j) + mean_ij k(z_i, z_j) − 2 mean_ij k(x_i, z_j) ≥ 0 (up to rounding). Args, dtype of the result and
    errors as `smmd`.
    """
    kernels = _joint_kernels(clean_codes, adversarial_codes, kernel or multi_gaussian_kernel())
    return _weighted_discrepancy(kernels, torch.ones_like(kernels[0]))


def cdd(clean_codes: Tensor, adversarial_codes: Tensor, labels: Tensor, kernel: Kernel | None = None) -> Tensor:
    """Contrastive domain discrepancy (Kang et al. 2019, eq. 5): mean same-class MMD² − mean different-class MMD².

        D(c, d) = MMD² between clean items of class c and adversarial items of class d;
        CDD = 1/M Σ_c D(c, c) − 1/(M(M − 1)) Σ_{c≠d} D(c, d),  M classes in the batch.

    Args:
        clean_codes, adversarial_codes: float (B, c), row i from the same image.
        labels: int (B,), single-label.
        kernel: as `smmd`.

    Returns:
        scalar, of half-precision codes float32; of a single class only the first term, 0 for an empty batch.

    Raises:
        ValueError: codes of different shapes, labels that are not (B,).
    """
    if labels.shape != (len(clean_codes),):
        raise ValueError(f"cdd needs class labels of shape ({len(clean_codes)},), got {tuple(labels.shape)}")
    k_clean, k_adversarial, k_cross = _joint_kernels(clean_codes, adversarial_codes, kernel or multi_gaussian_kernel())
    if len(labels) == 0:
        return k_cross.sum()  # 0
    classes = labels.unique()  # (M,)
    member = (labels[None, :] == classes[:, None]).to(k_cross.dtype)  # (M, B)
    member = member / member.sum(1, keepdim=True)
    within_clean = torch.einsum("mi,ij,mj->m", member, k_clean, member)  # (M,)
    within_adversarial = torch.einsum("mi,ij,mj->m", member, k_adversarial, member)  # (M,)
    pairs = within_clean[:, None] + within_adversarial[None, :] - 2 * member @ k_cross @ member.T  # (M, M)
    same = pairs.diagonal().mean()
    m = len(classes)
    return same if m == 1 else same - (pairs.sum() - pairs.diagonal().sum()) / (m * (m - 1))


class PrivacyLoss(nn.Module):
    """J_p = α D_s + β J_s + γ J_e, eq. (11). The surrogate minimises it, the generator maximises it.

    Args:
        alpha, beta, gamma: weights of domain, similarity and matching loss; 1, 10, 1 in the paper.
        kernel: for `smmd`.
        reduction, scaled: as `similarity_loss`.

    Shape:
        forward(X (B, c), Z (B, c), S (B, B)) -> scalar. S may be balanced: D_s only asks for its sign.

    Raises:
        ValueError: a weight that is not a finite number of at least 0; in `forward`, as `smmd` and `similarity_loss`.
    """

    def __init__(self, alpha: float = 1.0, beta: float = 10.0, gamma: float = 1.0, kernel: Kernel | None = None, *,
                 reduction: str = "mean", scaled: bool = True):
        super().__init__()
        for name, value in (("alpha", alpha), ("beta", beta), ("gamma", gamma)):
            if not is_number(value):
                raise ValueError(f"{name} must be a number of at least 0 and finite, got {value!r}")
        self.alpha, self.beta, self.gamma = alpha, beta, gamma
        self.kernel = kernel or multi_gaussian_kernel()
        self.reduction, self.scaled = reduction, scaled

    def terms(self, clean_codes: Tensor, adversarial_codes: Tensor, similarity: Tensor) -> dict[str, Tensor]:
        """The three unweighted terms: {"domain": D_s, "similarity": J_s, "matching": J_e}."""
        return {
            "domain": smmd(clean_codes, adversarial_codes, similarity, self.kernel),
            "similarity": similarity_loss(clean_codes, adversarial_codes, similarity, reduction=self.reduction,
                                          scaled=self.scaled),
            "matching": matching_loss(clean_codes, adversarial_codes, reduction=self.reduction),
        }

    def forward(self, clean_codes: Tensor, adversarial_codes: Tensor, similarity: Tensor) -> Tensor:
        terms = self.terms(clean_codes, adversarial_codes, similarity)
        return self.alpha * terms["domain"] + self.beta * terms["similarity"] + self.gamma * terms["matching"]
