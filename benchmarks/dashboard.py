"""`make bench-dashboard`: the page of a job of 10,000 steps, read by a real server and drawn by Chromium.

It prints how long the server takes for the curves (median and range of some requests), how many points come,
and how long the browser's script takes to draw them all, from the data's arrival to the last chart.
"""

from __future__ import annotations

import json
import random
import shutil
import statistics
import sys
import time
from typing import Any

import httpx2 as httpx
import psycopg
from playwright.sync_api import sync_playwright

from benchmarks.api.rows import JOB, JOBS, METHOD
from benchmarks.api.service import running_service
from methods import metrics as names

STEPS, EVAL_EVERY, TIMES = 10_000, 20, 7
MOST_MS = 200.0
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
EVERY_STEP = ("every step", "updates", "every step; validations", "every step, with a `guard`")
FIELDS = ("city", "date", "hotel", "name", "nights", "price")
FIRST = """async () => {
  while (!performance.getEntriesByName("cherry-draw").length) await new Promise(done => setTimeout(done, 20))
}"""
DRAWN = """async times => {
  const found = []
  for (let n = 0; n < times; n++) {
    performance.clearMeasures()
    dispatchEvent(new Event("draw-again"))
    while (!performance.getEntriesByName("cherry-draw").length) await new Promise(done => setTimeout(done, 5))
    found.push(performance.getEntriesByName("cherry-draw")[0].duration)
  }
  return found
}"""


def main() -> int:
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        print("There is no Chromium on this machine; install it with your package manager.")
        return 1
    with running_service() as service:
        fill(service.environment["DATABASE_URL"])
        with httpx.Client(base_url=service.url) as client:
            client.post("/dashboard/login", data={"key": service.key})
            server, points = asked(client)
        drawn = draw(browser, service.url, service.key)
    for what, took in ((f"server, {points}", server), ("browser, all charts drawn", drawn)):
        print(f"{what}: median {statistics.median(took):.0f} ms, {min(took):.0f} to {max(took):.0f} ms")
    is_well = statistics.median(server) < MOST_MS and statistics.median(drawn) < MOST_MS
    print(f"bars: {MOST_MS:.0f} ms each: {'met' if is_well else 'MISSED'}")
    return 0 if is_well else 1


def fill(database_url: str) -> None:
    """Writes a job with the numbers of a real one: about 50 a step, more where it was validated."""
    chance = random.Random(0)
    with psycopg.connect(database_url, autocommit=True) as db:
        db.execute(JOBS, (json.dumps(METHOD), 1))
        changed = "UPDATE jobs SET config = %s, last_step = %s, total_steps = %s"
        db.execute(changed, (json.dumps({"prompts_per_step": 8}), STEPS, STEPS))
        with db.cursor().copy("COPY job_metrics (job_id, step, epoch, attempt, values) FROM STDIN") as copy:
            for step in range(STEPS):
                copy.write_row((JOB, step, 1, 1, json.dumps(numbers(step, chance))))
        db.execute("VACUUM ANALYZE")


def numbers(step: int, chance: random.Random) -> dict[str, Any]:
    """Returns the metrics of one step, each with a full-length number."""
    is_validated = step % EVAL_EVERY == 0
    found = {
        metric.name.replace("{split}", "train"): chance.random()
        for metrics in names.TABLES.values()
        for metric in metrics
        if metric.when in EVERY_STEP or (is_validated and metric.when in ("validations", "every checkpoint"))
    }
    splits = ("train", "valid") if is_validated else ("train",)
    return found | {
        names.PART_MEAN.format(split=split, part=part): chance.random() for split in splits for part in FIELDS
    }


def asked(client: httpx.Client) -> tuple[list[float], str]:
    """Returns the milliseconds of some requests for all curves, and what came."""
    took = []
    for _ in range(TIMES):
        started = time.perf_counter()
        response = client.get(f"/dashboard/jobs/{JOB}/curves")
        took.append((time.perf_counter() - started) * 1000)
    lines = [curve for chart in response.json()["charts"] for curve in chart["curves"]]
    most = max(len(curve["steps"]) for curve in lines)
    return took, f"{len(lines)} curves of at most {most} points, {len(response.content) / 1000:.0f} kB"


def draw(browser: str, url: str, key: str) -> list[float]:
    """Returns the milliseconds that the page's script takes to draw all charts, some times over."""
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = launched.new_page(base_url=url, viewport={"width": 1280, "height": 900})
        page.goto("/dashboard/login")
        page.get_by_label("API key").fill(key)
        page.get_by_role("button", name="Sign in").click()
        page.goto(f"/dashboard/jobs/{JOB}")
        page.evaluate(FIRST)
        found: list[float] = page.evaluate(DRAWN, TIMES)
        launched.close()
    return found


if __name__ == "__main__":
    sys.exit(main())
