"""When a completion's answer has reached a stop string: its thoughts and calls are not cut by one."""

from __future__ import annotations

from collections.abc import Sequence

from workers.training.rendering.parts import PartsReader
from workers.training.rendering.stop_strings import StopStrings


class AnswerStops:
    """Follows one completion token by token."""

    def __init__(
        self, reader: PartsReader, prompt: Sequence[int], stops: StopStrings, call_tag: StopStrings | None
    ) -> None:
        """`call_tag` begins the calls, behind which no answer comes."""
        start = reader.start(prompt)
        self._tracker = reader.thoughts.follow(start) if reader.thoughts is not None else None
        self._stops = stops
        self._call_tag = call_tag
        self._answer: list[int] = []
        self._is_calling = False

    def push(self, token: int) -> bool:
        """Takes the next token; says whether it has completed a stop string of the answer."""
        if self._tracker is not None and self._tracker.phase != "behind":
            was_thinking = self._tracker.phase == "thoughts"
            self._tracker.push(token)
            if was_thinking or self._tracker.phase == "thoughts":
                self._answer = []
                return False
        self._answer.append(token)
        if self._tracker is not None and self._tracker.phase == "before":
            return False
        if self._call_tag is not None and not self._is_calling:
            self._is_calling = self._call_tag.is_complete(self._answer)
        return not self._is_calling and self._stops.is_complete(self._answer)
