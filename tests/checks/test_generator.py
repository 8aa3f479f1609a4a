"""Checks of notebook 04: right answers pass, typical wrong ones are told what is wrong."""

import math

import pytest
import torch
from torch import nn

from pplkit import budget
from pplkit.checks import CheckFailed
from pplkit.checks import generator as check


def sizes(halve):
    def encoder_sizes(size, stages):
        result = [size]
        for _ in range(stages):
            result.append(halve(result[-1]))
        return result

    return encoder_sizes


def by_convolution(size, stages):
    layer, x, result = nn.Conv2d(1, 1, 3, stride=2, padding=1), torch.zeros(1, 1, size, size), [size]
    for _ in range(stages):
        x = layer(x)
        result.append(x.shape[-1])
    return result


def counted(area=9, norm=2, bias=0, last=1, decoder=1, last_bias=1):
    def count_parameters(channels, widths):
        total, before = 0, channels
        for width in widths:
            total += area * before * width + (norm + bias) * width
            before = width
        for width in reversed(widths[:-1]):
            total += decoder * (area * before * width + (norm + bias) * width)
            before = width
        return total + last * (area * widths[0] * channels + last_bias * channels)

    return count_parameters


def rms(delta):
    return delta.square().mean((1, 2, 3), keepdim=True).sqrt()


def scale(delta, epsilon):
    return torch.where(rms(delta) > epsilon, delta * epsilon / rms(delta).clamp_min(1e-9), delta)


def always(delta, epsilon):
    return delta * epsilon / rms(delta).clamp_min(1e-9)


def limited(delta, epsilon, norm):
    return delta * (epsilon / norm).clamp(max=1)


def toward_zero(images, z):
    change = (z.double() * 255 - images.double() + 0.0).mul(1e4).round() / 1e4
    return (images.double() + change.trunc()).to(torch.uint8)


def levels(images, z):
    return (z * 255 - images).mul(1e3).round() / 1e3


