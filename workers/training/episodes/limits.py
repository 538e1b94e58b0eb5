"""How far an episode may go."""

from __future__ import annotations

from typing import NamedTuple


class EpisodeLimits(NamedTuple):
    """Bounds one episode. Where it reaches one, it is graded as it stands, and was cut.

    Attributes:
        steps: most turns of the policy.
        tokens: most tokens that the policy may choose, in all turns together.
        context: most tokens of prompt, turns and replies together.
    """

    steps: int
    tokens: int
    context: int
