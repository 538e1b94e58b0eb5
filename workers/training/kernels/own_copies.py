"""Gives each kernel copies of its own of the functions that it calls.

numba lets several kernels hold a function that they call under one weak symbol. A process that compiles has
one of these copies for all, a process that reads kept machine code has another; and since each was optimised
where it stood, sums in them may be taken in another order. So a run in a process that compiled would differ
in last bits from the same run in the next process (seen with numba 0.68.1). Copies that are a kernel's own
make what it computes a matter of the kernel alone.
"""

from __future__ import annotations

from llvmlite import binding
from numba.core.codegen import JITCodeLibrary, JITCPUCodegen


class OwnCopies(JITCodeLibrary):
    """Is the machine code of one kernel, in which no function is shared with another."""

    def _optimize_final_module(self) -> None:
        for function in self._final_module.functions:
            if function.linkage == binding.Linkage.linkonce_odr:
                function.linkage = binding.Linkage.internal
        super()._optimize_final_module()  # type: ignore[no-untyped-call]


def use_own_copies() -> None:
    """Lets numba compile so from now on, in this process."""
    JITCPUCodegen._library_class = OwnCopies
