"""How a policy's weights come to a vLLM server: as an adapter beside its base, or in place of its base."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple, Protocol
from urllib.parse import urlsplit

from app.table_settings import VllmEntry
from workers.rollouts.errors import ServerAway
from workers.rollouts.replies import By
from workers.rollouts.served import ServedBase
from workers.rollouts.vllm_client import VllmClient
from workers.training.base.distributed import World
from workers.training.model.policy import Policy

AFTER = "-after-"
"""Stands in the name of a policy's weights between the run and the number of updates made to them."""
TAKEN = (
    "another job holds its weights: jobs that train every weight have such a server to themselves, one after"
    " the other"
)


class Carrier(NamedTuple):
    """Is a run whose weights go to a server, in one process of its world.

    Attributes:
        name: is in the names of its weights: no other run that asks this server has the same.
    """

    client: VllmClient
    entry: VllmEntry
    name: str
    policy: Policy
    world: World

    @property
    def folder(self) -> Path:
        """Returns where its weights are written, which the server sees too."""
        return Path(self.entry.adapters).absolute() / self.name

    def clear(self) -> None:
        """Removes the files."""
        if self.world.is_main:
            shutil.rmtree(self.folder, ignore_errors=True)


class CarriedWeights(Protocol):
    """Brings one run's weights to a server, in each process of its world."""

    def write(self, updates: int) -> str:
        """Writes the weights after so many updates where the server sees them, and returns their name.

        It is collective; only the main process writes, and knows the name. Raises `RunFailed`.
        """

    def by(self, name: str, base: ServedBase) -> By:
        """Returns what is asked for to be answered by weights of that name."""

    def load(self, name: str, base: ServedBase) -> bool:
        """Lets the server have weights that were written.

        Returns whether they took the place of others, so that they are to be compared with the policy's.
        Raises `ServerAway`, `RolloutsRefused`.
        """

    def forget_left_over(self, name: str) -> None:
        """Removes what an earlier attempt of this run, which was killed, has left on the server."""

    def close(self) -> None:
        """Gives the server back as it was, and removes the files. The server may be away."""


class Claim:
    """Is a claim on a server whose base's weights may change: one run's alone, or shared by several."""

    def __init__(self, entry: VllmEntry, run_name: str, *, is_shared: bool) -> None:
        self._file = entry.adapters / f"server-{urlsplit(entry.url).port}.lock"
        self._run_name = run_name
        self._kind = fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX
        self._held: IO[str] | None = None

    def take(self) -> None:
        """Holds the server from now on. Raises `ServerAway` where another job does."""
        if self._held is not None:
            return
        held = _opened(self._file)
        try:
            fcntl.flock(held, self._kind | fcntl.LOCK_NB)
        except OSError:
            held.close()
            raise ServerAway(TAKEN) from None
        held.truncate(0)
        held.write(self._run_name)
        held.flush()
        self._held = held

    def check(self) -> None:
        """Raises `ServerAway` unless the main process of the same run holds the server."""
        with _opened(self._file) as seen:
            try:
                fcntl.flock(seen, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                if self._file.read_text() == self._run_name:
                    return
            raise ServerAway(TAKEN)

    def release(self) -> None:
        """Lets others have it."""
        if self._held is not None:
            fcntl.flock(self._held, fcntl.LOCK_UN)
            self._held.close()
            self._held = None


@contextlib.contextmanager
def one_at_a_time(entry: VllmEntry) -> Iterator[None]:
    """Lets one process of this machine at a time change a server's weights."""
    with _opened(entry.adapters / f"server-{urlsplit(entry.url).port}.loading") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def _opened(file: Path) -> IO[str]:
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return file.open("a")
