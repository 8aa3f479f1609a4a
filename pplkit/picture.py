"""Pictures of the ε explorer as SVG text: drawn in milliseconds, sharp at any size, readable by a screen reader.

`view_svg` shows one query at one ε, `curve_svg` the mAP over all ε. The live widget and the static site draw with the same two.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from html import escape

from PIL import Image
from torch import Tensor

from pplkit import plots
from pplkit.budget import format_epsilon
from pplkit.scenarios import SCENARIOS
from pplkit.sweep import View

WIDTH, CURVE_HEIGHT = 960, 262  # in the units of the pictures
GREY, LIGHT = "#555555", "#d9d9d9"
COLOURS = dict(zip(SCENARIOS, (plots.BLUE, plots.ORANGE, plots.GREEN, plots.VERMILION), strict=True))
DASHES = dict(zip(SCENARIOS, ("", "9 4", "7 3 2 3", "2 3"), strict=True))
WORDS = {"C": "clean", "A": "protected"}


def png_uri(image: Tensor) -> str:
    """uint8 (C, H, W) -> data URI of a PNG."""
    pixels = image.permute(1, 2, 0).contiguous().numpy()  # (H, W, C)
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(file, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def amplified(view: View) -> tuple[Tensor, int]:
    """The change as an image around middle grey, uint8 (C, H, W), and by how much it is multiplied."""
    change = view.protected.short() - view.clean.short()  # (C, H, W)
    factor = max(1, 127 // max(1, int(change.abs().max())))
    return (128 + factor * change).clamp(0, 255).byte(), factor


def view_svg(view: View, *, classes: Sequence[str] | None = None, victim: str = "", highlight: str | None = None,
             mean: str = "shown", scenarios: Sequence[str] = SCENARIOS, href: Callable[[Tensor], str] = png_uri) -> str:
    """One query at one ε: clean image, change, protected image, both codes, the results of the scenarios.

    Args:
        view: what to show.
        classes: names of the labels; None shows their numbers.
        victim: name of the victim, for the description.
        highlight: scenario to stand out, the others fade; None for all alike.
        mean: the mAP of every scenario is "shown", "hidden" behind a question mark, or "none".
        scenarios: rows of results.
        href: uint8 image (C, H, W) -> address of it, a data URI by default.

    Returns:
        An <svg> element with data-epsilon, data-query, data-victim and data-state ("exact", or "computing" while scenarios are
        missing).
    """
    name = str(view.label) if classes is None else classes[view.label]
    change, factor = amplified(view)
    parts = []
    captions = (f"clean: {name}", f"change × {factor} (grey: none)", "protected")
    for place, (image, caption) in enumerate(zip((view.clean, change, view.protected), captions, strict=True)):
        left = 10 + 170 * place
        parts.append(_image(href(image), left, 26, 150, caption))
        parts.append(_text(left + 75, 17, caption, anchor="middle", size=15))
    parts.append(_codes(view, 530))
    parts.append(_text(530, 128, f"ε = {format_epsilon(view.epsilon)}", size=19, weight="bold"))
    parts.append(_text(530, 150, f"PSNR {view.psnr:.1f} dB, SSIM {view.ssim:.2f}", size=16))
    parts.append(_text(530, 171, f"{view.flipped} of {view.codes.shape[1]} bits flipped", size=16))
    for row, scenario in enumerate(scenarios):
        faded = highlight is not None and scenario != highlight
        inside = _results(view, scenario, href, mean)
        parts.append(f'<g transform="translate(0 {194 + 82 * row})" opacity="{0.25 if faded else 1}">{inside}</g>')
    missing = any(scenario not in view.results for scenario in scenarios) or mean != "none" and not view.mean
    described = f"Query {view.query}, {name}, ε = {format_epsilon(view.epsilon)}, {victim}: {view.text}"
    return _svg(view_height(len(scenarios)), described, parts,
                f'data-epsilon="{view.epsilon:.3f}" data-query="{view.query}" data-victim="{escape(victim)}" '
                f'data-state="{"computing" if missing else "exact"}"')


def view_height(rows: int) -> int:
    """Height of `view_svg` with so many scenarios."""
    return 194 + 82 * rows


def _codes(view: View, left: int) -> str:
    """Both codes as two rows of cells, 1 dark and 0 light; a flipped bit is framed and crossed out."""
    bits = view.codes.shape[1]
    step = min(24.0, (WIDTH - 10 - left - 80) / bits)
    parts = []
    for row, word in enumerate(("clean", "protected")):
        top = 26 + 40 * row
        parts.append(_text(left, top + 20, word, size=15))
        for place, bit in enumerate(view.codes[row].tolist()):
            x, fill, ink = left + 80 + step * place, *(("#333333", "#ffffff") if bit > 0 else ("#eeeeee", "#333333"))
            flipped = row == 1 and bool(view.codes[0, place] != view.codes[1, place])
            edge = f'stroke="{plots.VERMILION}" stroke-width="3"' if flipped else 'stroke="#999999" stroke-width="1"'
            parts.append(f'<rect x="{x:.1f}" y="{top}" width="{step - 4:.1f}" height="28" fill="{fill}" {edge}/>')
            if step >= 16:
                parts.append(_text(x + step / 2 - 2, top + 19, "1" if bit > 0 else "0", anchor="middle", size=13, fill=ink))
            if flipped:
                parts.append(_text(x + step / 2 - 2, top + 42, "×", anchor="middle", size=15, fill=plots.VERMILION))
    return "".join(parts)


def _results(view: View, scenario: str, href: Callable[[Tensor], str], mean: str) -> str:
    """One scenario's row: its name, the results framed solid with ✓ or dashed with ✗, how many are right, its mAP."""
    asks, domain = scenario.split("->")
    parts = [f'<rect x="10" y="2" width="5" height="66" fill="{COLOURS[scenario]}"/>',
             _text(24, 27, _arrow(scenario), size=18, weight="bold"),
             _text(24, 46, f"{WORDS[asks]} query,", size=12, fill=GREY),
             _text(24, 62, f"{WORDS[domain]} database", size=12, fill=GREY)]
    places = len(next(iter(view.results.values())))
    step = min(70.0, 660 / places)
    side = step - 14
    if scenario not in view.results:
        parts.append(_text(150, 40, "encoding the database at this ε …", size=15, fill=GREY))
        return "".join(parts)
    relevant = view.relevant(scenario).tolist()
    for place, (image, right) in enumerate(zip(view.results[scenario], relevant, strict=True)):
        colour, mark, style = plots.RELEVANT if right else plots.IRRELEVANT
        x = 150 + step * place
        dash = "" if style == "-" else 'stroke-dasharray="5 3"'
        parts.append(_image(href(image), x, 2, side, f"result {place + 1}, {'relevant' if right else 'not relevant'}"))
        parts.append(f'<rect x="{x:.1f}" y="2" width="{side:.1f}" height="{side:.1f}" fill="none" stroke="{colour}" '
                     f'stroke-width="3" {dash}/>')
        parts.append(_text(x + side / 2, side + 16, mark, anchor="middle", size=13, fill=colour, weight="bold"))
    parts.append(_text(866, 28, f"{sum(relevant)} of {places} ✓", size=15))
    score = {"hidden": "?", "shown": f"{view.mean[scenario]:.2f}" if scenario in view.mean else "…"}.get(mean)
    if score is not None:
        parts.append(_text(866, 52, f"mAP {score}", size=17, weight="bold"))
    return "".join(parts)


