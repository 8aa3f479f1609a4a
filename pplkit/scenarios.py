"""The four search scenarios of the paper for one victim and one protector.

A scenario is named `query->database`: "C->A" is a clean query image searched in a database of adversarial
(protected) images. The victim itself was trained on one of the two domains, clean or adversarial; that is its
train domain. Protected images are uint8, rounded before anything encodes them, because that is what gets
published.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from pplkit.data import ImageSet, RetrievalSplit
from pplkit.retrieval import MeanAveragePrecision, mean_average_precision

SCENARIOS = ("C->C", "C->A", "A->C", "A->A")
DOMAINS = {"C": "clean", "A": "adversarial"}

Protector = Callable[[Tensor], Tensor]


class Victim(Protocol):
    """A trained hashing method, a malicious searcher's; ADSH also has `database_codes`, int8 (N, c)."""

    def encode(self, images: Tensor) -> Tensor:
        """uint8 (N, C, H, W) -> codes int8 (N, c) in {-1, +1}."""
        ...


def protect_split(split: RetrievalSplit, protect: Protector) -> RetrievalSplit:
    """The adversarial twin of a split: the same labels and indices, every image protected once.

    Protect a split once and pass the twin to `evaluate_scenarios` for every victim; its `train` part is what
    a victim of the adversarial train domain learns from.

    Args:
        split: clean images.
        protect: uint8 (N, C, H, W) -> uint8 of the same shape, image by image.

    Returns:
        RetrievalSplit of protected images; its manifest says `"protected": True`.

    Raises:
        ValueError: if the protector returns another dtype or shape.
    """
    query = _protect(split.query, protect)
    database = _protect(split.database, protect)
    return replace(
        split,
        query=query,
        database=database,
        train=database.subset(split.train_index),
        manifest={**split.manifest, "protected": True},
    )


@dataclass(frozen=True)
class ScenarioCodes:
    """The four sets of binary codes, int8 in {-1, +1}, that the scenarios are made of.

    Attributes:
        clean_query: (Q, c).
        adversarial_query: (Q, c), same images and order as `clean_query`.
        clean_database: (N, c).
        adversarial_database: (N, c), same images and order as `clean_database`.
    """

    clean_query: Tensor
    adversarial_query: Tensor
    clean_database: Tensor
    adversarial_database: Tensor

    def of(self, scenario: str) -> tuple[Tensor, Tensor]:
        """Codes (query, database) of a scenario, e.g. "C->A": clean queries, adversarial database.

        Raises:
            ValueError: for an unknown scenario.
        """
        if scenario not in SCENARIOS:
            raise ValueError(
                f"scenario is {scenario!r}; expected one of {', '.join(SCENARIOS)} (query->database)"
            )
        query, database = scenario.split("->")
        return getattr(self, f"{DOMAINS[query]}_query"), getattr(self, f"{DOMAINS[database]}_database")


def encode_scenarios(
    victim: Victim,
    split: RetrievalSplit,
    protect: Protector | RetrievalSplit,
    *,
    train_domain: str = "clean",
    codes: str = "network",
) -> ScenarioCodes:
    """Codes of the clean and the adversarial query and database images, each encoded once.

    Args:
        victim: trained hashing method.
        split: clean images.
        protect: protector (uint8 -> uint8), or the result of `protect_split(split, protector)`.
        train_domain: what the victim was trained on, "clean" or "adversarial".
        codes: "network" encodes everything with the network (a searcher without labels). "learned" takes, for
            the database of the train domain, the codes V that the victim learned with the database's labels
            (`victim.database_codes`); the other database and all queries are encoded by the network.

    Returns:
        ScenarioCodes.

    Raises:
        ValueError: for an unknown option, a twin that does not fit the split, or missing learned codes.
    """
    if train_domain not in DOMAINS.values():
        raise ValueError(f"train_domain is {train_domain!r}; expected 'clean' or 'adversarial'")
    if codes not in ("network", "learned"):
        raise ValueError(f"codes is {codes!r}; expected 'network' or 'learned'")
    learned = _learned_codes(victim, len(split.database)) if codes == "learned" else None
    adversarial = protect if isinstance(protect, RetrievalSplit) else protect_split(split, protect)
    _check_twin(split, adversarial)

    def database_codes(domain: str, database: ImageSet) -> Tensor:
        if learned is not None and domain == train_domain:
            return learned
        return victim.encode(database.images)  # (N, c)

    return ScenarioCodes(
        clean_query=victim.encode(split.query.images),
        adversarial_query=victim.encode(adversarial.query.images),
        clean_database=database_codes("clean", split.database),
        adversarial_database=database_codes("adversarial", adversarial.database),
    )


def evaluate_scenarios(
    victim: Victim,
    split: RetrievalSplit,
    protect: Protector | RetrievalSplit,
    *,
    train_domain: str = "clean",
    codes: str = "network",
    at: int | None = None,
) -> dict[str, MeanAveragePrecision]:
    """mAP of the four scenarios for one victim (one row of Table 1).

    Args:
        victim: trained hashing method.
        split: clean images; queries search the database.
        protect: protector (uint8 -> uint8), or the result of `protect_split(split, protector)`.
        train_domain: what the victim was trained on, "clean" or "adversarial".
        codes: "network" or "learned", see `encode_scenarios`.
        at: None for mAP over the whole database (the paper), or K for mAP@K.

    Returns:
        {"C->C": ..., "C->A": ..., "A->C": ..., "A->A": ...}, keys `query->database`.

    Raises:
        ValueError: as `encode_scenarios` and `mean_average_precision`.
    """
    encoded = encode_scenarios(victim, split, protect, train_domain=train_domain, codes=codes)
    result = {}
    for scenario in SCENARIOS:
        query, database = encoded.of(scenario)
        result[scenario] = mean_average_precision(
            query, split.query.labels, database, split.database.labels, at=at
        )
    return result


def _protect(images: ImageSet, protect: Protector) -> ImageSet:
    protected = protect(images.images)
    if protected.dtype != torch.uint8 or protected.shape != images.images.shape:
        raise ValueError(
            f"the protector returned {protected.dtype} {tuple(protected.shape)} for uint8 "
            f"{tuple(images.images.shape)}; round to uint8 (pplkit.budget.protect) and keep the shape"
        )
    return ImageSet(protected, images.labels)


def _check_twin(split: RetrievalSplit, adversarial: RetrievalSplit) -> None:
    for part in ("query", "database"):
        clean, protected = getattr(split, part), getattr(adversarial, part)
        if clean.images.shape != protected.images.shape or not torch.equal(clean.labels, protected.labels):
            raise ValueError(
                f"the protected {part} {tuple(protected.images.shape)} is not the twin of the clean one "
                f"{tuple(clean.images.shape)} (shape or labels differ); make it with "
                "protect_split(split, protector)"
            )


def _learned_codes(victim: Victim, size: int) -> Tensor:
    learned = getattr(victim, "database_codes", None)
    if learned is None:
        raise ValueError(
            f"codes='learned', but {type(victim).__name__} has no database_codes; fit it with "
            "database_labels=split.database.labels and train_index=split.train_index, or use codes='network'"
        )
    if len(learned) != size:
        raise ValueError(
            f"codes='learned', but the victim learned {len(learned)} database codes for a database of "
            f"{size}; fit it with database_labels=split.database.labels and train_index=split.train_index"
        )
    return learned
