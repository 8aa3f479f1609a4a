"""Checks of notebook 08: right answers pass, typical wrong ones are told what is wrong."""

import statistics

import pytest
import torch

from pplkit.checks import CheckFailed
from pplkit.checks import training as check


def explains(test, answer, words: str) -> None:
    with pytest.raises(CheckFailed, match=words):
        test(answer)


def steps(t, m, n):
    return t * (t // m), t * (n // m)


def counting(rows=lambda inputs, output: len(output), remove=True, times=1, total=sum):
    def images_through(network, play):
        seen = []
        handle = network.register_forward_hook(lambda module, inputs, output: seen.append(rows(inputs[0], output)))
        for _ in range(times):
            play()
        if remove:
            handle.remove()
        return total(seen)

    return images_through


def collapse(codes):
    if codes.abs().mean() < 0.05:
        return "near 0"
    return "all equal" if codes.std(0).mean() < 0.02 else "fine"


def who_won(history, nothing, count=50, share=0.75):
    matching, clean = (statistics.fmean(history[name][-count:]) for name in ("matching", "clean"))
    return "G" if matching > 4 else "F, indifferent" if clean > share * nothing else "F, robust"


RIGHT = {
    "who_won": [who_won, lambda h, no: "G" if sum(h["matching"][-50:]) > 4 * len(h["matching"][-50:]) else who_won(h, no)],
    "game_steps": [steps, lambda t, m, n: [t * int(t / m), t * int(n / m)]],
    "images_through": [counting(), counting(rows=lambda inputs, output: inputs.shape[0])],
    "collapse": [collapse, lambda u: "near 0" if u.norm(1) < 0.05 * u.numel() else collapse(u)],
}


def stub(*args):
    raise NotImplementedError


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers_pass_and_the_stub_fails(name, capsys):
    for answer in RIGHT[name]:
        getattr(check, name)(answer)
        assert capsys.readouterr().out.startswith(f"✓ {name}: ")
    explains(getattr(check, name), stub, "not implemented yet")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda t, m, n: (t * round(t / m), t * round(n / m)), "not rounding"),
        (lambda t, m, n: (t * -(-t // m), t * -(-n // m)), "not up"),
        (lambda t, m, n: (t * t / m, t * n / m), "whole number"),
        (lambda t, m, n: (t // m, n // m), "outer loop"),
        (lambda t, m, n: (t * (n // m), t * (t // m)), "swapped"),
        (lambda t, m, n: (t * t // m, t * n // m), "before you multiply"),
        (lambda t, m, n: (t * m, t * m), "it divides"),
        (lambda t, m, n: None, "None"),
    ],
)
def test_game_steps_explains(answer, words):
    explains(check.game_steps, answer, words)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (counting(rows=lambda inputs, output: 1), "count the images"),
        (counting(rows=lambda inputs, output: output.numel()), "count rows"),
        (counting(rows=lambda inputs, output: inputs.numel()), "count the rows"),
        (counting(remove=False), "still on the network"),
        (counting(times=2), "called 2 times"),
        (counting(times=0), "never called"),
        (counting(total=lambda seen: seen[-1] if seen else 0), "last forward pass"),
        (counting(total=lambda seen: seen[0] if seen else 0), "first forward pass"),
    ],
)
def test_images_through_explains(answer, words):
    explains(check.images_through, answer, words)


def test_images_through_says_what_the_three_ways_cost(capsys):
    check.images_through(counting())
    assert "4 images if the players step in turns, 3 with a reversal layer, 2 in the packaged" in capsys.readouterr().out


def told(size=lambda u: u.abs().mean(), spread=lambda u: u.std(0).mean(), spread_first=False):
    def collapse(codes):
        found = [("near 0", size(codes) < 0.05), ("all equal", spread(codes) < 0.02)]
        return next((name for name, true in (found[::-1] if spread_first else found) if true), "fine")

    return collapse


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (told(size=lambda u: u.mean().abs()), "cancel"),
        (told(spread=lambda u: u.std(1).mean()), "over the images"),
        (told(spread=lambda u: u.std()), "over all entries"),
        (told(spread_first=True), "size first"),
        (told(size=lambda u: u.abs().min()), "not its smallest"),
        (told(spread=lambda u: u.std(0).min()), "average the spread"),
        (lambda u: True, "return 'fine'"),
        (lambda u: "fine", "expected 'near 0'"),
        (lambda u: u.zero_() and "fine", "in place"),
    ],
)
def test_collapse_explains(answer, words):
    explains(check.collapse, answer, words)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda h, no: who_won(h, no, count=10**6), "not the whole run"),
        (lambda h, no: who_won(h, no, count=1), "one step is noisy"),
        (lambda h, no: who_won({k: [0.0] * (50 - len(v)) + v for k, v in h.items()}, no), "fewer than 50"),
        (lambda h, no: "F, indifferent" if statistics.fmean(h["clean"][-50:]) > 0.75 * no else who_won(h, no),
         "matching loss first"),
        (lambda h, no: who_won(h, 0.11), "which is an argument"),
        (lambda h, no: who_won(h, no, share=1.0), "not all of it"),
        (lambda h, no: {"F, robust": "F, indifferent", "F, indifferent": "F, robust"}.get(who_won(h, no), "G"),
         "searches badly"),
        (lambda h, no: "F", "expected 'G'"),
        (lambda h, no: None, "None"),
    ],
)
def test_who_won_explains(answer, words):
    with pytest.raises(CheckFailed, match=f"(?i){words}"):
        check.who_won(answer)


def test_the_right_detector_agrees_with_the_packaged_thresholds():
    from pplkit.training import PPLConfig, _notice_collapse

    config = PPLConfig()
    for codes in (torch.full((8, 4), 0.01), torch.ones(8, 4), torch.tensor([[0.7], [-0.7]]).repeat(4, 4)):
        history = {"magnitude": [float(codes.abs().mean())] * 50, "spread": [float(codes.std(0).mean())] * 50}
        if collapse(codes) == "fine":
            assert _notice_collapse(history, config, 50) is None
        else:
            with pytest.warns(UserWarning, match="near 0" if collapse(codes) == "near 0" else "same code"):
                _notice_collapse(history, config, 50)
