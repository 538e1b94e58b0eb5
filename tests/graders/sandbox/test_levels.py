"""How the level is found, refused, and lost."""

import struct

import pytest

from graders.sandbox import LocalSandbox, SandboxSettings
from graders.sandbox.canary import weakness
from graders.sandbox.seccomp import ALLOWED, CallFilter, server_filter
from graders.sandbox.syscalls import MACHINES
from graders.services import Outcome, Program

X86, ARM = MACHINES["x86_64"], MACHINES["aarch64"]
ALLOW, EPERM, ENOSYS, KILL = 0x7FFF0000, 0x50001, 0x50026, 0x80000000


def verdict(program, arch, number, *arguments):
    """What a seccomp program answers: the kernel's little machine, for the instructions that are used."""
    steps = list(struct.iter_unpack("<HBBI", bytes(program)))
    padded = [*arguments, 0, 0, 0, 0, 0, 0][:6]
    data = struct.pack("<IIQ6Q", number, arch, 0, *(value % 2**64 for value in padded))
    place, held = 0, 0
    while True:
        code, if_true, if_false, operand = steps[place]
        place += 1
        match code:
            case 0x20:
                held = struct.unpack_from("<I", data, operand)[0]
            case 0x15:
                place += if_true if held == operand else if_false
            case 0x35:
                place += if_true if held >= operand else if_false
            case 0x45:
                place += if_true if held & operand else if_false
            case 0x06:
                return operand


def answer(machine, name, *arguments, pid=77):
    """Of both filters together: the stricter one counts, as in the kernel."""
    number = machine.calls[name]
    both = [
        verdict(server_filter(machine), machine.audit_arch, number, *arguments),
        verdict(CallFilter(machine).for_process(pid), machine.audit_arch, number, *arguments),
    ]
    return min(both, key=lambda action: (action != KILL, action))


@pytest.mark.parametrize("machine", [X86, ARM], ids=["x86_64", "aarch64"])
def test_a_call_may_do_what_is_listed_and_nothing_else(machine):
    for name in machine.calls:
        if name in ALLOWED:
            assert answer(machine, name) == ALLOW, name
    for name in set(machine.calls) - ALLOWED:
        if name not in (
            "clone3",
            "ptrace",
            "kill",
            "tgkill",
            "ioctl",
            "fcntl",
            "socketpair",
            "sendto",
            "prlimit64",
        ):
            assert answer(machine, name) == EPERM, name


@pytest.mark.parametrize("machine", [X86, ARM], ids=["x86_64", "aarch64"])
@pytest.mark.parametrize(
    ("name", "arguments", "action"),
    [
        pytest.param("clone", [0x3D0F00], ALLOW, id="thread"),
        pytest.param("clone", [17], EPERM, id="process"),
        pytest.param("clone", [0x3D0F00 | 0x10000000], EPERM, id="thread-in-a-namespace"),
        pytest.param("clone3", [], ENOSYS, id="clone3"),
        pytest.param("ptrace", [], KILL, id="ptrace"),
        pytest.param("kill", [77, 9], ALLOW, id="kill-itself"),
        pytest.param("kill", [78, 9], EPERM, id="kill-another"),
        pytest.param("kill", [-1, 9], EPERM, id="kill-all"),
        pytest.param("tgkill", [78, 78, 9], EPERM, id="tgkill-another"),
        pytest.param("prlimit64", [0, 7, 0, 5], ALLOW, id="read-its-limit"),
        pytest.param("prlimit64", [78, 7, 0, 5], EPERM, id="read-anothers-limit"),
        pytest.param("prlimit64", [0, 7, 5, 0], EPERM, id="set-a-limit"),
        pytest.param("prlimit64", [0, 7, 2**32, 0], EPERM, id="pointer-in-the-upper-half"),
        pytest.param("ioctl", [0, 0x5421], ALLOW, id="non-blocking"),
        pytest.param("ioctl", [0, 0x5412], EPERM, id="type-into-a-terminal"),
        pytest.param("fcntl", [0, 4, 0], ALLOW, id="flags"),
        pytest.param("fcntl", [0, 8, 1], EPERM, id="owner-of-signals"),
        pytest.param("socketpair", [1, 1, 0], ALLOW, id="pair"),
        pytest.param("socketpair", [2, 1, 0], EPERM, id="pair-of-another-family"),
        pytest.param("sendto", [0, 0, 0, 0, 0], ALLOW, id="send"),
        pytest.param("sendto", [0, 0, 0, 0, 5], EPERM, id="send-to-an-address"),
        pytest.param("sendto", [0, 0, 0, 0, 2**40], EPERM, id="address-in-the-upper-half"),
    ],
)
def test_arguments_decide_where_they_can(machine, name, arguments, action):
    assert answer(machine, name, *arguments) == action


