"""What tests of the dashboard do with a window, and look for in it."""

from __future__ import annotations

from playwright.sync_api import Page

from tests.factories import Tenant

PHONE = 390
LOOKS = 30


def sign_in(page: Page, tenant: Tenant) -> None:
    """Signs in as a person does, by the form."""
    page.goto("/dashboard")
    page.get_by_label("API key").fill(tenant.key)
    page.get_by_role("button", name="Sign in").click()


def assert_fits_a_phone(page: Page) -> None:
    """Fails if the page that is open scrolls sideways on a phone, and names what sticks out."""
    before = page.viewport_size
    page.set_viewport_size({"width": PHONE, "height": 800})
    wide = 0
    for _ in range(LOOKS):  # charts follow a change of the window's width a moment later
        if (wide := page.evaluate("document.documentElement.scrollWidth")) <= PHONE:
            break
        page.wait_for_timeout(100)
    names = page.evaluate(STICKS_OUT, PHONE) if wide > PHONE else []
    if before:
        page.set_viewport_size(before)
    assert wide <= PHONE, f"The page is {wide} pixels wide: {names}"


STICKS_OUT = """limit => [...document.querySelectorAll("main *, header *")]
    .filter(one => one.getBoundingClientRect().right > limit + 1 && !one.closest(".scroll, nav"))
    .slice(0, 5).map(one => one.tagName + "." + one.className)"""
