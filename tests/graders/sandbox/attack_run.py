"""Runs every attack in one setting and prints what became of each, as JSON.

`python -m tests.graders.sandbox.attack_run LEVEL`: in a sandbox of that level. With CONTROL for the level:
without any, each in a forked process, only those that harm nobody.
"""

import ctypes
import importlib
import json
import os
import re
import socket
import sys
import tempfile
import threading
from contextlib import ExitStack, suppress
from pathlib import Path

from graders.sandbox import LocalSandbox, SandboxSettings
from graders.sandbox.syscalls import MACHINES
from graders.services import Limits, Program
from tests.graders.sandbox.attacks import BENIGN, HOSTILE, as_source

LIMITS = {"wall_seconds": 20.0, "cpu_seconds": 10.0, "memory_bytes": 2 * 2**30, "output_bytes": 4096}
MARKER = "another-tenants-secret"
_ONLY_ATTACKERS = """
execveat 322 281 · process_vm_readv 310 270 · pidfd_getfd 438 438 · io_uring_setup 425 425
userfaultfd 323 282 · bpf 321 280 · keyctl 250 219 · perf_event_open 298 241 · shmget 29 194 · mq_open 240 180
personality 135 92 · name_to_handle_at 303 264 · kexec_load 246 104
"""
MORE_CALLS = {
    machine: {
        words[0]: int(words[column])
        for line in _ONLY_ATTACKERS.strip().splitlines()
        for words in (entry.split() for entry in line.split("·"))
    }
    for column, machine in enumerate(("x86_64", "aarch64"), start=1)
}
"""Calls that only attackers need."""


class Bait:
    """What the attacks go for, in the process that owns the sandbox."""

    def __init__(self, stack: ExitStack) -> None:
        os.umask(0)
        self.folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="cherry-bait-", dir="/tmp"))
        )
        self.folder.chmod(0o777)
        self.fill()
        os.environ["CHERRY_SECRET"] = MARKER
        self.port = _listening(stack, ("127.0.0.1", 0), socket.AF_INET, socket.SOCK_STREAM).getsockname()[1]
        self.abstract = f"\0cherry-{os.getpid()}"
        _listening(stack, self.abstract, socket.AF_UNIX, socket.SOCK_STREAM)
        _listening(stack, str(self.folder / "socket"), socket.AF_UNIX, socket.SOCK_STREAM)
        self.datagrams = f"\0cherry-datagrams-{os.getpid()}"
        self.datagram_socket = _listening(stack, self.datagrams, socket.AF_UNIX, socket.SOCK_DGRAM)

    def fill(self) -> None:
        for name in ("file", "victim", "own"):
            file = self.folder / name
            file.write_text(MARKER)
            file.chmod(0o644)
            os.utime(file, (1_000_000, 1_000_000))

    def facts(self) -> dict:
        machine = os.uname().machine
        return {
            "marker": MARKER,
            "folder": str(self.folder),
            "file": str(self.folder / "file"),
            "own": str(self.folder / "own"),
            "port": self.port,
            "abstract": self.abstract,
            "datagrams": self.datagrams,
            "owner": os.getpid(),
            "calls": {**MACHINES[machine].calls, **MORE_CALLS[machine]},
        }

    def damage(self) -> list[str]:
        """What is no longer as it was."""
        names = sorted(entry.name for entry in self.folder.iterdir())
        found = [] if names == ["file", "own", "socket", "victim"] else [f"the folder holds {names}"]
        for name in ("file", "victim", "own"):
            file = self.folder / name
            state = file.stat()
            if (state.st_mode & 0o777, state.st_mtime, file.read_text()) != (0o644, 1_000_000, MARKER):
                found.append(f"{name} was changed")
        self.datagram_socket.setblocking(False)
        with suppress(BlockingIOError):
            found.append(f"a datagram came: {self.datagram_socket.recv(10)!r}")
        return found


def _listening(stack, address, family, kind):
    listener = stack.enter_context(socket.socket(family, kind))
    listener.bind(address)
    if kind == socket.SOCK_STREAM:
        listener.listen(64)
    return listener


def in_sandbox(level: str) -> dict:
    sandbox = LocalSandbox(SandboxSettings(wanted=level, parallel=2))
    results = {}
    try:
        assessment = sandbox.assessment()
        with ExitStack() as stack:
            bait = Bait(stack)
            facts = bait.facts()
            for case in [*HOSTILE, *BENIGN] if assessment.level != "none" else []:
                results[case.name] = _became(sandbox, case, facts)
            damage = bait.damage()
    finally:
        sandbox.close()
    return {
        "level": assessment.level,
        "why": assessment.why_not_higher,
        "user": os.geteuid(),
        "damage": damage,
        "results": results,
    }


def _became(sandbox, case, facts) -> dict:
    limits = Limits(**{**LIMITS, **case.limits})
    outcome = sandbox.run(Program(case.source, "attack", [facts], limits=limits))
    found = {
        "fault": outcome.fault,
        "message": outcome.message[:200] + outcome.message[200:][-400:],
        "value": outcome.value,
    }
    if case.after:
        after = sandbox.run(Program(as_source(case.after), "attack", [facts]))
        found["after"] = after.value if after.fault is None else after.message
    return found


def wrong(case, found) -> str:
    """What is not as it should be; empty if all is."""
    if case.after and found["after"] is not True:
        return f"something was left for the next call: {found['after']}"
    if found["fault"] is None:
        if case.fault is None:
            return "" if found["value"] == case.value else f"it returned {found['value']!r}"
        return f"it got through, and returned {found['value']!r}"
    if case.fault is None and not (case.says and re.search(case.says, found["message"])):
        return f"it failed: {found['message']}"
    if case.fault is not None and found["fault"] != case.fault:
        return f"it ended as {found['fault']}: {found['message']}"
    return "" if re.search(case.says, found["message"]) else f"it said: {found['message']}"


def without_sandbox() -> dict:
    """The names of the attacks that get what they want from a plain process of an ordinary user."""
    for module in ("multiprocessing.context", "multiprocessing.popen_fork", "subprocess"):
        importlib.import_module(module)  # their files may be out of reach of the user that attacks
    through = []
    with ExitStack() as stack:
        bait = Bait(stack)
        facts = bait.facts()
        for case in HOSTILE:
            if not case.in_control:
                continue
            bait.fill()
            if _gets_through(case, facts):
                through.append(case.name)
    return {"through": through, "tried": sum(case.in_control for case in HOSTILE)}


def _gets_through(case, facts) -> bool:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o777)
        pid = os.fork()
        if pid == 0:
            code = 3
            try:
                os.chdir(folder)
                _become_nobody()
                names: dict = {}
                exec(compile(case.source, "<attack>", "exec"), names)
                code = 0 if names["attack"](facts) else 3
            finally:
                os._exit(code)
        return os.waitpid(pid, 0)[1] == 0


def _become_nobody() -> None:
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(64_300, 64_300, 64_300)
        os.setresuid(64_300, 64_300, 64_300)
        ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # its own /proc files are its own again, as in an exec


if __name__ == "__main__":
    threading.excepthook = lambda *_: None
    json.dump(without_sandbox() if sys.argv[1] == "CONTROL" else in_sandbox(sys.argv[1]), sys.stdout)
