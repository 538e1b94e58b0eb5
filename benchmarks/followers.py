"""Many who follow jobs live: `python -m benchmarks.followers --followers 1000`.

Starts the API as a process of its own, opens so many streams over loopback, commits events, and tells how
late they come, what the process takes, and how long it needs to end all streams when it is told to stop.
Fails if an event is missing, or if the streams are not over within five seconds. Linux only: it reads /proc.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.api.service import running_api
from benchmarks.api.upload import memory_of

MB = 2**20
MOST_SECONDS_TO_END = 5.0
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Follower:
    """One stream as its reader sees it."""

    seen: dict[int, float] = field(default_factory=dict)
    """When each event came, by its number; a monotonic clock."""
    ended: float | None = None
    is_told: bool = False
    """The server said how to go on."""

    async def follow(self, host: str, port: int, path: str, key: str) -> None:
        reader, writer = await asyncio.open_connection(host, port)
        request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n\r\n"
        writer.write(request.encode())
        while line := await reader.readline():
            if line.startswith(b"id: "):
                self.seen[int(line[4:])] = time.monotonic()
            self.is_told = self.is_told or line.startswith(b"event: shutdown")
            if line == b"0\r\n":  # the last chunk
                break
        self.ended = time.monotonic()
        writer.close()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--followers", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=10)
    parser.add_argument("--seconds", type=int, default=20)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="cherry-followers-") as place:
        return _run(Path(place), given.followers, given.jobs, given.seconds)


def _run(folder: Path, followers: int, jobs: int, seconds: int) -> int:
    from app.embedded.postgres import Postgres

    postgres = Postgres(folder / "postgres")
    postgres.start()
    try:
        env = {
            "DATABASE_URL": postgres.url,
            "CHERRY_BROKER_URL": f"filesystem://{folder}/broker",
            "CHERRY_DATA_DIR": str(folder / "data"),
            "CHERRY_MAX_FOLLOWERS": str(followers),
            "CHERRY_MAX_CONNECTIONS_PER_ADDRESS": str(2 * followers),
        }
        os.environ.update(env)
        command = [sys.executable, "-m", "app.cli.main", "migrate"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        key, job_ids = _rows(jobs)
        with running_api(env) as (url, pid):
            return asyncio.run(_measure(url, pid, key, job_ids, followers, seconds))
    finally:
        postgres.stop()


def _rows(jobs: int) -> tuple[str, list[str]]:
    import app.tables  # noqa: F401
    from app.db import unit_of_work
    from app.ids import random_id
    from app.jobs.models import Job
    from app.tenants import service as tenants

    with unit_of_work() as db:
        project = tenants.ensure_default_tenant(db)
        key = tenants.create_key(db, project.id, "followers").plaintext
        made = [
            Job(
                id=random_id("ftjob-"),
                project_id=project.id,
                status="queued",
                model="none",
                training_file="none",
                seed=1,
                method={"type": "reinforcement", "reinforcement": {"grader": {}, "hyperparameters": {}}},
            )
            for _ in range(jobs)
        ]
        db.add_all(made)
        return key, [job.id for job in made]


async def _measure(url: str, pid: int, key: str, job_ids: list[str], count: int, seconds: int) -> int:
    place = urlsplit(url)
    assert place.hostname
    assert place.port
    before = memory_of(pid, "VmRSS")
    followers = [Follower() for _ in range(count)]
    tasks = []
    for number, follower in enumerate(followers):
        path = f"/v1/fine_tuning/jobs/{job_ids[number % len(job_ids)]}/events?stream=true"
        tasks.append(asyncio.create_task(follower.follow(place.hostname, place.port, path, key)))
        if number % 50 == 49:
            await asyncio.sleep(0.2)  # connections come in as people come
    told: list[float] = [await asyncio.to_thread(_tell, job_ids, 1)]
    while any(not follower.seen for follower in followers):
        await asyncio.sleep(0.1)
    first_cpu, started = _cpu(pid), time.monotonic()
    while time.monotonic() < started + seconds:
        told.append(await asyncio.to_thread(_tell, job_ids, len(told) + 1))
        await asyncio.sleep(1.0)
    await asyncio.sleep(2.0)
    busy = (_cpu(pid) - first_cpu) / (time.monotonic() - started)
    grown = memory_of(pid, "VmRSS") - before
    stopped = time.monotonic()
    os.kill(pid, 15)
    await asyncio.wait(tasks, timeout=30)
    return _report(followers, told, busy, grown, stopped)


def _report(followers: list[Follower], told: list[float], busy: float, grown: int, stopped: float) -> int:
    late = sorted(
        follower.seen[seq] - told[seq - 1]
        for follower in followers
        for seq in range(2, len(told) + 1)
        if seq in follower.seen
    )
    whole = sum(list(follower.seen) == list(range(1, len(told) + 1)) for follower in followers)
    ended = [follower.ended - stopped for follower in followers if follower.ended and follower.is_told]
    print(f"{len(followers)} followers, {whole} with all {len(told)} events in order")
    print(f"late: p50 {statistics.median(late):.2f} s, p99 {late[int(len(late) * 0.99)]:.2f} s")
    each = grown / len(followers) / 1024
    print(f"API process: {busy:.0%} of a core, {grown / MB:.0f} MB more, {each:.0f} kB for each")
    last = max(ended, default=0.0)
    print(f"told how to go on and ended after SIGTERM: {len(ended)}, the last after {last:.1f} s")
    is_well = whole == len(ended) == len(followers) and last < MOST_SECONDS_TO_END
    return 0 if is_well else 1


def _tell(job_ids: list[str], number: int) -> float:
    """One more event in each job; when they were committed."""
    from app.db import unit_of_work
    from app.events import service as events

    with unit_of_work() as db:
        for job_id in job_ids:
            data = {"step": number, "train_mean_reward": 0.5, "kl": 0.01}
            events.append(db, job_id, f"step-{number}", f"Step {number}/100", data=data)
    return time.monotonic()


def _cpu(pid: int) -> float:
    """Seconds of CPU that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


if __name__ == "__main__":
    sys.exit(main())
