"""pplkit.game: the fast round of the game beside the literal formulation with a gradient reversal layer."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from pplkit import budget, game, losses
from pplkit.config import PPLConfig
from pplkit.data import ImageSet
from pplkit.game import SERIES, Game
from pplkit.gradient_reversal import reverse_gradient
from pplkit.hashing.network import build

TINY = {"widths": (4, 4, 4, 4), "batch_size": 16, "autocast": False}


def toy(count: int = 48, channels: int = 1, classes: int = 3) -> ImageSet:
    """Noise, with a bright bar at a height that tells the class."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % classes
    images = torch.randint(0, 100, (count, channels, 16, 16), generator=random)
    for item, label in enumerate(labels.tolist()):
        images[item, :, label : label + 4] += 140
    return ImageSet(images.to(torch.uint8), labels)


def start(channels: int = 1, **settings: object) -> Game:
    data = toy(channels=channels)
    return Game(PPLConfig(**(TINY | settings)), data.images, data.labels)


def gradients(network: torch.nn.Module) -> dict[str, Tensor | None]:
    return {name: None if p.grad is None else p.grad.clone() for name, p in network.named_parameters()}


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


@pytest.mark.parametrize("settings, expected", [
    ({}, [True, True]),
    ({"surrogate_objective": ("both", "affinity")}, [True, False]),
    ({"surrogate_objective": ("both", "affinity"), "clean": 1.0}, [True, True]),
    ({"surrogate_learning_rate": (0.0, 1e-3), "clean": 1.0}, [False, True]),
])
def test_the_codes_of_clean_images_keep_activations_only_where_they_teach(monkeypatch, settings, expected):
    played = start(code_lengths=(4, 8), **settings)
    clean, _ = batch = played.batch()
    codes, kept = played.codes, []

    def recorded(network: torch.nn.Module, images: Tensor) -> Tensor:
        result = codes(network, images)
        if images is clean:
            kept.append(result.requires_grad)
        return result

    monkeypatch.setattr(played, "codes", recorded)
    played.gradients(*batch)
    assert kept == expected


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


# ---- batches, warm-up, average, refresh


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


def test_the_warm_up_trains_the_surrogates_on_clean_pairs_and_nothing_else():
    played, same = start(code_lengths=(4, 8)), start(code_lengths=(4, 8))
    generator = {name: value.clone() for name, value in played.generator.state_dict().items()}
    record = played.warm_up()
    x, similarity = same.batch()
    total = sum(losses.affinity_loss(network(x), similarity) for network in same.surrogates)
    assert set(record) == {"warmup"} and record["warmup"].item() == pytest.approx(total.item() / 2, abs=1e-6)
    total.backward()
    for ours, theirs in zip(played.surrogates, same.surrogates, strict=True):
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert torch.allclose(p.grad, q.grad, atol=1e-6)
            clear = q.grad.abs() > 1e-5
            step = -1e-3 * q.grad.sign()  # Adam's first step: the learning rate, whatever the gradient's size
            assert torch.allclose((p - q)[clear], step[clear], rtol=0.01)
    assert all(torch.equal(value, generator[name]) for name, value in played.generator.state_dict().items())


def test_the_average_follows_the_generator():
    played = start(generator_average=0.75)
    expected = {name: value.double() for name, value in played.generator.state_dict().items()}
    for _ in range(3):
        played.step()
        for name, value in played.generator.state_dict().items():
            expected[name] = 0.75 * expected[name] + 0.25 * value.double()
    for name, value in played.average.state_dict().items():
        if value.is_floating_point():
            assert torch.allclose(value.double(), expected[name], atol=1e-6), name
        else:
            assert value.item() == 3
    assert start().average is None


@pytest.mark.parametrize("lengths", [(4,), (4, 8), (4, 8, 6)])
def test_surrogates_go_back_to_their_warmed_up_state_in_turn(lengths):
    every, steps = 6, 14
    played = start(code_lengths=lengths, refresh_every=every, surrogate_learning_rate=1e-2)
    played.warm_up()
    fresh = [network.code.weight.detach().clone() for network in played.surrogates]
    times: list[list[int]] = [[] for _ in lengths]
    original = played.step

    def watch():
        for i, network in enumerate(played.surrogates):
            if torch.equal(network.code.weight, fresh[i]):
                times[i].append(step)
                assert network.code.weight not in played.optimisers["surrogate"].state
        return original()

    played.step = watch
    for step in range(steps):
        played.round(step)
    apart = every // len(lengths)
    assert times == [[0] + [s for s in range(1, steps) if (s + i * apart) % every == 0] for i in range(len(lengths))]


