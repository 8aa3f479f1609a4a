"""One generator, one victim, every ε: what the ε explorer and the ε experiments are made of.

The generator does not know ε; only its output is scaled. So it runs once per image, and each further ε costs an addition, a
rounding and one pass through the victim. All results equal those of `budget.protect` and `scenarios.evaluate_scenarios`.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pplkit import budget, quality
from pplkit.data import ImageSet
from pplkit.retrieval import MeanAveragePrecision, mean_average_precision, top_k
from pplkit.scenarios import SCENARIOS, ScenarioCodes, Victim


class Patterns:
    """The generator's output for queries and a database, computed once; for the database when it is first needed.

    Args:
        generator: float images (B, C, H, W) in [0, 1] -> pattern (B, C, H, W); a module is run in eval mode on its own device.
        query, database: clean images.
        batch_size: images per forward pass.

    Attributes:
        images: "query" and "database" -> the clean images.

    Raises:
        ValueError: the generator does not take these images, or returns another shape.
    """

    def __init__(self, generator: Callable[[Tensor], Tensor], query: ImageSet, database: ImageSet, batch_size: int = 512):
        self.images = {"query": query, "database": database}
        self._generator, self._batch_size, self._lock = generator, batch_size, threading.Lock()
        self._patterns: dict[str, Tensor] = {}
        self.of("query")

    def of(self, part: str) -> Tensor:
        """Patterns of the "query" or the "database" part, float (N, C, H, W) in [-1, 1]."""
        found = self._patterns.get(part)
        if found is None:  # what is known does not wait for the thread that computes another part
            with self._lock:
                found = self._patterns.get(part)
                if found is None:
                    found = _patterns(self._generator, self.images[part].images, self._batch_size)
                    self._patterns[part] = found
        return found

    def clear(self) -> None:
        """Let go of the patterns; they are computed again when they are asked for."""
        self._patterns.clear()

    def protect(self, part: str, epsilon: float, norm: str = "inf", index: Tensor | slice = slice(None)) -> Tensor:
        """Images of a part at one ε, uint8 (N, C, H, W): equal to `budget.protect` with the generator.

        Args:
            part: "query" or "database".
            epsilon, norm: the budget.
            index: which images; all by default.
        """
        parts = (tensor[index].split(self._batch_size) for tensor in (self.images[part].images, self.of(part)))
        protected = []
        for clean, pattern in zip(*parts, strict=True):  # (B, C, H, W); all at once the float copies would need far more memory
            wanted = budget.adversarial(budget.to_float(clean), pattern, epsilon, norm)
            protected.append(budget.enforce(clean, wanted, epsilon, norm))
        return torch.cat(protected)


@torch.no_grad()
def _patterns(generator: Callable[[Tensor], Tensor], images: Tensor, batch_size: int) -> Tensor:
    device = images.device
    if isinstance(generator, torch.nn.Module):
        generator.eval()
        device = next((p.device for p in generator.parameters()), device)
    parts = []
    for batch in images.split(batch_size):
        pattern = generator(budget.to_float(batch.to(device)))
        if pattern.shape != batch.shape:
            raise ValueError(f"the generator returned shape {tuple(pattern.shape)} for images of shape {tuple(batch.shape)}: "
                             "a pattern must have the images' shape")
        parts.append(pattern.float().to(images.device))
    return torch.cat(parts)  # (N, C, H, W)


@dataclass(frozen=True, eq=False)
class View:
    """One query at one ε.

    Attributes:
        query: its position among the queries.
        label: its class.
        epsilon: ε in pixel units.
        clean, protected: uint8 (C, H, W).
        codes: int8 (2, c) in {-1, +1}: of the clean image, of the protected one.
        results: scenario -> uint8 (K, C, H, W), the nearest database images as that database shows them; a scenario is missing
            while its database has not been encoded at this ε.
        top: scenario -> int64 (K,), their positions in the database.
        labels: scenario -> int64 (K,), their classes.
        psnr: of the protected image, in decibels; inf if nothing changed.
        ssim: of the protected image, at most 1.
        mean: scenario -> mAP over all queries at this ε; empty while it has not been computed.
    """

    query: int
    label: int
    epsilon: float
    clean: Tensor
    protected: Tensor
    codes: Tensor
    results: dict[str, Tensor]
    top: dict[str, Tensor]
    labels: dict[str, Tensor]
    psnr: float
    ssim: float
    mean: dict[str, float]

    @property
    def flipped(self) -> int:
        """Number of bits in which the two codes differ: their Hamming distance."""
        return int((self.codes[0] != self.codes[1]).sum())

    def relevant(self, scenario: str) -> Tensor:
        """bool (K,): which of a scenario's results show the query's class."""
        return self.labels[scenario] == self.label

    @property
    def text(self) -> str:
        """The numbers of the picture in one line."""
        found = ", ".join(f"{scenario} {int(self.relevant(scenario).sum())}" for scenario in self.results)
        return (f"PSNR {self.psnr:.1f} dB, SSIM {self.ssim:.2f}, {self.flipped} of {self.codes.shape[1]} bits flipped, "
                f"relevant among the first {len(next(iter(self.top.values())))}: {found}")


class EpsilonSweep:
    """One victim over all ε. Codes and mAP of an ε are computed when first asked for, then kept; several threads may ask.

    Args:
        victim: what the searcher uses, `encode(uint8) -> codes`.
        patterns: the generator's output for queries and database; may be shared by several sweeps.
        norm: of the budget.
        other: a sweep of the same victim and images with another norm: the clean codes are taken from there.

    Raises:
        ValueError: unknown norm, or the victim does not take these images.
    """

    def __init__(self, victim: Victim, patterns: Patterns, norm: str = "inf", other: "EpsilonSweep | None" = None):
        budget.perturbation(torch.zeros(1, 1, 1, 1), 0.0, norm)  # refuses an unknown norm
        self.victim, self.patterns, self.norm = victim, patterns, norm
        self.query, self.database = patterns.images["query"], patterns.images["database"]
        self.clean_query = other.clean_query if other else victim.encode(self.query.images)  # (Q, c)
        self.clean_database = other.clean_database if other else victim.encode(self.database.images)  # (N, c)
        self._codes: dict[float, ScenarioCodes] = {}
        self._mean: dict[float, dict[str, MeanAveragePrecision]] = {}
        self._lock = threading.Lock()  # one thread computes; asking for what is known does not wait

    def __contains__(self, epsilon: float) -> bool:
        """Whether this ε has been computed."""
        return epsilon in self._mean

    def codes(self, epsilon: float) -> ScenarioCodes:
        """The four sets of codes at one ε, equal to `scenarios.encode_scenarios`.

        Raises:
            ValueError: ε outside [0, 1].
        """
        if epsilon not in self._codes:
            with self._lock:
                if epsilon not in self._codes:
                    query, database = (self.victim.encode(self.patterns.protect(part, epsilon, self.norm))
                                       for part in ("query", "database"))
                    self._codes[epsilon] = ScenarioCodes(self.clean_query, query, self.clean_database, database)
        return self._codes[epsilon]

    def evaluate(self, epsilon: float) -> dict[str, MeanAveragePrecision]:
        """Scenario -> mAP at one ε, equal to `scenarios.evaluate_scenarios`."""
        if epsilon not in self._mean:
            codes = self.codes(epsilon)
            self._mean[epsilon] = {
                scenario: mean_average_precision(query, self.query.labels, database, self.database.labels)
                for scenario in SCENARIOS for query, database in [codes.of(scenario)]}
        return self._mean[epsilon]

    @property
    def curve(self) -> dict[str, dict[float, float]]:
        """{scenario: {ε: mAP}} of all ε computed so far, ascending."""
        known = dict(sorted(self._mean.copy().items()))
        return {scenario: {epsilon: found[scenario].expected for epsilon, found in known.items()} for scenario in SCENARIOS}

    def look(self, query: int, epsilon: float, neighbours: int = 10) -> View:
        """One query at one ε, at once: what needs the whole database at a new ε is left out until `evaluate(epsilon)` ran.

        Args:
            query: position among the queries, from 0.
            epsilon: in pixel units.
            neighbours: K, results per scenario.

        Raises:
            ValueError: ε outside [0, 1].
            IndexError: no such query.
        """
        queries, database = self.query, self.database
        if not 0 <= query < len(queries):
            raise IndexError(f"query {query} does not exist: this set has queries 0 to {len(queries) - 1}")
        one = slice(query, query + 1)
        protected = self.patterns.protect("query", epsilon, self.norm, one)  # (1, C, H, W)
        known = self._codes.get(epsilon) if epsilon in self._mean else None
        code = {"C": self.clean_query[one], "A": known.adversarial_query[one] if known else self.victim.encode(protected)}
        searched = {"C": self.clean_database} | ({"A": known.adversarial_database} if known else {})  # (N, c)
        results, top, labels = {}, {}, {}
        for scenario in SCENARIOS:
            asks, domain = scenario.split("->")
            if domain not in searched:
                continue
            top[scenario] = top_k(code[asks], searched[domain], neighbours)[0][0]  # (K,)
            labels[scenario] = database.labels[top[scenario]]
            results[scenario] = (database.images[top[scenario]] if domain == "C"
                                 else self.patterns.protect("database", epsilon, self.norm, top[scenario]))
        mean = {scenario: found.expected for scenario, found in self._mean[epsilon].items()} if known else {}
        clean = queries.images[one]
        return View(query, int(queries.labels[query]), epsilon, clean[0], protected[0], torch.cat([code["C"], code["A"]]),
                    results, top, labels, float(quality.psnr(clean, protected)), float(quality.ssim(clean, protected)), mean)
