"""Assembles the filters of system calls by hand. Loaded inside the sandbox: standard library only.

Two, since installing one costs time that grows with its size: the fork-server takes the long one once, an
allow-list with what it needs itself; each call adds a short one that takes the fork-server's own calls away.

An allow-list: what it does not name fails with EPERM. Left out on purpose beside the obvious (sockets, exec,
fork, mounts): chmod, utime and their kin, which Landlock does not govern; sendmsg, whose address cannot be
seen from here; prctl.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable
from itertools import pairwise

from graders.sandbox.syscalls import Machine

BpfInstruction = tuple[int, int, int, int]
"""Code, jump if true, jump if false, operand."""
BpfProgram = list[BpfInstruction]

_LD, _JEQ, _JGE, _JSET, _RET = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16
_X32 = 0x40000000
_CLONE_THREAD, _CLONE_NAMESPACES = 0x00010000, 0x7E020000
_AF_UNIX = 1
_IOCTLS = (0x5421, 0x541B, 0x5450, 0x5451)
"""FIONBIO, FIONREAD, FIONCLEX, FIOCLEX."""
_FCNTLS = (*range(8), 36, 37, 38, 1030, 1031, 1032, 1034)
"""Duplicates, flags, locks, pipe size, seals; no F_SETOWN and F_SETSIG, which send signals to others."""

_ALLOWED = """
access brk chdir clock_getres clock_gettime clock_nanosleep close close_range copy_file_range creat dup dup2
dup3 epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_wait eventfd2 exit exit_group faccessat
faccessat2 fadvise64 fallocate fchdir fdatasync fstat fstatfs fsync ftruncate futex getcpu getcwd getdents
getdents64 getegid geteuid getgid getgroups getitimer getpeername getpgid getpgrp getpid getppid getpriority
getrandom getresgid getresuid getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday getuid
lseek lstat madvise membarrier mincore mkdir mkdirat mmap mprotect mremap msync munmap nanosleep newfstatat
open openat openat2 pause pipe pipe2 poll ppoll pread64 pselect6 pwrite64 read readlink readlinkat readv
recvfrom rename renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask
rt_sigreturn rt_sigsuspend rt_sigtimedwait sched_get_priority_max sched_get_priority_min sched_getaffinity
sched_getparam sched_getscheduler sched_yield select sendfile set_robust_list set_tid_address setitimer
shutdown sigaltstack stat statfs statx symlink symlinkat sysinfo time timer_create timer_delete
timer_getoverrun timer_gettime timer_settime timerfd_create timerfd_gettime timerfd_settime times truncate
umask uname unlink unlinkat wait4 write writev
"""
ALLOWED = frozenset(_ALLOWED.split())
_SERVERS = "clone fchmodat fork kill tgkill landlock_restrict_self prctl prlimit64 recvmsg seccomp utimensat"
_SERVERS_OWN = frozenset(_SERVERS.split())
"""What the fork-server needs beside. Of these a call keeps some forms, see `_call_actions`."""


def server_filter(machine: Machine) -> bytes:
    """Returns the program of what fork-server and calls may do: nothing else can ever be allowed again."""
    return _packed(_assemble(machine, _server_actions(), _refuse()))


class CallFilter:
    """Filters what a call may do of that. It is assembled once, and completed for each process."""

    def __init__(self, machine: Machine) -> None:
        code = _assemble(machine, _call_actions(), _ret(_ALLOW))
        self._program = _packed(code)
        assert self._program.count(_OWN_PID_BYTES) == sum(step[3] == _OWN_PID for step in code)

    def for_process(self, pid: int) -> bytes:
        """Returns the program for a process that may send signals to itself alone, by its id."""
        return self._program.replace(_OWN_PID_BYTES, pid.to_bytes(4, "little"))


_OWN_PID = 0xFFFFFFF7
"""Stands for the process's own id until it is known."""
_OWN_PID_BYTES = _OWN_PID.to_bytes(4, "little")


