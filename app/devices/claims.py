"""Gives devices to trainings: each is held by one at a time, whatever the service that started it.

A device has a file in a folder of this machine, and whoever holds a lock on that file (flock) has the device.
The kernel lets go of the lock when its last holder ends, however that happens, so that nothing is left behind
by `kill -9`. The worker that starts a training takes the locks, all or none, and the training's own processes
join it: a device is free when every one of them is gone. Files say who has them, for people alone.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from app.devices.listing import VISIBLE, Device
from app.settings import Settings

HELD = "CHERRY_HELD_DEVICES"
"""What a training's environment calls the files of its devices, behind the word that stands in them."""
GATE = "gate"
"""The file whose lock orders those that look at or take devices; it is held for microseconds."""
_joined: list[int] = []
"""Locks that this process shares until it ends."""


class DevicesUnusable(Exception):
    """The folder of the devices' files cannot be used; the message says why and what to do."""


class DevicesLost(Exception):
    """The devices of this process are another's by now: whoever started it is gone."""


class Holder(NamedTuple):
    """Who has a device, by its own words."""

    what: str
    pid: int
    since: str


class Claim:
    """Devices that are held until `close`, or until this process and those that joined it have ended."""

    def __init__(self, devices: Sequence[Device], files: Sequence[Path], locks: Sequence[int], word: str):
        self.devices = tuple(devices)
        self._files = files
        self._locks = locks
        self._word = word

    @property
    def names(self) -> list[str]:
        """Returns the names of the devices."""
        return [device.name for device in self.devices]

    def environment(self) -> dict[str, str]:
        """Returns what a training with these devices is given: the GPUs that it sees, and what to join."""
        gpus = [device.name for device in self.devices if device.kind != "cpu"]
        joins = {HELD: os.pathsep.join([self._word, *map(str, self._files)])} if self._files else {}
        return {VISIBLE: ",".join(gpus), **joins}

    def close(self) -> None:
        """Lets go of the devices, which are free once nobody else holds them."""
        for lock in self._locks:
            os.close(lock)
        self._locks = ()


class Claims:
    """The devices' files of one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def take(self, candidates: Sequence[Device], count: int, what: str) -> Claim | int:
        """Takes `count` of these devices, the first that are free, for what is so called.

        Takes none where fewer are free, and returns how many are. Raises `DevicesUnusable`.
        """
        if not count:
            return Claim((), (), (), "")
        word = secrets.token_hex(8)
        free: list[tuple[Device, int]] = []
        with self._gate():
            for device in candidates:
                if (lock := _lock(self._file(device))) is not None:
                    free.append((device, lock))
                if len(free) == count:
                    break
            if len(free) < count:
                for _, lock in free:
                    os.close(lock)
                return len(free)
            for _, lock in free:
                _write(lock, {"what": what, "pid": os.getpid(), "since": _now(), "word": word})
                fcntl.flock(lock, fcntl.LOCK_SH)  # so that the training's processes can join
        devices, locks = zip(*free, strict=True)
        return Claim(devices, [self._file(device) for device in devices], locks, word)

    def holder(self, device: Device) -> Holder | None:
        """Returns who has a device; None if it is free."""
        if not self._file(device).exists():
            return None
        with self._gate():
            lock = _lock(self._file(device))
            if lock is not None:
                os.close(lock)
                return None
        said = _read(self._file(device))
        return Holder(str(said.get("what", "?")), int(said.get("pid", 0)), str(said.get("since", "?")))

    def mark_sampler(self, device: Device, share: float) -> int | None:
        """Notes that this process, a sampler, takes up to `share` of a GPU's memory, until it ends.

        Returns the lock, which is held as long as it is open; None if another sampler has noted that already.
        """
        lock = _lock(self._file(device, "sampler"))
        if lock is not None:
            _write(lock, {"share": share, "pid": os.getpid()})
        return lock

    def sampler_share(self, names: Sequence[str]) -> float:
        """Returns the largest share of memory that a live sampler may take on these GPUs; 0 without one."""
        shares = [0.0]
        for name in names:
            file = self._file(Device(name, "gpu"), "sampler")
            if file.exists():
                if (lock := _lock(file)) is None:
                    shares.append(float(_read(file).get("share", 0.0)))
                else:
                    os.close(lock)
        return max(shares)

    def _file(self, device: Device, of: str = "device") -> Path:
        return self._folder / f"{of}-{re.sub(r'[^A-Za-z0-9-]', '-', device.name)}"

    @contextmanager
    def _gate(self) -> Iterator[None]:
        gate = _open(self._folder / GATE)
        try:
            fcntl.flock(gate, fcntl.LOCK_EX)
            yield
        finally:
            os.close(gate)


def claims_of(settings: Settings) -> Claims:
    """Returns the claims of this machine, whose folder is made if need be. Raises `DevicesUnusable`."""
    folder = settings.device_folder or Path(f"/tmp/cherry-devices-{os.geteuid()}")  # noqa: S108  # checked
    try:
        folder.mkdir(mode=0o700 if settings.device_folder is None else 0o777, parents=True, exist_ok=True)
        info = folder.lstat()
    except OSError as problem:
        raise DevicesUnusable(f"The folder of devices cannot be used: {problem}") from None
    if settings.device_folder is None and (not stat.S_ISDIR(info.st_mode) or info.st_uid != os.geteuid()):
        raise DevicesUnusable(f"{folder} belongs to another user; remove it, or set CHERRY_DEVICE_FOLDER.")
    return Claims(folder)


def share_of_trainings(settings: Settings, environment: Mapping[str, str] = os.environ) -> float:
    """Returns the most that a training with this environment takes of each GPU's memory, a number up to 1.

    That is what a sampler which lives on one of them leaves.
    """
    if settings.trainer_gpu_share != "auto":
        return settings.trainer_gpu_share
    names = [name for name in environment.get(VISIBLE, "").split(",") if name]
    return 1.0 - claims_of(settings).sampler_share(names) if names else 1.0


def join(environment: Mapping[str, str] = os.environ) -> None:
    """Makes this process a holder of the devices that its environment names, until it ends.

    Raises `DevicesLost` if whoever started it has let go of them since.
    """
    word, *files = environment.get(HELD, "").split(os.pathsep)
    for file in files:
        lock = os.open(file, os.O_RDWR)
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise DevicesLost(f"{file} is being taken by another training.") from None
        _joined.append(lock)
        if _read(Path(file)).get("word") != word:
            raise DevicesLost(f"{file} is another training's by now.")


def _lock(file: Path) -> int | None:
    """Locks a file for this process alone; None if others hold it."""
    lock = _open(file)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def _open(file: Path) -> int:
    try:
        lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as problem:
        raise DevicesUnusable(f"A device's file cannot be used: {problem}") from None
    with suppress(OSError):  # another user made it
        os.fchmod(lock, 0o666)  # where several users share the folder, each can lock
    return lock


def _write(lock: int, said: Mapping[str, Any]) -> None:
    os.ftruncate(lock, 0)
    os.pwrite(lock, json.dumps(dict(said)).encode(), 0)


def _read(file: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        said = json.loads(file.read_text())
        if isinstance(said, dict):
            return said
    return {}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
