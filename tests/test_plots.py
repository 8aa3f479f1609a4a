"""Figures: labels, number of artists, marks that do not need colour, no change of global state."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.colors import to_hex

from pplkit import plots
from pplkit.retrieval import mean_average_precision

RANDOM = torch.Generator().manual_seed(0)
GREY = torch.randint(0, 256, (6, 1, 8, 6), dtype=torch.uint8, generator=RANDOM)
COLOUR = torch.randint(0, 256, (3, 3, 5, 5), dtype=torch.uint8, generator=RANDOM)
TOP = torch.tensor([3, 0, 5])
RELEVANT = torch.tensor([True, False, True])
SCENARIOS = {"C->C": 0.7, "C->A": 0.2, "A->C": 0.25, "A->A": 0.3}


@pytest.fixture(autouse=True)
def clean_state():
    """Every function leaves matplotlib's settings alone, inside the style and without it."""
    with mpl.rc_context():
        plots.use_style()
        before = dict(mpl.rcParams)
        yield
        assert dict(mpl.rcParams) == before
    plt.close("all")


def draw(figure) -> None:
    """Render, which is where a broken layout or a missing glyph shows."""
    figure.canvas.draw()


def pictures(figure) -> int:
    return sum(len(ax.images) for ax in figure.axes)


def titles(figure) -> list[str]:
    return [ax.get_title() for ax in figure.axes if ax.get_title()]


def test_style_sets_palette_grid_and_layout():
    colours = [entry["color"] for entry in mpl.rcParams["axes.prop_cycle"]]
    assert colours == list(plots.PALETTE) and len(set(colours)) == 8
    assert len({str(entry["linestyle"]) for entry in mpl.rcParams["axes.prop_cycle"]}) == 8
    assert mpl.rcParams["axes.grid"] and mpl.rcParams["figure.constrained_layout.use"]
    assert mpl.rcParams["font.size"] >= 12


@pytest.mark.filterwarnings("error")
def test_images():
    figure = plots.images(GREY, titles=list("abcdef"), columns=4)
    draw(figure)
    assert len(figure.axes) == 8 and pictures(figure) == 6
    assert titles(figure) == list("abcdef")
    assert not figure.axes[7].axison
    shown = figure.axes[0].images[0]
    assert shown.get_clim() == (0, 255) and shown.get_cmap().name == "gray"
    assert torch.equal(torch.as_tensor(shown.get_array().data), GREY[0, 0])


def test_images_in_colour():
    figure = plots.images(COLOUR)
    assert len(figure.axes) == 3
    assert torch.equal(torch.as_tensor(figure.axes[1].images[0].get_array().data), COLOUR[1].permute(1, 2, 0))


@pytest.mark.filterwarnings("error")
def test_gallery_marks_relevance_by_frame_and_sign():
    figure = plots.gallery(GREY[0], GREY, TOP, RELEVANT, title="search")
    draw(figure)
    assert titles(figure) == ["query", "1 ✓", "2 ✗", "3 ✓"]
    assert figure.axes[0].get_ylabel() == "search"
    spines = [ax.spines["left"] for ax in figure.axes[1:]]
    assert [spine.get_linestyle() for spine in spines] == ["-", "--", "-"]
    assert to_hex(spines[0].get_edgecolor()) != to_hex(spines[1].get_edgecolor())
    for ax, index in zip(figure.axes[1:], TOP, strict=True):
        assert torch.equal(torch.as_tensor(ax.images[0].get_array().data), GREY[index, 0])


def test_gallery_shows_ten_of_more_results():
    top = torch.arange(6).repeat(3)
    figure = plots.gallery(GREY[0], GREY, top, torch.ones(18, dtype=torch.bool))
    assert titles(figure)[-1] == "10 ✓"


@pytest.mark.filterwarnings("error")
def test_galleries_stack_scenarios():
    rows = {
        name: (GREY[0], GREY, TOP[: 3 - (name == "A->A")], RELEVANT[: 3 - (name == "A->A")])
        for name in SCENARIOS
    }
    figure = plots.galleries(rows, title="What the searcher sees")
    draw(figure)
    assert len(figure.axes) == 16 and pictures(figure) == 15
    assert [ax.get_ylabel() for ax in figure.axes if ax.get_ylabel()] == list(SCENARIOS)
    assert figure.get_suptitle() == "What the searcher sees"


@pytest.mark.filterwarnings("error")
def test_scenario_bars():
    ax = plots.scenario_bars(SCENARIOS, title="ADSH")
    draw(ax.figure)
    assert [bar.get_height() for bar in ax.patches] == list(SCENARIOS.values())
    assert [text.get_text() for text in ax.texts] == ["0.70", "0.20", "0.25", "0.30"]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == list(SCENARIOS)
    assert (ax.get_ylabel(), ax.get_xlabel(), ax.get_title()) == ("mAP", "scenario, query->database", "ADSH")
    assert ax.get_legend() is None and not ax.lines


def test_scenario_bars_with_paper_and_intervals():
    ax = plt.subplots()[1]
    paper = {"C->C": 0.9, "A->A": 0.32}
    intervals = {name: (value - 0.05, value + 0.05) for name, value in SCENARIOS.items()}
    assert plots.scenario_bars(SCENARIOS, paper, intervals, ax=ax) is ax
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["paper", "ours"]
    *bars, diamonds = ax.lines
    assert [tuple(line.get_ydata()) for line in bars] == list(intervals.values())
    assert list(diamonds.get_ydata()) == [0.9, 0.32]


def test_scenario_bars_take_results_of_mean_average_precision():
    codes = torch.tensor([[1, 1], [1, -1]])
    result = mean_average_precision(codes, torch.tensor([0, 1]), codes, torch.tensor([0, 1]))
    ax = plots.scenario_bars({"C->C": result}, intervals={"C->C": result.interval()})
    assert ax.patches[0].get_height() == result.expected == 1


