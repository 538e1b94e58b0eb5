"""Tenants whose calls are mixed, and a program that looks for another's data in all memory it can read."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from graders.services import Limits, Program, Sandbox

SCAN = r'''
import ctypes, os, re

PAGE = 4096

def pages():
    """Mapped pages around what we hold: mincore knows which are, where there is no /proc."""
    libc = ctypes.CDLL(None, use_errno=True)
    vector = ctypes.create_string_buffer(1)
    anchors = [id(re), id(pages), id(object()), ctypes.addressof(vector), id("x" * 500_000), id([])]
    anchors.append(ctypes.cast(libc.malloc, ctypes.c_void_p).value)
    anchors.append(ctypes.c_void_p.in_dll(libc, "environ").value)
    seen = set()
    for anchor in anchors:
        for step in (-PAGE, PAGE):
            at, misses = anchor // PAGE * PAGE, 0
            while misses < 2048 and at > 0 and at not in seen:
                if libc.mincore(ctypes.c_void_p(at), ctypes.c_size_t(PAGE), vector) == 0:
                    seen.add(at)
                    misses = 0
                else:
                    misses += 1
                at += step
    return sorted(seen)

def scan(letters):
    """How often the word stands in memory. It is never put together here, or it would find itself."""
    word = re.compile(b"".join(b"[" + letter.encode() + b"]" for letter in letters))
    reader, writer = os.pipe()
    hits = 0
    for at in pages():
        try:  # through a pipe: the kernel says no where reading would be a crash
            os.write(writer, (ctypes.c_char * PAGE).from_address(at))
        except OSError:
            continue
        hits += len(word.findall(os.read(reader, PAGE)))
    return hits

def scan_beside(letters, word):
    return scan(letters)
'''

HOLD = """
def f(secret):
    held = [secret + str(index) for index in range(200)]
    print(secret)
    return len(held)
"""


def marker(tenant: int) -> str:
    return f"<<the-secret-of-tenant-{tenant}>>"


def scanned(sandbox: Sandbox, word: str, *beside: str) -> int:
    """How often a call finds the word in its memory, with or without holding it itself."""
    function = "scan_beside" if beside else "scan"
    arguments: Sequence[object] = [list(word), *beside]
    outcome = sandbox.run(Program(SCAN, function, arguments, limits=Limits(wall_seconds=60, cpu_seconds=30)))
    assert outcome.fault is None, outcome
    return int(outcome.value)


def interleaved(
    sandbox: Sandbox, *, calls: int, tenants: int, threads: int, scan_every: int
) -> dict[str, int]:
    """Calls of several tenants side by side; now and then one looks for what the others have left."""

    def one(number: int) -> int | None:
        tenant = number % tenants
        if number % scan_every == scan_every - 1:
            return scanned(sandbox, marker((tenant + 1) % tenants))
        outcome = sandbox.run(Program(HOLD, "f", [marker(tenant)], limits=Limits(wall_seconds=60)))
        assert outcome.value == 200, outcome
        assert outcome.stdout == marker(tenant) + "\n"
        return None

    with ThreadPoolExecutor(threads) as pool:
        found = [count for count in pool.map(one, range(calls)) if count is not None]
    return {"scans": len(found), "found": sum(found)}
