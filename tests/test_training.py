"""pplkit.training: repeatable runs that heed every setting, report what happens, and say when they fail."""

import json
import math
import warnings

import pytest
import torch
from toy_game import SHORT, TINY, same, toy, train, weights

from pplkit import budget, losses, training
from pplkit.data import ImageSet
from pplkit.game import SERIES
from pplkit.hashing.network import HashingNetwork
from pplkit.training import CollapseWarning, PPLConfig, PPLRun, TrainingDiverged, train_ppl

GAME = tuple(name for name in ("step", *SERIES))


@pytest.fixture(scope="module")
def base() -> PPLRun:
    return train()


# ---- repeatable, and every setting counts


def test_two_runs_are_identical_and_use_no_global_randomness(base):
    torch.manual_seed(123)
    state = torch.random.get_rng_state()
    assert same(train(), base)
    assert torch.equal(torch.random.get_rng_state(), state)


# Another value for every setting; `checkpoint_every` must change nothing.
CHANGES = {
    "backbone": "dense",
    "code_lengths": (4,),
    "widths": (4, 4, 4, 8),
    "full_resolution": True,
    "epsilon": 0.2,
    "norm": "2",
    "alpha": 5.0,
    "beta": 1.0,
    "gamma": 5.0,
    "affinity": 3.0,
    "clean": 1.0,
    "reverse_scale": 0.5,
    "similarity": "literal",
    "kernel": "linear",
    "reduction": "sum",
    "scaled": False,
    "generator_affinity": -3.0,
    "surrogate_objective": "privacy",
    "warmup_steps": 4,
    "warmup_learning_rate": 1e-4,
    "steps": 6,
    "batch_size": 12,
    "optimiser": "sgd",
    "generator_learning_rate": 1e-4,
    "surrogate_learning_rate": 1e-3,
    "refresh_every": 2,
    "restart_every": 2,
    "generator_schedule": "cosine",
    "generator_average": 0.5,
    "seed": 1,
    "autocast": True,
}


def test_the_list_of_settings_is_complete():
    assert set(CHANGES) == set(PPLConfig.__dataclass_fields__) - {"checkpoint_every"}


@pytest.mark.parametrize("name", CHANGES)
def test_every_setting_changes_the_result(base, name):
    changed = train(**{name: CHANGES[name]})
    assert getattr(base.config, name) != CHANGES[name]
    shapes = [v.shape for v in weights(changed)] != [v.shape for v in weights(base)]
    assert shapes or not all(torch.equal(a, b) for a, b in zip(weights(base), weights(changed), strict=True))


@pytest.mark.parametrize("every", [1, 3, 100])
def test_the_checkpoint_interval_changes_nothing(base, every):
    assert same(train(checkpoint_every=every), base)


def test_the_data_are_not_written_to():
    data, untouched = toy(), toy()
    train_ppl(data, PPLConfig(**SHORT), progress=False)
    assert torch.equal(data.images, untouched.images) and torch.equal(data.labels, untouched.labels)


# ---- what a run gives


def test_history_has_one_entry_per_step_and_is_json(base):
    assert set(base.history) == {"warmup", *GAME}
    assert len(base.history["warmup"]) == 3 and all(len(base.history[name]) == 5 for name in GAME)
    assert base.history["step"] == [1, 2, 3, 4, 5] and json.loads(json.dumps(base.history)) == base.history
    assert all(math.isfinite(value) for series in base.history.values() for value in series)


@pytest.mark.parametrize(("settings", "warm_up", "steps"), [({"warmup_steps": 0}, 0, 5), ({"steps": 0}, 3, 0)])
def test_each_phase_may_be_empty(settings, warm_up, steps):
    run = train(**settings)
    assert len(run.history["warmup"]) == warm_up and all(len(run.history[name]) == steps for name in GAME)


@pytest.mark.parametrize("settings", [{}, {"norm": "2", "epsilon": 0.1}, {"norm": "1", "epsilon": 0.05}])
def test_protected_images_stay_within_the_budget(settings):
    run = train(generator_learning_rate=0.1, **settings)
    images, config = toy().images, run.config
    protected = run.protect(images)
    assert torch.equal(protected, budget.protect(images, run.generator, config.epsilon, config.norm))
    assert budget.perturbation_norm(images, protected, config.norm).max() <= config.epsilon + 1e-6
    assert budget.perturbation_norm(images, run.protect(images, 0.02), config.norm).max() <= 0.02 + 1e-6
    assert 0 < max(run.history["perturbation"]) <= config.epsilon + 1e-6
    assert (protected != images).any()


