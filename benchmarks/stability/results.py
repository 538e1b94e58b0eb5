"""Results on disk: a line of JSON for each run, appended as soon as the run is over, and never changed."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

Result = dict[str, Any]


def read(path: Path) -> dict[str, Result]:
    """Returns the results in a file by their run's id.

    The last line may be torn, where a chunk was killed.
    """
    if not path.exists():
        return {}
    lines = path.read_text().split("\n")
    whole, torn = lines[:-1], lines[-1]
    found = [json.loads(line) for line in whole]
    if torn:
        found += _if_whole(torn)
    return {result["id"]: result for result in found}


def _if_whole(line: str) -> list[Result]:
    try:
        return [json.loads(line)]
    except ValueError:
        return []


@contextmanager
def appending(path: Path) -> Iterator[TextIO]:
    """Opens a file for more results, for one chunk at a time; drops a torn last line.

    Raises `BlockingIOError` while another chunk has it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.seek(0)
        text = file.read()
        file.truncate(len(text[: text.rfind("\n") + 1].encode()))
        yield file


def append(file: TextIO, result: Result) -> None:
    """Adds one result and leaves none of it in memory."""
    file.write(json.dumps(result, ensure_ascii=True) + "\n")
    file.flush()
