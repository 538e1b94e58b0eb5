"""A browser for the tests of the dashboard: one for the session, a window for each test."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Iterator
from typing import NamedTuple

import httpx2 as httpx
import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from sqlalchemy.orm import Session

from app.dashboard.sign_in import COOKIE
from app.tenants import sessions
from tests.factories import Tenant

NAMES = ("chromium", "chromium-browser", "google-chrome")


class Running(NamedTuple):
    """A browser, and the event loop that Playwright's calls run in."""

    browser: Browser
    loop: asyncio.AbstractEventLoop


@pytest.fixture(scope="session")
def chromium() -> Iterator[Running]:
    """The browser. Its loop counts as running on this thread, and no other could then run there; so it is put
    away between tests."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium on this machine: `make test` installs it where it can")
    playwright = sync_playwright().start()
    launched = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
    loop = asyncio.get_running_loop()
    asyncio._set_running_loop(None)
    yield Running(launched, loop)
    asyncio._set_running_loop(loop)
    launched.close()
    playwright.stop()


@pytest.fixture
def page(chromium: Running, server_url: str) -> Iterator[Page]:
    """A window of nobody in particular. At its end no script may have failed, and no policy been broken."""
    asyncio._set_running_loop(chromium.loop)
    context = chromium.browser.new_context(base_url=server_url)
    window = context.new_page()
    faults: list[str] = []
    window.on("pageerror", lambda error: faults.append(str(error)))
    window.on("console", lambda said: faults.append(said.text) if "Security Policy" in said.text else None)
    yield window
    context.close()
    time.sleep(
        0.05
    )  # what it has asked last has reached a handler by then: tests/conftest.py waits for these
    asyncio._set_running_loop(None)
    assert not faults, "\n".join(faults)


@pytest.fixture
def visitor(page: Page, server_url: str, tenant: Tenant, db: Session) -> Page:
    """A window in which the tenant has signed in."""
    token = sessions.begin(db, tenant.key_id)
    db.commit()
    page.context.add_cookies([{"name": COOKIE, "value": token, "url": server_url}])
    return page


@pytest.fixture
def signed_in(http: httpx.Client, tenant: Tenant, db: Session) -> httpx.Client:
    """Raw HTTP of somebody who has signed in, without the form: that takes so many wrong keys a minute, and
    other tests send some."""
    token = sessions.begin(db, tenant.key_id)
    db.commit()
    http.cookies.set(COOKIE, token)
    return http
