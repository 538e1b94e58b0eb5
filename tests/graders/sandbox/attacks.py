# ruff: noqa: E501 - one attack a line where it fits
"""Hostile programs, and harmless ones that must go on working.

Each defines `attack(facts)`, which returns true if it got what it wanted. What has to become of it behind the locks is
written beside it: a fault with words of its message, or a value. `facts` are what it goes for: a file of another tenant
that any user of the machine may read, listeners, process ids.
"""

from dataclasses import dataclass, field
from typing import Any

PRELUDE = """
import ctypes, errno, fcntl, json, mmap, os, re, signal, socket, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def raw(number, *values):
    result = libc.syscall(ctypes.c_long(number), *values)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
"""

CLOSED = r"PermissionError|FileNotFoundError|Read-only file system|NotADirectoryError"
"""What Landlock, a missing file and a read-only mount say."""
DENIED = r"PermissionError|Operation not permitted"
"""What the filter of system calls says."""
NO_RESULT = "no valid result"


@dataclass(frozen=True)
class Case:
    """One program.

    Attributes:
        fault: what must become of it; None for one that ends with a value.
        says: a pattern in the message.
        value: what it must return where it has no fault; False is an attack that came to nothing.
        in_control: can be run without a sandbox and without harm to the machine.
        limits: lower ones than the suite's.
        after: a second program, which must return True: nothing of the first one is left.
    """

    name: str
    body: str
    fault: str | None = "raised"
    says: str = ""
    value: Any = None
    in_control: bool = False
    limits: dict[str, float] = field(default_factory=dict)
    after: str = ""

    @property
    def source(self) -> str:
        return as_source(self.body)


def as_source(body: str) -> str:
    """A module with `attack` made of the body: an expression, or statements."""
    lines = body.strip("\n").splitlines()
    if len(lines) == 1 and not lines[0].startswith((" ", "return", "raise", "while", "for ")):
        lines = [f"return {lines[0]}"]
    indented = "\n".join(f"    {line}" for line in lines)
    return f"{PRELUDE}\ndef attack(facts):\n{indented}\n"


def reads(name: str, body: str, **more: Any) -> Case:
    return Case(name, body, says=CLOSED, **more)


def calls(name: str, body: str, **more: Any) -> Case:
    return Case(name, body, says=DENIED, **more)


FILES = [
    reads("read-passwd", "'root' in open('/etc/passwd').read()", in_control=True),
    reads("read-shadow", "open('/etc/shadow').read()"),
    reads("read-another-tenants-file", "open(facts['file']).read() == facts['marker']", in_control=True),
    reads("list-root", "len(os.listdir('/')) > 5", in_control=True),
    reads("list-etc", "len(os.listdir('/etc')) > 5", in_control=True),
    reads("list-libraries", "len(os.listdir('/usr/lib')) > 5", in_control=True),
    reads("list-processes", "len(os.listdir('/proc')) > 5", in_control=True),
    reads("path-with-dots", "'root' in open(os.path.dirname(json.__file__) + '/' + '../' * 12 + 'etc/passwd').read()", in_control=True),
    reads("symlink-in-its-own-folder", "os.symlink('/etc/passwd', 'link')\nreturn 'root' in open('link').read()", in_control=True),
    reads("descriptor-of-root", "root = os.open('/', os.O_PATH | os.O_DIRECTORY)\nfile = os.open('etc/passwd', os.O_RDONLY, dir_fd=root)\nreturn b'root' in os.read(file, 100)", in_control=True),
    Case("environment", "any('CHERRY' in name for name in os.environ)", None, value=False, in_control=True),
    reads("own-environment-through-proc", "b'CHERRY' in open('/proc/self/environ', 'rb').read()", in_control=True),
    reads("parents-environment-through-proc", "b'CHERRY' in open(f'/proc/{os.getppid()}/environ', 'rb').read()"),
    reads("owners-environment-through-proc", "b'CHERRY' in open(f\"/proc/{facts['owner']}/environ\", 'rb').read()"),
    reads("parents-memory-file", "open(f'/proc/{os.getppid()}/mem', 'rb+')"),
    reads("owners-descriptors", "os.listdir(f\"/proc/{facts['owner']}/fd\")"),
    reads("write-beside-it", "open(facts['file'] + '.new', 'w').write('x')", in_control=True),
    reads("append-to-a-library", "open(json.__file__, 'a').write('#')"),
    reads("make-a-folder-outside", "os.mkdir(facts['folder'] + '/new') is None", in_control=True),
    reads("delete-a-file", "os.unlink(facts['folder'] + '/victim') is None", in_control=True),
    reads("move-a-file", "os.rename(facts['file'], facts['file'] + '.moved')"),
    Case("truncate-a-file", "os.truncate(facts['folder'] + '/victim', 0) is None", says=f"{CLOSED}|{DENIED}"),
    calls("chmod-a-file", "os.chmod(facts['own'], 0o777) is None"),
    calls("chown-a-file", "os.chown(facts['own'], os.getuid(), -1) is None"),
    calls("set-times-of-a-file", "os.utime(facts['own'], (1, 1)) is None"),
    calls("set-an-attribute", "os.setxattr(facts['own'], 'user.x', b'1') is None"),
    Case("hard-link-a-file", "os.link(facts['file'], facts['folder'] + '/link')", says=f"{CLOSED}|{DENIED}"),
    Case("make-a-pipe-in-the-file-system", "os.mkfifo('pipe') is None", says=f"{CLOSED}|{DENIED}", in_control=True),
    Case("write-2-gb", "with open('big', 'wb') as file:\n    for _ in range(2048):\n        file.write(b'x' * 2**20)\nreturn True", says=f"File too large|No space|{CLOSED}"),
    Case("many-files", "for index in range(20_000):\n    open(f'file-{index}', 'w').close()\nreturn True", says=f"No space|{CLOSED}", in_control=True),
]  # fmt: skip

