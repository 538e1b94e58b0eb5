"""Forks one locked child per call. It holds no data of any user, ever.

Started by `launch` in a fresh interpreter with an empty environment, inside namespaces of its own where they
are permitted. It takes its `Plan` from the socket that is its standard input, locks itself, loads packages,
says that it is ready, and then forks until the socket is closed. Loaded inside the sandbox: standard library
only.
"""

from __future__ import annotations

import array
import builtins
import contextlib
import gc
import importlib
import json
import mmap
import os
import posix
import resource
import select
import signal
import socket
import sys
import time
from dataclasses import asdict, dataclass
from typing import NamedTuple, NoReturn

from graders.sandbox import kernel, scratch
from graders.sandbox.call import REQUEST, RESULT, Locks, run_call
from graders.sandbox.kernel import Landlock, Readable
from graders.sandbox.large_pages import LargePages
from graders.sandbox.scratch import Slot
from graders.sandbox.seccomp import CallFilter, server_filter
from graders.sandbox.syscalls import this_machine
from graders.sandbox.wire import CALL, KILL, NOT_STARTED, Call, Ending

_FREE = -1
_PACKET = 64
_MOST_DESCRIPTORS = 5
"""Of a script's call: ending, request, result, input, output."""
_MOST_THREADS = 1024
"""Of all calls: threads with small stacks could otherwise take every process id that the machine has, which
are 32,768 by default and often 4,096 in a container."""
_FILE_BYTES, _OPEN_FILES = 64 * 2**20, 512


