"""Keeps files: in a local folder, or in an object store (S3 and the like) by URL.

Keys are relative paths of plain characters, such as `files/file-abc` or
`jobs/ftjob-abc/checkpoints/10/adapter/adapter_model.safetensors`. A key that is there is whole: it appears by
a rename (local) or by completing an upload (object store). A missing key is a `FileNotFoundError` everywhere.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import from_url

from app.disk import hold, remove_unheld
from app.ids import random_id
from app.settings import get_settings

CHUNK = 2**20
STREAM_PART = 8 * 2**20
"""Piece of a streamed object; S3 takes 10,000 of them."""
MANIFEST = "manifest.json"
STORAGE_FAULTS = (OSError, BaseError)
"""What a store raises that is away, full or not allowed to us."""
_PART = r"(?!\.\.?(?:/|$))[A-Za-z0-9._=+:@-]+"
_KEY = re.compile(rf"{_PART}(?:/{_PART})*")


class Storage(ABC):
    """What every kind of store can do; folders are made of these few operations."""

    folder: Path | None = None
    """The folder on this machine's disks that holds everything, if there is one."""

    @abstractmethod
    def put_file(self, key: str, path: Path, *, move: bool = False) -> None:
        """Stores a file durably, replacing what was there. `move` says that `path` may be used up."""

    @abstractmethod
    def put_bytes(self, key: str, data: bytes) -> None:
        """Stores a small value durably, replacing what was there."""

    @abstractmethod
    def put_stream(self, key: str, chunks: Iterator[bytes]) -> None:
        """Stores what comes, a chunk in memory at a time. If `chunks` raises, nothing is stored."""

    @abstractmethod
    def open_stream(self, key: str, start: int = 0) -> Iterator[bytes]:
        """Returns the bytes from `start` on in chunks. A missing key is told by this call, not by the first
        chunk.
        """

    @abstractmethod
    def size(self, key: str) -> int: ...

    @abstractmethod
    def delete(self, key: str) -> None:
        """Removes a key. Nothing happens if it is not there."""

    @abstractmethod
    def delete_prefix(self, prefix: str) -> None:
        """Removes every key below `prefix`/."""

    @abstractmethod
    def remove_unfinished(self, older_than: timedelta) -> int:
        """Removes what writers left that were killed, at once or, where nobody can tell, once it is that old.
        Returns how many."""

    @abstractmethod
    def list_keys(self, prefix: str) -> list[str]:
        """Returns every key below `prefix`/, in order."""

    def local_path(self, key: str) -> Path | None:
        """Returns the file itself if it is on this machine's disk (to read, never to write), else None."""
        _checked(key)
        return None

    def read_bytes(self, key: str) -> bytes:
        """Returns a small value as a whole."""
        return b"".join(self.open_stream(key))

    def exists(self, key: str) -> bool:
        try:
            self.size(key)
        except FileNotFoundError:
            return False
        return True

    def publish_folder(self, folder: Path, prefix: str) -> None:
        """Stores every file of a folder below `prefix`/. Repeating it replaces what was there.

        It stores manifest.json last, so that its presence means that all the others are there.
        """
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        files.sort(key=lambda path: path == folder / MANIFEST)
        self.delete(f"{prefix}/{MANIFEST}")
        try:
            for path in files:
                self.put_file(f"{prefix}/{path.relative_to(folder).as_posix()}", path)
        except BaseException:
            with suppress(*STORAGE_FAULTS):  # half of it only takes room
                self.delete_prefix(prefix)
            raise

    def fetch_folder(self, prefix: str, folder: Path, *, without: str | None = None) -> None:
        """Copies everything below `prefix`/ to `folder`, which appears whole. An existing one is kept.

        `without` is an ending of files that are left out.
        """
        if folder.exists():
            return
        keys = [key for key in self.list_keys(prefix) if without is None or not key.endswith(without)]
        if not keys:
            raise FileNotFoundError(f"Storage holds nothing below {prefix}/.")
        partial = folder.with_name(f"{folder.name}.{random_id('', 8)}.partial")
        try:
            for key in keys:
                target = partial / key.removeprefix(f"{prefix}/")
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as out:
                    out.writelines(self.open_stream(key))
                    _flush(out)
            try:
                partial.rename(folder)
            except OSError:
                if not folder.exists():  # else another process was faster, with the same files
                    raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)


