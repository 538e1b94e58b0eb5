"""The sweep: bytes that are no file go, those that are or may become one stay, whatever fails meanwhile."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import pytest
from obstore.exceptions import GenericError
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from app.db import unit_of_work
from app.errors import RequestTimeout
from app.files import service as files
from app.files.models import File, LooseBytes
from app.settings import Settings, get_settings
from app.storage import get_storage
from tests.factories import Tenant, make_file, make_tenant
from workers.jobs import sweep


@pytest.fixture
def tenant(db: Session) -> Tenant:
    made = make_tenant(db)
    db.commit()
    return made


def stored_and_left() -> files.Stored:
    """What a process leaves that dies between the bytes and the row."""
    with unit_of_work() as db:
        file_id = files.reserve(db)
    return files.store_bytes(file_id, b"abc")


def make_due(db: Session) -> None:
    """Two hours later."""
    db.execute(update(LooseBytes).values(clear_at=func.now()))
    db.commit()


def keys() -> list[str]:
    return get_storage().list_keys("files")


@contextmanager
def store_away() -> Iterator[None]:
    """Nothing can be done in the store: its URL is one that obstore fails on at once, as it wants https."""
    with pytest.MonkeyPatch.context() as for_a_while:
        for_a_while.setenv("CHERRY_STORAGE_URL", "http://127.0.0.1:1")
        _forget_store()
        with pytest.raises(GenericError):
            get_storage().delete("files/any")
        yield
    _forget_store()


def _forget_store() -> None:
    get_settings.cache_clear()
    get_storage.cache_clear()


def test_bytes_that_got_no_row_go_when_their_time_is_over(db: Session, tenant: Tenant) -> None:
    kept = make_file(db, tenant.project_id)
    db.commit()
    left = stored_and_left()
    sweep.sweep(Event())
    assert keys() == sorted([kept.storage_key, left.key]), "its request may still be under way"
    make_due(db)
    sweep.sweep(Event())
    assert keys() == [kept.storage_key]
    assert db.scalars(select(LooseBytes.key)).all() == []


@pytest.mark.parametrize("is_removed", [False, True], ids=["taken", "removed"])
def test_a_request_that_took_too_long_makes_no_file_of_bytes_that_the_sweep_has(
    db: Session, tenant: Tenant, is_removed: bool
) -> None:
    late = stored_and_left()
    make_due(db)
    if is_removed:
        sweep.sweep(Event())
    else:
        with unit_of_work() as other:
            assert files.take_loose(other, 1) == [late.key]
    with pytest.raises(RequestTimeout), unit_of_work() as own:
        files.create(own, tenant.project_id, late, filename="a", purpose="user_data")
    assert db.scalars(select(File.id)).all() == []


def test_the_sweep_waits_for_no_request_that_makes_a_file_just_now(db: Session, tenant: Tenant) -> None:
    late = stored_and_left()
    make_due(db)
    with unit_of_work() as own:
        files.create(own, tenant.project_id, late, filename="a", purpose="user_data")
        sweep.sweep(Event())
    sweep.sweep(Event())
    assert keys() == [late.key]


def test_bytes_of_a_deleted_file_go_though_the_process_died_after_the_row(
    db: Session, tenant: Tenant
) -> None:
    file = make_file(db, tenant.project_id)
    db.commit()
    with store_away(), unit_of_work() as own:
        files.remove(own, tenant.project_id, file.id)
    assert keys() == [file.storage_key]
    sweep.sweep(Event())
    assert keys() == []


def test_a_store_that_is_away_ends_neither_the_sweep_nor_what_is_due(db: Session, tenant: Tenant) -> None:
    left = stored_and_left()
    make_due(db)
    expired = make_file(db, tenant.project_id)
    expired.expires_at = func.now()
    db.commit()

    with store_away():
        sweep.sweep(Event())
    assert db.scalars(select(File.id)).all() == []
    assert keys() == sorted([left.key, expired.storage_key])
    sweep.sweep(Event())
    assert keys() == []


def test_half_written_files_go_after_a_day(settings: Settings) -> None:
    get_storage().put_bytes("files/whole", b"abc")
    folder: Path = settings.data_dir / "storage" / ".partial"
    old, young = folder / "old", folder / "young"
    for path in (old, young):
        path.write_bytes(b"ab")
    os.utime(old, (time.time() - 25 * 3600,) * 2)
    sweep.sweep(Event())
    assert list(folder.iterdir()) == [young]
    assert keys() == ["files/whole"]
