"""ADSH: asymmetric deep supervised hashing (Jiang & Li, AAAI 2018).

The database codes V are learned directly, bit by bit; the network only learns to hit them. With S balanced,

    min  Σ_{i∈Ω} Σ_j (u_i·v_j − c S_ij)² + γ Σ_{i∈Ω} ‖v_i − u_i‖²,   V ∈ {−1, +1}^{n×c},  u = tanh network.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from pplkit.hashing.network import sign
from pplkit.hashing.victim import Victim, check_labels, form
from pplkit.losses import similarity_matrix
from pplkit.preconditions import check_whole


@dataclass(eq=False)
class ADSH(Victim):
    """ADSH victim; see `Victim` for the shared arguments.

    Args:
        gamma: γ, weight of the distance between learned code and network output.
        sample_size: m = |Ω|, images drawn per outer iteration (all, if there are fewer).
        outer_epochs: rounds of (draw Ω, train the network, update V). The original runs 50.
        inner_epochs: passes over Ω per round. The original runs 3.
        starts: V starts from the best of so many random sets of codes, see `separate_codes`; None: from random bits for each
            image. Then the network's first, almost random codes decide which classes lie apart, and with few bits two classes
            can end up with one code, which the update of V, bit by bit, does not leave again.
    """

    batch_size: int = field(default=64, kw_only=True)
    gamma: float = field(default=200.0, kw_only=True)
    sample_size: int = field(default=2000, kw_only=True)
    outer_epochs: int = field(default=15, kw_only=True)
    inner_epochs: int = field(default=2, kw_only=True)
    starts: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.starts is not None:
            check_whole(self.starts, "starts")

    @property
    def _epochs(self) -> int:
        return self.outer_epochs * self.inner_epochs

    def fit(self, images: Tensor, labels: Tensor, *, database_labels: Tensor | None = None,
            train_index: Tensor | None = None, progress: bool = True) -> "ADSH":
        """Train the network on images, and learn codes V for a labelled database that contains them.

        Args:
            images: uint8 (N, C, H, W), the only images ever seen.
            labels: int (N,) or multi-hot (N, L).
            database_labels: labels of the whole database, (n,) or (n, L); default: the training images are the database.
            train_index: int64 (N,), where the training images stand in the database, no position twice; needed with
                `database_labels`.
            progress: show a progress bar.

        Returns:
            self; `database_codes` holds V, int8 (n, bits).

        Raises:
            ValueError: wrong shapes or dtypes; negative labels; a position outside the database or given twice; labels that
                disagree with `database_labels[train_index]`; a loss that is not finite.
            OutOfMemory: names what to lower.
        """
        self._check(images, labels)
        if (database_labels is None) != (train_index is None):
            raise ValueError("database_labels and train_index go together: give both or neither")
        if database_labels is None:
            database_labels, train_index = labels, torch.arange(len(labels))
        else:
            _check_database(labels, database_labels, train_index)
        images, labels = self._start(images, labels)
        self._learn(images, train_index.to(images.device), database_labels.to(images.device), progress)
        return self._finish(images, labels)

    def _learn(self, images: Tensor, train_index: Tensor, database_labels: Tensor, progress: bool) -> None:
        groups = LabelGroups(database_labels)
        n, m = len(database_labels), min(self.sample_size, len(images))
        if self.starts is None:
            codes = sign(torch.randn(n, self.bits, generator=self._random)).float().to(images.device)  # (n, c)
        else:
            codes = separate_codes(groups, self.bits, self.starts, self._random)[groups.index]  # (n, c)
        for _ in (bar := self._bar(self.outer_epochs, progress)):
            drawn = self._permutation(len(images))[:m].to(images.device)  # Ω as positions in the training images, (m,)
            omega = train_index[drawn]  # Ω as rows of V, (m,)
            slot = torch.zeros(len(images), dtype=torch.long, device=images.device)  # (N,)
            slot[drawn] = torch.arange(m, device=images.device)
            outputs = torch.zeros(m, self.bits, device=images.device)  # U (m, c)
            similarity = groups.similarity(omega)  # (K, K), balanced over Ω × database
            gram = codes.T @ codes  # VᵀV (c, c)
            targets = similarity @ groups.sum(codes)  # row g: Σ_j S_gj v_j, (K, c)
            constant = self.bits**2 * (similarity.square() @ groups.counts)  # row g: c² Σ_j S_gj², (K,)

            def loss(index: Tensor, u: Tensor) -> Tensor:
                rows = train_index[index]  # (b,)
                outputs[slot[index]] = u.detach()  # noqa: B023  the closure lives for this round only
                group = groups.index[rows]  # (b,)
                total = asymmetric_loss(u, codes[rows], gram, targets[group], constant[group], self.gamma)  # noqa: B023
                return total / (n * len(index))

            for _ in range(self.inner_epochs):
                order = drawn[self._permutation(m).to(images.device)]
                bar.set_postfix(loss=f"{self._train_epoch(images, order, loss):.3f}", refresh=False)
            codes = update_codes(codes, outputs, groups.transposed_product(similarity, outputs, omega), omega, self.gamma)
        self.database_codes = codes.to(torch.int8).cpu()


def _check_database(labels: Tensor, database_labels: Tensor, train_index: Tensor) -> None:
    """ValueError unless the database has the training images' labels (N,) or (N, L) at N different positions."""
    check_labels(database_labels, "database_labels")
    if not isinstance(train_index, Tensor) or train_index.dtype != torch.int64 or train_index.shape != labels.shape[:1]:
        raise ValueError(f"train_index must be int64 positions ({len(labels)},), one per training image (of a mask: "
                         f"mask.nonzero()[:, 0]), got {form(train_index)}")
    outside = (train_index < 0) | (train_index >= len(database_labels))  # (N,)
    if outside.any():
        raise ValueError(f"train_index must be positions in 0..{len(database_labels) - 1}, the rows of database_labels, got "
                         f"{int(train_index[outside][0])}")
    positions, counts = train_index.unique(return_counts=True)
    if counts.max() > 1:
        raise ValueError(f"train_index must name a position only once, got {int(positions[counts > 1][0])} more than once")
    found = database_labels[train_index]  # (N,) or (N, L)
    if found.shape != labels.shape:
        raise ValueError(f"labels {tuple(labels.shape)} and database_labels {tuple(database_labels.shape)} do not fit: give "
                         "class numbers for both, or multi-hot rows of the same width")
    differing = (found != labels).reshape(len(labels), -1).any(1).nonzero()  # (D, 1)
    if len(differing):
        at = int(differing[0])
        raise ValueError(f"labels differ from database_labels[train_index], first at {at}: {labels[at].tolist()} is not "
                         f"{found[at].tolist()}; pass the split's own labels and train_index")


