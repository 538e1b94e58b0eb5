"""Compiled CPU kernels (numba): fp32 loops that do in one pass what takes many small tensor operations.

The tensor operations they stand for remain, for every other device and dtype, and are what tests hold the
kernels against. Importing this package takes a second and 45 MB, so it is imported where it is first used.

Each kernel is compiled on its first call and its machine code kept: in `NUMBA_CACHE_DIR`, else in the user's
own cache. Python loads such files as it loads its own byte code, so the folder must be the user's alone.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

from workers.training.kernels.own_copies import use_own_copies

log = logging.getLogger(__name__)

Function = TypeVar("Function", bound=Callable[..., object])

FAST = {"contract", "reassoc", "nsz", "arcp"}
"""What the compiler may assume of arithmetic: sums in any order, but infinities and NaN as they are."""


def machine_code_folder() -> Path | None:
    """Returns where machine code is kept, made if need be; None if no place can be written to.

    It has a name of its own for each state of this package: numba notices changes of a kernel's own file, but
    not of the functions that it calls.
    """
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    try:
        folder = _parent() / f"kernels-{digest.hexdigest()[:12]}"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except (OSError, RuntimeError) as problem:  # RuntimeError: a user without a home
        log.warning("kernels_not_kept", extra={"reason": str(problem)})
        return None
    return folder


def _parent() -> Path:
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cherry"


use_own_copies()
_folder = machine_code_folder()
if _folder is not None:
    vars(numba.config)["CACHE_DIR"] = str(_folder)


def compiled(function: Function) -> Function:
    """Compiles a function over numbers and arrays to machine code. Others' Python runs meanwhile."""
    return _compiled(function, FAST)


def compiled_over_given(function: Function) -> Function:
    """Compiles what makes no array, but for views: it need not count who holds those that it is given."""
    return _compiled(function, FAST, _nrt=False)


def compiled_in_order(function: Function) -> Function:
    """Compiles it with sums as they are written, term after term."""
    return _compiled(function, {"contract"})


def compiled_blind_to_nan(function: Function) -> Function:
    """Compiles it where it does not matter what becomes of a NaN: the largest number of a row."""
    return _compiled(function, FAST | {"nnan"})


def _compiled(function: Function, may_assume: set[str], **more: bool) -> Function:
    options: dict[str, Any] = {"fastmath": may_assume, "error_model": "numpy", **more}
    jit: Any = numba.njit(nogil=True, cache=_folder is not None, **options)
    return cast(Function, jit(function))
