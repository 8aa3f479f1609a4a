"""The ε explorer without a browser: controls change text and pictures, errors are visible, nothing is left behind."""

import gc
import re
import threading
import weakref
from xml.etree import ElementTree

import ipywidgets
import matplotlib.pyplot as plt
import pytest
import torch

from pplkit import picture, widgets
from pplkit.data import ImageSet, RetrievalSplit
from pplkit.explorer import SHAPES, EpsilonExplorer
from pplkit.scenarios import SCENARIOS, evaluate_scenarios
from pplkit.sweep import EpsilonSweep, Patterns

CLASSES = ("top", "shoe")


class TinyVictim:
    """Four bits: are the four quarters of the image brighter than a threshold?"""

    def __init__(self, threshold=128):
        self.threshold = threshold

    def encode(self, images):
        if images.shape[1] != 1:
            raise ValueError(f"this victim takes 1 channel, got {images.shape[1]}")
        quarters = torch.nn.functional.adaptive_avg_pool2d(images.float(), 2).flatten(1)  # (N, 4)
        return torch.where(quarters >= self.threshold, 1, -1).to(torch.int8)


def brighter(images):
    return torch.ones_like(images)


def image_set(size, channels=1, seed=0):
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2, (size,), generator=random)
    return ImageSet(torch.randint(0, 120, (size, channels, 8, 8), generator=random, dtype=torch.uint8), labels)


def make_split(channels=1):
    database = image_set(20, channels, 1)
    index = torch.arange(5)
    return RetrievalSplit("tiny", CLASSES, database.subset(index), image_set(6, channels), database, index, {})


VICTIMS = {("ADSH", "clean", 4): TinyVictim(), ("ADSH", "adversarial", 4): TinyVictim(200),
           ("DSDH", "clean", 4): TinyVictim(90)}


@pytest.fixture
def explorer():
    made = EpsilonExplorer(VICTIMS, brighter, make_split(), step=0.1, neighbours=3, ask=False)
    made.wait(20)
    yield made
    made.close()
    made.wait(20)


def attribute(svg, name):
    return ElementTree.fromstring(svg).get(name)


def test_slider_and_typed_entry_follow_each_other_and_change_everything(explorer):
    seen = set()
    for epsilon, text in ((0.1, "0.100 (26/255)"), (0.0, "0.000 (0/255)"), (1.0, "1.000 (255/255)")):
        explorer.slider.value = epsilon
        assert explorer.typed.value == epsilon and explorer.view.epsilon == epsilon
        assert explorer.label.value == text and explorer.message.value == ""
        assert explorer.summary.value == explorer.view.text
        assert attribute(explorer.picture.value, "data-epsilon") == f"{epsilon:.3f}"
        seen.add(explorer.picture.value)
    assert len(seen) == 3
    explorer.typed.value = 0.333
    assert explorer.slider.value == 0.3 and explorer.label.value == "0.333 (85/255)" and explorer.view.epsilon == 0.333


def test_the_numbers_are_those_of_the_package(explorer):
    split = make_split()
    assert explorer.chance == pytest.approx(float((split.query.labels[:, None] == split.database.labels).double().mean()))
    for choice in VICTIMS:
        explorer.domain.value, explorer.method.value = choice[1], choice[0]
        for epsilon in (0.3, 0.45):
            explorer.typed.value = epsilon
            explorer.wait(20)

            def protect(images, epsilon=epsilon):
                from pplkit.budget import protect
                return protect(images, brighter, epsilon)

            expected = evaluate_scenarios(VICTIMS[choice], split, protect)
            assert explorer.view.mean == {scenario: found.expected for scenario, found in expected.items()}
            assert attribute(explorer.picture.value, "data-state") == "exact"
            assert attribute(explorer.picture.value, "data-victim") == " ".join(map(str, choice))
            for scenario in SCENARIOS:
                assert f"mAP {expected[scenario].expected:.2f}" in explorer.picture.value


