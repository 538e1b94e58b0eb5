"""The playground for graders over HTTP."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2 as httpx
import pytest
from sqlalchemy.orm import Session

from app.dashboard.create.kinds import KINDS
from app.dashboard.sign_in import COOKIE
from app.tenants import sessions
from tests.app.dashboard.create.posts import Form
from tests.factories import Tenant, make_file


@pytest.fixture
def browser(server_url: str, tenant: Tenant, db: Session) -> Iterator[httpx.Client]:
    """A browser in which the tenant has signed in."""
    token = sessions.begin(db, tenant.key_id)
    db.commit()
    with httpx.Client(base_url=server_url, cookies={COOKIE: token}, timeout=60) as client:
        yield client


def test_the_example_of_each_kind_stands_in_the_form(browser: httpx.Client) -> None:
    shown = {kind: Form(browser.get(f"/dashboard/graders?kind={kind}").text).fields for kind in KINDS}
    assert {kind: fields["grader/?"] for kind, fields in shown.items()} == {kind: kind for kind in KINDS}


def test_an_example_is_run_as_the_service_runs_graders(browser: httpx.Client) -> None:
    form = Form(browser.get("/dashboard/graders?kind=multi").text).fields
    result = browser.post("/dashboard/graders/run", data=form).text
    assert "answer" in result
    assert "why" in result
    assert " of 1" in result


def test_a_row_of_a_file_comes_with_a_grader_that_reads_it(
    browser: httpx.Client, db: Session, tenant: Tenant
) -> None:
    rows = b'{"messages": [], "answer": "a"}\n{"messages": [], "target": "b"}\n'
    file = make_file(db, tenant.project_id, rows)
    db.commit()
    form = Form(browser.get(f"/dashboard/graders?file={file.id}&line=2").text).fields
    assert (form["grader/=/reference"], form["answer"]) == ("{{item.target}}", "b")
    assert "the full score" in browser.post("/dashboard/graders/run", data=form).text
    assert "no row at line 3" in browser.get(f"/dashboard/graders?file={file.id}&line=3").text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"item": "{"}, "The row is no JSON"),
        ({"item": "[]"}, "one JSON object"),
        ({"grader/=/reference": "{{item.nothing}}"}, "nothing"),
        ({"grader/=/operation": "same"}, "Supported values are"),
    ],
)
def test_what_is_wrong_is_said(change: dict[str, str], said: str, browser: httpx.Client) -> None:
    form = Form(browser.get("/dashboard/graders").text).fields
    assert said in browser.post("/dashboard/graders/run", data={**form, **change}).text


def test_another_kind_brings_its_row_unless_one_was_typed(browser: httpx.Client) -> None:
    form = Form(browser.get("/dashboard/graders").text).fields
    other = {**form, "grader/?": "rlvr", "do": "kind"}
    assert "ground_truth" in browser.post("/dashboard/graders/form", data=other).text
    typed = browser.post("/dashboard/graders/form", data={**other, "item": '{"mine": 1}'}).text
    assert 'id="item"' not in typed


def test_the_page_asks_for_signing_in(server_url: str, db: Session) -> None:
    assert httpx.get(f"{server_url}/dashboard/graders").status_code == 303
    assert httpx.post(f"{server_url}/dashboard/graders/run", data={}).status_code == 303
