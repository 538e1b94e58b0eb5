"""Runs untrusted Python: a fork-server with packages loaded ahead, one locked process per call.

`LocalSandbox` is the front door. The other modules:

trusted side    local (levels, outcomes), pool (one fork-server), launch (starts it),
                compiled (code seen often), canary (attacks on the sandbox itself),
                flavours (which packages a source imports)
both sides      wire (what passes between them), packages, transport (values as texts)
inside          fork_server (forks), call (locks), programs (runs and reports), kernel, seccomp, syscalls,
                scratch, large_pages; answer_side (asks a completion),
                judge_side, judge_talk (judge a test)
"""

from graders.sandbox.local import Assessment, Level, LocalSandbox, SandboxSettings, WantedLevel

__all__ = ["Assessment", "Level", "LocalSandbox", "SandboxSettings", "WantedLevel"]
