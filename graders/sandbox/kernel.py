"""Makes the few system calls that Python has no function for.

Loaded inside the sandbox: standard library only.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Sequence
from typing import NamedTuple

from graders.sandbox.syscalls import Machine

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.sbrk.restype = ctypes.c_size_t

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_PR_SET_SECCOMP, _PR_CAPBSET_DROP, _PR_CAP_AMBIENT = 22, 24, 47
_SECCOMP_MODE_FILTER, _AMBIENT_CLEAR_ALL = 2, 4
_CAPABILITY_VERSION = 0x20080522
_LANDLOCK_VERSION, _LANDLOCK_PATH_BENEATH = 1, 1
_MALLOPT_ARENA_MAX = -8
_MADV_COLLAPSE = 25
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 2, 4, 8

HEAP_STEP, MAPPED_BLOCK = -2, -3
"""Options of malloc: by how much its heap grows, and from what size on a block is mapped by itself."""
READ_FILE, READ_DIR = 1 << 2, 1 << 3
_WRITE_FILE = 1 << 1
_WRITE = sum(1 << bit for bit in (1, 4, 5, 7, 8, 12, 13, 14))
"""Write to files; remove folders and files; make folders, files and symbolic links; move; truncate."""
_RIGHTS_OF_ABI = (0, 13, 14, 15, 15, 16, 16, 16)
"""How many file system rights each version of Landlock knows."""
_NEWEST_KNOWN_ABI = len(_RIGHTS_OF_ABI) - 1


class _Program(ctypes.Structure):
    """Mirrors the kernel's `sock_fprog`."""

    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))


def prctl(option: int, value: int) -> None:
    """Calls `prctl(2)` with one value. Raises `OSError`."""
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        raise _failure("prctl")


def die_with_parent() -> None:
    """Makes the kernel kill this process when the thread that made it ends. Raises `OSError`."""
    prctl(_PR_SET_PDEATHSIG, 9)


def hide_memory() -> None:
    """Forbids other processes of this user to look into this one or its children. Raises `OSError`."""
    prctl(_PR_SET_DUMPABLE, 0)


def forbid_new_privileges() -> None:
    """Makes sure that no program executed from here on gains rights by it. Raises `OSError`."""
    prctl(_PR_SET_NO_NEW_PRIVS, 1)


def drop_capabilities() -> None:
    """Gives up every capability, for good. It works with and without having any. Raises `OSError`."""
    for capability in range(64):
        if _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            break  # beyond the last capability, or not allowed to narrow what could be gained by exec
    _libc.prctl(_PR_CAP_AMBIENT, _AMBIENT_CLEAR_ALL, 0, 0, 0)
    header = struct.pack("<Ii", _CAPABILITY_VERSION, 0)
    if _libc.capset(header, bytes(24)) != 0:
        raise _failure("capset")


def limit_malloc_arenas() -> None:
    """Makes threads share two heaps: each further one would reserve 64 MiB of the limited address space."""
    _libc.mallopt(_MALLOPT_ARENA_MAX, 2)


def set_malloc(option: int, size: int) -> None:
    """Sets an option of malloc (`HEAP_STEP`, `MAPPED_BLOCK`) to a size in bytes."""
    _libc.mallopt(option, size)


def heap_end() -> int:
    """Returns the address behind the heap of malloc."""
    return int(_libc.sbrk(0))


def join_pages(address: int, size: int) -> None:
    """Makes a large page of small ones, if all of it is plain memory and the kernel can (Linux 6.1)."""
    _libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(size), _MADV_COLLAPSE)


def mount_scratch(folder: str, size: int, files: int, owner: int) -> None:
    """Mounts a memory file system of `size` bytes that only `owner` may use. Raises `OSError`."""
    options = f"size={size},nr_inodes={files},mode=0700,uid={owner},gid={owner}".encode()
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    if _libc.mount(b"scratch", folder.encode(), b"tmpfs", ctypes.c_ulong(flags), options) != 0:
        raise _failure(f"mount of {folder}")


def install_filter(program: bytes) -> None:
    """Locks this process, which must have one thread, to a seccomp program. Raises `OSError`."""
    header = _Program(len(program) // 8, program)
    if _libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(header), 0, 0) != 0:
        raise _failure("seccomp")


class Landlock:
    """Makes the file rules of the sandbox: what may be read, and nothing else.

    Attributes:
        abi: the version that the kernel has; 0 for none.
    """

    def __init__(self, machine: Machine) -> None:
        self._calls = machine.calls
        found = self._call("landlock_create_ruleset", None, 0, _LANDLOCK_VERSION)
        self.abi = max(0, min(found, _NEWEST_KNOWN_ABI))

    def _call(self, name: str, *values: object) -> int:
        return int(_libc.syscall(self._calls[name], *values))

    def ruleset(self, readable: Sequence[Readable], writable: str | None) -> int:
        """Returns a descriptor of rules. Raises `OSError`.

        They allow files to read and one folder to write into; they forbid TCP, and signals to others.
        """
        handled = (1 << _RIGHTS_OF_ABI[self.abi]) - 1
        network = 3 if self.abi >= 4 else 0
        scope = 3 if self.abi >= 6 else 0
        size = 24 if self.abi >= 6 else 16 if self.abi >= 4 else 8
        attributes = struct.pack("<QQQ", handled, network, scope)[:size]
        rules = self._call("landlock_create_ruleset", attributes, ctypes.c_size_t(size), 0)
        if rules < 0:
            raise _failure("landlock_create_ruleset")
        for path, is_listed in readable:
            self._allow(rules, path, READ_FILE | (READ_DIR if is_listed else 0))
        self._allow(rules, os.devnull, READ_FILE | _WRITE_FILE)
        if writable is not None:
            self._allow(rules, writable, (READ_FILE | READ_DIR | _WRITE) & handled)
        return rules

    def _allow(self, rules: int, path: str, rights: int) -> None:
        try:
            beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        if not os.path.isdir(path):
            rights &= ~READ_DIR
        rule = struct.pack("<Qi", rights, beneath)
        if self._call("landlock_add_rule", rules, _LANDLOCK_PATH_BENEATH, rule, 0) != 0:
            raise _failure(f"landlock_add_rule of {path}")
        os.close(beneath)

    def enter(self, rules: int) -> None:
        """Binds this process and its children to come; rules only ever add up. Raises `OSError`."""
        if self._call("landlock_restrict_self", rules, 0) != 0:
            raise _failure("landlock_restrict_self")


class Readable(NamedTuple):
    """Names a file, or a folder with all below it. `is_listed` says whether its entries may be listed too."""

    path: str
    is_listed: bool


def _failure(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {errno.errorcode.get(number, number)}")
