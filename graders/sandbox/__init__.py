"""Runs untrusted Python: a fork-server with packages loaded ahead, one locked process per call.

`LocalSandbox` is the front door. The other modules:

trusted side    local (levels, outcomes), pool (one fork-server), launch (starts it), canary (attacks on
itself),
                flavours (which packages a source imports)
both sides      wire (what passes between them), packages
inside          fork_server (forks), call (locks), programs (runs and answers), kernel, seccomp, syscalls,
scratch
"""

from graders.sandbox.local import Finding, Level, LocalSandbox, SandboxSettings, Wanted

__all__ = ["Finding", "Level", "LocalSandbox", "SandboxSettings", "Wanted"]
