"""The course's figures: one style, and the figures that more than one notebook shows.

Pyplot is imported here and nowhere else in the package. Every function draws on a given Axes or makes its
own Figure, returns it, and changes no global setting; only `use_style` does, which a notebook calls once.
Nothing is told by colour alone: results are framed and marked ✓ or ✗, bars carry their values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

if TYPE_CHECKING:
    from pplkit.retrieval import MeanAveragePrecision

# Okabe & Ito, "Color universal design", 2008: eight colours that colour-blind readers can tell apart.
BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, YELLOW, BLACK = "#CC79A7", "#56B4E9", "#F0E442", "#000000"
PALETTE = (BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, BLACK, YELLOW)
STYLES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (8, 3)))
RELEVANT, IRRELEVANT = (GREEN, "✓", "-"), (VERMILION, "✗", "--")  # frame colour, mark, frame style


def use_style() -> None:
    """Set the course's matplotlib style for the whole session: palette, sizes, layout, light grid.

    Lines differ in colour and in dash pattern. Sizes are meant for figures about 7 inches wide that stay
    readable when a page shows them at half that.
    """
    plt.rcParams.update(
        {
            "axes.prop_cycle": plt.cycler(color=PALETTE, linestyle=STYLES),
            "figure.figsize": (7.0, 3.6),
            "figure.dpi": 90,
            "figure.constrained_layout.use": True,
            "font.size": 12,
            "axes.titlesize": 13,
            "axes.labelsize": 12,
            "xtick.labelsize": 11,
            "ytick.labelsize": 11,
            "legend.fontsize": 11,
            "legend.frameon": False,
            "lines.linewidth": 2.0,
            "lines.markersize": 7,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": "#DDDDDD",
            "grid.linewidth": 0.8,
            "axes.spines.top": False,
            "axes.spines.right": False,
        }
    )


def images(
    images: Tensor, titles: Sequence[str] | None = None, *, columns: int = 8, size: float = 1.0
) -> Figure:
    """A grid of images.

    Args:
        images: uint8 (N, C, H, W), C = 1 or 3, N at least 1.
        titles: N texts shown above the images; None for none.
        columns: images per row, at least 1.
        size: width of one image in inches.

    Returns:
        Figure.

    Raises:
        ValueError: if the images are not uint8 (N, C, H, W) or the number of titles is not N.
    """
    _check_images(images)
    if titles is not None and len(titles) != len(images):
        raise ValueError(f"{len(titles)} titles for {len(images)} images; one each is needed")
    if columns < 1:
        raise ValueError(f"columns is {columns}; at least 1 is needed")
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    height = size * images.shape[2] / images.shape[3] + (0.3 if titles is not None else 0.05)
    figure, axes = _grid(rows, columns, (columns * size, rows * height))
    for number, ax in enumerate(axes.flat):
        if number < len(images):
            _picture(ax, images[number], None if titles is None else titles[number])
        else:
            ax.set_axis_off()
    return figure


def gallery(
    query_image: Tensor,
    database_images: Tensor,
    top_index: Tensor,
    relevant: Tensor,
    title: str | None = None,
) -> Figure:
    """A query and its first search results: relevant ones framed solid with ✓, others dashed with ✗.

    Args:
        query_image: uint8 (C, H, W).
        database_images: uint8 (N, C, H, W), the whole database that was searched.
        top_index: int64 (K,), positions of the results in the database, best first; the first 10 are shown.
        relevant: bool (K,), whether each result is relevant to the query.
        title: shown above the row; None for none.

    Returns:
        Figure.

    Raises:
        ValueError: for images of another form, or index and relevance of different length.
    """
    return galleries({title or "": (query_image, database_images, top_index, relevant)})


def galleries(rows: Mapping[str, tuple[Tensor, Tensor, Tensor, Tensor]], title: str | None = None) -> Figure:
    """Several galleries, one above the other, for example what a searcher sees in the four scenarios.

    Args:
        rows: {name: (query_image, database_images, top_index, relevant)}, each as in `gallery`.
        title: shown above all; None for none.

    Returns:
        Figure.

    Raises:
        ValueError: as `gallery`, or for no rows.
    """
    if not rows:
        raise ValueError("rows is empty; at least one gallery is needed")
    shown = max(min(10, len(top_index)) for _, _, top_index, _ in rows.values())
    figure, axes = _grid(
        len(rows), shown + 1, (0.75 * (shown + 1) + 0.9, 1.05 * len(rows) + (0.35 if title else 0))
    )
    for line, (name, (query, database, top_index, relevant)) in zip(axes, rows.items(), strict=True):
        _check_images(query[None])
        _check_images(database)
        if len(top_index) != len(relevant) or relevant.dtype != torch.bool:
            raise ValueError(
                f"relevant is {relevant.dtype} of length {len(relevant)} for {len(top_index)} results; "
                "one bool each is needed"
            )
        _picture(line[0], query, "query")
        if name:
            line[0].set_ylabel(name, rotation=0, ha="right", va="center")
        for place, ax in enumerate(line[1:]):
            if place >= len(top_index):
                ax.set_axis_off()
                continue
            colour, mark, style = RELEVANT if bool(relevant[place]) else IRRELEVANT
            _picture(ax, database[int(top_index[place])], f"{place + 1} {mark}")
            ax.title.set_color(colour)
            for spine in ax.spines.values():
                spine.set(visible=True, color=colour, linewidth=2.5, linestyle=style)
    if title:
        figure.suptitle(title)
    return figure


def scenario_bars(
    results: Mapping[str, MeanAveragePrecision | float],
    paper: Mapping[str, float] | None = None,
    intervals: Mapping[str, tuple[float, float]] | None = None,
    *,
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """mAP of the scenarios as bars that carry their value, with error bars and the paper's figures if given.

    Args:
        results: {scenario: result of `mean_average_precision`, or its expected mAP in [0, 1]}.
        paper: {scenario: the paper's mAP in [0, 1]}, drawn as diamonds; None for none.
        intervals: {scenario: (low, high)} as from `MeanAveragePrecision.interval`; None for no error bars.
        ax: where to draw; a new figure if None.
        title: title of the axes; None for none.

    Returns:
        Axes.

    Raises:
        ValueError: if results is empty, or paper or intervals name a scenario that results lacks.
    """
    if not results:
        raise ValueError("results is empty; at least one scenario is needed")
    for name, given in (("paper", paper), ("intervals", intervals)):
        unknown = sorted(set(given or {}) - set(results))
        if unknown:
            raise ValueError(f"{name} has {unknown[0]!r}, which results lacks; it has {', '.join(results)}")
    ax = _axes(ax)
    heights = [value if isinstance(value, (int, float)) else value.expected for value in results.values()]
    places = {scenario: place for place, scenario in enumerate(results)}
    aside = 0.12 if paper else 0.0  # bars make room for the diamonds at their right
    ax.bar([place - aside for place in range(len(heights))], heights, width=0.5, color=BLUE, label="ours")
    tops = list(heights)
    if intervals:
        for scenario, (low, high) in intervals.items():
            place = places[scenario]
            tops[place] = max(tops[place], high)
            x = place - aside
            ax.plot([x, x], [low, high], "-", color=BLACK, linewidth=1.5, marker="_", markersize=9)
    if paper:
        x = [places[scenario] + 0.28 for scenario in paper]
        ax.plot(
            x, list(paper.values()), "D", color=ORANGE, markeredgecolor=BLACK, linestyle="none", label="paper"
        )
        ax.legend(loc="upper right", ncols=2)
    for place, (height, top) in enumerate(zip(heights, tops, strict=True)):
        ax.text(place - aside, top + 0.02, f"{height:.2f}", ha="center", va="bottom")
    ax.set(xticks=range(len(heights)), xticklabels=list(results), xlabel="scenario, query->database")
    ax.set(ylabel="mAP", ylim=(0, 1.25), yticks=[0, 0.25, 0.5, 0.75, 1], title=title or "")
    ax.grid(axis="x", visible=False)
    return ax


def bits(
    codes: Tensor,
    labels: Sequence[str] | None = None,
    *,
    reference: Tensor | None = None,
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """Binary codes as strips, + dark and - light, with a cross on every bit that differs from the reference.

    Args:
        codes: (R, c) in {-1, +1}, one strip per row.
        labels: R texts at the strips; None for none.
        reference: (c,) or (R, c) in {-1, +1}, e.g. the codes of the clean images; None marks nothing.
        ax: where to draw; a new figure if None.
        title: title of the axes; None for none.

    Returns:
        Axes.

    Raises:
        ValueError: for codes that are not (R, c) in {-1, +1}, or labels or a reference that do not fit.
    """
    codes = torch.as_tensor(codes)
    if codes.ndim != 2 or not bool((codes.abs() == 1).all()):
        raise ValueError(f"codes are {tuple(codes.shape)}; (R, c) of -1 and +1 is needed, e.g. u.sign()")
    rows, length = codes.shape
    if labels is not None and len(labels) != rows:
        raise ValueError(f"{len(labels)} labels for {rows} codes; one each is needed")
    if reference is not None and tuple(reference.shape) not in ((length,), (rows, length)):
        raise ValueError(
            f"reference is {tuple(reference.shape)}; ({length},) or ({rows}, {length}) is needed"
        )
    if ax is None:
        _, ax = plt.subplots(figsize=(min(9.0, 0.36 * length + 1.8), 0.42 * rows + 0.9), layout="constrained")
    ax.pcolormesh(
        np.arange(length + 1) - 0.5,
        np.arange(rows + 1) - 0.5,
        codes.cpu().numpy(),
        cmap="Blues",
        vmin=-2.0,
        vmax=1.4,
        edgecolors="white",
        linewidth=1.5,
    )
    if rows * length <= 400:
        for row in range(rows):
            for bit in range(length):
                positive = bool(codes[row, bit] > 0)
                ax.text(
                    bit, row, "+" if positive else "−", ha="center", va="center", fontsize=9,
                    color="white" if positive else BLACK,
                )  # fmt: skip
    if reference is not None:
        row, bit = torch.nonzero(codes != reference.to(codes), as_tuple=True)
        ax.plot(bit, row, "x", color=VERMILION, markersize=13, markeredgewidth=2.5, linestyle="none")
    ax.invert_yaxis()
    ax.grid(visible=False)
    ax.set(xlabel="bit", xticks=range(0, length, max(1, length // 16)), title=title or "")
    ax.set_yticks(range(rows), labels if labels is not None else [""] * rows)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax


def curves(
    history: Mapping[str, Sequence[float]],
    names: Sequence[str],
    *,
    smooth: int = 1,
    ax: Axes | None = None,
    xlabel: str = "step",
    ylabel: str = "loss",
    title: str | None = None,
) -> Axes:
    """Series of a training history over its steps.

    Args:
        history: {name: values}; a "step" series of the same length is the x axis; 1, 2, ... otherwise.
        names: which series to draw.
        smooth: width of a running mean in steps; 1 draws the values themselves.
        ax: where to draw; a new figure if None.
        xlabel: label of the x axis.
        ylabel: label of the y axis.
        title: title of the axes; None for none.

    Returns:
        Axes.

    Raises:
        ValueError: for a series that the history lacks, or smooth below 1.
    """
    missing = [name for name in names if name not in history]
    if missing:
        raise ValueError(f"history has no series {missing[0]!r}; it has {', '.join(history)}")
    if smooth < 1:
        raise ValueError(f"smooth is {smooth}; at least 1 is needed")
    ax = _axes(ax)
    for number, name in enumerate(names):
        values = np.asarray(history[name], dtype=float)
        steps = np.asarray(history.get("step", ()), dtype=float)
        steps = steps if len(steps) == len(values) else np.arange(1, len(values) + 1)
        width = min(smooth, len(values)) if len(values) else 1
        if width > 1:
            values = np.convolve(values, np.full(width, 1 / width), mode="valid")
            steps = steps[width - 1 :]
        style = STYLES[number % len(STYLES)]
        ax.plot(steps, values, linestyle=style, color=PALETTE[number % len(PALETTE)], label=name)
    ax.set(xlabel=xlabel, ylabel=ylabel, title=title or "")
    if len(names) > 1:
        ax.legend()
    return ax


def pairs(clean: Tensor, adversarial: Tensor, *, amplify: int | None = None, size: float = 0.9) -> Figure:
    """Clean image, perturbation and protected image, one column per image; grey means no change.

    Args:
        clean: uint8 (N, C, H, W).
        adversarial: uint8 (N, C, H, W), the same images protected.
        amplify: the perturbation is shown this many times as large, as its label states; None takes the
            largest whole number that clips nothing.
        size: width of one image in inches.

    Returns:
        Figure.

    Raises:
        ValueError: for images of another form, or amplify below 1.
    """
    _check_images(clean)
    _check_images(adversarial)
    if clean.shape != adversarial.shape:
        raise ValueError(
            f"adversarial is {tuple(adversarial.shape)} for clean {tuple(clean.shape)}; same shape needed"
        )
    if amplify is not None and amplify < 1:
        raise ValueError(f"amplify is {amplify}; at least 1 is needed")
    change = adversarial.to(torch.int16) - clean.to(torch.int16)  # (N, C, H, W)
    largest = int(change.abs().max())
    factor = amplify or max(1, 127 // max(1, largest))
    grey = (128 + factor * change).clamp(0, 255).to(torch.uint8)  # (N, C, H, W)
    figure, axes = _grid(3, len(clean), (len(clean) * size + 1.6, 3 * size + 0.2))
    names = ("clean", f"change × {factor}\n(largest {largest}/255)", "protected")
    for line, name, row in zip(axes, names, (clean, grey, adversarial), strict=True):
        for ax, image in zip(line, row, strict=True):
            _picture(ax, image)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center")
    return figure


def _grid(rows: int, columns: int, size: tuple[float, float]) -> tuple[Figure, np.ndarray]:
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.02, hspace=0.02)
    return figure, axes


def _axes(ax: Axes | None) -> Axes:
    return plt.subplots(layout="constrained")[1] if ax is None else ax


def _picture(ax: Axes, image: Tensor, title: str | None = None) -> None:
    """Draw a uint8 (C, H, W) image without ticks; grey images on the full 0..255 scale."""
    pixels = image.cpu().permute(1, 2, 0).numpy()  # (H, W, C)
    ax.imshow(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels, cmap="gray", vmin=0, vmax=255)
    ax.set(xticks=[], yticks=[])
    ax.grid(visible=False)
    if title is not None:
        ax.set_title(title, fontsize=10, pad=3)


def _check_images(images: Tensor) -> None:
    if not isinstance(images, Tensor) or images.dtype != torch.uint8 or images.ndim != 4 or not len(images):
        form = (
            f"{images.dtype} {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
        )
        raise ValueError(f"images are {form}; uint8 (N, C, H, W) with N > 0 is needed")
    if images.shape[1] not in (1, 3):
        raise ValueError(f"images have {images.shape[1]} channels; 1 (grey) or 3 (colour) can be shown")
