"""`python -m benchmarks.api [--seconds S] [--connections N]`: the API under load, on this machine only.

The load comes from one more process beside the API and Postgres, so on two cores they share. Each line has
requests a second, median and 99th percentile, failures, and the API's memory.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import httpx2 as httpx

from benchmarks.api import load, rows
from benchmarks.api.load import Measured, Plan, request
from benchmarks.api.service import Service, running_service

MIN_RATE, MAX_P99, MAX_QUERY_MS = 1500.0, 50.0, 50.0
JOBS = "/v1/fine_tuning/jobs"
JOB = f"{JOBS}/{rows.JOB}"
POLLED_JOBS = 1000
BOUNDARY = "bench"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--pollers", type=int, default=1000)
    parser.add_argument("--grades", type=int, default=1_000_000)
    parser.add_argument("--processes", type=int, default=2, help="of the API")
    asked = parser.parse_args(arguments)
    settings = {"CHERRY_API_PROCESSES": str(asked.processes), "CHERRY_MAX_ACTIVE_JOBS": "1000000"}
    settings["CHERRY_MAX_CONNECTIONS_PER_ADDRESS"] = "1000000"  # here all clients have one
    with running_service(**settings) as service:
        started = time.monotonic()
        rows.fill(service.environment["DATABASE_URL"], jobs=10_000, grades=asked.grades)
        print(f"10,000 jobs and {asked.grades:,} grades written in {time.monotonic() - started:.0f} s")
        found = {
            name: _measure(name, service, requests, asked.connections, asked.seconds)
            for name, requests in _cases(service).items()
        }
        poll = Plan(service.port, _cases(service)["GET job"], asked.pollers, 3 * asked.seconds, every=5.0)
        polled = load.run(poll)
        print(f"{asked.pollers} pollers     {polled}")
        pages = _pages(service)
    job = found["GET job"]
    is_well = job.rate >= MIN_RATE and job.p99 < MAX_P99 and polled.failed == 0 and pages < MAX_QUERY_MS
    print(
        f"bars: GET job >= {MIN_RATE:.0f} req/s, p99 < {MAX_P99:.0f} ms; pages < {MAX_QUERY_MS:.0f} ms: ",
        end="",
    )
    print("met" if is_well else "MISSED")
    return 0 if is_well else 1


def _cases(service: Service) -> dict[str, list[str]]:
    """The requests of each line."""
    row = b'{"messages": [{"role": "user", "content": "Say a"}], "answer": "a"}\n'
    form = _form({"purpose": b"fine-tune"}, b"train.jsonl", row * 20)
    media = f"multipart/form-data; boundary={BOUNDARY}"
    headers = {"authorization": f"Bearer {service.key}"}
    files = {"file": ("train.jsonl", row * 20)}
    made = httpx.post(f"{service.url}/v1/files", headers=headers, data={"purpose": "fine-tune"}, files=files)
    grader = {**rows.GRADER, "input": "{{sample.output_text}}", "reference": "{{item.answer}}"}
    method = {"type": "reinforcement", "reinforcement": {"grader": grader}}
    job = json.dumps({"model": "cherry-nano", "training_file": made.json()["id"], "method": method}).encode()
    return {
        "GET job": [request("GET", f"{JOBS}/{rows.job_id(n)}", service.key) for n in range(POLLED_JOBS)],
        "list events": [request("GET", f"{JOB}/events?limit=20", service.key)],
        "list jobs": [request("GET", f"{JOBS}?limit=20", service.key)],
        "create file": [request("POST", "/v1/files", service.key, form, media)],
        "create job": [request("POST", JOBS, service.key, job)],
    }


def _form(fields: dict[str, bytes], filename: bytes, data: bytes) -> bytes:
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + value + b"\r\n"
        for name, value in fields.items()
    ]
    parts.append(
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="'.encode()
        + filename
        + b'"\r\nContent-Type: application/octet-stream\r\n\r\n'
        + data
        + f"\r\n--{BOUNDARY}--\r\n".encode()
    )
    return b"".join(parts)


def _measure(name: str, service: Service, requests: list[str], connections: int, seconds: float) -> Measured:
    load.run(Plan(service.port, requests, connections, 1.0))  # what is loaded at first use is not counted
    found = load.run(Plan(service.port, requests, connections, seconds))
    print(f"{name:12} {found}  memory {_memory(service.pid)} MB", flush=True)
    return found


def _pages(service: Service) -> float:
    """Milliseconds of the slowest query-bound page of a job with many grades, each asked for ten times."""
    headers = {"authorization": f"Bearer {service.key}"}
    rollouts = f"{JOB}/rollouts"
    slowest = 0.0
    with httpx.Client(base_url=service.url, headers=headers, timeout=60) as client:
        for path in (rollouts, f"{rollouts}?step=900", f"{rollouts}?after=train-900-3-0", JOB):
            times = []
            for _ in range(10):
                before = time.perf_counter()
                client.get(path).raise_for_status()
                times.append((time.perf_counter() - before) * 1000)
            median = sorted(times)[5]
            print(f"{median:8.1f} ms  {path}")
            slowest = max(slowest, median)
    return slowest


def _memory(pid: int) -> int:
    """MB of a process and its children."""
    children = [int(p.parent.name) for p in Path("/proc").glob("[0-9]*/stat") if _parent(p) == pid]
    return sum(_resident(each) for each in (pid, *children))


def _parent(stat: Path) -> int:
    try:
        return int(stat.read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _resident(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) // 1024
    return 0


if __name__ == "__main__":
    sys.exit(main())
