"""DSH: deep supervised hashing (Liu, Wang, Shan & Chen, CVPR 2016), the contrastive ancestor of the others."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from pplkit.hashing.dpsh import similar_pairs
from pplkit.hashing.victim import Victim
from pplkit.losses import squared_distances


def contrastive_loss(relaxed_codes: Tensor, similar: Tensor, margin: float) -> Tensor:
    """mean over pairs i ≠ j of ½ s_ij ‖u_i − u_j‖² + ½ (1 − s_ij) max(margin − ‖u_i − u_j‖², 0).

    Args:
        relaxed_codes: u, float (b, c).
        similar: s, float (b, b) in {0, 1}.
        margin: squared distance that dissimilar pairs should keep; 2c in the paper.

    Returns:
        scalar; 0 for a batch of one.
    """
    distances = squared_distances(relaxed_codes, relaxed_codes)  # (b, b)
    terms = similar * distances / 2 + (1 - similar) * (margin - distances).clamp_min(0) / 2
    terms = terms - torch.diag_embed(terms.diagonal())
    b = len(relaxed_codes)
    return terms.sum() / max(b * (b - 1), 1)


@dataclass(eq=False)
class DSH(Victim):
    """Contrastive loss within the batch + α Σ_i ‖ |u_i| − 1 ‖₁. See `Victim` for the shared arguments.

    Args:
        alpha: α, weight of the quantisation term; 0.01 in the paper.
        epochs: passes over the training images.
    """

    alpha: float = field(default=0.01, kw_only=True)
    epochs: int = field(default=30, kw_only=True)

    def _fit(self, images: Tensor, labels: Tensor, progress: bool) -> None:
        def loss(index: Tensor, u: Tensor) -> Tensor:
            similar = similar_pairs(labels[index], labels[index])  # (b, b)
            quantisation = (u.abs() - 1).abs().sum(1).mean()
            return contrastive_loss(u, similar, 2.0 * self.bits) + self.alpha * quantisation

        for _ in (bar := self._bar(self.epochs, progress)):
            value = self._train_epoch(images, self._permutation(len(images)), loss)
            bar.set_postfix(loss=f"{value:.3f}", refresh=False)
