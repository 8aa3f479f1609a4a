"""DPSH: deep pairwise-supervised hashing (Li, Wang & Kang, IJCAI 2016)."""

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import softplus

from pplkit.hashing.network import sign
from pplkit.hashing.victim import Victim


class _PairwiseLikelihood(torch.autograd.Function):
    """Value and gradient from one pass over the (b, n) matrix θ: five times faster than autograd through softplus."""

    @staticmethod
    def forward(relaxed_codes: Tensor, buffer: Tensor, similar: Tensor, dissimilar_weight: float) -> tuple[Tensor, Tensor]:
        theta = relaxed_codes @ buffer.T / 2  # (b, n)
        terms = softplus(theta) - similar * theta  # (b, n)
        slopes = theta.sigmoid_() - similar  # (b, n)
        if dissimilar_weight != 1:
            weights = similar + dissimilar_weight * (1 - similar)  # (b, n)
            terms, slopes = terms * weights, slopes * weights
        return terms.sum(1), slopes @ buffer / 2  # (b,), (b, c)

    @staticmethod
    def setup_context(ctx, inputs: tuple[Tensor, Tensor, Tensor, float], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])

    @staticmethod
    @once_differentiable
    def backward(ctx, value: Tensor, _: Tensor) -> tuple[Tensor, None, None, None]:
        return value[:, None] * ctx.saved_tensors[0], None, None, None


def pairwise_likelihood(relaxed_codes: Tensor, buffer: Tensor, similar: Tensor, dissimilar_weight: float = 1.0) -> Tensor:
    """Negative log-likelihood of the pairs, per row: Σ_j w_ij [softplus(θ_ij) − s_ij θ_ij], θ_ij = ½ u_i·u_j.

    Args:
        relaxed_codes: u_i, float (b, c), with gradient.
        buffer: u_j, float (n, c), the latest output for every training image, constant.
        similar: s, float (b, n) in {0, 1}.
        dissimilar_weight: w_ij where s_ij = 0; it is 1 where s_ij = 1.

    Returns:
        float (b,). Its gradient ½ Σ_j w_ij (σ(θ_ij) − s_ij) u_j sees u_i on one side of the pair only; the symmetric objective
        has twice that.
    """
    return _PairwiseLikelihood.apply(relaxed_codes, buffer, similar, dissimilar_weight)[0]


def similar_pairs(labels: Tensor, other: Tensor) -> Tensor:
    """s_ij = 1 where two items share a label, else 0: (b,) and (n,), or multi-hot (b, L) and (n, L) -> float (b, n)."""
    if labels.ndim == 1:
        return (labels[:, None] == other[None, :]).float()
    return (labels.float() @ other.float().T > 0).float()


def _balance(labels: Tensor) -> float:
    """r = #similar / #dissimilar over all pairs of items; 1 if all pairs are similar."""
    distinct, counts = labels.unique(dim=0, return_counts=True)
    counts = counts.double()
    similar = counts @ similar_pairs(distinct, distinct).double() @ counts
    dissimilar = counts.sum() ** 2 - similar
    return float(similar / dissimilar) if dissimilar > 0 else 1.0


@dataclass(eq=False)
class DPSH(Victim):
    """min Σ_ij w_ij [softplus(θ_ij) − s_ij θ_ij] + η Σ_i ‖u_i − sign(u_i)‖². See `Victim` for the shared arguments.

    Args:
        eta: η, weight of the quantisation error. The original's 10 goes with w = 1; balanced weights make the pair term about
            five times smaller with ten classes, and with 10 a small training set then collapses to one code.
        balanced: weigh dissimilar pairs with r = #similar / #dissimilar (as HashNet, Cao et al. 2017). The original has w = 1
            and starts from a pretrained network; from random weights and ten classes that gives every image the same code.
        epochs: passes over the training images.
    """

    eta: float = field(default=1.0, kw_only=True)
    balanced: bool = field(default=True, kw_only=True)
    epochs: int = field(default=30, kw_only=True)

    def _fit(self, images: Tensor, labels: Tensor, progress: bool) -> None:
        buffer = torch.zeros(len(images), self.bits, device=images.device)  # U (n, c)
        weight = _balance(labels) if self.balanced else 1.0

        def loss(index: Tensor, u: Tensor) -> Tensor:
            buffer[index] = u.detach()
            pairs = 2 * pairwise_likelihood(u, buffer, similar_pairs(labels[index], labels), weight)  # (b,)
            quantisation = (u - sign(u.detach())).square().sum(1)  # (b,)
            return (pairs + self.eta * quantisation).sum() / (len(images) * len(index))

        for _ in (bar := self._bar(self.epochs, progress)):
            value = self._train_epoch(images, self._permutation(len(images)), loss)
            bar.set_postfix(loss=f"{value:.3f}", refresh=False)
