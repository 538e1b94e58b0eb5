"""Draws a curve as small as a word."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

WIDTH, HEIGHT, MARGIN = 120, 28, 3
SPARK = Markup(
    '<svg class="spark" viewBox="0 0 {width} {height}" role="img" aria-label="{label}">'
    '<polyline points="{points}"/><circle cx="{x}" cy="{y}" r="2.2"/></svg>'
)


def spark(values: Sequence[float] | None) -> Markup:
    """Returns an SVG of a curve from its least to its greatest value; nothing for fewer than two points."""
    if not values or len(values) < 2:
        return Markup("")
    low, high = min(values), max(values)
    span = high - low or 1.0
    wide, tall = WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN
    points = [
        (MARGIN + wide * place / (len(values) - 1), MARGIN + tall * (high - value) / span)
        for place, value in enumerate(values)
    ]
    return SPARK.format(
        width=WIDTH,
        height=HEIGHT,
        label=f"from {values[0]:.3g} to {values[-1]:.3g}, between {low:.3g} and {high:.3g}",
        points=" ".join(f"{x:.1f},{y:.1f}" for x, y in points),
        x=f"{points[-1][0]:.1f}",
        y=f"{points[-1][1]:.1f}",
    )
