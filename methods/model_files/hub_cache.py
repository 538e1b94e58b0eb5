"""A model folder in the cache of the Hugging Face hub's client: whose it is, and where its files are kept."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

_REPOSITORY = re.compile(r"models--(?:(?P<org>[A-Za-z0-9._-]+?)--)?(?P<name>[A-Za-z0-9._-]+)")
_COMMIT = re.compile(r"[0-9a-f]{40}")
HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
"""What names a model on the hub."""


class Snapshot(NamedTuple):
    """A folder `models--ORG--NAME/snapshots/COMMIT`.

    Attributes:
        blobs: the folder to which its files are links.
    """

    hub: str
    revision: str
    blobs: Path


def snapshot_of(folder: Path) -> Snapshot | None:
    """Returns what the path of a folder says, if it is one of the cache; nothing is read."""
    repository = folder.parent.parent
    named = _REPOSITORY.fullmatch(repository.name)
    if named is None or folder.parent.name != "snapshots" or not _COMMIT.fullmatch(folder.name):
        return None
    hub = f"{named['org']}/{named['name']}" if named["org"] else named["name"]
    return Snapshot(hub, folder.name, repository / "blobs")