def test_a_surrogate_starts_anew_from_other_weights_while_the_others_play_on():
    played = start(code_lengths=(4, 8), restart_every=(0, 3), surrogate_learning_rate=1e-2)
    played.warm_up()
    stays, restarts = ([] for _ in range(2))
    original = played.step

    def watch():
        for seen, network in zip((stays, restarts), played.surrogates, strict=True):
            seen.append((network.code.weight.detach().clone(), network.code.weight in played.optimisers["surrogate"].state))
        return original()

    played.step = watch
    for step in range(7):
        played.round(step)
    assert [momentum for _, momentum in stays] == [False] + [True] * 6
    assert [momentum for _, momentum in restarts] == [False, True, True, False, True, True, False]
    starts = [restarts[step][0] for step in (0, 3, 6)]
    bound = 1 / played.surrogates[1].backbone.features ** 0.5  # of torch's uniform start
    assert all(weight.abs().max() <= bound for weight in starts)
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(starts, 2))


def test_several_surrogates_start_anew_in_turn(monkeypatch):
    played = start(code_lengths=(4, 8, 6), restart_every=(0, 6, 6), refresh_every=4)
    played.remember()
    times = {8: [], 6: []}
    monkeypatch.setattr(game, "build", lambda bits, *form: times[bits].append(step) or build(bits, *form))
    for step in range(13):
        played.refresh(step)
        for network, fresh in zip(played.surrogates[1:], played.fresh[1:], strict=True):
            assert not torch.equal(network.code.weight, fresh["code.weight"])  # refreshing is for the first alone
    assert times == {8: [0, 6, 12], 6: [0, 3, 9]}


def test_a_surrogate_that_starts_anew_is_not_warmed_up_and_hides_no_collapse():
    played, alone = start(code_lengths=(4, 8), restart_every=(0, 3)), start(code_lengths=(4,))
    before = played.surrogates[1].code.weight.detach().clone()
    assert torch.equal(played.warm_up()["warmup"], alone.warm_up()["warmup"])
    assert torch.equal(played.surrogates[1].code.weight, before)
    assert torch.equal(played.surrogates[0].code.weight, alone.surrogates[0].code.weight)
    with torch.no_grad():
        played.surrogates[0].code.weight.zero_()
        played.surrogates[0].code.bias.zero_()
    record = played.step()
    assert record["magnitude"] == record["spread"] == 0
    nobody = start(restart_every=3)
    assert nobody.warm_up()["warmup"] == 0 and nobody.step()["magnitude"] > 0


def test_the_generators_learning_rate_falls_along_a_cosine():
    played = start(steps=4, generator_schedule="cosine", generator_learning_rate=0.2)
    rates = []
    for step in range(4):
        played.round(step)
        rates.append(played.optimisers["generator"].param_groups[0]["lr"])
    assert rates == pytest.approx([0.2, 0.1 * (1 + 0.5**0.5), 0.1, 0.1 * (1 - 0.5**0.5)])


def test_without_refresh_nobody_goes_back():
    played = start(surrogate_learning_rate=1e-2)
    first = played.surrogates[0].code.weight.detach().clone()
    for step in range(5):
        played.round(step)
        assert not torch.equal(played.surrogates[0].code.weight, first)


@pytest.mark.parametrize("settings", [{}, {"generator_average": 0.9}, {"refresh_every": 2}])
def test_a_game_leaves_the_global_random_state_alone(settings):
    state = torch.random.get_rng_state()
    played = start(**settings)
    played.warm_up()
    played.round(0)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_images_that_are_not_square_are_refused():
    with pytest.raises(ValueError, match="square images, got 16 x 20 pixels"):
        Game(PPLConfig(**TINY), torch.zeros(4, 1, 16, 20, dtype=torch.uint8), torch.zeros(4).long())