def test_the_slider_is_locked_until_a_prediction_which_then_stays_on_the_plot():
    explorer = EpsilonExplorer(TinyVictim(), brighter, make_split(), step=0.25, neighbours=3)
    assert explorer.slider.disabled and explorer.typed.disabled
    assert "Predict first" in explorer.chart.value and "mAP ?" in explorer.picture.value
    explorer.prediction.value = next(iter(SHAPES))
    assert not explorer.slider.disabled and not explorer.typed.disabled
    explorer.wait(20)
    assert 'class="prediction"' in explorer.chart.value and "Predict first" not in explorer.chart.value
    assert "mAP ?" not in explorer.picture.value
    explorer.slider.value = 0.5
    assert 'class="prediction"' in explorer.chart.value
    explorer.close()


def test_skip_unlocks_without_a_prediction():
    explorer = EpsilonExplorer(TinyVictim(), brighter, make_split(), step=0.5, neighbours=3)
    explorer.skip()
    assert not explorer.slider.disabled and 'class="prediction"' not in explorer.chart.value
    explorer.close()


def test_the_query_is_picked_by_class_next_random_and_number(explorer):
    labels = explorer.query.labels
    explorer.kind.value = "shoe"
    shoes = (labels == 1).nonzero()[:, 0].tolist()
    assert explorer.view.query == explorer.number.value == shoes[0]
    for expected in [*shoes[1:], shoes[0]]:  # and round again
        explorer.following.click()
        assert explorer.view.query == expected
    for _ in range(5):
        explorer.random.click()
        assert explorer.view.label == 1
    explorer.number.value = 2
    assert attribute(explorer.picture.value, "data-query") == "2"


def test_highlighting_fades_the_other_scenarios(explorer):
    assert explorer.picture.value.count('opacity="0.25"') == 0
    explorer.scenario.value = "A->C"
    assert explorer.picture.value.count('opacity="0.25"') == 3


def test_the_curve_has_all_points_and_the_bar_is_full(explorer):
    curve = explorer.sweep.curve
    assert all(list(points) == [round(k / 10, 4) for k in range(11)] for points in curve.values())
    assert explorer.progress.value == explorer.progress.max == 11 and explorer.progress.description == "curve done"
    assert attribute(explorer.chart.value, "data-points") == "11"


@pytest.mark.parametrize(("control", "value", "message"), [
    ("typed", 1.5, "epsilon must be a number from 0 to 1"),
    ("typed", -0.1, "epsilon must be a number from 0 to 1"),
    ("number", 6, "query 6 does not exist: this set has queries 0 to 5"),
    ("number", -1, "query -1 does not exist"),
])
def test_a_bad_entry_is_shown_and_the_next_good_one_clears_it(explorer, control, value, message):
    with pytest.raises((ValueError, IndexError), match=message.split(":")[0]):
        getattr(explorer, control).value = value
    assert message in explorer.message.value and "role='alert'" in explorer.message.value
    assert explorer.view is None and explorer.label.value == "" and "nothing to show" in repr(explorer)
    assert "data-epsilon" not in explorer.picture.value + explorer.chart.value
    assert "image/svg+xml" not in explorer._repr_mimebundle_()
    getattr(explorer, control).value = 0
    assert explorer.message.value == "" and explorer.view is not None


def test_a_combination_that_was_not_given_is_named(explorer):
    explorer.domain.value = "adversarial"
    with pytest.raises(ValueError, match="no victim DSDH adversarial 4 was given; there are: ADSH clean 4"):
        explorer.method.value = "DSDH"
    assert "no victim DSDH adversarial 4" in explorer.message.value


def test_an_error_in_the_background_is_shown():
    class Failing(TinyVictim):
        calls = 0

        def encode(self, images):
            self.calls += 1
            if self.calls > 4:
                raise RuntimeError("out of <memory>")
            return super().encode(images)

    explorer = EpsilonExplorer(Failing(), brighter, make_split(), step=0.5, neighbours=3, ask=False)
    explorer.wait(20)
    assert "RuntimeError: out of &lt;memory&gt;" in explorer.message.value
    explorer.close()


def test_a_class_without_a_query_is_named_and_the_next_choice_is_shown():
    explorer = EpsilonExplorer(TinyVictim(), brighter, make_split(), queries=1, curve=False, neighbours=3, ask=False)
    there = CLASSES[int(explorer.query.labels[0])]
    other, = set(CLASSES) - {there}
    with pytest.raises(ValueError, match=f"no query of class '{other}' among the 1 queries shown"):
        explorer.kind.value = other
    assert "no query of class" in explorer.message.value and explorer.view is None
    explorer.wait_for_view()
    assert explorer.view is None
    explorer.kind.value = there
    assert explorer.message.value == "" and explorer.view.query == 0
    explorer.close()


