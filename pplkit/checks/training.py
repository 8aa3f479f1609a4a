"""Answer checks of notebook 08: the length of Algorithm 1, what a step costs the surrogate, who wins, what a collapse is."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pplkit import budget, losses
from pplkit.checks import call, check, compare, expect, expect_close, fail, show
from pplkit.config import PPLConfig
from pplkit.game import Game
from pplkit.gradient_reversal import reverse_gradient


def _steps(iterations: int, batch_size: int, images: int) -> tuple[int, int]:
    return iterations * (iterations // batch_size), iterations * (images // batch_size)


@check
def game_steps(function: Callable) -> str:
    """08.1: t·[t/m] and t·[n/m], the two readings of Algorithm 1's loops."""
    cases = [(7, 4, 9), (1000, 512, 10_000), (500, 32, 10_000), (4, 4, 4), (10, 64, 6_000)]
    compare(
        function,
        _steps,
        cases,
        mistakes=[
            (lambda t, m, n: (t * round(t / m), t * round(n / m)), "[·] is the integer part, not rounding: [1.95] = 1"),
            (lambda t, m, n: (t * -(-t // m), t * -(-n // m)), "[·] is the integer part: it rounds down, not up"),
            (lambda t, m, n: (t * (t / m), t * (n / m)), "e is the integer part of the quotient, a whole number"),
            (lambda t, m, n: (t // m, n // m), "this is e, the length of the inner loop; the outer loop runs it t times"),
            (lambda t, m, n: _steps(t, m, n)[::-1], "the two readings are swapped: first e = [t/m], then e = [n/m]"),
            (lambda t, m, n: (t * t // m, t * n // m), "take the integer part of e before you multiply by t"),
            (lambda t, m, n: (t * m, t * m), "m is the size of a mini-batch; it divides, it is not the number of loops"),
        ],
    )
    return f"{len(cases)} settings, the paper's Fashion-MNIST and CIFAR-10 among them"


def _small_game(batch_size: int = 8) -> Game:
    """A game on random images: only the number of forward passes matters."""
    random = torch.Generator().manual_seed(8)
    images = torch.randint(0, 256, (16, 1, 28, 28), generator=random, dtype=torch.uint8)
    return Game(PPLConfig(batch_size=batch_size, warmup_steps=0, autocast=False), images, torch.arange(16) % 4)


def _objectives(game: Game, images: Tensor, similarity: Tensor, turned: bool) -> tuple[Tensor, Tensor]:
    """(J_o, J_p) of a batch; `turned` sends z through F a second time, behind a gradient reversal layer."""
    network = game.surrogates[0]
    z = budget.adversarial(images, game.generator(images), game.config.epsilon)  # (B, C, H, W)
    protected = network(z)  # (B, c)
    contested = network(reverse_gradient(z)) if turned else protected
    return losses.affinity_loss(protected, similarity), game.privacy[0](network(images), contested, similarity)


def _in_turns(game: Game) -> None:
    """Algorithm 1 as printed: line 2 with its own forward passes, then line 3 with its own."""
    images, similarity = game.batch()
    for player, sign in (("generator", -1), ("surrogate", 1)):
        game.optimisers[player].zero_grad(set_to_none=True)
        j_o, j_p = _objectives(game, images, similarity, turned=False)
        (j_o + sign * j_p).backward()
        game.optimisers[player].step()


def _one_pass(game: Game) -> None:
    """Eq. (14) with a gradient reversal layer: one backward pass for both."""
    j_o, j_p = _objectives(game, *game.batch(), turned=True)
    (j_o + j_p).backward()


@check
def images_through(function: Callable) -> str:
    """08.2: number of images that a network sees while something runs."""
    network = nn.Linear(3, 2)
    runs: list[int] = []

    def play(sizes: tuple[int, ...]) -> Callable[[], None]:
        def run() -> None:
            runs.append(1)
            for size in sizes:
                network(torch.ones(size, 3)).sum().backward()

        return run

    for sizes in ((5, 3), (1, 1, 1), (7,), ()):
        case = f"{len(sizes)} forward passes of {list(sizes)} images"
        runs.clear()
        result = call(function, network, play(sizes), case=case)
        expect(len(runs) > 0, f"{case}: play was never called; call play() between adding and removing the hook")
        expect(len(runs) < 2, f"{case}: play was called {len(runs)} times; call it once")
        expect(
            not network._forward_hooks and not network._forward_pre_hooks,
            f"{case}: your hook is still on the network; remove it by the handle that register_forward_hook returned, "
            "or every later run will be counted too",
        )
        expect_close(
            result,
            sum(sizes),
            case=case,
            mistakes=[
                (len(sizes), "These are the forward passes; count the images in them, len() of each batch"),
                (2 * sum(sizes), "Each image is counted twice (network outputs have 2 numbers here: count rows, not entries)"),
                (3 * sum(sizes), "The entries of the inputs are counted, 3 per image here; count the rows"),
                (sizes[-1] if sizes else 0, "Only the last forward pass is counted: add them up"),
                (sizes[0] if sizes else 0, "Only the first forward pass is counted: add them up"),
            ],
        )
    game = _small_game()
    counts = []
    for step, most in ((lambda: _in_turns(game), 4), (lambda: _one_pass(game), 3), (game.step, 2)):
        count = call(function, game.surrogates[0], step, case="a step of the game")
        expect_close(count, most * game.config.batch_size, case="a step of the game, batch of 8")
        counts.append(int(count) // game.config.batch_size)
    return (
        f"per training image F sees {counts[0]} images if the players step in turns, {counts[1]} with a reversal layer, "
        f"{counts[2]} in the packaged step"
    )


def _verdict(matching: float, clean: float, nothing: float) -> str:
    if matching > 4:
        return "G"
    return "F, indifferent" if clean > 0.75 * nothing else "F, robust"


def _last(values: list[float]) -> float:
    return sum(values[-50:]) / len(values[-50:])


@check
def who_won(function: Callable) -> str:
    """08.3: G, an indifferent F or a robust F, from the last 50 steps of a run's curves."""
    calm, late = [0.06] * 60, [0.01] * 100 + [0.1] * 50
    cases = [
        ("G wins, F searches well", {"matching": [9.0] * 60, "clean": calm}, 0.11, "G"),
        ("G wins, F searches badly", {"matching": [9.0] * 60, "clean": [0.1] * 60}, 0.11, "G"),
        ("codes alike, F searches well", {"matching": [0.3] * 60, "clean": calm}, 0.11, "F, robust"),
        ("codes alike, F's loss near that of codes 0", {"matching": [0.3] * 60, "clean": [0.1] * 60}, 0.11, "F, indifferent"),
        ("the same loss, but codes 0 have twice as much", {"matching": [0.3] * 60, "clean": [0.1] * 60}, 0.22, "F, robust"),
        ("G was ahead before the last 50", {"matching": [9.0] * 100 + [1.0] * 50, "clean": [0.06] * 150}, 0.11, "F, robust"),
        ("F became indifferent in the last 50 steps", {"matching": [1.0] * 150, "clean": late}, 0.11, "F, indifferent"),
        ("noisy: the last step is an exception", {"matching": [9.0] * 59 + [1.0], "clean": calm}, 0.11, "G"),
        ("a run of 20 steps", {"matching": [5.0] * 20, "clean": [0.06] * 20}, 0.11, "G"),
        ("matching loss just above 4", {"matching": [4.1] * 60, "clean": [0.1] * 60}, 0.11, "G"),
        ("matching loss just below 4", {"matching": [3.9] * 60, "clean": calm}, 0.11, "F, robust"),
        ("clean loss just above three quarters", {"matching": [1.0] * 60, "clean": [0.76] * 60}, 1.0, "F, indifferent"),
    ]
    mistakes: list[tuple[Callable[[dict, float], str], str]] = [
        (lambda h, no: _verdict(sum(h["matching"]) / len(h["matching"]), sum(h["clean"]) / len(h["clean"]), no),
         "take the last 50 steps, not the whole run"),
        (lambda h, no: _verdict(h["matching"][-1], h["clean"][-1], no), "one step is noisy: take the mean of the last 50"),
        (lambda h, no: _verdict(sum(h["matching"][-50:]) / 50, sum(h["clean"][-50:]) / 50, no),
         "a run may have fewer than 50 steps: divide by how many there are"),
        (lambda h, no: "F, indifferent" if _last(h["clean"]) > 0.75 * no else _verdict(_last(h["matching"]), 0, no),
         "ask for the matching loss first: if G has won, F's loss on clean pairs decides nothing"),
        (lambda h, no: _verdict(_last(h["matching"]), _last(h["clean"]), 0.11),
         "compare with three quarters of `nothing`, which is an argument"),
        (lambda h, no: _verdict(_last(h["matching"]), _last(h["clean"]), no / 0.75),
         "three quarters of `nothing`, not all of it"),
        (lambda h, no: {"F, robust": "F, indifferent", "F, indifferent": "F, robust"}.get(
            found := _verdict(_last(h["matching"]), _last(h["clean"]), no), found),
         "a high loss on clean pairs means that F searches badly: indifferent"),
    ]  # fmt: skip
    for case, history, nothing, expected in cases:
        result = call(function, {name: list(values) for name, values in history.items()}, nothing, case=case)
        if result == expected:
            continue
        expect(isinstance(result, str), f"{case}: got {show(result)}; return 'G', 'F, indifferent' or 'F, robust'")
        why = next((f". {text[:1].upper()}{text[1:]}" for wrong, text in mistakes if wrong(history, nothing) == result), "")
        fail(f"{case}: got {result!r}, expected {expected!r}{why}")
    return f"{len(cases)} runs"


def _state(codes: Tensor) -> str:
    if codes.abs().mean() < 0.05:
        return "near 0"
    return "all equal" if codes.std(0).mean() < 0.02 else "fine"


@check
def collapse(function: Callable) -> str:
    """08.4: tell healthy relaxed codes from codes near 0 and from equal codes."""
    random = torch.Generator().manual_seed(0)
    signs = torch.randint(0, 2, (64, 8), generator=random) * 2.0 - 1  # (B, c)
    alternating = torch.tensor([0.9, -0.9]).repeat(4)  # (c,)
    one_bit = alternating.repeat(64, 1)
    one_bit[::2, 0] = -0.9
    undecided = 0.7 * signs
    undecided[0, 0] = 0.01
    small = 0.01 * torch.randn(64, 8, generator=random)
    one_large = small.clone()
    one_large[0, 0] = 0.9
    one_wobbles = alternating.repeat(64, 1)
    one_wobbles[:, 0] += 0.08 * signs[:, 0]
    cases = [
        ("codes of healthy size, different for every image", 0.7 * signs, "fine"),
        ("healthy codes, one bit of one image undecided", undecided, "fine"),
        ("tiny codes, different for every image", small, "near 0"),
        ("within each image all bits are equal, but images differ", 0.8 * signs[:, :1].repeat(1, 8), "fine"),
        ("every image has the code +0.9 −0.9 +0.9 …", alternating.repeat(64, 1), "all equal"),
        ("every image has the code +1 +1 … +1", torch.ones(64, 8), "all equal"),
        ("images differ in one bit of eight", one_bit, "fine"),
        ("tiny codes, equal for every image", torch.full((64, 8), 0.003), "near 0"),
        ("equal codes plus a trace of noise", alternating + small / 3, "all equal"),
        ("codes a little above the threshold", 0.06 * signs, "fine"),
        ("codes a little below the threshold", 0.04 * signs, "near 0"),
        ("codes near 0, but for one entry", one_large, "near 0"),
        ("equal codes, but one bit wobbles", one_wobbles, "all equal"),
        ("spread a little below the threshold", alternating + 0.015 * signs, "all equal"),
        ("spread a little above the threshold", alternating + 0.03 * signs, "fine"),
    ]
    mistakes: list[tuple[Callable[[Tensor], str], str]] = [
        (lambda u: "near 0" if u.abs().mean() < 0.05 else "all equal" if u.std(0).max() < 0.02 else "fine",
         "average the spread over the bits, do not take the largest"),
        (lambda u: "near 0" if u.abs().max() < 0.05 else "all equal" if u.std(0).mean() < 0.02 else "fine",
         "take the mean of |u|, not its largest entry"),
        (lambda u: "near 0" if u.abs().min() < 0.05 else _state(u), "take the mean of |u|, not its smallest entry"),
        (lambda u: "near 0" if u.mean().abs() < 0.05 else _state(u),
         "without abs() positive and negative bits cancel and healthy codes look like zero"),
        (lambda u: "near 0" if u.abs().mean() < 0.05 else "all equal" if u.std() < 0.02 else "fine",
         "std over all entries also contains the differences between bits; take it over the images, dim 0"),
        (lambda u: "near 0" if u.abs().mean() < 0.05 else "all equal" if u.std(1).mean() < 0.02 else "fine",
         "std over the bits of one image asks the wrong question; take it over the images, dim 0"),
        (lambda u: "all equal" if u.std(0).mean() < 0.02 else _state(u),
         "tiny codes have a tiny spread too: ask for the size first"),
        (lambda u: "near 0" if u.abs().mean() < 0.05 else "all equal" if u.std(0).min() < 0.02 else "fine",
         "one bit that never changes is no collapse; average the spread over the bits"),
    ]  # fmt: skip
    for case, codes, expected in cases:
        result = call(function, codes.clone(), case=case)
        if result == expected:
            continue
        expect(isinstance(result, str), f"{case}: got {show(result)}; return 'fine', 'near 0' or 'all equal'")
        why = next((f". {text[:1].upper()}{text[1:]}" for wrong, text in mistakes if wrong(codes) == result), "")
        fail(f"{case}: got {result!r}, expected {expected!r}{why}")
    return f"{len(cases)} batches of codes"
