"""Makes what a data folder needs once: tables, a tenant, a first API key, the built-in models."""

from __future__ import annotations

import importlib.util
import secrets
from pathlib import Path

from app.embedded.places import write_private
from app.settings import Settings

BUILT_IN_MODEL, BUILT_IN_THINKER = "cherry-nano", "cherry-nano-think"
BUILT_IN_CANNOT_SHOW = {BUILT_IN_MODEL: ("thoughts", "tools", "tool_calls"), BUILT_IN_THINKER: ()}
"""The built-in models with what their chat templates leave out, as `cherry models add` would find; at a
start nothing is tried."""


def prepare_database(settings: Settings, key_path: Path) -> str:
    """Brings the database up to date. Returns the first API key, which is made once and kept in
    `key_path`."""
    from app.db import unit_of_work
    from app.tenants import service as tenants

    migrate(settings)
    with unit_of_work() as db:
        project = tenants.ensure_default_tenant(db)
        kept = key_path.read_text().strip() if key_path.exists() else ""
        if kept and tenants.find_key(db, kept):  # else it was revoked, or is of another database
            return kept
        key = tenants.create_key(db, project.id, "first key").plaintext
    write_private(key_path, key + "\n")
    return key


def migrate(settings: Settings) -> None:
    """Makes the schema of this version, and registers the built-in models that this build has."""
    import app.tables  # noqa: F401  # foreign keys are found by table name
    from app.db import unit_of_work
    from app.migrate import upgrade
    from app.models import service as models

    upgrade(settings.database_url)
    with unit_of_work() as db:
        for name, cannot_show in BUILT_IN_CANNOT_SHOW.items():
            if folder := built_in_model(name):
                models.add_built_in(db, name, folder, cannot_show)


def secret_key(path: Path) -> str:
    """Returns the key that seals this folder's secrets (app/sealing.py). The first start makes it."""
    if not path.exists():
        write_private(path, secrets.token_hex(32) + "\n")
    return path.read_text().strip()


def built_in_model(name: str = BUILT_IN_MODEL) -> Path | None:
    """Returns the folder of a model that ships with Cherry, or None if this build does not have it."""
    spec = importlib.util.find_spec("workers")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        model = Path(folder) / "models" / name.replace("-", "_")
        if (model / "config.json").is_file():
            return model
    return None
