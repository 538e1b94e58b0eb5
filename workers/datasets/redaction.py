"""Redacts rows by the owner's own function, run in the sandbox: what it has not returned is not written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from app.sandbox import local_sandbox, sandbox_settings
from app.settings import get_settings
from graders.services import Limits, Outcome, Program, Sandbox
from methods.rows import MAX_LINE_BYTES

FUNCTION = "redact"
LIMITS = Limits(
    wall_seconds=30, cpu_seconds=30, memory_bytes=2**30, output_bytes=4096, result_bytes=MAX_LINE_BYTES
)
"""Chosen, not measured: a row is at most 4 MiB, and a regular expression over it takes milliseconds."""
MOST_TOLD = 500
"""Characters of a fault that are told. Chosen: the last lines of a traceback."""
AT_ONCE = 64
"""Rows that are handed over between two looks at the lease. Chosen, not measured."""


class RedactionFailed(Exception):
    """The function failed on a row, or there is no sandbox to run it in; the message says which and why."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def redacted(
    source: str, rows: Sequence[dict[str, Any]], tell: Callable[[int], None]
) -> list[dict[str, Any] | None]:
    """Returns each row as `redact(row)` gives it back; None for those that it leaves out.

    `tell` is told how many rows are done. Raises `RedactionFailed` at the first row that fails.
    """
    settings = sandbox_settings(get_settings())
    sandbox = local_sandbox(settings)
    if (missing := sandbox.why_not()) is not None:
        told = (
            f"A redaction function runs code, which this service does only in a sandbox that holds: {missing}"
        )
        raise RedactionFailed("sandbox_unavailable", told)
    found: list[dict[str, Any] | None] = []
    with ThreadPoolExecutor(settings.slots, thread_name_prefix="redaction") as pool:
        for start in range(0, len(rows), AT_ONCE):
            outcomes = pool.map(lambda row: _run(sandbox, source, row), rows[start : start + AT_ONCE])
            found += [_row(outcome, start + n) for n, outcome in enumerate(outcomes, 1)]
            tell(len(found))
    return found


def _run(sandbox: Sandbox, source: str, row: dict[str, Any]) -> Outcome:
    return sandbox.run(Program(source, FUNCTION, [row], limits=LIMITS))


def _row(outcome: Outcome, number: int) -> dict[str, Any] | None:
    if outcome.fault == "server":
        raise RedactionFailed("sandbox_unavailable", outcome.message[:MOST_TOLD])
    if outcome.fault is not None:
        shown = outcome.message[-MOST_TOLD:]
        raise RedactionFailed(
            "redaction_failed", f"redact(row) failed on row {number} ({outcome.fault}): {shown}"
        )
    if outcome.value is not None and not isinstance(outcome.value, dict):
        kind = type(outcome.value).__name__
        raise RedactionFailed(
            "redaction_failed",
            f"redact(row) returned {kind} for row {number}; it must return the row, or None to leave it out.",
        )
    return outcome.value
