"""pplkit.backbones: pixels in, features out; normalisation is inside."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from pplkit import backbones, hashing
from pplkit.hashing import ADSH


@pytest.mark.parametrize("size", [16, 17, 28, 32, 33])
@pytest.mark.parametrize("channels", [1, 3])
def test_features_tells_the_width_of_the_output(channels, size):
    network = backbones.create("two_conv", channels, size)
    assert network(torch.rand(2, channels, size, size)).shape == (2, network.features)


def test_the_default_is_the_papers_network_for_fashion_mnist():
    network = backbones.create()
    assert network.conv1.weight.shape == (20, 1, 5, 5) and network.conv2.weight.shape == (50, 20, 5, 5)
    assert network.features == 50 * 4 * 4


@pytest.mark.parametrize("channels", [1, 3])
def test_features_equal_the_layers_in_the_papers_order(channels):
    """normalise -> conv -> ReLU -> max-pool, twice; the statistics are written out once more on purpose."""
    mean, std = {
        1: ([0.286], [0.353]),
        3: ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]),
    }[channels]
    torch.manual_seed(0)
    network = backbones.create("two_conv", channels, 20).double()
    images = torch.rand(3, channels, 20, 20, dtype=torch.float64)

    def channel(values: list[float]) -> Tensor:
        return torch.tensor(values).double().view(1, channels, 1, 1)  # float32 constants, as in the network

    x = (images - channel(mean)) / channel(std)
    x = functional.max_pool2d(functional.conv2d(x, network.conv1.weight, network.conv1.bias).relu(), 2)
    x = functional.max_pool2d(functional.conv2d(x, network.conv2.weight, network.conv2.bias).relu(), 2)
    assert torch.allclose(network(images), x.flatten(1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("channels", [1, 3])
def test_every_parameter_and_the_image_get_a_gradient(channels):
    torch.manual_seed(0)
    network = backbones.create("two_conv", channels, 16)
    images = torch.rand(8, channels, 16, 16).requires_grad_()
    network(images).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
    assert (images.grad.flatten(1).abs().amax(1) > 0).all()


def test_normalisation_is_part_of_the_network_but_not_of_its_checkpoint():
    network = backbones.create("two_conv", 1, 16)
    assert set(network.state_dict()) == {"conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias"}
    grey = network.normalise(torch.full((1, 1, 2, 2), 0.286))
    assert torch.allclose(grey, torch.zeros_like(grey), atol=1e-6)


@pytest.mark.parametrize("size", [1, 12, 15])
def test_images_too_small_for_the_network_are_refused(size):
    with pytest.raises(ValueError, match=f"images of at least 16 pixels, got {size}"):
        backbones.create("two_conv", 1, size)


def test_unknown_names_and_channels_are_refused():
    with pytest.raises(ValueError, match="unknown backbone 'resnet5000': choose one of .*'two_conv'"):
        backbones.create("resnet5000")
    for channels in (0, 2, 4):
        with pytest.raises(ValueError, match=rf"channels must be 1 \(grey\) or 3 \(colour\), got {channels}"):
            backbones.create("two_conv", channels)


OTHERS = [("dense", 12), ("mobilenet_v3_small", 16), ("resnet18", 8)]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name, size", OTHERS)
def test_other_networks_train_encode_and_survive_a_checkpoint(name, size, channels, tmp_path):
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (32, channels, size, size), generator=random).to(torch.uint8)
    victim = ADSH(4, backbone=name, outer_epochs=1, inner_epochs=1, batch_size=16, device="cpu", autocast=False)
    victim.fit(images, torch.arange(32) % 2, progress=False)
    codes = victim.encode(images)
    assert codes.shape == (32, 4) and codes.dtype == torch.int8 and bool((codes.abs() == 1).all())
    victim.save(tmp_path / "victim.safetensors")
    assert torch.equal(hashing.load(tmp_path / "victim.safetensors").encode(images), codes)


@pytest.mark.parametrize("name, size", OTHERS)
def test_every_parameter_of_the_other_networks_gets_a_gradient(name, size):
    torch.manual_seed(0)
    network = backbones.create(name, 1, size)
    features = network(torch.rand(16, 1, size, size))
    assert features.shape == (16, network.features)
    (features * torch.randn(16, network.features)).sum().backward()
    for parameter_name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, parameter_name


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "resnet18"])
def test_small_images_keep_their_resolution_in_the_first_layer_and_large_ones_do_not(name):
    def first(size: int) -> torch.nn.Conv2d:
        return next(m for m in backbones.create(name, 3, size).modules() if isinstance(m, torch.nn.Conv2d))

    assert first(64).stride == (1, 1) and first(65).stride == (2, 2)


@pytest.mark.parametrize("name, size", OTHERS)
def test_other_networks_see_normalised_pixels(name, size):
    """A grey image at the mean pixel is 0 for the layers behind the normalisation."""
    network = backbones.create(name, 1, size)
    grey = network.normalise(torch.full((1, 1, size, size), 0.286))
    assert torch.allclose(grey, torch.zeros_like(grey), atol=1e-6)