def test_compiled_passes_play_the_same_game():
    plain, compiled = start(code_lengths=(4, 6)), start(code_lengths=(4, 6))
    calls = []

    def backend(graph: torch.fx.GraphModule, example: list[Tensor]) -> Callable:
        calls.append(graph)
        return graph.forward

    compiled.compile(backend=backend)
    for played in (plain, compiled):
        played.warm_up()
        played.round(0)
    assert len(calls) == 5  # the generator, and each of two surrogates for x and for z, whose gradient is wanted
    for first, second in zip([plain.generator, *plain.surrogates], [compiled.generator, *compiled.surrogates], strict=True):
        assert first.state_dict().keys() == second.state_dict().keys()
        for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
            assert torch.allclose(a, b, atol=1e-6)


def test_compiling_is_refused_with_checkpointing_and_accumulation():
    data = toy()
    with pytest.raises(ValueError, match="cannot follow accumulation=2"):
        Game(PPLConfig(**TINY), data.images, data.labels, accumulation=2).compile()
    played = Game(PPLConfig(**(TINY | {"backbone": "resnet18"})), data.images, data.labels, checkpointing=True)
    with pytest.raises(ValueError, match="cannot follow checkpointing"):
        played.compile()


@pytest.mark.parametrize("parts", [2, 3, 16, 50])
def test_gradients_accumulated_over_parts_are_those_of_the_whole_batch(parts):
    data, settings = toy(), TINY | {"code_lengths": (4, 6), "surrogate_objective": ("both", "affinity"), "clean": 0.5}
    games = [Game(PPLConfig(**settings), data.images, data.labels, accumulation=k) for k in (1, parts)]
    for played in games:
        played.warm_up()
        played.random.manual_seed(1)
        played.gradients(*played.batch())
    for whole, split in zip(*([played.generator, *played.surrogates] for played in games), strict=True):
        for name, expected in gradients(whole).items():
            assert torch.allclose(expected, gradients(split)[name], atol=1e-6, rtol=1e-4), name


def test_accumulation_keeps_no_activations_in_the_forward_pass():
    def kept(parts: int) -> int:
        data = toy()
        played, total = Game(PPLConfig(**TINY), data.images, data.labels, accumulation=parts), 0

        def count(tensor: Tensor) -> Tensor:
            nonlocal total
            total += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            played.codes(played.surrogates[0], played.batch()[0])
        return total

    assert kept(4) < kept(1) / 4


def test_batch_normalisation_counts_every_part_once():
    data = toy()
    played = Game(PPLConfig(**(TINY | {"backbone": "mobilenet_v3_small"})), data.images, data.labels, accumulation=2)
    played.gradients(*played.batch())
    layers = [m for m in played.surrogates[0].modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert layers and all(int(layer.num_batches_tracked) == 4 for layer in layers)  # two parts, of x and of z


@pytest.mark.parametrize(("batch", "parts", "sizes"), [(10, 4, [3, 3, 2, 2]), (16, 7, [3, 3] + 5 * [2]), (3, 5, [1, 1, 1])])
def test_the_parts_of_a_batch_differ_by_at_most_one_image(batch, parts, sizes):
    data, seen = toy(), []
    played = Game(PPLConfig(**(TINY | {"batch_size": batch})), data.images, data.labels, accumulation=parts)
    played.surrogates[0].register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    played.codes(played.surrogates[0], played.batch()[0])
    assert seen == sizes


def test_batch_normalisation_wants_two_images_in_every_part():
    data, settings = toy(), TINY | {"backbone": "mobilenet_v3_small", "batch_size": 10}
    with pytest.raises(ValueError, match="accumulation=6 leaves parts of one image of the 10 in a batch, .* at most 5"):
        Game(PPLConfig(**settings), data.images, data.labels, accumulation=6)
    with pytest.raises(ValueError, match="of the 6 in a batch, .* at most 3$"):
        Game(PPLConfig(**settings), data.images[:6], data.labels[:6], accumulation=4)
    played = Game(PPLConfig(**settings), data.images, data.labels, accumulation=4)
    assert played.parts == 4 and all(value.isfinite() for value in played.step().values())


@pytest.mark.parametrize("parts", [0, -1, 1.5, True])
def test_a_bad_number_of_parts_is_refused(parts):
    data = toy()
    with pytest.raises(ValueError, match=f"accumulation must be a whole number of at least 1, got {parts}"):
        Game(PPLConfig(**TINY), data.images, data.labels, accumulation=parts)


def test_a_surrogate_needs_something_to_learn():
    with pytest.raises(ValueError, match="leaves a surrogate nothing to learn"):
        PPLConfig(affinity=0, code_lengths=(8, 8), surrogate_objective=("both", "affinity"))
