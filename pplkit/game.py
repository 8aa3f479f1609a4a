"""The two players and one round of their game: configuration, state, gradients (eqs. 12–14)."""

import copy
import dataclasses
import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from pplkit import backbones, budget, losses
from pplkit import device as devices
from pplkit.generator import PerturbationGenerator
from pplkit.hashing.network import HashingNetwork, build, image_form
from pplkit.processes import Processes

PAPER_BACKBONE = {"cifar10": "resnet50", "imagenet13": "resnet50", "fashion-mnist": "two_conv"}
PAPER = {"cifar10": (0.1, 32, 500), "imagenet13": (0.032, 32, 500), "fashion-mnist": (0.3, 512, 1000)}
OBJECTIVES = ("both", "privacy", "affinity")
TERMS = ("affinity", "domain", "similarity", "matching", "clean")
SERIES = (*TERMS, "generator_gradient", "surrogate_gradient", "perturbation", "magnitude", "spread")


@dataclass(frozen=True, kw_only=True)
class PPLConfig:
    """Settings of `train_ppl`. The defaults play a game that works in about a minute; `reference` is the regime behind our
    results, `paper` the printed one.

    Args:
        code_lengths: bits of each surrogate; several surrogates share the generator, their losses are averaged.
        backbone: of the surrogates, a name for `pplkit.backbones.create`.
        widths: of the generator; None: the paper's for the image's channels.
        epsilon, norm: the budget, see `pplkit.budget`.
        alpha, beta, gamma: weights of domain, similarity and matching loss in J_p, eq. (11).
        affinity: weight of J_o, in the generator's objective unless `generator_affinity` is given; 1 in the paper.
        clean: weight of a clean-pair loss mean((x_i·x_j/c − S_ij)²) on the surrogate's side only; 0 in the paper. It keeps
            the surrogate from forgetting clean images in long games.
        reverse_scale: λ of the gradient reversal, eq. (13).
        similarity: "balanced" (dissimilar pairs −r) or "literal" (−1) S in the pair losses.
        kernel: of D_s: "multi_gaussian", "gaussian" (bandwidth = code length) or "linear".
        reduction: "mean" or "sum" over pairs and images.
        scaled: residual z·z/c − S (True) or z·z − cS (False).
        generator_affinity: weight of J_o in the generator's objective, one for all surrogates or a tuple of one each; None:
            `affinity`, as in eq. (12). Below 0 the generator breaks up the search among protected images (A->A).
        surrogate_objective: what a surrogate minimises, one for all or a tuple of one each: "both", eqs. (12) and (14):
            J_o + J_p; "privacy", Algorithm 1: J_p only; "affinity": J_o only, as a searcher of protected images does.
        warmup_steps, warmup_learning_rate: the surrogates are first trained on clean pairs (Adam); 0 steps: random start.
        steps: of the game.
        batch_size: images per step.
        optimiser: "adam" or "sgd" (momentum 0.9), for both players.
        generator_learning_rate: 0 freezes the generator.
        surrogate_learning_rate: one for all surrogates, or a tuple of one each; 0 freezes a surrogate.
        refresh_every: every so many steps a surrogate goes back to its state after the warm-up (0: never), several
            surrogates in turn. The generator then keeps meeting surrogates that know clean images, at every stage of
            their adaptation.
        generator_average: decay of an exponential moving average of G's weights, which is then what is returned; 0: off.
        seed: of weights and batches.
        autocast: bfloat16; None: where the processor is faster with it.
        checkpoint_every: steps between checkpoints (and between looks at the losses for NaN and collapse).
    """

    code_lengths: tuple[int, ...] = (8,)
    backbone: str = "two_conv"
    widths: tuple[int, ...] | None = None
    epsilon: float = 0.3
    norm: str = "inf"
    alpha: float = 1.0
    beta: float = 10.0
    gamma: float = 1.0
    affinity: float = 1.0
    clean: float = 0.0
    reverse_scale: float = 1.0
    similarity: str = "balanced"
    kernel: str = "multi_gaussian"
    reduction: str = "mean"
    scaled: bool = True
    generator_affinity: float | tuple[float, ...] | None = None
    surrogate_objective: str | tuple[str, ...] = "both"
    warmup_steps: int = 1500
    warmup_learning_rate: float = 1e-3
    steps: int = 800
    batch_size: int = 128
    optimiser: str = "adam"
    generator_learning_rate: float = 1e-3
    surrogate_learning_rate: float | tuple[float, ...] = 1e-5
    refresh_every: int = 0
    generator_average: float = 0.0
    seed: int = 0
    autocast: bool | None = None
    checkpoint_every: int = 100

    def __post_init__(self) -> None:
        budget.format_epsilon(self.epsilon)
        try:
            backbones.parse(self.backbone)
        except ValueError as error:
            raise ValueError(f"backbone must be a network of pplkit.backbones ({error}), got {self.backbone!r}") from error
        choices = {"norm": budget.NORMS, "similarity": ("balanced", "literal"),
                   "kernel": tuple(KERNELS), "reduction": ("mean", "sum"), "scaled": (True, False),
                   "optimiser": ("adam", "sgd"), "autocast": (None, True, False)}
        for name, accepted in choices.items():
            if getattr(self, name) not in accepted:
                raise ValueError(f"{name} must be one of {list(accepted)}, got {getattr(self, name)!r}")
        for name, least in {"warmup_steps": 0, "steps": 0, "batch_size": 2, "refresh_every": 0, "seed": 0,
                            "checkpoint_every": 1}.items():
            if not _is_whole(getattr(self, name), least):
                raise ValueError(f"{name} must be a whole number of at least {least}, got {getattr(self, name)!r}")
        for name in ("code_lengths", *(("widths",) if self.widths is not None else ())):
            values = getattr(self, name)
            if not isinstance(values, (tuple, list)) or not values or not all(_is_whole(value, 1) for value in values):
                raise ValueError(f"{name} must be whole numbers of at least 1, got {values!r}")
        for name in ("alpha", "beta", "gamma", "affinity", "clean", "reverse_scale", "warmup_learning_rate",
                     "generator_learning_rate"):
            if not _is_number(getattr(self, name)):
                raise ValueError(f"{name} must be at least 0 and finite, got {getattr(self, name)!r}")
        each = {"surrogate_learning_rate": (_is_number, "finite number of at least 0"),
                "generator_affinity": (_is_finite, "finite number"),
                "surrogate_objective": (OBJECTIVES.__contains__, f"of {list(OBJECTIVES)}")}
        for name, (accepted, what) in each.items():
            values = self.per_surrogate(name)
            if len(values) != len(self.code_lengths) or not all(map(accepted, values)):
                raise ValueError(f"{name} must be one {what}, or {len(self.code_lengths)} of them (one per surrogate), "
                                 f"got {getattr(self, name)!r}")
        if self.affinity == 0 and "affinity" in self.per_surrogate("surrogate_objective"):
            raise ValueError("surrogate_objective 'affinity' with affinity=0 leaves a surrogate nothing to learn: change one")
        if not _is_number(self.generator_average) or self.generator_average >= 1:
            raise ValueError(f"generator_average must be in [0, 1), got {self.generator_average!r}")

    def per_surrogate(self, name: str) -> tuple:
        """The setting `name`, which may be given once for all surrogates, as one value per surrogate."""
        value = getattr(self, name)
        if name == "generator_affinity" and value is None:
            value = self.affinity
        return tuple(value) if isinstance(value, (tuple, list)) else (value,) * len(self.code_lengths)

    @classmethod
    def paper(cls, dataset: str, **changes: object) -> "PPLConfig":
        """The settings as the paper prints them: random start, literal S, Frobenius sums, SGD with 1e-4 (G) and 1e-3 (F).

        The surrogate is a ResNet-50 on colour images. Whether it was pretrained the paper does not say; random weights here,
        `backbone="resnet50:IMAGENET1K_V1"` for the other reading.

        Args:
            dataset: "cifar10", "imagenet13" or "fashion-mnist" (ε, batch size, iterations).
            changes: fields to replace.

        Raises:
            ValueError: the paper has no such data set.
        """
        if dataset not in PAPER:
            raise ValueError(f"the paper has no settings for {dataset!r}: choose one of {sorted(PAPER)}")
        epsilon, batch_size, steps = PAPER[dataset]
        printed = cls(backbone=PAPER_BACKBONE[dataset], epsilon=epsilon, batch_size=batch_size, steps=steps, warmup_steps=0,
                      similarity="literal", reduction="sum", optimiser="sgd", generator_learning_rate=1e-4,
                      surrogate_learning_rate=1e-3)
        return dataclasses.replace(printed, **changes)

    @classmethod
    def reference(cls, dataset: str, **changes: object) -> "PPLConfig":
        """The regime behind our Table 1, chosen on validation queries (data/results/regimes-fashion-mnist.json).

        Four 8-bit surrogates that know clean images; each adapts for 400 steps, then starts anew, in turn. Several surrogates
        make the attack carry over to victims; the moving ones keep the protected images from settling in one wrong place per
        class, where a search among themselves (A->A) would still work.

        Args:
            dataset: as for `paper`, for its ε ("-mini" may follow); any other name if `changes` has an epsilon.
            changes: fields to replace.

        Raises:
            ValueError: another data set, and no ε.
        """
        name, settings = dataset.removesuffix("-mini"), REFERENCE | changes
        if name in PAPER:
            settings = {"epsilon": PAPER[name][0]} | settings
        if "epsilon" not in settings:
            raise ValueError(f"the paper has no epsilon for {dataset!r} (it has for {sorted(PAPER)}): give epsilon=...")
        return cls(**settings)

    @classmethod
    def scatter(cls, dataset: str, **changes: object) -> "PPLConfig":
        """`reference` with a generator that also works against a search among protected images (A->A).

        Towards the four surrogates that know clean images the generator's weight of J_o is −6: protected images of a class
        shall not meet in one place. A fifth goes on from its warm-up with protected images alone (J_o, fast), like a
        searcher who learns from them; there the weight stays +1, so that they remain usable among themselves.
        """
        return cls.reference(dataset, **SCATTER | changes)


