"""Fetches something large over HTTP: goes on where it stopped, waits while it is made, and checks its sum."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import httpx2 as httpx

from app.cli.output import CliError

TRIES = 5
"""How often a broken connection is taken up again without a byte more. Chosen, not measured."""
PAUSE_SECONDS = 1.0
CHUNK = 1 << 20
OK, MADE_NOW, PART, BEHIND_END = 200, 202, 206, 416


class Telling(NamedTuple):
    """What is told while something is fetched.

    Attributes:
        bytes: how many are here, and how many there are.
        making: what the service says of how far it is.
    """

    bytes: Callable[[int, int], None]
    making: Callable[[dict[str, Any]], None]


class _Kept:
    """The part that is here, and what it is a part of."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._note = path.with_name(f"{path.name}.etag")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() and self._note.is_file() else 0

    def asks_for(self) -> dict[str, str]:
        """Returns the headers that ask for the rest of it, if that is still the same."""
        if not self.size:
            return {}
        return {"range": f"bytes={self.size}-", "if-range": self._note.read_text()}

    def begin(self, etag: str) -> None:
        self.path.unlink(missing_ok=True)
        self._note.write_text(etag)

    def forget(self) -> None:
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)


def fetch(client: httpx.Client, path: str, part: Path, telling: Telling) -> None:
    """Brings what is at a path of the service to the file `part`, of which some may be here already.

    What has come stays where it breaks off, unless it is damaged. Raises `CliError`.
    """
    kept, failures = _Kept(part), 0
    while True:
        before = kept.size
        try:
            digest = _take(client, path, kept, telling)
        except httpx.TransportError as problem:
            failures = 1 if kept.size > before else failures + 1
            if failures == TRIES:
                raise CliError(
                    f"the connection broke off ({problem}), {kept.size:,} bytes are here: run the command"
                    " again, and it goes on from there"
                ) from None
            time.sleep(PAUSE_SECONDS)
            continue
        if digest is not None:
            _check(kept, digest)
            return


def _take(client: httpx.Client, path: str, kept: _Kept, telling: Telling) -> bytes | None:
    """Takes what one response brings. Returns the SHA-256 of all once that is here, None to ask again."""
    with client.stream("GET", path, headers=kept.asks_for()) as response:
        if response.status_code == MADE_NOW:
            telling.making(json.loads(response.read()))
            time.sleep(float(response.headers.get("retry-after", PAUSE_SECONDS)))
            return None
        if response.status_code == BEHIND_END:  # all of it is here, or more than there is
            return _behind_end(kept, response)
        if response.status_code not in (OK, PART):
            raise CliError(_message(response))
        if response.status_code == OK:
            kept.begin(response.headers["etag"])
        total = kept.size + int(response.headers["content-length"])
        with kept.path.open("ab") as file:
            for chunk in response.iter_bytes(CHUNK):
                file.write(chunk)
                file.flush()
                telling.bytes(file.tell(), total)
        return _digest(response)


def _behind_end(kept: _Kept, response: httpx.Response) -> bytes | None:
    """Returns the sum where all is here: then the version that it was begun of is its name."""
    size = response.headers.get("content-range", "").rpartition("/")[2]
    digest = kept.asks_for()["if-range"].strip('"')
    if size != str(kept.size):
        kept.forget()
        return None
    return bytes.fromhex(digest)


def _digest(response: httpx.Response) -> bytes:
    said = response.headers["repr-digest"].removeprefix("sha-256=").strip(":")
    return base64.b64decode(said)


def _check(kept: _Kept, digest: bytes) -> None:
    with kept.path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").digest()
    if found != digest:
        kept.forget()
        raise CliError(
            f"what was downloaded is damaged: its sha256 is {found.hex()}, and should be {digest.hex()}."
            " It was removed; run the command again"
        )
    kept.path.with_name(f"{kept.path.name}.etag").unlink(missing_ok=True)


def _message(response: httpx.Response) -> str:
    try:
        return str(json.loads(response.read())["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"the service answers {response.status_code}"
