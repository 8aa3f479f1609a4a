"""pplkit.budget: whatever proposes the pattern, the published uint8 image stays within ε."""

import doctest
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from pplkit import budget

RESOLUTION = 4e-7  # of float32 arithmetic, in pixel units: a ten-thousandth of a grey level
SHAPES = st.tuples(st.integers(1, 3), st.sampled_from([1, 3]), st.integers(1, 5), st.integers(1, 5))
EPSILONS = st.one_of(st.sampled_from([0.0, 0.032, 0.1, 0.3, 0.5, 1.0, 1 / 255, 8 / 255]), st.floats(0, 1))
NORMS = st.sampled_from(budget.NORMS)


def random_images(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def exact_norm(images: Tensor, protected: Tensor, norm: str) -> list[float]:
    """The norm in exact integers: max, root mean square or mean of the grey-level steps, over 255."""
    sizes = []
    for clean, changed in zip(images.flatten(1).tolist(), protected.flatten(1).tolist(), strict=True):
        steps = [abs(b - a) for a, b in zip(clean, changed, strict=True)]
        sizes.append(
            {
                "inf": max(steps),
                "1": sum(steps) / len(steps),
                "2": math.sqrt(sum(step * step for step in steps) / len(steps)),
            }[norm]
            / 255
        )
    return sizes


def wrong_generators(seed: int) -> dict[str, object]:
    """Generators that break every promise: size, sign, range, smoothness, dtype."""

    def noise(scale: float):
        return lambda x: scale * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))

    return {
        "thousands": lambda x: torch.full_like(x, 1000.0),
        "minus thousands": lambda x: torch.full_like(x, -1000.0),
        "infinite": lambda x: torch.where(x > 0.5, math.inf, -math.inf),
        "negative image": lambda x: 1 - 2 * x,
        "huge noise": noise(1e30),
        "noise": noise(1.0),
        "faint noise": noise(1e-3),
        "half precision": lambda x: noise(1.0)(x).half(),
        "one pixel": lambda x: torch.zeros_like(x).index_fill_(-1, torch.tensor([0]), 7.0),
        "nothing": torch.zeros_like,
    }


# ---- the budget holds


@given(SHAPES, EPSILONS, NORMS, st.integers(0, 2**32 - 1), st.sampled_from(sorted(wrong_generators(0))))
def test_protected_images_stay_within_the_budget(shape, epsilon, norm, seed, wrong):
    images = random_images(*shape, seed=seed)
    protected = budget.protect(images, wrong_generators(seed)[wrong], epsilon, norm)
    assert protected.dtype == torch.uint8 and protected.shape == images.shape
    assert max(exact_norm(images, protected, norm)) <= epsilon + RESOLUTION


@given(SHAPES, EPSILONS, NORMS, st.integers(0, 2**32 - 1), st.sampled_from([1e-3, 0.1, 1.0, 1000.0]))
def test_enforce_keeps_any_attack_within_the_budget(shape, epsilon, norm, seed, size):
    images = random_images(*shape, seed=seed)
    attack = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * size
    protected = budget.enforce(images, budget.to_float(images) + attack, epsilon, norm)
    assert max(exact_norm(images, protected, norm)) <= epsilon + RESOLUTION


@given(SHAPES, EPSILONS, NORMS, st.integers(0, 2**32 - 1), st.floats(0.01, 1000))
def test_a_perturbation_is_bounded_before_rounding_too(shape, epsilon, norm, seed, size):
    pattern = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * size
    flat = budget.perturbation(pattern, epsilon, norm).flatten(1)
    found = {"inf": flat.abs().amax(1), "2": flat.square().mean(1).sqrt(), "1": flat.abs().mean(1)}[norm]
    assert found.max() <= epsilon + 1e-12 and flat.abs().max() <= 1