class LocalStorage(Storage):
    """Stores in a folder on this machine, with fsync and rename.

    obstore's own local store does no fsync, and a row must never speak of a file that a power cut can take
    away.
    """

    def __init__(self, root: Path) -> None:
        self.folder: Path = root.absolute()
        self._partial = self.folder / ".partial"

    def put_file(self, key: str, path: Path, *, move: bool = False) -> None:
        target = self._path(key)
        if move and self._same_disk(path):
            with path.open("rb+") as source:
                _flush(source)
            self._publish(path, target)
            return
        with path.open("rb") as source:
            self._write(target, iter(lambda: source.read(CHUNK), b""))
        if move:
            path.unlink()

    def put_bytes(self, key: str, data: bytes) -> None:
        self._write(self._path(key), [data])

    def put_stream(self, key: str, chunks: Iterator[bytes]) -> None:
        self._write(self._path(key), chunks)

    def open_stream(self, key: str, start: int = 0) -> Iterator[bytes]:
        return read_chunks(self._path(key), start)

    def size(self, key: str) -> int:
        path = self._path(key)
        if not path.is_file():
            raise FileNotFoundError(f"Storage holds no {key}.")
        return path.stat().st_size

    def delete(self, key: str) -> None:
        self._path(key).unlink(missing_ok=True)

    def delete_prefix(self, prefix: str) -> None:
        shutil.rmtree(self._path(prefix), ignore_errors=True)

    def list_keys(self, prefix: str) -> list[str]:
        found = (path for path in self._path(prefix).rglob("*") if path.is_file())
        return sorted(path.relative_to(self.folder).as_posix() for path in found)

    def local_path(self, key: str) -> Path | None:
        return self._path(key)

    def remove_unfinished(self, older_than: timedelta) -> int:
        removed = remove_unheld(self._partial.glob("*"))
        for path in self._partial.glob("*"):
            with suppress(FileNotFoundError):  # it is whole by now, or another process sweeps too
                if path.stat().st_mtime < time.time() - older_than.total_seconds():
                    path.unlink()
                    removed += 1
        return removed

    def _path(self, key: str) -> Path:
        return self.folder / _checked(key)

    def _same_disk(self, path: Path) -> bool:
        self._partial.mkdir(parents=True, exist_ok=True)
        return path.stat().st_dev == self._partial.stat().st_dev

    def _write(self, target: Path, chunks: Iterable[bytes]) -> None:
        self._partial.mkdir(parents=True, exist_ok=True)
        partial = self._partial / random_id("", 16)
        try:
            with partial.open("wb") as out:
                hold(out)
                out.writelines(chunks)
                _flush(out)
                self._publish(partial, target)
        finally:
            partial.unlink(missing_ok=True)

    def _publish(self, ready: Path, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        ready.replace(target)
        _flush_folder(target.parent)


class ObjectStorage(Storage):
    """Stores in an object store such as S3. Credentials come from its usual environment variables."""

    def __init__(self, url: str) -> None:
        self._store: Any = from_url(url)

    def put_file(self, key: str, path: Path, *, move: bool = False) -> None:
        obstore.put(self._store, _checked(key), path)
        if move:
            path.unlink()

    def put_bytes(self, key: str, data: bytes) -> None:
        obstore.put(self._store, _checked(key), data)

    def put_stream(self, key: str, chunks: Iterator[bytes]) -> None:
        obstore.put(self._store, _checked(key), chunks, chunk_size=STREAM_PART, max_concurrency=2)

    def open_stream(self, key: str, start: int = 0) -> Iterator[bytes]:
        options: Any = {"range": {"offset": start}} if start else None
        found = obstore.get(self._store, _checked(key), options=options)
        return (bytes(chunk) for chunk in found.stream(min_chunk_size=CHUNK))

    def size(self, key: str) -> int:
        return int(obstore.head(self._store, _checked(key))["size"])

    def delete(self, key: str) -> None:
        try:
            obstore.delete(self._store, _checked(key))
        except FileNotFoundError:
            return

    def delete_prefix(self, prefix: str) -> None:
        keys = self.list_keys(prefix)
        if keys:
            obstore.delete(self._store, keys)

    def remove_unfinished(self, older_than: timedelta) -> int:  # noqa: ARG002
        """Removes nothing: buckets have a rule that aborts incomplete multipart uploads."""
        return 0

    def list_keys(self, prefix: str) -> list[str]:
        batches = obstore.list(self._store, f"{_checked(prefix)}/")
        return sorted(meta["path"] for batch in batches for meta in batch)


def open_storage(url: str, data_dir: Path) -> Storage:
    """Returns the store a URL names; the empty URL means the folder `storage` of `data_dir`."""
    if not url:
        return LocalStorage(data_dir / "storage")
    parts = urlsplit(url)
    if parts.scheme == "file":
        return LocalStorage(Path(unquote(parts.path)))
    return ObjectStorage(url)


@lru_cache
def get_storage() -> Storage:
    """Returns the store of this process."""
    settings = get_settings()
    return open_storage(settings.storage_url, settings.data_dir)


def written_folders() -> list[Path]:
    """Returns the folders of this machine in which the service keeps things."""
    stored = get_storage().folder
    return [get_settings().data_dir.absolute(), *([stored] if stored else [])]


def _checked(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise ValueError(f"Not a storage key: {key!r}.")
    return key


def read_chunks(path: Path, start: int = 0) -> Iterator[bytes]:
    """Returns the bytes of a file from `start` on. A missing file is told by this call."""
    file = path.open("rb")
    if start:  # what is read from its beginning need not be seekable
        file.seek(start)
    return _chunks(file)


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while chunk := file.read(CHUNK):
            yield chunk


def _flush(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    """Makes a rename within the folder last."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
