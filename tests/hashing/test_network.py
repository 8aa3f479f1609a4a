"""pplkit.hashing.network: relaxed codes, signs, and codes that do not depend on how they were computed."""

from unittest.mock import Mock, call

import pytest
import torch

from pplkit import backbones
from pplkit.hashing.network import HashingNetwork, _batch_to, build, image_form, sign


def images(count: int = 7, channels: int = 1, size: int = 16, seed: int = 0) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, channels, size, size), generator=random, dtype=torch.uint8)


def test_the_sign_of_0_is_plus_1():
    relaxed = torch.tensor([-1.0, -1e-30, -0.0, 0.0, 1e-30, 1.0])
    assert sign(relaxed).tolist() == [-1, -1, 1, 1, 1, 1] and sign(relaxed).dtype == torch.int8


@pytest.mark.parametrize("bits", [1, 8, 33])
def test_relaxed_codes_are_tanh_of_a_linear_layer_on_the_features(bits):
    network = build(bits, "two_conv", 1, 16, seed=0)
    x = images().float() / 255
    codes = network(x)
    expected = torch.tanh(network.backbone(x) @ network.code.weight.T + network.code.bias)
    assert codes.shape == (7, bits) and codes.abs().max() < 1
    assert torch.allclose(codes, expected, atol=1e-6)


def test_every_parameter_gets_a_gradient():
    network = build(8, "two_conv", 3, 16, seed=0)
    network(images(channels=3).float() / 255).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_encode_gives_the_signs_of_the_relaxed_codes():
    network, x = build(12, "two_conv", 1, 16, seed=0), images()
    codes = network.encode(x)
    assert codes.dtype == torch.int8 and codes.shape == (7, 12) and set(codes.unique().tolist()) == {-1, 1}
    assert torch.equal(codes, sign(network(x.float() / 255)))


def test_a_network_that_outputs_0_encodes_plus_1():
    network = build(4, "two_conv", 1, 16, seed=0)
    torch.nn.init.zeros_(network.code.weight)
    torch.nn.init.zeros_(network.code.bias)
    assert (network.encode(images()) == 1).all()


def test_codes_do_not_depend_on_the_batch():
    network, x = build(16, "two_conv", 1, 16, seed=0), images(count=9)
    whole = network.encode(x)
    for batch_size in (1, 4, 9, 100):
        assert torch.equal(network.encode(x, batch_size), whole)
    assert network.encode(x[:0]).shape == (0, 16)


@pytest.mark.parametrize("training", [True, False])
def test_encoding_changes_nothing(training):
    network, x = build(4, "two_conv", 1, 16, seed=0).train(training), images()
    before, weights = x.clone(), {name: value.clone() for name, value in network.state_dict().items()}
    codes = network.encode(x)
    assert network.training is training and not codes.requires_grad and torch.is_grad_enabled()
    assert torch.equal(x, before)
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(("here", "there"), [("cpu", "cuda"), ("cpu", "cpu"), ("cuda", "cuda"), ("cuda", "cpu")])
def test_only_from_the_cpu_to_a_gpu_a_batch_goes_through_pinned_memory(here, there):
    batch, device = Mock(device=torch.device(here)), torch.device(there)
    _batch_to(device, batch)
    pinned = call.pin_memory().to(device, non_blocking=True).call_list()
    assert batch.mock_calls == (pinned if (here, there) == ("cpu", "cuda") else [call.to(device)])


def test_on_the_cpu_a_batch_stays_where_it_is():
    batch = images()
    assert _batch_to(torch.device("cpu"), batch) is batch


def test_build_is_seeded_and_leaves_the_global_random_state_alone():
    state = torch.random.get_rng_state()
    weights = [build(4, "two_conv", 1, 16, seed).state_dict() for seed in (3, 3, 4)]
    assert torch.equal(torch.random.get_rng_state(), state)
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]) and not torch.equal(value, weights[2][name])


# ---- bad input


@pytest.mark.parametrize("bits", [0, -1, 1.5, "8", True, None])
def test_code_lengths_below_1_are_refused(bits):
    with pytest.raises(ValueError, match=rf"bits \(code length\) must be a whole number of at least 1, got {bits!r}"):
        HashingNetwork(backbones.create("two_conv", 1, 16), bits)


@pytest.mark.parametrize("bad", [torch.rand(2, 1, 16, 16), torch.zeros(2, 16, 16, dtype=torch.uint8)])
def test_only_uint8_images_are_encoded(bad):
    with pytest.raises(ValueError, match=r"images must be a uint8 tensor of shape \(N, C, H, W\), got"):
        build(4, "two_conv", 1, 16, seed=0).encode(bad)


def test_images_of_another_form_are_refused():
    network = build(4, "two_conv", 1, 16, seed=0)
    for other in (images(channels=3), images(size=20)):
        form = tuple(other.shape[1:3])
        with pytest.raises(ValueError) as error:
            network.encode(other)
        assert str(error.value) == f"this network takes images of (channels, size) = (1, 16), got {form}"
    with pytest.raises(ValueError, match="square images, got 16 x 20 pixels"):
        image_form(torch.zeros(2, 1, 16, 20, dtype=torch.uint8))