NETWORK = [
    calls("tcp-connect", "socket.create_connection(('127.0.0.1', facts['port']), 2)", in_control=True),
    calls("tcp-listen", "with socket.socket() as server:\n    server.bind(('127.0.0.1', 0))\n    server.listen()\n    return True", in_control=True),
    calls("udp", "with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:\n    return link.sendto(b'x', ('127.0.0.1', facts['port'])) == 1", in_control=True),
    calls("unix-path", "with socket.socket(socket.AF_UNIX) as link:\n    return link.connect(facts['folder'] + '/socket') is None", in_control=True),
    calls("unix-abstract", "with socket.socket(socket.AF_UNIX) as link:\n    return link.connect(facts['abstract']) is None", in_control=True),
    calls("datagram-pair-to-an-address", "one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\nreturn one.sendto(b'x', facts['datagrams']) == 1"),
    calls("message-to-an-address", "one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\nreturn one.sendmsg([b'x'], [], 0, facts['datagrams']) == 1"),
    calls("netlink", "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).close() is None", in_control=True),
    calls("packet-socket", "socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()"),
    calls("raw-socket-call", "raw(facts['calls']['socket'], 2, 1, 0) >= 0", in_control=True),
]  # fmt: skip

PROCESSES = [
    calls("fork-bomb", "while True:\n    os.fork()"),
    calls("fork-once", "pid = os.fork()\nif pid == 0:\n    os._exit(0)\nos.waitpid(pid, 0)\nreturn True", in_control=True),
    calls("clone-call", "raw(facts['calls']['clone'], 17, 0, 0, 0, 0)"),
    Case("clone3-call", "raw(facts['calls']['clone3'], ctypes.create_string_buffer(88), 88)", says="not implemented"),
    calls("subprocess", "import subprocess\nreturn subprocess.run(['/bin/true']).returncode == 0", in_control=True),
    calls("posix-spawn", "os.posix_spawn('/bin/true', ['true'], {}) > 0", in_control=True),
    Case("exec", "os.execv('/bin/true', ['true'])", says=f"{DENIED}|{CLOSED}", in_control=True),
    Case("exec-by-descriptor", "raw(facts['calls']['execveat'], os.open('/bin/true', os.O_PATH), b'', (ctypes.c_char_p * 2)(b'true'), None, 0x1000)", says=f"{DENIED}|{CLOSED}"),
    Case("set-uid-program", "os.execv('/bin/su', ['su', '-c', 'true'])", says=f"{DENIED}|{CLOSED}"),
    calls("multiprocessing", "import multiprocessing\nprocess = multiprocessing.get_context('fork').Process(target=print)\nprocess.start()\nprocess.join()\nreturn process.exitcode == 0", in_control=True),
    calls("kill-parent", "os.kill(os.getppid(), signal.SIGKILL)"),
    calls("kill-everybody", "os.kill(-1, signal.SIGKILL)"),
    calls("kill-its-group", "os.kill(0, signal.SIGKILL)"),
    calls("kill-the-owner", "os.kill(facts['owner'], signal.SIGKILL)"),
    calls("ask-whether-the-owner-lives", "os.kill(facts['owner'], 0) is None"),
    calls("signal-a-thread-of-the-owner", "raw(facts['calls']['tgkill'], facts['owner'], facts['owner'], 9)"),
    calls("signal-by-descriptor", "signal.pidfd_send_signal(os.pidfd_open(facts['owner']), 9)"),
    calls("signal-by-file-owner", "one, other = socket.socketpair()\nfcntl.fcntl(one, fcntl.F_SETOWN, facts['owner'])"),
    Case("raise-its-limits", "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (1, 1))", says="not allowed to raise|PermissionError"),
    calls("priority", "os.nice(-5)"),
    Case("ptrace", "raw(facts['calls']['ptrace'], 16, os.getppid(), 0, 0)", "no_result", "signal 31"),
    calls("read-the-parents-memory", "raw(facts['calls']['process_vm_readv'], os.getppid(), None, 0, None, 0, 0) >= 0"),
    calls("take-the-parents-descriptor", "raw(facts['calls']['pidfd_getfd'], 3, 0, 0)"),
]  # fmt: skip

