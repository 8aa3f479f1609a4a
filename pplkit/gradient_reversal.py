"""Gradient reversal layer, eq. (13): identity forward, gradient × (−λ) backward (Ganin & Lempitsky 2015)."""

import math
from numbers import Real

import torch
from torch import Tensor


class _ReverseGradient(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, scale: float) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx, inputs: tuple[Tensor, float], output: Tensor) -> None:
        ctx.scale = inputs[1]

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return -ctx.scale * gradient, None


def reverse_gradient(x: Tensor, scale: float = 1.0) -> Tensor:
    """Re(x) = x;  dRe/dx = −λ·I.

    Args:
        x: any float tensor.
        scale: λ ≥ 0, finite; 1 in the paper, 0 stops the gradient.

    Returns:
        a tensor equal to `x` whose gradient arrives at `x` multiplied by −λ.

    Raises:
        ValueError: λ is no number, negative (that would not reverse), infinite or NaN.
    """
    if isinstance(scale, bool) or not isinstance(scale, Real) or not 0 <= scale < math.inf:
        raise ValueError(f"scale (lambda) must be a finite number of at least 0, got {scale!r}; a negative one would not "
                         "reverse")
    return _ReverseGradient.apply(x, float(scale))
