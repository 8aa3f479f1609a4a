"""Predictions: by assignment, by widget, without widgets; deterministic text; bad input is quoted."""

import subprocess
import sys

import pytest

from pplkit.prediction import START_CONFIDENCE, Predict

CHOICES = ["C->A", "A->C"]


def shown(guess: Predict):
    """The widgets that a front end would show: (answer, button or None, confidence or None, status label)."""
    guess._repr_mimebundle_()
    _, answer, *others, status = guess._box.children
    button = answer.children[2] if guess.choices is None else None
    answer = answer.children[0] if guess.choices is None else answer
    return answer, button, others[0] if others else None, status


def test_choice_by_assignment(capsys):
    guess = Predict("Which suffers more?", choices=CHOICES)
    assert guess.value is None
    guess.value = "C->A"
    assert guess.value == "C->A"
    assert guess.reveal("C->A") is None
    guess.reveal("A->C", because="Its mAP is 0.18.")
    assert capsys.readouterr().out == (
        "you predicted C->A, the result is C->A: ✓ as predicted\n"
        "you predicted C->A, the result is A->C: ✗ not as predicted\nIts mAP is 0.18.\n"
    )


def test_number_by_assignment(capsys):
    guess = Predict("How high?", low=0, high=1, unit="mAP")
    for value in (0.5, 0.1, 0.3):
        guess.value = value
        guess.reveal(0.3)
    assert capsys.readouterr().out == (
        "you predicted 0.50 mAP, the result is 0.30 mAP: 0.20 mAP too high\n"
        "you predicted 0.10 mAP, the result is 0.30 mAP: 0.20 mAP too low\n"
        "you predicted 0.30 mAP, the result is 0.30 mAP: ✓ as predicted\n"
    )


def test_without_prediction_the_text_is_the_same_each_time(capsys):
    Predict("Which?", choices=CHOICES).reveal("A->C", because="Because.")
    Predict("How many?", decimals=0, unit="bits").reveal(7)
    assert capsys.readouterr().out == (
        "no prediction was made: the result is A->C\nBecause.\nno prediction was made: the result is 7 bits\n"
    )


def test_confidence(capsys):
    guess = Predict("Which?", choices=CHOICES, confidence=True)
    guess.confidence = 70
    guess.value = "A->C"
    guess.reveal("A->C")
    assert capsys.readouterr().out == "you predicted A->C (70 % sure), the result is A->C: ✓ as predicted\n"
    for wrong in (-10, 70.5, 101, "70", True):
        with pytest.raises(ValueError, match="confidence is .* a whole number of percent from 0 to 100"):
            guess.confidence = wrong
    with pytest.raises(ValueError, match="confidence=True"):
        Predict("Which?", choices=CHOICES).confidence = 50


def test_a_prediction_can_be_taken_back(capsys):
    guess = Predict("Which?", choices=CHOICES)
    guess.value = "A->C"
    guess.value = None
    guess.reveal("A->C")
    assert capsys.readouterr().out.startswith("no prediction was made")


@pytest.mark.parametrize("wrong", ["C->C", "c->a", 0, 1.0, True, ["C->A"]])
def test_wrong_choice_is_quoted_with_the_choices(wrong):
    guess = Predict("Which?", choices=CHOICES)
    guess.value = "C->A"
    with pytest.raises(ValueError) as caught:
        guess.value = wrong
    assert str(caught.value) == f"value is {wrong!r}; choose one of 'C->A', 'A->C'"
    assert guess.value == "C->A"
    with pytest.raises(ValueError, match="result is"):
        guess.reveal(wrong)


@pytest.mark.parametrize("wrong", [-0.1, 1.1, float("nan"), float("inf"), "0.5", True, [0.5], None.__class__])
def test_wrong_number_is_quoted_with_the_range(wrong):
    guess = Predict("How high?", low=0, high=1, unit="mAP")
    with pytest.raises(ValueError) as caught:
        guess.value = wrong
    assert str(caught.value) == f"value is {wrong!r}; a number from 0 to 1 mAP is needed"


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"low": 3}, "a number of at least 3 is needed"),
        ({"high": 3}, "a number of at most 3 is needed"),
        ({"unit": "bits"}, r"a number \(bits\) is needed"),
        ({}, "a number is needed"),
    ],
)
def test_ranges_in_words(limits, words):
    with pytest.raises(ValueError, match=words):
        Predict("How many?", **limits).value = float("nan")


def test_results_may_lie_outside_the_range(capsys):
    Predict("How many?", high=10, decimals=1).reveal(11)
    assert capsys.readouterr().out == "no prediction was made: the result is 11.0\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"question": " "}, "question is ' '"),
        ({"question": "?", "choices": ["a"]}, "at least two different"),
        ({"question": "?", "choices": ["a", "a"]}, "at least two different"),
        ({"question": "?", "choices": "ab"}, "list of strings"),
        ({"question": "?", "choices": [8, 16]}, "list of strings"),
        ({"question": "?", "choices": ["a", "b"], "unit": "mAP"}, "belong to a number"),
        ({"question": "?", "low": 1, "high": 1}, "low must be smaller"),
        ({"question": "?", "decimals": -1}, "decimals is -1"),
    ],
)
def test_bad_questions(arguments, words):
    with pytest.raises(ValueError, match=words):
        Predict(**arguments)


