"""Runs what a request asks for and writes the result. Loaded inside the sandbox, behind the locks.

The result is one line of JSON, `{"ok": true, "v": value}` or `{"ok": false, "k": kind, "m": message}`, then
what was printed. The program shares this process and can write whatever it likes there: the trusted side
believes nothing.
"""

from __future__ import annotations

import contextlib
import io
import json
import linecache
import marshal
import math
import os
import random
import signal
import sys
import traceback
from collections.abc import Callable
from types import CodeType, ModuleType
from typing import Any

from graders.sandbox import answer_side, judge_side
from graders.sandbox.packages import MODULES
from graders.sandbox.wire import COMPILE, MAX_CODE, RUN_SCRIPT, Request

FILE = "<grader>"
_HARNESSES = {"answer": answer_side, "judge": judge_side}
_MAX_MESSAGE = 2048
_MAX_DEPTH = 32
_MOST_OF_ARGUMENT = 4096
"""Characters that are kept of a text that an exception was made with: twice what is told in the end."""
_SECONDS_TO_TELL = 2.0
"""How long a traceback may take to write: 0.1 ms is usual, and more only what was made to be endless."""


class NoValue(Exception):
    """Says that the program ended without a value that can be passed on."""


def run_request(kind: int, request: Request, result: int) -> int:
    """Does what the request asks for and writes the result; returns the exit status of the process."""
    if kind == COMPILE:
        return _compile_only(request, result)
    if kind == RUN_SCRIPT:
        return _run_script(request, result)
    return _run_function(request, result)


def _compile_only(request: Request, result: int) -> int:
    """Compiles without running anything.

    What comes out is as trustworthy as the compiler, and still goes only to processes locked like this one.
    """
    try:
        code = marshal.dumps(_compiled(request))
        if len(code) > MAX_CODE:
            raise NoValue(f"the compiled source is larger than {MAX_CODE:,} bytes")
    except BaseException as error:
        _write(result, _failure_line(error, request))
        return 0
    _write(result, b'{"ok": true, "v": null}\n' + code)
    return 0


def _run_function(request: Request, result: int) -> int:
    printed = _Printed(request.output_bytes)
    sys.stdout = sys.stderr = printed
    try:
        _seed(request.seed)
        module = ModuleType("grader")
        sys.modules["grader"] = module
        exec(_compiled(request), module.__dict__)  # noqa: S102 - what the locks are for
        names = module.__dict__
        if request.harness:
            answer_side.program = names
            names = vars(_HARNESSES[request.harness])
        function = names.get(request.function)
        if not callable(function):
            raise NoValue(f"the source defines no function '{request.function}'")
        line = _result_line(function(*request.arguments), request.result_bytes)
    except BaseException as error:
        line = _failure_line(error, request)
    _write(result, line + b"\n" + printed.text())
    return 0


def _run_script(request: Request, result: int) -> int:
    sys.stdin = open(0, encoding="utf-8", errors="replace")  # noqa: SIM115 - theirs until the process ends
    sys.stdout = open(1, "w", encoding="utf-8", errors="replace")  # noqa: SIM115
    sys.stderr = io.StringIO()
    module = ModuleType("__main__")
    sys.modules["__main__"] = module
    sys.argv = ["program"]
    status, line = 0, b'{"ok": true, "v": null}'
    try:
        _seed(request.seed)
        exec(_compiled(request), module.__dict__)  # noqa: S102 - what the locks are for
    except SystemExit as stop:
        status = _exit_status(stop)
    except BaseException as error:
        status, line = 1, _failure_line(error, request)
    with contextlib.suppress(BaseException):
        sys.stdout.flush()
    _write(result, line)
    return status


def _exit_status(stop: SystemExit) -> int:
    if stop.code is None:
        return 0
    return stop.code & 0xFF if isinstance(stop.code, int) else 1


def _compiled(request: Request) -> CodeType:
    if request.code:
        code: CodeType = marshal.loads(request.code)  # noqa: S302 - behind the locks
        return code
    return compile(request.source, FILE, "exec", dont_inherit=True)


def _seed(seed: int) -> None:
    """Seeds random numbers: the same call draws the same ones, also after a resume."""
    random.seed(seed)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(seed)


class _Printed(io.TextIOBase):
    """Stands for a function's standard output: its first bytes are kept, the rest is dropped."""

    def __init__(self, limit: int) -> None:
        self._parts: list[str] = []
        self._left = limit
        self._limit = limit

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self._left > 0:
            self._parts.append(text[: self._left])
            self._left -= len(text)
        return len(text)

    def text(self) -> bytes:
        return "".join(self._parts).encode("utf-8", "replace")[: self._limit]


