"""What one call can learn of another, and what is left of a sandbox when its owner is gone."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from graders.sandbox import LocalSandbox, SandboxSettings
from graders.services import Limits, Program
from tests.graders.sandbox.tenants import interleaved, marker, scanned

REPOSITORY = Path(__file__).resolve().parents[3]
LIMITS = Limits(wall_seconds=20, cpu_seconds=10)


def run(sandbox, body, *arguments, **more):
    source = "def f(*given):\n" + "\n".join(f"    {line}" for line in body.splitlines())
    return sandbox.run(Program(source, "f", list(arguments), limits=LIMITS, **more))


@pytest.fixture
def own_sandbox(sandbox):
    """One that a test may break."""
    own = LocalSandbox(SandboxSettings(parallel=2, wanted=sandbox.assessment().level))
    yield own
    own.close()


def test_the_memory_scan_finds_what_is_there(sandbox):
    assert scanned(sandbox, marker(0), marker(0)) > 0
    assert scanned(sandbox, "It holds no data of any user, ever") > 0  # of the fork-server, inherited


def test_no_tenant_reads_a_byte_of_another(sandbox):
    counts = interleaved(sandbox, calls=60, tenants=4, threads=3, scan_every=6)
    assert counts == {"scans": 10, "found": 0}


def test_a_program_seen_before_by_another_tenant_runs_from_clean_code(sandbox):
    """Compiled code is kept by source: whoever made it first must not be able to plant other code."""
    source = "import marshal\ndef f(first):\n    if first: marshal.dumps = marshal.loads = None\n    return 1"
    values = [sandbox.run(Program(source, "f", [index < 3], limits=LIMITS)).value for index in range(6)]
    assert values == [1] * 6


def test_calls_at_once_do_not_mix(sandbox):
    def double(number):
        return run(sandbox, "import time\ntime.sleep(0.002)\nreturn given[0] * 2", number).value

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(double, range(80))) == [2 * number for number in range(80)]


LOOK = """
import os, time
folders = ("/scratch/0", "/scratch/1")
with open("mine", "w") as file:
    file.write(given[0])
until = time.monotonic() + 15
while not all(os.path.exists(folder + "/mine") for folder in folders) and time.monotonic() < until:
    time.sleep(0.01)
seen = []
for folder in folders:
    try:
        seen.append(open(folder + "/mine").read())
    except PermissionError:
        seen.append("denied")
time.sleep(0.5)
return sorted(seen)
"""


def test_two_calls_at_once_do_not_see_each_others_files(sandbox):
    if sandbox.assessment().level != "full":
        pytest.skip("only level full has files")
    with ThreadPoolExecutor(2) as threads:
        results = list(threads.map(lambda name: run(sandbox, LOOK, name).value, ["a", "b"]))
    assert results == [["a", "denied"], ["b", "denied"]]


def test_a_lost_fork_server_is_replaced_and_the_call_repeated(own_sandbox):
    assert run(own_sandbox, "return 1").value == 1
    for _ in range(3):
        [pid] = own_sandbox.process_ids()
        for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
            process.kill()
        assert run(own_sandbox, "return 2").value == 2
        assert own_sandbox.process_ids() != [pid]


def test_calls_under_way_when_the_fork_server_is_killed_are_repeated(own_sandbox):
    own_sandbox.assessment()
    with ThreadPoolExecutor(2) as threads:
        calls = [threads.submit(run, own_sandbox, "import time\ntime.sleep(0.5)\nreturn 3") for _ in range(2)]
        time.sleep(0.2)
        psutil.Process(own_sandbox.process_ids()[0]).kill()
        assert [call.result().value for call in calls] == [3, 3]


def test_closing_ends_everything(own_sandbox):
    sleeping = threading.Thread(target=run, args=(own_sandbox, "import time\ntime.sleep(30)"))
    own_sandbox.assessment()
    sleeping.start()
    time.sleep(0.3)
    family = [psutil.Process(pid) for pid in own_sandbox.process_ids()]
    family += [child for process in family for child in process.children(recursive=True)]
    own_sandbox.close()
    gone, alive = psutil.wait_procs(family, timeout=10)
    assert len(gone) >= 2
    assert alive == []
    own_sandbox.close()
    sleeping.join()


OWNER = """
import signal, sys, threading, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # shells have it ignored in what they run beside
from graders.sandbox import LocalSandbox, SandboxSettings
from graders.services import Program
sandbox = LocalSandbox(SandboxSettings(parallel=2, wanted=sys.argv[1]))
assert sandbox.why_not() is None, sandbox.why_not()
program = Program("def f():\\n    while True: pass", "f")
for _ in range(2):
    threading.Thread(target=sandbox.run, args=(program,), daemon=True).start()
time.sleep(0.5)
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name
)
def test_no_process_outlives_the_owner(sandbox, number):
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, sandbox.assessment().level],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"PYTHONPATH": str(REPOSITORY), "PATH": os.environ["PATH"]},
    )
    with owner:
        assert owner.stdout.readline() == b"ready\n"
        family = psutil.Process(owner.pid).children(recursive=True)
        assert len(family) >= 3
        owner.send_signal(number)
        owner.wait(10)
    _, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []


def test_a_thread_that_ends_takes_no_fork_server_with_it(own_sandbox):
    starter = threading.Thread(target=run, args=(own_sandbox, "return 1"))
    starter.start()
    starter.join()
    pids = own_sandbox.process_ids()
    assert run(own_sandbox, "return 2").value == 2
    assert own_sandbox.process_ids() == pids
