"""Drops criteria of a rubric by chance, the same for all completions of a group.

A policy that is trained against a fixed list of criteria learns to please the judge on that list; a list that
changes from step to step is harder to please without being good (arXiv 2608.11669).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from hashlib import blake2b

from graders.judges.criteria import Criterion, has_points


def kept(criteria: Sequence[Criterion], dropout: float, grader: str, draw: str) -> list[int]:
    """Returns the places of the criteria that stay in a draw, in their order.

    A share `dropout` of them goes, in the mean over draws where it is no whole number. What goes follows from
    the draw alone; without one, as in evaluations, all stay. One with points to reach always stays.
    """
    places = list(range(len(criteria)))
    if not draw or dropout == 0:
        return places
    luck = {place: _luck(grader, draw, str(place)) for place in places}
    dropped = math.floor(dropout * len(criteria) + _luck(grader, draw, "how many"))
    ranked = sorted(places, key=luck.__getitem__)
    stays = ranked[: max(1, len(criteria) - dropped)]
    if not has_points(criteria[place] for place in stays):
        stays[-1] = next(place for place in ranked if criteria[place].points > 0)
    return sorted(stays)


def _luck(*parts: str) -> float:
    """Returns a number in [0, 1) that follows from the texts."""
    digest = blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
