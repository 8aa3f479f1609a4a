"""pplkit.game: the fast round of the game beside the literal formulation with a gradient reversal layer."""

import math

import pytest
import torch
from torch import Tensor
from torch.func import functional_call
from toy_game import TINY, gradients, start, toy

from pplkit import budget, game, losses
from pplkit.backbones import Dense, TwoConv
from pplkit.config import PPLConfig
from pplkit.game import SERIES, Game
from pplkit.gradient_reversal import reverse_gradient


def literal_step(played: Game, x: Tensor, similarity: Tensor) -> None:
    """Fill `.grad` by one backward pass of J = J_o + J_p (eq. 14), the reversal layer between G and F for J_p only."""
    config = played.config
    how = {"reduction": config.reduction, "scaled": config.scaled}
    z = budget.adversarial(x, played.generator(x), config.epsilon, config.norm)
    total = 0
    settings = zip(played.surrogates, config.code_lengths, config.per_surrogate("surrogate_objective"),
                   config.per_surrogate("generator_affinity"), config.per_surrogate("reverse_scale"), strict=True)
    for network, bits, objective, weight, scale in settings:
        kernel = game.KERNELS[config.kernel](bits)
        fixed = {name: value.detach() for name, value in network.named_parameters()}
        if objective == "affinity":  # J_p teaches the generator only, against the clean codes as they are
            clean = network(x).detach()
            protected = functional_call(network, fixed, (reverse_gradient(z, scale),))
        else:
            clean, protected = network(x), network(reverse_gradient(z, scale))
        j_p = config.alpha * losses.smmd(clean, protected, similarity, kernel)
        j_p = j_p + config.beta * losses.similarity_loss(clean, protected, similarity, **how)
        j_p = j_p + config.gamma * losses.matching_loss(clean, protected, reduction=config.reduction)
        j_o = weight * losses.affinity_loss(functional_call(network, fixed, (z,)), similarity, **how)  # for the generator
        if objective != "privacy":  # Algorithm 1: J_o teaches the generator only
            j_o = j_o + config.affinity * losses.affinity_loss(network(z.detach()), similarity, **how)
        total = total + j_o + j_p + config.clean * losses.affinity_loss(network(x), similarity, **how)
    total.backward()