@given(SHAPES, st.floats(0, 1), NORMS, st.integers(0, 2**32 - 1))
def test_the_plain_norm_obeys_the_bound_in_the_docstring(shape, epsilon, norm, seed):
    pattern = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 9
    flat = budget.perturbation(pattern, epsilon, norm).flatten(1)
    power = 0.0 if norm == "inf" else 1 / float(norm)
    assert torch.linalg.vector_norm(flat, float(norm), dim=1).max() <= epsilon * flat.shape[1] ** power + 1e-9


@pytest.mark.parametrize("sign", [1, -1])
def test_a_whole_budget_is_used_to_the_last_grey_level(sign):
    images = torch.arange(256, dtype=torch.uint8).view(256, 1, 1, 1)
    for level in range(256):
        protected = budget.protect(images, lambda x: torch.full_like(x, sign), level / 255)
        assert torch.equal(protected.int(), (images.int() + sign * level).clamp(0, 255)), level


@pytest.mark.parametrize("norm", budget.NORMS)
def test_without_a_budget_the_image_stays_as_it_is(norm):
    images = random_images(3, 3, 5, 4)
    assert torch.equal(budget.protect(images, lambda x: torch.full_like(x, 1000.0), 0, norm), images)
    assert torch.equal(budget.enforce(images, torch.rand(3, 3, 5, 4), 0.0, norm), images)


@given(SHAPES, st.integers(0, 2**32 - 1))
def test_rounding_goes_toward_the_clean_image(shape, seed):
    images = random_images(*shape, seed=seed)
    attacked = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    rounded = budget.quantise(images, attacked)
    change, kept = attacked.double() * 255 - images, rounded.double() - images
    assert (kept.abs() <= change.abs() + 1e-4).all() and (kept * change >= 0).all()
    assert ((change - kept).abs() < 1 + 1e-4).all()


def test_every_grey_level_survives_the_way_to_float_and_back():
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(budget.quantise(images.flip(-1), budget.to_float(images)), images)


# ---- what is computed


