"""pplkit.generator: any image size, the paper's channel numbers, and checkpoints that say what they are."""

import pytest
import torch
from torch import nn

from pplkit.generator import COLOUR_WIDTHS, GREY_WIDTHS, PerturbationGenerator
from pplkit.storage import save_tensors

TINY = (4, 4, 4, 4)
SIZES = [(1, 1), (3, 5), (15, 15), (16, 16), (17, 23), (28, 28), (32, 32), (33, 31), (64, 64)]


def tiny(channels: int = 1, seed: int = 0) -> PerturbationGenerator:
    torch.manual_seed(seed)
    return PerturbationGenerator(channels, TINY)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_pattern_has_the_shape_of_its_image_and_stays_inside_1(channels, size):
    images = torch.rand(2, channels, *size)
    for generator in (tiny(channels).eval(), PerturbationGenerator(channels).eval(),
                      PerturbationGenerator(channels, TINY, full_resolution=True).eval()):
        pattern = generator(images)
        assert pattern.shape == images.shape and pattern.abs().max() < 1


def test_large_outputs_stay_within_1():
    generator = tiny().eval()
    with torch.no_grad():
        generator.output.weight.mul_(1e4)
    assert generator(torch.rand(2, 1, 16, 16)).abs().max() <= 1


@pytest.mark.parametrize(("channels", "widths"), [(1, GREY_WIDTHS), (3, COLOUR_WIDTHS)])
def test_channel_numbers_are_the_papers(channels, widths):
    assert widths == {1: (16, 32, 64, 128), 3: (64, 128, 256, 512)}[channels]
    generator = PerturbationGenerator(channels)
    convolutions = [module for module in generator.modules() if isinstance(module, nn.Conv2d)]
    assert generator.widths == widths and len(convolutions) == 8  # 4 in the encoder, 4 in the decoder
    found = [(layer.in_channels, layer.out_channels) for layer in convolutions]
    a, b, c, d = widths
    encoder, decoder = [(channels, a), (a, b), (b, c), (c, d)], [(d, c), (c, b), (b, a), (a, channels)]
    assert found == encoder + decoder


def test_at_full_resolution_the_decoder_works_at_the_images_size():
    usual, full = PerturbationGenerator(1), PerturbationGenerator(1, full_resolution=True)
    assert [p.shape for p in usual.parameters()] == [p.shape for p in full.parameters()]
    for generator, sizes in ((usual, [4, 7, 14, 28]), (full, [28] * 4)):
        seen = []
        for module in generator.modules():
            if isinstance(module, nn.Conv2d) and module.stride == (1, 1):
                module.register_forward_hook(lambda _, __, output, seen=seen: seen.append(output.shape[-1]))
        generator(torch.rand(2, 1, 28, 28))
        assert seen == sizes


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_parameter_gets_a_gradient(channels, full):
    generator = tiny(channels)
    generator.full_resolution = full
    generator(torch.rand(4, channels, 16, 16)).square().sum().backward()
    for name, parameter in generator.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_in_eval_mode_an_image_gets_the_same_pattern_alone_and_in_a_batch():
    generator, images = tiny().eval(), torch.rand(5, 1, 16, 16)
    with torch.no_grad():
        alone = torch.cat([generator(images[i : i + 1]) for i in range(5)])
        assert torch.allclose(generator(images), alone, atol=1e-6)


def test_channels_last_gives_the_same_pattern():
    generator, images = tiny(3).double().eval(), torch.rand(2, 3, 17, 23, dtype=torch.float64)
    expected = generator(images)
    generator.to(memory_format=torch.channels_last)
    assert torch.allclose(generator(images.to(memory_format=torch.channels_last)), expected, atol=1e-12)


# ---- checkpoints


@pytest.mark.parametrize("channels", [1, 3])
def test_a_saved_generator_comes_back_with_its_metadata(tmp_path, channels):
    generator, images = tiny(channels), torch.rand(4, channels, 17, 16)
    generator(images)  # moves the running statistics away from their start
    generator.to(memory_format=torch.channels_last)
    path = tmp_path / "new folder" / "generator.safetensors"
    generator.save(path, epsilon=0.3, note="trained on hand-made images", channels=99)
    loaded = PerturbationGenerator.load(str(path))
    assert not loaded.training and generator.training
    assert torch.allclose(loaded(images), generator.eval()(images), atol=1e-6)
    for name, tensor in generator.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    expected = {"epsilon": 0.3, "note": "trained on hand-made images", "channels": channels, "widths": list(TINY)}
    assert loaded.metadata == expected and loaded.widths == TINY
    assert [p.name for p in path.parent.iterdir()] == ["generator.safetensors"]


def test_a_saved_generator_of_full_resolution_comes_back_as_one(tmp_path):
    generator, images = PerturbationGenerator(1, TINY, full_resolution=True).eval(), torch.rand(2, 1, 17, 16)
    generator.save(tmp_path / "g.safetensors")
    loaded = PerturbationGenerator.load(tmp_path / "g.safetensors")
    assert loaded.full_resolution and torch.equal(loaded(images), generator(images))


def test_loading_leaves_the_global_random_state_alone(tmp_path):
    tiny().save(tmp_path / "g.safetensors")
    state = torch.random.get_rng_state()
    PerturbationGenerator.load(tmp_path / "g.safetensors")
    assert torch.equal(torch.random.get_rng_state(), state)


def test_files_that_are_no_generator_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no generator checkpoint at .*absent\.safetensors"):
        PerturbationGenerator.load(tmp_path / "absent.safetensors")

    other = tmp_path / "victim.safetensors"
    save_tensors(other, {"weight": torch.zeros(2)}, {"victim": "{}"})
    with pytest.raises(ValueError, match=r"victim\.safetensors is not a generator checkpoint"):
        PerturbationGenerator.load(other)

    text = tmp_path / "text.safetensors"
    text.write_text("not weights at all")
    with pytest.raises(ValueError, match=r"text\.safetensors is not a complete safetensors file"):
        PerturbationGenerator.load(text)

    cut = tmp_path / "cut.safetensors"
    tiny().save(cut)
    cut.write_bytes(cut.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"cut\.safetensors is not a complete safetensors file"):
        PerturbationGenerator.load(cut)


# ---- bad input


@pytest.mark.parametrize("channels", [0, 2, 4, "1"])
def test_channels_other_than_1_and_3_are_refused(channels):
    with pytest.raises(ValueError, match=rf"channels must be 1 \(grey\) or 3 \(colour\), got {channels!r}"):
        PerturbationGenerator(channels)


@pytest.mark.parametrize("widths", [(16, 0, 4, 4), (16, -1), (4.0, 4), "wide", (True, 4)])
def test_impossible_widths_are_refused(widths):
    with pytest.raises(ValueError, match="widths must be whole numbers of at least 1, got"):
        PerturbationGenerator(1, widths)


@pytest.mark.parametrize("shape", [(2, 3, 16, 16), (1, 16, 16)])
def test_images_of_another_form_are_refused(shape):
    with pytest.raises(ValueError, match=r"built for 1 channels, got images of shape \("):
        tiny()(torch.rand(shape))
