"""Checks of notebook 05: the game in one number each, the reversal layer, eq. (14), two cotangents."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pplkit import losses
from pplkit.checks import call, check, compare, expect, expect_close, expect_tensor, fail
from pplkit.gradient_reversal import reverse_gradient

DOUBLE = torch.float64
privacy = losses.PrivacyLoss()


def _both(g: float, f: float, rate_g: float, rate_f: float, mu: float) -> tuple[float, float]:
    """Both players step from the same point: g descends J_o − J_p, f descends J_o + J_p."""
    return g - rate_g * (mu * g - f), f - rate_f * (mu * f + g)


def _generator_first(g: float, f: float, rate_g: float, rate_f: float, mu: float) -> tuple[float, float]:
    moved = g - rate_g * (mu * g - f)
    return moved, f - rate_f * (mu * f + moved)


def _surrogate_first(g: float, f: float, rate_g: float, rate_f: float, mu: float) -> tuple[float, float]:
    moved = f - rate_f * (mu * f + g)
    return g - rate_g * (mu * g - moved), moved


@check
def simultaneous_step(function: Callable) -> str:
    """05.1: one round of the game J_p = g·f, J_o = μ/2·(g² + f²), both players at once."""
    cases = [
        (1.0, 2.0, 0.5, 0.25, 0.3),  # first what tells the mistakes apart
        (0.0, 1.0, 0.1, 0.1, 0.0),
        (2.0, -1.0, 0.2, 0.05, 0.3),
        (-0.7, 0.4, 0.01, 0.3, 1.5),
    ]
    compare(
        function,
        _both,
        cases,
        mistakes=[
            (_generator_first, "the g that f looked at had already moved; both players must look at "
                               "the same point before either of them steps"),
            (_surrogate_first, "the f that g looked at had already moved; both players must look at "
                               "the same point before either of them steps"),
            (lambda g, f, rg, rf, mu: (g - rg * (mu * g + f), f - rf * (mu * f + g)),
             "both players went down J_p; g maximises it, so its J_p part has the other sign"),
            (lambda g, f, rg, rf, mu: (g + rg * (mu * g - f), f - rf * (mu * f + g)),
             "g went up its own gradient: it minimises J_o - J_p, whose gradient has the other sign of J_p already"),
            (lambda g, f, rg, rf, mu: (g - rg * (mu * g - f), f + rf * (mu * f + g)),
             "f went up its own gradient: it minimises J_o + J_p"),
            (lambda g, f, rg, rf, mu: (-rg * (mu * g - f), -rf * (mu * f + g)),
             "these are the two moves; add them to the points"),
            (lambda g, f, rg, rf, mu: (g - rg * (mu * g - f), f - rf * (mu * f - g)),
             "both players went up J_p; only g maximises it, f minimises it"),
            (lambda g, f, rg, rf, mu: (g - rg * (mu * g + f), f - rf * (mu * f - g)),
             "the two players have swapped roles: g must maximise J_p, f must minimise it"),
            (lambda g, f, rg, rf, mu: (g + rg * (mu * g + f), f - rf * (mu * f + g)),
             "in the step of g the part of J_o is reversed too; J_o is what both players minimise"),
            (lambda g, f, rg, rf, mu: (g + rg * f, f - rf * g), "the part of J_o (the one with mu) is missing"),
            (lambda g, f, rg, rf, mu: _both(g, f, rf, rg, mu), "the two step sizes are swapped"),
            (lambda g, f, rg, rf, mu: _both(g, f, rg, rg, mu), "the step size of g was used for f as well"),
            (lambda g, f, rg, rf, mu: (mu * g - f, mu * f + g),
             "these are the two gradients; return the points after the step"),
        ],
    )  # fmt: skip
    return f"{len(cases)} points, with equal and with different step sizes"


@check
def reversal(function: Callable) -> str:
    """05.2: identity forward, −λ backward, made from `detach` alone."""
    random = torch.Generator().manual_seed(5)
    for scale in (0.5, 1.0, 3.0, 0.0):
        x = torch.randn(3, 2, generator=random, dtype=DOUBLE).requires_grad_()
        incoming = torch.randn(3, 2, generator=random, dtype=DOUBLE)
        case = f"lambda = {scale:g}"
        y = expect_tensor(call(function, x, scale, case=case), shape=x.shape, case=case)
        expect_close(
            y.detach(),
            x.detach(),
            case=case,
            name="the forward value",
            mistakes=[
                (-scale * x.detach(), "Lambda was applied to the forward value; forward, the layer is the identity"),
                ((1 + scale) * x.detach(), "The part that cancels in the forward value is missing"),
                (torch.zeros_like(x), "Forward the parts cancel; they must add up to x itself"),
                ((1 - scale) * x.detach(), "Forward the two parts must add up to x itself, not to (1 - lambda) x"),
            ],
        )
        beside = torch.autograd.grad(x.sum(), x)[0]
        expect_close(beside, torch.ones_like(x), case=case, name="the gradient of x beside the layer", mistakes=[
            (torch.full_like(x, -scale), "A hook on x reverses every gradient of x, not only the one through the layer"),
        ])  # fmt: skip
        if y.requires_grad:
            gradient = torch.autograd.grad((y * incoming).sum(), x, allow_unused=True)[0]
        else:
            gradient = None
        if gradient is None:
            expect(scale == 0, f"{case}: no gradient arrives at x at all; everything has been detached")
            continue
        expect_close(
            gradient,
            -scale * incoming,
            case=case,
            name="the gradient that arrives at x",
            mistakes=[
                (incoming, "The gradient is not reversed: it passed through unchanged"),
                (-(1 + scale) * incoming, "Only a part with the factor lambda may carry a gradient; detach the rest"),
                (scale * incoming, "The gradient was multiplied by lambda, without the minus"),
                (-incoming, "The gradient was reversed, but lambda was ignored"),
                ((1 + scale) * incoming, "The detached part and the part that carries the gradient are swapped"),
            ],
        )
    return "forward value and gradient for lambda = 0, 0.5, 1 and 3"


def _players(seed: int) -> tuple[nn.Module, nn.Module, Tensor, Tensor]:
    """Tiny generator and surrogate in float64, a batch of six and its similarity matrix."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # not CUDA's, which no fork would restore
        generator = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 4)).to(DOUBLE)
        surrogate = nn.Sequential(nn.Linear(4, 3), nn.Tanh()).to(DOUBLE)
        x = torch.randn(6, 4, dtype=DOUBLE)
    similarity = losses.similarity_matrix(torch.tensor([0, 0, 1, 1, 2, 2]), balanced=True).to(DOUBLE)
    return generator, surrogate, x, similarity