@pytest.mark.filterwarnings("error")
def test_bits_mark_what_flipped():
    codes = torch.tensor([[1, -1, 1, 1], [1, 1, -1, 1]], dtype=torch.int8)
    ax = plots.bits(codes, ["clean", "protected"], reference=codes[0])
    draw(ax.figure)
    (crosses,) = ax.lines
    assert list(zip(crosses.get_ydata(), crosses.get_xdata(), strict=True)) == [(1, 1), (1, 2)]
    assert "".join(text.get_text() for text in ax.texts) == "+−++++−+"
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["clean", "protected"]
    assert ax.get_xlabel() == "bit" and ax.yaxis_inverted()


def test_bits_without_reference_and_with_many_bits():
    ax = plots.bits(torch.ones(10, 64))
    assert not ax.lines and not ax.texts and len(ax.get_xticks()) == 16


@pytest.mark.filterwarnings("error")
def test_curves():
    history = {"step": [1, 2, 3, 4], "loss": [4.0, 2.0, 2.0, 0.0], "warmup": [1.0, 0.5]}
    ax = plots.curves(history, ["loss", "warmup"], title="training")
    draw(ax.figure)
    loss, warmup = ax.lines
    assert list(loss.get_xdata()) == [1, 2, 3, 4] and list(warmup.get_xdata()) == [1, 2]
    assert loss.get_color() != warmup.get_color() and loss.get_linestyle() != warmup.get_linestyle()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["loss", "warmup"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("step", "loss")


def test_curves_smooth_over_the_steps_seen_so_far():
    ax = plots.curves({"step": [10, 20, 30, 40], "loss": [4.0, 2.0, 2.0, 0.0]}, ["loss"], smooth=2)
    assert ax.lines[0].get_xydata().tolist() == [[20, 3], [30, 2], [40, 1]]
    assert ax.get_legend() is None


@pytest.mark.filterwarnings("error")
def test_pairs_state_the_amplification():
    clean = torch.full((2, 1, 4, 4), 100, dtype=torch.uint8)
    adversarial = clean.clone()
    adversarial[0, 0, 0, 0] = 110
    adversarial[1, 0, 0, 0] = 80
    figure = plots.pairs(clean, adversarial, amplify=3)
    draw(figure)
    assert [ax.get_ylabel() for ax in figure.axes[::2]] == [
        "clean",
        "change × 3\n(largest 20/255)",
        "protected",
    ]
    change = figure.axes[2].images[0].get_array()
    assert (change[0, 0], change[1, 1]) == (158, 128)
    assert figure.axes[3].images[0].get_array()[0, 0] == 68
    assert figure.axes[5].images[0].get_array()[0, 0] == 80


def test_pairs_choose_an_amplification_that_clips_nothing():
    clean = torch.full((1, 3, 4, 4), 100, dtype=torch.uint8)
    assert "change × 12\n" in plots.pairs(clean, clean + 10).axes[1].get_ylabel()
    assert "change × 1\n" in plots.pairs(clean, clean + 140).axes[1].get_ylabel()
    assert "(largest 0/255)" in plots.pairs(clean, clean).axes[1].get_ylabel()


CODES = torch.ones(2, 4)


@pytest.mark.parametrize(
    ("function", "arguments", "words"),
    [
        (plots.images, (GREY.float(),), "images are torch.float32 .*uint8"),
        (plots.images, (GREY[0],), r"images are torch.uint8 \(1, 8, 6\)"),
        (plots.images, (GREY[:0],), "N > 0"),
        (plots.images, (GREY.numpy(),), "images are ndarray"),
        (plots.images, (GREY.repeat(1, 2, 1, 1),), "2 channels"),
        (plots.images, (GREY, ["a"]), "1 titles for 6 images"),
        (plots.gallery, (GREY[0], GREY, TOP, RELEVANT[:2]), "length 2 for 3 results"),
        (plots.gallery, (GREY[0], GREY, TOP, RELEVANT.long()), "torch.int64"),
        (plots.galleries, ({},), "rows is empty"),
        (plots.scenario_bars, ({},), "results is empty"),
        (plots.scenario_bars, (SCENARIOS, {"A->B": 1.0}), "paper has 'A->B'"),
        (plots.scenario_bars, (SCENARIOS, None, {"A->B": (0, 1)}), "intervals has 'A->B'"),
        (plots.bits, (torch.zeros(2, 4),), "-1 and \\+1"),
        (plots.bits, (torch.ones(4),), r"codes are \(4,\)"),
        (plots.bits, (CODES, ["a"]), "1 labels for 2 codes"),
        (plots.curves, ({"loss": [1.0]}, ["los"]), "no series 'los'; it has loss"),
        (plots.pairs, (GREY, GREY[:2]), "same shape"),
    ],
)
def test_bad_input_is_quoted(function, arguments, words):
    with pytest.raises(ValueError, match=words):
        function(*arguments)


@pytest.mark.parametrize(
    ("function", "arguments", "options", "words"),
    [
        (plots.images, (GREY,), {"columns": 0}, "columns is 0"),
        (plots.bits, (CODES,), {"reference": torch.ones(3)}, r"reference is \(3,\)"),
        (plots.curves, ({"loss": [1.0]}, ["loss"]), {"smooth": 0}, "smooth is 0"),
        (plots.pairs, (GREY, GREY), {"amplify": 0}, "amplify is 0"),
    ],
)
def test_bad_options_are_quoted(function, arguments, options, words):
    with pytest.raises(ValueError, match=words):
        function(*arguments, **options)