def test_other_architectures_and_x32_numbers_are_fatal():
    for program in (server_filter(X86), CallFilter(X86).for_process(1)):
        assert verdict(program, ARM.audit_arch, 0) == KILL
        assert verdict(program, X86.audit_arch, 0x40000000) == KILL


def test_numbers_beyond_all_known_calls_are_refused():
    assert verdict(server_filter(X86), X86.audit_arch, 5000) == EPERM


def test_the_fork_server_is_filtered_too():
    refused = {
        name for name in X86.calls if verdict(server_filter(X86), X86.audit_arch, X86.calls[name]) == EPERM
    }
    assert {
        "socket",
        "connect",
        "execve",
        "mount",
        "unshare",
        "setns",
        "memfd_create",
        "landlock_add_rule",
    } <= refused


@pytest.mark.parametrize("wanted", ["full", "container", "namespaces"])
def test_a_level_that_is_named_is_used_or_refused(wanted):
    sandbox = LocalSandbox(SandboxSettings(wanted=wanted, parallel=1))
    try:
        assessment = sandbox.assessment()
        assert assessment.level in (wanted, "none")
        outcome = sandbox.run(Program("def f():\n    return 1", "f"))
        if assessment.level == wanted:
            assert (sandbox.why_not(), outcome.value) == (None, 1)
        else:
            assert wanted in sandbox.why_not()
            assert outcome.fault == "server"
            assert sandbox.why_not() in outcome.message
    finally:
        sandbox.close()


def test_off_and_unknown_machines_are_refused_with_the_reason():
    assert "CHERRY_SANDBOX=off" in LocalSandbox(SandboxSettings(wanted="off")).why_not()
    assert "x86_64 and aarch64" in LocalSandbox(SandboxSettings(), machine=None).why_not()


NUMBERS = {name: X86.calls[name] for name in ("ptrace", "unshare")}


@pytest.mark.parametrize(
    ("outcomes", "found"),
    [
        pytest.param({}, None, id="holds"),
        pytest.param({"attack": Outcome(["read a file"])}, "a program in it could read a file", id="reads"),
        pytest.param(
            {"attack": Outcome(fault="raised", message="x")}, "ordinary code does not run", id="fails"
        ),
        pytest.param({"attack": Outcome(None)}, "ordinary code does not run", id="no-answer"),
        pytest.param({"trace": Outcome(None)}, "could trace its parent", id="traces"),
        pytest.param(
            {"work": Outcome(fault="raised", message="ImportError")}, "ordinary code", id="no-imports"
        ),
        pytest.param(
            {"attack": Outcome(fault="server", message="gone")}, "cannot run anything: gone", id="dead"
        ),
    ],
)
def test_one_attack_that_succeeds_is_a_weakness(outcomes, found):
    good = {"attack": Outcome([]), "trace": Outcome(fault="no_result"), "work": Outcome(0.5)}
    result = weakness(lambda program: (good | outcomes)[program.function], NUMBERS)
    assert (result is None) == (found is None)
    assert found is None or found in result


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_canaries_find_a_process_without_locks():
    """The same attacks in this very process: they would see an open door."""

    def unprotected(program):
        names = {}
        exec(program.source.replace("os.fork() or os._exit(0)", "0").replace("os.execv(", "len("), names)
        return Outcome(names[program.function](*program.arguments))

    assert "a program in it could read a file" in weakness(unprotected, NUMBERS)


def test_a_sandbox_that_fails_the_hourly_attack_closes(sandbox):
    weaknesses = []

    def attack(*arguments, **more):
        return weaknesses[0] if weaknesses else weakness(*arguments, **more)

    settings = SandboxSettings(parallel=1, wanted=sandbox.assessment().level)
    own = LocalSandbox(settings, attack=attack)
    try:
        assert own.why_not() is None
        weaknesses.append("a program in it could read a file")
        assert own.why_not() is None
        own._attack_at = 0.0
        assert "could read a file" in own.why_not()
        assert own.run(Program("def f():\n    return 1", "f")).fault == "server"
        assert own.process_ids() == []
    finally:
        own.close()
