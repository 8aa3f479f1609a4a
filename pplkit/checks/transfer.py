"""Checks of notebook 11: a push that goes astray at another model, and how to compare drops of different victims."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pplkit.checks import call, check, compare, expect, expect_close, expect_tensor


@check
def misleading_surrogate(function: Callable) -> str:
    """11.1: weights with a cosine of at least 0.7 to the victim's, whose perturbation raises the victim's score."""
    small = torch.rand(99, generator=torch.Generator().manual_seed(0)) * 0.1 + 0.01
    victims = [torch.tensor([10.0] + 12 * [1.0]), torch.tensor([1.0, -6.0, 1.0, 1.0, -1.0, 1.0, 1.0, -1.0, 1.0]),
               torch.cat([torch.tensor([3.0]), small]), -0.1 * torch.eye(300)[7] - 0.001]
    for number, victim in enumerate(victims, start=1):
        case = f"case {number} of {len(victims)}, for a victim of {len(victim)} weights"
        surrogate = expect_tensor(call(function, victim, case=case), shape=victim.shape, case=case, name="the surrogate")
        surrogate = surrogate.to(victim.dtype)
        cosine = float(surrogate @ victim / (surrogate.norm() * victim.norm()).clamp_min(1e-30))
        share = float((surrogate.sign() * victim).sum() / victim.abs().sum())
        expect(cosine >= 0.7, f"{case}: the cosine is {cosine:.2f}, at least 0.7 is needed. Begin with the victim's own "
                              "weights, cosine 1, and change those that matter least to it")
        expect(share < 0, f"{case}: it looks alike (cosine {cosine:.2f}), but a share of {share:.2f} arrives; that must be "
                          "below 0. The many small weights make most of Σ|b_k|: push them the wrong way")
    return f"{len(victims)} victims with one large weight"


@check
def relative_drop(function: Callable) -> str:
    """11.2: what share of the in-domain mAP above chance is lost."""
    cases = [(0.7, 0.25, 0.1), (0.7, 0.7, 0.1), (0.7, 0.1, 0.1), (0.5, 0.3, 0.0), (0.6, 0.05, 0.1), (0.5, 0.55, 0.25)]

    def right(within: float, across: float, chance: float) -> float:
        return (within - across) / (within - chance)

    compare(
        function,
        right,
        cases,
        rtol=1e-9,
        mistakes=[
            (lambda w, a, c: (w - a) / w, "this is the paper's drop, which can never reach 1: subtract chance from the "
                                          "denominator"),
            (lambda w, a, c: w - a, "this is the absolute drop; a weak victim has less to lose, so divide by what it had"),
            (lambda w, a, c: (a - c) / (w - c), "this is what is left; the drop is 1 minus that"),
            (lambda w, a, c: a / w, "this is what is left, without chance; the drop is asked for"),
            (lambda w, a, c: (w - a - c) / (w - c), "chance cancels in the numerator: (within − chance) − (across − chance)"),
            (lambda w, a, c: (w - a - c) / w, "chance belongs in the denominator: in the numerator it cancels"),
            (lambda w, a, c: min(1.0, max(0.0, (w - a) / (w - c))), "do not clip: a drop above 1 or below 0 is a "
                                                                    "finding, too"),
            (lambda w, a, c: min(1.0, (w - a) / (w - c)), "do not clip: a mAP below chance is a finding, too"),
            (lambda w, a, c: max(0.0, (w - a) / (w - c)), "do not clip: a gain (negative drop) is a finding, too"),
            (lambda w, a, c: 100 * (w - a) / (w - c), "return a share, not percent"),
            (lambda w, a, c: (a - w) / (w - c), "the sign is wrong: a loss is a positive drop"),
        ],
    )  # fmt: skip
    return f"{len(cases)} victims, also below chance and above in-domain"


def _chance(query_labels: Tensor, database_labels: Tensor) -> float:
    return (query_labels[:, None] == database_labels[None, :]).double().mean().item()


@check
def chance_level(function: Callable) -> str:
    """11.3: expected mAP of a search whose codes are all equal: the mean share of relevant database images."""
    from pplkit.retrieval import mean_average_precision

    cases = []
    for seed, queries, database, classes in ((0, 6, 20, 2), (1, 10, 50, 5), (2, 4, 9, 3)):
        random = torch.Generator().manual_seed(seed)
        labels = torch.cat([torch.arange(classes), torch.randint(0, classes, (database - classes,), generator=random).pow(2)
                            .remainder(classes)])
        cases.append((torch.randint(0, classes, (queries,), generator=random), labels))

    def wrong_side(query_labels: Tensor, database_labels: Tensor) -> float:
        return 1 / len(database_labels.unique())

    def weighted(query_labels: Tensor, database_labels: Tensor) -> float:
        return (database_labels[:, None] == database_labels[None, :]).double().mean().item()

    for number, (query_labels, database_labels) in enumerate(cases, start=1):
        case = f"case {number} of {len(cases)}: {len(query_labels)} queries, {len(database_labels)} database images"
        value = call(function, query_labels, database_labels, case=case)
        mistakes: Sequence = [
            (wrong_side(query_labels, database_labels), "1 / number of classes holds only if all classes are equally large"),
            (weighted(query_labels, database_labels), "these are pairs within the database; the queries ask"),
            (1 - _chance(query_labels, database_labels), "this is the share of irrelevant images"),
        ]
        expect_close(value, _chance(query_labels, database_labels), rtol=1e-5, case=case, mistakes=mistakes)
    query_labels, database_labels = torch.arange(10).repeat(3), torch.arange(10).repeat(100)
    equal = torch.ones(1, 8, dtype=torch.int8)
    search = mean_average_precision(equal.expand(30, 8), query_labels, equal.expand(1000, 8), database_labels).expected
    value = float(call(function, query_labels, database_labels))
    expect(abs(search - value) < 0.01, f"equal codes for 1,000 images give mAP {search:.3f}, you say {value:.3f}")
    return f"{len(cases)} label sets with classes of different size, and a search with equal codes"
