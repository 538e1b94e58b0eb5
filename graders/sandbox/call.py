"""Does one call, in the process forked for it: locks first, then the request. Loaded inside the sandbox.

Everything up to `_read_request` has seen no byte of any user.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found] # what `signal` wraps in enumerations, at a cost
import gc
import os
import resource
from typing import NamedTuple

from graders.sandbox import kernel
from graders.sandbox.kernel import Landlock
from graders.sandbox.programs import run_request
from graders.sandbox.scratch import Slot
from graders.sandbox.seccomp import CallFilter
from graders.sandbox.wire import Call, Request

RESULT, REQUEST = 3, 4
"""Descriptors of the call; the fork-server keeps these numbers free."""
LAST_DESCRIPTOR = 65535


class Locks(NamedTuple):
    """Holds what the fork-server has made ready for its calls.

    `base_memory` is the bytes of address space that are mapped before a call begins. `threads` is how many
    all calls of this user may have at a time, 0 for no limit where others share the user.
    """

    landlock: Landlock | None
    filter: CallFilter
    base_memory: int
    threads: int


def run_call(call: Call, descriptors: list[int], slot: Slot, locks: Locks, server: int) -> None:
    """Locks this process, does what the request says, and ends it. It never returns."""
    status = 70
    try:
        if server != 1:  # as process 1 of its own space it takes all with it when it ends
            kernel.die_with_parent()
        if server == 1 or os.getppid() == server:
            _lock(call, descriptors, slot, locks)
            gc.enable()
            status = run_request(call.kind, _read_request(call.request_bytes), RESULT)
    finally:
        os._exit(status)


def _lock(call: Call, descriptors: list[int], slot: Slot, locks: Locks) -> None:
    _signal.set_wakeup_fd(-1)
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
    if locks.landlock is not None:
        locks.landlock.enter(slot.rules)
    if slot.folder:
        os.chdir(slot.folder)
    for descriptor, place in zip(descriptors, (REQUEST, RESULT, 0, 1), strict=False):
        os.dup2(descriptor, place)
    os.closerange(max(RESULT, REQUEST) + 1, LAST_DESCRIPTOR)
    resource.setrlimit(resource.RLIMIT_CPU, (call.cpu_seconds, call.cpu_seconds + 1))
    memory = locks.base_memory + call.memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    if locks.threads:
        resource.setrlimit(resource.RLIMIT_NPROC, (locks.threads, locks.threads))
    kernel.install_filter(locks.filter.for_process(os.getpid()))


def _read_request(size: int) -> Request:
    data = os.pread(REQUEST, size, 0)
    os.close(REQUEST)
    return Request.unpack(data)
