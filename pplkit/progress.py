"""Progress bars: one place that decides how they look and when they keep quiet.

tqdm's own switch, the environment variable TQDM_DISABLE, does not reach its notebook form and loses
against an explicit ``disable=False``. Headless runs of the notebooks need it to hold: a bar's text differs
every time and would be compared with the stored output.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from tqdm.auto import tqdm


def progress_bar(
    iterable: Iterable | None = None,
    *,
    show: bool = True,
    description: str = "",
    unit: str = "step",
    total: int | None = None,
    initial: int = 0,
) -> tqdm:
    """A tqdm bar over `iterable`, or one to ``update``; silent unless `show` and while TQDM_DISABLE is set.

    Args:
        iterable: what to loop over; ``None`` for a bar that is updated by hand.
        show: whether to show the bar at all.
        description: text before the bar.
        unit: what one step is called.
        total: number of steps where the iterable has no length.
        initial: steps done before, in a run that goes on.

    Returns:
        The bar; iterating over it yields the items of `iterable`.
    """
    silent = not show or os.environ.get("TQDM_DISABLE", "") not in ("", "0")
    return tqdm(
        iterable,
        desc=description,
        unit=unit,
        total=total,
        initial=initial,
        disable=silent,
        dynamic_ncols=True,
    )
