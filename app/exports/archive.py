"""Tar archives that are the same bytes each time, streamed from any byte on: nothing is built on disk."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from app.files.integrity import StoredFileDamaged
from app.storage import Storage, read_chunks

BLOCK = tarfile.BLOCKSIZE


@dataclass(frozen=True)
class Member:
    """A file of an archive.

    Attributes:
        open: returns its bytes from an offset on.
        sha256: what it must be; None of a file whose sum nobody has noted.
    """

    name: str
    size: int
    open: Callable[[int], Iterator[bytes]]
    sha256: str | None


class Piece(NamedTuple):
    """Some bytes of an archive, from an offset within them on."""

    size: int
    open: Callable[[int], Iterator[bytes]]


def stored(storage: Storage, key: str, name: str, facts: Mapping[str, Any] | None) -> Member:
    """Returns a file in storage as a member. Its `facts` are bytes and sha256, as a manifest has noted them.

    Raises `FileNotFoundError` for one without facts that is not there; storage is not asked for others.
    """
    size, sha256 = (storage.size(key), None) if facts is None else (facts["bytes"], facts["sha256"])
    return Member(name, size, lambda start: storage.open_stream(key, start), sha256)


def on_disk(path: Path, name: str, sha256: str | None) -> Member:
    """Returns a file of this machine as a member. Raises `FileNotFoundError`."""
    return Member(name, path.stat().st_size, lambda start: read_chunks(path, start), sha256)


def in_memory(name: str, data: bytes) -> Member:
    """Returns a small file as a member."""
    return Member(name, len(data), lambda start: iter((data[start:],)), hashlib.sha256(data).hexdigest())


class Archive:
    """A tar of members, in their order. `modified` is the time of all of them, in seconds since 1970."""

    def __init__(self, filename: str, members: Sequence[Member], modified: int) -> None:
        self.filename = filename
        self.members = members
        self._pieces = [piece for member in members for piece in _pieces(member, modified)]
        self._pieces.append(_fixed(bytes(2 * BLOCK)))
        self.size = sum(piece.size for piece in self._pieces)
        self._modified = modified

    def digest(self) -> bytes:
        """Returns the SHA-256 of the whole archive; reads all of it.

        Raises `StoredFileDamaged` for a member that is missing or not what it must be.
        """
        whole = hashlib.sha256()
        for member in self.members:
            header, body, padding = _pieces(member, self._modified)
            whole.update(b"".join(header.open(0)))
            _check(member, body, whole)
            whole.update(b"".join(padding.open(0)))
        whole.update(bytes(2 * BLOCK))
        return whole.digest()

    def recipe(self) -> str | None:
        """Returns what tells this archive from others without reading it, as far as every sum is known."""
        known = [(member.name, member.size, member.sha256) for member in self.members]
        if any(sha256 is None for *_, sha256 in known):
            return None
        return hashlib.sha256(repr((self.filename, known, self._modified)).encode()).hexdigest()

    def chunks(self, start: int, stop: int) -> Iterator[bytes]:
        """Yields the bytes from `start` up to `stop`."""
        at = 0
        for piece in self._pieces:
            first, last = max(start - at, 0), min(stop - at, piece.size)
            at += piece.size
            if first < last:
                yield from _first_bytes(piece.open(first), last - first)


def _check(member: Member, body: Piece, whole: Any) -> None:
    """Reads a member, adds its bytes to the sum of the whole, and holds it against what it must be."""
    own, size = hashlib.sha256(), 0
    try:
        for chunk in body.open(0):
            own.update(chunk)
            whole.update(chunk)
            size += len(chunk)
    except FileNotFoundError:
        raise StoredFileDamaged(f"{member.name} is missing") from None
    if size != member.size or member.sha256 not in (None, own.hexdigest()):
        raise StoredFileDamaged(f"{member.name} has changed since it was written: its sha256 is another")


def _pieces(member: Member, modified: int) -> tuple[Piece, Piece, Piece]:
    info = tarfile.TarInfo(member.name)
    info.size, info.mtime, info.mode = member.size, modified, 0o644
    body = Piece(member.size, member.open)
    return _fixed(info.tobuf(tarfile.PAX_FORMAT)), body, _fixed(bytes(-member.size % BLOCK))


def _fixed(data: bytes) -> Piece:
    return Piece(len(data), lambda start: iter((data[start:],)))


def _first_bytes(chunks: Iterator[bytes], size: int) -> Iterator[bytes]:
    for chunk in chunks:
        yield chunk[:size]
        size -= len(chunk)
        if size <= 0:
            return
