"""What holds for every request: key, body, query, headers, error shape; nothing hostile makes a 5xx."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from urllib.parse import urlsplit

import httpx2 as httpx
import openai
import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from app.auth import KnownKeys
from app.cli.service import server_config
from app.db import get_engine
from app.errors import Unauthorized
from app.http.connections import Connections, Places
from app.settings import Settings
from app.tenants import service as tenants
from tests.app.answers import error_of
from tests.factories import ROWS, Tenant, make_tenant

JOBS = "/v1/fine_tuning/jobs"


NO_KEYS = [
    (None, None),
    ("", None),
    ("Bearer", None),
    ("Basic dXNlcg==", None),
    ("Bearer wrong", "invalid_api_key"),
    ("Bearer sk-cherry-" + "a" * 38, "invalid_api_key"),
    ("Bearer \xff\xfe", "invalid_api_key"),
]


def test_no_request_without_a_right_key(server_url: str, subtests: pytest.Subtests, db: Session) -> None:
    for header, code in NO_KEYS:
        headers = {} if header is None else {"authorization": header.encode("latin-1")}
        for path in ("/v1/models", "/v1/nowhere", f"{JOBS}/ftjob-x"):
            with subtests.test(header, path=path):
                response = httpx.get(server_url + path, headers=headers)
                assert response.status_code == 401
                assert error_of(response)["code"] == code
                assert response.headers["x-request-id"].startswith("req_")


def test_a_wrong_key_is_shown_masked(server_url: str, db: Session) -> None:
    wrong = "sk-cherry-" + "q" * 38
    response = httpx.get(f"{server_url}/v1/models", headers={"authorization": f"Bearer {wrong}"})
    message = error_of(response)["message"]
    assert message.startswith("Incorrect API key provided: sk-cherry-qq...qqqq. ")


def test_who_has_no_right_key_is_told_where_keys_come_from(server_url: str, db: Session) -> None:
    for headers in ({}, {"authorization": "Bearer sk-of-another-service"}):
        message = error_of(httpx.get(f"{server_url}/v1/models", headers=headers))["message"]
        assert "`cherry keys create`" in message
        assert "`cherry up`" in message


WITHOUT_V1 = [
    ("POST", "/chat/completions"),
    ("GET", "/files"),
    ("POST", "/fine_tuning/jobs"),
    ("DELETE", "/models/x"),
    ("GET", "/"),
]


def test_a_url_without_v1_is_told_what_it_lacks(server_url: str, db: Session) -> None:
    for method, path in WITHOUT_V1:
        response = httpx.request(method, server_url + path, headers={"authorization": "Bearer x"})
        assert response.status_code == 404
        assert f"set the client's base_url to {server_url}/v1." in error_of(response)["message"]


def test_a_url_with_v1_twice_or_a_wrong_path_is_told_just_that(http: httpx.Client, server_url: str) -> None:
    twice = error_of(http.get("/v1/v1/files"))["message"]
    assert twice.endswith(f" The path has /v1 twice: set the client's base_url to {server_url}/v1.")
    assert error_of(http.get("/v1/nowhere"))["message"] == "Invalid URL (GET /v1/nowhere)"
    assert error_of(http.get("/dashboard/nowhere"))["message"] == "Invalid URL (GET /dashboard/nowhere)"


def test_no_host_makes_a_fault(server_url: str, db: Session) -> None:
    for host in ("[", "[::1", "a b", "x" * 300, "a:b:c", "\xff", "evil.example/@"):
        for path in ("/files", "/v1/files", "/dashboard"):
            response = httpx.get(server_url + path, headers={"host": host.encode("latin-1")})
            assert response.status_code < 500, response.text


def test_the_key_is_checked_before_the_body_is_read(server_url: str, db: Session) -> None:
    """The body is never sent: an answer that comes anyway did not wait for it."""
    target = urlsplit(server_url)
    with socket.create_connection((target.hostname, target.port), timeout=10) as connection:
        head = f"POST {JOBS} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        connection.sendall(f"{head}content-length: 900\r\n\r\n{{".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 401")


def test_half_sent_requests_keep_nobody_waiting(server_url: str, http: httpx.Client) -> None:
    target = urlsplit(server_url)
    half = f"POST {JOBS} HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n".encode()
    with ExitStack() as stack:
        for _ in range(300):
            connection = socket.create_connection((target.hostname, target.port), timeout=10)
            stack.enter_context(connection).sendall(half)
        assert http.get("/v1/models").status_code == 200


def test_idle_connections_outlive_the_pause_of_a_poller() -> None:
    """The server's own default is 5 s: who asks every 5 s would meet a connection that was just closed."""
    settings = Settings(DATABASE_URL="postgresql://x@y/z", broker_url="filesystem://x")
    config = server_config(settings, Connections(Places(1, 1), 1))
    assert config.timeout_keep_alive >= 75
    assert config.timeout_graceful_shutdown <= 5


