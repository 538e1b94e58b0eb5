"""Who waits, in turns: each key's requests in the order in which they came, one key after the other."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workers.serving.tickets import Ticket


class FairQueue:
    """Holds requests by key. The key that was served last comes last."""

    def __init__(self) -> None:
        self._by_key: OrderedDict[str, deque[Ticket]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._by_key)

    def __iter__(self) -> Iterator[Ticket]:
        return (ticket for waiting in self._by_key.values() for ticket in waiting)

    def put(self, ticket: Ticket) -> None:
        """Puts a request behind the others of its key."""
        self._by_key.setdefault(ticket.request.key, deque()).append(ticket)

    def heads(self) -> list[Ticket]:
        """Returns the first request of each key, in the order of their turns."""
        return [waiting[0] for waiting in self._by_key.values()]

    def serve(self, ticket: Ticket, *, is_done: bool) -> None:
        """Ends the turn of a key whose first request this is; the request leaves, or stays first."""
        waiting = self._by_key[ticket.request.key]
        if is_done:
            waiting.popleft()
        self._by_key.move_to_end(ticket.request.key)
        if not waiting:
            del self._by_key[ticket.request.key]

    def remove(self, ticket: Ticket) -> bool:
        """Forgets a request; says whether it was there."""
        waiting = self._by_key.get(ticket.request.key)
        if waiting is None or ticket not in waiting:
            return False
        waiting.remove(ticket)
        if not waiting:
            del self._by_key[ticket.request.key]
        return True