def curve_svg(curve: Mapping[str, Mapping[float, float]], epsilon: float, *, prediction: Mapping[float, float] | None = None,
              highlight: str | None = None, maximum: float = 1.0, chance: float | None = None, hidden: str = "") -> str:
    """mAP of the four scenarios over ε, with a mark at the present ε.

    Args:
        curve: {scenario: {ε: mAP}}; scenarios may be empty.
        epsilon: where the mark stands.
        prediction: {ε: mAP} that the learner expected for A->C; it stays on the plot.
        highlight: scenario to stand out.
        maximum: right end of the axis.
        chance: mAP of an arbitrary order, a grey line.
        hidden: text shown in place of the curves; the axes stay.
    """
    left, right, top, bottom = 60, 800, 14, 216

    def x(value: float) -> float:
        return left + (right - left) * value / maximum

    def y(value: float) -> float:
        return bottom - (bottom - top) * value

    def path(points: Mapping[float, float]) -> str:
        return "M" + " L".join(f"{x(e):.1f} {y(value):.1f}" for e, value in points.items() if e <= maximum)

    parts = []
    for tick in range(6):
        value = tick / 5
        parts.append(f'<line x1="{left}" x2="{right}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="{LIGHT}"/>')
        parts.append(_text(left - 8, y(value) + 5, f"{value:.1f}", anchor="end", size=14))
        parts.append(_text(x(value * maximum), bottom + 19, f"{value * maximum:g}", anchor="middle", size=14))
    parts.append(_text((left + right) / 2, bottom + 38, "ε (pixel units)", anchor="middle", size=15))
    label = _text(0, 0, "mAP, all queries", anchor="middle", size=15)
    parts.append(f'<g transform="translate(16 {(top + bottom) / 2}) rotate(-90)">{label}</g>')
    if chance is not None and not hidden:
        parts.append(f'<line x1="{left}" x2="{right}" y1="{y(chance):.1f}" y2="{y(chance):.1f}" stroke="{GREY}" '
                     'stroke-dasharray="1 4"/>' + _text(right, y(chance) + 16, "any order", anchor="end", size=12, fill=GREY))
    for row, (scenario, points) in enumerate(curve.items()):
        faded = 0.2 if highlight is not None and scenario != highlight else 1
        style = f'fill="none" stroke="{COLOURS[scenario]}" stroke-width="3" stroke-dasharray="{DASHES[scenario]}"'
        legend = top + 18 + 24 * row
        lines = f'<path d="M{right + 20} {legend - 5} h42" {style}/>' + _text(right + 70, legend, _arrow(scenario), size=15)
        if points and not hidden:
            lines += f'<path d="{path(points)}" {style}/>'
            if epsilon in points:
                lines += (f'<circle cx="{x(epsilon):.1f}" cy="{y(points[epsilon]):.1f}" r="5" fill="{COLOURS[scenario]}"/>'
                          + _text(right + 112, legend, f"{points[epsilon]:.2f}", size=15, weight="bold"))
        parts.append(f'<g opacity="{faded}">{lines}</g>')
    if prediction:
        style = f'fill="none" stroke="{plots.PURPLE}" stroke-width="6" opacity="0.45"'
        parts.append(f'<path class="prediction" d="{path(prediction)}" {style}/>')
        parts.append(f'<path d="M{right + 20} {top + 121} h42" {style}/>')
        parts.append(_text(right + 70, top + 118, "you said", size=14) + _text(right + 70, top + 134, "(A→C)", size=14))
    parts.append(f'<path class="mark" d="M{x(epsilon):.1f} {top} V{bottom}" stroke="{plots.BLACK}" stroke-width="2"/>')
    if hidden:
        parts.append(_text((left + right) / 2, (top + bottom) / 2, hidden, anchor="middle", size=17, fill=GREY))
    known = ", ".join(f"{scenario} {points[epsilon]:.2f}" for scenario, points in curve.items() if epsilon in points)
    described = hidden or f"mAP over ε; at ε = {format_epsilon(epsilon)}: {known or 'being computed'}"
    points = len(next(iter(curve.values()), ()))
    return _svg(CURVE_HEIGHT, described, parts, f'data-epsilon="{epsilon:.3f}" data-points="{points}"')


