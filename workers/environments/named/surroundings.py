"""What the process of an environment sees: which variables, and which files it does not."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from app.settings import Settings
from app.table_settings import EnvironmentEntry

KEPT = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR")
"""Variables of the worker that the process sees too: how to find programs, texts, times, certificates."""
FILE = "file://"


def variables(
    entry: EnvironmentEntry, folder: Path, worker: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """Returns the variables of an environment's process, whose own folder is `folder`."""
    own = {"HOME": str(folder), "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    kept = {name: worker[name] for name in KEPT if name in worker}
    return {**kept, **own, **{name: value.get_secret_value() for name, value in entry.env.items()}}


def hidden_paths(settings: Settings) -> list[str]:
    """Returns files and folders of this service that no environment may read."""
    paths = [settings.data_dir, Path(".env")]
    if settings.storage_url.startswith(FILE):
        paths.append(Path(settings.storage_url.removeprefix(FILE)))
    paths += [entry.key_file for entry in settings.judge_keys.values() if entry.key_file is not None]
    return [str(path.resolve()) for path in paths if path.exists()]
