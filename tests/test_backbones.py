"""pplkit.backbones: pixels in, features out; normalisation is inside."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from pplkit import backbones


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
