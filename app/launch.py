"""Becomes another program that cannot outlive its parent: `launch.py SIGNAL PARENT UID GID MEMORY PROGRAM`.

It asks the kernel to send SIGNAL when the parent dies, takes MEMORY bytes as its limit (0: none), drops to
UID:GID (-1: it stays who it is), then execs. PARENT 0 is whoever has started it. It is a script of its own,
because running Python between fork and exec of a threaded process may deadlock. It imports only the standard
library and runs under `python -I -S`, so that it costs a few milliseconds.
"""

import ctypes
import os
import resource
import sys

PR_SET_PDEATHSIG = 1


def die_with_parent(libc: ctypes.CDLL, signal: int, parent: int) -> None:
    """Has the kernel signal this process when the thread that started it ends (Linux; else nothing)."""
    if sys.platform != "linux":
        return
    if libc.prctl(PR_SET_PDEATHSIG, signal, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if parent and os.getppid() != parent:  # it died before the kernel knew our wish
        raise SystemExit("the parent process is gone")


def main() -> None:
    signal, parent, uid, gid, memory = (int(argument) for argument in sys.argv[1:6])
    program = sys.argv[6:]
    libc = ctypes.CDLL(None, use_errno=True)  # before the drop: the new user may not reach Python's files
    if uid != -1:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    die_with_parent(libc, signal, parent)  # last: a change of user clears the wish
    if memory:
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    try:
        os.execvp(program[0], program)  # noqa: S606  # no shell is the point
    except OSError as problem:
        raise SystemExit(f"cannot run {program[0]}: {problem}") from None


if __name__ == "__main__":
    main()