def test_the_players_come_back_ready_for_use():
    run = train(code_lengths=(8, 4), generator_average=0.9)
    assert run.surrogate is run.surrogates[0] and [network.bits for network in run.surrogates] == [8, 4]
    assert not run.generator.training and not any(network.training for network in run.surrogates)
    assert run.surrogate.encode(toy().images).shape == (48, 8)
    assert run.config.code_lengths == (8, 4) and run.collapsed is None


@pytest.mark.parametrize(("channels", "size"), [(3, 16), (1, 17), (3, 28)])
def test_colour_and_odd_sizes(channels, size):
    data = toy(channels=channels, size=size)
    run = train_ppl(data, PPLConfig(**(SHORT | {"steps": 1})), progress=False)
    assert run.protect(data.images).shape == data.images.shape


def test_the_game_is_worth_playing():
    """After a short game the surrogate's codes of an image and of its protected counterpart disagree far more often."""
    data = toy(96)
    settings = TINY | {"warmup_steps": 100, "batch_size": 32, "generator_learning_rate": 3e-3}
    disagreement = []
    for steps in (0, 60):
        run = train_ppl(data, PPLConfig(steps=steps, **settings), progress=False)
        clean, protected = run.surrogate.encode(data.images), run.surrogate.encode(run.protect(data.images))
        disagreement.append((clean != protected).float().mean().item())
    assert disagreement[1] > disagreement[0] + 0.15 and run.history["warmup"][-1] < 0.5 * run.history["warmup"][0]


# ---- callback, progress, bad input


def test_the_callback_sees_each_checkpoint_and_can_stop_the_game():
    seen = []

    def callback(done: int, run: PPLRun) -> bool | None:
        seen.append((done, len(run.history["warmup"]), len(run.history["step"])))
        return False if done == 6 else None

    run = train_ppl(toy(), PPLConfig(**SHORT), callback=callback, progress=False)
    assert seen == [(2, 2, 0), (3, 3, 0), (4, 3, 1), (6, 3, 3)]
    assert run.history["step"] == [1, 2, 3] and not run.generator.training


@pytest.mark.parametrize("settings", [{}, {"generator_average": 0.5}])
def test_a_callback_may_use_the_players_without_changing_the_run(settings):
    def callback(done: int, run: PPLRun) -> None:
        run.generator.eval()
        run.protect(toy().images)
        run.surrogate.eval().encode(toy().images)
        torch.rand(3)

    config = PPLConfig(**(SHORT | settings))
    assert same(train_ppl(toy(), config, callback=callback, progress=False), train(**settings))