def _objective(
    generator: nn.Module,
    surrogate: nn.Module,
    x: Tensor,
    similarity: Tensor,
    *,
    shared: Callable = lambda z: z,
    contested: Callable = lambda z: z,
    on_codes: Callable = lambda codes: codes,
    on_clean: Callable = lambda codes: codes,
    sign: float = 1.0,
) -> Tensor:
    """J_o + sign·J_p with a layer on each of the places where the reversal may be put, rightly or wrongly."""
    z = x + generator(x)  # (B, d)
    j_o = losses.affinity_loss(surrogate(shared(z)), similarity)
    j_p = privacy(on_clean(surrogate(x)), on_codes(surrogate(contested(z))), similarity)
    return j_o + sign * j_p


@check
def game_loss(function: Callable) -> str:
    """05.3: J = J_o + J_p whose gradient is ∇(J_o − λ J_p) for G and ∇(J_o + J_p) for F."""
    for number, scale in enumerate((0.5, 1.0), start=1):
        generator, surrogate, x, similarity = _players(number)
        places = (generator, surrogate, x, similarity)
        case = f"tiny players, lambda = {scale:g}"

        def gradients(loss: Tensor, players=places[:2]) -> list[Tensor]:
            weights = [p for player in players for p in player.parameters()]
            return list(torch.autograd.grad(loss, weights, materialize_grads=True, retain_graph=True))

        def turn(value: Tensor, scale=scale) -> Tensor:
            return reverse_gradient(value, scale)

        loss = call(function, *places, scale, case=case)
        expect_tensor(loss, shape=(), case=case, name="J")
        expect(loss.requires_grad, f"{case}: J has no gradient; something detached all of it")
        plain = _objective(*places)
        shift = _objective(*places, contested=lambda z, s=scale: -s * z)
        expect_close(
            loss.detach(),
            plain.detach(),
            case=case,
            name="the value of J",
            mistakes=[
                (_objective(*places, sign=-1.0).detach(),
                 "This is J_o - J_p. The value to minimise is J_o + J_p; the layer turns the sign, and only on "
                 "the way back to G"),
                (shift.detach(), "Lambda was applied to the forward value of z; forward, the layer is the identity"),
            ],
        )  # fmt: skip
        found, expected = gradients(loss), gradients(_objective(*places, contested=turn))
        count = len(list(generator.parameters()))
        if _equal(found, expected):
            continue
        typical = [
            (plain, "J_p reaches G unreversed, so nobody plays against F: there is no reversal between G and F"),
            (_objective(*places, shared=turn, contested=turn),
             "J_o reaches G reversed too, so G makes protected data useless; the layer belongs on the path of "
             "J_p only"),
            (_objective(*places, shared=turn), "the layer is on the path of J_o; it belongs on the path of J_p"),
            (_objective(*places, on_codes=turn),
             "the layer is behind F: F's own gradient is reversed along with G's; put it in front of F"),
            (_objective(*places, on_codes=turn, on_clean=turn),
             "the layer is behind F, on both codes: F now maximises J_p itself; put it in front of F"),
            (_objective(*places, contested=lambda z: turn(turn(z))),
             "the gradient was reversed twice, and twice is not at all: G now minimises J_p"),
            (_objective(*places, contested=lambda z: z.detach()),
             "J_p does not reach G at all: z was detached on its way to J_p"),
            (_objective(*places, contested=reverse_gradient), "the layer ignores lambda"),
        ]  # fmt: skip
        for wrong, message in typical:
            if _equal(found, gradients(wrong)):
                fail(f"{case}: {message}")
        right = [name for name, part in (("G", slice(0, count)), ("F", slice(count, None)))
                 if _equal(found[part], expected[part])]  # fmt: skip
        fail(
            f"{case}: the value of J is right, but not the gradient of "
            + (f"{'F' if right == ['G'] else 'G'} ({right[0]}'s is right)" if right else "G, nor that of F")
        )
    return "value, G's and F's gradients for lambda = 1 and 0.5"


