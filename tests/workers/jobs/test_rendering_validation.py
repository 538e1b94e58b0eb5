"""Rows that the model would not see as they are meant fail their job, each with its line."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import Session
from transformers import AutoTokenizer

from app.jobs.models import Job
from tests.tiny_model import byte_tokenizer
from tests.workers.rows import chat_rows, data_rows, fresh, make_file, make_job, make_model, make_tuned_job
from tests.workers.rows import preference_rows as pairs
from workers.jobs.validators import validate_all

CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "[]"}}
CALLING = {"role": "assistant", "content": None, "tool_calls": [CALL]}


@pytest.fixture
def knowing_more(db: Session, tiny_folder: Path, tmp_path: Path) -> Path:
    """The tiny model with a tokenizer that knows a token more than it."""
    folder = tmp_path / "more"
    shutil.copytree(tiny_folder, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens("<tool>")
    tokenizer.save_pretrained(folder)
    make_model(db, str(folder))
    return folder


def failed(db: Session, job: Job) -> dict[str, Any]:
    validate_all("me", threading.Event())
    error = fresh(db, job).error
    assert error is not None
    return error


@pytest.mark.parametrize("kind", ["reinforcement", "supervised", "dpo", "canary"])
def test_a_token_without_an_embedding_row_is_named(db: Session, knowing_more: Path, kind: str) -> None:
    prompts, chats, preferences = data_rows(), chat_rows(10), pairs(10)
    prompts[2]["messages"][0]["content"] = "Use <tool> now."
    chats[2]["messages"][-1]["content"] = "I use <tool>."
    preferences[2]["non_preferred_output"][0]["content"] = "I use <tool>."
    if kind == "reinforcement":
        job = make_job(db, training=prompts)
    elif kind == "canary":
        texts = [{"text": "One."}, {"text": "Two."}, {"text": "A <tool>."}]
        job = make_job(db, canary_file=make_file(db, texts, "canary.jsonl").id)
    else:
        job = make_tuned_job(db, kind, chats if kind == "supervised" else preferences)
    error = failed(db, job)
    file = "canary_file" if kind == "canary" else "training_file"
    assert (error["code"], error["param"]) == (f"invalid_{file}", file)
    assert f"no embedding row for the token '<tool>' ({len(byte_tokenizer())};" in error["message"]
    assert "row on line 3" in error["message"]


@pytest.mark.parametrize("kind", ["reinforcement", "supervised", "dpo"])
def test_arguments_that_are_no_object_are_named(db: Session, tiny_model: Path, kind: str) -> None:
    prompts, chats, preferences = data_rows(), chat_rows(10), pairs(10)
    for messages in (prompts[1]["messages"], preferences[1]["input"]["messages"]):
        messages[:0] = [CALLING, {"role": "tool", "content": "4", "tool_call_id": "a"}]
    chats[1]["messages"].append(CALLING)
    rows = {"reinforcement": prompts, "supervised": chats, "dpo": preferences}[kind]
    job = make_job(db, training=rows) if kind == "reinforcement" else make_tuned_job(db, kind, rows)
    message = failed(db, job)["message"]
    assert "line 2: " in message
    assert "tool_calls[0].function.arguments must be a JSON object, as text, not a list" in message