def test_a_client_that_sends_much_still_reads_its_refusal(server_url: str, db: Session) -> None:
    with (
        openai.OpenAI(base_url=f"{server_url}/v1", api_key="wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError),
    ):
        client.files.create(file=("a.jsonl", b"x" * 8_000_000), purpose="fine-tune")


def test_keys_may_hold_spaces_and_have_a_checksum(server_url: str, db: Session) -> None:
    made = make_tenant(db, key="My API Key")
    new = tenants.create_key(db, made.project_id, "second")
    db.commit()
    assert tenants.is_well_formed(new.plaintext)
    assert not tenants.is_well_formed(new.plaintext[:-1] + "!")
    for key in ("My API Key", new.plaintext):
        headers = {"authorization": f"Bearer {key}"}
        assert httpx.get(f"{server_url}/v1/models", headers=headers).status_code == 200
    assert tenants.revoke_key(db, made.project_id, new.row.id)
    db.commit()
    assert httpx.get(f"{server_url}/v1/models", headers=headers).status_code == 401
    assert not tenants.revoke_key(db, made.project_id, new.row.id)


def test_use_is_noted_once_a_minute(http: httpx.Client, db: Session, tenant: Tenant) -> None:
    def last_used() -> object:
        db.expire_all()
        db.rollback()
        return tenants.list_keys(db, tenant.project_id)[0].last_used_at

    http.get("/v1/models")
    first = last_used()
    http.get("/v1/models")
    assert first is not None
    assert last_used() == first


@pytest.mark.parametrize(
    ("header", "code"),
    [("openai-organization", "invalid_organization"), ("openai-project", "invalid_project")],
)
def test_another_tenants_header_is_refused(
    http: httpx.Client, tenant: Tenant, header: str, code: str
) -> None:
    own = {"openai-organization": tenant.organization_id, "openai-project": tenant.project_id}
    assert http.get("/v1/models", headers=own).status_code == 200
    response = http.get("/v1/models", headers=own | {header: "org-other"})
    assert (response.status_code, error_of(response)["code"]) == (401, code)


ANSWERS = [
    ("GET", "/v1/models", 200),
    ("GET", "/v1/models/none", 404),
    ("GET", "/v1/nowhere", 404),
    ("PUT", "/v1/models", 405),
    ("POST", JOBS, 400),
]


def test_every_answer_carries_our_headers(http: httpx.Client, subtests: pytest.Subtests) -> None:
    for method, path, status in ANSWERS:
        with subtests.test(path):
            response = http.request(method, path)
            assert response.status_code == status
            headers = response.headers
            assert headers["x-request-id"].startswith("req_")
            assert headers["openai-version"] == "2020-10-01"
            assert headers["openai-processing-ms"].isdecimal()
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["cache-control"] == "no-store"
            assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
            if status >= 400:
                error_of(response)
            assert http.request(method, path).headers["x-request-id"] != headers["x-request-id"]


NOT_YET = [
    ("POST", "/v1/embeddings"),
    ("POST", "/v1/moderations"),
    ("POST", "/v1/responses/compact"),
    ("GET", "/v1/batches"),
    ("GET", "/v1/organization/users"),
]


def test_what_is_not_there_yet_says_so(http: httpx.Client, subtests: pytest.Subtests) -> None:
    for method, path in NOT_YET:
        with subtests.test(path):
            response = http.request(method, path, json={} if method == "POST" else None)
            assert response.status_code == 404
            assert "not available in this version of Cherry" in error_of(response)["message"]


def test_an_empty_json_body_is_no_fault(http: httpx.Client) -> None:
    response = http.post(f"{JOBS}/ftjob-x/cancel", headers={"content-type": "application/json"})
    assert response.status_code == 404
    assert error_of(response)["code"] == "fine_tune_not_found"


NOT_STRICT = [
    pytest.param(b"{", id="cut"),
    pytest.param(b"NaN", id="nan"),
    pytest.param(b'{"seed": NaN}', id="nan-inside"),
    pytest.param(b'{"seed": Infinity}', id="infinity"),
    pytest.param(b'{"seed": 1e999}', id="overflow"),
    pytest.param(b'{"seed": ' + b"9" * 5000 + b"}", id="huge-int"),
    pytest.param(b'{"seed": 9223372036854775808}', id="65-bit-int"),
    pytest.param(b'{"model": "\\ud800"}', id="lone-surrogate"),
    pytest.param(b'{"\\udc00": 1}', id="lone-surrogate-key"),
    pytest.param(b'{"model": "\\u0000"}', id="nul"),
    pytest.param(b'{"model": "a", "model": "b"}', id="twice"),
    pytest.param(b"[" * 300 + b"]" * 300, id="deep"),
    pytest.param(b'{"a":' * 100_000, id="very-deep"),
    pytest.param('{"model": "é"}'.encode("utf-16"), id="utf-16"),
    pytest.param(b'{"model": "\xff"}', id="not-utf8"),
    pytest.param(b"\xef\xbb\xbf{}", id="byte-order-mark"),
    pytest.param(b"model=x", id="form"),
]


def test_what_is_no_strict_json_is_a_400(http: httpx.Client, subtests: pytest.Subtests) -> None:
    for case in NOT_STRICT:
        (body,) = case.values
        with subtests.test(case.id):
            response = http.post(JOBS, headers={"content-type": "application/json"}, content=body)
            assert response.status_code == 400
            assert error_of(response)["code"] == "invalid_json"


@pytest.mark.parametrize("body", ["[]", '"x"', "null", "7"])
def test_a_body_that_is_no_object_is_a_400(http: httpx.Client, body: str) -> None:
    response = http.post(JOBS, headers={"content-type": "application/json"}, content=body)
    assert response.status_code == 400
    assert error_of(response)["code"] == "invalid_type"


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999", "9" * 30])
def test_what_is_no_number_is_named_by_its_field(http: httpx.Client, number: str) -> None:
    body = f'{{"seed": 1, "method": {{"reinforcement": {{"weights": [0.5, {number}]}}}}}}'
    response = http.post(JOBS, headers={"content-type": "application/json"}, content=body)
    assert response.status_code == 400
    error = error_of(response)
    assert (error["code"], error["param"]) == ("invalid_json", "method.reinforcement.weights[1]")


NOT_JSON = ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=b", ""]


def test_only_json_is_taken(http: httpx.Client, subtests: pytest.Subtests) -> None:
    for media in NOT_JSON:
        with subtests.test(media):
            response = http.post(JOBS, headers={"content-type": media}, content=b"{}")
            assert response.status_code == 400
            assert error_of(response)["code"] == "unsupported_content_type"


def test_large_bodies_are_refused_told_or_not(http: httpx.Client) -> None:
    big = b'{"model": "' + b"x" * 2**20 + b'"}'

    def in_pieces() -> Iterator[bytes]:
        for start in range(0, len(big), 65536):
            yield big[start : start + 65536]

    json_type = {"content-type": "application/json"}
    for content in (big, in_pieces()):
        response = http.post(JOBS, headers=json_type, content=content)
        assert (response.status_code, error_of(response)["code"]) == (413, "request_too_large")
    without_a_key = http.post("/dashboard/login", headers={"authorization": ""}, data={"key": "x" * 2**20})
    assert without_a_key.status_code == 413


QUERIES = [
    ("after=%00", 400),
    ("after=%0a", 400),
    ("after=%ff", 400),
    ("a=" + "x" * 5000, 400),
    ("metadata[%00]=x", 400),
    ("metadata[a]=%ED%A0%80", 400),
    ("&".join(f"metadata[{n}]=x" for n in range(17)), 400),
    ("after=%F0%9F%8D%92", 200),
    ("limit=9223372036854775808", 400),
    ("metadata[]=x&metadata[[]]=y&metadata=z&=&&", 200),
]


def test_hostile_queries_make_no_fault(http: httpx.Client, subtests: pytest.Subtests) -> None:
    for query, status in QUERIES:
        with subtests.test(query[:60]):
            assert http.get(f"{JOBS}?{query}").status_code == status


HOSTILE_IDS = ["%00", "%ff", "%0d%0a", "x" * 3000, "%F0%9F%8D%92", "..%2f..%2fetc", "%ED%A0%80", "a%2Fb"]


def test_hostile_ids_are_not_found(http: httpx.Client, subtests: pytest.Subtests) -> None:
    for name in HOSTILE_IDS:
        with subtests.test(name):
            for path in (
                f"/v1/files/{name}",
                f"/v1/files/{name}/content",
                f"/v1/models/{name}",
                f"{JOBS}/{name}/events",
            ):
                assert http.get(path).status_code == 404
            assert http.delete(f"/v1/models/{name}").status_code == 404


def test_the_clients_own_request_id_is_bounded_ascii(http: httpx.Client) -> None:
    for value, status in (("x" * 512, 200), ("x" * 513, 400), ("é", 400)):
        headers = {"x-client-request-id": value.encode()}
        assert http.get("/v1/models", headers=headers).status_code == status


def test_an_unforeseen_fault_tells_a_request_id_and_nothing_else(http: httpx.Client, db: Session) -> None:
    db.execute(text("ALTER TABLE models RENAME COLUMN name TO name_1234"))
    db.commit()
    response = http.get("/v1/models")
    assert response.status_code == 500
    error = error_of(response)
    assert error["type"] == "server_error"
    assert response.headers["x-request-id"] in error["message"]
    for inner in ("1234", "column", "SELECT"):
        assert inner not in response.text
    assert "Traceback" not in response.text


def test_a_database_that_is_away_is_a_503(http: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    from app.settings import get_settings

    get_engine().dispose()
    monkeypatch.setenv("DATABASE_URL", "postgresql:///x?host=/nowhere")
    get_settings.cache_clear()
    get_engine.cache_clear()
    response = http.get("/v1/models")
    assert (response.status_code, error_of(response)["type"]) == (503, "service_unavailable_error")
    ready = http.get("/readyz")
    assert ready.status_code == 503
    assert ready.json()["checks"]["database"] == "unreachable"
    assert http.get("/healthz").json() == {"status": "ok"}


def test_ready_means_database_migrations_and_broker(server_url: str, db: Session) -> None:
    from app.http.health import PARTS, Readiness

    assert Readiness(PARTS).checks() == {"database": "ok", "broker": "ok", "disk": "ok"}
    assert httpx.get(f"{server_url}/healthz").status_code == 200


def test_a_refused_upload_leaves_the_connection_usable(http: httpx.Client) -> None:
    for _ in range(3):
        http.post("/v1/files", files={"file": ("x.txt", ROWS)}, data={"purpose": "fine-tune"})
        assert http.get("/v1/models").status_code == 200


def test_the_schema_marks_our_own_operations(server_url: str) -> None:
    paths = httpx.get(f"{server_url}/openapi.json").json()["paths"]
    ours = {path for path, operations in paths.items() if any(o.get("x-cherry") for o in operations.values())}
    job = f"{JOBS}/{{job_id}}"
    assert ours == {
        f"{job}/metrics",
        f"{job}/rollouts",
        f"{job}/rows",
        f"{job}/checkpoints/{{checkpoint_id}}/download",
        "/v1/webhook_endpoints/{webhook_endpoint_id}/deliveries",
        "/v1/uploads/{upload_id}",
        "/v1/fine_tuning/card_keys",
        "/v1/fine_tuning/checkpoints/{fine_tuned_model_checkpoint}",
        "/v1/fine_tuning/jobs/{job_id}/card",
        "/v1/fine_tuning/jobs/{job_id}/frontier",
        "/v1/fine_tuning/jobs/preflight",
        "/v1/fine_tuning/jobs/{job_id}/regrade",
        "/v1/regrades",
        "/v1/regrades/{regrade_id}",
        "/v1/regrades/{regrade_id}/cancel",
        "/v1/regrades/{regrade_id}/results",
        "/v1/fine_tuning/environments",
        "/v1/fine_tuning/preflights",
        "/v1/fine_tuning/preflights/{preflight_id}",
        "/v1/fine_tuning/preflights/{preflight_id}/cancel",
        "/v1/feedback",
        "/v1/feedback/{feedback_id}",
        "/v1/datasets",
        "/v1/datasets/from-stored",
        "/v1/datasets/{dataset_id}",
        "/v1/datasets/{dataset_id}/rows",
        "/v1/datasets/{dataset_id}/cancel",
        "/v1/erasures",
        "/v1/erasures/{erasure_id}",
        "/v1/organization/erasures",
        "/v1/organization/projects/{project_id}/completions_retention",
    }


def test_a_key_is_known_for_a_moment_and_asked_for_again_afterwards(db: Session) -> None:
    made = make_tenant(db)
    db.commit()
    now = 100.0
    keys = KnownKeys(1.0, clock=lambda: now)
    headers = {"authorization": f"Bearer {made.key}"}

    async def ask() -> None:
        nonlocal now
        together = await asyncio.gather(*(keys.caller(headers) for _ in range(50)))
        assert together == [together[0]] * 50
        assert together[0].project_id == made.project_id
        assert tenants.revoke_key(db, made.project_id, made.key_id)
        db.commit()
        now += 0.9
        assert await keys.caller(headers) == together[0]
        with pytest.raises(Unauthorized):  # these headers were not asked for before
            await keys.caller({**headers, "openai-project": "proj_of_another"})
        now += 0.1
        for _ in range(2):
            refused = await asyncio.gather(*(keys.caller(headers) for _ in range(3)), return_exceptions=True)
            assert [type(refusal) for refusal in refused] == [Unauthorized] * 3

    asyncio.run(ask())
