"""Hostile bodies and lines, made up by the thousand: no 5xx, and nothing accepted that storage then refuses.

A short run; `make fuzz` makes 10,000 bodies and 20,000 lines.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import httpx2 as httpx
import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from graders import strict_json
from tests.factories import GRADER, ROWS, Tenant, make_file, make_stored_chat, make_upload

BODIES = int(os.environ.get("CHERRY_HOSTILE_BODIES", "400"))
LINES = int(os.environ.get("CHERRY_HOSTILE_LINES", "4000"))

VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    2**63 - 1,
    1e308,
    -0.0,
    "",
    "\u202e",
    "x" * 70,
    "auto",
    [],
    {},
    [[]],
    {"": {}},
]
FRAGMENTS = [
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"-1e-999",
    b"9223372036854775808",
    b"9" * 4000,
    b'"\\ud800"',
    b'"\\udc00\\ud800"',
    b'"\\u0000"',
    b'"\x00"',
    b'"\xff"',
    b'"\xed\xa0\x80"',
    b'"\xf4\x90\x80\x80"',
    b"[" * 70 + b"]" * 70,
    b'{"a":' * 70 + b"1" + b"}" * 70,
    b'{"a":1,"a":2}',
    b'"\\"',
    b"'x'",
    b"{}",
    b"[]",
    b"",
    b",",
    b"\xef\xbb\xbf",
    b"tru",
    b"0x10",
    b"1_000",
    b"\\u0031",
    b'"{{item.__class__}}"',
    b'"{{' + b"a." * 300 + b'}}"',
]
"""What takes the place of a piece of the JSON text."""


def mutate(body: Any, chance: random.Random) -> None:
    """Change one place, anywhere in the tree."""
    while isinstance(body, dict) and body:
        key = chance.choice(list(body))
        if isinstance(body[key], dict) and chance.random() < 0.8:
            body = body[key]
            continue
        kind = chance.random()
        if kind < 0.2:
            del body[key]
        elif kind < 0.4:
            body[chance.choice(["x", "", "type", "grader", "\U0001f352"])] = deepcopy(chance.choice(VALUES))
        else:
            body[key] = deepcopy(chance.choice(VALUES))
        return


def spoil(raw: bytes, chance: random.Random) -> bytes:
    """Put a fragment in the place of some bytes, mostly of one whole value."""
    start = chance.randrange(len(raw))
    if chance.random() < 0.7 and (colon := raw.find(b":", start)) >= 0:
        start = colon + 1
    ends = [end for mark in b",}]" if (end := raw.find(mark, start)) >= 0]
    end = min(ends) if ends and chance.random() < 0.8 else start + chance.randrange(3)
    return raw[:start] + chance.choice(FRAGMENTS) + raw[end:]


def hostile(right: Any, chance: random.Random) -> bytes:
    """The right body, changed in one to three places: as a tree, as text, or both."""
    body = json.loads(json.dumps(right))
    spoils = chance.choice([0, 0, 1, 2])
    for _ in range(chance.randint(0 if spoils else 1, 2)):
        mutate(body, chance)
    raw = json.dumps(body).encode()
    for _ in range(spoils):
        raw = spoil(raw, chance) or b" "
    return raw


@pytest.fixture
def right_bodies(db: Session, tenant: Tenant) -> list[tuple[str, dict[str, Any]]]:
    """A body that is accepted, by path."""
    file, upload = make_file(db, tenant.project_id), make_upload(db, tenant.project_id)
    chat = make_stored_chat(db, tenant.project_id)
    db.commit()
    job = {
        "model": "cherry-nano",
        "training_file": file.id,
        "validation_file": file.id,
        "seed": 1,
        "suffix": "x",
        "metadata": {"a": "b"},
        "integrations": [],
        "hyperparameters": {"n_epochs": 1},
        "method": {
            "type": "reinforcement",
            "reinforcement": {"grader": GRADER, "hyperparameters": {"n_epochs": 1, "beta": 0.1}},
        },
    }
    announced = {
        "filename": "a.bin",
        "purpose": "user_data",
        "bytes": 1,
        "mime_type": "a/b",
        "expires_after": {"anchor": "created_at", "seconds": 3600},
    }
    dataset = {
        "format": "dpo",
        "filter": {"model": "m", "metadata": {"a": "b"}, "feedback": ["reward"], "min_reward": 0.5},
        "dedupe": "exact",
        "redact": "def redact(row):\n    return row\n",
        "max_rows": 5,
        "filename": "a.jsonl",
    }
    endpoint = {"name": "x", "url": "https://93.184.216.34/", "event_types": ["fine_tuning.job.failed"]}
    return [
        ("/v1/fine_tuning/jobs", job),
        ("/v1/fine_tuning/jobs", job),
        ("/v1/fine_tuning/jobs/preflight", {**job, "preflight": {"prompts": 8, "max_tokens": 100}}),
        ("/v1/uploads", announced),
        (f"/v1/uploads/{upload.id}/complete", {"part_ids": ["part_x"], "md5": "x"}),
        ("/v1/fine_tuning/alpha/graders/validate", {"grader": GRADER}),
        (
            "/v1/fine_tuning/alpha/graders/run",
            {"grader": GRADER, "model_sample": "a", "item": {"answer": "a"}},
        ),
        ("/v1/webhook_endpoints", endpoint),
        ("/v1/feedback", {"completion_id": chat.id, "choice": 0, "reward": 0.5, "reference": {"a": [1]}}),
        ("/v1/datasets/from-stored", dataset),
        ("/v1/erasures", {"ids": ["chatcmpl-none"], "metadata": {"a": "b"}, "created_before": 5}),
    ]


def test_no_mutation_of_a_right_body_makes_a_fault(
    http: httpx.Client, right_bodies: list[tuple[str, dict[str, Any]]]
) -> None:
    chance = random.Random(0)
    seen: dict[str, set[int]] = {}
    for _ in range(BODIES):
        path, right = chance.choice(right_bodies)
        body = hostile(right, chance)
        response = http.post(path, content=body, headers={"content-type": "application/json"})
        seen.setdefault(path, set()).add(response.status_code)
        assert response.status_code < 500, (path, body, response.text)
        if response.status_code >= 400:
            assert set(response.json()["error"]) - {"errors"} == {"message", "type", "param", "code"}
    assert {200, 400} <= seen["/v1/fine_tuning/jobs"]
    assert len(seen) == len(dict(right_bodies)), "some path was never tried"


def accepted_lines(chance: random.Random) -> Iterator[str]:
    """What the strict reader makes of hostile lines, where it takes them, written again."""
    rows = [
        json.loads(ROWS.splitlines()[0]),
        {"a": [1.5, {"b": "é\u202e\U0001f352"}], "c": None, "d": -(2**63)},
    ]
    for _ in range(LINES):
        try:
            value = strict_json.loads(hostile(chance.choice(rows), chance))
        except strict_json.StrictJsonError:
            continue
        yield json.dumps(value, ensure_ascii=False, allow_nan=False)


def test_no_line_is_accepted_that_storage_then_refuses(db: Session) -> None:
    lines = list(accepted_lines(random.Random(0)))
    assert LINES / 20 < len(lines) < LINES, "the lines should be partly good and partly bad"
    "".join(lines).encode("utf-8")
    db.execute(text("CREATE TEMP TABLE lines (value jsonb NOT NULL)"))
    db.execute(text("INSERT INTO lines VALUES (CAST(:line AS jsonb))"), [{"line": line} for line in lines])
    assert db.scalar(text("SELECT count(*) FROM lines")) == len(lines)
