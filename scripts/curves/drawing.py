"""A run's curves as a small SVG: rewards on the left, the KL to the start on the right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

Steps = Sequence[dict[str, float]]
WIDTH, HEIGHT, GAP = 300, 170, 60
LEFT, TOP = 40, 30


class Curve(NamedTuple):
    """One line of a panel."""

    metric: str
    label: str
    kind: str
    has_dots: bool = False


REWARDS = (
    Curve("reward/mean", "training", "train"),
    Curve("reward/valid_mean", "validation", "valid", has_dots=True),
    Curve("reward/gold_mean", "gold grader", "gold", has_dots=True),
)
DRIFT = (Curve("kl/probe_mean", "KL to the start", "valid", has_dots=True),)
STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#444}.axis,.grid{stroke:#bbb;fill:none}.grid{stroke-width:.5}"
    ".line{fill:none;stroke-width:2}.train{stroke:#9aa4b2}.valid{stroke:#c2185b}.gold{stroke:#00796b}"
    "circle.valid{fill:#c2185b}circle.gold{fill:#00796b}"
    "text.train{fill:#6b7686;stroke:none}text.valid{fill:#c2185b;stroke:none}text.gold{fill:#00796b;stroke:none}"
)


def drawing(steps: Steps) -> str:
    """Returns the SVG of one run on a white ground, so that it can be read on a dark page too."""
    top_kl = max((step.get("kl/probe_mean", 0.0) for step in steps), default=0.0)
    width, height = 2 * (LEFT + WIDTH) + GAP + 10, TOP + HEIGHT + 40
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
        f'<style>{STYLE}</style><rect width="{width}" height="{height}" fill="#fff"/>',
        *panel(steps, REWARDS, LEFT, (0.0, 1.0), "reward"),
        *panel(steps, DRIFT, 2 * LEFT + WIDTH + GAP, (0.0, nice(top_kl)), "nats per token"),
        "</svg>\n",
    ]
    return "\n".join(parts)


def panel(
    steps: Steps, curves: Sequence[Curve], x: int, limits: tuple[float, float], title: str
) -> Iterator[str]:
    """Yields the axes, the curves that the run has, and their names."""
    last = max(step["step"] for step in steps) or 1.0
    low, high = limits
    yield f'<text x="{x}" y="14">{escape(title)}</text>'
    for share in (0.0, 0.5, 1.0):
        y = TOP + HEIGHT * (1 - share)
        yield f'<path class="grid" d="M{x} {y:g}h{WIDTH}"/>'
        yield f'<text x="{x - 6}" y="{y + 4:g}" text-anchor="end">{low + share * (high - low):g}</text>'
    yield f'<path class="axis" d="M{x} {TOP}v{HEIGHT}h{WIDTH}"/>'
    yield f'<text x="{x + WIDTH}" y="{TOP + HEIGHT + 18}" text-anchor="end">step {last:g}</text>'
    named = x + 16 + 7 * len(title)
    for curve in curves:
        drawn = [(step["step"], step[curve.metric]) for step in steps if curve.metric in step]
        if not drawn:
            continue
        points = [
            (x + WIDTH * at / last, TOP + HEIGHT * (1 - (min(max(value, low), high) - low) / (high - low)))
            for at, value in drawn
        ]
        yield f'<path class="line {curve.kind}" d="M{" ".join(f"{px:.1f} {py:.1f}" for px, py in points)}"/>'
        if curve.has_dots:
            yield "".join(
                f'<circle class="{curve.kind}" cx="{px:.1f}" cy="{py:.1f}" r="3"/>' for px, py in points
            )
        yield f'<text class="{curve.kind}" x="{named}" y="14">{escape(curve.label)}</text>'
        named += 12 + 7 * len(curve.label)


def nice(value: float) -> float:
    """Returns the next 1, 2 or 5 of a power of ten at or above a value, and 0.01 at least."""
    size = 0.01
    while True:
        for factor in (1, 2, 5):
            if size * factor >= value:
                return round(size * factor, 6)
        size *= 10
