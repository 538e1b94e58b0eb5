"""Starts a Python module in surroundings that a service meets: `... NAME MODULE ARGUMENT`.

user            an ordinary user of bare Linux
container       root in a Docker container: Docker's default capabilities and what its default profile refuses
container-user  an ordinary user in one

Docker is imitated, without an engine: the profile by a filter of our own that refuses what Docker's
documentation lists as refused by default. Without root only the last one can be imitated, and the first is
what is there.
"""

import ctypes
import errno
import os
import runpy
import struct
import sys
from pathlib import Path

USER = 64_301
_CLONE_NEWNS, _MS_BIND, _MS_REC, _MS_PRIVATE = 0x20000, 4096, 16384, 1 << 18
_NAMESPACES = 0x7E020000
_KEPT_CAPABILITIES = {0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31}
"""Docker's default: chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap, net_bind_service,
net_raw, sys_chroot, mknod, audit_write, setfcap."""
_REFUSED_X86_64 = """
acct=163  add_key=248  bpf=321  clock_settime=227  delete_module=176  fanotify_init=300  finit_module=313
fsopen=430  fsmount=432  get_mempolicy=239  init_module=175  io_uring_setup=425  io_uring_enter=426
io_uring_register=427  ioperm=173  iopl=172  kcmp=312  kexec_file_load=320  kexec_load=246  keyctl=250
lookup_dcookie=212  mbind=237  mount=165  mount_setattr=442  move_mount=429  move_pages=279
open_by_handle_at=304  open_tree=428  perf_event_open=298  pidfd_getfd=438  pivot_root=155  quotactl=179
reboot=169  request_key=249  set_mempolicy=238  setns=308  settimeofday=164  swapoff=168  swapon=167
syslog=103  umount2=166  unshare=272  userfaultfd=323
"""
_REFUSED = {"x86_64": [int(entry.partition("=")[2]) for entry in _REFUSED_X86_64.split()]}
_CALLS = {"x86_64": (0xC000003E, 56, 435)}
"""Architecture in seccomp data, clone, clone3."""

libc = ctypes.CDLL(None, use_errno=True)


def can_imitate(name: str) -> str | None:
    """Why these surroundings cannot be had here; None if they can."""
    if name != "user" and os.uname().machine not in _CALLS:
        return f"Docker's refusals are listed for x86_64 only, and this is {os.uname().machine}"
    if name == "container" and os.geteuid() != 0:
        return "only root can be root in a container"
    return None


def _checked(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def open_the_way(paths: list[Path]) -> None:
    """In mounts of this process's own, make these folders reachable for everybody, wherever they lie."""
    _checked(libc.unshare(_CLONE_NEWNS), "unshare")
    _checked(libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None), "private mounts")
    closed: dict[Path, list[tuple[Path, int]]] = {}
    for path in paths:
        for above in reversed(path.parents):
            if not above.stat().st_mode & 0o001:
                closed.setdefault(above, []).append((path, os.open(path, os.O_PATH)))
                break
    os.umask(0o022)
    for above, below in closed.items():
        _checked(libc.mount(b"open", str(above).encode(), b"tmpfs", 0, b"mode=755"), f"mount on {above}")
        for path, descriptor in below:
            path.mkdir(parents=True)
            source = f"/proc/self/fd/{descriptor}".encode()
            _checked(libc.mount(source, str(path).encode(), None, _MS_BIND | _MS_REC, None), f"bind {path}")
            os.close(descriptor)


def refuse_as_docker_does() -> None:
    machine = os.uname().machine
    architecture, clone, clone3 = _CALLS[machine]
    allow, refuse = 0x7FFF0000, 0x00050000 | errno.EPERM
    steps = [(0x20, 0, 0, 4), (0x15, 1, 0, architecture), (0x06, 0, 0, 0x80000000), (0x20, 0, 0, 0)]
    for number in _REFUSED[machine]:
        steps += [(0x15, 0, 1, number), (0x06, 0, 0, refuse)]
    steps += [(0x15, 0, 1, clone3), (0x06, 0, 0, 0x00050000 | errno.ENOSYS)]
    steps += [(0x15, 0, 3, clone), (0x20, 0, 0, 16), (0x45, 0, 1, _NAMESPACES), (0x06, 0, 0, refuse)]
    steps += [(0x06, 0, 0, allow)]
    program = b"".join(struct.pack("<HBBI", *step) for step in steps)
    code = ctypes.create_string_buffer(program, len(program))
    if os.geteuid() != 0:
        libc.prctl(38, 1, 0, 0, 0)
    header = struct.pack("<HxxxxxxQ", len(steps), ctypes.addressof(code))
    _checked(libc.prctl(22, 2, header, 0, 0), "seccomp")


def keep_dockers_capabilities() -> None:
    for capability in set(range(41)) - _KEPT_CAPABILITIES:
        libc.prctl(24, capability, 0, 0, 0)
    mask = sum(1 << capability for capability in _KEPT_CAPABILITIES)
    header = struct.pack("<Ii", 0x20080522, 0)
    data = struct.pack("<6I", mask & 0xFFFFFFFF, mask & 0xFFFFFFFF, 0, 0, 0, 0)
    _checked(libc.capset(header, data), "capset")


def become_a_user() -> None:
    os.setgroups([])
    os.setresgid(USER, USER, USER)
    os.setresuid(USER, USER, USER)


def enter(name: str) -> None:
    is_root = os.geteuid() == 0
    if is_root:
        repository = Path(__file__).resolve().parents[3]
        open_the_way([Path(sys.base_prefix).resolve(), Path(sys.prefix).resolve(), repository])
    if name != "user":
        refuse_as_docker_does()
    if name == "container":
        keep_dockers_capabilities()
    elif is_root:
        become_a_user()


if __name__ == "__main__":
    surroundings, *rest = sys.argv[1:]
    if surroundings == "--run":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        enter(surroundings)
        os.execv(sys.executable, [sys.executable, "-m", __spec__.name, "--run", *rest])