KERNEL = [
    calls("io-uring", "raw(facts['calls']['io_uring_setup'], 8, ctypes.create_string_buffer(256))"),
    calls("userfaultfd", "raw(facts['calls']['userfaultfd'], 1)"),
    calls("bpf", "raw(facts['calls']['bpf'], 5, ctypes.create_string_buffer(128), 128)"),
    calls("unshare-user", "raw(facts['calls']['unshare'], 0x10000000) == 0"),
    calls("unshare-mounts", "raw(facts['calls']['unshare'], 0x00020000)"),
    calls("mount", "raw(facts['calls']['mount'], b'x', b'/tmp', b'tmpfs', 0, None)"),
    calls("keyctl", "raw(facts['calls']['keyctl'], 0, -3, 1) > 0"),
    calls("setns", "raw(facts['calls']['setns'], 0, 0)"),
    calls("perf", "raw(facts['calls']['perf_event_open'], ctypes.create_string_buffer(128), 0, -1, -1, 0)"),
    calls("shared-memory", "raw(facts['calls']['shmget'], 0, 4096, 0o1600) >= 0", in_control=True),
    calls("message-queue", "raw(facts['calls']['mq_open'], b'cherry', 0o102, 0o600, None) >= 0"),
    calls("personality", "raw(facts['calls']['personality'], 0x0040000)"),
    calls("file-handle", "raw(facts['calls']['name_to_handle_at'], -100, b'/', ctypes.create_string_buffer(128), ctypes.byref(ctypes.c_int()), 0)"),
    calls("kexec", "raw(facts['calls']['kexec_load'], 0, 0, None, 0)"),
    calls("change-root", "os.chroot('/')"),
    calls("become-root", "os.setuid(0)"),
    calls("its-own-filter", "raw(facts['calls']['seccomp'], 1, 0, ctypes.create_string_buffer(16))"),
    calls("process-control", "libc.prctl(4, 1, 0, 0, 0) == 0 or raw(facts['calls']['prctl'], 4, 1, 0, 0, 0)"),
    Case("x32-number", "raw(0x40000000 + 39)", "no_result", "signal 31"),
]  # fmt: skip

LITTLE = {"memory_bytes": 256 * 2**20}
SHORT = {"wall_seconds": 1.0, "cpu_seconds": 1.0}

