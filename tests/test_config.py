"""pplkit.config: presets, and what settings are refused."""

import dataclasses
import math

import pytest

from pplkit.config import REGIMES, PPLConfig


def test_the_papers_settings():
    """Section 'Implementation Details': ε 0.1, 0.032, 0.3; 500, 500, 1000 iterations; batches of 32, 32, 512."""
    printed = {"cifar10": (0.1, 500, 32), "imagenet13": (0.032, 500, 32), "fashion-mnist": (0.3, 1000, 512)}
    for dataset, (epsilon, iterations, batch_size) in printed.items():
        config = PPLConfig.paper(dataset)
        assert (config.epsilon, config.batch_size) == (epsilon, batch_size)
        assert config.steps == iterations * (iterations // batch_size)  # Algorithm 1: t rounds of e = [t/m]
        assert PPLConfig.paper(dataset, epoch="n/m").steps == iterations * (10000 // batch_size)
        assert config.norm == "inf" and config.code_lengths == (8,)
        assert (config.alpha, config.beta, config.gamma, config.reverse_scale, config.affinity) == (1, 10, 1, 1, 1)
        assert (config.generator_learning_rate, config.surrogate_learning_rate) == (1e-4, 1e-3)
        assert (config.optimiser, config.similarity, config.reduction) == ("sgd", "literal", "sum")
        assert config.warmup_steps == 0 and config.clean == 0 and config.widths is None
    changed = PPLConfig.paper("fashion-mnist", steps=3, seed=5)
    assert changed == dataclasses.replace(PPLConfig.paper("fashion-mnist"), steps=3, seed=5)
    with pytest.raises(ValueError, match="no settings for 'mnist': choose one of .*'cifar10'"):
        PPLConfig.paper("mnist")
    with pytest.raises(ValueError, match=r"epoch must be one of \['t/m', 'n/m'\], got 'n'"):
        PPLConfig.paper("cifar10", epoch="n")


def test_surrogates_of_64_pixel_images_learn_at_a_fifth_of_the_rates():
    for preset in REGIMES.values():
        small, large = preset("cifar10"), preset("imagenet13")
        for name in ("warmup_learning_rate", "surrogate_learning_rate"):
            assert large.per_surrogate(name) == pytest.approx([rate / 5 for rate in small.per_surrogate(name)])
        assert preset("imagenet13", warmup_learning_rate=0.1).warmup_learning_rate == 0.1


def test_shortcut_plays_against_the_learners_too_and_lets_them_live_longer():
    scatter, shortcut = PPLConfig.scatter("fashion-mnist"), PPLConfig.shortcut("fashion-mnist")
    differing = {name for name in vars(scatter) if getattr(scatter, name) != getattr(shortcut, name)}
    assert differing == {"reverse_scale", "generator_affinity", "restart_every"}
    learners = [objective == "affinity" for objective in shortcut.per_surrogate("surrogate_objective")]
    assert [bool(restart) for restart in shortcut.per_surrogate("restart_every")] == learners and sum(learners) == 2
    assert min(shortcut.per_surrogate("reverse_scale")) > 0 == min(scatter.per_surrogate("reverse_scale"))


def test_several_is_shortcut_with_three_networks_among_teachers_and_learners():
    shortcut, several = PPLConfig.shortcut("fashion-mnist"), PPLConfig.several("fashion-mnist")
    assert several == dataclasses.replace(shortcut, backbone=several.backbone)
    assert [len(set(several.per_surrogate("backbone")[part])) for part in (slice(4), slice(4, 6))] == [3, 2]
    given = {"backbone": "dense", "steps": 7}
    assert PPLConfig.several("fashion-mnist", **given) == PPLConfig.shortcut("fashion-mnist", **given)


IMPOSSIBLE = {
    "code_lengths": [(), (0,), (8, -1), (8.0,), (True,), 8, "8"],
    "backbone": ["resnet5000", None, 5, (), ("two_conv", "dense"), ("resnet5000",), (None,)],
    "widths": [(), (0, 4), (4.0,), "wide"],
    "epsilon": [-0.1, 1.1, 8, math.nan, "0.3"],
    "norm": ["l2", 0],
    "alpha": [-1.0, math.nan, "1", None],
    "beta": [-1.0, math.inf],
    "gamma": [-1.0, True],
    "affinity": [-1.0, "1"],
    "clean": [-1.0, math.nan],
    "reverse_scale": [-1.0, math.nan],
    "similarity": ["Balanced", True],
    "kernel": ["rbf", None],
    "reduction": ["none", None],
    "scaled": ["yes", None],
    "generator_affinity": [math.nan, -math.inf, "1", (1.0, 1.0), ()],
    "surrogate_objective": ["J_o", None, ("both", "both"), ("J_o",)],
    "warmup_steps": [-1, 1.5, True],
    "warmup_learning_rate": [-1e-3, math.nan],
    "steps": [-1, 10.0, "10"],
    "batch_size": [0, 1, 2.0],
    "optimiser": ["Adam", None],
    "generator_learning_rate": [-1e-3, "fast"],
    "surrogate_learning_rate": [-1e-3, math.inf, "slow", (1e-3, 1e-3), (), (None,)],
    "refresh_every": [-1, 0.5],
    "restart_every": [-1, 0.5, True, (100, 100), ()],
    "generator_schedule": ["constant", 0],
    "generator_average": [1.0, -0.1, math.nan, "0.9"],
    "seed": [-1, 0.5, "0", None],
    "autocast": ["yes", 2],
    "full_resolution": ["yes", 2],
    "checkpoint_every": [0, 1.0],
}


def test_every_setting_is_validated():
    assert set(IMPOSSIBLE) == {f.name for f in dataclasses.fields(PPLConfig)}


@pytest.mark.parametrize(("name", "bad"), [(name, bad) for name, values in IMPOSSIBLE.items() for bad in values])
def test_impossible_settings_are_refused(name, bad):
    with pytest.raises(ValueError) as error:
        PPLConfig(**{name: bad})
    assert str(error.value).startswith(f"{name} must be ") and str(error.value).endswith(f"got {bad!r}")


def test_lists_equal_tuples_and_false_equals_none():
    lists = PPLConfig(code_lengths=[8, 4], widths=[4, 4], surrogate_learning_rate=[1e-3, 0.0], full_resolution=False)
    assert lists == PPLConfig(code_lengths=(8, 4), widths=(4, 4), surrogate_learning_rate=(1e-3, 0.0)) and hash(lists)


@pytest.mark.parametrize(("backbone", "deep"), [("two_conv", False), ("resnet18@64", True), (["dense", "two_conv"], False),
                                                (("two_conv", "mobilenet_v3_small"), True)])
def test_networks_are_named_once_or_one_each(backbone, deep):
    config = PPLConfig(code_lengths=(8, 8), backbone=backbone)
    assert config.per_surrogate("backbone") == ((backbone,) * 2 if isinstance(backbone, str) else tuple(backbone))
    assert config.has_deep_surrogates is deep and hash(config)
    assert PPLConfig(code_lengths=(8, 8), backbone=("dense", "dense")) == PPLConfig(code_lengths=(8, 8), backbone="dense")


def test_a_configuration_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        PPLConfig().epsilon = 0.5
