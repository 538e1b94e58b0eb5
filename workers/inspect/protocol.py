"""What an inspection's process reads and writes.

It reads the arguments, a JSON object, from stdin. It writes one JSON object to stdout: `{"found": {...}}`,
`{"missing": "torch"}` if that library is not installed, or `{"out_of_memory": true}`. Whatever libraries
print goes to stderr, and so does the traceback of any other fault.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

MAX_BYTES = 2**20
"""Of what is written: the reader holds it in memory."""

Inspection = Callable[..., dict[str, Any]]


def respond(inspections: Mapping[str, Inspection], name: str) -> None:
    """Carries out the inspection of that name and writes what it found."""
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as out:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        out.write(_response(inspections[name], json.load(sys.stdin)))


def _response(inspection: Inspection, arguments: dict[str, Any]) -> bytes:
    try:
        response: dict[str, Any] = {"found": inspection(**arguments)}
    except ModuleNotFoundError as error:
        response = {"missing": error.name}
    except MemoryError:
        response = {"out_of_memory": True}
    written = json.dumps(response).encode()
    if len(written) > MAX_BYTES:
        raise ValueError(f"The inspection found {len(written)} bytes; at most {MAX_BYTES} can be told.")
    return written