def test_an_error_of_a_victim_that_is_no_longer_shown_leaves_the_picture_alone():
    entered, go_on = threading.Event(), threading.Event()

    class Failing(TinyVictim):
        def encode(self, images):
            if threading.current_thread().name == "ppl-explorer":
                entered.set()
                assert go_on.wait(20)
                raise RuntimeError("too late")
            return super().encode(images)

    victims = {("ADSH", "clean", 4): Failing(), ("DSDH", "clean", 4): TinyVictim()}
    explorer = EpsilonExplorer(victims, brighter, make_split(), step=0.5, neighbours=3, ask=False)
    assert entered.wait(20)
    explorer.method.value = "DSDH"
    go_on.set()
    explorer.wait(20)
    assert explorer.message.value == "" and explorer.view is not None and explorer.progress.description == "curve done"
    explorer.close()


def test_an_error_while_the_view_is_completed_stays_on_show(explorer, monkeypatch):
    evaluate = EpsilonSweep.evaluate

    def fails_elsewhere(sweep, epsilon):
        explorer._fail(RuntimeError("in the thread"))
        return evaluate(sweep, epsilon)

    monkeypatch.setattr(EpsilonSweep, "evaluate", fails_elsewhere)
    explorer.wait_for_view()
    assert "in the thread" in explorer.message.value and explorer.view is None


def test_the_slider_starts_at_one_of_its_steps():
    explorer = EpsilonExplorer(TinyVictim(), brighter, make_split(), epsilon=8 / 255, step=0.02, curve=False, neighbours=3)
    assert explorer.slider.value == 0.04 and explorer.typed.value == 8 / 255 and explorer.label.value == "0.031 (8/255)"
    explorer.close()
    explorer = EpsilonExplorer(TinyVictim(), brighter, make_split(), epsilon=1.0, step=0.6, curve=False, neighbours=3)
    assert explorer.slider.value == 0.6  # 1.2 is none
    explorer.close()


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="1 channel, got 3"):
        EpsilonExplorer(TinyVictim(), brighter, make_split(channels=3))
    with pytest.raises(ValueError, match="0 <= |from 0 to 1"):
        EpsilonExplorer(TinyVictim(), brighter, make_split(), epsilon=1.2)
    with pytest.raises(ValueError, match="step must lie above 0"):
        EpsilonExplorer(TinyVictim(), brighter, make_split(), step=0)
    with pytest.raises(ValueError, match="query part has 6 images, 7"):
        EpsilonExplorer(TinyVictim(), brighter, make_split(), queries=7)
    with pytest.raises(ValueError, match="empty mapping"):
        EpsilonExplorer({}, brighter, make_split())


def test_two_hundred_moves_and_a_second_run_leave_nothing_behind():
    before = set(threading.enumerate())
    for _ in range(2):
        explorer = EpsilonExplorer(VICTIMS, brighter, make_split(), step=0.1, neighbours=3, ask=False)
    for move in range(200):
        explorer.slider.value = round(0.1 * (move % 11), 4)
        if move % 50 == 0:
            explorer.method.value = "DSDH" if explorer.method.value == "ADSH" else "ADSH"
    explorer.wait(20)
    assert set(threading.enumerate()) <= before and plt.get_fignums() == []
    explorer.close()


def test_a_closed_explorer_is_let_go_of_with_all_its_widgets():
    before = set(ipywidgets.widgets.widget._instances)
    explorer = EpsilonExplorer(TinyVictim(), brighter, make_split(), step=0.5, neighbours=3)
    explorer.wait(20)
    assert len(ipywidgets.widgets.widget._instances) > len(before) + 50
    gone = weakref.ref(explorer)
    explorer.close()
    assert not explorer._sweeps and not explorer._patterns._patterns  # Out[1] of a notebook may keep the explorer
    del explorer
    gc.collect()
    assert set(ipywidgets.widgets.widget._instances) == before and gone() is None


