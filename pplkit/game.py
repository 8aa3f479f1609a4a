"""The two players and one round of their game: state and gradients (eqs. 12–14)."""

import copy
import hashlib
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pplkit import backbones, budget, losses
from pplkit import device as devices
from pplkit.config import KERNELS, PPLConfig
from pplkit.generator import PerturbationGenerator
from pplkit.hashing.network import HashingNetwork, build, image_form
from pplkit.preconditions import check_whole
from pplkit.processes import Processes

TERMS = ("affinity", "domain", "similarity", "matching", "clean")
SERIES = (*TERMS, "generator_gradient", "surrogate_gradient", "perturbation", "magnitude", "spread")


@dataclass
class Game:
    """The state of a run: both players, their optimisers, the random state. `step` plays one round of eq. (14)."""

    config: PPLConfig
    images: Tensor  # uint8 (N, C, H, W) on the device
    labels: Tensor  # (N,) on the device
    processes: Processes = Processes()  # each has all images and plays with its share of every batch
    checkpointing: bool = False  # of the surrogates' activations, see `backbones.Torchvision`
    accumulation: int = 1  # parts that a surrogate takes a batch in, see `codes`
    generator: PerturbationGenerator = field(init=False)
    average: PerturbationGenerator | None = field(init=False, default=None)
    surrogates: list[HashingNetwork] = field(init=False)

    def __post_init__(self) -> None:
        config, device = self.config, self.images.device
        batch = min(config.batch_size, len(self.images))
        self.processes.check_batch(batch)
        check_whole(self.accumulation, "accumulation")
        channels, size = image_form(self.images)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(config.seed)
            self.generator = PerturbationGenerator(channels, config.widths, full_resolution=bool(config.full_resolution))
        self.generator.to(device, memory_format=torch.channels_last).train()
        self.processes.synchronise(self.generator)
        if config.generator_average:
            self.average = copy.deepcopy(self.generator)
        self.surrogates = [
            build(bits, backbone, channels, size, config.seed + i, checkpointing=self.checkpointing)
            .to(device, memory_format=torch.channels_last).train()
            for i, (bits, backbone) in enumerate(zip(config.code_lengths, config.per_surrogate("backbone"), strict=True))]
        own = batch // self.processes.count
        if own < 2 * self.parts > 2:
            raise ValueError(f"accumulation={self.accumulation} leaves parts of one image of the {own} in a batch, and batch "
                             f"normalisation needs two: at most {max(1, own // 2)}"
                             f"{', or a larger batch_size' if batch < len(self.images) else ''}")
        for network in self.surrogates:
            self.processes.synchronise(network)
        self.lasting = [network for network, restart in zip(self.surrogates, config.per_surrogate("restart_every"), strict=True)
                        if not restart]  # those that do not start anew during the game
        self.fresh: list[dict[str, Tensor]] = []
        self.compiled: dict[nn.Module, Callable[[Tensor], Tensor]] = {}
        self.random = torch.Generator().manual_seed(config.seed)
        self.privacy = [losses.PrivacyLoss(config.alpha, config.beta, config.gamma, KERNELS[config.kernel](bits),
                                           reduction=config.reduction, scaled=config.scaled)
                        for bits in config.code_lengths]
        weights = [p for network in self.surrogates for p in network.parameters()]
        self.optimisers = {
            "warmup": torch.optim.Adam(weights, config.warmup_learning_rate, fused=True),
            "generator": self._optimiser([self.generator], [config.generator_learning_rate]),
            "surrogate": self._optimiser(self.surrogates, config.per_surrogate("surrogate_learning_rate")),
        }

    def _optimiser(self, networks: Sequence[nn.Module], learning_rates: Sequence[float]) -> torch.optim.Optimizer:
        groups = [{"params": list(network.parameters()), "lr": rate}
                  for network, rate in zip(networks, learning_rates, strict=True)]
        if self.config.optimiser == "adam":
            return torch.optim.Adam(groups, fused=True)
        return torch.optim.SGD(groups, momentum=0.9 if self.config.optimiser == "momentum" else 0.0, fused=True)

    def compile(self, backend: str = "inductor") -> None:
        """Let `torch.compile` fuse both players' passes from now on; results differ by rounding only.

        The networks themselves stay as they are. The first step takes a minute or more, and not every processor gains:
        `python -m tests.benchmarks.bench_training --compile` measures it. ValueError: `checkpointing` and `accumulation` cannot
        be compiled.
        """
        if self.checkpointing and self.config.has_deep_surrogates:
            raise ValueError("torch.compile cannot follow checkpointing: choose one of the two")
        if self.accumulation > 1:
            raise ValueError(f"torch.compile cannot follow accumulation={self.accumulation}: choose one of the two")
        self.compiled = {network: torch.compile(network, backend=backend, dynamic=False)
                         for network in (self.generator, *self.surrogates)}

    @cached_property
    def parts(self) -> int:
        """Parts of a batch that the surrogates' batch normalisation sees one at a time; 1 where there is none, since
        `accumulation` then plays the same game.
        """
        modules = (module for network in self.surrogates for module in network.modules())
        return self.accumulation if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in modules) else 1

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the training images and labels: a checkpoint only fits the data that it was trained on."""
        content = hashlib.sha256(repr(tuple(self.images.shape)).encode())
        for tensor in (self.images, self.labels):
            content.update(tensor.cpu().contiguous().numpy())
        return content.hexdigest()

    def batch(self) -> tuple[Tensor, Tensor]:
        """A mini-batch drawn without replacement: this process's share of the clean images, float (B, C, H, W), and S (B, B)
        of the whole batch.
        """
        size = min(self.config.batch_size, len(self.images))
        index = torch.randperm(len(self.images), generator=self.random)[:size].to(self.images.device, non_blocking=True)
        images = budget.to_float(self.images[self.processes.share(index)]).contiguous(memory_format=torch.channels_last)
        return images, losses.similarity_matrix(self.labels[index], balanced=self.config.similarity == "balanced")

    def codes(self, network: HashingNetwork, images: Tensor) -> Tensor:
        """A surrogate's relaxed codes, (B, C, H, W) -> (B, c), under autocast.

        With `accumulation` above 1 the batch goes through the network in that many parts (of sizes that differ by at most one
        image), whose activations are not kept but computed again, part after part, in the backward pass; the parts' gradients
        add up. The losses see all codes at once, so the gradients are those of the whole batch, except that batch
        normalisation sees one part at a time.
        """
        with devices.autocast(images.device, self.config.autocast):
            if self.accumulation == 1:
                return self.compiled.get(network, network)(images)
            return torch.cat([checkpoint(network, part, use_reentrant=False,
                                         context_fn=lambda: (nullcontext(), backbones.RunningStatisticsKept(network)))
                              for part in images.tensor_split(min(self.accumulation, len(images)))])

    def warm_up(self) -> dict[str, Tensor]:
        """One step of the surrogates that keep what they learn, alone, on clean pairs: mean((x_i·x_j / c − S_ij)²)."""
        images, similarity = self.batch()
        total = torch.zeros((), device=images.device)
        if not self.lasting:
            return {"warmup": total}
        for network in self.lasting:
            network.train()
            codes = self.codes(network, images)  # (B, c)
            total = total + losses.affinity_loss(self.processes.gather(codes.float()), similarity)
        optimiser = self.optimisers["warmup"]
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        self.processes.add(p.grad for network in self.lasting for p in network.parameters())
        optimiser.step()
        return {"warmup": total.detach() / len(self.lasting)}

    def gradients(self, images: Tensor, similarity: Tensor) -> dict[str, Tensor]:
        """Fill both players' `.grad` for one batch: F with ∇(J_o + J_p), G with ∇(J_o − λ J_p).

        Same gradients as one backward pass through two copies of F(z), the one for J_p behind a gradient reversal layer;
        but F sees z once: the activations are shared, only the cotangents at its output differ.

        Args:
            images: clean, float (B, C, H, W); with several processes this one's share of the batch.
            similarity: S, float (B, B), of the whole batch.

        Returns:
            unweighted loss terms and monitors, scalars, averaged over the surrogates (magnitude and spread: the least of those
            that do not start anew, so that a healthy surrogate hides no collapse of another).
        """
        config = self.config
        players = len(self.surrogates)
        with devices.autocast(images.device, config.autocast):
            pattern = self.compiled.get(self.generator, self.generator)(images)  # (B, C, H, W)
        adversarial = budget.adversarial(images, pattern.to(images.dtype), config.epsilon, config.norm)
        z = adversarial.detach().requires_grad_()
        z_gradient = torch.zeros_like(z)
        record = dict.fromkeys(SERIES, torch.zeros((), device=images.device))
        record |= dict.fromkeys(("magnitude", "spread"), torch.full((), math.inf, device=images.device))
        each = map(config.per_surrogate, ("surrogate_learning_rate", "surrogate_objective", "generator_affinity",
                                          "reverse_scale"))
        for network, privacy, rate, objective, weight, scale in zip(self.surrogates, self.privacy, *each, strict=True):
            of_p, of_o = float(objective != "affinity"), config.affinity * (objective != "privacy")
            with torch.set_grad_enabled(rate > 0 and bool(of_p or config.clean)):  # else nothing flows back through F(x)
                of_clean = self.codes(network, images)  # (B, c)
            outputs = of_clean, self.codes(network, z)  # (B, c) each
            clean, protected = (self.processes.gather(codes.detach().to(images.dtype)).requires_grad_() for codes in outputs)
            terms = privacy.terms(clean, protected, similarity)
            j_p = config.alpha * terms["domain"] + config.beta * terms["similarity"] + config.gamma * terms["matching"]
            terms["affinity"] = losses.affinity_loss(protected, similarity, reduction=config.reduction, scaled=config.scaled)
            terms["clean"] = losses.affinity_loss(clean, similarity, reduction=config.reduction, scaled=config.scaled)
            p_clean, p_protected = torch.autograd.grad(j_p, (clean, protected))
            o_protected, = torch.autograd.grad(terms["affinity"], protected)
            c_clean, = torch.autograd.grad(config.clean * terms["clean"], clean)
            cotangent = weight * o_protected - scale * p_protected  # at F(z), for the generator
            own_rows = self.processes.share(cotangent).to(outputs[1].dtype)
            z_gradient += torch.autograd.grad(outputs[1], z, own_rows, retain_graph=True)[0] / players
            if rate > 0:
                rows = (of_p * p_clean + c_clean, of_p * p_protected + of_o * o_protected)  # at F(x) and F(z), (B, c) each
                flows = [(codes, self.processes.share(row).to(codes.dtype))
                         for codes, row in zip(outputs, rows, strict=True) if codes.requires_grad]
                torch.autograd.backward(*zip(*flows, strict=True), inputs=list(network.parameters()))
                self.processes.add(p.grad for p in network.parameters())
            for name, value in terms.items():
                record[name] = record[name] + value.detach() / players
            if network in (self.lasting or self.surrogates):
                for name, value in _size(clean.detach()).items():
                    record[name] = torch.minimum(record[name], value)
        adversarial.backward(z_gradient)
        record["perturbation"] = (z.detach() - images).abs().mean() / self.processes.count
        self.processes.add([*(p.grad for p in self.generator.parameters()), record["perturbation"]])
        return record

    @torch.no_grad()
    def sizes(self) -> dict[str, float]:
        """"magnitude" and "spread" as in `history`, of the codes of some 256 clean images of all classes; changes nothing."""
        count = len(self.images)
        rows = torch.linspace(0, count - 1, min(256, count)).long().to(self.images.device)  # (n,); they may be sorted by class
        found = []
        for network in self.lasting or self.surrogates:
            training = network.training
            network.eval()
            parts = [budget.to_float(self.images[part]).contiguous(memory_format=torch.channels_last)
                     for part in rows.split(max(1, self.config.batch_size // self.accumulation))]  # no larger than a step's
            found.append(_size(torch.cat([network(part) for part in parts])))
            network.train(training)
        return {name: min(float(size[name]) for size in found) for name in found[0]}

    def remember(self) -> None:
        """Keep the surrogates' present weights (after the warm-up) as what `refresh` goes back to."""
        self.fresh = [copy.deepcopy(network.state_dict()) for network in self.surrogates]

    def round(self, step: int) -> dict[str, Tensor]:
        """Game step number `step` (0, 1, …) of a run: `step` with the refreshes that are due and G's learning rate."""
        if step == 0 and self.config.refresh_every:
            self.remember()
        self.refresh(step)
        if self.config.generator_schedule == "cosine":
            done = step / max(self.config.steps, 1)
            rate = self.config.generator_learning_rate * (1 + math.cos(math.pi * done)) / 2
            self.optimisers["generator"].param_groups[0]["lr"] = rate
        return self.step()

    def refresh(self, step: int) -> None:
        """Before game step `step` (0, 1, …): put those surrogates back whose turn it is (to their state after the warm-up, or
        to new random weights), and forget their momentum.
        """
        every, players = self.config.refresh_every, len(self.surrogates)
        restarts, names = map(self.config.per_surrogate, ("restart_every", "backbone"))
        restarting = [i for i, restart in enumerate(restarts) if restart]
        for i, (network, restart, name) in enumerate(zip(self.surrogates, restarts, names, strict=True)):
            if restart:
                turn = restarting.index(i) * restart // len(restarting)
                if step and (step + turn) % restart:
                    continue
                channels, size = network.image_form
                other = build(network.bits, name, channels, size, self.config.seed + players + step + i)
                network.load_state_dict(other.state_dict())
            elif every and step and (step + i * every // players) % every == 0:
                network.load_state_dict(self.fresh[i])
            else:
                continue
            for weight in network.parameters():
                self.optimisers["surrogate"].state.pop(weight, None)

    def step(self) -> dict[str, Tensor]:
        """One round of the game on a new batch: both players step at once. Returns the entries of `history`.

        A player with learning rate 0 plays in eval mode: batch normalisation would move its running statistics.
        """
        self.generator.train(self.config.generator_learning_rate > 0)
        for network, rate in zip(self.surrogates, self.config.per_surrogate("surrogate_learning_rate"), strict=True):
            network.train(rate > 0)
        self.optimisers["generator"].zero_grad(set_to_none=True)
        self.optimisers["surrogate"].zero_grad(set_to_none=True)
        record = self.gradients(*self.batch())
        for name, player in {"generator": [self.generator], "surrogate": self.surrogates}.items():
            record[f"{name}_gradient"] = _gradient_norm([p for network in player for p in network.parameters()],
                                                        record["perturbation"])
            self.optimisers[name].step()
        if self.average is not None:
            decay = self.config.generator_average
            for mean, value in zip(self.average.state_dict().values(), self.generator.state_dict().values(), strict=True):
                mean.lerp_(value, 1 - decay) if mean.is_floating_point() else mean.copy_(value)
        return record


def _size(codes: Tensor) -> dict[str, Tensor]:
    """Of relaxed codes (B, c): mean |u|, and their standard deviation over the batch, averaged over the bits."""
    return {"magnitude": codes.abs().mean(), "spread": codes.std(0).mean()}


def _gradient_norm(weights: Sequence[Tensor], like: Tensor) -> Tensor:
    gradients = [p.grad for p in weights if p.grad is not None]
    return torch.nn.utils.get_total_norm(gradients) if gradients else torch.zeros_like(like)
