"""Tells which names a test takes from an answer, and which both import."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import lru_cache

from graders.code.frame import IMPORTS
from graders.code.python_tests import PythonTest

_USUAL = (None, "np", "pd", "sp", "sym", "dt", "nx", "plt")
"""Names that modules are imported by."""


@lru_cache(maxsize=256)
def _made_by(code: str) -> tuple[frozenset[str], Mapping[str, str]]:
    """Returns the names that a program defines at its top, and the lines that import the others."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return frozenset(), {}
    defined: set[str] = set()
    imported: dict[str, str] = {}
    for statement in tree.body:
        match statement:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                defined.add(name)
            case ast.Import(names=names):
                for one in names:
                    if one.asname not in _USUAL:
                        continue  # a module by another's name would judge by other functions
                    imported[(one.asname or one.name).partition(".")[0]] = ast.unparse(ast.Import([one]))
            case ast.ImportFrom(names=names, level=0):
                for one in names:
                    if one.asname is None:
                        imported[one.name] = ast.unparse(ast.ImportFrom(statement.module, [one], 0))
            case ast.Assign() | ast.AnnAssign():
                defined |= {node.id for node in _stored(statement)}
    return frozenset(defined), imported


def _stored(statement: ast.stmt) -> Iterator[ast.Name]:
    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node


def from_answer(test: PythonTest, code: str) -> tuple[list[str], list[str]]:
    """Returns the names that a test takes from the completion, and lines that import what both have.

    A name of Python's own is the completion's only where the test would ask nothing of it otherwise: the
    completion's own `abs` judges nobody.
    """
    defined, imported = _made_by(code)
    if "class Solution" in code and test.names & defined:
        imported = {**IMPORTS, **imported}  # LeetCode's frame
    names = {name for name in test.names if name in defined or name not in imported}
    lines = [imported[name] for name in sorted(test.names - names)]
    return sorted(names or (test.builtin_names & defined)), lines
