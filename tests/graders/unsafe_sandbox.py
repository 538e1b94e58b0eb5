"""A stand-in for the sandbox that protects from nothing: it runs programs that the tests themselves wrote."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from graders.services import Outcome, Program

_CALL = """
import json, random, sys
random.seed(0)
_source, _function, _arguments, _harness = json.load(open(sys.argv[1]))
_module = {"__name__": "program"}
exec(compile(_source, "program", "exec"), _module)
if _harness:
    from graders.sandbox import answer_side, judge_side
    answer_side.program = _module
    _module = vars({"answer": answer_side, "judge": judge_side}[_harness])
_value = json.dumps(_module[_function](*_arguments), allow_nan=False)
open(sys.argv[2], "w").write(_value)
"""


class UnsafeSandbox:
    """Each program in a process of its own, with a time limit."""

    def __init__(self, folder):
        self.folder = folder
        self.programs: list[Program] = []

    def why_not(self) -> str | None:
        return None

    def run(self, program: Program) -> Outcome:
        self.programs.append(program)
        given, result = self.folder / "given.json", self.folder / "result.json"
        result.unlink(missing_ok=True)
        given.write_text(
            json.dumps([program.source, program.function, list(program.arguments), program.harness])
        )
        command = [sys.executable, "-P", "-s", "-c"]
        command += [_CALL, str(given), str(result)] if program.function else [program.source]
        try:
            done = subprocess.run(
                command,
                input=program.stdin,
                env={"PYTHONHASHSEED": "0", "PYTHONPATH": str(Path(__file__).parents[2])},
                capture_output=True,
                text=True,
                timeout=program.limits.wall_seconds,
            )
        except subprocess.TimeoutExpired:
            return Outcome(fault="time")
        if program.function is None:
            if done.returncode and "Traceback" in done.stderr:
                return Outcome(fault="raised", message=done.stderr)
            return Outcome(stdout=done.stdout, exit_code=done.returncode)
        if not result.exists():
            return Outcome(fault="raised" if done.returncode else "no_result", message=done.stderr)
        return Outcome(value=json.loads(result.read_text()), stdout=done.stdout)
