"""The ε explorer: move ε and watch what it does to one image, to its code, to four searches and to the mean of all queries.

    explorer = EpsilonExplorer(pretrained.victims(), pretrained.generator(), split)
    explorer                             # last line of a cell: controls and pictures
    explorer.prediction.value = ...      # unlocks the slider, as the mouse does; or explorer.skip()
    explorer.slider.value = 0.1          # the same by assignment, for headless runs
    print(explorer.label.value)          # 0.100 (26/255)

A move draws what one image needs, in milliseconds; scenarios with a protected database follow when a background thread has
encoded it at that ε. The thread also computes the whole curve, and ends when nothing is left to do.
"""

from __future__ import annotations

import html
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets
import torch
from torch import Tensor

from pplkit import budget, picture
from pplkit.data import RetrievalSplit
from pplkit.prediction import Predict
from pplkit.scenarios import SCENARIOS, Victim
from pplkit.sweep import EpsilonSweep, Patterns, View

Choice = tuple[str, str, int]  # method, train domain, bits
ANY = "any class"
DOMAIN_NAMES = {"clean": "clean images", "adversarial": "protected images"}
POINTS = tuple(k / 50 for k in range(51))
SHAPES = {
    "A: falls evenly": {e: 0.8 - 0.7 * e for e in POINTS},
    "B: holds, falls off a cliff, stays down": {e: 0.1 + 0.7 * max(0.0, min(1.0, (0.25 - e) / 0.15)) for e in POINTS},
    "C: falls at once, then levels out": {e: 0.1 + 0.7 * 0.5 ** (e / 0.03) for e in POINTS},
    "D: holds until ε is large": {e: 0.1 + 0.7 * max(0.0, min(1.0, (0.9 - e) / 0.25)) for e in POINTS},
}
QUESTION = "How will mAP of A->C (protected query, clean database, a searcher trained on clean images) depend on ε?"
_shown: weakref.WeakValueDictionary[str, EpsilonExplorer] = weakref.WeakValueDictionary()


