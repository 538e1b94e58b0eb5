"""Shows what the engine warns of, with the reason: a fall-back is logged and stops nothing."""

from __future__ import annotations

import logging


class _WithReason(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """Returns the event's name and why it happened."""
        return f"warning: {record.getMessage()}: {getattr(record, 'reason', 'no reason given')}"


def show_warnings() -> None:
    """Prints warnings of this process from now on."""
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    handler.setFormatter(_WithReason())
    logging.getLogger().addHandler(handler)
