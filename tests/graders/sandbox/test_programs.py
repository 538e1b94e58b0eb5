"""What the sandbox does with programs: scripts, limits, output, flavours."""

import pytest

from graders.sandbox import LocalSandbox, SandboxSettings
from graders.sandbox.flavours import FLAVOURS, flavour_of
from graders.services import Limits, Program


def script(sandbox, source, stdin="", **limits):
    return sandbox.run(Program(source, stdin=stdin, limits=Limits(**{"wall_seconds": 20, **limits})))


def test_a_script_reads_its_input_and_its_output_is_kept(sandbox):
    outcome = script(sandbox, "for line in __import__('sys').stdin:\n    print(int(line) * 2)", "1\n2\n")
    assert (outcome.fault, outcome.exit_code, outcome.stdout) == (None, 0, "2\n4\n")


@pytest.mark.parametrize(
    "source",
    [
        "print(input() + '!')",
        "import sys\nsys.stdout.write(sys.stdin.readline().strip() + '!\\n')",
        "import sys\nsys.stdout.buffer.write(sys.stdin.buffer.read().strip() + b'!\\n')",
        "print(open(0).read().strip() + '!')",
        "import os\nos.write(1, os.read(0, 100).strip() + b'!\\n')\nos._exit(0)",
        "if __name__ == '__main__':\n    print(input() + '!')",
    ],
    ids=["input", "text", "bytes", "open-0", "descriptors", "main"],
)
def test_every_way_to_read_and_write_works(sandbox, source):
    outcome = script(sandbox, source, "héllo\n")
    assert (outcome.fault, outcome.exit_code, outcome.stdout) == (None, 0, "héllo!\n")


@pytest.mark.parametrize(
    ("source", "fault", "exit_code", "message"),
    [
        pytest.param("raise SystemExit(3)", None, 3, "", id="exit-code"),
        pytest.param("exit('no')", None, 1, "", id="exit-with-text"),
        pytest.param("import os\nos._exit(4)", None, 4, "", id="exit-at-once"),
        pytest.param("print(1)\n1 / 0", "raised", 1, "ZeroDivisionError", id="raises"),
        pytest.param("x = (", "raised", 1, "SyntaxError", id="syntax"),
        pytest.param("import ctypes\nctypes.string_at(0)", "no_result", -11, "signal 11", id="crash"),
        pytest.param(
            "print('a' * 2**16, flush=True)\nwhile True: pass", "time", -9, "longer than", id="hangs"
        ),
    ],
)
def test_a_script_ends_with_its_exit_code_or_a_fault(sandbox, source, fault, exit_code, message):
    outcome = script(sandbox, source, wall_seconds=5 if fault != "time" else 0.5)
    assert (outcome.fault, outcome.exit_code) == (fault, exit_code)
    assert message in outcome.message


def test_output_beyond_the_limit_is_dropped_and_a_flood_is_ended(sandbox):
    outcome = script(sandbox, "print('x' * 5000)", output_bytes=100)
    assert (outcome.fault, outcome.stdout) == (None, "x" * 100)
    flood = script(sandbox, "while True: print('x' * 1000)", output_bytes=100)
    assert (flood.fault, flood.stdout) == ("output", "x" * 100)


def test_input_is_no_way_to_change_the_request(sandbox):
    outcome = script(sandbox, "import os\nos.ftruncate(0, 0)", "abc")
    assert outcome.fault == "raised"
    assert "PermissionError" in outcome.message or "Invalid argument" in outcome.message


def test_an_argument_that_stands_in_two_places_arrives_as_two(sandbox):
    twice = ["a"]
    source = "def f(first, second):\n    first.append('b')\n    return second"
    assert sandbox.run(Program(source, "f", [twice, twice])).value == ["a"]


def test_settings_lower_what_programs_ask_for(sandbox):
    limits = Limits(wall_seconds=0.5, cpu_seconds=1, memory_bytes=128 * 2**20, output_bytes=1024)
    low = LocalSandbox(SandboxSettings(parallel=1, wanted=sandbox.assessment().level, limits=limits))
    try:
        assert low.run(Program("import time\ntime.sleep(60)")).fault == "time"
        assert low.run(Program("def f():\n    return len(bytearray(2**29))", "f")).fault == "memory"
        assert low.run(Program("def f():\n    return len(bytearray(2**27 + 2**24))", "f")).fault == "memory"
        assert low.run(Program("print('x' * 5000)")).stdout == "x" * 1024
        assert low.run(Program("def f():\n    return len(bytearray(2**26))", "f")).value == 2**26
    finally:
        low.close()


def test_large_arguments_arrive_whole(sandbox):
    text = "é" * 2_000_000
    outcome = sandbox.run(Program("def f(text):\n    return [len(text), text[-1]]", "f", [text]))
    assert outcome.value == [2_000_000, "é"]


def test_dataclasses_and_pydantic_models_of_the_program_work(sandbox):
    source = (
        "from __future__ import annotations\nimport dataclasses, typing\n"
        "@dataclasses.dataclass\nclass A:\n    x: typing.Optional[int] = None\n"
        "def f():\n    return typing.get_type_hints(A)['x'] == typing.Optional[int]"
    )
    assert sandbox.run(Program(source, "f")).value is True


@pytest.mark.parametrize(
    ("source", "flavour"),
    [
        pytest.param("import re, json", "standard", id="standard-library"),
        pytest.param("import numpy as np", "numpy", id="numpy"),
        pytest.param("from rapidfuzz import fuzz", "text", id="rapidfuzz"),
        pytest.param("import jsonschema, yaml", "text", id="schema"),
        pytest.param("import numpy.linalg, pandas", "tables", id="pandas"),
        pytest.param(
            "def grade(s, i):\n    from sklearn import metrics", "everything", id="inside-a-function"
        ),
        pytest.param("import numpy, jsonschema", "everything", id="of-two-kinds"),
        pytest.param("x = 'import numpy'", "standard", id="in-a-string"),
        pytest.param("import numpyish", "standard", id="another-name"),
        pytest.param("import numpy (", "standard", id="does-not-parse"),
    ],
)
def test_the_fork_server_is_chosen_from_the_imports(source, flavour):
    assert flavour_of(source) == flavour


def test_every_flavour_starts(sandbox):
    for packages in FLAVOURS.values():
        source = "".join(f"import {name}\n" for name in sorted(packages)) + "def f():\n    return 1"
        outcome = sandbox.run(Program(source, "f"))
        assert outcome.value == 1, outcome.message
