"""Finds the strongest level of sandbox that holds on this machine, and runs programs in it."""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

from graders import strict_json
from graders.sandbox.canary import Attack, weakness
from graders.sandbox.compiled import MOST_TOLD, CompiledSources
from graders.sandbox.flavours import flavour_of, modules_of
from graders.sandbox.launch import Confinement, StartFailed, find_bubblewrap, start
from graders.sandbox.pool import ForkServerLost, Pool, RawOutcome
from graders.sandbox.syscalls import Machine, this_machine
from graders.sandbox.wire import RUN_FUNCTION, RUN_SCRIPT, Request
from graders.services import Fault, Limits, Outcome, Program

Level = Literal["full", "container", "namespaces", "none"]
WantedLevel = Literal["auto", "full", "container", "namespaces", "off"]

LEVELS: tuple[Level, ...] = ("full", "container", "namespaces")
"""From the strongest on."""
ATTACK_EVERY_SECONDS = 3600.0


@dataclass(frozen=True)
class SandboxSettings:
    """Holds what an operator may set.

    Attributes:
        wanted: the level, or "auto" for the strongest that holds.
        limits: the most that any program may use, whatever it asks for.
        scratch_bytes: size of the folder that a call may write into, at level full.
        parallel: programs at a time, over all fork-servers; 0 for as many as cores and memory allow.
        readable: further folders that programs may read, such as NLTK's data.
    """

    wanted: WantedLevel = "auto"
    limits: Limits = field(default_factory=Limits)
    scratch_bytes: int = 64 * 2**20
    parallel: int = 0
    readable: tuple[str, ...] = ()

    @property
    def slots(self) -> int:
        """Returns how many programs may run at a time: `parallel`, or what cores and memory allow."""
        if self.parallel:
            return self.parallel
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return max(1, min(os.cpu_count() or 1, memory // (2 * self.limits.memory_bytes)))


@dataclass(frozen=True)
class Assessment:
    """Says which level holds, and for each stronger one why it does not."""

    level: Level
    why_not_higher: dict[str, str]

    @property
    def reason(self) -> str:
        """Returns why no stronger level holds, in one line; empty for the strongest."""
        return "; ".join(f"level {level}: {why}" for level, why in self.why_not_higher.items())


class LocalSandbox:
    """Runs programs, each in a locked process of its own. See docs/sandbox.md for what that stops.

    Nothing is started before the first use. Close it at the end; a process that ends without doing so takes
    its fork-servers with it. `machine` is None where the sandbox does not know the architecture, and `attack`
    is what finds out, at first use and then every hour, whether a level holds.
    """

    def __init__(
        self,
        settings: SandboxSettings,
        *,
        machine: Machine | None = this_machine(),
        attack: Attack = weakness,
    ) -> None:
        self._settings = settings
        self._machine = machine
        self._attack = attack
        self._lock = threading.RLock()
        self._permits = threading.BoundedSemaphore(settings.slots)
        self._starter: ThreadPoolExecutor | None = None
        self._pools: dict[str, Pool] = {}
        self._confinement: Confinement | None = None
        self._assessment: Assessment | None = None
        self._attack_at = 0.0
        self._compiled = CompiledSources()

    def why_not(self) -> str | None:
        assessment = self.assessment()
        return assessment.reason if assessment.level == "none" else None

    def assessment(self) -> Assessment:
        """Returns the level that holds now.

        It is found by attacking at first use, then looked at again every hour.
        """
        with self._lock:
            if self._assessment is None or (
                self._assessment.level != "none" and time.monotonic() >= self._attack_at
            ):
                self._assessment = self._find()
                self._attack_at = time.monotonic() + ATTACK_EVERY_SECONDS
            return self._assessment

    @property
    def last_assessment(self) -> Assessment | None:
        """Returns what was found so far; None before the first use."""
        return self._assessment

    def run(self, program: Program) -> Outcome:
        assessment = self.assessment()
        if assessment.level == "none":
            return Outcome(fault="server", message=f"No sandbox holds here: {assessment.reason}.")
        return self._run(program)

    def close(self) -> None:
        """Ends every fork-server and whatever runs in them, for good."""
        with self._lock:
            self._assessment = Assessment("none", {"any": "it was closed"})
            self._drop_pools()
            if self._starter is not None:
                self._starter.shutdown()
                self._starter = None

    def process_ids(self) -> list[int]:
        """Returns the ids of the fork-servers that run now."""
        with self._lock:
            return [pid for pool in self._pools.values() if (pid := pool.process_id) is not None]

    def _find(self) -> Assessment:
        why: dict[str, str] = {}
        wanted = self._settings.wanted
        if wanted == "off":
            return Assessment("none", {"off": "the operator has switched it off (CHERRY_SANDBOX=off)"})
        if sys.platform != "linux" or self._machine is None:
            return Assessment(
                "none", {"full": "only Linux on x86_64 and aarch64 has the locks it is made of"}
            )
        for level in LEVELS if wanted == "auto" else (wanted,):
            problem = self._try(level)
            if problem is None:
                return Assessment(level, why)
            why[level] = problem
        self._drop_pools()
        self._confinement = None
        return Assessment("none", why)

    def _try(self, level: Level) -> str | None:
        """Makes this the level in use; returns what is wrong with it, or None."""
        confinement = _confinement(level, self._settings)
        if isinstance(confinement, str):
            return confinement
        if confinement != self._confinement:
            self._drop_pools()
            self._confinement = confinement
        assert self._machine is not None
        numbers = {name: self._machine.calls[name] for name in ("ptrace", "unshare")}
        try:
            if confinement.landlock and self._pool("standard").landlock == 0:
                return "the kernel has no Landlock (it came with 5.13, and must be in the lsm= list)"
            return self._attack(self._run, numbers, has_scratch=bool(confinement.scratch_bytes))
        except StartFailed as failure:
            return str(failure)

    def _pool(self, flavour: str) -> Pool:
        with self._lock:
            if flavour not in self._pools:
                self._pools[flavour] = Pool(lambda: self._start(flavour))
            return self._pools[flavour]

    def _start(self, flavour: str) -> Any:
        """Starts a fork-server on a thread that lives as long as the sandbox.

        Fork-servers die with the thread that made them.
        """
        with self._lock:
            if self._starter is None:
                self._starter = ThreadPoolExecutor(1, thread_name_prefix="sandbox")
            assert self._confinement is not None
            confinement = self._confinement
            starter = self._starter
        return starter.submit(start, confinement, modules_of(flavour)).result()

    def _drop_pools(self) -> None:
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()

    def _run(self, program: Program) -> Outcome:
        limits = _stricter(program.limits, self._settings.limits)
        pool = self._pool(flavour_of(program.source))
        source = program.source.encode("utf-8", "replace")
        kind = RUN_SCRIPT if program.function is None else RUN_FUNCTION
        try:
            with self._permits:
                code = self._compiled.of(source, pool)
                request = Request(
                    program.function or "",
                    program.arguments,
                    source,
                    code,
                    program.seed & 0xFFFFFFFF,
                    limits.output_bytes,
                    limits.result_bytes,
                    program.harness or "",
                )
                started = time.perf_counter()
                raw = pool.call(kind, request, limits, program.stdin)
                seconds = time.perf_counter() - started
        except (ForkServerLost, StartFailed) as failure:
            return Outcome(fault="server", message=f"The sandbox could not run it: {failure}.")
        return _outcome(raw, program, limits, seconds)


def _confinement(level: Level, settings: SandboxSettings) -> Confinement | str:
    """Returns what makes up a level; text if something for it is missing."""
    bubblewrap = None if level == "container" else find_bubblewrap()
    if level != "container" and bubblewrap is None:
        return "bubblewrap is not installed: pip install 'cherry-rft[graders]', or your system's package"
    return Confinement(
        bubblewrap=bubblewrap,
        landlock=level != "namespaces",
        scratch_bytes=settings.scratch_bytes if level == "full" else 0,
        slots=settings.slots,
        readable=settings.readable,
    )


def _stricter(asked: Limits, most: Limits) -> Limits:
    return Limits(
        wall_seconds=min(asked.wall_seconds, most.wall_seconds),
        cpu_seconds=min(asked.cpu_seconds, most.cpu_seconds),
        memory_bytes=min(asked.memory_bytes, most.memory_bytes),
        output_bytes=min(asked.output_bytes, most.output_bytes),
        result_bytes=asked.result_bytes,
    )


def _outcome(raw: RawOutcome, program: Program, limits: Limits, seconds: float) -> Outcome:
    """Reads what untrusted code wrote, believing nothing."""
    kind = RUN_SCRIPT if program.function is None else RUN_FUNCTION
    line, _, printed = raw.result.partition(b"\n")
    stdout = _text(raw.printed if kind == RUN_SCRIPT else printed, limits.output_bytes)
    exit_code = _exit_code(raw) if kind == RUN_SCRIPT else None
    fault, message, value = _read_outcome(raw, line, program, limits)
    return Outcome(value, fault, message, stdout, exit_code, seconds)


def _read_outcome(
    raw: RawOutcome, line: bytes, program: Program, limits: Limits
) -> tuple[Fault | None, str, Any]:
    if raw.ending.was_late:
        return "time", f"It ran longer than {limits.wall_seconds:g} seconds.", None
    if _used_up(raw, limits):
        return "time", f"It used more than {limits.cpu_seconds:g} seconds of CPU time.", None
    if raw.overflowed:
        return "output", "It wrote more than it may.", None
    result = read_result(line, limits.result_bytes)
    if result is None:
        if program.function is None and os.WIFEXITED(raw.ending.status) and not line:
            return None, "", None  # it left by os._exit, as a script may
        if program.function is not None and not raw.result:
            message = f"The process ended before {program.function}() returned ({_how_it_ended(raw)})."
            return "no_result", message, None
        return "no_result", f"It gave no valid result ({_how_it_ended(raw)}).", None
    if result["ok"]:
        return None, "", result["v"]
    return result["k"], result["m"], None


def read_result(line: bytes, most: int = MOST_TOLD) -> dict[str, Any] | None:
    """Returns the result if it has exactly the form of one, else None.

    The program may have written it itself.
    """
    if len(line) > most:
        return None
    try:
        result: Any = strict_json.loads(line)
    except strict_json.StrictJsonError:
        return None
    match result:
        case {"ok": True, "v": _, **rest} if not rest:
            return dict(result)
        case {"ok": False, "k": "raised" | "memory" | "no_result", "m": str(), **rest} if not rest:
            return dict(result)
    return None


def _used_up(raw: RawOutcome, limits: Limits) -> bool:
    """Tells whether the kernel ended it for its CPU time.

    That comes a second later where it held the first signal off.
    """
    if not os.WIFSIGNALED(raw.ending.status):
        return False
    number = os.WTERMSIG(raw.ending.status)
    is_spent = raw.ending.cpu_microseconds >= 0.9e6 * math.ceil(limits.cpu_seconds)
    return number == signal.SIGXCPU or (number == signal.SIGKILL and is_spent)


def _exit_code(raw: RawOutcome) -> int:
    return os.waitstatus_to_exitcode(raw.ending.status)


def _how_it_ended(raw: RawOutcome) -> str:
    status = raw.ending.status
    if os.WIFSIGNALED(status):
        return f"ended by signal {os.WTERMSIG(status)}"
    return f"exit status {os.WEXITSTATUS(status)}" if os.WIFEXITED(status) else "it never ended"


def _text(data: bytes, limit: int) -> str:
    return data[:limit].decode("utf-8", "replace").replace("\x00", "\ufffd")