@dataclass(frozen=True)
class Plan:
    """Says what kind of fork-server to be.

    Attributes:
        modules: names of what to load ahead.
        folders: `sys.path` behind the standard library.
        readable: (path, whether its entries may be listed).
        slots: most calls at a time.
        user: uid and gid to become; 0 to stay.
        scratch_bytes: size of each writable folder; 0 for none.
        landlock: whether to use it.
    """

    modules: list[str]
    folders: list[str]
    readable: list[tuple[str, bool]]
    slots: int
    user: int
    scratch_bytes: int
    landlock: bool

    def pack(self) -> bytes:
        """Returns the plan as the bytes of a packet."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def unpack(cls, packet: bytes) -> Plan:
        """Reads a plan out of a packet."""
        return cls(**json.loads(packet))


class RunningCall(NamedTuple):
    """Describes a call under way.

    Attributes:
        number: the call's, as the trusted side counts.
        slot: the place that the call takes.
        ending: descriptor of the pipe for its ending, which only this process holds.
        deadline: `time.monotonic()` from which on it is late.
    """

    number: int
    slot: Slot
    ending: int
    deadline: float


def main(large_pages: LargePages) -> NoReturn:
    """Becomes the fork-server that the plan on standard input describes; serves until the link is closed."""
    link = socket.socket(fileno=os.dup(0))
    _take_descriptors()
    plan = Plan.unpack(link.recv(2**20))
    folders = _become_harmless(plan)
    landlock, slots = _lock(plan, folders)
    loaded = _load(plan)
    large_pages.join()  # before what is mapped is measured
    machine = this_machine()
    assert machine is not None
    threads = _MOST_THREADS if plan.user or os.getpid() == 1 else 0  # the user is nobody else's
    locks = Locks(landlock, CallFilter(machine), _address_space(), threads)
    ready = {"landlock": landlock.abi if landlock else 0, "loaded": loaded, "user": os.geteuid()}
    kernel.install_filter(server_filter(machine))
    link.send(json.dumps(ready).encode())
    _forget_start(bool(folders))
    _ForkServer(link, slots, locks).serve()
    os._exit(0)


def _take_descriptors() -> None:
    """Leaves nothing to read or write but the socket; the numbers that calls use stay taken.

    Standard error is kept until the start is over, so that its failure can be read.
    """
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1):
        os.dup2(null, descriptor)
    for descriptor in (RESULT, REQUEST):
        try:
            os.fstat(descriptor)
        except OSError:
            os.dup2(null, descriptor, inheritable=False)


def _become_harmless(plan: Plan) -> list[str]:
    """Mounts the writable folders, then gives up every right. Returns the folders."""
    owner = plan.user or os.geteuid()
    folders = scratch.mount_folders(plan.slots, plan.scratch_bytes, owner) if plan.scratch_bytes else []
    if plan.user:
        os.setgroups([])
        os.setresgid(plan.user, plan.user, plan.user)
        os.setresuid(plan.user, plan.user, plan.user)
    kernel.drop_capabilities()
    kernel.forbid_new_privileges()
    kernel.hide_memory()
    if os.getpid() != 1:
        kernel.die_with_parent()
    os.umask(0o077)
    os.chdir("/")
    os.environ.clear()
    return folders


def _lock(plan: Plan, folders: list[str]) -> tuple[Landlock | None, list[Slot]]:
    """Binds this process to the file rules, and makes the narrower ones of the calls."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_FILE_BYTES, _FILE_BYTES))
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    files = _OPEN_FILES if most == resource.RLIM_INFINITY else min(_OPEN_FILES, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    places = folders or [""] * plan.slots
    if not plan.landlock:
        return None, [Slot(folder, _FREE) for folder in places]
    machine = this_machine()
    assert machine is not None
    landlock = Landlock(machine)
    readable = [Readable(path, is_listed) for path, is_listed in plan.readable]
    landlock.enter(landlock.ruleset(readable, scratch.ROOT if folders else None))
    return landlock, [Slot(folder, landlock.ruleset(readable, folder or None)) for folder in places]


def _load(plan: Plan) -> list[str]:
    """Imports ahead what graders of this kind import; what is not installed fails in the grade, by name."""
    kernel.limit_malloc_arenas()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"  # a pool of threads does not survive a fork
    os.environ["HOME"] = "/"  # nltk does not load without a home
    vars(builtins).update(exit=sys.exit, quit=sys.exit)  # as `site` does, which is not loaded here
    sys.set_int_max_str_digits(0)  # a server's protection; here time is limited
    sys.path.extend(plan.folders)
    loaded = []
    for name in plan.modules:
        with contextlib.suppress(Exception):
            importlib.import_module(name)
            loaded.append(name)
    os.register_at_fork = posix.register_at_fork  # which `launch` kept from all that was loaded here
    return loaded


def _forget_start(has_scratch: bool) -> None:
    """Drops what graders have no business with, and freezes the rest so that forks share it."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    os.close(null)
    os.environ.clear()
    os.environ["HOME"] = "/"
    if has_scratch:
        os.environ["TMPDIR"] = "."
    sys.argv = [""]
    for name in [name for name in sys.modules if name == "graders" or name.startswith("graders.")]:
        del sys.modules[name]
    gc.collect()
    gc.freeze()
    gc.disable()  # until the call's own code runs


def _address_space() -> int:
    """Returns how many bytes are mapped now.

    It is the lowest limit under which one more page can be mapped: there is no /proc here.
    """
    page = mmap.PAGESIZE
    low, high = 0, 2**47 // page
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    try:
        while high - low > 1:
            middle = (low + high) // 2
            resource.setrlimit(resource.RLIMIT_AS, (middle * page, hard))
            low, high = (low, middle) if _can_map() else (middle, high)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    return high * page


def _can_map() -> bool:
    try:
        mmap.mmap(-1, mmap.PAGESIZE).close()
    except (OSError, MemoryError):
        return False
    return True


class _ForkServer:
    """Forks, watches the clock, reaps."""

    def __init__(self, link: socket.socket, slots: list[Slot], locks: Locks) -> None:
        self._link = link
        self._free = slots
        self._locks = locks
        self._pid = os.getpid()
        self._running: dict[int, RunningCall] = {}
        self._late: set[int] = set()
        self._poll = select.poll()

    def serve(self) -> None:
        """Serves calls until the other side closes the link."""
        wake, woken = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
        self._poll.register(wake, select.POLLIN)
        self._poll.register(self._link, select.POLLIN)
        while True:
            for descriptor, _ in self._poll.poll(self._patience()):
                if descriptor == wake:
                    os.read(wake, 512)
                    self._reap()
                elif not self._take():
                    return
            self._stop_late()

    def _patience(self) -> float | None:
        """Returns the milliseconds to the next deadline; None without one."""
        if not self._running:
            return None
        soonest = min(call.deadline for call in self._running.values())
        return max(0.0, soonest - time.monotonic()) * 1000 + 1

    def _take(self) -> bool:
        """Takes one packet; returns False when the other side has gone, or no slot can be used any more."""
        packet, ancillary, _, _ = self._link.recvmsg(
            _PACKET, socket.CMSG_SPACE(_MOST_DESCRIPTORS * array.array("i").itemsize), socket.MSG_CMSG_CLOEXEC
        )
        if not packet:
            return False
        call = Call.unpack(packet)
        descriptors = array.array("i")
        for _, _, data in ancillary:
            descriptors.frombytes(data)
        if call.operation == CALL:
            if not self._free:
                return False
            self._start(call, list(descriptors))
        elif call.operation == KILL:
            self._kill(call.number)
        return True

    def _start(self, call: Call, descriptors: list[int]) -> None:
        ending, *theirs = descriptors
        slot = self._free.pop()
        try:
            pid = os.fork()
        except OSError:  # another call's threads may have taken all process ids there are
            self._free.append(slot)
            self._report(ending, Ending(NOT_STARTED, 0, 0))
            pid = None
        if pid == 0:
            run_call(call, theirs, slot, self._locks, self._pid)
        for descriptor in theirs:
            os.close(descriptor)
        if pid is not None:
            deadline = time.monotonic() + call.wall_milliseconds / 1000
            self._running[pid] = RunningCall(call.number, slot, ending, deadline)

    def _kill(self, number: int) -> None:
        for pid, call in self._running.items():
            if call.number == number:
                os.kill(pid, signal.SIGKILL)

    def _stop_late(self) -> None:
        now = time.monotonic()
        for pid, call in self._running.items():
            if call.deadline <= now and pid not in self._late:
                self._late.add(pid)
                os.kill(pid, signal.SIGKILL)

    def _reap(self) -> None:
        while self._running:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
            if pid == 0:
                return
            call = self._running.pop(pid)
            was_late = pid in self._late
            self._late.discard(pid)
            cpu = round(1e6 * (usage.ru_utime + usage.ru_stime))
            self._report(call.ending, Ending(status, was_late, cpu))
            self._release(call.slot)

    def _report(self, pipe: int, ending: Ending) -> None:
        """Writes the ending, which an empty pipe always takes; nobody may be listening any more."""
        with contextlib.suppress(OSError):
            os.write(pipe, ending.pack())
        os.close(pipe)

    def _release(self, slot: Slot) -> None:
        """Gives back a slot whose folder is empty; one that cannot be emptied is never used again."""
        if slot.folder:
            try:
                scratch.wipe(slot.folder)
            except OSError:
                return
        self._free.append(slot)
