"""Attacks the sandbox from inside, at its start and every hour. One attack that succeeds closes it.

Features are not inferred from versions of anything: a kernel that claims a lock and does not hold it is found
here.
"""

from __future__ import annotations

import os
import secrets
import socket
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

from graders.services import Limits, Outcome, Program

_SOURCE = """
import ctypes, mmap, os, signal, socket

def attempt(attack):
    try:
        return bool(attack())
    except BaseException:
        return False

def raw(number, *values):
    return ctypes.CDLL(None).syscall(number, *values) >= 0

def connect(family, address):
    with socket.socket(family) as link:
        link.settimeout(2)
        link.connect(address)
    return True

def attack(facts):
    path, marker = facts["file"], facts["marker"]
    attacks = {
        "read a file": lambda: open(path).read() == marker,
        "write a file": lambda: open(path + ".new", "w").write("x"),
        "list the root folder": lambda: len(os.listdir("/")) and os.path.exists(path),
        "see the environment": lambda: set(os.environ) - {"HOME", "TMPDIR"},
        "see the parent's environment": lambda: open(f"/proc/{os.getppid()}/environ", "rb").read(),
        "connect over TCP": lambda: connect(socket.AF_INET, ("127.0.0.1", facts["port"])),
        "connect to an abstract socket": lambda: connect(socket.AF_UNIX, facts["abstract"]),
        "start a process": lambda: os.fork() or os._exit(0),
        "execute a program": lambda: os.execv(facts["program"], [facts["program"], "-c", ""]),
        "signal its parent": lambda: os.kill(os.getppid(), 0) is None,
        "be root": lambda: os.geteuid() == 0 or os.getuid() == 0,
        "make a namespace": lambda: raw(facts["unshare"], 0x10000000),
        "take more memory than its limit": lambda: mmap.mmap(-1, 3 * 2**30),
    }
    return [name for name, attack in attacks.items() if attempt(attack)]

def trace(facts):
    ctypes.CDLL(None).syscall(facts["ptrace"], 16, os.getppid(), 0, 0)

def work(facts):
    import colorsys, fractions, tempfile
    if facts["scratch"]:
        with tempfile.TemporaryFile() as file:
            file.write(b"x")
    return float(fractions.Fraction(1, 2)) + colorsys.rgb_to_hls(0, 0, 0)[0]
"""
_LIMITS = Limits(wall_seconds=30, cpu_seconds=10, memory_bytes=2**30)


class Attack(Protocol):
    """Attacks a sandbox, by running programs in it."""

    def __call__(
        self, run: Callable[[Program], Outcome], numbers: dict[str, int], *, has_scratch: bool = False
    ) -> str | None:
        """Returns what is wrong with the sandbox, or None."""


def weakness(
    run: Callable[[Program], Outcome], numbers: dict[str, int], *, has_scratch: bool = False
) -> str | None:
    """Returns what an attack achieved, or what ordinary code could not do; None if the sandbox is sound.

    `run` runs a program in it, and `numbers` are those of the system calls that the attacks make.
    """
    with ExitStack() as stack:
        facts = {**_bait(stack), **numbers, "scratch": has_scratch}
        for function in ("attack", "trace", "work"):
            outcome = run(Program(_SOURCE, function, [facts], limits=_LIMITS))
            if outcome.fault == "server":
                return f"it cannot run anything: {outcome.message}"
            if found := _shortcoming(function, outcome):
                return found
    return None


def _shortcoming(function: str, outcome: Outcome) -> str | None:
    match function:
        case "attack" if outcome.value == []:
            return None
        case "attack" if isinstance(outcome.value, list):
            return f"a program in it could {outcome.value[0]}"
        case "trace" if outcome.fault == "no_result":
            return None
        case "trace":
            return "a program in it could trace its parent"
        case "work" if outcome.value == 0.5:
            return None
    return f"ordinary code does not run in it: {outcome.message.strip().splitlines()[-1:] or outcome}"


def _bait(stack: ExitStack) -> dict[str, Any]:
    """Sets out what the attacks go for, and returns it by name.

    There is a file that anybody may read, in a folder that anybody may write to; and there are listeners.
    """
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cherry-canary-")))
    folder.chmod(0o777)
    file, marker = folder / "bait", secrets.token_hex(8)
    file.write_text(marker)
    file.chmod(0o644)
    listener = stack.enter_context(socket.socket())
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    abstract = f"\0cherry-canary-{secrets.token_hex(8)}"
    local = stack.enter_context(socket.socket(socket.AF_UNIX))
    local.bind(abstract)
    local.listen()
    return {
        "file": str(file),
        "marker": marker,
        "port": listener.getsockname()[1],
        "abstract": abstract,
        "program": os.path.realpath("/bin/sh"),
    }
