"""Does a large upload stay out of memory? `python -m benchmarks.api.upload --megabytes 1024`.

Starts the API as a process of its own, sends a file whole and one in parts, reads both back, and fails if the
process grows, or writes the bytes more often than it must. Linux only: it reads /proc.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from openai import OpenAI

from benchmarks.api.service import running_service

MB = 2**20
MAX_GROWTH = {"whole": 20 * MB, "in parts": 50 * MB, "read back": 20 * MB}
MAX_WRITTEN = {"whole": 1.1, "in parts": 2.1, "read back": 0.1}
"""Bytes written for each byte sent: once to where it stays; parts once more when they are put together."""


class Cost(NamedTuple):
    """What moving so many bytes cost the API's process."""

    what: str
    megabytes: int
    seconds: float
    growth: int
    """Bytes of memory above what it held before, at the worst moment."""
    written: float
    """Bytes written for each byte moved."""

    def is_within_limits(self) -> bool:
        return self.growth <= MAX_GROWTH[self.what] and self.written <= MAX_WRITTEN[self.what]

    def __str__(self) -> str:
        return (
            f"{self.what:10} {self.megabytes:5} MB  {self.megabytes / self.seconds:6.0f} MB/s  "
            f"memory +{self.growth / MB:.1f} MB  written {self.written:.2f}x"
        )


def measure(client: OpenAI, pid: int, megabytes: int, folder: Path) -> list[Cost]:
    """Send so many megabytes whole (at most 512) and in parts, and read the latter back."""
    path, digest = _make_file(folder / "data.bin", megabytes)
    whole = folder / "whole.bin"
    os.link(path, whole)
    if megabytes > 512:
        whole, _ = _make_file(folder / "smaller.bin", 512)
    names: list[str] = []

    def send_whole() -> None:
        with whole.open("rb") as file:
            names.append(client.files.create(file=file, purpose="user_data").id)

    def send_in_parts() -> None:
        done = client.uploads.upload_file_chunked(file=path, mime_type="text/plain", purpose="user_data")
        assert done.file
        names.append(done.file.id)

    def read_back() -> None:
        found = hashlib.sha256()
        with client.files.with_streaming_response.content(names[-1]) as response:
            for chunk in response.iter_bytes(MB):
                found.update(chunk)
        assert found.hexdigest() == digest, "what came back is not what was sent"

    _warm_up(client, folder)
    return [
        _cost("whole", pid, min(megabytes, 512), send_whole),
        _cost("in parts", pid, megabytes, send_in_parts),
        _cost("read back", pid, megabytes, read_back),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1024)
    megabytes = parser.parse_args(arguments).megabytes
    with running_service() as service:
        client = OpenAI(base_url=f"{service.url}/v1", api_key=service.key)
        costs = measure(client, service.pid, megabytes, service.folder)
    for cost in costs:
        print(cost)
    return 0 if all(cost.is_within_limits() for cost in costs) else 1


def _make_file(path: Path, megabytes: int) -> tuple[Path, str]:
    """A file that no compression shortens, and its SHA-256."""
    chance, digest = random.Random(0), hashlib.sha256()
    block = bytearray(chance.randbytes(MB))
    with path.open("wb") as file:
        for number in range(megabytes):
            block[:8] = number.to_bytes(8, "big")
            digest.update(block)
            file.write(block)
    return path, digest.hexdigest()


def _warm_up(client: OpenAI, folder: Path) -> None:
    """Everything once, so that what is loaded and pooled at first use is not counted."""
    small, _ = _make_file(folder / "small.bin", 8)
    file = client.files.create(file=small, purpose="user_data")
    client.uploads.upload_file_chunked(
        file=small, mime_type="text/plain", purpose="user_data", part_size=4 * MB
    )
    client.files.content(file.id).read()


def _cost(what: str, pid: int, megabytes: int, act: Callable[[], None]) -> Cost:
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # the high-water mark starts anew
    before, written, started = memory_of(pid, "VmRSS"), _written(pid), time.monotonic()
    act()
    seconds = time.monotonic() - started
    growth = max(0, memory_of(pid, "VmHWM") - before)
    return Cost(what, megabytes, seconds, growth, (_written(pid) - written) / (megabytes * MB))


def memory_of(pid: int, name: str) -> int:
    """A line of the kernel's report on a process, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"no {name} in /proc/{pid}/status")


def _written(pid: int) -> int:
    """Bytes that the process has sent to disks; write(2) would count what uvloop writes to sockets too."""
    for line in Path(f"/proc/{pid}/io").read_text().splitlines():
        if line.startswith("write_bytes:"):
            return int(line.split()[1])
    raise AssertionError(f"no write_bytes in /proc/{pid}/io")


if __name__ == "__main__":
    sys.exit(main())
