"""What a call leaves behind, in its folder or its pipe, touches neither the fork-server nor another call."""

import os
import resource
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from graders.sandbox import LocalSandbox, SandboxSettings
from graders.services import Limits, Program

LIMITS = Limits(wall_seconds=20, cpu_seconds=10)


@pytest.fixture(scope="module")
def with_one(sandbox):
    """One slot, so that each call gets what the last one left."""
    own = LocalSandbox(SandboxSettings(parallel=1, wanted=sandbox.assessment().level))
    own.assessment()
    yield own
    own.close()


def run(sandbox, body, *arguments):
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    return sandbox.run(Program(f"import os\ndef f(*given):\n{lines}", "f", list(arguments), limits=LIMITS))


LEAVE = {
    "folders-of-all-modes": """
os.umask(0)
for mode in range(0o10000):
    if mode < 0o1000 or mode % 0o111 == 0:
        os.mkdir(f"{mode:o}", mode)
""",
    "full-folders-of-all-modes": """
os.umask(0)
for mode in range(512):
    os.mkdir(f"{mode:o}", 0o700)
    os.mkdir(f"{mode:o}/below", mode)
    if mode & 0o300 == 0o300:
        os.mkdir(f"{mode:o}/below/deeper", 0)
        os.close(os.open(f"{mode:o}/below/file", os.O_CREAT, 0))
    os.umask(0)
""",
    "files-of-all-modes": """
os.umask(0)
for mode in range(512):
    os.close(os.open(f"{mode:o}", os.O_CREAT | os.O_WRONLY, mode))
""",
    "odd-names": """
names = [b"a\\nb", bytes([0xFF, 0xFE]), b"x" * 255, b" ", b"-rf", b"\\x01", b"moved-1", b"...", b"*"]
for name in names:
    os.mkdir(name)
    for below in names:
        os.mkdir(name + b"/" + below, 0)
""",
    "symbolic-links": """
for name, target in (("a", "/"), ("b", "b"), ("c", ".."), ("d", "nowhere"), ("e", "/scratch/0")):
    os.symlink(target, name)
    os.mkdir(f"in-{name}")
    os.symlink(target, f"in-{name}/{name}")
""",
    "a-deep-chain-that-ends-closed": """
for _ in range(600):
    os.mkdir("d")
    os.chdir("d")
os.mkdir("closed", 0)
""",
    "open-and-mapped-files-of-a-killed-process": """
import mmap, signal
files = [open(f"file-{number}", "w") for number in range(200)]
descriptor = os.open("mapped", os.O_RDWR | os.O_CREAT)
os.ftruncate(descriptor, 8192)
mapped = mmap.mmap(descriptor, 8192)
os.kill(os.getpid(), signal.SIGKILL)
""",
    "a-full-file-system": """
try:
    for number in range(5000):
        os.mkdir(str(number), 0o100)
except OSError:
    pass
""",
}


@pytest.mark.parametrize("left", LEAVE)
def test_whatever_is_left_in_the_folder_the_same_server_grades_next(with_one, left):
    if with_one.assessment().level != "full":
        pytest.skip("only level full has files")
    pids = with_one.process_ids()
    outcome = run(with_one, LEAVE[left])
    assert outcome.fault is None or "killed" in left, outcome
    assert run(with_one, "return os.listdir('.')").value == []
    assert run(with_one, "open('mine', 'w').write('x')\nreturn os.listdir('.')").value == ["mine"]
    assert with_one.process_ids() == pids


def servers(sandbox):
    """The fork-servers themselves: inside bubblewrap, or without it."""
    for pid in sandbox.process_ids():
        outer = psutil.Process(pid)
        yield outer.children()[0] if outer.name() == "bwrap" else outer


FORGE = """
import time
os.write(3, bytes(given[0]))
time.sleep(15)
"""
FORGED = b'{"ok": true, "v": 1.0}\n'


@pytest.mark.parametrize(
    "tail",
    [
        pytest.param(bytes(16), id="zeros"),
        pytest.param(b"", id="none"),
        pytest.param(b"\xff" * 16, id="ones", marks=pytest.mark.long),
        pytest.param(bytes(160), id="many", marks=pytest.mark.long),
    ],
)
def test_a_lost_server_is_lost_whatever_the_pipe_holds(sandbox, tail):
    """It is lost twice, so the call fails, and not with the grade that the program has written."""
    own = LocalSandbox(SandboxSettings(parallel=1, wanted=sandbox.assessment().level))
    own.assessment()
    with ThreadPoolExecutor(1) as threads:
        call = threads.submit(run, own, FORGE, list(FORGED + tail))
        killed = []
        while len(killed) < 2:
            for server in _with_a_call(own):
                if server not in killed:
                    time.sleep(0.2)  # for the program to write
                    server.kill()
                    killed.append(server)
            time.sleep(0.02)
        outcome = call.result()
    own.close()
    assert (outcome.fault, outcome.value) == ("server", None)


