"""Does the sandbox hold for long? `python -m benchmarks.sandbox_soak` fails at the first thing wrong.

Four parts: 10,000 calls of four tenants side by side, some of which look for the others' data in memory; 50
owners killed while calls run; 100,000 grades, after which memory and descriptors must be as before; answers
made up by mutation, read by the trusted side.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import time

import psutil

from graders.sandbox import LocalSandbox, SandboxSettings
from graders.sandbox.local import read_result
from graders.services import Limits, Program
from tests.graders.sandbox.tenants import interleaved

ALLOWED_GROWTH = 8e6
"""Bytes that caller and fork-server together may grow by."""
PROGRAM = Program("def f(x):\n    return x", "f", [0.5])
FORMS = (
    b'{"ok": true, "v": 0.5}',
    b'{"ok": true, "v": [1, {"a": "b"}]}',
    b'{"ok": false, "k": "raised", "m": "ValueError"}',
)
OWNER = """
import sys, threading, time
from graders.sandbox import LocalSandbox, SandboxSettings
from graders.services import Program
sandbox = LocalSandbox(SandboxSettings(parallel=2))
assert sandbox.why_not() is None, sandbox.why_not()
program = Program("def f():\\n    while True: pass", "f")
for _ in range(2):
    threading.Thread(target=sandbox.run, args=(program,), daemon=True).start()
time.sleep(float(sys.argv[1]))
print("ready", flush=True)
time.sleep(600)
"""


def mixed_tenants(sandbox: LocalSandbox, calls: int) -> None:
    counts = interleaved(sandbox, calls=calls, tenants=4, threads=2, scan_every=50)
    print(f"{calls:,} calls of 4 tenants: {counts['scans']} scans of memory found {counts['found']} copies")
    assert counts["found"] == 0


def killed_owners(times: int) -> None:
    left = 0
    for number in range(times):
        command = [sys.executable, "-c", OWNER, str(number % 10 / 10)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as owner:
            assert owner.stdout is not None
            assert owner.stdout.readline() == b"ready\n"
            family = psutil.Process(owner.pid).children(recursive=True)
            owner.send_signal(signal.SIGKILL)
        time.sleep(1)
        left += sum(map(is_alive, family))
    print(f"{times} owners killed: {left} processes left after a second")
    assert left == 0


def is_alive(process: psutil.Process) -> bool:
    """Whether it runs; one that has ended and waits for the system's first process to notice does not."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def footprint() -> tuple[int, int, int]:
    """Resident bytes and descriptors of this process and the fork-servers, and processes."""
    family = [psutil.Process(), *psutil.Process().children(recursive=True)]
    held = sum(process.memory_info().rss for process in family)
    return held, sum(process.num_fds() for process in family), len(family)


def many_grades(sandbox: LocalSandbox, grades: int) -> None:
    for _ in range(grades // 10):
        assert sandbox.run(PROGRAM).value == 0.5
    before = footprint()
    for _ in range(grades - grades // 10):
        assert sandbox.run(PROGRAM).value == 0.5
    after = footprint()
    print(f"{grades:,} grades: {before[0] / 1e6:.1f} to {after[0] / 1e6:.1f} MB, ", end="")
    print(f"descriptors {before[1]} to {after[1]}")
    assert after[0] - before[0] < ALLOWED_GROWTH
    assert after[1:] == before[1:]


def forged_answers(seconds: float) -> None:
    """Answers mutated at random: read as an outcome, or as no result, and never anything else."""
    draw = random.Random(7)
    until, tried, accepted = time.monotonic() + seconds, 0, 0
    while time.monotonic() < until:
        data = bytearray(draw.choice(FORMS))
        for _ in range(draw.randrange(6)):
            mutate(draw, data)
        tried += 1
        result = read_result(bytes(data))
        if result is not None:
            accepted += 1
            assert set(result) in ({"ok", "v"}, {"ok", "k", "m"}), data
            assert isinstance(result["ok"], bool), data
    print(f"{tried:,} forged results in {seconds:.0f} s: {accepted:,} had the form of one, none did harm")


def mutate(draw: random.Random, data: bytearray) -> None:
    place = draw.randrange(len(data) + 1)
    match draw.randrange(4):
        case 0:
            data[place:place] = draw.choice(
                [b"NaN", b"1e999", b"[" * 5000, b'"v": 1,', b"\\u0000", b"\xff", b"-0"]
            )
        case 1:
            del data[place : place + draw.randrange(8)]
        case 2:
            data[place:place] = bytes([draw.randrange(256)])
        case _:
            data *= draw.randrange(1, 3)


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("--calls", type=int, default=10_000)
    options.add_argument("--kills", type=int, default=50)
    options.add_argument("--grades", type=int, default=100_000)
    options.add_argument("--fuzz-seconds", type=float, default=600)
    chosen = options.parse_args()
    box = LocalSandbox(SandboxSettings(limits=Limits(wall_seconds=60)))
    if (reason := box.why_not()) is not None:
        sys.exit(f"No sandbox holds here: {reason}")
    print(f"Level {box.assessment().level}")
    mixed_tenants(box, chosen.calls)
    many_grades(box, chosen.grades)
    box.close()
    killed_owners(chosen.kills)
    forged_answers(chosen.fuzz_seconds)
