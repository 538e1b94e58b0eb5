"""Runs an environment's program so that nothing of it is left behind: `guard.py LIFELINE PLAN PROGRAM...`.

The program gets a process group, limits and, where the kernel has Landlock, no way to the files of PLAN's
`hidden` nor into other processes. LIFELINE is a pipe of whoever has started this: when it closes, because
that process closed it or died in whatever way, the program and all of its group are killed, and its working
folder goes. It is a script of its own: it imports only the standard library and runs under `python -I -S`.
"""

import contextlib
import ctypes
import json
import os
import resource
import select
import shutil
import signal
import struct
import sys
from collections.abc import Iterator

PR_SET_NO_NEW_PRIVS = 38
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
"""Landlock's calls: the same numbers on x86-64 and on 64-bit ARM."""
VERSION = PATH_BENEATH = 1
RIGHTS_OF_ABI = (0, 13, 14, 15, 15, 16, 16, 16)
"""How many file system rights each version of Landlock knows."""
OF_FILES = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 14 | 1 << 15
"""Rights that a single file may have: execute, write, read, truncate, ioctl."""
LOOK_SECONDS = 0.2
"""The pause between two looks whether the program has ended. Chosen, not measured."""


def main() -> None:
    lifeline, plan, program = int(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3:]
    os.set_inheritable(lifeline, False)
    child = os.fork()
    if child == 0:
        become(plan, program)
    code = wait(lifeline, child)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
    shutil.rmtree(plan["folder"], ignore_errors=True)
    os._exit(code)


def wait(lifeline: int, child: int) -> int:
    """Returns how the program ended, as a shell tells it; 0 where it is to be ended."""
    while not select.select([lifeline], [], [], LOOK_SECONDS)[0]:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
    return 0


def become(plan: dict[str, object], program: list[str]) -> None:
    """Takes the limits, then runs the program in this process's place."""
    try:
        os.setpgid(0, 0)
        os.chdir(str(plan["folder"]))
        memory = int(str(plan["memory_bytes"]))
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        hidden = [str(path) for path in plan["hidden"]]  # type: ignore[attr-defined]
        hide(hidden, [str(plan["folder"]), os.path.dirname(os.path.abspath(__file__))])
        os.execvp(program[0], program)  # noqa: S606  # no shell is the point
    except OSError as problem:
        print(f"cannot run {program[0]}: {problem}", file=sys.stderr, flush=True)
    os._exit(127)


def hide(hidden: list[str], wanted: list[str]) -> None:
    """Takes the sight of these paths, and of other processes, where the kernel can; says so where not."""
    libc = ctypes.CDLL(None, use_errno=True)
    abi = libc.syscall(CREATE_RULESET, None, 0, VERSION) if sys.platform == "linux" else 0
    if abi <= 0:
        print("the kernel has no Landlock: files that the worker's user may read are open to this process")
        sys.stdout.flush()
        return
    abi = min(abi, len(RIGHTS_OF_ABI) - 1)
    rights = (1 << RIGHTS_OF_ABI[abi]) - 1
    # files; no rule of the network; with version 6: no signals to processes outside
    attributes = struct.pack("<QQQ", rights, 0, 2 if abi >= 6 else 0)[: 24 if abi >= 6 else 8]
    rules = libc.syscall(CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    if rules < 0:
        raise OSError(ctypes.get_errno(), "landlock_create_ruleset")
    foreign = {f"/proc/{name}" for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()}
    for path in [*others("/", {os.path.realpath(path) for path in hidden} | foreign), *wanted]:
        allow(libc, rules, path, rights)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.syscall(RESTRICT_SELF, rules, 0):
        raise OSError(ctypes.get_errno(), "landlock_restrict_self")
    os.close(rules)


def others(folder: str, hidden: set[str]) -> Iterator[str]:
    """Yields what lies below a folder, as few paths as possible, but for hidden ones."""
    if folder in hidden:
        return
    if not any(path.startswith(folder.rstrip("/") + "/") for path in hidden):
        yield folder
        return
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            path = os.path.join(folder, name)
            if not os.path.islink(path):
                yield from others(path, hidden)


def allow(libc: ctypes.CDLL, rules: int, path: str, rights: int) -> None:
    with contextlib.suppress(FileNotFoundError, PermissionError):
        beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = struct.pack("<Qi", rights if os.path.isdir(path) else rights & OF_FILES, beneath)
        failed = libc.syscall(ADD_RULE, rules, PATH_BENEATH, rule, 0)
        os.close(beneath)
        if failed:
            raise OSError(ctypes.get_errno(), f"landlock_add_rule of {path}")


if __name__ == "__main__":
    main()
