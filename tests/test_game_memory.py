"""pplkit.game with less memory or time: what keeps activations, batches in parts, torch.compile."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from toy_game import TINY, gradients, start, toy

from pplkit.config import PPLConfig
from pplkit.game import Game


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
