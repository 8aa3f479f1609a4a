"""Predictions: the learner commits to an answer before the result is shown.

    guess = Predict("Which scenario will suffer most?", choices=["C->A", "A->C"])
    guess                         # last line of the cell: radio buttons, or the question as text
    guess.value = "C->A"          # the same by assignment, for headless runs and front ends without widgets
    guess.reveal("A->C", because="its mAP is 0.18")

ipywidgets is imported when a prediction is shown, not before; without it the question is shown as text, which
says how to answer by assignment.
"""

from __future__ import annotations

import html
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

NOT_YET = "no prediction yet"
LARGEST = sys.float_info.max  # where a number has no limit
START_CONFIDENCE = 50  # percent, where the widget begins


class Predict:
    """One question, answered by a choice or by a number, optionally with how sure the learner is.

    Args:
        question: text of the question.
        choices: the possible answers, at least two different strings; None asks for a number instead.
        low: smallest number accepted; None for no limit. Only for numbers.
        high: largest number accepted; None for no limit. Only for numbers.
        unit: what the number counts, shown behind it, e.g. "mAP".
        decimals: digits shown behind the decimal point of the number, 0 to 10.
        confidence: also ask how sure the learner is, in percent.

    Raises:
        ValueError: if the question is empty, the choices are not different strings, or the limits are not in
            order.
    """

    def __init__(
        self,
        question: str,
        choices: Sequence[str] | None = None,
        *,
        low: float | None = None,
        high: float | None = None,
        unit: str = "",
        decimals: int = 2,
        confidence: bool = False,
    ) -> None:
        if not isinstance(question, str) or not question.strip():
            raise ValueError(f"question is {question!r}; a non-empty text is needed")
        if choices is not None:
            if isinstance(choices, str) or not all(isinstance(choice, str) for choice in choices):
                raise ValueError(
                    f"choices is {choices!r}; a list of strings is needed, e.g. ['rises', 'falls']"
                )
            if len(set(choices)) != len(choices) or len(choices) < 2:
                raise ValueError(f"choices is {choices!r}; at least two different answers are needed")
            if low is not None or high is not None or unit:
                raise ValueError(
                    "low, high and unit belong to a number; leave them out when there are choices"
                )
        if low is not None and high is not None and not low < high:
            raise ValueError(f"low is {low!r} and high is {high!r}; low must be smaller than high")
        if decimals not in range(11):
            raise ValueError(f"decimals is {decimals!r}; a whole number from 0 to 10 is needed")
        self.question = question
        self.choices = None if choices is None else tuple(choices)
        self.low, self.high, self.unit, self.decimals = low, high, unit, decimals
        self._asks_confidence = confidence
        self._value: str | float | None = None
        self._confidence: int | None = None
        self._callbacks: list[Callable[[str | float], object]] = []
        self._box: Any = None  # the ipywidgets box, made when it is first shown
        self._answer_widget: Any = None
        self._confidence_widget: Any = None
        self._status: Any = None

    @property
    def value(self) -> str | float | None:
        """The prediction; None as long as there is none. Assign to answer, assign None to take it back."""
        return self._value

    @value.setter
    def value(self, answer: str | float | None) -> None:
        self._value = None if answer is None else self._checked(answer, "value")
        self._show_state()
        if self._value is not None:
            for callback in self._callbacks:
                callback(self._value)

    def observe(self, callback: Callable[[str | float], object]) -> None:
        """Call `callback(answer)` whenever a prediction is made or changed."""
        self._callbacks.append(callback)

    @property
    def confidence(self) -> int | None:
        """How sure the learner is, in percent, a whole number from 0 to 100; None if not said."""
        return self._confidence

    @confidence.setter
    def confidence(self, percent: int | None) -> None:
        if not self._asks_confidence:
            raise ValueError("this prediction does not ask for a confidence; make it with confidence=True")
        if percent is not None and (type(percent) is not int or not 0 <= percent <= 100):
            raise ValueError(f"confidence is {percent!r}; a whole number of percent from 0 to 100 is needed")
        self._confidence = percent
        self._show_state()

    def reveal(self, result: str | float, because: str = "") -> None:
        """Print the result against the prediction.

        Args:
            result: what came out: one of the choices, or a number in the unit of the question.
            because: one sentence of explanation, printed on a line of its own.

        Raises:
            ValueError: if the result is none of the choices, or no finite number.
        """
        result = self._checked(result, "result", limits=False)
        if self._value is None:
            print(f"no prediction was made: the result is {self._text(result)}")
        else:
            sure = "" if self._confidence is None else f" ({self._confidence} % sure)"
            said = f"you predicted {self._text(self._value)}{sure}"
            print(f"{said}, the result is {self._text(result)}: {self._verdict(result)}")
        if because:
            print(because)

    def _verdict(self, result: str | float) -> str:
        if self.choices is not None:
            return "✓ as predicted" if self._value == result else "✗ not as predicted"
        difference = round(round(float(self._value), self.decimals) - round(float(result), self.decimals), self.decimals)
        if difference == 0:
            return "✓ as predicted"
        return f"{self._text(abs(difference))} too {'high' if difference > 0 else 'low'}"

    def _checked(self, answer: Any, name: str, limits: bool = True) -> str | float:
        if self.choices is not None:
            if not isinstance(answer, str) or answer not in self.choices:
                raise ValueError(f"{name} is {answer!r}; choose one of {', '.join(map(repr, self.choices))}")
            return str(answer)
        try:
            number = math.nan if isinstance(answer, (str, bool)) else float(answer)
        except (TypeError, ValueError):
            number = math.nan
        too_low = limits and self.low is not None and number < self.low
        too_high = limits and self.high is not None and number > self.high
        if not math.isfinite(number) or too_low or too_high:
            raise ValueError(f"{name} is {answer!r}; a number{self._range() if limits else ''} is needed")
        return number

    def _range(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        if self.low is not None and self.high is not None:
            return f" from {self.low:g} to {self.high:g}{unit}"
        if self.low is not None:
            return f" of at least {self.low:g}{unit}"
        if self.high is not None:
            return f" of at most {self.high:g}{unit}"
        return f" ({self.unit})" if self.unit else ""

    def _text(self, answer: str | float) -> str:
        if isinstance(answer, str):
            return answer
        return f"{answer:.{self.decimals}f}" + (f" {self.unit}" if self.unit else "")

    def _state(self) -> str:
        if self._value is None:
            return NOT_YET
        sure = "" if self._confidence is None else f" ({self._confidence} % sure)"
        return f"your prediction: {self._text(self._value)}{sure}"

    def __repr__(self) -> str:
        """The question, how to answer it by assignment, and the present state."""
        if self.choices is not None:
            example = repr(self.choices[0])
            lines = [self.question] + [f"  - {choice}" for choice in self.choices]
        else:
            middle = self.low if self.low is not None else self.high if self.high is not None else 0.0
            example = f"{middle:.{self.decimals}f}"
            lines = [f"{self.question} A number{self._range()}."]
        confidence = " and .confidence = 70" if self._asks_confidence else ""
        lines.append(f"Answer here, or by assignment: .value = {example}{confidence}")
        return "\n".join([*lines, f"({self._state()})"])

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """What a notebook shows: the widget where the front end can, the text of `repr` otherwise."""
        box = self.widget()
        bundle: dict[str, Any] = {}
        if box is not None:
            shown = box._repr_mimebundle_(**kwargs)
            bundle.update(shown[0] if isinstance(shown, tuple) else shown)
        bundle["text/plain"] = repr(self)
        return bundle

    def widget(self) -> Any:
        """The ipywidgets box, or None where ipywidgets is not installed."""
        if self._box is not None:
            return self._box
        try:
            import ipywidgets
        except ImportError:
            return None
        question = html.escape(self.question, quote=False)
        if self.choices is not None:
            self._answer_widget = ipywidgets.RadioButtons(
                options=self.choices, value=None, description="Answer", layout={"width": "auto"}
            )
            rows = [ipywidgets.HTMLMath(f"<b>{question}</b>"), self._answer_widget]
        else:
            self._answer_widget = self._number_widget(ipywidgets)
            keep = ipywidgets.Button(description="Predict this", tooltip="Take the number as my prediction")
            keep.on_click(lambda _: self._answered(self._answer_widget.value))
            rows = [
                ipywidgets.HTMLMath(f"<b>{question}</b> A number{html.escape(self._range())}."),
                ipywidgets.HBox([self._answer_widget, ipywidgets.Label(self.unit), keep]),
            ]
        self._answer_widget.observe(lambda change: self._answered(change["new"]), names="value")
        if self._asks_confidence:
            self._confidence_widget = ipywidgets.BoundedIntText(
                START_CONFIDENCE, min=0, max=100, step=10, description="Sure (%)"
            )
            self._confidence_widget.observe(lambda change: self._rated(change["new"]), names="value")
            rows.append(self._confidence_widget)
        self._status = ipywidgets.Label()
        self._box = ipywidgets.VBox([*rows, self._status])
        self._show_state()
        return self._box

    def _number_widget(self, ipywidgets: Any) -> Any:
        """A field for a number; the limits of a bounded one must be finite, because they travel as JSON."""
        if self.low is None and self.high is None:
            return ipywidgets.FloatText(step=None, description="Answer")
        low = -LARGEST if self.low is None else self.low
        high = LARGEST if self.high is None else self.high
        start = low if self.low is not None else min(0.0, high)
        return ipywidgets.BoundedFloatText(value=start, min=low, max=high, step=None, description="Answer")

    def _answered(self, answer: str | float | None) -> None:
        """The learner used the answer widget; the confidence that stands beside it counts from now on."""
        if answer == self._value:
            return
        if answer is not None and self._asks_confidence and self._confidence is None:
            self._confidence = self._confidence_widget.value
        self.value = answer

    def _rated(self, percent: int) -> None:
        """The learner used the confidence widget."""
        if percent != self._confidence:
            self.confidence = percent

    def _show_state(self) -> None:
        """Bring an already shown widget into agreement with the prediction."""
        if self._box is None:
            return
        if self._value is not None or self.choices is not None:  # a number field cannot be empty
            self._answer_widget.value = self._value
        if self._confidence is not None:  # nor can this one
            self._confidence_widget.value = self._confidence
        self._status.value = self._state()