def test_progress_is_shown_on_request_only(capsys, monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    train()
    quiet = capsys.readouterr()
    assert quiet.out == "" and quiet.err == ""
    train_ppl(toy(), PPLConfig(**SHORT), progress=True)
    shown = capsys.readouterr().err
    assert "PPL" in shown and "8/8" in shown and "game" in shown


def test_bad_input_is_refused():
    one = toy().subset(torch.tensor([0]))
    with pytest.raises(ValueError, match="at least 2 images, got 1"):
        train_ppl(one, PPLConfig(**SHORT), progress=False)
    oblong = ImageSet(torch.zeros(4, 1, 16, 20, dtype=torch.uint8), torch.zeros(4).long())
    with pytest.raises(ValueError, match="square images, got 16 x 20 pixels"):
        train_ppl(oblong, PPLConfig(**SHORT), progress=False)
    with pytest.raises(ValueError, match="at least 16 pixels, got 12"):
        train_ppl(toy(size=12), PPLConfig(**SHORT), progress=False)
    with pytest.raises(ValueError, match="device must be .* got 'gpu'"):
        train_ppl(toy(), PPLConfig(**SHORT), device="gpu", progress=False)


@pytest.mark.parametrize("classes", [1, 48])
def test_one_class_and_a_class_per_image_train_without_nan(classes):
    run = train_ppl(toy(classes=classes, size=64), PPLConfig(**(SHORT | {"steps": 2})), progress=False)
    assert all(torch.isfinite(v).all() for v in weights(run))


def test_two_images_are_enough():
    run = train_ppl(toy(2), PPLConfig(**SHORT), progress=False)
    assert len(run.history["step"]) == 5


# ---- NaN


@pytest.mark.parametrize("checkpoint_every", [1, 2, 100])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_bad_loss_stops_the_game_and_keeps_the_last_good_checkpoint(tmp_path, monkeypatch, bad, checkpoint_every):
    path, calls, original = tmp_path / "run.safetensors", [], losses.matching_loss
    config = PPLConfig(**(SHORT | {"checkpoint_every": checkpoint_every}))

    def diverge(clean, adversarial, **how):
        calls.append(None)
        return original(clean, adversarial, **how) * (bad if len(calls) == 4 else 1)

    with monkeypatch.context() as patch:
        patch.setattr(losses, "matching_loss", diverge)
        with pytest.raises(TrainingDiverged, match=rf"matching is {bad} at step 4: training stopped.*lower the learning"):
            train_ppl(toy(), config, checkpoint=path, progress=False)
    assert issubclass(TrainingDiverged, ValueError)
    resumed = train_ppl(toy(), config, checkpoint=path, resume=True, progress=False)
    assert same(resumed, train())  # the file held a state from before the bad step


def test_a_bad_loss_in_the_warm_up_is_named(monkeypatch):
    calls, original = [], losses.affinity_loss

    def diverge(codes, similarity, **how):
        calls.append(None)
        return original(codes, similarity, **how) * (math.nan if len(calls) == 3 else 1)

    monkeypatch.setattr(losses, "affinity_loss", diverge)
    with pytest.raises(TrainingDiverged, match="warmup is nan at warm-up step 3"):
        train()


def test_an_exploding_game_says_so():
    with pytest.raises(TrainingDiverged, match="is (nan|inf) at step"):
        train(optimiser="sgd", generator_learning_rate=1e30, reduction="sum", steps=20)


# ---- collapse


def collapsing(monkeypatch, shrink: float, shift: float) -> None:
    forward = HashingNetwork.forward
    monkeypatch.setattr(HashingNetwork, "forward", lambda self, images: forward(self, images) * shrink + shift)


@pytest.mark.parametrize(
    ("shrink", "shift", "what"),
    [(1e-3, 0.0, r"all codes are near 0 \(mean \|u\| = 0\.00"), (1e-3, 0.9, r"all images get the same code \(spread 0\.00")],
)
def test_a_collapsed_surrogate_is_reported_with_cures(monkeypatch, shrink, shift, what):
    collapsing(monkeypatch, shrink, shift)
    settings = {"similarity": "literal", "reduction": "sum", "surrogate_learning_rate": 1e-3}
    with pytest.warns(CollapseWarning, match=rf"collapsed by step 54: {what}") as caught:
        run = train(steps=60, checkpoint_every=9, **settings)
    assert len([w for w in caught if w.category is CollapseWarning]) == 1  # said once
    for cure in ("similarity='balanced'", "warmup_steps=1500", "surrogate_learning_rate=1e-5", "reduction='mean'"):
        assert cure in run.collapsed
    assert "teaches the generator nothing" in run.collapsed


def test_one_collapsed_surrogate_is_not_hidden_by_healthy_ones(monkeypatch):
    forward = HashingNetwork.forward
    shrunk = 4  # bits of the one that collapses
    monkeypatch.setattr(HashingNetwork, "forward", lambda self, x: forward(self, x) * (1e-3 if self.bits == shrunk else 1))
    with pytest.warns(CollapseWarning, match="collapsed by step 60: all codes are near 0"):
        run = train(code_lengths=(8, shrunk), steps=60, warmup_steps=0, checkpoint_every=30)
    assert run.collapsed


def test_a_collapse_in_the_warm_up_is_reported_before_the_game(monkeypatch):
    collapsing(monkeypatch, 1e-3, 0.0)
    said = r"collapsed by step 60: all codes are near 0.*warmup_learning_rate=0\.0002"
    with pytest.warns(CollapseWarning, match=said) as caught:
        run = train(warmup_steps=60, steps=20, similarity="balanced")
    assert len([w for w in caught if w.category is CollapseWarning]) == 1
    assert "by step 60" in run.collapsed and run.history["step"][-1] == 20


def test_cures_that_are_taken_already_are_not_proposed():
    history = {"magnitude": [0.01] * 50, "spread": [0.001] * 50}
    with pytest.warns(CollapseWarning, match="Try a lower warmup_learning_rate or surrogate_learning_rate, or clean=1$"):
        training._notice_collapse(history, PPLConfig(), 1550)


def test_literal_similarity_with_ten_classes_collapses_for_real():
    data = toy(120, classes=10)
    settings = TINY | {"steps": 150, "warmup_steps": 0, "batch_size": 40, "similarity": "literal"}
    config = PPLConfig(surrogate_learning_rate=1e-2, generator_learning_rate=1e-4, affinity=10.0, **settings)
    with pytest.warns(CollapseWarning, match="similarity='balanced'"):
        run = train_ppl(data, config, progress=False)
    assert run.collapsed


def test_a_healthy_run_is_not_called_collapsed():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = train(warmup_steps=60, steps=60, batch_size=32)
    assert run.collapsed is None and min(run.history["spread"]) > 0.1


def test_fewer_than_fifty_steps_are_too_few_to_judge(monkeypatch):
    collapsing(monkeypatch, 1e-3, 0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert train(steps=49).collapsed is None