def test_a_second_explorer_of_another_name_leaves_the_first_alone():
    first = EpsilonExplorer(TinyVictim(), brighter, make_split(), step=0.5, neighbours=3, ask=False, name="one")
    second = EpsilonExplorer(TinyVictim(), brighter, make_split(), step=0.5, neighbours=3, ask=False, name="two")
    assert first.widget.comm is not None and second.widget.comm is not None
    third = EpsilonExplorer(TinyVictim(), brighter, make_split(), step=0.5, neighbours=3, ask=False, name="one")
    assert first._closed and not second._closed
    for each in (second, third):
        each.close()


def test_a_small_explorer_shows_what_it_is_asked_to_and_computes_no_more():
    explorer = EpsilonExplorer(TinyVictim(), brighter, make_split(), neighbours=3, scenarios=("C->C", "A->C"), curve=False,
                               ask=False, name="small")
    assert attribute(explorer.picture.value, "data-state") == "exact" and "mAP" not in explorer.picture.value
    assert explorer.chart.layout.display == explorer.method.layout.display == "none" and explorer._thread is None
    assert explorer.picture.value.count("<image") == 3 + 2 * 3
    bundle = explorer._repr_mimebundle_()
    assert "A→C" in bundle["image/svg+xml"] and "A→A" not in bundle["image/svg+xml"]
    explorer.slider.value = 0.5
    assert 0.5 not in explorer.sweep
    explorer.close()
    with pytest.raises(ValueError, match="unknown scenario 'B->C'"):
        EpsilonExplorer(TinyVictim(), brighter, make_split(), scenarios=["B->C"])


def test_what_a_notebook_shows(explorer):
    bundle = explorer._repr_mimebundle_()
    assert ElementTree.fromstring(bundle["image/svg+xml"]).tag.endswith("svg")
    assert bundle["text/plain"] == repr(explorer) and "application/vnd.jupyter.widget-view+json" in bundle
    assert widgets.EpsilonExplorer is EpsilonExplorer
    with pytest.raises(AttributeError, match="nothing_like_it"):
        widgets.nothing_like_it  # noqa: B018


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_are_valid_svg_with_as_many_images_as_they_should(channels):
    split = make_split(channels)

    class Colour:
        def encode(self, images):
            return torch.where(images.float().flatten(1)[:, :30] > 60, 1, -1).to(torch.int8)  # 30 bits: narrow cells

    sweep = EpsilonSweep(Colour(), Patterns(brighter, split.query, split.database))
    sweep.evaluate(0.2)
    view = sweep.look(0, 0.2, 4)
    used = []
    svg = picture.view_svg(view, classes=CLASSES, victim="a <b>", href=lambda image: used.append(image) or f"#{len(used)}")
    assert len(used) == 3 + 4 * 4 and svg.count("<image") == len(used)
    assert attribute(svg, "data-victim") == "a <b>"
    assert svg.count(">×</text>") == view.flipped
    assert picture.png_uri(view.clean).startswith("data:image/png;base64,")
    right = sum(int(view.relevant(s).sum()) for s in SCENARIOS)
    assert svg.count("✓</text>") == right + 4 and svg.count("✗</text>") == 16 - right  # "n of 4 ✓" ends each row


def test_the_amplified_change_says_its_factor():
    split = make_split()
    sweep = EpsilonSweep(TinyVictim(), Patterns(brighter, split.query, split.database))
    for epsilon, expected in ((0.1, 127 // 25), (1.0, 1), (0.0, 127)):
        image, factor = picture.amplified(sweep.look(0, epsilon, 3))
        assert factor == expected or epsilon == 1.0 and factor == 1
        assert epsilon > 0 or bool((image == 128).all())


def test_the_curve_marks_epsilon_at_its_place():
    curve = {scenario: {0.0: 0.8, 0.5: 0.4, 1.0: 0.1} for scenario in SCENARIOS}
    svg = picture.curve_svg(curve, 0.5, prediction=SHAPES["A: falls evenly"], chance=0.1)
    assert re.search(r'class="mark" d="M430\.0 14 V216"', svg) and "A→C" in svg
    assert svg.count("<circle") == 4 and "0.40" in svg
    assert "<circle" not in picture.curve_svg(curve, 0.3) and "<circle" not in picture.curve_svg(curve, 0.5, hidden="later")
    ElementTree.fromstring(picture.shapes_svg(SHAPES))
