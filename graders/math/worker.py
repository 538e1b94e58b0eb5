"""Compares expressions for `math` in a process of its own: one JSON request and one JSON result a line.

sympy can need forever, or all memory, for a short expression, and nothing stops it from outside but a signal.
So it works in a process that a timer ends, and that its owner may kill at any time
(`graders/math/process.py`).
"""

from __future__ import annotations

import json
import logging
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any

MEMORY_BYTES = 2 * 2**30


def main() -> None:
    """Limits this process, loads sympy, and serves requests from standard input until it is closed."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    logging.disable(logging.CRITICAL)
    compare = _comparer()
    compare({"reference": "x+1", "answer": r"1+\frac{x}{1}", "decimals": 6, "strict": True})  # loads the rest
    results, sys.stdout = sys.stdout, sys.stderr
    results.write("ready\n")
    results.flush()
    for line in sys.stdin:
        request = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, request["seconds"])  # of CPU; the signal ends the process
        result = compare(request)
        signal.setitimer(signal.ITIMER_PROF, 0)
        results.write(json.dumps(result) + "\n")
        results.flush()


def _reader() -> Callable[[str], list[Any]]:
    """Loads sympy, which takes most of a second, and returns the function that reads an answer."""
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import parse
    from math_verify.parser import LatexExtractionConfig

    from graders.math import size

    as_it_is = NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none", equations=False
    )
    latex = [LatexExtractionConfig(normalization_config=as_it_is)]

    def read(text: str) -> list[Any]:
        """Returns what a bare answer means, as sympy's objects, not evaluated.

        The library's other reading, of plain text, ends in Python's `eval` and picks a number among words.
        """
        if "$" in text.replace("\\$", "") or size.is_too_deep_to_parse(text):
            return []
        if size.is_too_large_to_parse(text):
            raise size.TooLarge
        found = parse(f"${text}$", latex, fallback_mode="no_fallback", parsing_timeout=None)
        if max(map(size.digits, found), default=0.0) > size.MAX_DIGITS:
            raise size.TooLarge
        return list(found)

    return read


def _comparer() -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Returns the function that compares."""
    from math_verify import verify

    from graders.math.nearness import are_both_unsolvable, are_near
    from graders.math.size import TooLarge

    read = _reader()

    def compare(request: dict[str, Any]) -> dict[str, Any]:
        """Tells whether the `reference` and the answer (`parsed`) can be read, and whether they are equal."""
        decimals = request["decimals"]
        try:
            reference = read(request["reference"])
            answer = read(request["answer"]) if reference and request["answer"] else []
            is_equal = (
                bool(answer)
                and verify(
                    reference,
                    answer,
                    float_rounding=decimals,
                    strict=request["strict"],
                    timeout_seconds=None,
                )
                and are_near(reference[0], answer[0], decimals)
                and not are_both_unsolvable(reference[0], answer[0])
            )
        except TooLarge:
            return {"error": "too large", "why": TooLarge.why}
        except (Exception, RecursionError, MemoryError) as problem:
            return {"error": f"{type(problem).__name__}: {problem}"[:300]}
        return {"reference": bool(reference), "parsed": bool(answer), "equal": bool(is_equal)}

    return compare


if __name__ == "__main__":
    main()
