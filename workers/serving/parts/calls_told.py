"""Tool calls as they are told: in pieces, the first of which names the call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

CALL_ID, CALL_ID_LENGTH = "call_", 24


@dataclass(frozen=True)
class Told:
    """Is a piece of a tool call.

    Attributes:
        number: of the call among those of its completion.
        arguments: so much more of its arguments, which are JSON text.
        id: of the call, in its first piece.
        name: of the function, in its first piece.
    """

    number: int
    arguments: str
    id: str | None = None
    name: str | None = None

    def piece(self) -> dict[str, Any]:
        """Returns it as a chunk of a stream has it."""
        if self.id is None:
            return {"index": self.number, "function": {"arguments": self.arguments}}
        function = {"name": self.name, "arguments": self.arguments}
        return {"index": self.number, "id": self.id, "type": "function", "function": function}


def whole_calls(pieces: Sequence[Told]) -> list[dict[str, Any]]:
    """Returns the calls that pieces are, as a whole message has them."""
    calls: dict[int, dict[str, Any]] = {}
    for piece in pieces:
        if piece.id is not None:
            function = {"name": piece.name, "arguments": ""}
            calls[piece.number] = {"id": piece.id, "type": "function", "function": function}
        calls[piece.number]["function"]["arguments"] += piece.arguments
    return list(calls.values())