def test_text_form():
    guess = Predict("Which?", choices=CHOICES, confidence=True)
    assert repr(guess) == (
        "Which?\n  - C->A\n  - A->C\n"
        "Answer here, or by assignment: .value = 'C->A' and .confidence = 70\n(no prediction yet)"
    )
    number = Predict("How high?", low=0, high=1, unit="mAP")
    number.value = 0.25
    assert repr(number) == (
        "How high? A number from 0 to 1 mAP.\n"
        "Answer here, or by assignment: .value = 0.00\n(your prediction: 0.25 mAP)"
    )


def test_notebook_gets_widget_and_text():
    guess = Predict("Which?", choices=CHOICES)
    bundle = guess._repr_mimebundle_()
    assert bundle["text/plain"] == repr(guess)
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert (
        guess._repr_mimebundle_()["application/vnd.jupyter.widget-view+json"]
        == (bundle["application/vnd.jupyter.widget-view+json"])
    )


def test_choice_by_widget():
    guess = Predict("Is 1 < 2 & true?", choices=CHOICES, confidence=True)
    answer, _, confidence, status = shown(guess)
    assert answer.description == "Answer"
    assert "1 &lt; 2 &amp; true" in guess._box.children[0].value
    assert (answer.value, confidence.value, status.value) == (None, START_CONFIDENCE, "no prediction yet")
    assert guess.confidence is None
    answer.value = "A->C"
    assert status.value == "your prediction: A->C (50 % sure)"
    confidence.value = 80
    assert (guess.value, guess.confidence) == ("A->C", 80)
    assert status.value == "your prediction: A->C (80 % sure)"


def test_assignment_reaches_the_widget():
    guess = Predict("Which?", choices=CHOICES, confidence=True)
    guess.value = "A->C"
    answer, _, confidence, status = shown(guess)
    assert answer.value == "A->C"
    guess.value, guess.confidence = "C->A", 20
    assert (answer.value, confidence.value) == ("C->A", 20)
    guess.value = guess.confidence = None
    assert (answer.value, status.value) == (None, "no prediction yet")


def test_number_by_widget_needs_an_action():
    guess = Predict("How high?", low=0, high=1, unit="mAP")
    answer, button, _, status = shown(guess)
    assert answer.value == 0 and guess.value is None
    button.click()
    assert guess.value == 0 and status.value == "your prediction: 0.00 mAP"
    answer.value = 0.4
    assert guess.value == 0.4
    guess.value = 0.7
    assert answer.value == 0.7


@pytest.mark.parametrize(
    ("limits", "start"),
    [({}, 0), ({"low": 5}, 5), ({"high": -5}, -5), ({"high": 5}, 0), ({"low": 0.2, "high": 0.4}, 0.2)],
)
def test_number_field_starts_inside_finite_limits(limits, start):
    answer = shown(Predict("How many?", **limits))[0]
    assert answer.value == start
    assert all(abs(getattr(answer, name, 0)) < float("inf") for name in ("min", "max"))


def test_numbers_that_look_different_are_not_as_predicted(capsys):
    guess = Predict("How many?", decimals=0)
    guess.value = 2.4
    guess.reveal(2.6)
    guess.value = 2.6
    guess.reveal(3.4)
    assert capsys.readouterr().out.splitlines() == ["you predicted 2, the result is 3: 1 too low",
                                                    "you predicted 3, the result is 3: ✓ as predicted"]


@pytest.mark.parametrize("limits", [{"low": 0}, {"low": 2e12}, {"high": -2e12}])
def test_a_number_beyond_a_million_millions_stays_what_it_is(limits):
    guess = Predict("How many?", **limits)
    answer = shown(guess)[0]
    guess.value = 1e13 if "low" in limits else -1e13
    assert answer.value == guess.value == (1e13 if "low" in limits else -1e13)


def test_a_confidence_said_before_the_answer_stays():
    guess = Predict("Which?", choices=CHOICES, confidence=True)
    answer, _, confidence, status = shown(guess)
    confidence.value = 90
    answer.value = "C->A"
    assert status.value == "your prediction: C->A (90 % sure)"


def test_errors_in_callbacks_are_not_swallowed():
    """What the front end may send but the question does not accept must surface, not vanish."""
    guess = Predict("Which?", choices=CHOICES)
    shown(guess)
    with pytest.raises(ValueError, match="value is 'C->C'"):
        guess._answered("C->C")


def test_without_ipywidgets_the_text_remains(monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    guess = Predict("Which?", choices=CHOICES)
    assert guess._repr_mimebundle_() == {"text/plain": repr(guess)}
    guess.value = "A->C"
    assert guess._repr_mimebundle_()["text/plain"].endswith("(your prediction: A->C)")


def test_import_loads_no_widget_and_no_plot_library():
    code = (
        "import sys, pplkit, pplkit.widgets; "
        "print(sorted({'ipywidgets', 'matplotlib', 'torch'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"