def shapes_svg(shapes: Mapping[str, Mapping[float, float]]) -> str:
    """Small plots side by side, one per shape {ε: mAP}: what a learner may choose among."""
    parts, step = [], WIDTH / len(shapes)
    for place, (name, points) in enumerate(shapes.items()):
        left, width = step * place + 40, step - 60
        line = " L".join(f"{left + width * e:.1f} {100 - 80 * value:.1f}" for e, value in points.items())
        parts.append(f'<path d="M{left:.1f} 20 V100 H{left + width:.1f}" fill="none" stroke="{GREY}"/>'
                     f'<path d="M{line}" fill="none" stroke="{plots.PURPLE}" stroke-width="4"/>')
        parts.append(_text(left + width / 2, 16, name.split(":")[0], anchor="middle", size=16, weight="bold"))
        parts.append(_text(left + width / 2, 118, "ε from 0 to 1", anchor="middle", size=13))
        label = _text(0, 0, "mAP", anchor="middle", size=13)
        parts.append(f'<g transform="translate({left - 8:.1f} 62) rotate(-90)">{label}</g>')
    return _svg(124, "; ".join(shapes), parts)


def blank_svg(height: int) -> str:
    """An empty picture: keeps the place of one that cannot be shown."""
    return _svg(height, "nothing to show", [])


def _svg(height: int, described: str, parts: Sequence[str], attributes: str = "") -> str:
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="100%" role="img" '
            f'aria-label="{escape(described)}" {attributes} font-family="sans-serif" style="background:#fff">'
            f'{"".join(parts)}</svg>')


def _arrow(scenario: str) -> str:
    return scenario.replace("->", "→")


def _image(address: str, x: float, y: float, side: float, title: str) -> str:
    return (f'<image href="{address}" x="{x:.1f}" y="{y:.1f}" width="{side:.1f}" height="{side:.1f}" '
            f'style="image-rendering:pixelated"><title>{escape(title)}</title></image>')


def _text(x: float, y: float, text: str, *, size: int, anchor: str = "start", fill: str = "#111111",
          weight: str = "normal") -> str:
    return (f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{fill}" '
            f'font-weight="{weight}">{escape(text)}</text>')