CASES = {
    "defaults": {},
    "lambda 0.3": {"reverse_scale": 0.3},
    "lambda 4": {"reverse_scale": 4.0},
    "lambda 0": {"reverse_scale": 0.0},
    "Algorithm 1": {"surrogate_objective": "privacy", "reverse_scale": 2.0},
    "weights": {"alpha": 3.0, "beta": 0.5, "gamma": 0.1, "affinity": 2.0},
    "only J_o": {"alpha": 0.0, "beta": 0.0, "gamma": 0.0},
    "no J_o": {"affinity": 0.0},
    "clean pairs": {"clean": 1.5},
    "literal S, sums": {"similarity": "literal", "reduction": "sum", "scaled": False},
    "Gaussian": {"kernel": "gaussian"},
    "linear": {"kernel": "linear", "norm": "2"},
    "1-norm": {"norm": "1", "epsilon": 0.02},
    "one bit": {"code_lengths": (1,)},
    "three surrogates": {"code_lengths": (8, 4, 12), "reverse_scale": 0.5, "clean": 1.0},
    "two alike, Algorithm 1": {"code_lengths": (6, 6), "surrogate_objective": "privacy"},
    "the generator breaks J_o up": {"affinity": 2.0, "generator_affinity": -3.0},
    "each its own": {"code_lengths": (8, 4, 12), "surrogate_objective": ("both", "privacy", "affinity"), "clean": 1.0,
                     "generator_affinity": (-3.0, 0.0, 1.0), "affinity": 0.5, "reverse_scale": (2.0, 0.3, 0.0)},
    "several networks": {"code_lengths": (8, 4, 6), "backbone": ("two_conv", "dense", "two_conv_3x3")},
    "one learns from protected images only": {"code_lengths": (8, 4), "surrogate_objective": ("both", "affinity")},
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("case", CASES)
def test_both_players_gradients_equal_the_literal_formulation(case, channels):
    played = start(channels, **CASES[case])
    networks = [played.generator, *played.surrogates]
    for network in networks:
        network.double()
    images, similarity = played.batch()
    images, similarity = images.double(), similarity.double()
    literal_step(played, images, similarity)
    expected = [gradients(network) for network in networks]
    for network in networks:
        network.zero_grad(set_to_none=True)
    played.gradients(images, similarity)
    players = len(played.surrogates)
    for i, (network, theirs) in enumerate(zip(networks, expected, strict=True)):
        for name, ours in gradients(network).items():
            literal = theirs[name] / players if i == 0 else theirs[name]  # G's losses are averaged over surrogates
            scale = literal.abs().max().clamp_min(1e-6)
            assert torch.allclose(ours / scale, literal / scale, rtol=0, atol=1e-9), (i, name)
    if case not in ("lambda 0", "only J_o"):
        assert all(g.abs().max() > 0 for theirs in expected for g in theirs.values())


def test_a_step_is_the_simultaneous_step_of_both_players():
    rates = {"generator_learning_rate": 0.05, "surrogate_learning_rate": 0.02}
    fast, by_hand = (start(optimiser="sgd", reverse_scale=2.0, **rates) for _ in range(2))
    fast.step()
    literal_step(by_hand, *by_hand.batch())
    for network, rate in ((by_hand.generator, 0.05), (by_hand.surrogates[0], 0.02)):
        for p in network.parameters():
            p.data -= rate * p.grad
    for ours, theirs in ((fast.generator, by_hand.generator), (fast.surrogates[0], by_hand.surrogates[0])):
        for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            assert torch.allclose(a, b, rtol=0, atol=1e-6), name


def test_a_frozen_surrogate_gets_no_gradient_and_the_others_do():
    played = start(code_lengths=(4, 8), surrogate_learning_rate=(0.0, 1e-3))
    before = [p.detach().clone() for network in played.surrogates for p in network.parameters()]
    played.step()
    after = [p.detach() for network in played.surrogates for p in network.parameters()]
    assert all(p.grad is None for p in played.surrogates[0].parameters())
    changed = [not torch.equal(a, b) for a, b in zip(before, after, strict=True)]
    assert changed == [False] * 6 + [True] * 6


def test_momentum_adds_nine_tenths_of_the_step_before():
    plain, heavy = (start(optimiser=name, generator_learning_rate=0.05, surrogate_learning_rate=0.0)
                    for name in ("sgd", "momentum"))
    kept = []
    for played in (plain, heavy):
        weights = [list(played.generator.parameters())[0].detach().clone()]
        for _ in range(2):
            played.step()
            weights.append(list(played.generator.parameters())[0].detach().clone())
        kept.append(weights)
    assert torch.equal(kept[0][1], kept[1][1])  # the first step is the same
    first, second = kept[1][1] - kept[1][0], kept[1][2] - kept[1][1]
    assert torch.allclose(second - 0.9 * first, kept[0][2] - kept[0][1], rtol=0, atol=1e-6)


def test_the_sizes_do_not_depend_on_the_order_of_the_images():
    classes = torch.arange(600) // 300  # sorted by class, as folders are
    images = (255 * classes).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 16, 16).contiguous()
    played = Game(PPLConfig(**TINY), images, classes)
    with torch.no_grad():
        black, white = played.surrogates[0](budget.to_float(images[[0, -1]]))
    assert played.sizes()["spread"] == pytest.approx(((white - black).abs() / 2).mean().item(), rel=0.01)


def test_data_stay_uint8_and_weights_and_batches_are_channels_last():
    played = start(channels=3)
    assert played.images.dtype == torch.uint8
    images, _ = played.batch()
    kernels = [m.weight for player in (played.generator, *played.surrogates) for m in player.modules()
               if isinstance(m, torch.nn.Conv2d)]
    assert len(kernels) > 2
    for tensor in (images, *kernels):
        assert tensor.is_contiguous(memory_format=torch.channels_last)


def test_frozen_players_stay_as_they_are_running_statistics_too():
    played = start(generator_learning_rate=0.0, surrogate_learning_rate=0.0, backbone="resnet18@64")
    players = [played.generator, *played.surrogates]
    before = [value.clone() for player in players for value in player.state_dict().values()]
    for _ in range(2):
        played.step()
    after = [value for player in players for value in player.state_dict().values()]
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in players[1].modules())
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_the_sizes_are_those_of_the_smallest_surrogate_and_looking_changes_nothing():
    played = start(code_lengths=(4, 8), backbone="mobilenet_v3_small")
    before = [value.clone() for network in played.surrogates for value in network.state_dict().values()]
    sizes = played.sizes()
    with torch.no_grad():
        codes = [network.eval()(budget.to_float(played.images)) for network in played.surrogates]  # 48 images, all classes
        for network in played.surrogates:
            network.train()
    assert sizes["magnitude"] == pytest.approx(min(u.abs().mean().item() for u in codes), abs=1e-6)
    assert sizes["spread"] == pytest.approx(min(u.std(0).mean().item() for u in codes), abs=1e-6)
    after = [value for network in played.surrogates for value in network.state_dict().values()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True)) and played.surrogates[0].training


