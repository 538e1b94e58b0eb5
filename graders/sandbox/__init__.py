"""Runs untrusted Python: a fork-server with packages loaded ahead, one locked process per call.

`LocalSandbox` is the front door. The other modules:

trusted side    local (levels, outcomes), pool (one fork-server), launch (starts it),
                canary (attacks on the sandbox itself), flavours (which packages a source imports)
both sides      wire (what passes between them), packages
inside          fork_server (forks), call (locks), programs (runs and reports), kernel, seccomp, syscalls,
                scratch, large_pages
"""

from graders.sandbox.local import Assessment, Level, LocalSandbox, SandboxSettings, WantedLevel

__all__ = ["Assessment", "Level", "LocalSandbox", "SandboxSettings", "WantedLevel"]
