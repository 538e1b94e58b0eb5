"""Keys that sign cards: made once, sealed, rotated with a history."""

from __future__ import annotations

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2 as httpx
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session
from typer.testing import CliRunner

from app.cards import keys
from app.cards.models import CardKey
from app.cards.signature import key_id
from app.cli.main import cli
from app.db import unit_of_work
from app.sealing import NotOpened, Sealer
from app.settings import Settings
from tests.factories import Tenant


def test_of_several_processes_that_start_at_once_one_makes_the_key(db: Session, settings: Settings) -> None:
    with ThreadPoolExecutor(8) as starting:
        list(starting.map(keys.ensure, [settings] * 8))
    keys.ensure(settings)
    (made,) = db.scalars(select(CardKey)).all()
    assert made.id == key_id(made.public_key)
    assert made.retired_at is None


def test_the_private_key_is_sealed_and_opens_only_with_the_operators_key(
    db: Session, settings: Settings
) -> None:
    private = keys.signer(db, Sealer(settings))
    row = keys.current(db, Sealer(settings))
    assert private.public_key().public_bytes_raw() == row.public_key
    assert private.private_bytes_raw() not in row.private_key
    with pytest.raises(NotOpened, match="another CHERRY_SECRET_KEY"):
        keys.signer(
            db, Sealer(settings.model_copy(update={"secret_key": type(settings.secret_key)("k" * 32)}))
        )


def test_without_a_secret_key_a_service_starts_and_has_no_key(db: Session, settings: Settings) -> None:
    keys.ensure(settings.model_copy(update={"secret_key": type(settings.secret_key)("")}))
    assert keys.every(db) == []


def test_a_rotated_key_stays_in_the_history(db: Session, settings: Settings) -> None:
    first = keys.current(db, Sealer(settings)).id
    second = keys.rotate(db, Sealer(settings)).id
    assert first != second
    assert [(key.id, key.retired_at is None) for key in keys.every(db)] == [(second, True), (first, False)]
    assert keys.current(db, Sealer(settings)).id == second


def test_two_rotations_at_once_leave_one_key_that_signs(db: Session, settings: Settings) -> None:
    keys.ensure(settings)

    def rotate(_: int) -> None:
        with unit_of_work() as own:
            keys.rotate(own, Sealer(settings))

    with ThreadPoolExecutor(4) as rotating:
        list(rotating.map(rotate, range(4)))
    found = keys.every(db)
    assert sum(key.retired_at is None for key in found) == 1
    assert len(found) >= 2


def test_the_command_line_rotates_and_the_api_lists_public_keys_alone(
    http: httpx.Client, tenant: Tenant, db: Session, settings: Settings, tmp_path: Path
) -> None:
    keys.ensure(settings)
    done = CliRunner().invoke(cli, ["cards", "rotate-key", "--json", "--data", str(tmp_path)])
    made = json.loads(done.stdout)
    answered = http.get("/v1/fine_tuning/card_keys")
    newest, oldest = answered.json()["data"]
    assert (newest["id"], newest["public_key"], newest["retired_at"]) == (
        made["id"],
        made["public_key"],
        None,
    )
    assert oldest["retired_at"] >= oldest["created_at"]
    for row in db.scalars(select(CardKey)):
        assert base64.b64encode(row.private_key).decode() not in answered.text