def _server_actions() -> dict[str, BpfProgram]:
    """Returns what to do by name of the call; every other fails with EPERM."""
    allow = [_ret(_ALLOW)]
    return dict.fromkeys(ALLOWED | _SERVERS_OWN, allow) | {
        "clone": [_arg(0), (_JSET, 1, 0, _CLONE_NAMESPACES), *allow, _refuse()],
        "clone3": [_ret(_ERRNO | errno.ENOSYS)],
        "ptrace": [_ret(_KILL)],
        "ioctl": _if_argument_in(1, _IOCTLS),
        "fcntl": _if_argument_in(1, _FCNTLS),
        "socketpair": _if_argument_in(0, (_AF_UNIX,)),
        "sendto": [*_unless_null(4), *allow],
    }


def _call_actions() -> dict[str, BpfProgram]:
    """Returns what to do by name of the call; every other is left to the fork-server's filter."""
    return {name: [_refuse()] for name in _SERVERS_OWN} | {
        "clone": [_arg(0), (_JSET, 1, 0, _CLONE_THREAD), _refuse(), _ret(_ALLOW)],
        "kill": _if_argument_in(0, (_OWN_PID,)),
        "tgkill": _if_argument_in(0, (_OWN_PID,)),
        "prlimit64": [*_unless_null(2), *_if_argument_in(0, (0, _OWN_PID))],
    }


def _assemble(machine: Machine, actions: dict[str, BpfProgram], otherwise: BpfInstruction) -> BpfProgram:
    numbered = {machine.calls[name]: block for name, block in actions.items() if name in machine.calls}
    return [
        (_LD, 0, 0, _ARCH),
        (_JEQ, 1, 0, machine.audit_arch),
        _ret(_KILL),
        (_LD, 0, 0, _NUMBER),
        (_JGE, 0, 1, _X32),
        _ret(_KILL),
        *_search(_intervals(numbered, [otherwise])),
    ]


def _packed(code: BpfProgram) -> bytes:
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in code)


def _intervals(actions: dict[int, BpfProgram], otherwise: BpfProgram) -> list[tuple[int, BpfProgram]]:
    """Returns where the action changes, by call number: (first number, block), sorted, from 0."""
    blocks = [(number, actions.get(number, otherwise)) for number in range(max(actions) + 2)]
    return blocks[:1] + [after for before, after in pairwise(blocks) if before[1] != after[1]]


def _search(intervals: list[tuple[int, BpfProgram]]) -> BpfProgram:
    """Returns a binary search.

    The kernel tries every call number when a filter is installed, so depth is cost.
    """
    if len(intervals) == 1:
        return intervals[0][1]
    middle = len(intervals) // 2
    left, right = _search(intervals[:middle]), _search(intervals[middle:])
    return [(_JGE, _jump(len(left)), 0, intervals[middle][0]), *left, *right]


def _if_argument_in(index: int, values: Iterable[int]) -> BpfProgram:
    values = list(values)
    tests = [(_JEQ, len(values) - place, 0, value) for place, value in enumerate(values)]
    return [_arg(index), *tests, _refuse(), _ret(_ALLOW)]


def _unless_null(index: int) -> BpfProgram:
    """Refuses unless both halves of a pointer are 0."""
    return [_arg(index), (_JEQ, 0, 2, 0), _arg(index, high=True), (_JEQ, 1, 0, 0), _refuse()]


def _arg(index: int, *, high: bool = False) -> BpfInstruction:
    return (_LD, 0, 0, _ARGUMENTS + 8 * index + 4 * high)


def _ret(action: int) -> BpfInstruction:
    return (_RET, 0, 0, action)


def _refuse() -> BpfInstruction:
    return _ret(_ERRNO | errno.EPERM)


def _jump(distance: int) -> int:
    if distance > 255:
        raise ValueError(f"a jump over {distance} instructions does not fit")
    return distance
