"""The pages of completions in a real browser: hostile texts are text, and the slider swaps the list alone."""

from __future__ import annotations

import json
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy.orm import Session

from app.jobs.models import Job
from tests.app.dashboard.windows import assert_fits_a_phone
from tests.factories import Tenant, make_file, make_job, make_rollout

pytestmark = pytest.mark.slow

HTML = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script></td></table>"
HOSTILE = [
    HTML,
    "![x](https://evil.example/a.png) [y](javascript:alert(1)) {{ 7 * 7 }}",
    "\x1b[2J\x1b[31mred\x1b]8;;https://evil.example\x07link\x1b]8;;\x07 \x9b31m",
    "\u202eevil\u202c \u2066x\u2069 a\u200bb \ufeff",
    "long " * 40_000,
    "x" * 200_000,
]


@pytest.fixture
def job(db: Session, tenant: Tenant) -> Job:
    """A job whose prompts, references and completions are all written by an attacker."""
    rows = [
        {"messages": [{"role": "user", "content": f"\0{one[:900]}"}], HTML: {one[:300]: one[:900]}}
        for one in HOSTILE
    ]
    file = make_file(
        db, tenant.project_id, "\n".join(map(json.dumps, rows)).encode(), name=f"{HTML[:40]}.jsonl"
    )
    made = make_job(db, tenant.project_id, training_file=file.id, validation_file=None, suffix="hostile")
    for step in (0, 3, 7):
        for row, attack in enumerate(HOSTILE):
            make_rollout(db, made, step, row, **_columns(attack, row, step))
    db.commit()
    return made


def _columns(attack: str, row: int, step: int) -> dict[str, Any]:
    short = attack[:2000]
    call = {"function": {"name": short[:60], "arguments": attack}}
    turns = [
        {"role": "assistant", "content": attack, "reasoning_content": attack, "tool_calls": [call]},
        {
            "role": short[:80],
            "name": short[:80],
            "content": attack,
            "tokens": 1,
            "seconds": 0.5,
            "is_error": True,
        },
    ]
    failed = {"reward": None, "failure": "sample_parse_error", "failure_message": short}
    return {
        "text": f"step {step} {attack}",
        "reason": short,
        "parts": {short[:200]: 0.5, f"{short[:50]}.{short[:50]}": 7.0},
        "sampled_by": short[:200],
        "episode": {"trace_id": "t", "messages": turns} if row % 2 else None,
        **(failed if row % 3 == 2 else {}),
    }


def test_hostile_texts_are_text_on_every_page(visitor: Page, job: Job) -> None:
    asked: list[str] = []
    visitor.on("request", lambda request: asked.append(request.url))
    at = f"/dashboard/jobs/{job.id}/rollouts"
    pages = [at, *(f"{at}/one/train-3-{row}-0" for row in range(len(HOSTILE)))]
    pages += [f"{at}/group?split=train&step=3&row=0", f"{at}/row?split=train&row=3"]
    pages += [f"{at}/difference?before=train-0-2-0&after=train-7-{row}-0" for row in (0, 2, 5)]
    for path in pages:
        answer = visitor.goto(path)
        assert answer is not None
        assert answer.status == 200, path
        assert visitor.locator("body script, body img, body a[href^='javascript']").count() == 0
        assert "owned" not in visitor.title()
        assert_fits_a_phone(visitor)
    hosts = {url.split("/dashboard")[0] for url in asked}
    assert len(hosts) == 1, hosts
    visitor.goto(f"{at}/one/train-3-2-0")
    expect(visitor.get_by_text("␛").first).to_be_visible()
    expect(visitor.get_by_text("␀").first).to_be_visible()
    visitor.goto(f"{at}/one/train-3-3-0")
    expect(visitor.locator(".sample .hidden-mark", has_text="U+202E").first).to_be_visible()
    assert len(visitor.goto(at).body()) < 1_000_000  # type: ignore[union-attr]


def test_the_slider_swaps_the_list_alone_and_the_address_follows(
    visitor: Page, job: Job, db: Session
) -> None:
    for step in (2, 5):
        make_rollout(db, job, step, 0, split="valid")
    db.commit()
    visitor.goto(f"/dashboard/jobs/{job.id}/rollouts")
    heading = visitor.locator("#samples h2")
    expect(heading).to_contain_text("step 7")
    visitor.evaluate("document.querySelector('form.filter').dataset.kept = 'yes'")
    slider = visitor.get_by_label("Step, of those that exist")
    slider.focus()
    visitor.keyboard.press("ArrowLeft")
    expect(heading).to_contain_text("step 3")
    expect(slider).to_have_attribute("aria-valuetext", "step 3")
    visitor.keyboard.press("Home")
    expect(heading).to_contain_text("step 0")
    expect(visitor.get_by_label("Step", exact=True)).to_have_value("0")
    expect(slider).to_be_focused()
    assert "step=0" in visitor.url
    assert visitor.locator("form.filter").get_attribute("data-kept") == "yes"
    visitor.go_back()
    expect(heading).to_contain_text("step 3")
    expect(slider).to_have_attribute("aria-valuetext", "step 3")
    slider.press("End")
    expect(heading).to_contain_text("step 7")
    visitor.get_by_label("Split", exact=True).select_option("validation")
    expect(heading).to_have_text("Validation completions, step 5")
    expect(slider).to_have_attribute("max", "1")
    slider.press("ArrowLeft")
    expect(heading).to_contain_text("step 2")
    visitor.get_by_label("Split", exact=True).select_option("training")
    expect(heading).to_contain_text("Training completions, step 7")
    visitor.get_by_text("Filters").click()
    visitor.get_by_label("Failure").select_option("any failure")
    expect(visitor.locator(".sample")).to_have_count(2)
