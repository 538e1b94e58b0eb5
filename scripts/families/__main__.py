"""Trains a tiny random model of every family in families.toml by every method, and writes what came of it.

`python -m scripts.families` tries all and writes the table of docs/models.md; with names or model types it
prints the table of those. A cell is right only if

* the sampler's log-probabilities are the trainer's, the KL at the start is exactly 0 (LoRA), and
* the delivered model, loaded by plain transformers, and the delivered adapter, by plain PEFT, give the same
  logits and write the same text, which is that of the engine's own sampler.

A refusal is right only where TRL cannot train the model either.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from scripts.families.listed import SCRIPTS, Family, families, gaps
from scripts.families.trial import METHODS, try_family

PAGE = SCRIPTS.parent / "docs" / "models.md"
HERE_ONLY = "--here"
BEGIN, END = "<!-- families: begin -->", "<!-- families: end -->"


def try_here(names: Sequence[str]) -> None:
    """Tries the named families, one after the other, and prints what came of each as a line of JSON."""
    for family in families():
        if family.name in names:
            print(json.dumps({"family": family.name, **try_family(family)}), flush=True)


def in_processes(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Returns what came of each family, tried in a process that is started anew if one ends it."""
    found: dict[str, dict[str, Any]] = {}
    while left := [name for name in names if name not in found]:
        command = [sys.executable, "-m", "scripts.families", HERE_ONLY, *left]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for line in child.stdout:
                if line.startswith('{"family"'):
                    told = json.loads(line)
                    found[told.pop("family")] = told
                    print(line, end="", flush=True)
        first = next((name for name in left if name not in found), None)
        if first is not None:
            found[first] = {"model": {"fault": f"the process ended with {child.returncode}"}}
    return found


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns the table of docs/models.md."""
    lines = [
        "| family | published models | reinforcement LoRA | full | supervised | dpo "
        "| thoughts | tools | path | LoRA adapts |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for family in families():
        if (told := found.get(family.name)) is not None:
            cells = [*(_cell(told, method) for method in METHODS), *_templates(family)]
            models = ", ".join(family.models)
            lines.append(
                f"| {family.name} | {models} | {' | '.join(cells)} | {_path(told)} | {_shares(told)} |"
            )
    return "\n".join(lines)


def _cell(told: Mapping[str, Any], method: str) -> str:
    outcome = told.get("model") or told[method]
    if "fault" not in outcome:
        return "right"
    return "**wrong**" if told.get("trl_trains", True) else "refused, by TRL too"


def _templates(family: Family) -> tuple[str, str]:
    """Says whether the family's original template shows thoughts and tools, where it is known."""
    missing = gaps(family)
    if missing is None:
        return "", ""
    thoughts = "no" if "thoughts" in missing else "last" if "earlier_thoughts" in missing else "yes"
    return thoughts, "no" if {"tools", "tool_calls"} & set(missing) else "yes"


def _path(told: Mapping[str, Any]) -> str:
    start = next((told[m] for m in ("lora", "full") if "path" in told.get(m, {})), None)
    if start is None:
        return ""
    return f"{start['path']}, without a cache" if start["way"] == "whole sequences" else str(start["path"])


def _shares(told: Mapping[str, Any]) -> str:
    adapted = told.get("lora", {}).get("adapted", {})
    whole = [kind for kind, (some, every) in adapted.items() if some == every]
    parts = [f"{kind} {some} of {every}" for kind, (some, every) in adapted.items() if 0 < some < every]
    none = [f"no {kind}" for kind, (some, _) in adapted.items() if some == 0]
    return ", ".join([*whole, *parts, *none])


def write(found: Mapping[str, Mapping[str, Any]]) -> None:
    """Puts the table and the versions that it was made with into docs/models.md."""
    from importlib.metadata import version

    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft", "trl"))
    before, _, rest = PAGE.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    text = f"{BEGIN}\n{len(found)} families, with {libraries}.\n\n{table(found)}\n{END}"
    PAGE.write_text(before + text + after)


def main(arguments: Sequence[str]) -> int:
    """Tries all families, or those named, and writes the table if it was all; 1 if a cell is wrong."""
    if arguments[:1] == [HERE_ONLY]:
        try_here(arguments[1:])
        return 0
    chosen = [
        family.name
        for family in families()
        if not arguments or family.name in arguments or family.type in arguments
    ]
    found = in_processes(chosen)
    print(table(found))
    if not arguments:
        write(found)
    return int("**wrong**" in table(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