class EpsilonExplorer:
    """Controls for ε, norm, victim and query over pictures of what they do.

    Args:
        victim: what the searcher uses, `encode(uint8) -> codes`; or a mapping (method, train domain, bits) -> victim to choose
            from, the first is shown first.
        generator: float images (B, C, H, W) in [0, 1] -> pattern, see `pplkit.budget.protect`. It is the same generator at
            every ε; only the size of its output changes.
        split: queries and database, clean.
        epsilon: where the slider starts, in pixel units.
        step: of the slider, in pixel units; the curve has a point at every step. Other ε can be typed.
        norm: of the budget at the start.
        queries, database_size: so many images, drawn by `seed`; None: all of the split.
        seed: of that draw and of the button "Random".
        neighbours: results shown per scenario.
        scenarios: the searches that are shown.
        curve: also show mAP, of all ε.
        ask: lock the slider until a prediction has been made or skipped.
        name: a new explorer of the same name closes the old one, so that re-running a cell leaves nothing behind.

    Attributes:
        slider, typed, norm, method, domain, bits, kind, number, following, random, scenario: the controls.
        prediction: the `Predict` that unlocks the slider.
        label: widget with ε as text, "0.300 (77/255)".
        summary: widget with the other numbers.
        message: widget that shows what went wrong, empty otherwise.
        progress: bar of the curve.
        view: the `View` that is shown; None after an error.

    Raises:
        ValueError: ε or step out of range, an empty mapping; generator, victim and images that do not fit each other.
    """

    def __init__(self, victim: Victim | Mapping[Choice, Victim], generator: Callable[[Tensor], Tensor],
                 split: RetrievalSplit, *, epsilon: float = 0.3, step: float = 0.02, norm: str = "inf",
                 queries: int | None = None, database_size: int | None = None, seed: int = 0, neighbours: int = 10,
                 scenarios: Sequence[str] = SCENARIOS, curve: bool = True, ask: bool = True, name: str = "explorer"):
        budget.format_epsilon(epsilon)
        if unknown := [scenario for scenario in scenarios if scenario not in SCENARIOS]:
            raise ValueError(f"unknown scenario {unknown[0]!r}; there are {', '.join(SCENARIOS)}")
        if not 0 < step <= 1:
            raise ValueError(f"step must lie above 0 and at most at 1 in pixel units, got {step!r}")
        self._random = torch.Generator().manual_seed(seed)
        self.query, self.database = (self._drawn(getattr(split, part), size, part)
                                     for part, size in (("query", queries), ("database", database_size)))
        self.classes, self.neighbours = split.classes, neighbours
        self.view: View | None = None
        kinds = len(split.classes)
        asked, there = (part.labels.bincount(minlength=kinds).double() for part in (self.query, self.database))  # (K,)
        self.chance = float((asked * there).sum() / (asked.sum() * there.sum()))
        self._patterns = Patterns(generator, self.query, self.database)
        if not isinstance(victim, Mapping):
            bits = victim.encode(self.query.images[:1]).shape[1]
            victim = {(type(victim).__name__, "its own images", bits): victim}
        self._victims = dict(victim)
        if not self._victims:
            raise ValueError("victim is an empty mapping: give at least one (method, train domain, bits) -> victim")
        self._sweeps: dict[tuple[Choice, str], EpsilonSweep] = {}
        self.scenarios, self._with_curve = tuple(scenarios), curve
        self._sweeps_all = curve or any(scenario.endswith("A") for scenario in scenarios)  # more than one image per ε
        self._grid = _coarse_to_fine([round(k * step, 4) for k in range(int(1 / step + 1e-6) + 1)])
        self._drawing, self._deciding = threading.RLock(), threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = self._moving = False
        self._make_controls(epsilon, step, norm)
        self.prediction = Predict(QUESTION, choices=list(SHAPES))
        self.prediction.observe(lambda _: self._unlock())
        self._locked = ask
        for control in (self.slider, self.typed):
            control.disabled = ask
        self.widget = self._layout()
        if (old := _shown.get(name)) is not None:
            old.close()
        _shown[name] = self
        self._refresh()

    def _drawn(self, images: Any, size: int | None, part: str) -> Any:
        if size is None:
            return images
        if not 1 <= size <= len(images):
            raise ValueError(f"the {part} part has {len(images)} images, {size!r} of them were asked for")
        return images.subset(torch.randperm(len(images), generator=self._random)[:size])

    def _make_controls(self, epsilon: float, step: float, norm: str) -> None:
        narrow, first = {"width": "190px"}, next(iter(self._victims))
        self.slider = ipywidgets.FloatSlider(_at_a_step(epsilon, step), min=0, max=1, step=step, description="ε", readout=False,
                                             layout={"width": "100%"})
        self.typed = ipywidgets.FloatText(epsilon, step=0.01, description="ε typed", continuous_update=False, layout=narrow)
        self.norm = ipywidgets.Dropdown(options=[("ℓ∞", "inf"), ("ℓ2", "2"), ("ℓ1", "1")], value=norm, description="Norm",
                                        layout=narrow)
        methods, domains, bits = (list(dict.fromkeys(key[place] for key in self._victims)) for place in range(3))
        self.method = ipywidgets.Dropdown(options=methods, value=first[0], description="Method", layout=narrow)
        self.domain = ipywidgets.Dropdown(options=[(DOMAIN_NAMES.get(d, d), d) for d in domains], value=first[1],
                                          description="Trained on", layout={"width": "240px"})
        self.bits = ipywidgets.Dropdown(options=bits, value=first[2], description="Bits", layout=narrow)
        self.kind = ipywidgets.Dropdown(options=[ANY, *self.classes], description="Class", layout={"width": "240px"})
        self.number = ipywidgets.IntText(0, description="Query", continuous_update=False, layout=narrow)
        self.following = ipywidgets.Button(description="Next", tooltip="next query of this class", layout={"width": "80px"})
        self.random = ipywidgets.Button(description="Random", tooltip="some query of this class", layout={"width": "80px"})
        self.scenario = ipywidgets.ToggleButtons(options=["all", *self.scenarios], description="Highlight",
                                                 style={"button_width": "80px"})
        self.label, self.summary = ipywidgets.Label(), ipywidgets.Label()
        self.message, self.picture, self.chart = ipywidgets.HTML(), ipywidgets.HTML(), ipywidgets.HTML()
        for part, css in ((self.message, "ppl-message"), (self.picture, "ppl-picture"), (self.chart, "ppl-chart"),
                          (self.label, "ppl-label"), (self.summary, "ppl-summary")):
            part.add_class(css)
            part.layout.width = "100%"
        self.label.layout.width, self.message.layout.min_height = "150px", "32px"  # nothing jumps when a text comes or goes
        self.progress = ipywidgets.IntProgress(0, 0, len(self._grid), description="mAP curve", layout={"width": "300px"})
        self.slider.observe(lambda change: self._move(change["new"]), names="value")
        self.typed.observe(lambda change: self._move(change["new"]), names="value")
        for control in (self.norm, self.method, self.domain, self.bits, self.number, self.scenario):
            control.observe(lambda _: self._refresh(), names="value")
        self.kind.observe(lambda _: self._pick(), names="value")
        self.following.on_click(lambda _: self._pick(after=self.number.value))
        self.random.on_click(lambda _: self._pick(at_random=True))

    def _layout(self) -> ipywidgets.VBox:
        box = ipywidgets.HBox
        skip = ipywidgets.Button(description="Skip", tooltip="unlock the slider without a prediction")
        skip.on_click(lambda _: self.skip())
        self._asking = ipywidgets.VBox([ipywidgets.HTML(picture.shapes_svg(SHAPES)), self.prediction.widget(), skip])
        self._asking.layout.display = None if self._locked else "none"
        width = {"flex_flow": "row wrap"}
        root = ipywidgets.VBox([
            self._asking, box([self.slider, self.label]), box([self.typed, self.norm, self.bits], layout=width),
            box([self.method, self.domain], layout=width),
            box([self.kind, self.number, self.following, self.random], layout=width),
            self.scenario, self.message, self.picture, self.chart, box([self.progress, self.summary])],
            layout={"max_width": "980px"})
        idle = [self.method, self.domain, self.bits] if len(self._victims) == 1 else []  # nothing to choose or to show
        idle += [self.scenario] if len(self.scenarios) == 1 else []
        idle += [] if self._with_curve else [self.chart, self.progress]
        for part in idle:
            part.layout.display = "none"
        root.add_class("ppl-explorer")
        return root

    # What is chosen

    @property
    def epsilon(self) -> float:
        """ε in pixel units as it is shown: the typed one, which follows the slider."""
        return round(float(self.typed.value), 4)

    @property
    def choice(self) -> Choice:
        """The victim that is shown: (method, train domain, bits)."""
        return self.method.value, self.domain.value, self.bits.value

    @property
    def sweep(self) -> EpsilonSweep:
        """What has been computed for the chosen victim and norm.

        Raises:
            ValueError: no such victim was given.
        """
        key = (self.choice, self.norm.value)
        if key not in self._sweeps:
            if self.choice not in self._victims:
                raise ValueError(f"no victim {_name(self.choice)} was given; there are: {', '.join(map(_name, self._victims))}")
            other = next((sweep for (choice, _), sweep in self._sweeps.items() if choice == self.choice), None)
            self._sweeps[key] = EpsilonSweep(self._victims[self.choice], self._patterns, self.norm.value, other)
        return self._sweeps[key]

    def skip(self) -> None:
        """Unlock the slider without a prediction."""
        self._unlock()

    def _unlock(self) -> None:
        self._locked = self.slider.disabled = self.typed.disabled = False
        self._asking.layout.display = "none"
        self._refresh()

    def _move(self, epsilon: float) -> None:
        """Slider and typed entry follow each other; one picture for both.

        The slider goes to its nearest step: off a step, the browser would move it there and send that back as a move.
        """
        if self._moving:
            return
        self._moving = True
        try:
            self.typed.value = epsilon
            if 0 <= epsilon <= 1 and epsilon != self.slider.value:
                self.slider.value = _at_a_step(epsilon, self.slider.step)
        finally:
            self._moving = False
        self._refresh()

    def _pick(self, after: int = -1, at_random: bool = False) -> None:
        """Another query of the chosen class: a random one, or the first behind `after`, or the first of all."""
        places = torch.arange(len(self.query))
        if self.kind.value != ANY:
            places = (self.query.labels == self.classes.index(self.kind.value)).nonzero()[:, 0]
        if not len(places):
            error = ValueError(f"no query of class {self.kind.value!r} among the {len(self.query)} queries shown")
            with self._drawing:
                self._fail(error)
            raise error
        if at_random:
            place = places[int(torch.randint(len(places), (), generator=self._random))]
        else:
            behind = places[places > after]
            place = behind[0] if len(behind) else places[0]
        self.number.value = int(place)
        if self.view is None:  # the same number as before the error
            self._refresh()

    # What is shown

    def _refresh(self) -> None:
        """Draw what is chosen and see to what is still missing. An error is shown, and raised for headless runs to notice."""
        with self._drawing:
            try:
                self._draw()
            except Exception as error:
                self._fail(error)
                raise
        self._wake()

    def _draw(self) -> None:
        epsilon, sweep = self.epsilon, self.sweep
        self.label.value = budget.format_epsilon(epsilon)
        self.view = sweep.look(self.number.value, epsilon, self.neighbours)
        highlight = None if self.scenario.value == "all" else self.scenario.value
        mean = "none" if not self._with_curve else "hidden" if self._locked else "shown"
        shown, known = _name(self.choice), sweep.curve
        expected = SHAPES.get(self.prediction.value) if self.prediction.value else None
        self.message.value, self.summary.value = "", self.view.text
        self.picture.value = picture.view_svg(self.view, classes=self.classes, victim=shown, highlight=highlight,
                                              scenarios=self.scenarios, mean=mean)
        self.chart.value = picture.curve_svg(known, epsilon, prediction=expected, highlight=highlight, chance=self.chance,
                                             hidden="Predict first, then the curve appears." if self._locked else "")
        done = sum(epsilon in sweep for epsilon in self._grid)
        self.progress.value, self.progress.description = done, "curve done" if done == len(self._grid) else "mAP curve"

    def _fail(self, error: Exception) -> None:
        self.view = None
        self.label.value = self.summary.value = ""  # numbers and pictures of something else would be a lie
        self.picture.value = picture.blank_svg(picture.view_height(len(self.scenarios)))
        self.chart.value = picture.blank_svg(picture.CURVE_HEIGHT)
        text = error.args[0] if isinstance(error, IndexError) else error
        self.message.value = f"<b role='alert' style='color:#D55E00'>✗ {type(error).__name__}: {html.escape(str(text))}</b>"

    # The background thread

    def _wake(self) -> None:
        """Start the thread if there is something to compute and none is running."""
        with self._deciding:
            if self._sweeps_all and self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._work, name="ppl-explorer")
                self._thread.start()

    def _next(self) -> tuple[EpsilonSweep, float] | None:
        """The ε on show if it is not known yet, else the next point of the curve; None ends the thread."""
        with self._deciding:
            sweep, view = self._sweeps.get((self.choice, self.norm.value)), self.view
            ending = self._closed or not threading.main_thread().is_alive()  # Python waits for this thread, so let it go
            if sweep is not None and view is not None and not ending:
                for epsilon in (view.epsilon, *self._grid) if self._with_curve else (view.epsilon,):
                    if epsilon not in sweep:
                        return sweep, epsilon
            self._thread = None
            return None

    def _work(self) -> None:
        while (task := self._next()) is not None:
            sweep, epsilon = task
            try:
                sweep.evaluate(epsilon)
                with self._drawing:
                    if not self._closed and self.view is not None and sweep is self.sweep:
                        self._draw()
            except Exception as error:
                with self._drawing:
                    if sweep is self._sweeps.get((self.choice, self.norm.value)):
                        self._fail(error)

    def wait(self, timeout: float | None = None) -> None:
        """Return when the curve is complete, or an error (see `message`) has ended the work on it.

        Raises:
            TimeoutError: neither is so after `timeout` seconds.
        """
        thread = self._thread
        if thread is not None:
            thread.join(timeout)
            if thread.is_alive():
                raise TimeoutError(f"the curve is not complete after {timeout} s: {self.progress.value} of {len(self._grid)} ε")

    def wait_for_view(self) -> None:
        """Complete the picture that is shown, curve apart; after an error there is none to complete."""
        view = self.view
        if view is None:
            return
        if self._sweeps_all:
            self.sweep.evaluate(view.epsilon)
        with self._drawing:
            if self.view is not None:
                self._draw()

    def close(self) -> None:
        """Stop the thread, take the controls away, and let go of all that was computed."""
        self._closed = True
        with self._drawing:
            for part in _parts(self.widget):
                part.unobserve_all()
                part.close()
            self._sweeps.clear()
            self._patterns.clear()  # a notebook's Out keeps the explorer itself

    def __repr__(self) -> str:
        """What is shown, in words."""
        if self.view is None:
            return "nothing to show, see .message"
        return f"ε = {self.label.value}, {_name(self.choice)}, query {self.view.query}: {self.view.text}"

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """What a notebook shows: the widget where the front end can, else the picture, else the text."""
        shown = self.widget._repr_mimebundle_(**kwargs)
        bundle = dict(shown[0] if isinstance(shown, tuple) else shown)
        if self.view is not None:
            self.wait_for_view()  # where only the picture is shown, it should be whole
            bundle["image/svg+xml"] = self.picture.value
        bundle["text/plain"] = repr(self)
        return bundle


def _name(choice: Choice) -> str:
    """("ADSH", "clean", 16) -> "ADSH clean 16"."""
    return " ".join(map(str, choice))


def _at_a_step(epsilon: float, step: float) -> float:
    """The nearest value that the slider can show."""
    return round(min(round(epsilon / step), int(1 / step + 1e-6)) * step, 4)


def _parts(widget: ipywidgets.Widget) -> list[ipywidgets.Widget]:
    """A widget and all that it is made of: what it holds, their layouts and styles."""
    held = [*getattr(widget, "children", ()), *(getattr(widget, name, None) for name in ("layout", "style"))]
    return [widget, *(part for other in held if isinstance(other, ipywidgets.Widget) for part in _parts(other))]


def _coarse_to_fine(points: list[float]) -> list[float]:
    """The same points in an order in which the first few already span the range."""
    order, step = [], 1 << (len(points) - 1).bit_length()
    while step:
        order += [k for k in [*range(0, len(points), step), len(points) - 1] if k not in order]
        step //= 2
    return [points[k] for k in order]