def _result_line(value: Any, most: int) -> bytes:
    plain = _Plain(most).of(value, 0)
    text = repr(plain) if type(plain) is float else json.dumps(plain, allow_nan=False)
    line = b'{"ok": true, "v": %b}' % text.encode()
    if len(line) > most:
        raise _too_long(most)
    return line


def _too_long(most: int) -> NoValue:
    return NoValue(f"returned more than {most:,} bytes")


class _Plain:
    """Makes values that JSON can hold, of at most so many parts: each takes a byte at least."""

    def __init__(self, most: int) -> None:
        self._most = self._left = most

    def of(self, value: Any, depth: int) -> Any:
        """Returns the value as JSON can hold it.

        Anything that turns into a finite float counts as that number.
        """
        if type(value) is float and math.isfinite(value):
            return value
        if value is None:
            return value
        if isinstance(value, str):
            if len(value) > self._most:
                raise _too_long(self._most)
            return value
        if isinstance(value, bool) or type(value).__name__ in ("bool", "bool_"):
            return bool(value)
        if isinstance(value, list | tuple | dict):
            return self._container(value, depth)
        if isinstance(value, int) and -(2**63) <= value < 2**63:
            return int(value)
        return _number(value)

    def _container(self, value: list[Any] | tuple[Any, ...] | dict[Any, Any], depth: int) -> Any:
        if depth >= _MAX_DEPTH:
            raise NoValue(f"returned something nested more than {_MAX_DEPTH} deep")
        self._left -= len(value)
        if self._left < 0:
            raise _too_long(self._most)
        if not isinstance(value, dict):
            return [self.of(part, depth + 1) for part in value]
        if not all(isinstance(key, str) for key in value):
            raise NoValue("returned an object with a key that is no string")
        return {key: self.of(part, depth + 1) for key, part in value.items()}


def _number(value: Any) -> float:
    kind = type(value).__name__
    is_number = hasattr(type(value), "__float__") and not isinstance(value, complex | bytes)
    if not is_number or getattr(value, "shape", ()) != ():
        raise NoValue(f"returned {kind}, which is no number")
    try:
        number = float(value)
    except OverflowError:
        raise NoValue(f"returned a number of type {kind} that is too large for a float") from None
    if not math.isfinite(number):
        raise NoValue(f"returned {number}, which is not finite")
    return number


def _failure_line(error: BaseException, request: Request) -> bytes:
    if isinstance(error, NoValue):
        kind, message = "no_result", str(error)
    else:
        kind = "memory" if isinstance(error, MemoryError) else "raised"
        message = _guarded(lambda: _traceback(error, request), _brief(error))
    result = {"ok": False, "k": kind, "m": _cut(message).replace("\x00", "\ufffd")}
    return json.dumps(result, ensure_ascii=False).encode("utf-8", "replace")


def _traceback(error: BaseException, request: Request) -> str:
    """Returns the traceback from the program's own first line on, with its source."""
    _shorten(error)
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename != FILE:
        frames = frames.tb_next
    text = request.source.decode("utf-8", "replace")
    linecache.cache[FILE] = (len(text), None, text.splitlines(keepends=True), FILE)
    printed = "".join(traceback.format_exception(type(error), error, frames, limit=-6))
    return printed.rstrip() + _hint(error)


def _hint(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in MODULES:
        return f"\n('{error.name}' is not installed where graders run: install 'cherry-rft[graders]' there.)"
    return ""


def _shorten(error: BaseException) -> None:
    """Cuts the texts that an exception was made with: writing hundreds of megabytes out takes seconds."""
    if any(type(one) is str and len(one) > _MOST_OF_ARGUMENT for one in error.args):
        error.args = tuple(_cut(one) if type(one) is str else one for one in error.args)


def _brief(error: BaseException) -> str:
    """Returns the kind of an exception, and its text if that needs no code of the program's."""
    first = error.args[0] if type(error.args) is tuple and error.args else ""
    return f"{type(error).__name__[:200]}: {_cut(first) if type(first) is str else 'unprintable'}"


def _guarded(make: Callable[[], str], otherwise: str) -> str:
    """Returns text made with the program's own classes, whose methods may do anything, also take for ever."""
    try:
        signal.signal(signal.SIGALRM, _stop_telling)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
        signal.setitimer(signal.ITIMER_REAL, _SECONDS_TO_TELL)
        text = str(make())
        signal.setitimer(signal.ITIMER_REAL, 0)
        return text
    except BaseException:
        return otherwise


def _stop_telling(*_: object) -> None:
    raise TimeoutError


def _cut(message: str) -> str:
    if len(message) <= _MAX_MESSAGE:
        return message
    tail = _MAX_MESSAGE * 2 // 3
    return f"{message[: _MAX_MESSAGE - tail - 7]}\n[...]\n{message[-tail:]}"


def _write(result: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(result, view) :]