def test_perturbation_equals_explicit_loops():
    pattern = 2 * torch.randn(4, 3, 3, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for epsilon in (0.05, 0.3, 0.9):
        for norm in budget.NORMS:
            ours = budget.perturbation(pattern, epsilon, norm).flatten(1).tolist()
            for row, found in zip(pattern.flatten(1).tolist(), ours, strict=True):
                clamped = [min(max(value, -1.0), 1.0) for value in row]
                if norm == "inf":
                    factor = epsilon
                elif norm == "2":
                    factor = min(1.0, epsilon / math.sqrt(sum(value**2 for value in clamped) / len(row)))
                else:
                    factor = min(1.0, epsilon / (sum(abs(value) for value in clamped) / len(row)))
                assert found == pytest.approx([factor * value for value in clamped], abs=1e-14)


def test_a_pattern_within_the_ball_is_left_alone_for_norms_1_and_2():
    pattern = torch.full((1, 1, 2, 2), 0.1)
    for norm in ("1", "2"):
        assert torch.equal(budget.perturbation(pattern, 0.2, norm), pattern)


def test_adversarial_images_are_clipped_to_pixel_range():
    images = torch.tensor([0.0, 0.1, 0.5, 0.9, 1.0]).view(1, 1, 1, 5)
    up = budget.adversarial(images, torch.ones_like(images), 0.3).flatten()
    down = budget.adversarial(images, -torch.ones_like(images), 0.3).flatten()
    assert torch.allclose(up, torch.tensor([0.3, 0.4, 0.8, 1.0, 1.0]))
    assert torch.allclose(down, torch.tensor([0.0, 0.0, 0.2, 0.6, 0.7]))


@pytest.mark.parametrize("norm", budget.NORMS)
def test_perturbation_norm_is_the_documented_one(norm):
    images, protected = random_images(5, 3, 4, 4), random_images(5, 3, 4, 4, seed=1)
    sizes = budget.perturbation_norm(images, protected, norm)
    assert sizes.shape == (5,) and sizes.tolist() == pytest.approx(
        exact_norm(images, protected, norm), abs=1e-6
    )
    assert budget.perturbation_norm(images, images, norm).tolist() == [0.0] * 5


@pytest.mark.parametrize(("number", "name"), [(1, "1"), (2, "2"), (math.inf, "inf")])
def test_norms_may_be_given_as_numbers(number, name):
    pattern = torch.randn(2, 1, 3, 3)
    assert torch.equal(budget.perturbation(pattern, 0.1, number), budget.perturbation(pattern, 0.1, name))


def test_format_epsilon_and_its_doctest():
    assert [budget.format_epsilon(e) for e in (0, 0.032, 0.3, 1)] == [
        "0.000 (0/255)",
        "0.032 (8/255)",
        "0.300 (77/255)",
        "1.000 (255/255)",
    ]
    assert doctest.testmod(budget).failed == 0


# ---- gradients


@pytest.mark.parametrize("norm", budget.NORMS)
@pytest.mark.parametrize("epsilon", [0.05, 0.4])
def test_gradients_of_perturbation_and_adversarial(norm, epsilon):
    random = torch.Generator().manual_seed(3)
    images = torch.rand(2, 1, 3, 3, generator=random, dtype=torch.float64).requires_grad_()
    pattern = torch.randn(2, 1, 3, 3, generator=random, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: budget.perturbation(p, epsilon, norm), pattern)
    assert torch.autograd.gradcheck(lambda x, p: budget.adversarial(x, p, epsilon, norm), (images, pattern))


@pytest.mark.parametrize("norm", budget.NORMS)
@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_the_zero_pattern_has_a_finite_gradient(norm, epsilon):
    pattern = torch.zeros(2, 1, 3, 3, requires_grad=True)
    budget.perturbation(pattern, epsilon, norm).sum().backward()
    assert torch.isfinite(pattern.grad).all()


# ---- protect as a service


def test_protect_works_in_batches_of_any_size():
    images = random_images(7, 1, 4, 4)
    whole = budget.protect(images, lambda x: torch.sin(40 * x), 0.2)
    for batch_size in (1, 3, 7, 100):
        assert torch.equal(
            budget.protect(images, lambda x: torch.sin(40 * x), 0.2, batch_size=batch_size), whole
        )


@pytest.mark.parametrize("batch_size", [0, -1, 2.5])
def test_an_impossible_batch_size_is_refused(batch_size):
    with pytest.raises(ValueError, match=f"batch_size must be a whole number of at least 1, got {batch_size}"):
        budget.protect(random_images(2, 1, 4, 4), torch.sin, 0.1, batch_size=batch_size)


class Moody(nn.Module):
    """Pattern +1 in eval mode, −1 in training mode."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.full_like(images, -1.0 if self.training else 1.0)


def test_protected_images_can_lie_in_a_file(tmp_path, monkeypatch):
    images = random_images(7, 1, 4, 4)
    made, scratch = [], budget.storage.scratch
    monkeypatch.setattr(budget.storage, "scratch", lambda *given: made.append(given) or scratch(*given))
    with_file = budget.protect(images, torch.sin, 0.1, cache=tmp_path, batch_size=3)
    assert made == [((7, 1, 4, 4), tmp_path)] and torch.equal(with_file, budget.protect(images, torch.sin, 0.1))


@pytest.mark.parametrize("training", [True, False])
def test_protect_evaluates_a_module_and_gives_its_mode_back(training):
    images, generator = torch.full((2, 1, 2, 2), 100, dtype=torch.uint8), Moody().train(training)
    assert budget.protect(images, generator, 10 / 255).unique().tolist() == [110]
    assert generator.training is training


def test_protect_gives_the_mode_back_after_an_error():
    generator = Moody().train()
    generator.forward = lambda x: x[:, :, :1]
    with pytest.raises(ValueError, match="shape"):
        budget.protect(random_images(2, 1, 4, 4), generator, 0.1)
    assert generator.training


def test_protect_leaves_images_and_gradient_mode_alone():
    images, weight = random_images(2, 1, 4, 4), torch.ones(1, requires_grad=True)
    before = images.clone()
    protected = budget.protect(images, lambda x: weight * x, 0.3)
    assert torch.equal(images, before) and not protected.requires_grad and torch.is_grad_enabled()


# ---- bad input


@pytest.mark.parametrize("epsilon", [-0.1, 1.001, 8, math.nan, math.inf, "0.1", None, True])
def test_epsilon_outside_0_to_1_is_refused(epsilon):
    images, pattern = random_images(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
    for call in (
        lambda: budget.protect(images, torch.zeros_like, epsilon),
        lambda: budget.format_epsilon(epsilon),
        lambda: budget.perturbation(pattern, epsilon),
        lambda: budget.enforce(images, pattern, epsilon),
    ):
        with pytest.raises(ValueError, match="epsilon must be a number from 0 to 1 .*, got") as error:
            call()
        assert repr(epsilon) in str(error.value)


@pytest.mark.parametrize("norm", ["l2", "0", 3, None])
def test_unknown_norms_are_refused(norm):
    images = random_images(1, 1, 2, 2)
    for call in (
        lambda: budget.protect(images, torch.zeros_like, 0.1, norm),
        lambda: budget.perturbation(torch.zeros(1, 1, 2, 2), 0.1, norm),
        lambda: budget.perturbation_norm(images, images, norm),
    ):
        with pytest.raises(ValueError, match="norm must be one of 'inf', '2', '1', got") as error:
            call()
        assert repr(norm) in str(error.value)


@pytest.mark.parametrize(
    ("images", "found"),
    [
        (torch.zeros(2, 1, 4, 4), r"torch.float32 \(2, 1, 4, 4\)"),
        (torch.zeros(2, 4, 4, dtype=torch.uint8), r"torch.uint8 \(2, 4, 4\)"),
        ([[1, 2]], "list"),
    ],
)
def test_images_other_than_uint8_nchw_are_refused(images, found):
    for call in (
        lambda: budget.protect(images, torch.zeros_like, 0.1),
        lambda: budget.enforce(images, images, 0.1),
        lambda: budget.perturbation_norm(images, images),
    ):
        with pytest.raises(ValueError, match=rf"uint8 tensor of shape \(N, C, H, W\), got {found}"):
            call()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("norm", budget.NORMS)
def test_an_attack_that_diverged_is_refused(bad, norm):
    images = random_images(2, 1, 2, 2)
    attacked = budget.to_float(images)
    attacked[1, 0, 1, 1] = bad
    with pytest.raises(ValueError, match="NaN or infinity: the generator or attack diverged"):
        budget.enforce(images, attacked, 0.1, norm)


@pytest.mark.parametrize("norm", budget.NORMS)
def test_a_generator_that_returns_nan_is_refused(norm):
    with pytest.raises(ValueError, match="NaN or infinity"):
        budget.protect(random_images(2, 1, 2, 2), lambda x: x * math.nan, 0.1, norm)


def test_shapes_must_agree():
    images = random_images(2, 1, 4, 4)
    with pytest.raises(ValueError, match=r"returned shape \(2, 1, 4, 3\) for images of shape \(2, 1, 4, 4\)"):
        budget.protect(images, lambda x: x[..., :3], 0.1)
    with pytest.raises(ValueError, match=r"shape \(2, 1, 4, 3\), clean ones \(2, 1, 4, 4\)"):
        budget.enforce(images, torch.zeros(2, 1, 4, 3), 0.1)
    with pytest.raises(ValueError, match=r"shape \(2, 1, 4, 4\), protected ones \(1, 1, 4, 4\)"):
        budget.perturbation_norm(images, images[:1])
