"""What learners touch in the notebooks: `Predict`, and `EpsilonExplorer`, imported only when it is asked for."""

from typing import Any

from pplkit.prediction import Predict

__all__ = ["EpsilonExplorer", "Predict"]  # noqa: F822


def __getattr__(name: str) -> Any:
    """The explorer needs ipywidgets; predictions must also work where it is missing."""
    if name == "EpsilonExplorer":
        from pplkit.explorer import EpsilonExplorer

        return EpsilonExplorer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