class LabelGroups:
    """Items with equal labels share a row of S, so S (m × n) is kept as a (K, K) matrix over the K distinct labels.

    Attributes:
        index: int64 (n,), group of each database item.
        counts: float (K,), items per group.
        similar: float (K, K) in {−1, +1}.
    """

    def __init__(self, labels: Tensor):
        distinct, self.index = labels.unique(dim=0, return_inverse=True)
        self.counts = torch.bincount(self.index, minlength=len(distinct)).float()  # (K,)
        self.similar = similarity_matrix(distinct)  # (K, K)

    def similarity(self, omega: Tensor) -> Tensor:
        """S over groups, balanced for Ω × database: dissimilar = −r, r = #similar / #dissimilar; (K, K)."""
        drawn = torch.bincount(self.index[omega], minlength=len(self.counts)).float()  # (K,)
        pairs = drawn[:, None] * self.counts[None, :]  # (K, K)
        similar = self.similar > 0
        count, others = pairs[similar].sum(), pairs[~similar].sum()
        r = count / others if others > 0 else torch.ones_like(count)
        return torch.where(similar, 1.0, -r)

    def sum(self, rows: Tensor) -> Tensor:
        """Sum of database rows (n, c) per group: (K, c)."""
        return torch.zeros(len(self.counts), rows.shape[1], device=rows.device).index_add_(0, self.index, rows)

    def transposed_product(self, similarity: Tensor, outputs: Tensor, omega: Tensor) -> Tensor:
        """SᵀU: for each database item j, Σ_{i∈Ω} S_ij u_i; (n, c)."""
        sums = torch.zeros(len(self.counts), outputs.shape[1], device=outputs.device)
        sums.index_add_(0, self.index[omega], outputs)  # (K, c)
        return (similarity.T @ sums)[self.index]


