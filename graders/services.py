"""Declares what graders may call on besides themselves. Whoever builds a grader passes it in.

`graders` itself opens no sockets and starts no processes unless it is given one of these; the exception is
`math`, whose comparisons run in processes of its own (graders/math/process.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from graders.types import GraderInvalid, TokenUsage

Fault = Literal["raised", "time", "memory", "no_result", "output", "server"]
"""How a program in the sandbox failed: it raised, ran out of time or memory, gave no valid result, wrote too
much; or (`server`) the sandbox itself could not run it, which is nobody's fault but ours."""


Harness = Literal["answer", "judge"]


@dataclass(frozen=True)
class Limits:
    """Limits what one program may use; the sandbox's own limits hold where they are lower.

    Attributes:
        wall_seconds, cpu_seconds: the program is killed after these.
        memory_bytes: size of the address space.
        output_bytes: what the program prints beyond this is dropped.
        result_bytes: size of the JSON that a function may return.
    """

    wall_seconds: float = 120.0
    cpu_seconds: float = 120.0
    memory_bytes: int = 2 * 2**30
    output_bytes: int = 64 * 2**10
    result_bytes: int = 16 * 2**10


@dataclass(frozen=True)
class Program:
    """Describes a piece of untrusted Python to run.

    Attributes:
        source: the text of a module.
        function: called with `arguments` once the module has run; None runs the module as `__main__`.
        arguments: JSON values, which reach the function as they are.
        stdin: what the program can read from standard input.
        seed: `random` and numpy start from it, so that the same call gives the same result.
        harness: what has `function` in the place of `source`: functions of the sandbox's own that ask the
            module that `source` makes (`answer`), or judge a test (`judge`).
    """

    source: str
    function: str | None = None
    arguments: Sequence[Any] = ()
    stdin: str = ""
    seed: int = 0
    harness: Harness | None = None
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Outcome:
    """Reports what became of a program. Everything in it was written by untrusted code.

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
    """Runs untrusted Python, each program in a locked process of its own.

    It is safe to call from many threads.
    """

    def why_not(self) -> str | None:
        """Returns what is missing for programs to be run safely here; None if nothing is.

        The first call finds out by attacking the sandbox, which takes about a second.
        """

    def run(self, program: Program) -> Outcome:
        """Runs a program to its end or its limits.

        Raises nothing: whatever went wrong is the outcome's `fault`.
        """


@dataclass(frozen=True)
class Target:
    """Names the judge that is meant.

    Attributes:
        model: the model, as the grader names it.
        base_url: the judge's address, if the grader itself gives one; else it is a judge of the settings.
        api_key_name: name of a key that the operator has set for that address.
    """

    model: str
    base_url: str | None = None
    api_key_name: str | None = None


@dataclass(frozen=True)
class Question:
    """Asks something of a judge model.

    Attributes:
        messages: the messages in the chat form. They say in words what the reply shall look like.
        schema: JSON schema of the reply, and `schema_name` its name; None where the reply is plain text.
        sampling: parameters of the chat call, such as temperature, under the chat call's names.
    """

    target: Target
    messages: Sequence[Mapping[str, Any]]
    schema_name: str
    schema: Mapping[str, Any] | None
    sampling: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Reply:
    """Holds what a judge model replied: text, which should be JSON of the question's schema where it has one.

    Attributes:
        usage: the tokens it cost; none if the reply was known from before.
        remark: what a person should know of how it came about, such as a server that ignores schemas.
        tries: how often its server was called for it; more than once where that failed at first.
    """

    text: str
    usage: TokenUsage = field(default_factory=TokenUsage)
    remark: str = ""
    tries: int = 1


class Judge(Protocol):
    """Asks a judge model. It is safe to call from many threads."""

    def check(self, target: Target, sampling: Mapping[str, Any], media: frozenset[str]) -> None:
        """Checks that the judge can be asked with these parameters, and about `image` and `audio`.

        It asks nobody.

        Raises `GraderInvalid`.
        """

    def ask(self, question: Question) -> Reply:
        """Returns the judge's reply. Raises `GradeFailed`: server, refusal, exceeded max tokens."""


@dataclass(frozen=True)
class EndpointRequest:
    """Describes one call to a grading server. `rate_limit` is the most calls per second to that URL."""

    url: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]
    rate_limit: float | None = None


class EndpointCaller(Protocol):
    """Posts JSON to grading servers. It is safe to call from many threads."""

    def check(self, url: str) -> None:
        """Checks that the URL may be called. Raises `GraderInvalid`."""

    def post(self, request: EndpointRequest) -> Any:
        """Returns the JSON of the server's response. Raises `GradeFailed`: internal, server."""


@dataclass(frozen=True)
class EmbeddedTexts:
    """Holds the vectors of some texts, in their order, and names the model that made them."""

    model: str
    vectors: Sequence[Sequence[float]]
    usage: TokenUsage = field(default_factory=TokenUsage)


class Embedder(Protocol):
    """Turns texts into vectors of one length. It is safe to call from many threads."""

    def embed(self, texts: Sequence[str]) -> EmbeddedTexts:
        """Returns a vector for each text. Raises `GradeFailed`."""


@dataclass(frozen=True)
class Services:
    """Holds the services that graders may call on; None where there is no such service.

    A grader that needs a missing one is refused when it is built. `why` maps the name of a missing service to
    a sentence on what is missing and how to mend it.
    """

    sandbox: Sandbox | None = None
    judge: Judge | None = None
    endpoint: EndpointCaller | None = None
    embedder: Embedder | None = None
    why: Mapping[str, str] = field(default_factory=dict)


NO_SERVICES = Services()


def required_sandbox(services: Services, kind: str) -> Sandbox:
    """Returns the sandbox, for graders of a kind.

    Raises `GraderInvalid` (python_grader_unavailable) without one.
    """
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


def required_judge(services: Services, kind: str) -> Judge:
    """Returns the judges, for graders of a kind.

    Raises `GraderInvalid` where no judge can be asked at all.
    """
    if services.judge is None:
        raise _missing(services, "judge", f"A {kind} grader asks a judge model", "type")
    return services.judge


def required_endpoint(services: Services) -> EndpointCaller:
    """Returns what calls grading servers. Raises `GraderInvalid` where none can be called."""
    if services.endpoint is None:
        raise _missing(services, "endpoint", "An endpoint grader calls another server", "type")
    return services.endpoint


def required_embedder(services: Services) -> Embedder:
    """Returns the embedding model. Raises `GraderInvalid` where there is none."""
    if services.embedder is None:
        raise _missing(services, "embedder", "'cosine' compares embeddings", "evaluation_metric")
    return services.embedder


def _missing(services: Services, service: str, what: str, param: str) -> GraderInvalid:
    why = services.why.get(service, "nothing here can do that")
    return GraderInvalid(f"{what}: {why}", param=param, code="unsupported_grader")