RESOURCES = [
    Case("thread-bomb", "while True:\n    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()", says="can't start new thread", limits=LITTLE),
    Case("4-gb-at-once", "len(bytearray(4 * 2**30))", "memory", "MemoryError"),
    Case("4-gb-by-mmap", "mmap.mmap(-1, 4 * 2**30) is not None", says="Cannot allocate memory", in_control=True),
    Case("50-mb-steps", "held = []\nwhile True:\n    held.append(bytearray(50 * 2**20))", "memory", "MemoryError", limits=LITTLE),
    calls("memory-file", "os.ftruncate(os.memfd_create('x'), 4 * 2**30) is None", in_control=True),
    Case("endless-loop", "while True:\n    pass", "time", "longer than 1 s|1 seconds of CPU", limits=SHORT),
    Case("processor-time", "while True:\n    pass", "time", "1 seconds of CPU", limits={"cpu_seconds": 1.0}),
    Case("a-number-too-large", "10**10**10", "time", "second", limits=SHORT),
    Case("catastrophic-pattern", "re.match('(a+)+$', 'a' * 40 + 'b')", "time", "second", limits=SHORT),
    Case("a-loop-that-catches-everything", "while True:\n    try:\n        time.sleep(0.001)\n    except BaseException:\n        pass", "time", "longer than", limits=SHORT),
    Case("sleep", "time.sleep(1000)", "time", "longer than", limits=SHORT),
    Case("all-signals-blocked", "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\nwhile True:\n    time.sleep(1)", "time", "longer than", limits=SHORT),
    Case("handlers-for-all-signals", "for number in set(signal.valid_signals()) - {9, 19}:\n    signal.signal(number, lambda *_: None)\nwhile True:\n    pass", "time", "second", limits=SHORT),
    Case("stopped", "os.kill(os.getpid(), signal.SIGSTOP)", "time", "longer than", limits=SHORT),
    Case("threads-left-running", "def spin():\n    while True:\n        time.sleep(0.001)\nthreading.Thread(target=spin).start()\nreturn False", None, value=False),
]  # fmt: skip

OUTPUT = [
    Case("1-gb-printed", "for _ in range(16):\n    print('x' * 2**26)\nreturn False", None, value=False),
    Case("1-gb-to-descriptor-1", "data = b'x' * 2**26\nfor _ in range(16):\n    os.write(1, data)\nreturn False", None, value=False),
    Case("1-gb-to-the-answer", "data = b'x' * 2**26\nfor _ in range(16):\n    os.write(3, data)\nreturn False", "output", "more than it may"),
    Case("garbage-behind-an-answer", "os.write(3, b'{\"ok\": true, \"v\": 1}')\nreturn True", "no_result", NO_RESULT),
    Case("forged-nan", "os.write(3, b'{\"ok\": true, \"v\": NaN}\\n')\nos._exit(0)", "no_result", NO_RESULT),
    Case("forged-brackets", "os.write(3, b'[' * 15_000)\nos.write(3, b'[' * 1000)\nos._exit(0)", "no_result", NO_RESULT),
    Case("forged-with-more-keys", "os.write(3, b'{\"ok\": true, \"v\": 1, \"x\": 1}\\n')\nos._exit(0)", "no_result", NO_RESULT),
    Case("forged-twice-the-key", "os.write(3, b'{\"ok\": true, \"v\": 0, \"v\": 1}\\n')\nos._exit(0)", "no_result", NO_RESULT),
    Case("forged-oversize", "os.write(3, b'{\"ok\": true, \"v\": \"' + b'x' * 17_000 + b'\"}\\n')\nos._exit(0)", "no_result", NO_RESULT),
    Case("pickle-in-the-reply", "import pickle\nos.write(3, pickle.dumps({'ok': True, 'v': 1.0}))\nos._exit(0)", "no_result", NO_RESULT),
    Case("forged-ending", "os.write(3, b'{\"ok\": true}' + b'\\0' * 16)\nos._exit(0)", "no_result", NO_RESULT),
    Case("exit", "sys.exit()", "raised", "SystemExit"),
    Case("exit-at-once", "os._exit(0)", "no_result", r"The process ended before attack\(\) returned \(exit status 0\)"),
    Case("null-pointer", "ctypes.string_at(0)", "no_result", "signal 11"),
    Case("abort", "os.abort()", "no_result", "signal 6"),
    Case("nan", "float('nan')", "no_result", "not finite"),
    Case("infinity", "float('inf')", "no_result", "not finite"),
    Case("larger-than-any-float", "10**400", "no_result", "too large"),
    Case("complex", "1j", "no_result", "no number"),
    Case("class-whose-float-exits", "class Evil:\n    def __float__(self):\n        raise SystemExit\nreturn Evil()", "raised", "SystemExit"),
    Case("text-with-nul", "'\\0'", "no_result", NO_RESULT),
    Case("500-mb-message", "raise ValueError('x' * (500 * 2**20))", says="ValueError|MemoryError|unprintable"),
    Case("message-that-raises", "class Evil(Exception):\n    def __str__(self):\n        raise SystemExit\nraise Evil()", says="Evil"),
    Case("endless-recursion", "return attack(facts)", says="RecursionError"),
]  # fmt: skip