RIGHT = [
    (check.encoder_sizes, sizes(lambda s: math.ceil(s / 2))),
    (check.encoder_sizes, sizes(lambda s: (s + 1) // 2)),
    (check.encoder_sizes, by_convolution),
    (check.count_parameters, counted()),
    (check.scale_into_ball, scale),
    (check.scale_into_ball, lambda d, e: limited(d, e, rms(d).clamp_min(1e-9))),
    (check.round_toward_zero, toward_zero),
    (check.round_toward_zero, budget.quantise),
    (check.round_toward_zero, lambda x, z: (x.int() + (z * 255 - x).trunc().int()).to(torch.uint8)),
    (check.break_even, lambda s, b, n: math.ceil(s * b / n)),
]


@pytest.mark.parametrize("checked, answer", RIGHT)
def test_right_answers_pass(checked, answer, capsys):
    checked(answer)
    assert capsys.readouterr().out.startswith(f"✓ {checked.__name__}: ")


WRONG = [
    (check.encoder_sizes, sizes(lambda s: s // 2), "rounded up"),
    (check.encoder_sizes, sizes(lambda s: (s - 3) // 2 + 1), "padding is missing"),
    (check.encoder_sizes, sizes(lambda s: (s - 2) // 2 + 1), "odd sizes are rounded up"),
    (check.encoder_sizes, sizes(lambda s: s), "stride is missing"),
    (check.encoder_sizes, lambda s, n: by_convolution(s, n)[1:], "starts with the size of the image"),
    (check.encoder_sizes, lambda s, n: by_convolution(s, n)[:-1], "last stage is missing"),
    (check.encoder_sizes, lambda s, n: by_convolution(s, n)[-1], "all the sizes"),
    (check.count_parameters, counted(norm=0), "BatchNorm is missing"),
    (check.count_parameters, counted(norm=1), "two weights per channel"),
    (check.count_parameters, counted(norm=4), "buffers"),
    (check.count_parameters, counted(bias=1), "have no bias"),
    (check.count_parameters, counted(last_bias=0), "last convolution has a bias"),
    (check.count_parameters, counted(last_bias=3), "tanh does"),
    (check.count_parameters, counted(area=3), "9 weights per pair"),
    (check.count_parameters, counted(area=1), "9 weights per pair"),
    (check.count_parameters, counted(area=25), "not 5 × 5"),
    (check.count_parameters, counted(decoder=0, last=0), "encoder alone"),
    (check.count_parameters, counted(decoder=0), "decoder's stages are missing"),
    (check.count_parameters, counted(last=0), "back to the image's channels"),
    (check.count_parameters, lambda c, w: counted()(1, w), "channels are ignored"),
    (check.scale_into_ball, lambda d, e: limited(d, e, d.norm(dim=(1, 2, 3), keepdim=True)), "plain Euclidean norm"),
    (check.scale_into_ball, always, "must stay as it is"),
    (check.scale_into_ball, lambda d, e: e * d / d.norm(dim=(1, 2, 3), keepdim=True), "and it stretches"),
    (check.scale_into_ball, lambda d, e: limited(d, e, d.square().mean().sqrt()), "own budget"),
    (check.scale_into_ball, lambda d, e: limited(d, e, d.square().mean((1, 2, 3), keepdim=True)), "root is missing"),
    (check.scale_into_ball, lambda d, e: limited(d, e, d.abs().mean((1, 2, 3), keepdim=True)), "p = 1"),
    (check.scale_into_ball, lambda d, e: limited(d, e, d.abs().amax((1, 2, 3), keepdim=True)), "norm for p = ∞"),
    (check.scale_into_ball, lambda d, e: d.clamp(-e, e), "ball of p = ∞"),
    (check.scale_into_ball, lambda d, e: e * d, "only those outside"),
    (check.scale_into_ball, lambda d, e: scale(d, 255 * e), "multiplied by 255"),
    (check.scale_into_ball, lambda d, e: d / rms(d), "not of ε"),
    (check.scale_into_ball, lambda d, e: d * (e / rms(d)).nan_to_num(posinf=0).clamp(max=1) + 0 / d.abs().sum(), "NaN"),
    (check.round_toward_zero, lambda x, z: (z * 255).round().to(torch.uint8), "nearest grey level"),
    (check.round_toward_zero, lambda x, z: (x + levels(x, z).floor()).to(torch.uint8), "rounds down"),
    (check.round_toward_zero, lambda x, z: (z.double() * 255 + 1e-3).to(torch.uint8), "rounds down"),
    (check.round_toward_zero, lambda x, z: (x + levels(x, z).ceil()).to(torch.uint8), "rounds up"),
    (check.round_toward_zero,
     lambda x, z: (x + levels(x, z).sign() * levels(x, z).abs().ceil()).to(torch.uint8), "away from zero"),
    (check.round_toward_zero, lambda x, z: z.to(torch.uint8) * 0, "without the 255"),
    (check.round_toward_zero, lambda x, z: x + (z - x / 255).trunc().to(torch.uint8), "clean image came back"),
    (check.round_toward_zero, lambda x, z: levels(x, z).trunc().to(torch.int16).remainder(256), "the change alone"),
    (check.round_toward_zero, lambda x, z: toward_zero(x, z).float(), "dtype"),
    (check.break_even, lambda s, b, n: s * b // n, "rounded down"),
    (check.break_even, lambda s, b, n: s * b / n, "whole"),
    (check.break_even, lambda s, b, n: math.ceil(s / n), "batch size is missing"),
    (check.break_even, lambda s, b, n: s * b, "what the training costs"),
    (check.break_even, lambda s, b, n: s * b * n, "does not multiply"),
    (check.break_even, lambda s, b, n: s * b // n + 1, "one too many"),
    (check.break_even, lambda s, b, n: math.ceil(n / (s * b)), "upside down"),
]  # fmt: skip


@pytest.mark.parametrize("checked, answer, told", WRONG)
def test_typical_mistakes_are_explained(checked, answer, told):
    with pytest.raises(CheckFailed) as failed:
        checked(answer)
    assert told.lower() in str(failed.value).lower()


@pytest.mark.parametrize(
    "checked",
    [check.encoder_sizes, check.count_parameters, check.scale_into_ball, check.round_toward_zero, check.break_even],
)
def test_the_stub_fails(checked):
    def stub(*args):
        raise NotImplementedError

    with pytest.raises(CheckFailed, match="not implemented yet"):
        checked(stub)
