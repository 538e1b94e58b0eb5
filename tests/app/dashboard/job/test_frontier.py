"""Reward against KL, as it is drawn."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from app.cards.points import UNKNOWN, Point
from app.checkpoints.models import Checkpoint
from app.dashboard.job.frontier_chart import frontier_chart, value_range


def drawn(chart: str) -> ElementTree.Element:
    figure = ElementTree.fromstring(chart)
    svg = figure.find("svg")
    assert svg is not None
    return svg


@pytest.mark.parametrize("values", [[0.0], [0.0, 0.0], [0.5, 0.5], [-1.0, 2.0]], ids=str)
def test_range_is_never_empty_and_holds_every_value(values: list[float]) -> None:
    low, high = value_range(values)
    assert low < high
    assert all(low <= value <= high for value in values)


def a_point(step: int, kl: float, gain: float | None, *, on: bool = False, delivered: bool = False) -> Point:
    checkpoint = Checkpoint(id=f"c{step}", step=step, kl=kl)
    return Point(checkpoint, UNKNOWN, gain, UNKNOWN, None, None, is_delivered=delivered, on_frontier=on)


def test_the_frontier_is_a_line_and_every_compared_checkpoint_a_dot() -> None:
    chart = drawn(
        frontier_chart(
            [
                a_point(0, 0.0, 0.0, on=True),
                a_point(5, 2.0, 0.1),
                a_point(10, 1.0, 0.4, on=True, delivered=True),
                a_point(15, 3.0, None),
            ]
        )
    )
    curve = chart.find("polyline")
    assert curve is not None
    (x0, y0), (x1, y1) = (tuple(map(float, point.split(","))) for point in curve.attrib["points"].split())
    assert x0 < x1
    assert y0 > y1  # SVG counts downwards
    dots = [each for each in chart.findall("circle") if each.attrib["class"] != "ring"]
    (ring,) = [each for each in chart.findall("circle") if each.attrib["class"] == "ring"]
    assert len(dots) == 3
    assert (float(ring.attrib["cx"]), float(ring.attrib["cy"])) == (x1, y1)
    assert float(dots[1].attrib["cx"]) > x1, "step 5 is farther from the base"


def test_one_checkpoint_alone_is_no_frontier() -> None:
    assert frontier_chart([a_point(0, 0.0, 0.0, on=True), a_point(5, 1.0, None)]) == ""