def test_the_record_holds_the_unweighted_terms():
    settings = {"code_lengths": (8, 4), "alpha": 7.0, "beta": 0.0, "affinity": 0.3, "reverse_scale": 9.0}
    played, same = start(**settings), start(**settings)
    x, similarity = same.batch()
    record = {name: value.item() for name, value in played.step().items()}
    assert set(record) == set(SERIES)
    with torch.no_grad():
        z = budget.adversarial(x, same.generator(x), 0.3)
        pairs = [(network(x), network(z)) for network in same.surrogates]
    expected = {
        "affinity": [losses.affinity_loss(b, similarity) for _, b in pairs],
        "domain": [losses.smmd(a, b, similarity) for a, b in pairs],
        "similarity": [losses.similarity_loss(a, b, similarity) for a, b in pairs],
        "matching": [losses.matching_loss(a, b) for a, b in pairs],
        "clean": [losses.affinity_loss(a, similarity) for a, _ in pairs],
    }
    assert record["magnitude"] == pytest.approx(min(a.abs().mean().item() for a, _ in pairs), abs=1e-5)
    assert record["spread"] == pytest.approx(min(a.std(0).mean().item() for a, _ in pairs), abs=1e-5)
    for name, values in expected.items():
        assert record[name] == pytest.approx(sum(v.item() for v in values) / 2, abs=1e-5), name
    assert record["perturbation"] == pytest.approx((z - x).abs().mean().item(), abs=1e-6)
    for name, player in (("generator", [played.generator]), ("surrogate", played.surrogates)):
        squares = sum(p.grad.square().sum().item() for network in player for p in network.parameters())
        assert record[f"{name}_gradient"] == pytest.approx(math.sqrt(squares), rel=1e-5)


def test_bfloat16_gradients_point_the_same_way():
    exact, rough = start(), start(autocast=True)
    exact.step(), rough.step()
    for a, b in ((exact.generator, rough.generator), (exact.surrogates[0], rough.surrogates[0])):
        a, b = (torch.cat([p.grad.flatten() for p in network.parameters()]) for network in (a, b))
        assert torch.cosine_similarity(a, b, dim=0) > 0.98


def test_a_batch_is_drawn_without_replacement_with_its_similarity():
    data = toy()
    for similarity, balanced in (("balanced", True), ("literal", False)):
        played = start(similarity=similarity, batch_size=16)
        images, s = played.batch()
        assert images.shape == (16, 1, 16, 16) and images.dtype == torch.float32 and s.shape == (16, 16)
        assert 0 <= images.min() and images.max() <= 1
        index = [next(i for i in range(48) if torch.equal(data.images[i], (x * 255).round().byte())) for x in images]
        assert len(set(index)) == 16
        assert torch.equal(s, losses.similarity_matrix(data.labels[index], balanced=balanced))
        assert not torch.equal(played.batch()[0], images)
    assert start(batch_size=500).batch()[0].shape[0] == 48  # never more than there are


@pytest.mark.parametrize("settings", [{}, {"generator_average": 0.9}, {"refresh_every": 2}])
def test_a_game_leaves_the_global_random_state_alone(settings):
    state = torch.random.get_rng_state()
    played = start(**settings)
    played.warm_up()
    played.round(0)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_each_surrogate_has_its_own_network_and_the_start_that_it_would_have_alone():
    played = start(code_lengths=(8, 8, 8), backbone=("dense", "two_conv", "dense"))
    assert [type(network.backbone) for network in played.surrogates] == [Dense, TwoConv, Dense]
    for i, network in enumerate(played.surrogates):
        alone = start(code_lengths=(8,), backbone=played.config.backbone[i], seed=i).surrogates[0]
        assert all(torch.equal(*pair) for pair in zip(network.parameters(), alone.parameters(), strict=True))


def test_images_that_are_not_square_are_refused():
    with pytest.raises(ValueError, match="square images, got 16 x 20 pixels"):
        Game(PPLConfig(**TINY), torch.zeros(4, 1, 16, 20, dtype=torch.uint8), torch.zeros(4).long())


def test_a_surrogate_needs_something_to_learn():
    with pytest.raises(ValueError, match="leaves a surrogate nothing to learn"):
        PPLConfig(affinity=0, code_lengths=(8, 8), surrogate_objective=("both", "affinity"))
