"""`cherry stored`, `cherry feedback` and `cherry datasets` against the service."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session
from typer.testing import CliRunner, Result

from app.chat.models import StoredChat
from app.cli.flywheel.options import metadata_of, seconds_of
from app.cli.main import cli
from app.cli.output import CliError
from tests.factories import Tenant, make_feedback, make_stored_chat
from workers.datasets.attempt import DATASETS
from workers.jobs.validators import validate_all


class Cherry:
    """Runs commands with a tenant's key."""

    def __init__(self, url: str, key: str) -> None:
        self._options = ["--url", url, "--key", key]

    def run(self, *arguments: str, answer: str = "") -> Result:
        return CliRunner().invoke(cli, [*arguments, *self._options], input=answer)

    def json(self, *arguments: str) -> Any:
        done = self.run(*arguments, "--json")
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)


@pytest.fixture
def cherry(server_url: str, tenant: Tenant) -> Cherry:
    return Cherry(server_url, tenant.key)


def test_from_an_answer_to_a_training_file(
    cherry: Cherry, db: Session, tenant: Tenant, tmp_path: Path
) -> None:
    chats = [make_stored_chat(db, tenant.project_id, asked=asked) for asked in ("2 + 2?", "Who are you?")]
    db.commit()
    assert {row["id"] for row in cherry.json("stored", "list")} == {chat.id for chat in chats}
    said = cherry.json("feedback", "add", chats[0].id, "--reference", '{"n": 4}', "--metadata", "by=ann")
    assert (said["reference"], said["metadata"]) == ({"n": 4}, {"by": "ann"})
    cherry.run("feedback", "add", chats[1].id, "--correction", "A model.", "--reward", "0.25")
    shown = cherry.run("feedback", "list").stdout
    assert "reward 0.25; correction A model." in shown
    (tmp_path / "redact.py").write_text("def redact(row):\n    return row\n")
    stopping = threading.Event()

    def work() -> None:
        while not stopping.wait(0.1):
            validate_all("me", stopping, DATASETS)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        options = ("--min-reward", "0.2", "--redact", str(tmp_path / "redact.py"))
        made = cherry.json("datasets", "from-stored", "--format", "reinforcement", *options)
        failed = cherry.run("datasets", "from-stored", "--format", "dpo", "--model", "none")
    finally:
        stopping.set()
        worker.join()
    assert (made["status"], made["report"]["rows"]) == ("succeeded", 1)
    assert made["request"]["filter"]["min_reward"] == 0.2
    assert failed.exit_code == 1
    assert "no stored completion fits the filter" in failed.stdout
    shown = cherry.run("datasets", "show", made["id"]).stdout
    assert made["file_id"] in shown
    assert "Written by       cherry-nano (1 rows)" in shown
    (row,) = cherry.json("datasets", "rows", made["id"])
    assert row["sources"][0]["completion_id"] == chats[1].id
    assert [each["status"] for each in cherry.json("datasets", "list")] == ["failed", "succeeded"]


def test_erasing_asks_and_tells_what_was_made_of_it(cherry: Cherry, db: Session, tenant: Tenant) -> None:
    ann, bob = (make_stored_chat(db, tenant.project_id, metadata={"user": user}) for user in ("ann", "bob"))
    make_feedback(db, ann)
    db.commit()
    gone, stays = ann.id, bob.id
    kept = cherry.run("stored", "erase", "--metadata", "user=ann", answer="n\n")
    assert kept.exit_code == 1
    assert db.get(StoredChat, gone) is not None
    for nothing in ((), ("--all", "--model", "m")):
        refused = cherry.run("stored", "erase", "--yes", *nothing)
        assert isinstance(refused.exception, CliError)
    done = cherry.run("stored", "erase", "--metadata", "user=ann", "--yes")
    assert "chat completions 1, feedback 1" in done.stdout
    db.expire_all()
    assert list(db.scalars(select(StoredChat.id))) == [stays]
    (record,) = cherry.json("stored", "erasures")
    assert record["filter"] == {"metadata": ["user"]}


def test_options_are_read_or_refused_in_words() -> None:
    assert metadata_of(["a=b=c", "d="]) == {"a": "b=c", "d": ""}
    assert metadata_of(None) is None
    assert seconds_of("2026-12-01", "--after") == int(datetime(2026, 12, 1, tzinfo=UTC).timestamp())
    assert seconds_of("2026-12-01T01:00+01:00", "--after") == seconds_of("2026-12-01", "--after")
    for wrong in ("a", "=b"):
        with pytest.raises(CliError, match="is no pair"):
            metadata_of([wrong])
    with pytest.raises(CliError, match="--before 'soon' is no time"):
        seconds_of("soon", "--before")