def _equal(found: list[Tensor], expected: list[Tensor]) -> bool:
    return all(torch.allclose(a, b, rtol=1e-6, atol=1e-9) for a, b in zip(found, expected, strict=True))


@check
def cotangents(function: Callable) -> str:
    """05.4: what is sent back from the protected codes, to F's weights and to G."""
    labels = torch.tensor([0, 0, 1, 1])
    similarity = losses.similarity_matrix(labels, balanced=True).to(DOUBLE)
    for scale in (0.25, 1.0):
        random = torch.Generator().manual_seed(int(100 * scale))
        clean, protected = (torch.rand(4, 3, generator=random, dtype=DOUBLE) * 2 - 1 for _ in range(2))
        a, b = clean.clone().requires_grad_(), protected.clone().requires_grad_()
        j_o, j_p = losses.affinity_loss(b, similarity), privacy(a, b, similarity)
        (o,) = torch.autograd.grad(j_o, b)  # (B, c)
        at_clean, p = torch.autograd.grad(j_p, (a, b))  # (B, c) each
        case = f"4 codes of 3 bits, lambda = {scale:g}"
        result = call(function, clean, protected, similarity, scale, case=case)
        expect_close(
            result,
            (o + p, o - scale * p),
            case=case,
            mistakes=[
                ((o - scale * p, o + p), "The two are swapped: F's comes first"),
                ((o - scale * p, o - scale * p), "F got the reversed gradient too; only G's is reversed"),
                ((o + p, o + p), "G got the same as F: nothing is reversed"),
                ((o + p, o + scale * p), "G's part of J_p has lambda but not the minus"),
                ((o + p, o - p), "Lambda is missing in what goes to G"),
                ((o + scale * p, o - scale * p), "Lambda is on F's side as well; it scales only what goes to G"),
                ((o + p, -scale * (o + p)), "J_o was reversed on the way to G as well; only J_p is"),
                ((p, -scale * p), "J_o is missing: both players also minimise it"),
                *(((first + o + p, o - scale * (o + p) if first is o else (1 - scale) * (o + p)),
                   "backward() adds to .grad: the gradient of J_p still holds that of J_o. Use torch.autograd.grad")
                  for first in (o, o + p)),
                ((p, o - scale * p), "J_o is missing in what goes to F: it minimises J_o + J_p"),
                ((o + at_clean, o - scale * at_clean),
                 "J_p was differentiated with respect to the clean codes; G reaches the protected ones only"),
            ],
        )  # fmt: skip
    return "both cotangents for lambda = 1 and 0.25"
