"""Draws line charts as SVG on the server: the pages need no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

WIDTH, HEIGHT = 560, 220
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 30
DOTS_BELOW = 40
"""Curves of fewer points than this show each point."""

FIGURE = Markup(
    "<figure><figcaption>{title} {legend}</figcaption>"
    '<svg viewBox="0 0 {width} {height}" role="img" aria-label="{title}">{body}</svg></figure>'
)
CURVE = Markup('<polyline class="{style}" points="{points}"/>')
DOT = Markup('<circle class="{style}" cx="{x}" cy="{y}" r="2.5"/>')
KEY = Markup('<span class="key {style}">{label}</span>')
LINE = Markup('<line class="grid-line" x1="{left}" x2="{right}" y1="{y}" y2="{y}"/>')
MARK = Markup('<line class="mark" x1="{x}" x2="{x}" y1="{top}" y2="{bottom}"><title>{text}</title></line>')
TICK = Markup('<text x="{x}" y="{y}" class="tick {anchor}">{text}</text>')


@dataclass(frozen=True)
class Line:
    """One curve: points are (step, value), in step order; `style` is a CSS class."""

    label: str
    style: str
    points: Sequence[tuple[int, float]]


@dataclass(frozen=True)
class Scale:
    """Maps steps and values to SVG coordinates."""

    low: float
    high: float
    last: int

    def x(self, step: float) -> str:
        return f"{LEFT + (WIDTH - LEFT - RIGHT) * step / self.last:.1f}"

    def y(self, value: float) -> str:
        return f"{TOP + (HEIGHT - TOP - BOTTOM) * (self.high - value) / (self.high - self.low):.1f}"


def line_chart(title: str, lines: Sequence[Line], marks: Mapping[int, str] | None = None) -> Markup:
    """Returns an SVG figure, or an empty string while there is nothing to draw.

    `marks` are texts by step, each shown at an upright line.
    """
    drawn = [line for line in lines if line.points]
    if not drawn:
        return Markup("")
    points = [point for line in drawn for point in line.points]
    scale = Scale(*value_range([value for _, value in points]), last=max(1, *(step for step, _ in points)))
    body = Markup("").join(
        [_grid(scale), *(_curve(line, scale) for line in drawn), *_marks(marks or {}, scale)]
    )
    legend = Markup(" ").join(KEY.format(style=line.style, label=line.label) for line in drawn)
    return FIGURE.format(title=title, legend=legend, width=WIDTH, height=HEIGHT, body=body)


def value_range(values: Sequence[float]) -> tuple[float, float]:
    """Returns the lowest and highest value to show: from 0 where nothing is below it, and never an empty
    range."""
    low, high = min(0.0, *values), max(values)
    return (low, high) if high - low > 1e-9 else (low, low + 1.0)


def _curve(line: Line, scale: Scale) -> Markup:
    at = [(scale.x(step), scale.y(value)) for step, value in line.points]
    curve = CURVE.format(style=line.style, points=" ".join(f"{x},{y}" for x, y in at))
    if len(at) >= DOTS_BELOW:
        return curve
    return curve + Markup("").join(DOT.format(style=line.style, x=x, y=y) for x, y in at)


def _marks(marks: Mapping[int, str], scale: Scale) -> list[Markup]:
    bottom = HEIGHT - BOTTOM
    shown = [(scale.x(step), text) for step, text in marks.items() if step <= scale.last]
    return [MARK.format(x=x, top=TOP, bottom=bottom, text=text) for x, text in shown]


def _grid(scale: Scale) -> Markup:
    drawn = []
    for quarter in range(5):
        value = scale.low + (scale.high - scale.low) * quarter / 4
        step = round(scale.last * quarter / 4)
        drawn += [
            LINE.format(left=LEFT, right=WIDTH - RIGHT, y=scale.y(value)),
            TICK.format(x=LEFT - 6, y=float(scale.y(value)) + 4, anchor="end", text=f"{value:.3g}"),
            TICK.format(x=scale.x(step), y=HEIGHT - 10, anchor="middle", text=step),
        ]
    return Markup("").join(drawn)
