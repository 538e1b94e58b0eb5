"""Feedback on stored chat completions: what may be said, who sees it, and how long it stays."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import httpx2 as httpx
import openai
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.feedback.models import Feedback
from tests.app.answers import error_of
from tests.factories import Tenant, make_feedback, make_stored_chat

FEEDBACK = "/v1/feedback"


def test_feedback_is_given_read_listed_and_deleted(
    client: openai.OpenAI, db: Session, tenant: Tenant
) -> None:
    chat = make_stored_chat(db, tenant.project_id, answers=("a", "b"))
    other = make_stored_chat(db, tenant.project_id)
    db.commit()
    said = {"reward": 0.25, "correction": "c", "reference": {"n": [1, None]}, "comment": "so so"}
    body = {"completion_id": chat.id, "choice": 1, **said, "metadata": {"from": "ann"}}
    made: Any = client.post("/feedback", body=body, cast_to=object)
    assert made == {
        **body,
        "object": "feedback",
        "id": made["id"],
        "created_at": made["created_at"],
        "key_id": tenant.key_id,
    }
    second: Any = client.post("/feedback", body={"completion_id": other.id, "reward": 1}, cast_to=object)
    assert (second["choice"], second["reference"], second["metadata"]) == (0, None, {})
    at = f"/feedback/{made['id']}"
    assert client.get(at, cast_to=object) == made
    listed: Any = client.get("/feedback", cast_to=object)
    assert [each["id"] for each in listed["data"]] == [second["id"], made["id"]]
    listed = client.get("/feedback", cast_to=object, options={"params": {"completion_id": chat.id}})
    assert listed["data"] == [made]
    gone = client.delete(at, cast_to=object)
    assert gone == {"object": "feedback.deleted", "id": made["id"], "deleted": True}
    with pytest.raises(openai.NotFoundError):
        client.get(at, cast_to=object)


@pytest.mark.parametrize(
    ("said", "status", "param", "code"),
    [
        pytest.param({}, 400, "reward", "missing_required_parameter", id="nothing"),
        pytest.param({"comment": "x"}, 400, "reward", "missing_required_parameter", id="only-a-comment"),
        pytest.param({"reference": None}, 400, "reward", "missing_required_parameter", id="null"),
        pytest.param({"reward": 1.01}, 400, "reward", "decimal_above_max_value", id="too-high"),
        pytest.param({"reward": -0.01}, 400, "reward", "decimal_below_min_value", id="too-low"),
        pytest.param({"reward": True}, 400, "reward", "invalid_type", id="boolean"),
        pytest.param({"correction": ""}, 400, "correction", "string_below_min_length", id="empty"),
        pytest.param({"correction": " \n"}, 400, "correction", "invalid_value", id="blank"),
        pytest.param({"reward": 1, "choice": 1}, 400, "choice", "invalid_value", id="no-such-choice"),
        pytest.param({"reward": 1, "choice": -1}, 400, "choice", "integer_below_min_value", id="negative"),
        pytest.param(
            {"reward": 1, "completion_id": "chatcmpl-none"},
            404,
            "completion_id",
            "chat_completion_not_found",
            id="no-such-completion",
        ),
    ],
)
def test_what_says_nothing_or_of_nothing_is_refused(
    http: httpx.Client, db: Session, tenant: Tenant, said: dict[str, Any], status: int, param: str, code: str
) -> None:
    chat = make_stored_chat(db, tenant.project_id)
    db.commit()
    refused = http.post(FEEDBACK, json={"completion_id": chat.id, **said})
    assert refused.status_code == status
    error = error_of(refused)
    assert (error["param"], error["code"]) == (param, code)


def test_it_goes_with_its_completion(http: httpx.Client, db: Session, tenant: Tenant) -> None:
    deleted, expired = (make_stored_chat(db, tenant.project_id) for _ in range(2))
    said = [make_feedback(db, chat).id for chat in (deleted, expired)]
    expired.expires_at -= timedelta(hours=2)
    db.commit()
    http.delete(f"/v1/chat/completions/{deleted.id}").raise_for_status()
    assert http.get(FEEDBACK).json()["data"] == []
    assert [http.get(f"{FEEDBACK}/{each}").status_code for each in said] == [404, 404]
    assert list(db.scalars(select(Feedback.id))) == said[1:], "the sweep has not come by"
    assert http.post(FEEDBACK, json={"completion_id": expired.id, "reward": 1}).status_code == 404


@pytest.mark.parametrize("number", [1e30, -1e22, 1.5e308, 2**63 - 1, -(2**63), 1e-300, 0.1])
def test_numbers_are_read_as_they_were_said(
    http: httpx.Client, db: Session, tenant: Tenant, number: float
) -> None:
    chat = make_stored_chat(db, tenant.project_id)
    db.commit()
    body = {"completion_id": chat.id, "reference": {"a": [number]}}
    made = http.post(FEEDBACK, json=body).json()
    (read,) = http.get(f"{FEEDBACK}/{made['id']}").json()["reference"]["a"]
    assert (read, type(read)) == (number, type(number))
