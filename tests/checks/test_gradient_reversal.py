"""Checks of notebook 05: right answers pass, typical wrong ones are told what is wrong."""

import pytest
import torch

from pplkit import losses
from pplkit.checks import CheckFailed
from pplkit.checks import gradient_reversal as check
from pplkit.gradient_reversal import reverse_gradient

privacy = losses.PrivacyLoss()


def step(g, f, rate_g, rate_f, mu):
    down_g, down_f = mu * g - f, mu * f + g
    return g - rate_g * down_g, f - rate_f * down_f


def sequential(g, f, rate_g, rate_f, mu):
    g = g - rate_g * (mu * g - f)
    return g, f - rate_f * (mu * f + g)


def sequential_other_way(g, f, rate_g, rate_f, mu):
    f = f - rate_f * (mu * f + g)
    return g - rate_g * (mu * g - f), f


def detach_trick(x, scale):
    return (1 + scale) * x.detach() - scale * x


def objective(shared=lambda z, s: z, contested=lambda z, s: reverse_gradient(z, s), codes=lambda u, s: u):
    def game_loss(generator, surrogate, x, similarity, scale=1.0):
        z = x + generator(x)
        straight, turned = surrogate(shared(z, scale)), codes(surrogate(contested(z, scale)), scale)
        return losses.affinity_loss(straight, similarity) + privacy(surrogate(x), turned, similarity)

    return game_loss


def gradients(clean, protected, similarity):
    a, b = clean.clone().requires_grad_(), protected.clone().requires_grad_()
    j_o, j_p = losses.affinity_loss(b, similarity), privacy(a, b, similarity)
    return torch.autograd.grad(j_o, b)[0], torch.autograd.grad(j_p, b)[0]


def two(combine):
    return lambda clean, protected, similarity, scale: combine(*gradients(clean, protected, similarity), scale)


RIGHT = {
    "simultaneous_step": [step],
    "reversal": [detach_trick, reverse_gradient, lambda x, s: x + (1 + s) * (x.detach() - x)],
    "game_loss": [objective()],
    "cotangents": [two(lambda o, p, s: (o + p, o - s * p))],
}


def stub(*args, **kwargs):
    raise NotImplementedError


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers_pass_and_the_stub_fails(name, capsys):
    for answer in RIGHT[name]:
        getattr(check, name)(answer)
        assert capsys.readouterr().out.startswith(f"✓ {name}: ")
    with pytest.raises(CheckFailed, match="not implemented yet"):
        getattr(check, name)(stub)


def same(z, s):
    return z


def turn(z, s):
    return reverse_gradient(z, s)


WRONG = [
    ("simultaneous_step", sequential, "The g that f looked at had already moved"),
    ("simultaneous_step", sequential_other_way, "The f that g looked at had already moved"),
    ("simultaneous_step", lambda g, f, a, b, m: (g - a * (m * g + f), f - b * (m * f + g)), "Both players went down J_p"),
    ("simultaneous_step", lambda g, f, a, b, m: (g + a * f, f - b * g), r"the one with mu\) is missing"),
    ("simultaneous_step", lambda g, f, a, b, m: step(g, f, b, a, m), "step sizes are swapped"),
    ("simultaneous_step", lambda g, f, a, b, m: step(g, f, a, a, m), "step size of g was used for f as well"),
    ("simultaneous_step", lambda g, f, a, b, m: (g - a * (m * g + f), f - b * (m * f - g)), "swapped roles"),
    ("simultaneous_step", lambda g, f, a, b, m: None, "2 values are needed"),
    ("simultaneous_step", lambda g, f, a, b, m: (g + a * (m * g - f), f - b * (m * f + g)), r"result\[0\]: .* g went up"),
    ("simultaneous_step", lambda g, f, a, b, m: (g - a * (m * g - f), f + b * (m * f + g)), r"result\[1\]: .* f went up"),
    ("simultaneous_step", lambda g, f, a, b, m: (-a * (m * g - f), -b * (m * f + g)), "the two moves"),
    ("reversal", lambda x, s: -s * x, "Lambda was applied to the forward value"),
    ("reversal", lambda x, s: x, "not reversed: it passed through unchanged"),
    ("reversal", lambda x, s: x.detach(), "no gradient arrives at x"),
    ("reversal", lambda x, s: 2 * x.detach() - x, "lambda was ignored"),
    ("reversal", lambda x, s: (1 - s) * x.detach() + s * x, "multiplied by lambda, without the minus"),
    ("reversal", lambda x, s: (1 + s) * x - s * x.detach(), "the gradient are swapped"),
    ("reversal", lambda x, s: (1 + s) * x.detach(), "cancels in the forward value is missing"),
    ("reversal", lambda x, s: x.mul_(1), "raised RuntimeError"),
    ("game_loss", objective(contested=same), "there is no reversal between G and F"),
    ("game_loss", objective(shared=turn), "J_o reaches G reversed too"),
    ("game_loss", objective(shared=turn, contested=same), "the layer is on the path of J_o"),
    ("game_loss", objective(contested=same, codes=turn), "the layer is behind F"),
    ("game_loss", objective(contested=lambda z, s: turn(turn(z, s), s)), "twice is not at all"),
    ("game_loss", objective(contested=lambda z, s: -s * z), "Lambda was applied to the forward value"),
    ("game_loss", objective(contested=lambda z, s: z.detach()), "J_p does not reach G at all"),
    ("game_loss", objective(contested=lambda z, s: reverse_gradient(z)), "the layer ignores lambda"),
    ("game_loss", objective(contested=lambda z, s: reverse_gradient(z, 3 * s)), r"not the gradient of G \(F's"),
    ("game_loss", lambda *a: objective()(*a).detach(), "J has no gradient"),
    ("cotangents", two(lambda o, p, s: (o - s * p, o + p)), "The two are swapped"),
    ("cotangents", two(lambda o, p, s: (o - s * p, o - s * p)), "F got the reversed gradient too"),
    ("cotangents", two(lambda o, p, s: (o + p, o + p)), "nothing is reversed"),
    ("cotangents", two(lambda o, p, s: (o + p, o - p)), "Lambda is missing"),
    ("cotangents", two(lambda o, p, s: (o + s * p, o - s * p)), "Lambda is on F's side"),
    ("cotangents", two(lambda o, p, s: (o + p, -s * (o + p))), "J_o was reversed"),
    ("cotangents", two(lambda o, p, s: (p, -s * p)), "J_o is missing"),
    ("cotangents", two(lambda o, p, s: o + p), "2 values are needed"),
]


@pytest.mark.parametrize(("name", "answer", "message"), WRONG)
def test_wrong_answers_are_explained(name, answer, message):
    with pytest.raises(CheckFailed, match=message):
        getattr(check, name)(answer)


def test_a_game_that_detaches_the_clean_codes_is_told_whose_gradient_is_wrong():
    def game_loss(generator, surrogate, x, similarity, scale=1.0):
        z = x + generator(x)
        contested = privacy(surrogate(x).detach(), surrogate(reverse_gradient(z, scale)), similarity)
        return losses.affinity_loss(surrogate(z), similarity) + contested

    with pytest.raises(CheckFailed, match=r"not the gradient of F \(G's is right\)"):
        check.game_loss(game_loss)