def separate_codes(groups: LabelGroups, bits: int, draws: int, random: torch.Generator) -> Tensor:
    """One random code per label group, float (K, c) in {−1, +1}: of `draws` sets the one with the least

        Σ_k Σ_l n_k n_l (v_k·v_l − c S_kl)²,

    ADSH's objective if every image had its group's code and the network met it.
    """
    n = len(groups.index)
    target = bits * groups.similarity(torch.arange(n, device=groups.index.device)).cpu()  # (K, K)
    weight = (groups.counts / n).cpu()  # (K,)
    best, least = None, torch.inf
    for _ in range(draws):
        codes = sign(torch.randn(len(weight), bits, generator=random)).float()  # (K, c)
        cost = float(weight @ (codes @ codes.T - target).square() @ weight)
        if cost < least:
            best, least = codes, cost
    return best.to(groups.index.device)


def asymmetric_loss(relaxed_codes: Tensor, learned: Tensor, gram: Tensor, targets: Tensor, constants: Tensor,
                    gamma: float) -> Tensor:
    """Σ_i [Σ_j (u_i·v_j − c S_ij)² + γ ‖v_i − u_i‖²] over a batch, without the (b, n) matrix of pairs:

        Σ_j (u_i·v_j − c S_ij)² = u_i VᵀV u_iᵀ − 2c u_i·Σ_j S_ij v_j + c² Σ_j S_ij².

    Args:
        relaxed_codes: u, float (b, c), with gradient.
        learned: the batch's own rows of V, float (b, c).
        gram: VᵀV, float (c, c).
        targets: Σ_j S_ij v_j, float (b, c).
        constants: c² Σ_j S_ij², float (b,).
        gamma: γ ≥ 0.

    Returns:
        scalar.
    """
    c = relaxed_codes.shape[1]
    linear = 2 * c * (relaxed_codes * targets).sum(1)  # (b,)
    pairs = ((relaxed_codes @ gram) * relaxed_codes).sum(1) - linear + constants  # (b,)
    near = (learned - relaxed_codes).square().sum(1)  # (b,)
    return (pairs + gamma * near).sum()


def update_codes(codes: Tensor, outputs: Tensor, similarity_outputs: Tensor, omega: Tensor, gamma: float) -> Tensor:
    """One sweep over the bits (ADSH eq. 10): V_k ← −sign(2 V_{\\k} U_{\\k}ᵀU_k + Q_k), Q = −2c SᵀU − 2γŪ.

    Each column update minimises ‖UVᵀ − cS‖² + γ‖V_Ω − U‖² over that column, so the objective never rises.

    Args:
        codes: V, float (n, c) in {−1, +1}.
        outputs: U, float (m, c) in [−1, 1].
        similarity_outputs: SᵀU, float (n, c).
        omega: int64 (m,), rows of V that U belongs to.
        gamma: γ ≥ 0.

    Returns:
        new V, float (n, c); an entry whose argument is 0 keeps its value (both choices are optimal).
    """
    codes = codes.clone()
    c = codes.shape[1]
    linear = -2 * c * similarity_outputs  # (n, c)
    linear[omega] -= 2 * gamma * outputs
    gram = outputs.T @ outputs  # UᵀU (c, c)
    for k in range(c):
        others = gram[:, k].clone()  # (c,)
        others[k] = 0
        argument = 2 * codes @ others + linear[:, k]  # (n,)
        codes[:, k] = torch.where(argument == 0, codes[:, k], -torch.sign(argument))
    return codes
