"""Asks a child process what only torch or transformers know. No process of `app` loads either.

The inspections are the modules of `workers/inspect/`. A child has limits, sees no secret of this service and
ends with the process that started it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any

from app import process

COMMAND = (sys.executable, "-m", "workers.inspect")
SHOWN_BYTES = 4096


@dataclass(frozen=True)
class ChildLimits:
    """What an inspection may take."""

    seconds: float = 60.0
    memory_bytes: int = 8 * 2**30
    """Private memory that can be written (RLIMIT_DATA). Address space that is only reserved, as CUDA does, is
    not counted."""


class InspectionError(Exception):
    """An inspection that gave no result. The message says why."""


class TrainExtraMissing(InspectionError):
    """A library that only workers need is not installed here."""

    def __init__(self, library: str) -> None:
        super().__init__(f"{library} is not installed here. To mend it: pip install 'cherry-rft[train]'")
        self.library = library


class InspectionTimedOut(InspectionError):
    """It was killed at its time limit."""


class InspectionOutOfMemory(InspectionError):
    """It asked for more memory than its limit."""


def inspect(
    name: str, /, *, limits: ChildLimits = ChildLimits(), command: Sequence[str] = COMMAND, **arguments: Any
) -> dict[str, Any]:
    """Runs one inspection with these arguments, which JSON must be able to hold, and returns what it found.

    It takes seconds, most of them to load torch, so a request calls it on a thread. `command` is the program
    that knows the inspections. Raises `InspectionError`, or the subclass of it that says why.
    """
    program = process.bound_to_parent(
        [*command, name], signal.SIGKILL, parent=os.getpid(), memory_bytes=limits.memory_bytes
    )
    pipe = subprocess.PIPE
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            program, stdin=pipe, stdout=pipe, stderr=errors, env=_environment(name), start_new_session=True
        ) as child,
    ):
        try:
            output, _ = child.communicate(json.dumps(arguments).encode(), timeout=limits.seconds)
        except subprocess.TimeoutExpired:
            message = f"The inspection '{name}' did not end within {limits.seconds:g} s and was killed."
            raise InspectionTimedOut(message) from None
        finally:
            process.kill_group(child)
        if child.returncode != 0:
            raise InspectionError(f"The inspection '{name}' failed: {_end(child.returncode, errors)}")
    return _found(name, json.loads(output), limits)


def _environment(inspection: str) -> dict[str, str]:
    """This process's, without what opens the database or the service's secrets, and without GPUs.

    An inspection of a model computes on the CPU, and takes nothing of a GPU that a training has; that of
    torch counts GPUs.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if name != "DATABASE_URL" and not name.startswith("CHERRY_")
    }
    return kept if inspection == "torch" else {**kept, "CUDA_VISIBLE_DEVICES": ""}


def _end(returncode: int, errors: IO[bytes]) -> str:
    """Says how a child ended, in the last line that it wrote if there is one."""
    if returncode < 0:
        return f"it was ended by {signal.Signals(-returncode).name}, perhaps at its memory limit."
    size = errors.seek(0, os.SEEK_END)
    errors.seek(max(0, size - SHOWN_BYTES))
    lines = errors.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"it ended with code {returncode} and wrote nothing."


def _found(name: str, response: dict[str, Any], limits: ChildLimits) -> dict[str, Any]:
    if missing := response.get("missing"):
        raise TrainExtraMissing(missing)
    if response.get("out_of_memory"):
        mib = limits.memory_bytes // 2**20
        raise InspectionOutOfMemory(
            f"The inspection '{name}' needs more than the {mib} MiB that it may take."
        )
    found: dict[str, Any] = response["found"]
    return found
