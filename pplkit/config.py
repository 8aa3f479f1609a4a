"""The settings of the game: `PPLConfig`, its presets, and the choices the paper leaves open."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from pplkit import backbones, budget, losses
from pplkit.preconditions import check_whole, is_finite, is_number, is_whole

PAPER_BACKBONE = {"cifar10": "resnet50", "imagenet13": "resnet50", "fashion-mnist": "two_conv"}
PAPER = {"cifar10": (0.1, 32, 500), "imagenet13": (0.032, 32, 500), "fashion-mnist": (0.3, 512, 1000)}  # ε, m, t
PAPER_IMAGES = 10_000  # n, for training
EPOCHS = ("t/m", "n/m")
OBJECTIVES = ("both", "privacy", "affinity")


@dataclass(frozen=True, kw_only=True)
class PPLConfig:
    """Settings of `train_ppl`. The defaults play a game that works in about a minute; `reference` is the course's regime,
    `several` the one behind our Table 1 on Fashion-MNIST, `paper` the printed one.

    Args:
        code_lengths: bits of each surrogate; several surrogates share the generator, their losses are averaged.
        backbone: of the surrogates, a name for `pplkit.backbones.create`: one for all or a tuple of one each. The protection
            carries over to searchers with the networks it has met better than to others.
        widths: of the generator; None: the paper's for the image's channels.
        full_resolution: True: the convolutions of the generator's decoder all work at the image's size, see
            `pplkit.generator`; None or False: each at its own size.
        epsilon, norm: the budget, see `pplkit.budget`.
        alpha, beta, gamma: weights of domain, similarity and matching loss in J_p, eq. (11).
        affinity: weight of J_o, in the generator's objective unless `generator_affinity` is given; 1 in the paper.
        clean: weight of J_o of the clean codes, on the surrogate's side only; 0 in the paper. It keeps the surrogate from
            forgetting clean images in long games.
        reverse_scale: λ of the gradient reversal, eq. (13): one for all surrogates or a tuple of one each.
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
        optimiser: "adam", "sgd" (plain, as the paper prints it) or "momentum" (SGD with 0.9), for both players.
        generator_learning_rate: 0 freezes the generator.
        surrogate_learning_rate: one for all surrogates, or a tuple of one each; 0 freezes a surrogate.
        refresh_every: every so many steps a surrogate goes back to its state after the warm-up (0: never), several
            surrogates in turn. The generator then keeps meeting surrogates that know clean images, at every stage of
            their adaptation.
        restart_every: before the game, and every so many steps of it (several surrogates in turn), a surrogate starts anew
            from other random weights instead of being refreshed (of pretrained weights only the code layer is new), and is not
            warmed up: one for all or a tuple of one each; 0 or None: never. With the objective "affinity" it plays a searcher
            who begins to learn from protected images.
        generator_schedule: of its learning rate over the game: "cosine" (down to 0), or None: constant.
        generator_average: decay of an exponential moving average of G's weights, which is then what is returned; 0: off.
        seed: of weights and batches. Surrogate i starts from the random numbers of `seed` + i, so the games of seeds 0 and 1
            share the starts of all their surrogates but one each.
        autocast: bfloat16; None: where the processor is faster with it. False is float32, in which PyTorch lets a GPU's
            convolutions multiply with 10 bits (torch.backends.cudnn.allow_tf32).
        checkpoint_every: steps between checkpoints (and between looks at the losses for NaN and collapse).
    """

    code_lengths: tuple[int, ...] = (8,)
    backbone: str | tuple[str, ...] = "two_conv"
    widths: tuple[int, ...] | None = None
    full_resolution: bool | None = None
    epsilon: float = 0.3
    norm: str = "inf"
    alpha: float = 1.0
    beta: float = 10.0
    gamma: float = 1.0
    affinity: float = 1.0
    clean: float = 0.0
    reverse_scale: float | tuple[float, ...] = 1.0
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
    restart_every: int | tuple[int, ...] | None = None
    generator_schedule: str | None = None
    generator_average: float = 0.0
    seed: int = 0
    autocast: bool | None = None
    checkpoint_every: int = 100

    def __post_init__(self) -> None:
        budget.format_epsilon(self.epsilon)
        object.__setattr__(self, "norm", budget.check_norm(self.norm))
        choices = {"similarity": ("balanced", "literal"),
                   "kernel": tuple(KERNELS), "reduction": ("mean", "sum"), "scaled": (True, False),
                   "optimiser": ("adam", "sgd", "momentum"), "generator_schedule": (None, "cosine"),
                   "autocast": (None, True, False), "full_resolution": (None, True, False)}
        for name, accepted in choices.items():
            if getattr(self, name) not in accepted:
                raise ValueError(f"{name} must be one of {list(accepted)}, got {getattr(self, name)!r}")
        for name, least in {"warmup_steps": 0, "steps": 0, "batch_size": 2, "refresh_every": 0, "seed": 0,
                            "checkpoint_every": 1}.items():
            check_whole(getattr(self, name), name, least)
        for name in ("code_lengths", *(("widths",) if self.widths is not None else ())):
            values = getattr(self, name)
            if not isinstance(values, (tuple, list)) or not values or not all(is_whole(value, 1) for value in values):
                raise ValueError(f"{name} must be whole numbers of at least 1, got {values!r}")
        try:
            for name in self.per_surrogate("backbone"):
                backbones.parse(name)
        except ValueError as error:
            raise ValueError(f"backbone must be a network of pplkit.backbones ({error}), got {self.backbone!r}") from error
        for name in ("alpha", "beta", "gamma", "affinity", "clean", "warmup_learning_rate", "generator_learning_rate"):
            if not is_number(getattr(self, name)):
                raise ValueError(f"{name} must be at least 0 and finite, got {getattr(self, name)!r}")
        each = {"surrogate_learning_rate": (is_number, "finite number of at least 0"),
                "generator_affinity": (is_finite, "finite number"),
                "reverse_scale": (is_number, "finite number of at least 0"),
                "restart_every": (is_whole, "whole number of at least 0"),
                "surrogate_objective": (OBJECTIVES.__contains__, f"of {list(OBJECTIVES)}"),
                "backbone": (lambda name: isinstance(name, str), "name of a network")}
        for name, (accepted, what) in each.items():
            values = self.per_surrogate(name)
            if len(values) != len(self.code_lengths) or not all(map(accepted, values)):
                raise ValueError(f"{name} must be one {what}, or {len(self.code_lengths)} of them (one per surrogate, as "
                                 f"code_lengths has), got {getattr(self, name)!r}")
        if self.affinity == 0 and "affinity" in self.per_surrogate("surrogate_objective"):
            raise ValueError("surrogate_objective 'affinity' with affinity=0 leaves a surrogate nothing to learn: change one")
        if not is_number(self.generator_average) or self.generator_average >= 1:
            raise ValueError(f"generator_average must be in [0, 1), got {self.generator_average!r}")
        for name, value in vars(self).items():  # lists equal tuples, one name equals all alike, and False equals None
            if isinstance(value, list):
                object.__setattr__(self, name, tuple(value))
        if len(set(self.per_surrogate("backbone"))) == 1:
            object.__setattr__(self, "backbone", self.per_surrogate("backbone")[0])
        object.__setattr__(self, "full_resolution", bool(self.full_resolution) or None)

    def per_surrogate(self, name: str) -> tuple:
        """The setting `name`, which may be given once for all surrogates, as one value per surrogate."""
        value = getattr(self, name)
        if value is None:
            value = {"generator_affinity": self.affinity, "restart_every": 0}.get(name)
        return tuple(value) if isinstance(value, (tuple, list)) else (value,) * len(self.code_lengths)

    @property
    def has_deep_surrogates(self) -> bool:
        """Whether a surrogate is one of torchvision's networks; only these have activations to leave out (`checkpointing`)."""
        return any(backbones.parse(name)[0] in backbones.TORCHVISION for name in self.per_surrogate("backbone"))

    @classmethod
    def paper(cls, dataset: str, *, epoch: str = "t/m", **changes: object) -> "PPLConfig":
        """The settings as the paper prints them: random start, literal S, Frobenius sums, SGD with 1e-4 (G) and 1e-3 (F).

        Where the paper leaves a choice, this is one reading, and a field has the other: `surrogate_objective` "both" follows
        eqs. (12) and (14), "privacy" Algorithm 1; `scaled` True divides products of codes by c; `full_resolution` None
        gives each convolution of the decoder its own size; `backbone` is a ResNet-50 from random weights on colour images,
        "resnet50:IMAGENET1K_V1" a pretrained one; on grey ones "two_conv" (5×5 kernels), and "two_conv_3x3" is the other
        reading.

        Args:
            dataset: "cifar10", "imagenet13" or "fashion-mnist" (ε, batch size m, iterations t).
            epoch: length e of Algorithm 1's inner loop, which runs t times: "t/m" as printed, or "n/m", all n = 10,000
                training images once; t·e steps.
            changes: fields to replace.

        Raises:
            ValueError: the paper has no such data set, or an unknown `epoch`.
        """
        if dataset not in PAPER:
            raise ValueError(f"the paper has no settings for {dataset!r}: choose one of {sorted(PAPER)}")
        if epoch not in EPOCHS:
            raise ValueError(f"epoch must be one of {list(EPOCHS)}, got {epoch!r}")
        epsilon, batch_size, iterations = PAPER[dataset]
        steps = iterations * ((iterations if epoch == "t/m" else PAPER_IMAGES) // batch_size)
        printed = cls(backbone=PAPER_BACKBONE[dataset], epsilon=epsilon, batch_size=batch_size, steps=steps, warmup_steps=0,
                      similarity="literal", reduction="sum", optimiser="sgd", generator_learning_rate=1e-4,
                      surrogate_learning_rate=1e-3)
        return dataclasses.replace(printed, **changes)

    @classmethod
    def reference(cls, dataset: str, **changes: object) -> "PPLConfig":
        """The course's regime, chosen on validation queries (data/results/regimes-fashion-mnist.json).

        Four 8-bit surrogates that know clean images; each adapts for 400 steps, then starts anew, in turn. Several surrogates
        make the attack carry over to victims; the moving ones keep the protected images from settling in one wrong place per
        class, where a search among themselves (A->A) would still work.

        Args:
            dataset: as for `paper`, for its ε ("-mini" may follow); any other name if `changes` has an epsilon.
            changes: fields to replace.

        Raises:
            ValueError: another data set, and no ε.
        """
        name = dataset.removesuffix("-mini")
        settings = REFERENCE | (IMAGENET_RATES if name == "imagenet13" else {}) | changes
        if name in PAPER:
            settings = {"epsilon": PAPER[name][0]} | settings
        if "epsilon" not in settings:
            raise ValueError(f"the paper has no epsilon for {dataset!r} (it has for {sorted(PAPER)}): give one")
        return cls(**settings)

    @classmethod
    def scatter(cls, dataset: str, **changes: object) -> "PPLConfig":
        """A generator against searches among protected images (A->A) and against searchers who learn from them, too.

        Towards the four surrogates of `reference` the generator's weight of J_o is below 0: protected images of a class shall
        not meet in one place. Two more learn from protected images alone, from new random weights again and again, and there
        the generator is to *help* (J_o only): a mark of the class that is learned sooner than the picture leaves little reason
        to learn the picture ("unlearnable examples", Huang et al., ICLR 2021). The game is longer and G's rate falls to 0.
        """
        slower = {"surrogate_learning_rate": (6e-6,) * 4 + (2e-4,) * 2} if dataset == "imagenet13" else {}
        return cls.reference(dataset, **SCATTER | slower | changes)

    @classmethod
    def shortcut(cls, dataset: str, **changes: object) -> "PPLConfig":
        """`scatter`, but towards its two learners the generator minimises 30 J_o − J_p instead of 20 J_o.

        In `scatter` the generator makes protected images easy to learn; nothing keeps a learner from using the picture as well,
        and then it finds clean images, too. Here a mark of the class has to take the picture's place ("shortcut learning",
        Geirhos et al., Nature Machine Intelligence 2020): a learner's codes of protected images shall agree with their classes
        and disagree with those of the clean originals. The learners themselves still minimise J_o only. They live 600 steps
        instead of 100, so that the generator also meets some that have trained longer.
        """
        return cls.scatter(dataset, **SHORTCUT | changes)

    @classmethod
    def several(cls, dataset: str, **changes: object) -> "PPLConfig":
        """`shortcut` with surrogates of three networks instead of one.

        Surrogates of one network share more than what their data taught them, and the generator attacks that, too. What three
        networks have in common is more of what a fourth one will see (several models: Liu et al., ICLR 2017).
        """
        return cls.shortcut(dataset, **SEVERAL | changes)


# 64-pixel images give the two-convolution network ten times the features of 28-pixel ones: at 1e-3 its first Adam steps drive
# every tanh into saturation, and the codes stay near 0. Decided by the data set's name: other images of that size need to be
# given them.
IMAGENET_RATES = {"warmup_learning_rate": 2e-4, "surrogate_learning_rate": 6e-6}
REFERENCE = {"code_lengths": (8, 8, 8, 8), "surrogate_learning_rate": 3e-5, "refresh_every": 400}
SCATTER = {"code_lengths": (8,) * 6, "surrogate_objective": ("both",) * 4 + ("affinity",) * 2,
           "surrogate_learning_rate": (3e-5,) * 4 + (1e-3,) * 2, "generator_affinity": (-5.0,) * 4 + (20.0,) * 2,
           "reverse_scale": (1.0,) * 4 + (0.0,) * 2, "restart_every": (0,) * 4 + (100,) * 2, "generator_schedule": "cosine",
           "steps": 2400}
SHORTCUT = {"reverse_scale": 1.0, "generator_affinity": (-5.0,) * 4 + (30.0,) * 2, "restart_every": (0,) * 4 + (600,) * 2}
# four that know clean images, then the two learners
SEVERAL = {"backbone": ("two_conv_3x3", "two_conv", "dense", "two_conv_3x3", "two_conv_3x3", "two_conv")}


REGIMES = {"reference": PPLConfig.reference, "scatter": PPLConfig.scatter, "shortcut": PPLConfig.shortcut,
           "several": PPLConfig.several}
OF_SEVERAL_NETWORKS = ("several",)  # regimes whose surrogates have networks of their own
KERNELS: dict[str, Callable[[int], losses.Kernel]] = {
    "multi_gaussian": lambda bits: losses.multi_gaussian_kernel(),
    "gaussian": lambda bits: losses.gaussian_kernel(float(bits)),
    "linear": lambda bits: losses.linear_kernel,
}
