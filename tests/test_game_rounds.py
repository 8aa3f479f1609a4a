"""pplkit.game over a run: warm-up, refreshes, surrogates that start anew, the generator's rate and average."""

import itertools

import pytest
import torch
from toy_game import start

from pplkit import game, losses
from pplkit.hashing.network import build


def test_the_warm_up_trains_the_surrogates_on_clean_pairs_and_nothing_else():
    played, same = start(code_lengths=(4, 8)), start(code_lengths=(4, 8))
    generator = {name: value.clone() for name, value in played.generator.state_dict().items()}
    record = played.warm_up()
    x, similarity = same.batch()
    total = sum(losses.affinity_loss(network(x), similarity) for network in same.surrogates)
    assert set(record) == {"warmup"} and record["warmup"].item() == pytest.approx(total.item() / 2, abs=1e-6)
    total.backward()
    for ours, theirs in zip(played.surrogates, same.surrogates, strict=True):
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert torch.allclose(p.grad, q.grad, atol=1e-6)
            clear = q.grad.abs() > 1e-5
            step = -1e-3 * q.grad.sign()  # Adam's first step: the learning rate, whatever the gradient's size
            assert torch.allclose((p - q)[clear], step[clear], rtol=0.01)
    assert all(torch.equal(value, generator[name]) for name, value in played.generator.state_dict().items())


def test_the_average_follows_the_generator():
    played = start(generator_average=0.75)
    expected = {name: value.double() for name, value in played.generator.state_dict().items()}
    for _ in range(3):
        played.step()
        for name, value in played.generator.state_dict().items():
            expected[name] = 0.75 * expected[name] + 0.25 * value.double()
    for name, value in played.average.state_dict().items():
        if value.is_floating_point():
            assert torch.allclose(value.double(), expected[name], atol=1e-6), name
        else:
            assert value.item() == 3
    assert start().average is None


@pytest.mark.parametrize("lengths", [(4,), (4, 8), (4, 8, 6)])
def test_surrogates_go_back_to_their_warmed_up_state_in_turn(lengths):
    every, steps = 6, 14
    played = start(code_lengths=lengths, refresh_every=every, surrogate_learning_rate=1e-2)
    played.warm_up()
    fresh = [network.code.weight.detach().clone() for network in played.surrogates]
    times: list[list[int]] = [[] for _ in lengths]
    original = played.step

    def watch():
        for i, network in enumerate(played.surrogates):
            if torch.equal(network.code.weight, fresh[i]):
                times[i].append(step)
                assert network.code.weight not in played.optimisers["surrogate"].state
        return original()

    played.step = watch
    for step in range(steps):
        played.round(step)
    apart = every // len(lengths)
    assert times == [[0] + [s for s in range(1, steps) if (s + i * apart) % every == 0] for i in range(len(lengths))]


def test_a_surrogate_starts_anew_from_other_weights_while_the_others_play_on():
    played = start(code_lengths=(4, 8), restart_every=(0, 3), surrogate_learning_rate=1e-2)
    played.warm_up()
    stays, restarts = ([] for _ in range(2))
    original = played.step

    def watch():
        for seen, network in zip((stays, restarts), played.surrogates, strict=True):
            seen.append((network.code.weight.detach().clone(), network.code.weight in played.optimisers["surrogate"].state))
        return original()

    played.step = watch
    for step in range(7):
        played.round(step)
    assert [momentum for _, momentum in stays] == [False] + [True] * 6
    assert [momentum for _, momentum in restarts] == [False, True, True, False, True, True, False]
    starts = [restarts[step][0] for step in (0, 3, 6)]
    bound = 1 / played.surrogates[1].backbone.features ** 0.5  # of torch's uniform start
    assert all(weight.abs().max() <= bound for weight in starts)
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(starts, 2))


def test_several_surrogates_start_anew_in_turn(monkeypatch):
    played = start(code_lengths=(4, 8, 6), restart_every=(0, 6, 6), refresh_every=4)
    played.remember()
    times = {8: [], 6: []}
    monkeypatch.setattr(game, "build", lambda bits, *form: times[bits].append(step) or build(bits, *form))
    for step in range(13):
        played.refresh(step)
        for network, fresh in zip(played.surrogates[1:], played.fresh[1:], strict=True):
            assert not torch.equal(network.code.weight, fresh["code.weight"])  # refreshing is for the first alone
    assert times == {8: [0, 6, 12], 6: [0, 3, 9]}


def test_a_surrogate_starts_anew_with_its_own_network():
    played = start(code_lengths=(4, 8, 6), backbone=("two_conv", "dense", "two_conv"), restart_every=(0, 2, 2))
    before = [played.surrogates[i].backbone.state_dict() for i in (1, 2)]
    before = [{name: weight.clone() for name, weight in state.items()} for state in before]
    played.refresh(2)
    played.refresh(3)
    for network, old in zip(played.surrogates[1:], before, strict=True):
        assert all(not torch.equal(weight, old[name]) for name, weight in network.backbone.state_dict().items())


def test_a_surrogate_that_starts_anew_is_not_warmed_up_and_hides_no_collapse():
    played, alone = start(code_lengths=(4, 8), restart_every=(0, 3)), start(code_lengths=(4,))
    before = played.surrogates[1].code.weight.detach().clone()
    assert torch.equal(played.warm_up()["warmup"], alone.warm_up()["warmup"])
    assert torch.equal(played.surrogates[1].code.weight, before)
    assert torch.equal(played.surrogates[0].code.weight, alone.surrogates[0].code.weight)
    with torch.no_grad():
        played.surrogates[0].code.weight.zero_()
        played.surrogates[0].code.bias.zero_()
    record = played.step()
    assert record["magnitude"] == record["spread"] == 0
    nobody = start(restart_every=3)
    assert nobody.warm_up()["warmup"] == 0 and nobody.step()["magnitude"] > 0


def test_the_generators_learning_rate_falls_along_a_cosine():
    played = start(steps=4, generator_schedule="cosine", generator_learning_rate=0.2)
    rates = []
    for step in range(4):
        played.round(step)
        rates.append(played.optimisers["generator"].param_groups[0]["lr"])
    assert rates == pytest.approx([0.2, 0.1 * (1 + 0.5**0.5), 0.1, 0.1 * (1 - 0.5**0.5)])


def test_without_refresh_nobody_goes_back():
    played = start(surrogate_learning_rate=1e-2)
    first = played.surrogates[0].code.weight.detach().clone()
    for step in range(5):
        played.round(step)
        assert not torch.equal(played.surrogates[0].code.weight, first)
