"""Draws reward over the base against KL: a dot for each checkpoint, a line through the frontier."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from app.cards.points import Point

WIDTH, HEIGHT = 560, 220
LEFT, RIGHT, TOP, BOTTOM = 52, 26, 12, 30
FIGURE = Markup(
    "<figure><figcaption>{title} {legend}</figcaption>"
    '<svg viewBox="0 0 {width} {height}" role="img" aria-label="{title}">{body}</svg></figure>'
)
CURVE = Markup('<polyline class="{style}" points="{points}"/>')
DOT = Markup('<circle class="{style}" cx="{x}" cy="{y}" r="4"><title>{text}</title></circle>')
KEY = Markup('<span class="key {style}">{label}</span>')
LINE = Markup('<line class="grid-line" x1="{left}" x2="{right}" y1="{y}" y2="{y}"/>')
TICK = Markup('<text x="{x}" y="{y}" class="tick {anchor}">{text}</text>')
TITLE = "Reward over base against KL, nats/token"
RING = Markup('<circle class="ring" cx="{x}" cy="{y}" r="8"/>')
QUARTERS = range(5)


class Plane:
    """Maps KL and gain to SVG coordinates. Bounds of gains may lie outside and are not drawn."""

    def __init__(self, kls: Sequence[float], gains: Sequence[float]) -> None:
        self.low, self.high = value_range(gains)
        _, self.last = value_range(kls)

    def x(self, kl: float) -> str:
        return f"{LEFT + (WIDTH - LEFT - RIGHT) * kl / self.last:.1f}"

    def y(self, gain: float) -> str:
        return f"{TOP + (HEIGHT - TOP - BOTTOM) * (self.high - gain) / (self.high - self.low):.1f}"


def frontier_chart(points: Sequence[Point]) -> Markup:
    """Returns an SVG figure, or an empty string where no two checkpoints can be compared."""
    known = [(point, point.gain) for point in points if point.gain is not None]
    if len(known) < 2:
        return Markup("")
    plane = Plane([point.checkpoint.kl for point, _ in known], [gain for _, gain in known])
    best = sorted((point.checkpoint.kl, gain) for point, gain in known if point.on_frontier)
    line = CURVE.format(style="b", points=" ".join(f"{plane.x(kl)},{plane.y(gain)}" for kl, gain in best))
    dots = [_dot(point, gain, plane) for point, gain in known]
    legend = Markup(" ").join(
        [KEY.format(style="a", label="checkpoint"), KEY.format(style="b", label="frontier")]
    )
    body = Markup("").join([_grid(plane), line, *dots])
    return FIGURE.format(title=TITLE, legend=legend, width=WIDTH, height=HEIGHT, body=body)


def _dot(point: Point, gain: float, plane: Plane) -> Markup:
    x, y = plane.x(point.checkpoint.kl), plane.y(gain)
    text = f"step {point.checkpoint.step}: {gain:+.3f} for a KL of {point.checkpoint.kl:.4f}"
    dot = DOT.format(style="b" if point.on_frontier else "a", x=x, y=y, text=text)
    return dot + RING.format(x=x, y=y) if point.is_delivered else dot


def _grid(plane: Plane) -> Markup:
    drawn = []
    for quarter in QUARTERS:
        gain = plane.low + (plane.high - plane.low) * quarter / 4
        kl = plane.last * quarter / 4
        drawn += [
            LINE.format(left=LEFT, right=WIDTH - RIGHT, y=plane.y(gain)),
            TICK.format(x=LEFT - 6, y=float(plane.y(gain)) + 4, anchor="end", text=f"{gain:.3g}"),
            TICK.format(x=plane.x(kl), y=HEIGHT - 10, anchor="middle", text=f"{kl:.3g}"),
        ]
    return Markup("").join(drawn)


def value_range(values: Sequence[float]) -> tuple[float, float]:
    """Returns the lowest and highest value to show: from 0 where nothing is below it, and never an empty
    range."""
    low, high = min(0.0, *values), max(values)
    return (low, high) if high - low > 1e-9 else (low, low + 1.0)
