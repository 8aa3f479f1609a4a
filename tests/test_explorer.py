"""The ε slider without a browser: controls change text and picture, errors are visible, no figure is kept."""

import base64
import gc

import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pplkit import budget
from pplkit.data import ImageSet
from pplkit.explorer import EpsilonSlider

PNG = b"\x89PNG\r\n\x1a\n"
CLASSES = ("top", "shoe")


class TinyVictim:
    """Four bits: are the four quarters of the image brighter than middle grey? Counts how many images it encoded."""

    def __init__(self):
        self.encoded = 0

    def encode(self, images):
        self.encoded += len(images)
        quarters = torch.nn.functional.adaptive_avg_pool2d(images.float().mean(1, keepdim=True), 2).flatten(1)  # (N, 4)
        return torch.where(quarters >= 128, 1, -1).to(torch.int8)


def brighter(images):
    return torch.ones_like(images)


def image_set(size, channels=1, seed=0):
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2, (size,), generator=random)
    images = torch.randint(0, 120, (size, channels, 8, 8), generator=random, dtype=torch.uint8)
    return ImageSet(images, labels)


def make(channels=1, **options):
    settings = {"classes": CLASSES, "neighbours": 3, "dpi": 20, **options}
    return EpsilonSlider(options.pop("generator", brighter), settings.pop("victim", TinyVictim()), image_set(4, channels),
                         image_set(20, channels, 1), **{k: v for k, v in settings.items() if k != "generator"})


def test_the_slider_changes_text_and_picture():
    explorer = make()
    assert explorer.label.value == "0.300 (77/255)" and bytes(explorer.picture.value).startswith(PNG)
    seen = {bytes(explorer.picture.value)}
    for epsilon, text in ((0.1, "0.100 (26/255)"), (0.0, "0.000 (0/255)"), (1.0, "1.000 (255/255)")):
        explorer.slider.value = epsilon
        assert explorer.label.value == text and explorer.view.epsilon == epsilon
        assert explorer.summary.value == explorer.view.text and explorer.message.value == ""
        seen.add(bytes(explorer.picture.value))
    assert len(seen) == 4


def test_the_picker_changes_the_query():
    explorer = make()
    before = explorer.picture.value
    explorer.picker.value = 2
    assert explorer.view.query == 2 and explorer.picture.value != before
    assert [text for text, _ in explorer.picker.options] == [f"{k}: {CLASSES[label]}" for k, label in
                                                             enumerate(explorer.queries.labels.tolist())]


def test_the_view_says_what_protection_does():
    explorer = make(epsilon=0.0)
    view = explorer.view
    assert view.flipped == 0 and view.ssim == 1 and view.psnr == float("inf")
    assert torch.equal(view.top[0], view.top[1]) and torch.equal(view.clean, view.protected)
    view = explorer.look(0.6, query=1)
    assert torch.equal(view.protected[None], budget.protect(explorer.queries.images[1:2], brighter, 0.6))
    assert view.flipped == 4 and (view.codes[1] == 1).all() and f"{view.flipped} of 4 bits flipped" in view.text
    label = explorer.queries.labels[1]
    assert torch.equal(view.relevant, explorer.database.labels[view.top] == label)
    assert explorer.slider.value == 0.0, "looking must not move the slider"


def test_the_database_is_encoded_once():
    victim = TinyVictim()
    explorer = make(victim=victim)
    before = victim.encoded
    explorer.slider.value = 0.5
    assert victim.encoded == before + 2


def test_a_failing_callback_is_visible_and_raises():
    broken = {"now": False}

    def generator(images):
        if broken["now"]:
            raise RuntimeError("out <of> memory")
        return torch.ones_like(images)

    explorer = make(generator=generator)
    broken["now"] = True
    with pytest.raises(RuntimeError, match="out <of> memory"):
        explorer.slider.value = 0.2
    assert "RuntimeError: out &lt;of&gt; memory" in explorer.message.value
    assert explorer.picture.layout.display == "none" and explorer.summary.value == "" and explorer.view is None
    assert "image/png" not in explorer._repr_mimebundle_() and "nothing to show" in repr(explorer)
    broken["now"] = False
    explorer.slider.value = 0.4
    assert explorer.message.value == "" and explorer.picture.layout.display is None
    assert explorer.label.value == "0.400 (102/255)"


def test_two_hundred_moves_keep_no_figure(monkeypatch):
    explorer = make(neighbours=1)
    plt.close("all")
    # figures are made but not drawn, which takes half the time
    monkeypatch.setattr(FigureCanvasAgg, "print_png", lambda canvas, file: file.write(PNG))
    for move in range(200):
        explorer.slider.value = move % 100 / 100
    assert bytes(explorer.picture.value) == PNG
    gc.collect()
    assert plt.get_fignums() == []
    assert sum(type(thing) is Figure for thing in gc.get_objects()) <= 1


def test_the_curve_appears_when_it_is_assigned():
    explorer = make()
    without = explorer.picture.value
    explorer.curve = {"A->C": {0.0: 0.8, 0.5: 0.3, 1.0: 0.1}}
    assert explorer.picture.value != without
    with_mark_at_03 = explorer.picture.value
    explorer.slider.value = 0.9
    assert explorer.picture.value != with_mark_at_03
    explorer.slider.value = 0.3
    explorer.curve = None
    assert explorer.picture.value == without


def test_a_notebook_shows_widget_picture_and_text():
    explorer = make()
    bundle = explorer._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert base64.b64decode(bundle["image/png"]) == explorer.picture.value
    assert bundle["text/plain"] == repr(explorer) and "0.300 (77/255)" in repr(explorer)


def test_slider_waits_for_the_release_and_colour_images_work():
    explorer = make(channels=3, norm="2")
    assert explorer.slider.continuous_update is False
    assert bytes(explorer.picture.value).startswith(PNG)


def test_labels_without_names():
    queries = image_set(3)
    explorer = EpsilonSlider(brighter, TinyVictim(), queries, image_set(9, seed=1), neighbours=2, dpi=20)
    assert explorer.picker.options[2] == (f"2: {queries.labels[2]}", 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilon": 1.2}, "epsilon must be a number from 0 to 1"),
        ({"maximum": 2.0}, "maximum=2.0"),
        ({"step": 0.0}, "step=0.0"),
        ({"epsilon": 0.5, "maximum": 0.4}, "epsilon=0.5"),
        ({"neighbours": 21}, "k is 21"),
        ({"norm": "3"}, "norm must be one of"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)