LEFT = [
    Case("patched-modules", "import random, math\nmath.sqrt = json.dumps = json.loads = random.random = lambda *_: 666\nimport builtins\nbuiltins.open = builtins.len = lambda *_: 666\nreturn False", "no_result", "no valid result|ended before", after="import math, random\nreturn math.sqrt(4) == 2 and random.random() < 1 and len([1]) == 1 and json.loads('[1]') == [1]"),
    Case("module-that-shadows", "open('colorsys.py', 'w').write('evil = 1')\nsys.path.insert(0, '.')\nimport colorsys\nreturn False", None, says=CLOSED, value=False, after="import colorsys\nreturn not hasattr(colorsys, 'evil') and '.' not in sys.path"),
    Case("file-left-behind", "open('left', 'w').write('x')\nos.makedirs('a/b/c')\nopen('a/b/c/d', 'w').write('x')\nreturn False", None, says=CLOSED, value=False, after="try:\n    return os.listdir('.') == []\nexcept PermissionError:\n    return True"),
    Case("deep-folders-left-behind", "for _ in range(2000):\n    os.mkdir('d')\n    os.chdir('d')\nreturn False", None, says=CLOSED, value=False, after="try:\n    return os.listdir('.') == []\nexcept PermissionError:\n    return True"),
    Case("variables-left-behind", "os.environ['LEFT'] = 'x'\nsys.left = 'x'\nimport builtins\nbuiltins.left = 'x'\nreturn False", None, value=False, after="return 'LEFT' not in os.environ and not hasattr(sys, 'left')"),
    Case("timers-left-behind", "signal.setitimer(signal.ITIMER_REAL, 0.05)\nsignal.signal(signal.SIGALRM, signal.SIG_IGN)\nreturn False", None, value=False, after="time.sleep(0.1)\nreturn signal.getsignal(signal.SIGALRM) == signal.SIG_DFL"),
]  # fmt: skip
"""At level full they may write a file; elsewhere that already fails."""

HOSTILE = [*FILES, *NETWORK, *PROCESSES, *KERNEL, *RESOURCES, *OUTPUT, *LEFT]


def works(name: str, body: str) -> Case:
    return Case(name, body, None, value=True)


BENIGN = [
    works("threads", "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor(4) as pool:\n    return list(pool.map(abs, [-1, -2])) == [1, 2]"),
    works("asyncio", "import asyncio\nasync def one():\n    await asyncio.sleep(0)\n    return 1\nasync def both():\n    return await asyncio.gather(one(), one())\nreturn asyncio.run(both()) == [1, 1]"),
    works("uuid", "import uuid\nreturn uuid.uuid4() != uuid.uuid4()"),
    works("time-zones", "import zoneinfo, datetime\nreturn str(datetime.datetime(2026, 7, 1, tzinfo=zoneinfo.ZoneInfo('Europe/Berlin')).utcoffset()) == '2:00:00'"),
    works("sqlite-in-memory", "import sqlite3\nreturn sqlite3.connect(':memory:').execute('select 1 + 1').fetchone() == (2,)"),
    works("exec-of-text", "names = {}\nexec('x = 6 * 7', names)\nreturn names['x'] == 42"),
    works("dataclasses", "import dataclasses\nPoint = dataclasses.make_dataclass('Point', ['x'])\nreturn Point(1) == Point(1)"),
    works("big-regular-expression", "len(re.findall('a+', 'ab' * 10_000)) == 10_000"),
    works("decimals-and-fractions", "from decimal import Decimal\nfrom fractions import Fraction\nreturn Decimal('0.1') + Decimal('0.2') == Decimal('0.3') and Fraction(1, 3) * 3 == 1"),
    works("hashes", "import hashlib\nreturn hashlib.sha256(b'').hexdigest().startswith('e3b0')"),
    works("xml-and-html", "import xml.etree.ElementTree as tree\nimport html\nreturn tree.fromstring('<a>1</a>').text == '1' and html.unescape('&lt;') == '<'"),
    works("null-device", "with open(os.devnull, 'w') as file:\n    print('x', file=file)\nreturn True"),
    works("own-alarm", "def late(*_):\n    raise TimeoutError\nsignal.signal(signal.SIGALRM, late)\nsignal.setitimer(signal.ITIMER_REAL, 0.05)\ntry:\n    time.sleep(5)\nexcept TimeoutError:\n    return True"),
    works("numpy-linear-algebra", "import numpy\nreturn bool(numpy.allclose(numpy.linalg.inv(numpy.eye(3)), numpy.eye(3)))"),
    works("printing", "print('to standard output', file=sys.stderr)\nreturn True"),
    works("warnings", "import warnings\nwarnings.warn('old')\nreturn True"),
]  # fmt: skip
