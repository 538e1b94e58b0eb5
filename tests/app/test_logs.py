"""Logs: one line per event, and never a key."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from app.grading.judges import Judges, TenantJudge
from app.logs import configure_logging, redact
from graders.judges.score_model import SCHEMA
from graders.services import Question, Target
from tests.app.grading.judge_servers import scored, settings_with
from tests.app.webhooks.receivers import receiver


@pytest.fixture
def root_logger() -> Iterator[None]:
    root = logging.getLogger()
    before = (root.handlers, root.level)
    yield
    root.handlers, root.level = before


def test_events_are_json_lines_without_secrets(root_logger: None, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "json")
    structlog.get_logger("a").info("job_claimed", job_id="ftjob-1", header="Bearer sk-cherry-abcdefghijkl\nx")
    logging.getLogger("b").warning("key %s", "sk-cherry-abcdefghijkl")
    first, second = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (first["event"], first["job_id"], first["level"]) == ("job_claimed", "ftjob-1", "info")
    assert first["header"] == "Bearer [redacted]\nx"
    assert second["event"] == "key [redacted]"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://user:pass@host/db", "postgresql://[redacted]@host/db"),
        ("redis://:secret@host", "redis://[redacted]@host"),
        ("whsec_abc+/=", "[redacted]"),
        ("risk-free", "risk-free"),
    ],
)
def test_secrets_are_cut_out(text: str, shown: str) -> None:
    assert redact(text) == shown


def test_not_even_a_debug_log_tells_what_a_judge_is_asked(
    root_logger: None, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging("debug", "json")
    with receiver(lambda _: scored(1)) as server:
        place = {"base_url": f"http://127.0.0.1:{server.port}/v1", "key": "main"}
        judges = Judges(
            settings_with(judges={"judge": place}, judge_keys={"main": {"key": "secret-of-judge"}})
        )
        question = Question(
            Target("judge"), [{"role": "user", "content": "a private answer"}], "score", SCHEMA
        )
        TenantJudge(judges, "proj_a").ask(question)
    logging.getLogger("b").debug("said at the end")
    said = capsys.readouterr().err
    assert "said at the end" in said
    assert "a private answer" not in said
    assert "secret-of-judge" not in said
