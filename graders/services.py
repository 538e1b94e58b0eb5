"""What graders may call on besides themselves. Whoever builds a grader passes it in.

`graders` itself opens no sockets and starts no processes unless it is given one of these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from graders.types import GraderInvalid, TokenUsage

Fault = Literal["raised", "time", "memory", "no_result", "output", "server"]
"""How a program in the sandbox failed: it raised, ran out of time or memory, gave no valid answer, wrote too
much; or (`server`) the sandbox itself could not run it, which is nobody's fault but ours."""


@dataclass(frozen=True)
class Limits:
    """Most that one program may use; the sandbox's own limits hold where they are lower.

    Attributes:
        wall_seconds, cpu_seconds: then it is killed.
        memory_bytes: address space.
        output_bytes: what it prints beyond this is dropped.
    """

    wall_seconds: float = 120.0
    cpu_seconds: float = 120.0
    memory_bytes: int = 2 * 2**30
    output_bytes: int = 64 * 2**10


@dataclass(frozen=True)
class Program:
    """Untrusted Python.

    Attributes:
        source: the text of a module.
        function: called with `arguments` once the module has run; None runs the module as `__main__`.
        arguments: JSON values, which reach the function as they are.
        stdin: what it can read from standard input.
        seed: `random` and numpy start from it, so that the same call gives the same answer.
    """

    source: str
    function: str | None = None
    arguments: Sequence[Any] = ()
    stdin: str = ""
    seed: int = 0
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Outcome:
    """What became of a program. Everything in it was written by untrusted code.

    Attributes:
        value: what the function returned, a JSON value (a finite number, text, list or object); None where it
            failed or none was called.
        fault: None if it ran to its end.
        message: the traceback, or a sentence on the fault; cut to a few kB.
        stdout: what it printed, cut.
        exit_code: of a module run as `__main__`; None otherwise.
        seconds: wall time.
    """

    value: Any = None
    fault: Fault | None = None
    message: str = ""
    stdout: str = ""
    exit_code: int | None = None
    seconds: float = 0.0


class Sandbox(Protocol):
    """Runs untrusted Python, each program in a locked process of its own. Safe to call from many threads."""

    def why_not(self) -> str | None:
        """What is missing for programs to be run safely here; None if nothing is.

        The first call finds out by attacking the sandbox, which takes about a second.
        """

    def run(self, program: Program) -> Outcome: ...


@dataclass(frozen=True)
class Question:
    """One question to a judge model.

    Attributes:
        messages: in the chat form.
        schema: JSON schema of the reply; `schema_name` names it.
        sampling: parameters of the chat call, such as temperature, under the chat call's names.
    """

    model: str
    messages: Sequence[Mapping[str, Any]]
    schema_name: str
    schema: Mapping[str, Any]
    sampling: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """What a judge model replied: text that should be JSON of the question's schema."""

    text: str
    usage: TokenUsage = field(default_factory=TokenUsage)


class Judge(Protocol):
    """Asks a model. Raises `GradeFailed` (server, refusal). Safe to call from threads."""

    def ask(self, question: Question) -> Answer: ...


class EndpointCaller(Protocol):
    """Posts JSON to a grading server and returns the JSON it answers. Raises `GradeFailed`."""

    def post(self, url: str, headers: Mapping[str, str], body: Mapping[str, Any]) -> Any: ...


@dataclass(frozen=True)
class Services:
    """None: not here, and graders that need it are refused when they are built, with `why` as the reason.

    `why` maps the name of a missing service to a sentence on what is missing and how to mend it.
    """

    sandbox: Sandbox | None = None
    judge: Judge | None = None
    endpoint: EndpointCaller | None = None
    why: Mapping[str, str] = field(default_factory=dict)


NOTHING = Services()


def required_sandbox(services: Services, kind: str) -> Sandbox:
    """The sandbox, for graders of a kind. Raises `GraderInvalid` (python_grader_unavailable) without one."""
    if services.sandbox is None:
        reason = services.why.get("sandbox", "there is no sandbox here")
    elif (missing := services.sandbox.why_not()) is not None:
        reason = missing
    else:
        return services.sandbox
    raise GraderInvalid(
        f"A {kind} grader runs code, which this service does only in a sandbox that holds: {reason}",
        param="type",
        code="python_grader_unavailable",
    )