def _with_a_call(sandbox):
    try:
        yield from (server for server in servers(sandbox) if server.children())
    except (psutil.NoSuchProcess, IndexError):
        return  # it is being replaced


def test_an_ending_is_the_servers_word_alone(with_one):
    """16 bytes that look like an ending of exit status 0 do not hide how the process ended."""
    outcome = run(with_one, "os.write(3, bytes(16))\nos.abort()")
    assert outcome.fault == "no_result"
    assert "signal 6" in outcome.message


CROWD = """
import threading, time
threading.stack_size(65536)
for _ in range(300):
    threading.Thread(target=time.sleep, args=(5,), daemon=True).start()
time.sleep(4)
"""


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0, reason="only root leaves its own processes out of the limit")
def test_a_machine_without_a_process_to_spare_fails_the_call_and_not_the_server(sandbox):
    own = LocalSandbox(SandboxSettings(parallel=2, wanted=sandbox.assessment().level))
    before = resource.getrlimit(resource.RLIMIT_NPROC)
    resource.setrlimit(resource.RLIMIT_NPROC, (200, before[1]))  # which the fork-server inherits
    try:
        assert run(own, "return 1").value == 1
    finally:
        resource.setrlimit(resource.RLIMIT_NPROC, before)
    pids = own.process_ids()
    with ThreadPoolExecutor(1) as threads:
        crowd = threads.submit(run, own, CROWD)
        time.sleep(1)
        outcome = run(own, "return 2")
        assert crowd.result().fault is None
    assert outcome.fault == "server"
    assert "no process could be made" in outcome.message
    assert run(own, "return 3").value == 3
    assert own.process_ids() == pids
    own.close()


MANY = """
import threading, time
threading.stack_size(32768)
started = 0
try:
    while started < 3000:
        threading.Thread(target=time.sleep, args=(2,), daemon=True).start()
        started += 1
except RuntimeError:
    return started
return "all"
"""


def test_threads_of_all_calls_are_limited_where_the_user_is_the_sandboxs_own(with_one):
    if with_one.assessment().level != "full":
        pytest.skip("in a container the user may be the service's own")
    assert run(with_one, MANY).value <= 1024
    assert run(with_one, "return 1").value == 1


@pytest.mark.parametrize(
    ("body", "says"),
    [
        pytest.param("os._exit(0)", "The process ended before f() returned (exit status 0).", id="exit"),
        pytest.param("os._exit(3)", "The process ended before f() returned (exit status 3).", id="exit-3"),
        pytest.param("os.abort()", "The process ended before f() returned (ended by signal 6).", id="abort"),
    ],
)
def test_a_program_that_ends_early_is_told_so(with_one, body, says):
    assert run(with_one, body).message == says


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("raise ValueError('x' * (300 * 2**20))", id="text"),
        pytest.param("raise ValueError('x\\n' * (100 * 2**20))", id="lines"),
        pytest.param("raise KeyError(chr(1) * (100 * 2**20))", id="escaped"),
        pytest.param(
            "class OwnError(ValueError):\n    def __str__(self):\n        while True: pass\nraise OwnError",
            id="endless",
        ),
        pytest.param(
            "e = ValueError()\nfor _ in range(40): e = ExceptionGroup('x', [e, e, e])\nraise e",
            id="group",
            marks=pytest.mark.long,
        ),
    ],
)
def test_a_giant_message_is_cut(with_one, body):
    outcome = run(with_one, body)
    assert outcome.fault == "raised"
    assert "Error" in outcome.message or "Group" in outcome.message
    assert len(outcome.message) <= 2100


@pytest.mark.parametrize("value", ["['x'] * 10**7", "[['x'] * 9000] * 9000", "'x' * (300 * 2**20)"])
def test_a_giant_value_is_refused_before_it_is_written_out(with_one, value):
    outcome = run(with_one, f"return {value}")
    assert (outcome.fault, outcome.message) == ("no_result", "returned more than 16,384 bytes")