REFERENCE = {"code_lengths": (8, 8, 8, 8), "surrogate_learning_rate": 3e-5, "refresh_every": 400}
SCATTER = {"code_lengths": (8,) * 5, "surrogate_objective": ("both",) * 4 + ("affinity",),
           "surrogate_learning_rate": (3e-5,) * 4 + (1e-3,), "generator_affinity": (-6.0,) * 4 + (1.0,)}


def _is_whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_finite(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_number(value: object) -> bool:
    return _is_finite(value) and value >= 0


KERNELS: dict[str, Callable[[int], losses.Kernel]] = {
    "multi_gaussian": lambda bits: losses.multi_gaussian_kernel(),
    "gaussian": lambda bits: losses.gaussian_kernel(float(bits)),
    "linear": lambda bits: losses.linear_kernel,
}


@dataclass
class Game:
    """The state of a run: both players, their optimisers, the random state. `step` plays one round of eq. (14)."""

    config: PPLConfig
    images: Tensor  # uint8 (N, C, H, W) on the device
    labels: Tensor  # (N,) on the device
    processes: Processes = Processes()  # each has all images and plays with its share of every batch
    checkpointing: bool = False  # of the surrogates' activations, see `backbones.Torchvision`
    generator: PerturbationGenerator = field(init=False)
    average: PerturbationGenerator | None = field(init=False, default=None)
    surrogates: list[HashingNetwork] = field(init=False)

    def __post_init__(self) -> None:
        config, device = self.config, self.images.device
        self.processes.check_batch(min(config.batch_size, len(self.images)))
        channels, size = image_form(self.images)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(config.seed)
            self.generator = PerturbationGenerator(channels, config.widths)
        self.generator.to(device, memory_format=torch.channels_last).train()
        self.processes.synchronise(self.generator)
        if config.generator_average:
            self.average = copy.deepcopy(self.generator)
        self.surrogates = [
            build(bits, config.backbone, channels, size, config.seed + i, checkpointing=self.checkpointing)
            .to(device, memory_format=torch.channels_last).train() for i, bits in enumerate(config.code_lengths)]
        for network in self.surrogates:
            self.processes.synchronise(network)
        self.fresh: list[dict[str, Tensor]] = []
        self.compiled: dict[torch.nn.Module, Callable[[Tensor], Tensor]] = {}
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

    def _optimiser(self, networks: Sequence[torch.nn.Module], learning_rates: Sequence[float]) -> torch.optim.Optimizer:
        groups = [{"params": list(network.parameters()), "lr": rate}
                  for network, rate in zip(networks, learning_rates, strict=True)]
        if self.config.optimiser == "adam":
            return torch.optim.Adam(groups, fused=True)
        return torch.optim.SGD(groups, momentum=0.9, fused=True)

    def compile(self, backend: str = "inductor") -> None:
        """Let `torch.compile` fuse both players' passes from now on; results differ by rounding only.

        The networks themselves stay as they are. The first step takes a minute or more, and not every processor gains:
        `python -m tests.benchmarks.bench_training --compile` measures it. ValueError: `checkpointing` cannot be compiled.
        """
        if self.checkpointing and self.config.backbone.partition(":")[0] in backbones.TORCHVISION:
            raise ValueError("torch.compile cannot follow checkpointing: choose one of the two")
        self.compiled = {network: torch.compile(network, backend=backend, dynamic=False)
                         for network in (self.generator, *self.surrogates)}

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
        index = torch.randperm(len(self.images), generator=self.random)[:size].to(self.images.device)
        images = budget.to_float(self.images[self.processes.share(index)]).contiguous(memory_format=torch.channels_last)
        return images, losses.similarity_matrix(self.labels[index], balanced=self.config.similarity == "balanced")

    def warm_up(self) -> dict[str, Tensor]:
        """One step of the surrogates alone, on clean pairs: mean((x_i·x_j / c − S_ij)²)."""
        images, similarity = self.batch()
        total = torch.zeros((), device=images.device)
        for network in self.surrogates:
            with devices.autocast(images.device, self.config.autocast):
                codes = self.compiled.get(network, network)(images)  # (B, c)
            total = total + losses.affinity_loss(self.processes.gather(codes.float()), similarity)
        optimiser = self.optimisers["warmup"]
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        self.processes.add(p.grad for network in self.surrogates for p in network.parameters())
        optimiser.step()
        return {"warmup": total.detach() / len(self.surrogates)}

    def gradients(self, images: Tensor, similarity: Tensor) -> dict[str, Tensor]:
        """Fill both players' `.grad` for one batch: F with ∇(J_o + J_p), G with ∇(J_o − λ J_p).

        Same gradients as one backward pass through two copies of F(z), the one for J_p behind a gradient reversal layer;
        but F sees z once: the activations are shared, only the cotangents at its output differ.

        Args:
            images: clean, float (B, C, H, W); with several processes this one's share of the batch.
            similarity: S, float (B, B), of the whole batch.

        Returns:
            unweighted loss terms and monitors, scalars, averaged over the surrogates.
        """
        config = self.config
        players = len(self.surrogates)
        with devices.autocast(images.device, config.autocast):
            pattern = self.compiled.get(self.generator, self.generator)(images)  # (B, C, H, W)
        adversarial = budget.adversarial(images, pattern.to(images.dtype), config.epsilon, config.norm)
        z = adversarial.detach().requires_grad_()
        z_gradient = torch.zeros_like(z)
        record = dict.fromkeys(SERIES, torch.zeros((), device=images.device))
        each = map(config.per_surrogate, ("surrogate_learning_rate", "surrogate_objective", "generator_affinity"))
        for network, privacy, rate, objective, weight in zip(self.surrogates, self.privacy, *each, strict=True):
            play = self.compiled.get(network, network)
            with devices.autocast(images.device, config.autocast):
                outputs = play(images), play(z)  # (B, c) twice
            clean, protected = (self.processes.gather(codes.detach().to(images.dtype)).requires_grad_() for codes in outputs)
            terms = privacy.terms(clean, protected, similarity)
            j_p = config.alpha * terms["domain"] + config.beta * terms["similarity"] + config.gamma * terms["matching"]
            terms["affinity"] = losses.affinity_loss(protected, similarity, reduction=config.reduction, scaled=config.scaled)
            terms["clean"] = losses.affinity_loss(clean, similarity, reduction=config.reduction, scaled=config.scaled)
            p_clean, p_protected = torch.autograd.grad(j_p, (clean, protected))
            o_protected, = torch.autograd.grad(terms["affinity"], protected)
            c_clean, = torch.autograd.grad(config.clean * terms["clean"], clean)
            cotangent = weight * o_protected - config.reverse_scale * p_protected  # at F(z), for the generator
            own_rows = self.processes.share(cotangent).to(outputs[1].dtype)
            z_gradient += torch.autograd.grad(outputs[1], z, own_rows, retain_graph=True)[0] / players
            if rate > 0:
                of_p, of_o = float(objective != "affinity"), config.affinity * (objective != "privacy")
                rows = (of_p * p_clean + c_clean, of_p * p_protected + of_o * o_protected)  # at F(x) and F(z), (B, c) each
                torch.autograd.backward(outputs, [self.processes.share(row).to(codes.dtype)
                                                  for row, codes in zip(rows, outputs, strict=True)],
                                        inputs=list(network.parameters()))
                self.processes.add(p.grad for p in network.parameters())
            monitors = {"magnitude": clean.detach().abs().mean(), "spread": clean.detach().std(0).mean()}
            for name, value in {**terms, **monitors}.items():
                record[name] = record[name] + value.detach() / players
        adversarial.backward(z_gradient)
        record["perturbation"] = (z.detach() - images).abs().mean() / self.processes.count
        self.processes.add([*(p.grad for p in self.generator.parameters()), record["perturbation"]])
        return record

    def remember(self) -> None:
        """Keep the surrogates' present weights (after the warm-up) as what `refresh` goes back to."""
        self.fresh = [copy.deepcopy(network.state_dict()) for network in self.surrogates]

    def round(self, step: int) -> dict[str, Tensor]:
        """Game step number `step` (0, 1, …) of a run: `step` with the refreshes that are due."""
        if step == 0:
            self.remember()
        self.refresh(step)
        return self.step()

    def refresh(self, step: int) -> None:
        """Before game step `step` (0, 1, …): put those surrogates back whose turn it is, and forget their momentum."""
        every, players = self.config.refresh_every, len(self.surrogates)
        for i, network in enumerate(self.surrogates):
            if every and step and (step + i * every // players) % every == 0:
                network.load_state_dict(self.fresh[i])
                for weight in network.parameters():
                    self.optimisers["surrogate"].state.pop(weight, None)

    def step(self) -> dict[str, Tensor]:
        """One round of the game on a new batch: both players step at once. Returns the entries of `history`."""
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


def _gradient_norm(weights: Sequence[Tensor], like: Tensor) -> Tensor:
    gradients = [p.grad for p in weights if p.grad is not None]
    return torch.nn.utils.get_total_norm(gradients) if gradients else torch.zeros_like(like)
