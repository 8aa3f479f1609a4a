"""The ε slider: one query image, its protected twin, both codes and what a search returns, redrawn as ε moves.

    explorer = EpsilonSlider(generator, victim, queries, database, classes=split.classes)
    explorer                          # last line of a cell: slider, query picker, picture
    explorer.slider.value = 0.1       # the same by assignment, for headless runs
    print(explorer.label.value)       # 0.100 (26/255)

A plain observer writes PNG bytes into an image widget: no output area that a headless run would compare, no figure
that pyplot would keep.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ipywidgets
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from pplkit import budget, plots, quality, retrieval
from pplkit.data import ImageSet
from pplkit.scenarios import Victim

Curve = Mapping[str, Mapping[float, float]]  # scenario -> ε -> mAP


@dataclass(frozen=True, eq=False)
class View:
    """One query at one ε.

    Attributes:
        query: its position among the queries.
        epsilon: ε in pixel units.
        clean, protected: uint8 (C, H, W).
        codes: int8 (2, c) in {-1, +1}: of the clean image, of the protected one.
        top: int64 (2, K), nearest database images of the clean query, of the protected one.
        relevant: bool (2, K), whether they share a label with the query.
        psnr: of the protected image, in decibels; inf if nothing changed.
        ssim: of the protected image, at most 1.
    """

    query: int
    epsilon: float
    clean: Tensor
    protected: Tensor
    codes: Tensor
    top: Tensor
    relevant: Tensor
    psnr: float
    ssim: float

    @property
    def flipped(self) -> int:
        """Number of bits in which the two codes differ: their Hamming distance."""
        return int((self.codes[0] != self.codes[1]).sum())

    @property
    def text(self) -> str:
        """The numbers of the picture in one line."""
        before, after = self.relevant.sum(1).tolist()
        size = self.relevant.shape[1]
        return (f"PSNR {self.psnr:.1f} dB, SSIM {self.ssim:.2f}, {self.flipped} of {self.codes.shape[1]} bits flipped, "
                f"relevant among the first {size}: {before} for the clean query, {after} for the protected one")


class EpsilonSlider:
    """A slider for ε and a picker for the query, over a picture of what they do. The database stays clean.

    Args:
        generator: float images (B, C, H, W) in [0, 1] -> pattern, see `pplkit.budget.protect`. It is the same generator at
            every ε; only the size of its output changes.
        victim: what the searcher uses, `encode(uint8) -> codes`.
        queries: the images to pick from.
        database: the clean images that are searched.
        classes: names of the labels; None shows their numbers.
        epsilon: where the slider starts, in pixel units.
        maximum: right end of the slider, at most 1.
        step: of the slider, in pixel units.
        norm: of the budget.
        neighbours: how many results are shown.
        curve: {scenario: {ε: mAP}}, drawn below with a mark at the present ε; None: not yet. Assign it later with
            `explorer.curve = ...`.
        dpi: resolution of the picture.

    Attributes:
        slider, picker: the controls; assigning their `value` redraws.
        label: widget with ε as text, "0.300 (77/255)".
        summary: widget with the other numbers.
        message: widget that shows what went wrong, empty otherwise.
        picture: image widget, PNG bytes in `value`.
        view: the `View` that is shown; None after an error.

    Raises:
        ValueError: ε, maximum or step out of range; neighbours outside 1..N; and what generator, budget and victim raise.
    """

    def __init__(self, generator: Callable[[Tensor], Tensor], victim: Victim, queries: ImageSet, database: ImageSet, *,
                 classes: Sequence[str] | None = None, epsilon: float = 0.3, maximum: float = 1.0, step: float = 0.01,
                 norm: str = "inf", neighbours: int = 10, curve: Curve | None = None, dpi: int = 80):
        budget.format_epsilon(epsilon)
        if not 0 < maximum <= 1 or not 0 < step <= maximum or epsilon > maximum:
            raise ValueError(f"0 < step <= maximum <= 1 and epsilon <= maximum are needed, got step={step!r}, "
                             f"maximum={maximum!r}, epsilon={epsilon!r}")
        self.generator, self.victim, self.norm = generator, victim, norm
        self.queries, self.database, self.neighbours, self.dpi = queries, database, neighbours, dpi
        self.view: View | None = None
        self._curve = curve
        self._database_codes = victim.encode(database.images)  # (N, c), once: the database stays as it is
        self.slider = ipywidgets.FloatSlider(epsilon, min=0, max=maximum, step=step, description="ε", readout=False,
                                             continuous_update=False, layout={"width": "60%"})
        self.picker = ipywidgets.Dropdown(options=_names(queries, classes), description="Query")
        self.label, self.summary, self.message = ipywidgets.Label(), ipywidgets.Label(), ipywidgets.HTML()
        self.picture = ipywidgets.Image(format="png", layout={"max_width": "100%"})
        rows = [ipywidgets.HBox([self.slider, self.label]), self.picker, self.summary, self.message, self.picture]
        self.widget = ipywidgets.VBox(rows)
        self._show()
        for control in (self.slider, self.picker):
            control.observe(self._show, names="value")

    @property
    def curve(self) -> Curve | None:
        """{scenario: {ε: mAP}} below the picture; None: not drawn."""
        return self._curve

    @curve.setter
    def curve(self, curve: Curve | None) -> None:
        self._curve = curve
        self._show()

    def look(self, epsilon: float, query: int = 0) -> View:
        """What one query looks like at one ε, without touching the controls.

        Args:
            epsilon: in pixel units.
            query: position among the queries.
        """
        images = self.queries.images[query:query + 1]  # (1, C, H, W)
        protected = budget.protect(images, self.generator, epsilon, self.norm)  # (1, C, H, W)
        codes = self.victim.encode(torch.cat([images, protected]))  # (2, c)
        top, _ = retrieval.top_k(codes, self._database_codes, self.neighbours)  # (2, K)
        relevant = self.database.labels[top] == self.queries.labels[query]  # (2, K)
        return View(query, epsilon, images[0], protected[0], codes, top, relevant,
                    float(quality.psnr(images, protected)), float(quality.ssim(images, protected)))

    def render(self, view: View) -> bytes:
        """The picture of a view, PNG."""
        height = 6.9 if self._curve else 4.5  # inches; the curve takes 2.4 below the rest
        figure = Figure(figsize=(9.0, height), dpi=self.dpi, layout="none")  # a fixed layout is drawn twice as fast
        canvas = FigureCanvasAgg(figure)
        top, bottom = 1 - 0.35 / height, (height - 4.45) / height
        grid = figure.add_gridspec(3, 24, height_ratios=[1.6, 1, 1], left=0.08, right=0.98, top=top, bottom=bottom, hspace=0.35)
        change = view.protected.to(torch.int16) - view.clean.to(torch.int16)  # (C, H, W)
        factor = max(1, 127 // max(1, int(change.abs().max())))
        grey = (128 + factor * change).clamp(0, 255).to(torch.uint8)  # (C, H, W)
        shown = {"clean": view.clean, f"change × {factor}": grey, "protected": view.protected}
        for place, (title, image) in enumerate(shown.items()):
            ax = figure.add_subplot(grid[0, 4 * place:4 * place + 4])
            ax.imshow(_pixels(image), cmap="gray", vmin=0, vmax=255)
            ax.set_title(title, fontsize=11)
            ax.set_axis_off()
        ax = plots.bits(view.codes, ["clean", "protected"], reference=view.codes[0], ax=figure.add_subplot(grid[0, 15:]),
                        title=f"codes, {view.flipped} of {view.codes.shape[1]} bits flipped")
        ax.tick_params(axis="x", labelsize=8)
        for row, (name, image) in enumerate((("clean query", view.clean), ("protected query", view.protected))):
            self._results(figure.add_subplot(grid[row + 1, :]), name, image, view.top[row], view.relevant[row])
        if self._curve:
            self._draw_curve(figure.add_axes((0.08, 0.6 / height, 0.9, 1.7 / height)), view.epsilon)
        png = io.BytesIO()
        canvas.print_png(png)
        return png.getvalue()

    def _results(self, ax: Axes, name: str, query: Tensor, top: Tensor, relevant: Tensor) -> None:
        """The query and its nearest database images in one row; relevant ones framed solid with ✓, others dashed with ✗."""
        ratio = query.shape[1] / query.shape[2]
        ax.imshow(_pixels(query), cmap="gray", vmin=0, vmax=255, extent=(0, 1, 0, ratio))
        ax.text(0.5, 1.06 * ratio, name, ha="center", va="bottom", fontsize=10)
        for place, (index, right) in enumerate(zip(top.tolist(), relevant.tolist(), strict=True)):
            left = 1.45 + 1.15 * place
            colour, mark, style = plots.RELEVANT if right else plots.IRRELEVANT
            ax.imshow(_pixels(self.database.images[index]), cmap="gray", vmin=0, vmax=255, extent=(left, left + 1, 0, ratio))
            ax.add_patch(Rectangle((left, 0), 1, ratio, fill=False, edgecolor=colour, linewidth=2.5, linestyle=style))
            ax.text(left + 0.5, 1.06 * ratio, f"{place + 1} {mark}", ha="center", va="bottom", fontsize=10, color=colour)
        ax.set(xlim=(-0.3, 1.4 + 1.15 * self.neighbours), ylim=(-0.05, 1.35 * ratio), aspect="equal")
        ax.set_axis_off()

    def _draw_curve(self, ax: Axes, epsilon: float) -> None:
        for number, (name, points) in enumerate(self._curve.items()):
            style = {"color": plots.PALETTE[number % 8], "linestyle": plots.STYLES[number % 8], "marker": "."}
            ax.plot(list(points), list(points.values()), label=name, **style)
        ax.axvline(epsilon, color=plots.BLACK, linewidth=1.5)
        ax.set(xlabel="ε (pixel units)", ylabel="mAP, all queries", xlim=(0, self.slider.max), ylim=(0, 1))
        ax.legend(ncols=2, fontsize=10)

    def _show(self, _: object = None) -> None:
        """Bring label, numbers and picture up to date. An error is shown, and raised for headless runs to notice."""
        try:
            epsilon = round(float(self.slider.value), 4)
            self.label.value = budget.format_epsilon(epsilon)
            self.view = self.look(epsilon, self.picker.value)
            png = self.render(self.view)
        except Exception as error:
            self.view = None
            self.summary.value = ""
            self.picture.layout.display = "none"  # the picture of another ε would be a lie
            self.message.value = f"<b style='color:#D55E00'>✗ {type(error).__name__}: {html.escape(str(error))}</b>"
            raise
        self.message.value, self.summary.value = "", self.view.text
        self.picture.value, self.picture.layout.display = png, None

    def __repr__(self) -> str:
        """What is shown, in words."""
        if self.view is None:
            return f"ε = {self.label.value}: nothing to show, see .message"
        return f"ε = {self.label.value}, query {self.picker.label}: {self.view.text}"

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """What a notebook shows: the widget where the front end can, else the picture, else the text."""
        shown = self.widget._repr_mimebundle_(**kwargs)
        bundle = dict(shown[0] if isinstance(shown, tuple) else shown)
        if self.view is not None:
            bundle["image/png"] = base64.b64encode(self.picture.value).decode()
        bundle["text/plain"] = repr(self)
        return bundle


def _names(queries: ImageSet, classes: Sequence[str] | None) -> list[tuple[str, int]]:
    """Entries of the picker: (text, position)."""
    labels = queries.labels.tolist()
    return [(f"{place}: {label if classes is None else classes[label]}", place) for place, label in enumerate(labels)]


def _pixels(image: Tensor) -> np.ndarray:
    """uint8 (C, H, W) -> (H, W) for grey, (H, W, 3) for colour, as matplotlib wants it."""
    pixels = image.cpu().permute(1, 2, 0).numpy()  # (H, W, C)
    return pixels[..., 0] if pixels.shape[-1] == 1 else pixels
