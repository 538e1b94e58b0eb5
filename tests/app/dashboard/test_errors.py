"""What goes wrong is told to people as a page, and to programs in the API's body."""

from __future__ import annotations

import httpx2 as httpx

BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


def test_a_person_gets_a_page_a_part_of_a_page_or_a_body(signed_in: httpx.Client) -> None:
    http = signed_in
    path = "/dashboard/jobs/ftjob-<b>"
    page = http.get(path, headers=BROWSER)
    assert page.status_code == 404
    assert "This page does not exist" in page.text
    assert "ftjob-&lt;b&gt;" in page.text
    part = http.get(path, headers={"hx-request": "true"})
    assert part.text.startswith('<div class="problem" role="alert">')
    assert http.get(path).json()["error"]["code"] == "fine_tune_not_found"


def test_a_part_of_a_page_never_becomes_the_door(http: httpx.Client) -> None:
    assert http.get("/dashboard/nowhere", headers=BROWSER).status_code == 404
    assert "<title>404" in http.get("/dashboard/nowhere", headers=BROWSER).text
